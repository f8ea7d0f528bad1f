package outbox

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/backend/store"
)

// other opens the table as a command of another process does.
func other(r *rig) *store.Outbox {
	t := r.t
	t.Helper()
	o, running, err := store.OpenOutbox(t.Context(), r.dir())
	if err != nil || !running {
		t.Fatalf("running %v, %v", running, err)
	}
	t.Cleanup(func() { o.Close() })
	return o
}

func (r *rig) dir() string { return strings.TrimSuffix(r.st.Outbox().SpoolDir(), "/spool") }

func (r *rig) log(id string) string {
	r.t.Helper()
	events, err := r.st.Outbox().Events(r.t.Context(), id)
	if err != nil {
		r.t.Fatal(err)
	}
	var out []string
	for _, e := range events {
		out = append(out, e.What)
	}
	return strings.Join(out, ", ")
}

// What a command changes in the table is done by the running queue within a second.
func TestActions(t *testing.T) {
	for _, tt := range []struct {
		name    string
		script  []step
		actions []Action
		state   store.State
		sent    int
		notices int
		log     string
	}{
		{"retry", []step{{err: temporary}}, []Action{Retry}, store.StateSent, 1, 0, "accepted, deferred, asked to retry, sent"},
		{"hold", []step{{err: temporary}}, []Action{Hold}, store.StateHeld, 0, 0, "accepted, deferred, asked to hold"},
		{"hold and release", []step{{err: temporary}}, []Action{Hold, Release}, store.StateSent, 1, 0, "accepted, deferred, asked to hold, released, sent"},
		{"bounce", []step{{err: temporary}}, []Action{Bounce}, store.StateBounced, 0, 1, "accepted, deferred, asked to bounce, notified"},
		{"bounce what is held", []step{{err: temporary}}, []Action{Hold, Bounce}, store.StateBounced, 0, 1, "accepted, deferred, asked to hold, asked to bounce, notified"},
		{"purge", []step{{err: temporary}}, []Action{Purge}, store.StatePurged, 0, 0, "accepted, deferred, asked to purge"},
		{"purge what is held", []step{{err: temporary}}, []Action{Hold, Purge}, store.StatePurged, 0, 0, "accepted, deferred, asked to hold, asked to purge"},
		// It arrived, unseen: releasing must look for it again, not send it again.
		{"hold and release what is unclear", []step{{err: unclear, arrives: true, hidden: 1}}, []Action{Hold, Release}, store.StateSent, 1, 0,
			"accepted, unclear, asked to hold, released, sent"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, newExchange(tt.script...), Options{Looks: []time.Duration{time.Hour, time.Second, time.Second}}, func(r *rig) {
				t := r.t
				id, err := r.submit(0)
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				o := other(r)
				for _, a := range tt.actions {
					if later, err := Ask(t.Context(), o, id, a, "because"); err != nil || later {
						t.Fatalf("%s: later %v, %v", a, later, err)
					}
					time.Sleep(time.Second) // of the bubble's clock
					synctest.Wait()
				}
				time.Sleep(3 * time.Second)
				synctest.Wait()
				if row := r.row(id); row.State != tt.state || row.State != store.StateHeld && !row.NextAttempt.IsZero() {
					t.Errorf("row %+v", row)
				}
				if r.x.total() != tt.sent || len(r.x.told()) != tt.notices {
					t.Errorf("sent %d, notices %v", r.x.total(), r.x.told())
				}
				if got := r.log(id); got != tt.log {
					t.Errorf("log: %s", got)
				}
				if files := len(r.files()); (files > 0) != (tt.state == store.StateHeld) {
					t.Errorf("%d files", files)
				}
			})
		})
	}
}

// What is asked for while a message is being sent happens when the attempt has failed, and never after it was sent.
func TestWishes(t *testing.T) {
	for _, tt := range []struct {
		action Action
		result error
		state  store.State
	}{
		{Hold, temporary, store.StateHeld},
		{Hold, unclear, store.StateHeld},
		{Hold, nil, store.StateSent},
		{Bounce, temporary, store.StateBounced},
		{Purge, temporary, store.StatePurged},
		{Purge, nil, store.StateSent},
	} {
		t.Run(fmt.Sprint(tt.action, " ", tt.result), func(t *testing.T) {
			x := newExchange(step{err: tt.result})
			x.block = make(chan struct{})
			bubble(t, x, Options{}, func(r *rig) {
				t := r.t
				x.mu.Lock()
				x.block = make(chan struct{}) // of the bubble
				x.mu.Unlock()
				id, err := r.submit(0)
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if later, err := Ask(t.Context(), other(r), id, tt.action, ""); err != nil || !later {
					t.Fatalf("later %v, %v", later, err)
				}
				close(x.block)
				time.Sleep(time.Second)
				synctest.Wait()
				if row := r.row(id); row.State != tt.state || row.Wish != store.WishNone {
					t.Errorf("row %+v", row)
				}
			})
		})
	}
}

func TestImpossible(t *testing.T) {
	bubble(t, newExchange(), Options{}, func(r *rig) {
		t := r.t
		id, err := r.submit(time.Second)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for _, a := range []Action{Retry, Hold, Release, Bounce, Purge} {
			if _, err := Ask(t.Context(), r.st.Outbox(), id, a, ""); !errors.Is(err, ErrNotPossible) {
				t.Errorf("%s of a sent message: %v", a, err)
			}
		}
		if _, err := Ask(t.Context(), r.st.Outbox(), "nothing", Hold, ""); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("no such message: %v", err)
		}
	})
}

