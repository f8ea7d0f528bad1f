package imapd

import (
	"context"
	"time"

	"postern/backend"
)

// bodiesAhead is how many messages are opened while one is being written to the client. Where they come from Graph they
// are, with that one, the four requests a mailbox takes at once.
const bodiesAhead = 3

const (
	openTime = 50 * time.Millisecond // more than opening a kept body takes
	slowOpen = 2 * time.Millisecond  // more than it takes from memory: the disk is asked
)

// bodyQueue opens the bodies of rows in their order, some ahead of time.
type bodyQueue struct {
	s       *session
	rows    []fetchRow
	at      int  // the row next is about
	asked   int  // rows before this one have been looked at whether to open them ahead of time
	slow    bool // the last kept body took long to open
	waiting map[int]chan bodyResult
	ctx     context.Context
	cancel  context.CancelFunc
}

type bodyResult struct {
	body *backend.Body
	err  error
}

func newBodyQueue(s *session, rows []fetchRow) *bodyQueue {
	q := &bodyQueue{s: s, rows: rows, waiting: make(map[int]chan bodyResult)}
	q.ctx, q.cancel = context.WithCancel(s.ctx)
	return q
}

// next returns the body of the next row; close it.
func (q *bodyQueue) next() (*backend.Body, error) {
	i := q.at
	q.at++
	fromAhead := false
	if q.waiting[i] == nil {
		if result := q.s.ahead.take(q.rows[i].msg.UID); result != nil {
			q.waiting[i], fromAhead = result, true
			q.asked = max(q.asked, i+1)
		}
	}
	// What is kept is opened when it is wanted, for handing it from one goroutine to another takes as long as opening it.
	// Only where the disk is slow it is asked for several at once.
	for q.asked = max(q.asked, i); q.asked < min(len(q.rows), i+lookAhead) && (q.asked <= i || len(q.waiting) < bodiesAhead); q.asked++ {
		if q.waiting[q.asked] == nil && (!q.rows[q.asked].msg.HasBody || q.slow && q.asked > i) {
			q.ask(q.asked)
		}
	}
	result, ok := q.waiting[i]
	if ok && q.asked == len(q.rows) && (fromAhead || !q.rows[i].msg.HasBody) {
		q.s.readAhead(len(q.waiting) - 1)
	}
	if !ok {
		begun := time.Now()
		body, err := q.s.view.mbox.Body(q.s.ctx, q.rows[i].msg.UID)
		if q.slow = time.Since(begun) > slowOpen; q.slow {
			q.asked = i + 1
		}
		return body, err
	}
	delete(q.waiting, i)
	select {
	case r := <-result:
		return r.body, r.err
	default:
	}
	if q.rows[i].msg.HasBody {
		// Opening it takes no time worth a flush, unless it has been dropped meanwhile.
		timer := time.NewTimer(openTime)
		defer timer.Stop()
		select {
		case r := <-result:
			return r.body, r.err
		case <-timer.C:
		}
	}
	// The client gets what is ready before the wait.
	if err := q.s.enc.Flush(); err != nil {
		q.waiting[i] = result // for close
		return nil, err
	}
	var r bodyResult
	err := q.s.wait(func(context.Context) error {
		r = <-result
		return r.err
	})
	return r.body, err
}

func (q *bodyQueue) ask(i int) {
	uid := q.rows[i].msg.UID
	if q.waiting[i] = q.s.ahead.take(uid); q.waiting[i] == nil {
		q.waiting[i] = openBody(q.ctx, q.s.view.mbox, uid)
	}
}

// close gives up what was asked for and not taken, and waits for it.
func (q *bodyQueue) close() {
	q.cancel()
	if len(q.waiting) > 0 {
		q.s.ahead.drop() // some of them may have begun there
	}
	for _, result := range q.waiting {
		if r := <-result; r.body != nil {
			r.body.Close()
		}
	}
}
