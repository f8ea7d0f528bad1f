package store

import (
	"context"
	"errors"
	"math"
)

// UIDVALIDITY is the time of creation in Unix seconds, pushed up where that is not
// higher than the last one given (RFC 9051 section 2.3.1.1: a folder that comes
// back under an old name must have a higher one). The last one is a counter in the
// replica. Since several folders made in one second run ahead of the clock, a
// replica that is lost and read anew could give one twice; therefore a ceiling is
// kept in outbox.db, raised in steps so that it costs a write rarely.
const (
	uidValidityCounter = "uidvalidity"
	uidValidityCeiling = "uidvalidity_ceiling"
	uidValidityStep    = 1000
)

// inheritUIDValidity makes a new replica start above what older ones gave.
func (s *Store) inheritUIDValidity(ctx context.Context) error {
	var ceiling int64
	err := s.outbox.db.row(ctx, []any{&ceiling}, "SELECT value FROM counters WHERE name = ?", uidValidityCeiling)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return s.outbox.db.explain("read uidvalidity", err)
	}
	return s.db.write(ctx, "write uidvalidity", func(t *tx) error { return t.setCounter(uidValidityCounter, ceiling) })
}

// nextUIDValidity returns a value never given before.
func (s *Store) nextUIDValidity(ctx context.Context, t *tx) (uint32, error) {
	last, err := t.counter(uidValidityCounter)
	if err != nil {
		return 0, err
	}
	v := max(s.now().Unix(), last+1, 1)
	if v > math.MaxUint32 {
		return 0, errors.New("no uidvalidity left: the clock is past the year 2106")
	}
	err = s.outbox.db.write(ctx, "write uidvalidity", func(ot *tx) error {
		ceiling, err := ot.counter(uidValidityCeiling)
		if err != nil || v <= ceiling {
			return err
		}
		return ot.setCounter(uidValidityCeiling, v+uidValidityStep)
	})
	if err != nil {
		return 0, err
	}
	return uint32(v), t.setCounter(uidValidityCounter, v)
}

func (t *tx) counter(name string) (int64, error) {
	var v int64
	err := t.row([]any{&v}, "SELECT value FROM counters WHERE name = ?", name)
	if errors.Is(err, ErrNotFound) {
		return 0, nil
	}
	return v, err
}

func (t *tx) setCounter(name string, value int64) error {
	_, err := t.exec(`INSERT INTO counters (name, value) VALUES (?, ?)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, value)
	return err
}
