package syncer

import (
	"context"
	"time"

	"postern/backend/store"
)

// FolderState says what the Syncer is doing with a folder. It is for people who look.
type FolderState struct {
	Asked    bool // somebody has wanted it: it is listed, then kept in step
	Filled   bool // its skeleton is complete
	Busy     bool // a job for it runs now
	Open     int  // sessions that have it open
	LastSync time.Time
	Err      error // of the last job, nil after a success

	// While it is listed, for the first time or anew:
	Listing   bool
	Done      int           // messages told by Graph so far
	Total     int           // all there are, as far as is known; 0: not known
	Remaining time.Duration // at the pace of the last pages; 0: not known
}

// paceSamples is how many pages the pace is taken from. A Retry-After in between slows it, and soon is forgotten.
const paceSamples = 20

// walk is how far the listing of a folder has come.
type walk struct {
	done  int
	total int
	pace  []sample // the last pages, oldest first
	told  time.Time
}

type sample struct {
	at   time.Time
	done int
}

// walkLog is how often the log tells of a long listing.
const walkLog = 30 * time.Second

// beginWalk notes that a listing begins, or goes on where done messages are there already.
func (s *Syncer) beginWalk(f *folder, done int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	f.walk = &walk{done: done, total: f.total, pace: []sample{{now, done}}, told: now}
}

// walked notes a page of n messages.
func (s *Syncer) walked(f *folder, name string, n int) {
	s.mu.Lock()
	w := f.walk
	if w == nil {
		s.mu.Unlock()
		return
	}
	now := time.Now()
	s.status.LastSync = now // the job itself may take an hour
	w.done += n
	if w.pace = append(w.pace, sample{now, w.done}); len(w.pace) > paceSamples {
		w.pace = w.pace[1:]
	}
	tell := now.Sub(w.told) >= walkLog
	if tell {
		w.told = now
	}
	done, total, left := w.done, w.total, w.remaining()
	s.mu.Unlock()
	if tell {
		s.log.Info("folder is being listed", "mailbox", name, "done", done, "of", total, "remaining", left.Round(time.Second))
	}
}

func (s *Syncer) endWalk(f *folder) {
	s.mu.Lock()
	f.walk = nil
	s.mu.Unlock()
}

// remaining returns how long the rest will take, 0 if that cannot be told.
func (w *walk) remaining() time.Duration {
	first, last := w.pace[0], w.pace[len(w.pace)-1]
	listed, took := last.done-first.done, last.at.Sub(first.at)
	if left := w.total - w.done; left > 0 && listed > 0 {
		return time.Duration(float64(took) / float64(listed) * float64(left))
	}
	return 0
}

// askTotal learns how many messages a folder has, where the tree has not told since the start. It costs a call, once for
// each listing that goes on after a restart.
func (s *Syncer) askTotal(ctx context.Context, f *folder) {
	s.mu.Lock()
	known := f.total > 0
	s.mu.Unlock()
	if known {
		return
	}
	row, err := s.o.Graph.Folder(ctx, f.graphID)
	if err != nil {
		return // the listing tells what is wrong, if anything is
	}
	s.mu.Lock()
	f.total = row.TotalItemCount
	s.mu.Unlock()
}

// FolderStates returns what is being done with each folder.
func (s *Syncer) FolderStates() map[store.FolderID]FolderState {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[store.FolderID]FolderState, len(s.folders))
	for id, f := range s.folders {
		st := FolderState{Asked: f.active, Filled: f.filled, Busy: f.busy, Open: f.opens, LastSync: f.synced, Err: f.err, Total: f.total}
		if w := f.walk; w != nil {
			st.Listing, st.Done, st.Total, st.Remaining = true, w.done, max(w.total, w.done), w.remaining()
			if w.total == 0 {
				st.Total = 0
			}
		}
		out[id] = st
	}
	return out
}
