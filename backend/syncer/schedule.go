package syncer

import (
	"context"
	"hash/fnv"
	"slices"
	"sync"
	"time"

	"postern/backend/graph"
	"postern/backend/store"
)

// task is something that is done again and again, one run at a time.
type task struct {
	due     time.Time
	busy    bool
	urgent  bool // a client waits
	again   bool // asked for while busy
	fails   int
	ended   time.Time // the last run
	err     error     // of the last run
	runs    int
	waiters []chan error
}

// folder is the state of one folder's synchronisation.
type folder struct {
	task
	id       store.FolderID
	graphID  string
	opens    int
	every    time.Duration
	filled   bool                   // the skeleton is complete
	walking  bool                   // the run under way walks through the whole folder, which takes minutes
	active   bool                   // somebody has asked for it since it appeared, or it was filled before
	creating int                    // writes under way that make messages in here
	suspects map[store.GraphID]bool // messages to be read again, see suspect
	late     bool                   // the last round left something out because a client is at work on it
	byList   bool                   // delta is refused, as by a mailbox that is full: compare lists
	synced   time.Time              // end of the last job that went well
	total    int                    // messages in it as Graph's tree last told; 0: not told
	walk     *walk                  // nil unless it is being listed
}

// spread gives each folder its own part of d, so that not all are polled at once.
func spread(id store.FolderID, d time.Duration) time.Duration {
	h := fnv.New32a()
	h.Write([]byte{byte(id), byte(id >> 8), byte(id >> 16), byte(id >> 24)})
	return time.Duration(h.Sum32()%1000) * d / 1000
}

// startDue starts the jobs whose time has come and returns when to look again.
func (s *Syncer) startDue(ctx context.Context, wg *sync.WaitGroup) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	next := now.Add(time.Hour)

	if !s.tree.busy {
		if now.Before(s.tree.due) {
			next = earlier(next, s.tree.due)
		} else {
			jctx := s.tree.beginLocked(ctx)
			wg.Go(func() { s.treeDone(s.syncTree(jctx)) })
		}
	}

	var due []*folder
	for _, f := range s.folders {
		switch {
		case f.busy || f.due.IsZero():
		case now.Before(f.due):
			next = earlier(next, f.due)
		default:
			due = append(due, f)
		}
	}
	slices.SortFunc(due, func(a, b *folder) int {
		if a.urgent != b.urgent {
			if a.urgent {
				return -1
			}
			return 1
		}
		return a.due.Compare(b.due)
	})
	for _, f := range due {
		// One slot more for those a client waits for, so that three long first fills do not hold up a NOOP.
		if s.running >= maxJobs && !(f.urgent && s.running < 2*maxJobs) {
			break
		}
		s.running++
		jctx := f.beginLocked(ctx)
		wg.Go(func() {
			changed, err := s.syncFolder(jctx, f)
			s.folderDone(f, changed, err)
		})
	}
	return next
}

func (t *task) beginLocked(ctx context.Context) context.Context {
	t.busy = true
	if t.urgent {
		ctx = graph.WithLane(ctx, graph.Interactive)
	}
	t.urgent, t.again = false, false
	return ctx
}

// endLocked records a run's end.
func (t *task) endLocked(err error) {
	t.busy = false
	t.ended = time.Now()
	t.err = err
	if err != nil {
		t.fails++
	} else {
		t.fails = 0
		t.runs++
	}
}

func (t *task) wakeLocked(err error) {
	for _, w := range t.waiters {
		w <- err // buffered
	}
	t.waiters = nil
}

// backoff is the wait after the n-th failure in a row.
func backoff(n int, err error) time.Duration {
	d := min(5*time.Second<<min(n-1, 10), maxBackoff)
	return max(d, min(graph.RetryAfter(err), 2*maxBackoff))
}

func (s *Syncer) treeDone(err error) {
	s.record(err, "read folders")
	s.mu.Lock()
	t := &s.tree
	again := t.again
	t.endLocked(err)
	now := time.Now()
	switch {
	case err != nil:
		t.due = now.Add(backoff(t.fails, err))
	case again:
		t.due = now
	case now.Sub(s.used) > idleAfter:
		t.due = now.Add(idlePoll)
	default:
		t.due = now.Add(treePoll)
	}
	t.wakeLocked(err)
	s.mu.Unlock()
	s.poke()
}

func (s *Syncer) folderDone(f *folder, changed bool, err error) {
	s.record(err, "synchronise folder")
	s.mu.Lock()
	s.running--
	again := f.again
	f.endLocked(err)
	now := time.Now()
	if err == nil {
		f.synced = now
	}
	switch {
	case err != nil:
		f.due = now.Add(backoff(f.fails, err))
	case again:
		f.due = now
	default:
		f.scheduleLocked(s, now, changed)
	}
	f.wakeLocked(err)
	s.mu.Unlock()
	s.poke()
	s.pokeIdle()
}

// quietEvery is how often a quiet folder is polled when so many are open: as often as any, until all together would take
// too much of the mailbox's budget.
func quietEvery(poll time.Duration, open int) time.Duration {
	return max(poll, time.Duration(open)*pollShare)
}

// closedEvery is how often, at most, a folder nobody has open is polled when so many are kept in step: with very many of them,
// so that all together leave most of the mailbox's budget to those who wait.
func closedEvery(idle bool, active int) time.Duration {
	if idle {
		return max(idlePoll, time.Duration(active)*closedShare)
	}
	return max(closedPoll, time.Duration(active)*closedShare)
}

// scheduleLocked sets the time of the next delta round.
func (f *folder) scheduleLocked(s *Syncer, now time.Time, changed bool) {
	if changed {
		f.every = s.settings.Load().Poll
	} else {
		open := 0
		for _, g := range s.folders {
			if g.opens > 0 {
				open++
			}
		}
		f.every = min(f.every+f.every/4, quietEvery(s.settings.Load().Poll, open))
	}
	d := f.every
	if f.opens == 0 {
		active := 0
		for _, g := range s.folders {
			if g.active {
				active++
			}
		}
		d = closedEvery(now.Sub(s.used) > idleAfter, active)
		d += spread(f.id, d)
	}
	if f.byList {
		d = max(d, listPoll)
	}
	if f.late || len(f.suspects) > 0 {
		d = min(d, time.Second)
		f.late = false
	}
	if look := s.copyLookLocked(f.id, now); look > 0 {
		d = min(d, look)
	}
	f.due = now.Add(d)
}

func (s *Syncer) poke() { ring(s.wake) }

func (s *Syncer) pokeIdle() { ring(s.idle) }

// ring makes the goroutine that reads c look around.
func ring(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// awaitLocked makes t run soon and waits for the end of the first run that begins after the call, or, with current, of a run
// that is under way already. s.mu must be held; it is released.
func (s *Syncer) awaitLocked(ctx context.Context, t *task, current bool) error {
	if s.stopped {
		s.mu.Unlock()
		return ErrStopped
	}
	now := time.Now()
	if t.err != nil && !t.busy && now.Sub(t.ended) < impatience {
		err := t.err
		s.mu.Unlock()
		return err
	}
	for first := true; ; first = false {
		w := make(chan error, 1)
		t.waiters = append(t.waiters, w)
		wasBusy := t.busy
		t.urgent = true
		if t.busy {
			t.again = t.again || !current
		} else {
			t.due = now
		}
		s.mu.Unlock()
		s.poke()
		select {
		case err := <-w:
			if err != nil || current || !wasBusy || !first {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
		s.mu.Lock()
	}
}
