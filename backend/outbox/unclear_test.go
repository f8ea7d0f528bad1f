package outbox

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"postern/backend/store"
)

// A service that never gives a clear answer is tried with growing waits, and no longer than the message's lifetime.
func TestUnclearWithoutEnd(t *testing.T) {
	x := newExchange()
	for range 1000 {
		x.script = append(x.script, step{err: unclear})
	}
	waits := []time.Duration{15 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute}
	bubble(t, x, Options{Lifetime: 30 * time.Minute, Warn: 5 * time.Minute, Retries: waits}, func(r *rig) {
		t := r.t
		id, err := r.submit(0, func(s *store.Submission) {
			s.Recipients = []store.Recipient{{Address: "b@y", Notify: []string{"DELAY", "FAILURE"}}}
		})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(15 * time.Minute)
		synctest.Wait()
		if n := x.told(); len(n) != 1 || n[0].Kind != Delayed {
			t.Errorf("half-way told %+v", n)
		}
		time.Sleep(21 * time.Minute)
		synctest.Wait()
		row := r.row(id)
		if row.State != store.StateBounced {
			t.Fatalf("row %+v", row)
		}
		if n := x.told(); len(n) != 2 || n[1].Kind != Failed || n[1].Status != "4.4.7" || n[1].Text == "" {
			t.Errorf("told %+v", n)
		}
		calls := x.called()
		if n := len(calls); n < 6 || n > 12 {
			t.Errorf("%d attempts in half an hour", n)
		}
		var waits []time.Duration
		for i := 1; i < len(calls); i++ {
			waits = append(waits, calls[i].Sub(calls[i-1]))
		}
		if waits[0] > 30*time.Second || waits[1] > 45*time.Second || slices.Max(waits) < 5*time.Minute || slices.Max(waits) > 6*time.Minute {
			t.Errorf("waits %v", waits)
		}
	})
}

// Where Exchange files copies late, which is seen by those of other messages, a message that was perhaps sent is looked for
// until these are there. Where it does not, or nothing tells, nothing waits for it.
func TestSentItemsBehind(t *testing.T) {
	looks := []time.Duration{2 * time.Second, 5 * time.Second, 12 * time.Second}
	const quick, never = 19 * time.Second, 24 * time.Hour
	for _, tt := range []struct {
		name    string
		lag     time.Duration
		before  time.Duration // another message is sent so long before; 0 for none
		arrives bool
		err     error // of asking for the other one
		total   int   // of the one message
		repeat  time.Duration
	}{
		{"filed late, and sent", 2 * time.Minute, time.Minute, true, nil, 1, 0},
		{"filed late, and not sent", 2 * time.Minute, time.Minute, false, nil, 1, 2 * time.Minute},
		{"filed at once, not sent", 0, time.Minute, false, nil, 1, quick},
		{"filed within seconds, not sent", 5 * time.Second, time.Minute, false, nil, 1, quick},
		{"filed within seconds, sent", 5 * time.Second, time.Minute, true, nil, 1, 0},
		{"nothing to compare with", 0, 0, false, nil, 1, quick},
		{"the other one is too old to tell", time.Hour, 40 * time.Minute, false, nil, 1, quick},
		{"never filed at all", never, time.Minute, false, nil, 1, 6 * time.Minute},
		{"cannot ask", 2 * time.Minute, time.Minute, false, errors.New("away"), 1, quick + 6*12*time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := newExchange()
			bubble(t, x, Options{Looks: looks}, func(r *rig) {
				t := r.t
				x.lag, x.filedErr = tt.lag, tt.err
				if tt.before > 0 {
					if _, err := r.submit(0); err != nil {
						t.Fatal(err)
					}
					time.Sleep(tt.before)
				}
				x.mu.Lock()
				x.script = []step{{err: unclear, arrives: tt.arrives}}
				x.calls = nil
				x.mu.Unlock()
				began := time.Now()
				id, err := r.submit(0)
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				if n, s := x.sent[id], r.row(id).State; n != tt.total || s != store.StateSent {
					t.Errorf("sent %d times, %s", n, s)
				}
				calls := x.called()
				if tt.repeat == 0 && len(calls) != 1 || tt.repeat > 0 && len(calls) != 2 {
					t.Fatalf("%d attempts", len(calls))
				}
				if tt.repeat > 0 {
					if after := calls[1].Sub(began); after < tt.repeat-time.Second || after > tt.repeat+time.Minute || tt.repeat == quick && after > quick {
						t.Errorf("repeated after %v", after)
					}
				}
			})
		})
	}
}

