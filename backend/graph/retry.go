package graph

import (
	"context"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// repeatable says when a request may be sent once more. A request that Graph did not carry out (429, no connection, a
// body it could not read) may always be.
type repeatable int

const (
	repeatUnsent  repeatable = iota // a send: nothing else
	repeatRefused                   // a creation, a move: also 503 that says it is throttling
	repeatAlways                    // reading, or a change whose repeat changes nothing: any passing failure
)

const (
	maxThrottled = 8 // answers that throttle, in one call
	maxTransient = 4 // other failures, in one call
	firstBackoff = time.Second
	maxBackoff   = time.Minute

	// maxRetryAfter bounds what one answer can ask for, so that an odd one does not stop a mailbox for days.
	maxRetryAfter = time.Hour
)

// backoff returns the wait before repeat n, counted from 0: growing, and different for each caller.
func backoff(n int) time.Duration {
	d := maxBackoff
	if n < 6 {
		d = min(firstBackoff<<n, maxBackoff)
	}
	return d/2 + rand.N(d/2+1)
}

// parseRetryAfter reads a Retry-After value: seconds, of which Graph's own example is 2.128, or an HTTP date.
// RFC 9110 section 10.2.3; Graph: throttling. Zero if absent or not understood.
func parseRetryAfter(s string, now time.Time) time.Duration {
	s = strings.TrimSpace(s)
	if s == "" {
		return 0
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		if math.IsNaN(f) || f <= 0 {
			return 0
		}
		return time.Duration(math.Ceil(min(f, maxRetryAfter.Seconds()) * float64(time.Second)))
	}
	if t, err := http.ParseTime(s); err == nil {
		return max(0, min(t.Sub(now), maxRetryAfter))
	}
	return 0
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
