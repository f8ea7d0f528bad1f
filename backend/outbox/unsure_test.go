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
			x := newExchange(step{err: unclear, arrives: tt.arrives})
			x.findErr = blind
			bubble(t, x, Options{Repeat: tt.repeat, Lifetime: 30 * time.Minute}, func(r *rig) {
				t := r.t
				id, err := r.submit(0)
				if err != nil {
					t.Fatal(err)
				}
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
				if _, err := r.q.Ask(t.Context(), id, Release, ""); err != nil {
					t.Fatal(err)
				}
				time.Sleep(5 * time.Minute)
				synctest.Wait()
				if s := r.row(id).State; s != store.StateSent || x.sent[id] != tt.sent+1 || len(r.files()) != 0 {
					t.Errorf("released: %s, sent %d times", s, x.sent[id])
				}
			})
		})
	}
}

// Leave to look that comes in time, or before the release, settles the message as ever.
func TestUnsureNoMore(t *testing.T) {
	for _, after := range []time.Duration{time.Hour, 3 * time.Hour} {
		x := newExchange(step{err: unclear, arrives: true})
		x.findErr = blind
		bubble(t, x, Options{}, func(r *rig) {
			t := r.t
			id, err := r.submit(0)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(after)
			x.mu.Lock()
			x.findErr = nil
			x.mu.Unlock()
			if r.row(id).State == store.StateHeld {
				if _, err := r.q.Ask(t.Context(), id, Release, ""); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Hour)
			synctest.Wait()
			if s := r.row(id).State; s != store.StateSent || x.total() != 1 {
				t.Errorf("%s, sent %d times", s, x.total())
			}
		})
	}
}

// A second unclear end behind a person's release needs another word.
func TestUnsureTwice(t *testing.T) {
	x := newExchange(step{err: unclear}, step{err: unclear})
	x.findErr = blind
	bubble(t, x, Options{}, func(r *rig) {
		t := r.t
		id, err := r.submit(0)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			time.Sleep(3 * time.Hour)
			synctest.Wait()
			if s := r.row(id).State; s != store.StateHeld {
				t.Fatalf("%s", s)
			}
			if _, err := r.q.Ask(t.Context(), id, Release, ""); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := r.row(id).State; s != store.StateSent || x.total() != 1 {
			t.Errorf("%s, sent %d times", s, x.total())
		}
	})
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
