package syncer

import (
	"testing"
	"time"
)

// Changes of a client that goes through a folder are pushed in full batches, also when it pauses, and a single one soon.
func TestGathering(t *testing.T) {
	ms := time.Millisecond
	for _, tt := range []struct {
		name            string
		pulses, changes int           // so many changes in each pulse, at once
		every           time.Duration // between pulses
		most            int           // batches of twenty, full or not
		latest          time.Duration // that a change waits
	}{
		{"one", 1, 1, 0, 1, gather},
		{"one now and then", 10, 1, 3 * time.Second, 10, gather},
		{"without a pause", 2000, 1, 5 * ms, 100 + 11, gatherMost},
		{"with pauses", 40, 30, 150 * ms, 60 + 10, gatherMost},
		{"slowly", 80, 5, 120 * ms, 20 + 14, gatherMost},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var g gathering
			now := time.Unix(1_800_000_000, 0)
			var due time.Time
			var waiting []time.Time
			batches := 0
			push := func() {
				for _, at := range waiting {
					if d := due.Sub(at); d > tt.latest {
						t.Fatalf("a change waited %v", d)
					}
				}
				batches += (len(waiting) + 19) / 20
				g.pushed(due, len(waiting))
				waiting, due = nil, time.Time{}
			}
			for range tt.pulses {
				if !due.IsZero() && !due.After(now) {
					push()
				}
				for range tt.changes {
					waiting = append(waiting, now)
					due = now.Add(g.changed(now))
				}
				now = now.Add(tt.every)
			}
			push()
			if batches > tt.most {
				t.Errorf("%d batches, want at most %d", batches, tt.most)
			}
			t.Log(batches)
		})
	}
}
