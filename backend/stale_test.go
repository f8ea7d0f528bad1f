package backend

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend/graphsim"
)

// interlude passes requests on to a simulator. Between its answer and the client stands meanwhile, once for each time it is
// armed.
type interlude struct {
	sim http.Handler

	mu        sync.Mutex
	match     func(r *http.Request, asked []byte) bool
	meanwhile func(answer *httptest.ResponseRecorder)
	before    func(r *http.Request, asked []byte) // called with each request before the simulator gets it
	minimal   bool                                // changes in batches are answered with 204, as to return=minimal
}

// arm has meanwhile called with the answer to the next request that matches.
func (i *interlude) arm(match func(r *http.Request, asked []byte) bool, meanwhile func(*httptest.ResponseRecorder)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.match, i.meanwhile = match, meanwhile
}

func (i *interlude) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	asked, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client has gone
	}
	r.Body = io.NopCloser(bytes.NewReader(asked))
	answer := httptest.NewRecorder()
	i.mu.Lock()
	before, minimal := i.before, i.minimal
	i.mu.Unlock()
	if before != nil {
		before(r, asked)
	}
	i.sim.ServeHTTP(answer, r)
	i.mu.Lock()
	meanwhile := i.meanwhile
	if meanwhile != nil && i.match(r, asked) {
		i.match, i.meanwhile = nil, nil
	} else {
		meanwhile = nil
	}
	i.mu.Unlock()
	if meanwhile != nil {
		meanwhile(answer)
	}
	if minimal && isBatchOf(http.MethodPatch)(r, asked) {
		minimise(answer)
	}
	for name, values := range answer.Header() {
		if name != "Content-Length" {
			w.Header()[name] = values
		}
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes()) // the client may have gone
}

// minimise takes the bodies out of a batch's answers.
func minimise(answer *httptest.ResponseRecorder) {
	var batch struct {
		Responses []map[string]any `json:"responses"`
	}
	if json.Unmarshal(answer.Body.Bytes(), &batch) != nil {
		return
	}
	for _, r := range batch.Responses {
		if r["status"] == 200.0 {
			r["status"] = 204
			delete(r, "body")
		}
	}
	answer.Body.Reset()
	_ = json.NewEncoder(answer.Body).Encode(batch) // a buffer takes it
}

// hold keeps the next answer that matches back until release is called. begun is closed when it is there.
func (i *interlude) hold(t *testing.T, match func(r *http.Request, asked []byte) bool) (begun <-chan struct{}, release func()) {
	there, released := make(chan struct{}), make(chan struct{})
	release = sync.OnceFunc(func() { close(released) })
	t.Cleanup(release)
	i.arm(match, func(*httptest.ResponseRecorder) {
		close(there)
		<-released
	})
	return there, release
}

func isDelta(r *http.Request, _ []byte) bool { return strings.HasSuffix(r.URL.Path, "/messages/delta") }

func isList(r *http.Request, _ []byte) bool {
	return r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/messages")
}

func isBatchOf(method string) func(*http.Request, []byte) bool {
	return func(r *http.Request, asked []byte) bool {
		return strings.HasSuffix(r.URL.Path, "/$batch") && bytes.Contains(asked, []byte(`"`+method+`"`))
	}
}

// quietInbox is a mailbox with one message in its Inbox, of which Graph is asked only when the test says so.
type quietInbox struct {
	t     *testing.T
	sim   *graphsim.Sim
	wire  *interlude
	b     *Backend
	a     *Account
	inbox *Mailbox
	id    string // of the message, whose UID is 1
}

func newQuietInbox(t *testing.T) *quietInbox {
	sim, _ := newSim(t, graphsim.Options{EmptyPageEvery: -1})
	q := &quietInbox{t: t, sim: sim, wire: &interlude{sim: sim}}
	q.id = sim.AddMessage(alice, "inbox", mail(1), graphsim.MessageSpec{})
	srv := httptest.NewServer(q.wire)
	t.Cleanup(srv.Close)
	cfg := testConfig(t, srv.URL, t.TempDir())
	cfg.Poll = time.Hour
	q.b, _ = start(t, cfg)
	q.a = accountOf(t, q.b, alice)
	q.inbox = open(t, q.a, "INBOX")
	q.refresh()
	q.refresh()
	return q
}