// A row and file that another process adds are sent.
func TestAddedElsewhere(t *testing.T) {
	bubble(t, newExchange(), Options{}, func(r *rig) {
		t := r.t
		o := other(r)
		q2, err := New(Options{Store: o, Sender: r.x})
		if err != nil {
			t.Fatal(err)
		}
		s, err := q2.NewSpool()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(s, "Subject: x\r\n\r\nbody\r\n")
		id, err := q2.Submit(t.Context(), s, store.Submission{Mailbox: "a@x", EnvelopeFrom: "a@x", Recipients: []store.Recipient{{Address: "b@y"}}}, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if row := r.row(id); row.State != store.StateSent {
			t.Errorf("row %+v", row)
		}
	})
}

// A delay is told once, and only to those who asked.
func TestDelayNotice(t *testing.T) {
	x := newExchange()
	for range 40 {
		x.script = append(x.script, step{err: temporary})
	}
	bubble(t, x, Options{Warn: time.Hour, Lifetime: 8 * time.Hour}, func(r *rig) {
		t := r.t
		id, err := r.submit(0, func(s *store.Submission) {
			s.Recipients = []store.Recipient{
				{Address: "plain@y"}, {Address: "delay@y", Notify: []string{"DELAY"}},
				{Address: "both@y", Notify: []string{"SUCCESS", "DELAY"}}, {Address: "never@y", Notify: []string{"NEVER"}},
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(59 * time.Minute)
		synctest.Wait()
		if n := x.told(); len(n) != 0 {
			t.Fatalf("too early: %v", n)
		}
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if n := x.told(); len(n) != 1 || n[0].Kind != Delayed || len(n[0].Recipients) != 2 || n[0].Status[0] != '4' {
			t.Fatalf("notices: %+v", n)
		}
		if r.row(id).DelayNotified.IsZero() {
			t.Error("not noted")
		}
		time.Sleep(6 * time.Hour)
		synctest.Wait()
		if n := x.told(); len(n) != 2 || n[1].Kind != Failed || len(n[1].Recipients) != 1 {
			t.Errorf("at the end: %+v", n)
		}
	})
}

// A copy that is not wanted is looked for until it is there.
func TestDropCopy(t *testing.T) {
	x := newExchange()
	x.copyHidden = 2
	bubble(t, x, Options{}, func(r *rig) {
		t := r.t
		id, err := r.submit(time.Second, func(s *store.Submission) { s.DropCopy = true })
		if err != nil {
			t.Fatal(err)
		}
		keep, err := r.submit(time.Second)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if removed, looks := x.copies(); !slices.Equal(removed, []string{id}) || looks != 3 {
			t.Errorf("removed %v after %d looks", removed, looks)
		}
		if row := r.row(id); row.State != store.StateSent || !row.NextAttempt.IsZero() || r.row(keep).State != store.StateSent || len(r.files()) != 0 {
			t.Errorf("row %+v, files %v", row, r.files())
		}
		if got := r.log(id); got != "accepted, sent, copy removed" {
			t.Errorf("log: %s", got)
		}
	})
}

// The same message for one recipient after another is sent once, to all.
func TestGather(t *testing.T) {
	bubble(t, newExchange(), Options{}, func(r *rig) {
		t := r.t
		submit := func(digest, login, rcpt string) string {
			id, err := r.submit(time.Minute, func(s *store.Submission) {
				s.Digest, s.Login, s.MessageID, s.GatherUntil = digest, login, "<m@x>", time.Now().Add(2*time.Second)
				s.Recipients = []store.Recipient{{Address: rcpt}}
			})
			if err != nil {
				t.Fatal(err)
			}
			return id
		}
		first := submit("d1", "app", "a@y")
		for _, tt := range []struct {
			digest, login, rcpt string
			same                bool
		}{
			{"d1", "app", "b@y", true}, {"d1", "app", "A@y", true}, {"d2", "app", "c@y", false}, {"d1", "other", "d@y", false}, {"d1", "app", "e@y", true},
		} {
			if id := submit(tt.digest, tt.login, tt.rcpt); (id == first) != tt.same {
				t.Errorf("%v: queued as %s, the first is %s", tt, id, first)
			}
		}
		if len(r.files()) != 3 || r.x.total() != 0 {
			t.Errorf("files %v, sent %d", r.files(), r.x.total())
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if row := r.row(first); len(row.Recipients) != 3 || row.State != store.StateSent {
			t.Errorf("row %+v", row)
		}
		if late := submit("d1", "app", "f@y"); late == first {
			t.Error("joined what was sent")
		}
	})
}

// What is owed for settled messages does not wait behind those that wait for the pace of sending.
func TestNoticesPassTheBacklog(t *testing.T) {
	x := newExchange()
	bubble(t, x, Options{}, func(r *rig) {
		t := r.t
		x.mu.Lock()
		x.delay = time.Hour
		x.mu.Unlock()
		var ids []string
		for range 50 {
			id, err := r.submit(0)
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, id)
		}
		synctest.Wait()
		if _, err := Ask(t.Context(), other(r), ids[30], Bounce, ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if len(x.told()) != 1 || x.total() != 0 || !r.row(ids[30]).NextAttempt.IsZero() {
			t.Errorf("notices %v, sent %d", x.told(), x.total())
		}
	})
}
