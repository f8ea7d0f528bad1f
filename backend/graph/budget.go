package graph

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Limits are those of one app in one mailbox. Graph: throttling-limits.
type Limits struct {
	Concurrent      int           // requests at once, items of a batch among them
	OthersAtOnce    int           // of these, how many all lanes but Interactive may use together; whole batches excepted
	Requests        int           // per RequestWindow
	Background      int           // of these, how many may be used up when a background call still starts
	Patient         int           // of these, how many may be used up when a call with patience (WithPatience) still starts
	Unpaced         int           // of mail clients' requests, how many start as they come; further ones are spread, see Budget.pace
	RequestWindow   time.Duration //
	UploadBytes     int64         // per UploadWindow
	UploadWindow    time.Duration
	Sends           int // messages per SendWindow
	SendWindow      time.Duration
	PromoteAfter    time.Duration // a call that waited this long moves up a lane, so that none starves
	BatchGatherTime time.Duration // how long a batch waits for all the slots it would like; then it is made smaller
}

// DefaultLimits returns Graph's documented limits, less a little: clocks differ, and a refused request counts too.
func DefaultLimits() Limits {
	return Limits{
		Concurrent:      4,
		OthersAtOnce:    3,
		Requests:        9600, // of 10,000
		Background:      8800,
		Patient:         8200,
		Unpaced:         4000,
		RequestWindow:   10 * time.Minute,
		UploadBytes:     145_000_000, // of 150 MB
		UploadWindow:    5 * time.Minute,
		Sends:           30,
		SendWindow:      62 * time.Second, // Exchange's minute, and what requests may differ in their travel
		PromoteAfter:    15 * time.Second,
		BatchGatherTime: 300 * time.Millisecond,
	}
}

// Budget shares out what Graph allows in one mailbox among all who use it. It is safe for concurrent use.
type Budget struct {
	limits Limits

	mu       sync.Mutex
	running  int // slots in use
	others   int // of these, not of Interactive calls
	requests window
	clients  window    // of requests, those of mail clients that wait
	next     time.Time // for mail clients, while they are spread
	uploads  window
	sends    window
	paused   time.Time // nothing starts before; from Retry-After
	onPause  func(until time.Time)
	queue    []*waiter // in order of arrival
	timer    *time.Timer
}

// demand is what one HTTP request needs.
type demand struct {
	lane     Lane
	patient  bool
	requests int   // as Graph counts, one for each item of a batch
	slots    int   // as many at once
	upload   int64 // bytes
	sends    int
}

type waiter struct {
	demand
	since  time.Time
	latest time.Time     // when known to start later than this, it is refused
	turn   time.Time     // the same for its turn among mail clients'
	ready  chan struct{} // closed with got or err set
	got    int           // slots
	err    error
}

// NewBudget returns a budget with the limits; fields that are zero have their default.
func NewBudget(l Limits) *Budget {
	d := DefaultLimits()
	def(&l.Concurrent, d.Concurrent)
	if l.OthersAtOnce <= 0 {
		l.OthersAtOnce = max(1, l.Concurrent-1)
	}
	l.OthersAtOnce = min(l.OthersAtOnce, l.Concurrent)
	def(&l.Requests, d.Requests)
	if l.Background <= 0 {
		l.Background = max(1, l.Requests*92/100)
	}
	if l.Patient <= 0 {
		l.Patient = max(1, l.Requests*85/100)
	}
	if l.Unpaced <= 0 {
		l.Unpaced = max(1, l.Requests*42/100)
	}
	def(&l.RequestWindow, d.RequestWindow)
	def(&l.UploadBytes, d.UploadBytes)
	def(&l.UploadWindow, d.UploadWindow)
	def(&l.Sends, d.Sends)
	def(&l.SendWindow, d.SendWindow)
	def(&l.PromoteAfter, d.PromoteAfter)
	def(&l.BatchGatherTime, d.BatchGatherTime)
	return &Budget{
		limits:   l,
		requests: window{span: l.RequestWindow, limit: int64(l.Requests)},
		clients:  window{span: l.RequestWindow, limit: int64(l.Unpaced)},
		uploads:  window{span: l.UploadWindow, limit: l.UploadBytes},
		sends:    window{span: l.SendWindow, limit: int64(l.Sends)},
	}
}

