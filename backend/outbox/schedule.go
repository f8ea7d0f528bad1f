package outbox

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

// retryWaits is the default of Options.Retries.
var retryWaits = []time.Duration{
	15 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute,
	10 * time.Minute, 15 * time.Minute, 30 * time.Minute,
}

// lookWaits is the default of Options.Looks. Exchange files the sent copy some time
// after it has taken the message.
var lookWaits = []time.Duration{2 * time.Second, 5 * time.Second, 12 * time.Second}

// longerWaits is the default of Options.Longer. A repeat that comes minutes late, after a rare fault, is far better than a message
// sent twice: the client has had its answer long before.
var longerWaits = []time.Duration{20 * time.Second, 30 * time.Second, 50 * time.Second}

// Where the copies of other messages are missing too, a message is looked for again after behindWait, at most maxBehind
// times: someone may have deleted them. Such another message was sent between filedWithin and filedEver ago: most copies
// are there in seconds, and older ones tell nothing of today, or were cleared away.
const (
	behindWait  = time.Minute
	maxBehind   = 6
	filedWithin = 10 * time.Second
	filedEver   = 30 * time.Minute
)

// blindPatience is how long a message waits for leave to look for it. That leave may take two hours to act, when it
// was given by a role in Exchange. Graph: auth-limit-mailbox-access.
const blindPatience = 2*time.Hour + 10*time.Minute

// backoff returns the wait behind the given number of attempts, a little spread so
// that what failed together does not come back together.
func (q *Queue) backoff(attempts int) time.Duration {
	waits := q.opts.Retries
	w := waits[max(0, min(attempts-1, len(waits)-1))]
	return w + rand.N(w/10+1)
}

// item is one message in the schedule.
type item struct {
	id      string
	mailbox string
	due     time.Time
	seq     uint64
	notice  bool // a notice is owed, the message itself is settled
	waiter  *waiter

	tried        bool // this process has made an attempt
	told, expiry time.Time
}

// expires is when the message's time is up, from what its row says: as this process counts time, which does not jump when the clock
// of the machine is set. A device that learns the date only when the network is there would else give up what it has just taken.
func (it *item) expires(row time.Time) time.Time {
	if !it.told.Equal(row) {
		it.told, it.expiry = row, time.Now().Add(time.Until(row))
	}
	return it.expiry
}

// items is a heap, earliest first.
type items []*item

func (h items) Len() int { return len(h) }
func (h items) Less(i, j int) bool {
	if !h[i].due.Equal(h[j].due) {
		return h[i].due.Before(h[j].due)
	}
	return h[i].seq < h[j].seq
}
func (h items) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push and Pop are for package heap.
func (h *items) Push(x any) { *h = append(*h, x.(*item)) }

// Pop removes the last element.
func (h *items) Pop() any {
	old := *h
	it := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return it
}

// dueBy counts the elements from i down that are due at t, up to limit. Below one that is not due, none is.
func (h items) dueBy(i int, t time.Time, limit int) int {
	if i >= len(h) || limit <= 0 || h[i].due.After(t) {
		return 0
	}
	n := 1 + h.dueBy(2*i+1, t, limit-1)
	return n + h.dueBy(2*i+2, t, limit-n)
}

var _ heap.Interface = (*items)(nil)

// waiter is a client that still waits for DATA's answer. Either the first attempt
// settles it or the client has been told 250, never both.
type waiter struct {
	settled chan error // capacity 1
	taken   chan struct{}
}

func newWaiter() *waiter {
	w := &waiter{settled: make(chan error, 1), taken: make(chan struct{}, 1)}
	w.taken <- struct{}{}
	return w
}

// take claims the right to decide the answer; only the first caller gets it.
func (w *waiter) take() bool {
	if w == nil {
		return false
	}
	select {
	case <-w.taken:
		return true
	default:
		return false
	}
}

// accept lets the client have its 250 if nothing else was decided.
func (w *waiter) accept() {
	if w.take() {
		w.settled <- nil
	}
}
