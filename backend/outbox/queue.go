package outbox

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"postern/backend/store"
)

// Options is what a Queue is told.
type Options struct {
	Store    *store.Outbox
	Sender   Sender
	Lifetime time.Duration // how long a message is tried; 0 for 48 h
	Parallel int           // attempts at once for one mailbox; 0 for 4, Graph's limit
	Total    int           // attempts at once for all; 0 for 32
	Grace    time.Duration // how long running attempts may go on when stopping; 0 for 10 s
	Keep     time.Duration // how long rows of settled messages and their logs stay; 0 for 7 days
	Repeat   bool          // send again, unseen, what was perhaps sent where we may not look; else it is held for a person
	Warn     time.Duration // age from which a notice of delay is due to those who want one; 0 for 4 h

	// Retries are the waits behind failed attempts, the last one repeating, Looks
	// those before each look for a message whose sending ended unclearly, and Copies those before each look for a copy in
	// Sent Items that is not wanted. Empty for 15 s growing to 30 min, for 2, 5 and 12 s, and for 2 s growing to 30 min.
	Retries, Looks, Copies []time.Duration
	// Longer are the waits before further looks, where nothing tells that the message was not sent. Empty for 20, 30 and
	// 50 s, two minutes in all, or for none where Looks are given.
	Longer []time.Duration

	// Step is for tests: it is called before each step that lasts, that is, each change of a row and each removal of a
	// file. With an error the step does not take place, as if the process had died.
	Step func(step string) error

	// Observe is told what has become of an attempt: sent, deferred, postponed, unclear, bounced or refused. It must be
	// quick and safe for concurrent use. May be nil.
	Observe func(mailbox, outcome string)

	Logger *slog.Logger
}

// Times are the Options that can be changed while the queue runs.
type Times struct {
	Lifetime, Warn, Keep time.Duration
	Repeat               bool
}

// SetTimes changes them. Messages that are queued already keep the end they were given.
func (q *Queue) SetTimes(t Times) {
	q.times.Store(&Times{Repeat: t.Repeat, Lifetime: cmp.Or(max(t.Lifetime, 0), 48*time.Hour), Warn: cmp.Or(max(t.Warn, 0), 4*time.Hour), Keep: cmp.Or(max(t.Keep, 0), 7*24*time.Hour)})
}

// Queue holds the messages and runs the attempts. Rows and files are the truth; what
// is in memory is only the schedule.
type Queue struct {
	opts  Options // but for times
	times atomic.Pointer[Times]
	store *store.Outbox
	dir   string
	log   *slog.Logger
	slots chan struct{} // attempts at once, all mailboxes
	pings chan struct{} // of Answers; not buffered
	sync  sharedSync    // of dir

	stopping chan struct{} // closed when Run is asked to end, or has failed

	mu      sync.Mutex
	lanes   map[string]*lane
	known   map[string]bool // ids in the schedule or being tried
	early   []*item         // whose clients came before Run was ready, and wait
	seq     uint64
	begun   bool // Run was called
	running bool
	run     context.Context // of Run
	attempt context.Context // of attempts: outlives run by Grace
	wg      sync.WaitGroup

	gathering gathering

	uploads map[string]Upload // of messages being sent in pieces; under mu
}

// lane is one mailbox's share: its messages and its attempts, apart from all others.
type lane struct {
	mailbox string
	items   items
	owed    items // settled messages with something left to do; these do not wait for the pace of sending
	running int
	waiting int           // items whose client waits
	wake    chan struct{} // capacity 1
}