func def[T int | int64 | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

// Usage is a snapshot of a budget for logs and metrics.
type Usage struct {
	Running     int           // requests (or batch items) under way
	Waiting     int           // calls in the queue
	Requests    int           // in the running window
	UploadBytes int64         // in the running window
	Sends       int           // in the running window
	PausedFor   time.Duration // what is left of a Retry-After

	RequestLimit int   // of Requests
	UploadLimit  int64 // of UploadBytes
	SendLimit    int   // of Sends
}

// Usage returns how much is in use now.
func (b *Budget) Usage() Usage {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.requests.expire(now)
	b.uploads.expire(now)
	b.sends.expire(now)
	return Usage{
		Running: b.running, Waiting: len(b.queue), Requests: int(b.requests.sum), UploadBytes: b.uploads.sum,
		Sends: int(b.sends.sum), PausedFor: max(0, b.paused.Sub(now)),
		RequestLimit: b.limits.Requests, UploadLimit: b.limits.UploadBytes, SendLimit: b.limits.Sends,
	}
}

// Remaining returns how many requests a lane may still start in the running window.
func (b *Budget) Remaining(lane Lane) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.requests.expire(time.Now())
	return max(0, int(b.requestLimit(demand{lane: lane})-b.requests.sum))
}

// Delay returns how long a call of the lane would wait now for a known time: a Retry-After, a used-up window, and for
// Sending the pace of sends. Calls under way, whose end nobody knows, do not count.
func (b *Budget) Delay(lane Lane) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	d := demand{lane: lane, requests: 1}
	if lane == Sending {
		d.sends = 1
	}
	return max(0, b.earliestLocked(d, now).Sub(now))
}

func (b *Budget) requestLimit(d demand) int64 {
	switch {
	case d.patient:
		return int64(b.limits.Patient)
	case d.lane == Background:
		return int64(b.limits.Background)
	}
	return int64(b.limits.Requests)
}

// earliestLocked returns the first time at which everything but a free slot is there.
func (b *Budget) earliestLocked(d demand, now time.Time) time.Time {
	at := now
	for _, t := range []time.Time{
		b.paused,
		b.requests.when(now, int64(d.requests), b.requestLimit(d)),
		b.uploads.when(now, d.upload, b.uploads.limit),
		b.sends.when(now, int64(d.sends), b.sends.limit),
	} {
		if t.After(at) {
			at = t
		}
	}
	return at
}

// pacedLocked returns the first time at which it is the turn of a mail client's request.
func (b *Budget) pacedLocked(d demand, now time.Time) time.Time {
	if d.ofClient() && b.next.After(now) && b.clients.when(now, 1, b.clients.limit).After(now) {
		return b.next
	}
	return now
}

// pacePatience is how long a mail client's request waits for its turn. Sessions keep their clients informed meanwhile, and
// the wait ends: nobody is refused who would be served.
const pacePatience = 3 * time.Minute

// ofClient reports whether a mail client waits for the call and is not kept informed meanwhile.
func (d *demand) ofClient() bool { return d.lane == Interactive && !d.patient && d.requests > 0 }

// pace notes that n requests of mail clients start. A client that works as fast as it can would use up the window within
// a minute or two, and be refused for the rest of it. So what exceeds a share of the window is spread: the less is
// left, the slower, so that it lasts until what was used first comes free again.
func (b *Budget) pace(now time.Time, n int) {
	if b.clients.add(now, int64(n)); b.clients.sum <= b.clients.limit {
		return
	}
	left := max(1, b.requests.limit-b.requests.sum)
	if b.next.Before(now) {
		b.next = now
	}
	b.next = b.next.Add(time.Duration(n) * b.limits.RequestWindow / 2 / time.Duration(left))
}

// acquire waits until the request may start and returns the function that gives its slots back, and how many they are. A
// wait known to last beyond latest, or beyond ctx's deadline, is refused at once with CodeLocalBudget.
//
// A demand for several slots is a batch, of which Graph runs so many items at once, in any lane: it waits a little for
// all of them, and then takes those that are free. It must then send only as many items as it got slots.
func (b *Budget) acquire(ctx context.Context, d demand, latest time.Time) (release func(), slots int, err error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	d.slots = max(1, min(d.slots, b.limits.Concurrent))
	turn := time.Now().Add(pacePatience)
	if deadline, ok := ctx.Deadline(); ok {
		if deadline.Before(latest) {
			latest = deadline
		}
		if deadline.Before(turn) {
			turn = deadline
		}
	}
	w := &waiter{demand: d, since: time.Now(), latest: latest, turn: turn, ready: make(chan struct{})}
	b.mu.Lock()
	b.queue = append(b.queue, w)
	b.dispatchLocked()
	b.mu.Unlock()
	select {
	case <-w.ready:
	case <-ctx.Done():
		b.mu.Lock()
		if i := slices.Index(b.queue, w); i >= 0 {
			b.queue = slices.Delete(b.queue, i, i+1)
			b.dispatchLocked() // it may have held others back
			b.mu.Unlock()
			return nil, 0, ctx.Err()
		}
		b.mu.Unlock()
	}
	if w.err != nil {
		return nil, 0, w.err
	}
	return sync.OnceFunc(func() { b.release(w) }), w.got, nil
}

