package backend

import (
	"sync"
	"time"
)

// historyMinutes is how far back the calls of a mailbox are known.
const historyMinutes = 180

// CallMinute is what one mailbox asked of Graph in one minute. The items of a batch count one by one, as Graph counts them.
type CallMinute struct {
	At        time.Time // its beginning
	Calls     int
	Throttled int // of these, answered 429
	Failed    int // of these, answered 5xx or not at all
}

// callHistory counts the calls of the last hours by minutes.
type callHistory struct {
	mu   sync.Mutex
	ring [historyMinutes]CallMinute // by minute modulo its length
}

// add counts a call. An envelope, a batch as such, is counted only when it was refused as a whole.
func (h *callHistory) add(now time.Time, status int, envelope bool) {
	if envelope && status >= 200 && status <= 299 {
		return
	}
	minute := now.Truncate(time.Minute)
	h.mu.Lock()
	defer h.mu.Unlock()
	m := &h.ring[minute.Unix()/60%historyMinutes]
	if !m.At.Equal(minute) {
		*m = CallMinute{At: minute}
	}
	m.Calls++
	switch {
	case status == 429:
		m.Throttled++
	case status == 0 || status >= 500:
		m.Failed++
	}
}

// last returns the minutes up to now, oldest first, quiet ones too.
func (h *callHistory) last(now time.Time, minutes int) []CallMinute {
	minutes = min(minutes, historyMinutes)
	out := make([]CallMinute, minutes)
	end := now.Truncate(time.Minute)
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range out {
		at := end.Add(time.Duration(i-minutes+1) * time.Minute)
		out[i].At = at
		if m := h.ring[at.Unix()/60%historyMinutes]; m.At.Equal(at) {
			out[i] = m
		}
	}
	return out
}

// Calls returns what the mailbox asked of Graph in each of the last minutes, oldest first; at most 180 are known.
func (a *Account) Calls(minutes int) []CallMinute { return a.calls.last(time.Now(), minutes) }
