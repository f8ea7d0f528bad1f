package outbox

import (
	"errors"
	"slices"
	"strings"
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
		time.Sleep(24 * time.Minute)
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
		// Two minutes of looks, then the waits between attempts.
		if waits[0] > 2*time.Minute || waits[1] > 2*time.Minute+30*time.Second || slices.Max(waits) < 5*time.Minute || slices.Max(waits) > 8*time.Minute {
			t.Errorf("waits %v", waits)
		}
	})
}

// A message that was perhaps sent is looked for, for two minutes: as long as copies may come late. Where those of other messages
// are late too it takes longer; where one that was taken later has its copy, or Exchange's answer made it unlikely, less.
func TestSentItemsBehind(t *testing.T) {
	const quick, patient, never = 19 * time.Second, 119 * time.Second, 24 * time.Hour
	for _, tt := range []struct {
		name    string
		lag     time.Duration
		before  time.Duration // another message is sent so long before; 0 for none
		after   time.Duration // another message is sent so long after
		end     *Error
		arrives bool
		err     error         // of asking for the other one
		repeat  time.Duration // 0 for none
	}{
		{name: "filed at once", arrives: true},
		{name: "filed after the first looks", lag: 19500 * time.Millisecond, arrives: true},
		{name: "filed later", lag: 40 * time.Second, arrives: true},
		{name: "filed as late as is waited for", lag: 118 * time.Second, arrives: true},
		{name: "not sent", repeat: patient},
		{name: "not sent, as its answer made likely", end: unlikely, repeat: quick},
		{name: "sent, though its answer made that unlikely", lag: 10 * time.Second, end: unlikely, arrives: true},
		{name: "filed late, and sent", lag: 2 * time.Minute, before: time.Minute, arrives: true},
		{name: "filed late, and not sent", lag: 2 * time.Minute, before: time.Minute, repeat: 2*time.Minute + quick},
		{name: "filed very late, and sent", lag: 5 * time.Minute, before: 20 * time.Second, arrives: true},
		{name: "the one before filed at once, not sent", before: time.Minute, repeat: patient},
		{name: "the one before filed within seconds, not sent", lag: 5 * time.Second, before: time.Minute, repeat: patient},
		{name: "filed within seconds, sent", lag: 5 * time.Second, before: time.Minute, arrives: true},
		{name: "a later one is filed, not sent", lag: 5 * time.Second, after: 3 * time.Second, repeat: quick},
		{name: "a later one is filed, sent", lag: 9 * time.Second, after: 3 * time.Second, arrives: true},
		{name: "a later one is filed after some looks, not sent", after: 30 * time.Second, repeat: 69 * time.Second},
		{name: "the other one is too old to tell", lag: time.Hour, before: 40 * time.Minute, repeat: patient},
		{name: "never filed at all", lag: never, before: time.Minute, repeat: 6*time.Minute + quick},
		{name: "cannot ask", lag: 2 * time.Minute, before: time.Minute, err: errors.New("away"), repeat: quick + 6*12*time.Second + 50*time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := newExchange()
			bubble(t, x, Options{}, func(r *rig) {
				t := r.t
				x.lag, x.filedErr = tt.lag, tt.err
				submit := func() string {
					t.Helper()
					id, err := r.submit(0)
					if err != nil {
						t.Fatal(err)
					}
					return id
				}
				if tt.before > 0 {
					submit()
					time.Sleep(tt.before)
				}
				if tt.end == nil {
					tt.end = unclear
				}
				x.mu.Lock()
				x.script = []step{{err: tt.end, arrives: tt.arrives}}
				x.calls = nil
				x.mu.Unlock()
				began := time.Now()
				id := submit()
				if tt.after > 0 {
					time.Sleep(tt.after)
					submit()
				}
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				if n, s := x.sent[id], r.row(id).State; n != 1 || s != store.StateSent {
					t.Errorf("sent %d times, %s", n, s)
				}
				again := x.called()[1:]
				if tt.after > 0 {
					again = slices.DeleteFunc(again, func(at time.Time) bool { return at.Equal(began.Add(tt.after)) })
				}
				if (tt.repeat == 0) != (len(again) == 0) || len(again) > 1 {
					t.Fatalf("repeated at %v, want after %v", again, tt.repeat)
				}
				if len(again) == 1 {
					if after := again[0].Sub(began); after < tt.repeat-time.Second || after > tt.repeat+time.Second {
						t.Errorf("repeated after %v, want %v", after, tt.repeat)
					}
				}
			})
		})
	}
}

