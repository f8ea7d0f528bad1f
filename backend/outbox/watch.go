package outbox

import (
	"container/heap"
	"context"
	"slices"
	"time"
)

// watchEvery is how often the queue asks whether another process has changed the table.
const watchEvery = 500 * time.Millisecond

// notice takes over what another process has changed in the table.
func (q *Queue) notice(ctx context.Context) {
	changed, err := q.store.ChangedElsewhere(ctx)
	if err != nil {
		if ctx.Err() == nil {
			q.log.Warn("outbox not watched", "err", err)
		}
		return
	}
	if changed {
		q.takeOver(ctx)
	}
}

// Ask is Ask for the queue that runs, which takes notice at once.
func (q *Queue) Ask(ctx context.Context, id string, a Action, reason string) (later bool, err error) {
	if later, err = Ask(ctx, q.store, id, a, reason); err == nil {
		q.takeOver(ctx)
	}
	return later, err
}

// takeOver brings the schedule in line with the table.
func (q *Queue) takeOver(ctx context.Context) {
	rows, err := q.unfinished(ctx)
	if err != nil {
		if ctx.Err() == nil {
			q.log.Warn("outbox not read", "err", err)
		}
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	waiting := make(map[string]*item)
	for _, l := range q.lanes {
		for _, it := range l.items {
			waiting[it.id] = it
		}
		for _, it := range l.owed {
			waiting[it.id] = it
		}
	}
	touched := make(map[*lane]bool)
	now := time.Now()
	for i := range rows {
		r := &rows[i]
		it := waiting[r.ID]
		if it == nil {
			q.addLocked(&item{id: r.ID, mailbox: r.Mailbox, due: dueOf(r, now), notice: finished(r)})
			continue
		}
		l := q.lanes[it.mailbox]
		touched[l] = true
		due := dueOf(r, now)
		if !due.Equal(r.NextAttempt) && it.due.Before(due) {
			due = it.due // its times are of before the clock was set back; what it was waiting for stays
		}
		it.due = due
		if finished(r) && !it.notice {
			// Given up by a person: it is taken out of those to be sent.
			it.notice = true
			l.items = slices.DeleteFunc(l.items, func(o *item) bool { return o == it })
			l.owed = append(l.owed, it)
			if it.waiter != nil {
				it.waiter.accept()
				it.waiter = nil
				l.waiting--
			}
		}
	}
	// What was held or taken out stays in the schedule until its time comes, and is found not claimable then.
	for l := range touched {
		heap.Init(&l.items)
		heap.Init(&l.owed)
		l.poke()
	}
}
