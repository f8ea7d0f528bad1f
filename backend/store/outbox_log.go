package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// putEvents adds a submission's events to the log.
func (t *tx) putEvents(s *Submission) error {
	for _, e := range s.Events {
		at := e.At
		if at.IsZero() {
			at = s.Updated
		}
		_, err := t.exec("INSERT INTO events (submission, at, what, status, text, request_id) VALUES (?, ?, ?, ?, ?, ?)",
			s.ID, at.UnixMilli(), e.What, e.Status, e.Text, e.RequestID)
		if err != nil {
			return err
		}
	}
	return nil
}

// Events returns what is logged about a submission, oldest first. It is empty for one that is not there.
func (o *Outbox) Events(ctx context.Context, id string) ([]Event, error) {
	rows, err := o.db.query(ctx, "SELECT at, what, status, text, request_id FROM events WHERE submission = ? ORDER BY id", id)
	if err != nil {
		return nil, o.db.explain("read log", err)
	}
	defer rows.Close()
	var out []Event
	for rows.Next() {
		var e Event
		var at int64
		if err := rows.Scan(&at, &e.What, &e.Status, &e.Text, &e.RequestID); err != nil {
			return nil, o.db.explain("read log", err)
		}
		e.At = time.UnixMilli(at).UTC()
		out = append(out, e)
	}
	return out, o.db.explain("read log", rows.Err())
}

// ChangedElsewhere reports whether another process has changed the outbox since the
// last call; the first call answers true. It costs microseconds.
func (o *Outbox) ChangedElsewhere(ctx context.Context) (bool, error) {
	select {
	case o.db.writing <- struct{}{}:
	case <-ctx.Done():
		return false, ctx.Err()
	case <-o.db.closed:
		return false, ErrClosed
	}
	defer func() { <-o.db.writing }()
	// The number moves with commits of other connections only, and this is the one
	// connection of ours that writes. https://sqlite.org/pragma.html#pragma_data_version
	var version int64
	if err := o.db.w.QueryRowContext(ctx, "PRAGMA data_version").Scan(&version); err != nil {
		return false, o.db.explain("read outbox", err)
	}
	changed := version != o.version
	o.version = version
	return changed, nil
}

// OpenOutbox opens the outbox of a state folder for changes, also while a server works
// on it, which then notices them. running tells whether one does. While none does, none can start before Close.
func OpenOutbox(ctx context.Context, dir string) (o *Outbox, running bool, err error) {
	path := filepath.Join(dir, outboxKind.file)
	if info, err := os.Stat(path); err != nil {
		return nil, false, fmt.Errorf("open outbox: %w", err)
	} else if info.Size() == 0 {
		return nil, false, fmt.Errorf("open outbox: %s is empty: postern has not run on this folder yet", path)
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, false, fmt.Errorf("open outbox: %w", err)
	}
	err = lockHandle(lock)
	running = errors.Is(err, errLocked)
	if running {
		lock.Close()
		lock = nil
	} else if err != nil {
		lock.Close()
		return nil, false, fmt.Errorf("lock state folder: %w", err)
	}
	d, err := newDatabase(path, outboxKind, false)
	if err != nil {
		if lock != nil {
			lock.Close()
		}
		return nil, false, err
	}
	o = &Outbox{db: d, dir: dir, now: time.Now, lock: lock}
	if err = d.checkOwner(ctx, false); err == nil {
		err = d.checkVersion(ctx)
	}
	if err == nil && !running {
		_, err = o.Recover(ctx)
	}
	if err != nil {
		o.Close()
		return nil, false, err
	}
	return o, running, nil
}

// checkVersion refuses tables of another version: changing them is for the server alone.
func (d *database) checkVersion(ctx context.Context) error {
	provider, err := d.migrations()
	if err != nil {
		return err
	}
	have, know, err := provider.GetVersions(ctx)
	switch {
	case err != nil:
		return d.explain("open", err)
	case have != know:
		return fmt.Errorf("open %s: its tables have version %d, this program works with %d: use the program that serves, and start that once after an update", d.path, have, know)
	}
	return nil
}
