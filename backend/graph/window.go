package graph

import "time"

// window counts what happened in the last span of time, in steps of a six-hundredth of it.
type window struct {
	span  time.Duration
	limit int64
	steps []step // oldest first
	sum   int64
}

// step is what happened within one step. It leaves the window when its newest event does.
type step struct {
	first, last time.Time
	n           int64
}

func (w *window) add(now time.Time, n int64) {
	w.expire(now)
	w.sum += n
	if i := len(w.steps) - 1; i >= 0 && now.Sub(w.steps[i].first) < w.span/600 {
		w.steps[i].n += n
		w.steps[i].last = now
		return
	}
	w.steps = append(w.steps, step{first: now, last: now, n: n})
}

func (w *window) expire(now time.Time) {
	i := 0
	for i < len(w.steps) && now.Sub(w.steps[i].last) >= w.span {
		w.sum -= w.steps[i].n
		i++
	}
	w.steps = append(w.steps[:0], w.steps[i:]...)
}

// when returns the time from which n more fit below limit, now or earlier if they do already. What exceeds the limit by
// itself fits an empty window.
func (w *window) when(now time.Time, n, limit int64) time.Time {
	if n == 0 {
		return now // asks nothing of this window, not even that others kept to it
	}
	w.expire(now)
	n = min(n, limit)
	sum := w.sum
	if sum+n <= limit {
		return now
	}
	for _, s := range w.steps {
		sum -= s.n
		if sum+n <= limit {
			return s.last.Add(w.span)
		}
	}
	return now
}
