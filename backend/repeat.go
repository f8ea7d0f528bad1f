package backend

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"postern/backend/store"
)

// A client whose connection ends before it has read the 250 does not know that its message was taken, and sends it again
// (RFC 1047). repeats holds such messages, so that the second copy is acknowledged and dropped. It takes only what is
// the same to the last byte, from the same login, to the same recipients, and with a Message-ID of
// the client's own: two alarms of a device that look alike are two messages.
type repeats struct {
	mu     sync.Mutex
	queued map[string]repeat
}

type repeat struct {
	id    string
	until time.Time
}

const (
	repeatTime = time.Hour
	maxRepeats = 4096
)

func repeatKey(login, from, digest string, recipients []store.Recipient) string {
	list := make([]string, len(recipients))
	for i, r := range recipients {
		list[i] = addressKey(r.Address)
	}
	slices.Sort(list)
	return strings.Join(append([]string{foldUser(login), addressKey(from), digest}, list...), "\x00")
}

// Unanswered says that the client may not have seen the answer to the message it submitted as queueID.
func (b *Backend) Unanswered(queueID string) {
	row, err := b.store.Outbox().Get(context.Background(), queueID)
	if err != nil || row.Digest == "" {
		return
	}
	r := &b.repeats
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if r.queued == nil || len(r.queued) >= maxRepeats {
		r.queued = make(map[string]repeat)
	}
	r.queued[repeatKey(row.Login, row.EnvelopeFrom, row.Digest, row.Recipients)] = repeat{id: row.ID, until: now.Add(repeatTime)}
}

// repeated returns the queue id under which sub was taken before, "" if it was not. Each is given once.
func (b *Backend) repeated(ctx context.Context, sub *store.Submission) string {
	r := &b.repeats
	key := repeatKey(sub.Login, sub.EnvelopeFrom, sub.Digest, sub.Recipients)
	r.mu.Lock()
	found, ok := r.queued[key]
	delete(r.queued, key)
	r.mu.Unlock()
	if !ok || time.Now().After(found.until) {
		return ""
	}
	row, err := b.store.Outbox().Get(ctx, found.id)
	if err != nil {
		return ""
	}
	switch row.State {
	case store.StateQueued, store.StateSending, store.StateUnclear, store.StateSent:
		return found.id
	}
	return "" // it failed meanwhile: another try is wanted
}
