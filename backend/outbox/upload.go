package outbox

// Upload is how far a message that is sent in pieces has come.
type Upload struct{ Done, Total int64 } // bytes

// SetUploaded notes how much of the message has been taken, for whoever looks at the queue meanwhile.
func (j *Job) SetUploaded(done, total int64) {
	if j.q == nil {
		return
	}
	j.q.mu.Lock()
	defer j.q.mu.Unlock()
	j.q.uploads[j.ID] = Upload{done, total}
}

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
