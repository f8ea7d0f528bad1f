package backend

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend/graphsim"
)

// holdAnswers passes requests on to sim, and keeps the answers to batches that hold the word back until release is closed.
func holdAnswers(sim http.Handler, word string, release <-chan struct{}) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/$batch") {
			sim.ServeHTTP(w, r)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client has gone
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		answer := httptest.NewRecorder()
		sim.ServeHTTP(answer, r)
		if bytes.Contains(body, []byte(word)) {
			<-release
		}
		for name, values := range answer.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes()) // the client may have gone
	})
}

// Another program undoes what a client does before the client's command is recorded. The rounds of changes that tell of it come
// too early, so they must not count.
func TestCrossingChanges(t *testing.T) {
	for _, tt := range []struct {
		name string
		word string
		do   func(m *Mailbox, uids []imap.UID) error
		undo func(sim *graphsim.Sim, id string)
		left int // in the Inbox
	}{
		{"copy deleted", "/copy", func(m *Mailbox, uids []imap.UID) error {
			_, err := m.Copy(t.Context(), uids, "Archive")
			return err
		}, func(sim *graphsim.Sim, id string) { sim.DeleteMessage(alice, id, true) }, 3},
		{"moved back", "/move", func(m *Mailbox, uids []imap.UID) error {
			_, err := m.Move(t.Context(), uids, "Archive")
			return err
		}, func(sim *graphsim.Sim, id string) { sim.MoveMessage(alice, id, "inbox") }, 3},
		{"moved on", "/move", func(m *Mailbox, uids []imap.UID) error {
			_, err := m.Move(t.Context(), uids, "Archive")
			return err
		}, func(sim *graphsim.Sim, id string) { sim.MoveMessage(alice, id, "drafts") }, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sim, _ := newSim(t, graphsim.Options{})
			bystanders := []string{sim.AddMessage(alice, "archive", mail(10), graphsim.MessageSpec{})}
			for i := range 3 { // the last of them is a bystander too
				id := sim.AddMessage(alice, "inbox", mail(i), graphsim.MessageSpec{Received: time.Now().Add(time.Duration(i-10) * time.Minute)})
				bystanders = append(bystanders[:1], id)
			}
			release := make(chan struct{})
			srv := httptest.NewServer(holdAnswers(sim, tt.word, release))
			t.Cleanup(srv.Close)
			b, _ := start(t, testConfig(t, srv.URL, t.TempDir()))
			a := accountOf(t, b, alice)
			inbox, archive := open(t, a, "INBOX"), open(t, a, "Archive")
			rounds := func() int {
				return sim.CountRequests(func(r graphsim.Request) bool { return strings.HasSuffix(r.Path, "/messages/delta") })
			}
			done := make(chan error, 1)
			go func() { done <- tt.do(inbox, inbox.UIDs()[:1]) }()
			eventually(t, nil, "it is done in Graph", func() bool { return len(sim.Messages(alice, "archive")) == 2 })
			for _, msg := range sim.Messages(alice, "archive") {
				if msg.ID != bystanders[0] {
					tt.undo(sim, msg.ID)
				}
			}
			for _, id := range bystanders { // a round without any change would not count anyway
				sim.UpdateMessage(alice, id, graphsim.Change{Flagged: new(true)})
			}
			before := rounds()
			eventually(t, nil, "rounds of changes", func() bool { return rounds() > before+8 })
			close(release)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			eventually(t, archive, "nothing more is in Archive", func() bool { return len(archive.UIDs()) == 1 })
			eventually(t, inbox, "what Graph has in the Inbox", func() bool { return len(inbox.UIDs()) == tt.left })
			// And it stays so.
			before = rounds()
			eventually(t, nil, "rounds of changes", func() bool { return rounds() > before+4 })
			if in, ar := len(inbox.UIDs()), len(archive.UIDs()); in != tt.left || ar != 1 {
				t.Errorf("%d in the Inbox, %d in Archive", in, ar)
			}
		})
	}
}