// A message that was being sent when the process died is looked for also when somebody has held and released it since.
func TestHeldAfterCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		x := newExchange(step{err: unclear, arrives: true})
		r := openRig(t, dir, x, Options{Retries: []time.Duration{time.Hour}, Looks: []time.Duration{time.Hour}})
		id, err := r.submit(0)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		// As kill -9 leaves it: handed over, and the row says that it is being sent.
		if _, err := r.st.Outbox().Update(t.Context(), id, func(s *store.Submission) error {
			s.State, s.ClaimedFrom, s.Progress = store.StateSending, store.StateQueued, ""
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		r.stop()
		box, running, err := store.OpenOutbox(t.Context(), dir)
		if err != nil || running {
			t.Fatal(running, err)
		}
		for _, a := range []Action{Hold, Release} {
			if _, err := Ask(t.Context(), box, id, a, ""); err != nil {
				t.Fatal(err)
			}
		}
		box.Close()
		r = openRig(t, dir, x, Options{})
		defer r.stop()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if x.total() != 1 || r.row(id).State != store.StateSent {
			t.Errorf("sent %d times, row %+v", x.total(), r.row(id))
		}
	})
}

// Drafts of a message that is given up are removed, by whomever it is given up, and as often as it takes.
func TestDraftsOfGivenUp(t *testing.T) {
	for _, tt := range []struct {
		name   string
		err    *Error
		wait   time.Duration
		action Action
		state  store.State
	}{
		{"refused", permanent, time.Second, "", store.StateRefused},
		{"bounced", permanent, 0, "", store.StateBounced},
		{"out of time", temporary, 0, "", store.StateBounced},
		{"bounced by a person", temporary, 0, Bounce, store.StateBounced},
		{"purged", temporary, 0, Purge, store.StatePurged},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := newExchange()
			for range 100 {
				x.script = append(x.script, step{err: tt.err, draft: true})
			}
			bubble(t, x, Options{Lifetime: 3 * time.Minute}, func(r *rig) {
				t := r.t
				id, err := r.submit(tt.wait, func(s *store.Submission) { s.EnvelopeFrom = "" })
				if (err != nil) != (tt.state == store.StateRefused) {
					t.Fatal(err)
				}
				if id == "" {
					t.Fatal("no id")
				}
				x.mu.Lock()
				x.noteErrs = 2
				x.mu.Unlock()
				if tt.action != "" {
					time.Sleep(5 * time.Second)
					if _, err := Ask(t.Context(), other(r), id, tt.action, ""); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(6 * time.Minute)
				synctest.Wait()
				if row := r.row(id); row.State != tt.state || !row.NextAttempt.IsZero() || row.Progress != "" || len(r.files()) != 0 {
					t.Errorf("row %+v, files %v", row, r.files())
				}
				x.mu.Lock()
				defer x.mu.Unlock()
				if !slices.Equal(x.cleaned, []string{id}) {
					t.Errorf("cleaned %v", x.cleaned)
				}
			})
		})
	}
}

// What was to be gathered when the process ended goes on to be, in the time that is left.
func TestGatherAfterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		x := newExchange()
		r := openRig(t, dir, x, Options{})
		until := time.Now().Add(time.Minute)
		submit := func(rcpt string) string {
			t.Helper()
			id, err := r.submit(0, func(s *store.Submission) {
				s.Digest, s.Login, s.MessageID, s.GatherUntil = "d", "app", "<m@x>", until
				s.Recipients = []store.Recipient{{Address: rcpt}}
			})
			if err != nil {
				t.Fatal(err)
			}
			return id
		}
		first := submit("a@y")
		r.stop()
		r = openRig(t, dir, x, Options{})
		defer func() { r.stop() }()
		if id := submit("b@y"); id != first {
			t.Errorf("queued as %s, the first is %s", id, first)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if row := r.row(first); len(row.Recipients) != 2 || row.State != store.StateSent || x.total() != 1 {
			t.Errorf("row %+v, sent %d", row, x.total())
		}
		if id := submit("c@y"); id == first {
			t.Error("joined what was sent")
		}
	})
}