// New returns a queue over the store's outbox. Nothing is sent before Run.
func New(opts Options) (*Queue, error) {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&opts.Grace, 10*time.Second)
	if opts.Parallel <= 0 {
		opts.Parallel = 4
	}
	if opts.Total <= 0 {
		opts.Total = 32
	}
	if len(opts.Retries) == 0 {
		opts.Retries = retryWaits
	}
	if len(opts.Looks) == 0 {
		opts.Looks = lookWaits
		if len(opts.Longer) == 0 {
			opts.Longer = longerWaits
		}
	}
	if opts.Observe == nil {
		opts.Observe = func(string, string) {}
	}
	if len(opts.Copies) == 0 {
		opts.Copies = copyWaits
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	q := &Queue{
		opts: opts, store: opts.Store, dir: opts.Store.SpoolDir(), log: opts.Logger,
		slots: make(chan struct{}, opts.Total), pings: make(chan struct{}), stopping: make(chan struct{}),
		lanes: make(map[string]*lane), known: make(map[string]bool),
		uploads: make(map[string]Upload),
	}
	q.SetTimes(Times{Lifetime: opts.Lifetime, Warn: opts.Warn, Keep: opts.Keep, Repeat: opts.Repeat})
	if err := os.MkdirAll(q.dir, 0o700); err != nil {
		return nil, fmt.Errorf("create spool folder: %w", err)
	}
	// Now, when nobody can be writing a message yet.
	if err := q.rewrite(); err != nil {
		return nil, err
	}
	if err := q.sweep(); err != nil {
		return nil, err
	}
	if err := q.gathering.restore(q.store); err != nil {
		return nil, err
	}
	return q, nil
}

// step calls Options.Step.
func (q *Queue) step(name string) error {
	if q.opts.Step == nil {
		return nil
	}
	return q.opts.Step(name)
}

// remove removes the file of a message.
func (q *Queue) remove(path string) {
	if err := q.step("remove file"); err != nil {
		return
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		q.log.Warn("spool file not removed", "file", filepath.Base(path), "err", err)
	}
}

// Run takes up what earlier runs left, then sends until ctx ends. Attempts that are
// running then may finish within the grace time; what is cut off is settled by the
// next process. It returns when none runs any more, and can be called once.
func (q *Queue) Run(ctx context.Context) error {
	attempt, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	q.mu.Lock()
	if q.begun {
		q.mu.Unlock()
		return errors.New("outbox has been started already")
	}
	q.begun = true
	q.mu.Unlock()

	// Before anything is tried: a row that says "sending" now is an earlier process's.
	_, err := q.store.Recover(ctx)
	if err != nil {
		err = fmt.Errorf("recover outbox: %w", err)
	} else {
		q.begin(ctx, attempt)
		err = q.load(ctx)
	}
	if err == nil {
		q.prune(ctx)
		tick := time.NewTicker(time.Hour)
		defer tick.Stop()
		watch := time.NewTicker(watchEvery)
		defer watch.Stop()
	wait:
		for {
			select {
			case <-ctx.Done():
				break wait
			case <-q.pings:
			case <-tick.C:
				q.prune(ctx)
			case <-watch.C:
				q.notice(ctx)
			}
		}
	}

	q.mu.Lock()
	q.running = false
	close(q.stopping)
	for _, it := range q.early {
		it.waiter.accept()
	}
	q.early = nil
	for _, l := range q.lanes {
		for _, it := range l.items {
			it.waiter.accept() // it is on disk
		}
		l.poke()
	}
	q.mu.Unlock()
	grace := time.AfterFunc(q.opts.Grace, cancel)
	defer grace.Stop()
	q.wg.Wait()

	q.mu.Lock()
	q.lanes, q.known = make(map[string]*lane), make(map[string]bool)
	q.mu.Unlock()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// begin lets attempts start, with those that clients wait for.
func (q *Queue) begin(ctx, attempt context.Context) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.running, q.run, q.attempt = true, ctx, attempt
	for _, it := range q.early {
		q.scheduleLocked(it)
	}
	q.early = nil
}

