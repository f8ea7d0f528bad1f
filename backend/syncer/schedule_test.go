package syncer

import (
	"testing"
	"time"
)

func TestQuietEvery(t *testing.T) {
	for _, tt := range []struct {
		poll time.Duration
		open int
		want time.Duration
	}{
		{5 * time.Second, 0, 5 * time.Second},
		{5 * time.Second, 1, 5 * time.Second},
		{5 * time.Second, 20, 5 * time.Second},
		{5 * time.Second, 100, 25 * time.Second}, // 2,400 in ten minutes
		{time.Minute, 100, time.Minute},
	} {
		if got := quietEvery(tt.poll, tt.open); got != tt.want {
			t.Errorf("poll %s with %d open: every %s, want %s", tt.poll, tt.open, got, tt.want)
		}
	}
}

// Folders nobody has open take a quarter of the budget at most, however many they are.
func TestClosedEvery(t *testing.T) {
	for _, tt := range []struct {
		idle   bool
		active int
		want   time.Duration
	}{
		{false, 1, time.Minute},
		{false, 400, time.Minute},
		{false, 2000, 5 * time.Minute},
		{true, 400, 10 * time.Minute},
		{true, 10_000, 25 * time.Minute},
	} {
		got := closedEvery(tt.idle, tt.active)
		if got != tt.want {
			t.Errorf("%d folders, idle %v: every %s, want %s", tt.active, tt.idle, got, tt.want)
		}
		if n := float64(tt.active) * (10 * time.Minute).Seconds() / (got.Seconds() * 1.5); n > 2700 { // spread is half of it on the average
			t.Errorf("%d folders, idle %v: %.0f requests in ten minutes", tt.active, tt.idle, n)
		}
	}
}
