package backend

import (
	"context"
	"fmt"
	"sync"
	"time"

	"postern/backend/store"
)

// Alive reports whether everything that must go round does: the databases, the queue's loop and each account's loop
// answer before ctx ends. That Microsoft 365 cannot be reached, or the disk is full, is no sign of death: a new start
// would not help. Call it only while Run runs.
func (b *Backend) Alive(ctx context.Context) error {
	if err := b.store.Answers(ctx); err != nil {
		return err
	}
	if err := b.outbox.Answers(ctx); err != nil {
		return fmt.Errorf("queue: %w", err)
	}
	for _, a := range b.accounts {
		if err := a.syncer.Answers(ctx); err != nil {
			return fmt.Errorf("mailbox %s: %w", a.address, err)
		}
	}
	return nil
}

// checkEvery is how long the answer of Check is believed: health checks may come every second, and each costs two commits.
const checkEvery = 10 * time.Second

// check is the last answer of Backend.Check.
type check struct {
	mu  sync.Mutex // held while checking, so that those who come meanwhile share the answer
	at  time.Time
	err error
}

// Check reports whether the state folder can be written, and mail be sent at all. Its answer may be some seconds old.
func (b *Backend) Check(ctx context.Context) error {
	b.check.mu.Lock()
	defer b.check.mu.Unlock()
	if time.Since(b.check.at) < checkEvery {
		return b.check.err
	}
	err := b.store.Check(ctx)
	if err == nil {
		if err = b.outbox.Answers(ctx); err != nil {
			err = fmt.Errorf("queue: %w", err)
		}
	}
	if ctx.Err() != nil {
		return err // says more about who asked
	}
	b.check.at, b.check.err = time.Now(), err
	return err
}

// QueueCounts returns how many submissions are in each state that has any.
func (b *Backend) QueueCounts(ctx context.Context) (map[store.State]int, error) {
	return b.store.Outbox().Counts(ctx)
}
