// Package syncer keeps one mailbox's replica in the store equal to what Graph holds, in both directions.
//
// A Syncer's Run loop decides when folders are listed, polled and filled; each folder has at most one such job at a
// time. Sessions change things through its methods: what only changes flags is committed to the replica at once and
// pushed later, everything else is done in Graph first. Every commit is announced through Options.Changed before the
// next one can happen, so that whoever watches a folder sees one history, in order of mod-sequences.
package syncer

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"postern/backend/graph"
	"postern/backend/store"
)

// DeletePolicy says where expunged messages go.
type DeletePolicy string

// The policies.
const (
	DeleteRecoverable DeletePolicy = "recoverable"
	DeleteTrash       DeletePolicy = "trash"
	DeletePurge       DeletePolicy = "purge"
)

// Options are what a Syncer works with.
type Options struct {
	Address string // for logs
	Account store.AccountID
	Graph   *graph.Client
	Store   *store.Store
	Logger  *slog.Logger
	Poll    time.Duration // of folders somebody has open, while they change; zero means DefaultPoll
	Delete  DeletePolicy
	// ImportMIME uses the beta call importMime for what is appended, instead of JSON.
	ImportMIME bool

	// Changed is told what each commit did to a folder. It is called with commits held up: it must be quick and
	// must not call the Syncer.
	Changed func(store.Changes)
	// Gone is told of a folder that no longer exists, under the same rule.
	Gone func(store.FolderID)
	// HeadersKept is told that the store has got the headers of some messages. It must be quick. May be nil.
	HeadersKept func(store.FolderID, []store.MessageID)
	// Sending reports whether a message with this Message-ID is being sent from the mailbox, or was a moment ago.
	Sending func(messageID string) bool
}

// DefaultPoll is how often an open folder is polled while it changes.
const DefaultPoll = 5 * time.Second

// ErrStopped is answered once Run has returned.
var ErrStopped = errors.New("synchronisation has stopped")

const (
	maxJobs     = 3           // folder jobs at once; Graph allows four requests per mailbox
	quietFactor = 3           // an open folder that is quiet is polled this much more slowly
	closedPoll  = time.Minute // folders nobody has open: this and up to as much again, spread by folder
	idleAfter   = 30 * time.Minute
	idlePoll    = 10 * time.Minute // the same once nobody has used the account for idleAfter
	treePoll    = 30 * time.Second
	maxBackoff  = 5 * time.Minute
	impatience  = 2 * time.Second // a waiting client makes a failed job run again, but not more often than this
)

// Syncer keeps one mailbox in step. Its methods may be called from any goroutine.
type Syncer struct {
	o   Options
	log *slog.Logger

	// commit is held while the store is changed and the change is announced. No Graph call is made under it.
	commit sync.Mutex

	mu      sync.Mutex // below; never held while calling Graph or the store
	folders map[store.FolderID]*folder
	tree    task
	running int
	used    time.Time // when a session last asked for something
	status  Status
	stopped bool
	roles   map[string]store.FolderID // by well-known name
	known   map[string]string         // well-known name to Graph id
	bodies  map[store.MessageID]*flight
	own     map[store.GraphID]ownWrite
	moving  map[store.GraphID]int    // by clients, right now
	drafts  map[store.GraphID]string // versions of drafts seen in delta rounds
	tried   map[store.MessageID]bool // by background reading

	treeMu sync.Mutex // serialises readers and writers of the stored tree; may be held while calling Graph
	wake   chan struct{}
	push   chan struct{}
	idle   chan struct{}
}

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
	filled   bool // the skeleton is complete
	active   bool // somebody has asked for it since it appeared, or it was filled before
	creating int  // writes under way that make messages in here
	late     bool // the last round left something out because a client is at work on it
	byList   bool // the mailbox is full and refuses delta: compare lists
}

// New returns a Syncer. It does nothing before Run.
func New(o Options) *Syncer {
	if o.Poll <= 0 {
		o.Poll = DefaultPoll
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Changed == nil {
		o.Changed = func(store.Changes) {}
	}
	if o.Gone == nil {
		o.Gone = func(store.FolderID) {}
	}
	if o.Sending == nil {
		o.Sending = func(string) bool { return false }
	}
	return &Syncer{
		o:       o,
		log:     o.Logger.With("account", o.Address),
		folders: make(map[store.FolderID]*folder),
		roles:   make(map[string]store.FolderID),
		known:   make(map[string]string),
		bodies:  make(map[store.MessageID]*flight),
		own:     make(map[store.GraphID]ownWrite),
		moving:  make(map[store.GraphID]int),
		drafts:  make(map[store.GraphID]string),
		wake:    make(chan struct{}, 1),
		push:    make(chan struct{}, 1),
		idle:    make(chan struct{}, 1),
	}
}

// Run keeps the mailbox in step until ctx ends, and returns when everything it started has stopped.
func (s *Syncer) Run(ctx context.Context) error {
	defer s.stop()
	if err := s.load(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() { s.pushLoop(ctx) })
	wg.Go(func() { s.idleLoop(ctx) })
	defer wg.Wait()

	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		case <-timer.C:
		}
		next := s.startDue(ctx, &wg)
		timer.Reset(max(time.Until(next), 0))
	}
}

