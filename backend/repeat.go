package backend

import (
	"context"
	"slices"
	"sync"
	"time"

	"postern/backend/store"
)

// A client whose connection ends before it has read the 250 does not know that its message was taken, and sends it again
// (RFC 1047); so does one whose server was killed just then. The second copy is acknowledged and dropped. That is done only for
// what is the same to the last byte, from the same login, to the same recipients, and with a Message-ID of
// the client's own: two alarms of a device that look alike are two messages.
//
// The row says from the start that its client may not have seen the 250, and no longer does once the client has gone on: that
// outlives the process. What is in memory is for which messages a client is still there.
type repeats struct {
	mu       sync.Mutex
	here     map[string]bool // queue ids of messages whose client is connected, or has gone on
	answered []string        // of these, the ids that are still to be written down
	timer    *time.Timer     // writes them down
}

const (
	// repeatTime is how long a client's repeat is waited for. Postfix and Exim come back within it.
	repeatTime = time.Hour
	// noteAnswers is how long answers are gathered: one wait for the disk is enough for many.
	noteAnswers = 500 * time.Millisecond
)

// present notes that the client of a message is connected, false that it is not, or that the message was not taken.
func (r *repeats) present(id string, is bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !is {
		delete(r.here, id)
		return
	}
	if r.here == nil {
		r.here = make(map[string]bool)
	}
	r.here[id] = true
}

func (r *repeats) isPresent(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.here[id]
}

// Unanswered says that the client may not have seen the answer to the message it submitted as queueID.
func (b *Backend) Unanswered(queueID string) {
	b.repeats.present(queueID, false)
	ctx := context.Background()
	row, err := b.store.Outbox().Get(ctx, queueID)
	if err != nil || row.Digest == "" || row.Unanswered {
		return
	}
	// Another client has submitted a part of it, and gone on.
	if _, err := b.store.Outbox().Update(ctx, queueID, func(s *store.Submission) error { s.Unanswered = true; return nil }); err != nil {
		b.log.Warn("lost answer not written down", "queue_id", queueID, "err", err)
	}
}

// Answered says that the client has gone on after the answer to the message it submitted as queueID.
func (b *Backend) Answered(queueID string) {
	r := &b.repeats
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.here[queueID] {
		return
	}
	r.answered = append(r.answered, queueID)
	if r.timer == nil {
		r.timer = time.AfterFunc(noteAnswers, b.flushAnswers)
	}
}

// flushAnswers writes down what Answered was told.
func (b *Backend) flushAnswers() {
	r := &b.repeats
	r.mu.Lock()
	ids := r.answered
	r.answered = nil
	if r.timer != nil {
		r.timer.Stop()
		r.timer = nil
	}
	r.mu.Unlock()
	if len(ids) == 0 {
		return
	}
	if err := b.store.Outbox().Answered(context.Background(), ids); err != nil {
		b.log.Warn("answers not written down", "count", len(ids), "err", err)
		return // until the next start they count as seen
	}
	for _, id := range ids {
		r.present(id, false)
	}
}

// repeated returns the queue id under which sub was taken before, "" if it was not.
func (b *Backend) repeated(ctx context.Context, sub *store.Submission) string {
	rows, err := b.store.Outbox().List(ctx, store.Filter{
		MessageID: sub.MessageID, Digest: sub.Digest, NewerThan: time.Now().Add(-repeatTime),
		// One that has failed meanwhile is to be tried again.
		States: []store.State{store.StateQueued, store.StateSending, store.StateUnclear, store.StateSent},
	})
	if err != nil {
		b.log.Warn("outbox not searched", "mailbox", sub.Mailbox, "err", err)
		return ""
	}
	for _, row := range rows {
		if row.Unanswered && !b.repeats.isPresent(row.ID) && sameEnvelope(&row, sub) {
			b.repeats.present(row.ID, true)
			return row.ID
		}
	}
	return ""
}

// sameEnvelope reports whether sub repeats row: the same login, sender and recipients, or some of those that were gathered.
func sameEnvelope(row, sub *store.Submission) bool {
	if foldUser(row.Login) != foldUser(sub.Login) || addressKey(row.EnvelopeFrom) != addressKey(sub.EnvelopeFrom) {
		return false
	}
	keys := func(rcpts []store.Recipient) []string {
		list := make([]string, len(rcpts))
		for i, r := range rcpts {
			list[i] = addressKey(r.Address)
		}
		slices.Sort(list)
		return slices.Compact(list)
	}
	have, want := keys(row.Recipients), keys(sub.Recipients)
	if row.GatherUntil.IsZero() {
		return slices.Equal(have, want)
	}
	return !slices.ContainsFunc(want, func(k string) bool { return !slices.Contains(have, k) })
}
