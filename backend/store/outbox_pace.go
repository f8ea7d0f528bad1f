package store

import (
	"context"
	"errors"
	"time"
)

// keepSends is how long it is remembered that something was handed to Exchange. Its limits count over a minute.
const keepSends = 5 * time.Minute

// noteSends counts n messages handed to Exchange.
func (t *tx) noteSends(mailbox string, n int, now time.Time) error {
	for range n {
		if _, err := t.exec("INSERT INTO sends (mailbox, at) VALUES (?, ?)", mailbox, now.UnixMilli()); err != nil {
			return err
		}
	}
	_, err := t.exec("DELETE FROM sends WHERE at < ?", now.Add(-keepSends).UnixMilli())
	return err
}

// RecentSends returns when something was handed to Exchange for the mailbox since a time no longer than five minutes
// ago, oldest first.
func (o *Outbox) RecentSends(ctx context.Context, mailbox string, since time.Time) ([]time.Time, error) {
	rows, err := o.db.query(ctx, "SELECT at FROM sends WHERE mailbox = ? AND at >= ? ORDER BY at", mailbox, since.UnixMilli())
	if err != nil {
		return nil, o.db.explain("read pace", err)
	}
	defer rows.Close()
	var out []time.Time
	for rows.Next() {
		var at int64
		if err := rows.Scan(&at); err != nil {
			return nil, o.db.explain("read pace", err)
		}
		out = append(out, time.UnixMilli(at))
	}
	return out, o.db.explain("read pace", rows.Err())
}

// SetPause remembers until when Exchange wants no requests for the mailbox.
func (o *Outbox) SetPause(ctx context.Context, mailbox string, until time.Time) error {
	return o.write(ctx, "remember pause", func(t *tx) error {
		_, err := t.exec("INSERT INTO pauses (mailbox, until) VALUES (?, ?) ON CONFLICT (mailbox) DO UPDATE SET until = excluded.until",
			mailbox, until.UnixMilli())
		return err
	})
}

// Paused returns what SetPause was last told of the mailbox, the zero time if nothing.
func (o *Outbox) Paused(ctx context.Context, mailbox string) (time.Time, error) {
	var until int64
	err := o.db.row(ctx, []any{&until}, "SELECT until FROM pauses WHERE mailbox = ?", mailbox)
	if errors.Is(err, ErrNotFound) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, o.db.explain("read pause", err)
	}
	return time.UnixMilli(until), nil
}

// Answered notes that the clients of these submissions have seen that they were taken. Those that are gone do not matter.
func (o *Outbox) Answered(ctx context.Context, ids []string) error {
	return o.write(ctx, "note answers", func(t *tx) error {
		return inList(ids, nil, func(placeholders string, args []any) error {
			_, err := t.exec("UPDATE submissions SET unanswered = 0 WHERE id IN ("+placeholders+")", args...)
			return err
		})
	})
}
