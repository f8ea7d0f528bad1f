package store

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// commits lets writers that come at the same time share one transaction, and so one
// wait for the disk: twenty clients that end their messages together cost one fsync.
type commits struct {
	mu      sync.Mutex
	waiting []*change
}

// change is one writer's part of a shared transaction.
type change struct {
	fn   func(*tx) error
	err  error
	done chan struct{} // closed when err is final
}

// maxCommit is how many changes share one transaction at most.
const maxCommit = 256

// write runs fn in a transaction that it may share with others. What fn did is on
// the disk when write returns nil; when it returns an error none of it is.
func (o *Outbox) write(ctx context.Context, op string, fn func(*tx) error) error {
	if o.db.w == nil {
		return fmt.Errorf("%s: %w", op, ErrReadOnly)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	c := &change{fn: fn, done: make(chan struct{})}
	o.mu.Lock()
	o.waiting = append(o.waiting, c)
	o.mu.Unlock()

	select {
	case <-c.done: // another writer took it along
		return o.db.explain(op, c.err)
	case o.db.writing <- struct{}{}:
	case <-ctx.Done():
		if o.withdraw(c) {
			return fmt.Errorf("%s: %w", op, ctx.Err())
		}
		<-c.done
		return o.db.explain(op, c.err)
	case <-o.db.closed:
		if o.withdraw(c) {
			return fmt.Errorf("%s: %w", op, ErrClosed)
		}
		<-c.done
		return o.db.explain(op, c.err)
	}
	for !c.isDone() {
		o.commit()
	}
	<-o.db.writing
	return o.db.explain(op, c.err)
}

// writeAlone is write if nobody else writes or waits for it, else it does nothing and reports false.
func (o *Outbox) writeAlone(ctx context.Context, op string, fn func(*tx) error) (done bool, err error) {
	if o.db.w == nil || ctx.Err() != nil {
		return false, nil // write says so
	}
	o.mu.Lock()
	busy := len(o.waiting) > 0
	o.mu.Unlock()
	if busy {
		return false, nil
	}
	select {
	case <-o.db.closed:
		return false, nil
	default:
	}
	select {
	case o.db.writing <- struct{}{}:
	default:
		return false, nil
	}
	_, err = o.db.writeLocked(ctx, fn)
	<-o.db.writing
	return true, o.db.explain(op, err)
}

func (c *change) isDone() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// withdraw takes back a change that nobody has begun.
func (o *Outbox) withdraw(c *change) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	i := slices.Index(o.waiting, c)
	if i < 0 {
		return false
	}
	o.waiting = slices.Delete(o.waiting, i, i+1)
	return true
}

// commit carries out waiting changes. Its caller holds the writing token.
func (o *Outbox) commit() {
	o.mu.Lock()
	n := min(len(o.waiting), maxCommit)
	batch := slices.Clone(o.waiting[:n])
	o.waiting = slices.Delete(o.waiting, 0, n)
	o.mu.Unlock()
	if len(batch) == 0 {
		return
	}
	_, err := o.db.writeLocked(context.Background(), func(t *tx) error {
		if len(batch) == 1 {
			return batch[0].fn(t)
		}
		for _, c := range batch {
			if _, err := t.exec("SAVEPOINT one"); err != nil {
				return err
			}
			if c.err = c.fn(t); c.err != nil {
				if _, err := t.exec("ROLLBACK TO one"); err != nil {
					return err
				}
			}
			if _, err := t.exec("RELEASE one"); err != nil {
				return err
			}
		}
		return nil
	})
	for _, c := range batch {
		if c.err == nil {
			c.err = err
		}
		close(c.done)
	}
}