// load takes over what the store knows about the mailbox's folders.
func (s *Syncer) load(ctx context.Context) error {
	rows, err := s.o.Store.Folders(ctx, s.o.Account)
	if err != nil {
		return err
	}
	l, _, err := s.loadTree(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.adoptLocked(rows, l.wellKnown)
	now := time.Now()
	for _, f := range s.folders {
		if f.filled {
			f.active = true
			f.due = now.Add(spread(f.id, closedPoll))
			if f.opens > 0 {
				f.due = now
			}
		}
	}
	if len(rows) > 0 {
		s.tree.runs++
		s.tree.wakeLocked(nil)
	}
	s.tree.due = now
	s.used = now
	s.stopped = false
	return nil
}

// adoptLocked makes the folder states those of rows.
func (s *Syncer) adoptLocked(rows []store.Folder, wellKnown map[string]string) {
	byGraph := make(map[string]store.FolderID, len(rows))
	present := make(map[store.FolderID]bool, len(rows))
	for _, r := range rows {
		byGraph[string(r.GraphID)] = r.ID
		present[r.ID] = true
		f := s.folders[r.ID]
		if f == nil {
			f = &folder{id: r.ID, graphID: string(r.GraphID), every: s.o.Poll}
			s.folders[r.ID] = f
		}
		if r.Fill == store.FillDone {
			f.filled = true
		}
	}
	for id, f := range s.folders {
		if !present[id] {
			f.wakeLocked(store.ErrNotFound)
			delete(s.folders, id)
		}
	}
	clear(s.roles)
	s.known = wellKnown
	if s.known == nil {
		s.known = make(map[string]string)
	}
	for w, id := range wellKnown {
		if row, ok := byGraph[id]; ok {
			s.roles[w] = row
		}
	}
}

func (s *Syncer) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	s.tree.wakeLocked(ErrStopped)
	for _, f := range s.folders {
		f.wakeLocked(ErrStopped)
	}
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

// scheduleLocked sets the time of the next delta round.
func (f *folder) scheduleLocked(s *Syncer, now time.Time, changed bool) {
	if changed {
		f.every = s.o.Poll
	} else {
		f.every = min(f.every+f.every/4, quietFactor*s.o.Poll)
	}
	d := f.every
	if f.opens == 0 {
		d = closedPoll
		if now.Sub(s.used) > idleAfter {
			d = idlePoll
		}
		d += spread(f.id, d)
	}
	if f.byList {
		d = max(d, listPoll)
	}
	if f.late {
		d = min(d, time.Second)
		f.late = false
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

// await makes t run soon and waits for the end of the first run that begins after the call, or, with current, of a run
// that is under way already. s.mu must be held; await releases it.
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

// folderOf returns the state of a folder.
func (s *Syncer) folderOf(id store.FolderID) (*folder, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.folders[id]
	switch {
	case f != nil:
		return f, nil
	case s.stopped:
		return nil, ErrStopped
	}
	return nil, store.ErrNotFound
}

// EnsureTree returns when the folder tree has been read at least once, now or in an earlier life.
func (s *Syncer) EnsureTree(ctx context.Context) error {
	s.mu.Lock()
	s.used = time.Now()
	if s.tree.runs > 0 {
		if time.Since(s.tree.ended) > s.o.Poll && !s.tree.busy && s.tree.fails == 0 && s.tree.due.After(s.used) {
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
		f.every = s.o.Poll
		now := time.Now()
		s.used = now
		if f.fails == 0 && !f.busy {
			if now.Sub(f.ended) >= s.o.Poll {
				f.due = now
			} else {
				f.due = earlier(f.due, f.ended.Add(s.o.Poll))
			}
		}
	}
	s.mu.Unlock()
	s.poke()
	s.pokeIdle()
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

// Refresh waits for a delta round of the folder, unless one ended within the poll time.
func (s *Syncer) Refresh(ctx context.Context, id store.FolderID) error {
	s.mu.Lock()
	f := s.folders[id]
	if f == nil {
		s.mu.Unlock()
		return store.ErrNotFound
	}
	s.used = time.Now()
	if f.err == nil && f.runs > 0 && time.Since(f.ended) < s.o.Poll {
		s.mu.Unlock()
		return nil
	}
	return s.awaitLocked(ctx, &f.task, true)
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

// apply commits one Apply.
func (s *Syncer) apply(ctx context.Context, id store.FolderID, rows []store.Remote, gone []store.GraphID, sync *store.SyncUpdate) (store.Changes, error) {
	var ch store.Changes
	err := s.Commit(func() ([]store.Changes, error) {
		var err error
		ch, err = s.o.Store.Apply(ctx, id, rows, gone, sync)
		return []store.Changes{ch}, err
	})
	return ch, err
}

// Status says how the account is doing.
type Status struct {
	Ready    bool      // the folder tree has been read
	LastSync time.Time // of the last success
	Err      error     // of the last failure, nil after a success
	Since    time.Time // when Err first occurred
	Op       string    // what failed
}

// Status returns how the account is doing.
func (s *Syncer) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.status
	st.Ready = s.tree.runs > 0
	return st
}

// record notes a job's end for Status and the log.
func (s *Syncer) record(err error, op string) {
	if errors.Is(err, context.Canceled) || errors.Is(err, os.ErrDeadlineExceeded) && s.isStopped() {
		return
	}
	s.mu.Lock()
	before := s.status.Err
	if err == nil {
		s.status.LastSync, s.status.Err, s.status.Op = time.Now(), nil, ""
	} else {
		if before == nil {
			s.status.Since = time.Now()
		}
		s.status.Err, s.status.Op = err, op
	}
	s.mu.Unlock()
	switch {
	case err != nil && (before == nil || sameness(before) != sameness(err)):
		s.log.Warn("Graph cannot be used", "op", op, "err", err)
	case err == nil && before != nil:
		s.log.Info("Graph works again")
	}
}

// sameness is what two errors have in common when they need be logged only once; texts hold the request's id.
func sameness(err error) string {
	if e, ok := errors.AsType[*graph.Error](err); ok {
		return fmt.Sprint(e.Status, e.Code)
	}
	return err.Error()
}

func (s *Syncer) isStopped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopped
}
