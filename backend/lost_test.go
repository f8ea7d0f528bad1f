package backend

import (
	"strings"
	"testing"
	"time"

	"postern/backend/graphsim"
)

// TestNotFoundForAMoment has Graph say that it does not find messages which it lists. A program that is told that a
// message is gone never asks for it again, so that must not be said before it is certain.
func TestNotFoundForAMoment(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault graphsim.Fault
	}{
		{"text", graphsim.Fault{Method: "GET", Path: `/\$value$`, Status: 404, Code: "ErrorItemNotFound", Times: 3}},
		{"message", graphsim.Fault{Method: "GET", Path: `/messages/A[^/]+(\?|/\$value)`, Status: 404, Code: "ErrorItemNotFound", Times: 4}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sim, url := newSim(t, graphsim.Options{})
			sim.DeliverMessage(alice, mail(1))
			b, _ := start(t, testConfig(t, url, t.TempDir()))
			a := accountOf(t, b, alice)
			m := open(t, a, "INBOX")
			if err := a.syncer.RefreshNow(t.Context(), m.view.id); err != nil {
				t.Fatal(err)
			}
			if err := sim.Inject(tt.fault); err != nil {
				t.Fatal(err)
			}
			sim.DeliverMessage(alice, mail(2))
			eventually(t, m, "the second message is shown", func() bool { return len(m.UIDs()) == 2 })
			for _, uid := range m.UIDs() {
				if text := readBody(t, m, uid); !strings.Contains(text, "Subject:") {
					t.Errorf("UID %d: %q", uid, text)
				}
			}
			if sim.FaultsFired() == 0 {
				t.Error("nothing went wrong")
			}
		})
	}
}

// TestGoneIsToldOnce takes a message away that a client is about to read.
func TestGoneIsToldOnce(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	sim.DeliverMessage(alice, mail(1))
	conf := testConfig(t, url, t.TempDir())
	conf.Poll = time.Hour
	b, _ := start(t, conf)
	a := accountOf(t, b, alice)
	m := open(t, a, "INBOX")
	uid := m.UIDs()[0]
	sim.DeleteMessage(alice, sim.Messages(alice, "inbox")[0].ID, true)
	_, err := m.Body(t.Context(), uid)
	if KindOf(err) != NotFound {
		t.Errorf("reading it: %v", err)
	}
	eventually(t, m, "it is gone", func() bool { return len(m.UIDs()) == 0 })
}
