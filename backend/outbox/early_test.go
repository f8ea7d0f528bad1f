package outbox

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"postern/backend/store"
)

// A client that comes while the queue is being started hears its first attempt's verdict like any other.
func TestSubmitBeforeRun(t *testing.T) {
	for _, tt := range []struct {
		name  string
		run   time.Duration // after the submission; 0 for never
		step  step
		state store.State
		after time.Duration
		err   error
	}{
		{"refused", time.Second, step{err: permanent}, store.StateRefused, time.Second, permanent},
		{"taken", time.Second, step{}, store.StateSent, time.Second, nil},
		{"put off", time.Second, step{err: temporary}, store.StateQueued, time.Second, nil},
		{"too late", time.Minute, step{err: permanent}, store.StateQueued, 10 * time.Second, nil},
		{"never", 0, step{}, store.StateQueued, 10 * time.Second, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := newExchange(tt.step)
				r := prepareRig(t, t.TempDir(), x, Options{})
				if tt.run > 0 {
					time.AfterFunc(tt.run, r.run)
				}
				begun := time.Now()
				id, err := r.submit(10*time.Second, func(s *store.Submission) { s.EnvelopeFrom = "" })
				if !errors.Is(err, tt.err) || time.Since(begun) != tt.after {
					t.Errorf("after %v: %v", time.Since(begun), err)
				}
				if s := r.row(id).State; s != tt.state {
					t.Errorf("%s, want %s", s, tt.state)
				}
				if tt.run > tt.after {
					time.Sleep(tt.run)
					synctest.Wait()
					if len(x.called()) != 1 || r.row(id).State != store.StateBounced {
						t.Errorf("%d attempts, %s", len(x.called()), r.row(id).State)
					}
				}
				r.stop()
			})
		})
	}
}

// A server that is stopped before its queue has begun keeps nobody waiting.
func TestStoppedWhileStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newExchange(step{err: permanent})
		r := prepareRig(t, t.TempDir(), x, Options{})
		defer r.stop()
		time.AfterFunc(time.Second, func() {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := r.q.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		begun := time.Now()
		id, err := r.submit(10 * time.Second)
		if err != nil || time.Since(begun) != time.Second {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
		synctest.Wait()
		if s := r.row(id).State; s != store.StateQueued {
			t.Errorf("%s", s)
		}
	})
}
