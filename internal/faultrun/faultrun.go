// Package faultrun tells the tests that break things at random how long to go on and with which chance. Each is short by
// itself; POSTERN_LONG=5m makes it go on for about that long, and POSTERN_SEED=7 takes another course.
// docs/testing.md has the list of them.
package faultrun

import (
	"os"
	"strconv"
	"testing"
	"time"
)

// Length is how long a run goes on: short, or what POSTERN_LONG says.
func Length(t testing.TB, short time.Duration) time.Duration {
	t.Helper()
	s := os.Getenv("POSTERN_LONG")
	if s == "" {
		return short
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		t.Fatalf("POSTERN_LONG=%s is no duration such as 5m", s)
	}
	return max(d, short)
}

// Seed is that of the run: the usual one, or what POSTERN_SEED says. It is logged, so that a failure can be had again.
func Seed(t testing.TB, usual uint64) uint64 {
	t.Helper()
	seed := usual
	if s := os.Getenv("POSTERN_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("POSTERN_SEED=%s is no number", s)
		}
		seed = n
	}
	t.Logf("POSTERN_SEED=%d", seed)
	return seed
}