func (q *quietInbox) refresh() {
	q.t.Helper()
	if err := q.a.syncer.RefreshNow(q.t.Context(), q.inbox.view.id); err != nil {
		q.t.Fatal(err)
	}
}

func (q *quietInbox) store(op StoreAction, flags ...imap.Flag) {
	q.t.Helper()
	if _, err := q.inbox.Store(q.t.Context(), []imap.UID{1}, op, flags, 0); err != nil {
		q.t.Fatal(err)
	}
}

func (q *quietInbox) awaitPush() {
	q.t.Helper()
	eventually(q.t, nil, "push", func() bool {
		pending, err := q.b.store.Pending(q.t.Context(), q.a.id, 1)
		return err == nil && len(pending) == 0
	})
}

// What Graph was asked before a client changed a message, and answers after that change has arrived in Graph, shows the message
// as it was before. Clients must not see it: their own change would be taken back, and made again by the next answer.
func TestAnswerFromBeforeOwnChange(t *testing.T) {
	for _, tt := range []struct {
		name  string
		setUp func(q *quietInbox)
		held  func(*http.Request, []byte) bool
	}{
		{"page of changes", func(q *quietInbox) { q.touch() }, isDelta},
		{"message read again", func(q *quietInbox) { q.touch() }, isBatchOf("GET")},
		{"enumeration", func(q *quietInbox) {
			inject(q.t, q.sim, graphsim.Fault{Path: "messages/delta", ResetDelta: true, Times: 1})
		}, func(r *http.Request, _ []byte) bool {
			return isDelta(r, nil) && !strings.Contains(r.URL.RawQuery, "token")
		}},
		{"list", func(q *quietInbox) {
			// As of a mailbox that is full.
			inject(q.t, q.sim, graphsim.Fault{Path: "messages/delta", Status: 507, Code: "ErrorQuotaExceeded"})
		}, isList},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := newQuietInbox(t)
			tt.setUp(q)
			begun, release := q.wire.hold(t, tt.held)
			done := make(chan error, 1)
			go func() { done <- q.a.syncer.RefreshNow(t.Context(), q.inbox.view.id) }()
			select {
			case <-begun:
			case err := <-done:
				t.Fatalf("nothing was held (%v)", err)
			}
			q.store(StoreAdd, imap.FlagSeen, imap.FlagDeleted, "$Label1")
			q.awaitPush()
			told := q.inbox.HighestModSeq()
			release()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			q.refresh()
			if got := flagsOf(q.inbox, 1); got != `\Seen \Deleted $Label1` {
				t.Errorf("flags = %q", got)
			}
			if now := q.inbox.HighestModSeq(); now != told {
				t.Errorf("clients were told of %d changes that nobody made", now-told)
			}
		})
	}
}

// touch changes the message and takes that back, so that a row of changes says how it is.
func (q *quietInbox) touch() {
	for _, on := range []bool{true, false} {
		categories := []string{}
		if on {
			categories = append(categories, "Elsewhere")
		}
		q.sim.UpdateMessage(alice, q.id, graphsim.Change{IsRead: &on, Flagged: &on, Categories: &categories})
	}
}

// Rounds of changes may lag behind: one that is asked for after a client's change has arrived in Graph may still tell of the
// time before it.
func TestLateRow(t *testing.T) {
	q := newQuietInbox(t)
	var late []byte
	q.touch()
	q.wire.arm(isDelta, func(answer *httptest.ResponseRecorder) { late = bytes.Clone(answer.Body.Bytes()) })
	q.refresh()
	q.store(StoreAdd, imap.FlagSeen, "$Label1")
	q.awaitPush()
	told := q.inbox.HighestModSeq()
	q.wire.arm(isDelta, func(answer *httptest.ResponseRecorder) {
		answer.Body.Reset()
		answer.Body.Write(late)
	})
	q.refresh()
	q.refresh()
	if got := flagsOf(q.inbox, 1); got != `\Seen $Label1` {
		t.Errorf("flags = %q", got)
	}
	if now := q.inbox.HighestModSeq(); now != told {
		t.Errorf("clients were told of %d changes that nobody made", now-told)
	}
}