// Hurry makes the messages of a mailbox that have failed before be tried at once: what was in the way may be gone.
func (q *Queue) Hurry(ctx context.Context, mailbox string) error {
	rows, err := q.store.List(ctx, store.Filter{Mailbox: mailbox, States: []store.State{store.StateQueued}})
	if err != nil {
		return fmt.Errorf("list outbox: %w", err)
	}
	now := time.Now()
	hurried := make(map[string]bool)
	for _, r := range rows {
		if r.Attempts == 0 || !r.NextAttempt.After(now) {
			continue
		}
		_, err := q.update(ctx, "hurry", r.ID, func(s *store.Submission) {
			if s.State == store.StateQueued {
				s.NextAttempt = now
			}
		})
		if err != nil {
			return fmt.Errorf("hurry message: %w", err)
		}
		hurried[r.ID] = true
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if l := q.lanes[mailbox]; l != nil {
		for _, it := range l.items {
			if hurried[it.id] {
				it.due = now
			}
		}
		heap.Init(&l.items)
		l.poke()
	}
	return nil
}

// load puts everything unfinished into the schedule.
func (q *Queue) load(ctx context.Context) error {
	rows, err := q.unfinished(ctx)
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	for i := range rows {
		r := &rows[i]
		it := &item{id: r.ID, mailbox: r.Mailbox, due: dueOf(r, now), notice: finished(r)}
		if r.State == store.StateUnclear && it.due.Before(now) {
			it.due = now.Add(q.opts.Looks[0])
		}
		it.expires(r.Expires)
		q.addLocked(it)
	}
	return nil
}

// dueOf is when a row is due. A row that was written in the future has been written before the clock was set back: what counts is
// how long it was to wait then.
func dueOf(r *store.Submission, now time.Time) time.Time {
	if ahead := r.Updated.Sub(now); ahead > time.Minute && !r.NextAttempt.IsZero() {
		return r.NextAttempt.Add(-ahead)
	}
	return r.NextAttempt
}

// unfinished returns all rows with something left to do.
func (q *Queue) unfinished(ctx context.Context) ([]store.Submission, error) {
	rows, err := q.store.List(ctx, store.Filter{States: []store.State{store.StateQueued, store.StateSending, store.StateUnclear}})
	if err != nil {
		return nil, fmt.Errorf("list outbox: %w", err)
	}
	listed := make(map[string]bool, len(rows))
	keep := rows[:0]
	for i := range rows {
		r := &rows[i]
		listed[r.ID] = true
		if r.Wish != store.WishNone && r.State != store.StateSending {
			// Asked for while it was being sent by a process that has died.
			if r, err = q.update(ctx, "grant wish", r.ID, grant); err != nil {
				return nil, err
			}
			if r.State == store.StateHeld || finished(r) && r.NextAttempt.IsZero() {
				continue
			}
		}
		keep = append(keep, *r)
	}
	rows = keep
	// Something is owed where a finished message still has its file; finished rows may be many.
	files, err := q.files()
	if err != nil {
		return nil, err
	}
	for _, id := range files {
		if listed[id] {
			continue
		}
		r, err := q.store.Get(ctx, id)
		if errors.Is(err, store.ErrNotFound) {
			continue // being submitted now
		}
		if err != nil {
			return nil, fmt.Errorf("read outbox: %w", err)
		}
		if finished(r) && !r.NextAttempt.IsZero() {
			rows = append(rows, *r)
		}
	}
	return rows, nil
}

// Submit takes over a spooled message: it returns once a power cut takes nothing of it and
// the first attempt has ended, at most wait later. A nil error means the message is
// ours to deliver. An *Error that is Permanent means that Exchange will never take
// it, and that nothing of it was kept.
//
// sub gives mailbox, sender, recipients and so on; id, file, times and state are set here.
func (q *Queue) Submit(ctx context.Context, s *Spool, sub store.Submission, wait time.Duration) (id string, err error) {
	if id, done := q.gathering.join(ctx, q, sub); done {
		s.Discard()
		return id, nil
	}
	defer func() { q.gathering.begun(sub, id, err) }()
	if err := q.step("sync file"); err != nil {
		return "", err
	}
	now := time.Now()
	sub.ID, sub.Spool, sub.Size, sub.Text = s.id, s.id+spoolSuffix, s.size, s.text()
	sub.State = store.StateQueued
	sub.Created, sub.NextAttempt, sub.Expires = now, now, now.Add(q.times.Load().Lifetime)
	if sub.GatherUntil.After(now) {
		sub.NextAttempt, wait = sub.GatherUntil, 0
	}
	sub.Events = append(sub.Events, store.Event{What: "accepted"})
	it := &item{id: sub.ID, mailbox: sub.Mailbox, due: sub.NextAttempt}

	// Known before the row is there: a Run that is just starting must not schedule it, too.
	q.mu.Lock()
	q.known[it.id] = true
	q.mu.Unlock()
	err = q.step("insert row")
	if err == nil {
		err = q.add(context.WithoutCancel(ctx), s, sub)
	}
	if err != nil {
		q.forget(it.id)
		q.remove(q.path(sub.Spool))
		return "", fmt.Errorf("store submission: %w", err)
	}
	if err := os.Chmod(q.path(sub.Spool), acceptedMode); err != nil {
		q.log.Debug("mode of spool file", "queue_id", sub.ID, "err", err) // only sweep looks at it
	}

	q.mu.Lock()
	var w *waiter
	if wait > 0 && q.opts.Sender.Delay(sub.Mailbox) <= 0 && !q.crowdedLocked(sub.Mailbox) {
		w = newWaiter()
		it.waiter = w
	}
	if w != nil && q.startsLocked() {
		q.early = append(q.early, it)
	} else {
		q.scheduleLocked(it)
	}
	q.mu.Unlock()
	if w == nil {
		return sub.ID, nil
	}

	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case err = <-w.settled:
		return sub.ID, err
	case <-timer.C:
	case <-ctx.Done():
	case <-q.stopping:
	}
	if w.take() {
		return sub.ID, nil
	}
	// The attempt was quicker after all; its verdict is on the way.
	return sub.ID, <-w.settled
}

