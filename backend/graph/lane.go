package graph

import (
	"context"
	"time"
)

// Lane says who waits for a call. A higher lane goes first.
type Lane int

// The lanes, lowest first. A context without one is Background.
const (
	Background  Lane = iota // nobody waits: polls, first fill
	Sending                 // a queued message
	Interactive             // a mail client
)

func (l Lane) String() string {
	switch l {
	case Interactive:
		return "interactive"
	case Sending:
		return "sending"
	}
	return "background"
}

type laneKey struct{}

// WithLane returns a context whose calls use the lane.
func WithLane(ctx context.Context, l Lane) context.Context {
	return context.WithValue(ctx, laneKey{}, max(Background, min(l, Interactive)))
}

// LaneOf returns the lane of a context.
func LaneOf(ctx context.Context) Lane {
	l, _ := ctx.Value(laneKey{}).(Lane)
	return l
}

type patienceKey struct{}

// WithPatience returns a context whose calls wait up to d for a known time, instead of as long as their lane usually
// does. It is for reading in bulk while somebody is kept informed: such calls use up only Limits.Patient of the request
// window, so that the rest of the mailbox's work goes on.
func WithPatience(ctx context.Context, d time.Duration) context.Context {
	return context.WithValue(ctx, patienceKey{}, d)
}

// patienceOf returns how long a call of ctx may wait for a known time, and whether that was said by WithPatience.
func patienceOf(ctx context.Context) (time.Duration, bool) {
	if d, ok := ctx.Value(patienceKey{}).(time.Duration); ok {
		return d, true
	}
	return LaneOf(ctx).patience(), false
}

// patience is how long a call of the lane may wait for a known time (a Retry-After, a used-up window) before it is
// refused as throttled instead: a mail client gives up by itself after a minute or so, and the queue has its own
// times. Background work waits as long as its context allows.
func (l Lane) patience() time.Duration {
	switch l {
	case Interactive:
		return 45 * time.Second
	case Sending:
		return 30 * time.Second
	}
	return 15 * time.Minute
}
