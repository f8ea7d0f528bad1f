package outbox

import "time"

// Upload is how far a message that is sent in pieces has come.
type Upload struct{ Done, Total int64 } // bytes

// SetUploaded notes how much of the message has been taken, for whoever looks at the queue meanwhile.
func (j *Job) SetUploaded(done, total int64) {
	if j.q == nil {
		return
	}
	now := time.Now()
	j.q.mu.Lock()
	if _, under := j.q.uploads[j.ID]; !under {
		j.uploadTold = now
	}
	j.q.uploads[j.ID] = Upload{done, total}
	j.q.mu.Unlock()
	if now.Sub(j.uploadTold) >= uploadLog {
		j.uploadTold = now
		j.q.log.Info("message is being uploaded", "queue_id", j.ID, "mailbox", j.Mailbox, "done", done, "of", total)
	}
}

// uploadLog is how often the log tells of a long upload.
const uploadLog = 30 * time.Second

// Uploads returns the messages that are being sent in pieces now, by id.
func (q *Queue) Uploads() map[string]Upload {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := make(map[string]Upload, len(q.uploads))
	for id, u := range q.uploads {
		out[id] = u
	}
	return out
}

// uploadEnded forgets an upload.
func (q *Queue) uploadEnded(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.uploads, id)
}
