package store

import (
	"context"
	"fmt"
)

// Answers reports whether both databases can be read and their writers are not stuck. It
// writes nothing, so that a full disk does not look like a program that hangs.
func (s *Store) Answers(ctx context.Context) error {
	for _, d := range []*database{s.db, s.outbox.db} {
		if err := d.answers(ctx); err != nil {
			return fmt.Errorf("%s does not answer: %w", d.kind.file, err)
		}
	}
	return nil
}

func (d *database) answers(ctx context.Context) error {
	select {
	case d.writing <- struct{}{}:
		<-d.writing
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-d.closed:
		return ErrClosed
	}
	var n int64
	return d.row(ctx, []any{&n}, "SELECT COUNT(*) FROM counters")
}

// checkedCounter is written by Check, for no other purpose than to be written.
const checkedCounter = "checked"

// Check commits a row to each database and so finds out whether the state folder can still be worked with: a full
// disk, a folder mounted read-only and a damaged file all show.
func (s *Store) Check(ctx context.Context) error {
	touch := func(t *tx) error { return t.setCounter(checkedCounter, s.now().Unix()) }
	if err := s.db.write(ctx, "check state", touch); err != nil {
		return err
	}
	return s.outbox.write(ctx, "check state", touch)
}
