package syncer

import (
	"context"
	"time"

	"postern/backend/store"
)

// EnsureTree returns when the folder tree has been read at least once, now or in an earlier life.
func (s *Syncer) EnsureTree(ctx context.Context) error {
	s.mu.Lock()
	s.used = time.Now()
	if s.tree.runs > 0 {
		if time.Since(s.tree.ended) > s.settings.Load().Poll && !s.tree.busy && s.tree.fails == 0 && s.tree.due.After(s.used) {
			s.tree.due = s.used // for the next who asks
			s.mu.Unlock()
			s.poke()
			return nil
		}
		s.mu.Unlock()
		return nil
	}
	return s.awaitLocked(ctx, &s.tree, true)
}

// RefreshTree reads the folder tree's changes now.
func (s *Syncer) RefreshTree(ctx context.Context) error {
	s.mu.Lock()
	return s.awaitLocked(ctx, &s.tree, false)
}

// EnsureFilled returns when the folder's skeleton is in the store: at once if it was listed before.
func (s *Syncer) EnsureFilled(ctx context.Context, id store.FolderID) error {
	for {
		s.mu.Lock()
		f := s.folders[id]
		if f == nil {
			stopped := s.stopped
			s.mu.Unlock()
			if stopped {
				return ErrStopped
			}
			return store.ErrNotFound
		}
		s.used = time.Now()
		f.active = true
		if f.filled {
			if f.due.IsZero() {
				f.due = s.used
			}
			s.mu.Unlock()
			s.poke()
			return nil
		}
		if err := s.awaitLocked(ctx, &f.task, true); err != nil {
			return err
		}
	}
}

// Opened says that a session has opened the folder. Until the matching Closed it is polled quickly.
func (s *Syncer) Opened(id store.FolderID) {
	s.mu.Lock()
	if f := s.folders[id]; f != nil {
		f.opens++
		f.active = true
		f.every = s.settings.Load().Poll
		now := time.Now()
		s.used = now
		if f.fails == 0 && !f.busy {
			if now.Sub(f.ended) >= s.settings.Load().Poll {
				f.due = now
			} else {
				f.due = earlier(f.due, f.ended.Add(s.settings.Load().Poll))
			}
		}
	}
	s.mu.Unlock()
	s.poke()
	s.pokeIdle()
}

// Hurry makes all that has failed run again at once, whatever it was told to wait: what was in the way may be gone.
func (s *Syncer) Hurry() {
	now := time.Now()
	s.mu.Lock()
	for _, f := range s.folders {
		if f.fails > 0 {
			f.fails, f.due = 0, now
		}
	}
	s.tree.fails, s.tree.due = 0, now
	s.mu.Unlock()
	s.poke()
	s.pokeIdle()
	ring(s.push)
}

// Closed takes back one Opened.
func (s *Syncer) Closed(id store.FolderID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used = time.Now()
	if f := s.folders[id]; f != nil && f.opens > 0 {
		f.opens--
	}
}

// Refresh waits for a delta round of the folder, unless one ended within the poll time. It does not wait for a walk
// through the whole folder: what that finds is announced as it goes.
func (s *Syncer) Refresh(ctx context.Context, id store.FolderID) error {
	s.mu.Lock()
	f := s.folders[id]
	if f == nil {
		s.mu.Unlock()
		return store.ErrNotFound
	}
	s.used = time.Now()
	if f.filled && f.walking || f.err == nil && f.runs > 0 && time.Since(f.ended) < s.settings.Load().Poll {
		s.mu.Unlock()
		return nil
	}
	return s.awaitLocked(ctx, &f.task, true)
}

// Stale reports whether no delta round of the folder has ended within age, though rounds work.
func (s *Syncer) Stale(id store.FolderID, age time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.folders[id]
	return f != nil && f.fails == 0 && time.Since(f.ended) > age
}

// RefreshNow waits for a delta round of the folder that begins now.
func (s *Syncer) RefreshNow(ctx context.Context, id store.FolderID) error {
	s.mu.Lock()
	f := s.folders[id]
	if f == nil {
		s.mu.Unlock()
		return store.ErrNotFound
	}
	return s.awaitLocked(ctx, &f.task, false)
}

// Poke makes the folder's next delta round start now, if it is synchronised at all.
func (s *Syncer) Poke(id store.FolderID) {
	s.mu.Lock()
	if f := s.folders[id]; f != nil && f.active && f.fails == 0 {
		if f.busy {
			f.again = true
		} else {
			f.due = time.Now()
		}
	}
	s.mu.Unlock()
	s.poke()
}

// Role returns the folder with a well-known name, such as "deleteditems".
func (s *Syncer) Role(wellKnown string) (store.FolderID, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, ok := s.roles[wellKnown]
	return id, ok
}
