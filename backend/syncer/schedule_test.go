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