// Another program changes a message right after a client's change has arrived in Graph, and a row tells of it before Graph has
// answered the client's change. It must not pass for the report of that.
func TestChangeWhileOwnIsAnswered(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change graphsim.Change
		want   string
	}{
		{"where rows show it", graphsim.Change{IsRead: new(false)}, ``},
		{"where rows do not show it", graphsim.Change{Extended: map[string]string{"Integer 0x1081": "102"}}, `\Seen \Answered`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := newQuietInbox(t)
			begun, release := q.wire.hold(t, isBatchOf("PATCH"))
			q.store(StoreAdd, imap.FlagSeen)
			<-begun
			q.sim.UpdateMessage(alice, q.id, tt.change)
			q.refresh()
			release()
			q.awaitPush()
			eventually(t, q.inbox, "what the other program did", func() bool { return flagsOf(q.inbox, 1) == tt.want })
			q.refresh()
			if got := flagsOf(q.inbox, 1); got != tt.want {
				t.Errorf("flags = %q, want %q", got, tt.want)
			}
		})
	}
}

// Where Graph does not tell the version that a change has made, what another program does after it is seen all the same.
func TestChangeAfterUntoldVersion(t *testing.T) {
	q := newQuietInbox(t)
	q.wire.mu.Lock()
	q.wire.minimal = true
	q.wire.mu.Unlock()
	q.store(StoreAdd, imap.FlagSeen)
	q.awaitPush()
	q.sim.UpdateMessage(alice, q.id, graphsim.Change{IsRead: new(false), Flagged: new(true)})
	q.refresh()
	if got := flagsOf(q.inbox, 1); got != `\Flagged` {
		t.Errorf("flags = %q", got)
	}
	// And what is only our own is not read again.
	q.store(StoreAdd, "$Label1")
	q.awaitPush()
	q.sim.ResetRequests()
	told := q.inbox.HighestModSeq()
	q.refresh()
	reads := q.sim.CountRequests(func(r graphsim.Request) bool { return r.InBatch && r.Method == http.MethodGet })
	if now := q.inbox.HighestModSeq(); reads != 0 || now != told {
		t.Errorf("%d messages were read, clients were told of %d changes", reads, now-told)
	}
}

// Another program takes back what a client did, and one row tells of both before the client's change has been answered.
// Later the client changes something else.
func TestChangeBeforeOwn(t *testing.T) {
	q := newQuietInbox(t)
	q.store(StoreAdd, imap.FlagSeen)
	q.awaitPush()
	q.refresh()
	q.sim.UpdateMessage(alice, q.id, graphsim.Change{IsRead: new(false)})
	begun, release := q.wire.hold(t, isBatchOf("PATCH"))
	q.store(StoreAdd, imap.FlagFlagged)
	<-begun
	q.refresh()
	release()
	q.awaitPush()
	eventually(t, q.inbox, "what the other program did", func() bool { return flagsOf(q.inbox, 1) == `\Flagged` })
}

// COPY pushes what is pending first. An older push that is under way must not arrive after it.
func TestCopyWhileFlagsArePushed(t *testing.T) {
	q := newQuietInbox(t)
	there, released := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(released) })
	t.Cleanup(release)
	once := sync.OnceFunc(func() {
		close(there)
		<-released
	})
	q.wire.mu.Lock()
	q.wire.before = func(r *http.Request, asked []byte) {
		if !isBatchOf("PATCH")(r, asked) || !bytes.Contains(asked, []byte(`"flagged"`)) {
			return
		}
		once()
	}
	q.wire.mu.Unlock()
	q.store(StoreAdd, imap.FlagFlagged)
	<-there
	q.store(StoreRemove, imap.FlagFlagged)
	copied := make(chan error, 1)
	go func() {
		_, err := q.inbox.Copy(t.Context(), []imap.UID{1}, "Archive")
		copied <- err
	}()
	select {
	case err := <-copied:
		copied <- err
	case <-time.After(200 * time.Millisecond): // it waits for the push
	}
	release()
	if err := <-copied; err != nil {
		t.Fatal(err)
	}
	q.awaitPush()
	q.refresh()
	msg := q.sim.Messages(alice, "inbox")[0]
	if got := flagsOf(q.inbox, 1); got != `` || msg.Flagged {
		t.Errorf("flags = %q; in Graph: %+v", got, msg)
	}
}