// add inserts the row, with all there is of a small message, or else when the message's file is on the disk.
func (q *Queue) add(ctx context.Context, s *Spool, sub store.Submission) error {
	if sub.Text != nil {
		if err := s.commit(&q.sync); err != nil {
			return err
		}
		return q.store.Add(ctx, sub, nil)
	}
	durable := make(chan error, 1)
	go func() { durable <- s.commit(&q.sync) }()
	synced := sync.OnceValue(func() error { return <-durable })
	defer synced() // whatever comes of the row, nobody writes the file any more
	return q.store.Add(ctx, sub, synced)
}

// crowdedLocked reports whether so many messages of the mailbox wait for nothing but
// their turn that another one's client had better not.
func (q *Queue) crowdedLocked(mailbox string) bool {
	if len(q.early) >= 2*q.opts.Parallel {
		return true
	}
	l := q.lanes[mailbox]
	return l != nil && l.items.dueBy(0, time.Now(), 2*q.opts.Parallel) >= 2*q.opts.Parallel
}

// startsLocked reports whether Run is still to come, or reads what there is.
func (q *Queue) startsLocked() bool {
	select {
	case <-q.stopping:
		return false
	default:
		return !q.running
	}
}

func (q *Queue) addLocked(it *item) {
	if q.known[it.id] {
		return
	}
	q.known[it.id] = true
	q.scheduleLocked(it)
}

