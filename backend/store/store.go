// Package store keeps the local replica of Microsoft 365 mailboxes and the outbox.
//
// A state folder holds replica.db (accounts, folders, messages, headers),
// outbox.db (submitted messages, and what must survive the loss of the replica),
// bodies/ (message bytes) and spool/ (submitted messages' bytes). One process at a
// time works on it.
//
// What holds at every moment, also after a crash:
//
//   - A UID is given in order and never again in its folder; a UIDVALIDITY is
//     higher than each one ever given in this state folder.
//   - Mod-sequences grow with every change of flags, keywords and membership, and
//     removals are journalled under them.
//   - A local flag change wins over what Graph says until it has been pushed.
//   - The counters of a folder agree with its messages.
//   - Each exported method that changes something is one transaction: it is on the
//     disk when the method returns, or nothing of it has happened. The one
//     exception is the file of a text that can be read again (CommitText).
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// Options say where and how a store is kept.
type Options struct {
	// Dir is the state folder. It is made, for the owner only, if it is not there.
	Dir string
	// BodyBudget is how many bytes the kept bodies may take on the disk; 0 for no limit.
	BodyBudget int64
	// HeadersReplaced is told, after the commit, of messages that may have another header than they had. It must be quick
	// and must not call the store. May be nil.
	HeadersReplaced func([]MessageID)
	Logger          *slog.Logger     // nil: none
	Now             func() time.Time // nil: time.Now
}

// Store is an open state folder. It is safe for concurrent use.
type Store struct {
	dir    string
	log    *slog.Logger
	now    func() time.Time
	lock   *os.File
	db     *database
	outbox *Outbox
	bodies *bodyCache

	folders folderCache
}

// Open opens the state folder and takes its lock. It removes what a crash may have
// left behind: unfinished body files and bodies that no message refers to.
func Open(ctx context.Context, opts Options) (_ *Store, err error) {
	s := &Store{dir: opts.Dir, log: opts.Logger, now: opts.Now}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.dir == "" {
		return nil, errors.New("open store: no state folder given")
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if s.lock, err = lockDir(s.dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if err := checkRestored(s.dir); err != nil {
		return nil, err
	}
	if err := s.copyBeforeUpdate(ctx); err != nil {
		return nil, err
	}
	if s.outbox, err = openOutbox(ctx, s.dir, s.now); err != nil {
		return nil, err
	}
	var created bool
	if s.db, created, err = openDatabase(ctx, s.dir, replicaKind); err != nil {
		return nil, err
	}
	s.db.headersReplaced = opts.HeadersReplaced
	if created {
		if err := s.inheritUIDValidity(ctx); err != nil {
			return nil, err
		}
		// SQLite makes what is in its files durable, not that they are there.
		for _, dir := range []string{s.dir, filepath.Dir(s.dir)} {
			if err := syncDir(dir); err != nil {
				return nil, fmt.Errorf("open store: %w", err)
			}
		}
	}
	if s.db.migrated || s.outbox.db.migrated {
		freeMigrationMemory()
	}
	if s.bodies, err = openBodies(ctx, s, filepath.Join(s.dir, "bodies"), opts.BodyBudget); err != nil {
		return nil, err
	}
	return s, nil
}

// Close waits for transactions under way and releases the state folder. Bodies
// that are open can be read to their end.
func (s *Store) Close() error {
	var errs []error
	if s.bodies != nil {
		errs = append(errs, s.bodies.flushAccess(context.Background()))
	}
	if s.db != nil {
		errs = append(errs, s.db.close())
	}
	if s.outbox != nil {
		errs = append(errs, s.outbox.Close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
		s.lock = nil
	}
	return errors.Join(errs...)
}

// Outbox returns the table of submissions.
func (s *Store) Outbox() *Outbox { return s.outbox }
