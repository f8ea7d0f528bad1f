package backend

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend/graphsim"
)

// Who takes one text after the other, in either direction, finds the next ones read; who picks one here and there does not cause
// others to be read.
func TestReadOn(t *testing.T) {
	for _, tt := range []struct {
		name  string
		asked []imap.UID
		want  []imap.UID // have a text afterwards
	}{
		{"two", []imap.UID{1, 2}, []imap.UID{1, 2}},
		{"upwards", []imap.UID{1, 2, 3}, []imap.UID{1, 2, 3, 4, 5, 6}},
		{"on and on", []imap.UID{1, 2, 3, 4, 5}, []imap.UID{1, 2, 3, 4, 5, 6, 7, 8}},
		{"with gaps", []imap.UID{1, 3, 5}, []imap.UID{1, 3, 5, 6, 7, 8}},
		{"downwards", []imap.UID{10, 9, 8}, []imap.UID{5, 6, 7, 8, 9, 10}},
		{"to the end", []imap.UID{7, 8, 9}, []imap.UID{7, 8, 9, 10}},
		{"here and there", []imap.UID{1, 9, 2, 7, 3}, []imap.UID{1, 2, 3, 7, 9}},
		{"the same", []imap.UID{1, 1, 1, 1}, []imap.UID{1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, 5*time.Second, func(t *testing.T, sim *graphsim.Sim, b *Backend, a *Account) {
				m, err := a.Open(t.Context(), "INBOX", false)
				if err != nil {
					t.Fatal(err)
				}
				defer m.Close()
				for _, uid := range tt.asked {
					m.ReadOn(t.Context(), uid)
					readBody(t, m, uid)
					synctest.Wait() // no time passes, so nothing is read for other reasons
				}
				var got []imap.UID
				m.Messages(m.UIDs(), func(msg *Message) bool {
					if msg.HasBody {
						got = append(got, msg.UID)
					}
					return true
				})
				if !slices.Equal(got, tt.want) {
					t.Errorf("asked for %v: texts of %v, want %v", tt.asked, got, tt.want)
				}
			})
		})
	}
}

// What is read ahead ends with the mailbox, and a failure of it is nobody's.
func TestReadOnEnds(t *testing.T) {
	virtual(t, 5*time.Second, func(t *testing.T, sim *graphsim.Sim, b *Backend, a *Account) {
		m, err := a.Open(t.Context(), "INBOX", false)
		if err != nil {
			t.Fatal(err)
		}
		for _, msg := range sim.Messages(alice, "inbox")[:7] { // all but the oldest three
			inject(t, sim, graphsim.Fault{Path: regexp.QuoteMeta(strings.TrimRight(msg.ID, "=")) + `.*value$`, Delay: time.Hour})
		}
		for uid := imap.UID(1); uid <= 3; uid++ {
			m.ReadOn(t.Context(), uid)
			readBody(t, m, uid)
		}
		synctest.Wait()
		began := time.Now()
		m.Close()
		if d := time.Since(began); d > time.Second {
			t.Errorf("closing took %v", d)
		}
		m.ReadOn(t.Context(), 4)
	})
}