// scheduleLocked puts a known item into its lane, and starts the lane if need be.
func (q *Queue) scheduleLocked(it *item) {
	if !q.running {
		// Its row has it. The next Run reads that.
		delete(q.known, it.id)
		it.waiter.accept()
		return
	}
	q.seq++
	it.seq = q.seq
	l := q.lanes[it.mailbox]
	if l == nil {
		l = &lane{mailbox: it.mailbox, wake: make(chan struct{}, 1)}
		q.lanes[it.mailbox] = l
		q.wg.Add(1)
		go q.serve(q.run, l)
	}
	if it.notice {
		heap.Push(&l.owed, it)
	} else {
		heap.Push(&l.items, it)
	}
	if it.waiter != nil {
		l.waiting++
	}
	l.poke()
}

func (l *lane) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (q *Queue) forget(id string) {
	q.mu.Lock()
	delete(q.known, id)
	q.mu.Unlock()
}

// serve starts the attempts of one mailbox as they come due.
func (q *Queue) serve(ctx context.Context, l *lane) {
	defer q.wg.Done()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		q.mu.Lock()
		if !q.running || len(l.items)+len(l.owed) == 0 && l.running == 0 {
			if q.lanes[l.mailbox] == l {
				delete(q.lanes, l.mailbox)
			}
			q.mu.Unlock()
			return
		}
		it, wait := q.nextLocked(l)
		q.mu.Unlock()

		if it != nil {
			select {
			case q.slots <- struct{}{}:
				q.wg.Add(1)
				go q.try(l, it)
			case <-ctx.Done():
				it.waiter.accept()
			}
			continue
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		case <-timer.C:
		}
	}
}

// nextLocked takes the next item that may be tried now, or says how long to wait.
func (q *Queue) nextLocked(l *lane) (*item, time.Duration) {
	if l.running >= q.opts.Parallel {
		return nil, time.Hour // poked when that changes
	}
	now := time.Now()
	wait := time.Hour
	if len(l.owed) > 0 {
		if wait = l.owed[0].due.Sub(now); wait <= 0 {
			l.running++
			return heap.Pop(&l.owed).(*item), 0
		}
	}
	if len(l.items) == 0 {
		return nil, wait
	}
	head := l.items[0]
	if d := head.due.Sub(now); d > 0 {
		return nil, min(d, wait)
	}
	if d := q.opts.Sender.Delay(l.mailbox); d > 0 {
		// Clients do not wait for the pace.
		for i := 0; l.waiting > 0 && i < len(l.items); i++ {
			if it := l.items[i]; it.waiter != nil {
				it.waiter.accept()
				it.waiter = nil
				l.waiting--
			}
		}
		return nil, min(max(d, 10*time.Millisecond), wait)
	}
	heap.Pop(&l.items)
	if head.waiter != nil {
		l.waiting--
	}
	l.running++
	return head, 0
}

// try runs one attempt and puts the item back if there is more to do.
func (q *Queue) try(l *lane, it *item) {
	defer q.wg.Done()
	defer func() { <-q.slots }()
	var due time.Time
	if it.notice {
		due = q.afterwards(it)
	} else {
		due = q.attemptOnce(it)
	}
	it.waiter.accept()
	it.waiter = nil

	q.mu.Lock()
	defer q.mu.Unlock()
	l.running--
	if due.IsZero() {
		delete(q.known, it.id)
	} else {
		it.due = due
		q.scheduleLocked(it)
	}
	l.poke()
}

// update changes a row whatever becomes of the attempt's context: the outcome of a
// request must not be forgotten because we are asked to stop.
func (q *Queue) update(ctx context.Context, step, id string, change func(*store.Submission)) (*store.Submission, error) {
	if err := q.step(step); err != nil {
		return nil, err
	}
	return q.store.Update(context.WithoutCancel(ctx), id, func(s *store.Submission) error {
		change(s)
		return nil
	})
}

func (q *Queue) prune(ctx context.Context) {
	gone, err := q.store.Delete(ctx, time.Now().Add(-q.times.Load().Keep))
	if err != nil && ctx.Err() == nil {
		q.log.Warn("outbox not pruned", "err", err)
	}
	for _, s := range gone {
		q.remove(q.path(s.Spool))
	}
}
