package syncer

import (
	"context"
	"slices"
	"sync"

	"postern/backend/store"
)

// hold marks the folder as one in which a message is being made, so that a delta round does not take the half-made
// message for somebody else's. The returned function ends that.
func (s *Syncer) hold(id store.FolderID) func() {
	s.mu.Lock()
	if f := s.folders[id]; f != nil {
		f.creating++
	}
	s.mu.Unlock()
	return sync.OnceFunc(func() {
		s.mu.Lock()
		if f := s.folders[id]; f != nil {
			f.creating--
		}
		s.mu.Unlock()
	})
}

// Commit runs change, which changes the store, and announces what it did before any other commit.
func (s *Syncer) Commit(change func() ([]store.Changes, error)) error {
	s.commit.Lock()
	defer s.commit.Unlock()
	changes, err := change()
	for _, ch := range changes {
		if !ch.Empty() {
			s.o.Changed(ch)
		}
	}
	return err
}

// Locked runs f while no commit can happen: what f reads from the store is exactly what Changed has told so far.
func (s *Syncer) Locked(f func() error) error {
	s.commit.Lock()
	defer s.commit.Unlock()
	return f()
}

// applyRead commits one Apply of rows that were read from Graph. Changes.Doubted are those that must be read again.
func (s *Syncer) applyRead(ctx context.Context, id store.FolderID, read reading, rows []store.Remote, gone []store.GraphID, sync *store.SyncUpdate) (store.Changes, error) {
	return s.commitRead(read, rows, func() (store.Changes, error) { return s.o.Store.Apply(ctx, id, rows, gone, sync) })
}

// commitRead is Commit for rows that were read from Graph.
func (s *Syncer) commitRead(read reading, rows []store.Remote, change func() (store.Changes, error)) (ch store.Changes, err error) {
	err = s.Commit(func() ([]store.Changes, error) {
		old := s.doubt(rows, read)
		ch, err = change()
		ch.Doubted = slices.DeleteFunc(ch.Doubted, func(id store.GraphID) bool { return old[id] })
		return []store.Changes{ch}, err
	})
	return ch, err
}

// apply commits one Apply of what Graph has said in answer to a change.
func (s *Syncer) apply(ctx context.Context, id store.FolderID, rows []store.Remote, gone []store.GraphID, sync *store.SyncUpdate) (store.Changes, error) {
	var ch store.Changes
	err := s.Commit(func() ([]store.Changes, error) {
		var err error
		ch, err = s.o.Store.Apply(ctx, id, rows, gone, sync)
		return []store.Changes{ch}, err
	})
	return ch, err
}