// After a crash nobody knows how far the request had come, so the message is looked for as long as after a broken connection; one
// that is released long after its unclear end only as often as is usual.
func TestPatienceAfterCrashAndHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		x := newExchange(step{err: unclear, arrives: true})
		x.lag = 100 * time.Second
		r := openRig(t, dir, x, Options{Looks: []time.Duration{time.Hour}})
		id, err := r.submit(0)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, err := r.st.Outbox().Update(t.Context(), id, func(s *store.Submission) error {
			s.State, s.ClaimedFrom, s.Progress = store.StateSending, store.StateQueued, "" // as kill -9 leaves it
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		r.stop()
		r = openRig(t, dir, x, Options{})
		defer func() { r.stop() }()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if x.total() != 1 || r.row(id).State != store.StateSent {
			t.Errorf("sent %d times, row %+v", x.total(), r.row(id))
		}

		x.mu.Lock()
		x.script = []step{{err: unclear}}
		x.mu.Unlock()
		if id, err = r.submit(0); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for _, a := range []Action{Hold, Release} {
			if _, err := r.q.Ask(t.Context(), id, a, ""); err != nil {
				t.Fatal(err)
			}
			if a == Hold {
				time.Sleep(time.Hour)
			}
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if x.total() != 2 || r.row(id).State != store.StateSent {
			t.Errorf("released: sent %d times, row %+v", x.total(), r.row(id))
		}
	})
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

// When the clock is set while the server runs, no message's time is up for that.
func TestExpiryIsCountedByTheProcess(t *testing.T) {
	it := new(item)
	row := time.Now().Round(0).Add(time.Hour) // without a reading of the process's own clock, as rows are
	first := it.expires(row)
	if !strings.Contains(first.String(), "m=+") || first.Sub(row).Abs() > time.Second {
		t.Errorf("expiry %v of a row that says %v", first, row)
	}
	if again := it.expires(row); again != first {
		t.Errorf("then %v", again)
	}
	later := row.Add(time.Hour) // as when a release has added the time it was held
	if got := it.expires(later); got.Sub(first).Round(time.Minute) != time.Hour {
		t.Errorf("a row that says an hour later gives %v", got)
	}
}

// Whoever wakes up after the message's time is up, having been switched off, tries it once before it is given up.
func TestOneTryAfterLongDowntime(t *testing.T) {
	for _, state := range []store.State{store.StateQueued, store.StateUnclear} {
		synctest.Test(t, func(t *testing.T) {
			dir := t.TempDir()
			x := newExchange(step{err: unclear})
			r := openRig(t, dir, x, Options{Retries: []time.Duration{time.Hour}, Looks: []time.Duration{time.Hour}})
			id, err := r.submit(0)
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			r.stop()
			time.Sleep(1000 * time.Hour)
			r = openRig(t, dir, x, Options{})
			defer r.stop()
			if state == store.StateQueued {
				if _, err := r.st.Outbox().Update(t.Context(), id, func(s *store.Submission) error {
					s.State, s.Progress = state, ""
					return nil
				}); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(10 * time.Minute)
			synctest.Wait()
			if row := r.row(id); row.State != store.StateSent || x.total() != 1 {
				t.Errorf("%s: %+v", state, row)
			}
		})
	}
}