func (b *Budget) release(w *waiter) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.running -= w.got
	if w.lane != Interactive {
		b.others -= w.got
	}
	b.dispatchLocked()
}

// pause lets nothing start for d.
func (b *Budget) pause(d time.Duration) {
	b.mu.Lock()
	until := time.Now().Add(d)
	longer := until.After(b.paused)
	if longer {
		b.paused = until
		b.dispatchLocked()
	}
	tell := b.onPause
	b.mu.Unlock()
	if longer && tell != nil {
		tell(until)
	}
}

// OnPause sets a function that is told until when Graph wants to be left alone, each time that moves on. It may take
// its time, and must not make calls that use the budget. Call it before the first call.
func (b *Budget) OnPause(tell func(until time.Time)) { b.onPause = tell }

// Restore tells a new budget what an earlier process did: when it sent, oldest first, and until when Graph
// wanted to be left alone. A time further away than any answer can ask for is not believed: a clock was wrong.
func (b *Budget) Restore(sends []time.Time, paused time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	for _, t := range sends {
		if t.After(now) {
			t = now
		}
		b.sends.add(t, 1)
	}
	if paused.Sub(now) <= maxRetryAfter && paused.After(b.paused) {
		b.paused = paused
	}
	b.dispatchLocked()
}

// rank orders waiters: by lane, those that waited long moved up.
func (b *Budget) rank(w *waiter, now time.Time) Lane {
	return min(Interactive, w.lane+Lane(now.Sub(w.since)/b.limits.PromoteAfter))
}

// dispatchLocked starts everything that may start, refuses what would wait too long, and sets the timer for the rest.
func (b *Budget) dispatchLocked() {
	if b.timer != nil {
		b.timer.Stop()
		b.timer = nil
	}
	if len(b.queue) == 0 {
		return
	}
	now := time.Now()
	order := slices.Clone(b.queue)
	slices.SortStableFunc(order, func(x, y *waiter) int { return int(b.rank(y, now)) - int(b.rank(x, now)) })
	var wake time.Time
	at := func(t time.Time) {
		if wake.IsZero() || t.Before(wake) {
			wake = t
		}
	}
	allHeld, othersHeld := false, false // for a batch that gathers slots
	for _, w := range order {
		t, paced := b.earliestLocked(w.demand, now), b.pacedLocked(w.demand, now)
		if refused := t.After(now) && t.After(w.latest) || paced.After(now) && paced.After(w.turn); refused || t.After(now) || paced.After(now) {
			if paced.After(t) {
				t = paced
			}
			if refused {
				w.err = &Error{Status: http.StatusTooManyRequests, Code: CodeLocalBudget, RetryAfter: t.Sub(now)}
				b.finishLocked(w)
				continue
			}
			at(t)
			continue
		}
		free := b.limits.Concurrent - b.running
		if allHeld || othersHeld && w.lane != Interactive || free <= 0 {
			continue
		}
		if free < w.slots {
			if t := w.since.Add(b.limits.BatchGatherTime); t.After(now) {
				at(t)
				allHeld = allHeld || w.lane == Interactive
				othersHeld = true
				continue
			}
		}
		if w.lane != Interactive && (w.slots == 1 || free < w.slots) {
			if free = min(free, b.limits.OthersAtOnce-b.others); free <= 0 {
				continue
			}
		}
		w.got = min(free, w.slots)
		if w.got < w.slots {
			w.requests = w.got
		}
		b.running += w.got
		if w.lane != Interactive {
			b.others += w.got
		}
		b.requests.add(now, int64(w.requests))
		if w.ofClient() {
			b.pace(now, w.requests)
		}
		if w.upload > 0 {
			b.uploads.add(now, w.upload)
		}
		if w.sends > 0 {
			b.sends.add(now, int64(w.sends))
		}
		b.finishLocked(w)
	}
	if !wake.IsZero() {
		b.timer = time.AfterFunc(max(wake.Sub(now), time.Millisecond), func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.dispatchLocked()
		})
	}
}

func (b *Budget) finishLocked(w *waiter) {
	if i := slices.Index(b.queue, w); i >= 0 {
		b.queue = slices.Delete(b.queue, i, i+1)
	}
	close(w.ready)
}
