package outbox

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"postern/backend/store"
)

// gathering brings together what an application submits once for each recipient. The first of such messages waits for
// a short time in the queue; the recipients of the others, which have the same bytes, login and sender, are
// added to it. Each of them is on disk before it is acknowledged. What is in memory here only shortens the way.
type gathering struct {
	mu   sync.Mutex
	open map[gatherKey]*gatherer
}

type gatherKey struct{ login, mailbox, from, digest string }

// gatherer is one message that others may join.
type gatherer struct {
	known chan struct{} // closed when id is known
	id    string        // "" if it was not accepted
	until time.Time
}

func keyOf(sub store.Submission) gatherKey {
	return gatherKey{sub.Login, strings.ToLower(sub.Mailbox), strings.ToLower(sub.EnvelopeFrom), sub.Digest}
}

func gathers(sub store.Submission) bool {
	return sub.Digest != "" && sub.MessageID != "" && !sub.GatherUntil.IsZero()
}

// restore takes up the messages that an earlier process left waiting for more recipients.
func (g *gathering) restore(box *store.Outbox) error {
	rows, err := box.List(context.Background(), store.Filter{States: []store.State{store.StateQueued}})
	if err != nil {
		return fmt.Errorf("list outbox: %w", err)
	}
	now := time.Now()
	for _, r := range rows {
		if !gathers(r) || !now.Before(r.GatherUntil) || r.Attempts > 0 {
			continue
		}
		if g.open == nil {
			g.open = make(map[gatherKey]*gatherer)
		}
		e := &gatherer{known: make(chan struct{}), id: r.ID, until: r.GatherUntil}
		close(e.known)
		g.open[keyOf(r)] = e
	}
	return nil
}

// errTooLate is for a message that is on its way already.
var errTooLate = errors.New("too late to add recipients")

// join adds sub's recipients to a message that waits for them. If there is none, sub becomes one, and its submitter
// must call begun.
func (g *gathering) join(ctx context.Context, q *Queue, sub store.Submission) (id string, joined bool) {
	if !gathers(sub) {
		return "", false
	}
	key := keyOf(sub)
	now := time.Now()
	g.mu.Lock()
	for k, e := range g.open {
		if now.After(e.until) {
			delete(g.open, k)
		}
	}
	first := g.open[key]
	if first == nil {
		if g.open == nil {
			g.open = make(map[gatherKey]*gatherer)
		}
		g.open[key] = &gatherer{known: make(chan struct{}), until: sub.GatherUntil}
		g.mu.Unlock()
		return "", false
	}
	g.mu.Unlock()
	<-first.known
	if first.id == "" {
		return "", false
	}
	if err := q.step("gather"); err != nil {
		return "", false
	}
	_, err := q.store.Update(context.WithoutCancel(ctx), first.id, func(s *store.Submission) error {
		if s.State != store.StateQueued || s.Attempts > 0 || !time.Now().Before(s.GatherUntil) {
			return errTooLate
		}
		there := make(map[string]bool, len(s.Recipients))
		for _, r := range s.Recipients {
			there[strings.ToLower(r.Address)] = true
		}
		for _, r := range sub.Recipients {
			if !there[strings.ToLower(r.Address)] {
				s.Recipients = append(s.Recipients, r)
			}
		}
		s.Unanswered = s.Unanswered || sub.Unanswered
		s.Events = append(s.Events, store.Event{What: "gathered", Text: "The same message came for another recipient."})
		return nil
	})
	if err != nil {
		return "", false // as a message of its own, then
	}
	return first.id, true
}

// begun tells those who wait what became of the first message.
func (g *gathering) begun(sub store.Submission, id string, err error) {
	if !gathers(sub) {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	e := g.open[keyOf(sub)]
	if e == nil {
		return
	}
	select {
	case <-e.known:
		return // of another message, which sub came too late for
	default:
	}
	if err == nil {
		e.id = id
	}
	close(e.known)
}
