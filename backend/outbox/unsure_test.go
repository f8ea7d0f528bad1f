package outbox

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/backend/store"
)

// blind is what Find says where the app may not read the mailbox.
var blind = &Error{Outcome: Temporary, Status: "4.7.1", Blind: true, Text: "may not look", Err: errors.New("denied")}

// unsure runs a queue whose first attempts end as steps say, in a mailbox where nobody may look, with one message in it.
func unsure(t *testing.T, opts Options, do func(r *rig, x *exchange, id string), steps ...step) {
	t.Helper()
	x := newExchange(steps...)
	x.findErr = blind
	bubble(t, x, opts, func(r *rig) {
		id, err := r.submit(0)
		if err != nil {
			r.t.Fatal(err)
		}
		do(r, x, id)
	})
}

// release is a person's word that the message may be sent.
func (r *rig) release(id string) {
	r.t.Helper()
	if _, err := r.q.Ask(r.t.Context(), id, Release, ""); err != nil {
		r.t.Fatal(err)
	}
}

// A message that was perhaps sent, and cannot be looked for, is held for a person or sent again, as was chosen; never both,
// and never silently.
func TestUnsure(t *testing.T) {
	for _, tt := range []struct {
		name    string
		repeat  bool
		arrives bool
		sent    int // after an hour and a half
		state   store.State
		event   string
	}{
		{"held, sent", false, true, 1, store.StateHeld, "held"},
		{"held, not sent", false, false, 0, store.StateHeld, "held"},
		{"sent again, sent", true, true, 2, store.StateSent, "sent unseen"},
		{"sent again, not sent", true, false, 1, store.StateSent, "sent unseen"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			unsure(t, Options{Repeat: tt.repeat, Lifetime: 30 * time.Minute}, func(r *rig, x *exchange, id string) {
				t := r.t
				time.Sleep(time.Minute)
				synctest.Wait()
				if s := r.row(id).State; (s == store.StateSent) != tt.repeat {
					t.Errorf("after a minute %s", s)
				}
				time.Sleep(100 * time.Minute)
				synctest.Wait()
				row := r.row(id)
				if x.sent[id] != tt.sent || row.State != tt.state || (row.HoldReason != "") != (tt.state == store.StateHeld) {
					t.Errorf("sent %d times, %+v", x.sent[id], row)
				}
				if n := events(r, id, tt.event); n != 1 {
					t.Errorf("%d events %s", n, tt.event)
				}
				if tt.state == store.StateSent {
					return
				}
				// Held it stays, beyond its lifetime; a person's word sends it, once.
				time.Sleep(2 * time.Hour)
				if s := r.row(id).State; s != store.StateHeld {
					t.Errorf("after hours %s", s)
				}
				r.release(id)
				time.Sleep(5 * time.Minute)
				synctest.Wait()
				if s := r.row(id).State; s != store.StateSent || x.sent[id] != tt.sent+1 || len(r.files()) != 0 {
					t.Errorf("released: %s, sent %d times", s, x.sent[id])
				}
			}, step{err: unclear, arrives: tt.arrives})
		})
	}
}

// Leave to look that comes in time, or before the release, settles the message as ever.
func TestUnsureNoMore(t *testing.T) {
	for _, after := range []time.Duration{time.Hour, 3 * time.Hour} {
		unsure(t, Options{}, func(r *rig, x *exchange, id string) {
			t := r.t
			time.Sleep(after)
			x.mu.Lock()
			x.findErr = nil
			x.mu.Unlock()
			if r.row(id).State == store.StateHeld {
				r.release(id)
			}
			time.Sleep(time.Hour)
			synctest.Wait()
			if s := r.row(id).State; s != store.StateSent || x.total() != 1 {
				t.Errorf("%s, sent %d times", s, x.total())
			}
		}, step{err: unclear, arrives: true})
	}
}

// A second unclear end behind a person's release needs another word.
func TestUnsureTwice(t *testing.T) {
	unsure(t, Options{}, func(r *rig, x *exchange, id string) {
		t := r.t
		for range 2 {
			time.Sleep(3 * time.Hour)
			synctest.Wait()
			if s := r.row(id).State; s != store.StateHeld {
				t.Fatalf("%s", s)
			}
			r.release(id)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := r.row(id).State; s != store.StateSent || x.total() != 1 {
			t.Errorf("%s, sent %d times", s, x.total())
		}
	}, step{err: unclear}, step{err: unclear})
}

func events(r *rig, id, what string) (n int) {
	r.t.Helper()
	list, err := r.st.Outbox().Events(r.t.Context(), id)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range list {
		if strings.EqualFold(e.What, what) {
			n++
		}
	}
	return n
}
