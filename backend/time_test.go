package backend

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend/graphsim"
)

// inProcess lets a client call a handler without a network, so that virtual time works.
type inProcess struct{ http.Handler }

func (h inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	cut := false
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil && p != http.ErrAbortHandler {
				panic(p)
			}
		}()
		cut = true
		h.ServeHTTP(w, r)
		cut = false
	}()
	select {
	case <-done:
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	resp := w.Result()
	resp.Request = r
	if cut {
		if w.Body.Len() == 0 {
			return nil, io.ErrUnexpectedEOF
		}
		resp.Body = io.NopCloser(io.MultiReader(resp.Body, iotest.ErrReader(io.ErrUnexpectedEOF)))
	}
	return resp, nil
}

func deltaTimes(sim *graphsim.Sim) []time.Time {
	var out []time.Time
	for _, r := range sim.Requests() {
		if strings.HasSuffix(r.Template, "/messages/delta") {
			out = append(out, r.Time)
		}
	}
	return out
}

func TestPolling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := graphsim.New(graphsim.Options{EmptyPageEvery: -1})
		sim.AddTenant("6d5f3f6e-0000-4000-8000-000000000000", testTenant)
		sim.AddApp(testTenant, testApp, testSecret, "Mail.ReadWrite", "Mail.Send")
		sim.AddUser(testTenant, graphsim.UserSpec{UPN: alice})
		sim.AddMessage(alice, "inbox", mail(1), graphsim.MessageSpec{})
		cfg := testConfig(t, "http://graph.example", t.TempDir())
		cfg.Mailboxes = cfg.Mailboxes[:1]
		cfg.Poll = 5 * time.Second
		cfg.HTTPClient = &http.Client{Transport: inProcess{sim}}
		b, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { b.Run(ctx); close(done) }()
		defer func() {
			cancel()
			<-done
			b.Close()
		}()
		a := accountOf(t, b, alice)
		m, err := a.Open(ctx, "INBOX", false)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		sim.ResetRequests()
		time.Sleep(10 * time.Minute)
		// Quiet or not: who waits for mail waits no longer than the poll time.
		if n := len(deltaTimes(sim)); n < 110 || n > 125 {
			t.Errorf("%d rounds in ten quiet minutes with the folder open", n)
		}
		since := m.HighestModSeq()
		sim.DeliverMessage(alice, mail(2))
		began := time.Now()
		<-m.Notify()
		if d := time.Since(began); d > 6*time.Second {
			t.Errorf("new message seen after %s", d)
		}
		if ch := m.Changes(since); len(ch.Added) != 1 {
			t.Errorf("changes = %+v", ch)
		}
		synctest.Wait()
		sim.ResetRequests()
		time.Sleep(6 * time.Second)
		if n := len(deltaTimes(sim)); n != 1 {
			t.Errorf("%d rounds in the six seconds after a change", n)
		}
		m.Close()
		time.Sleep(time.Minute)
		sim.ResetRequests()
		time.Sleep(10 * time.Minute)
		if n := len(deltaTimes(sim)); n < 5 || n > 11 {
			t.Errorf("%d rounds in ten minutes with the folder closed", n)
		}
		time.Sleep(2 * time.Hour)
		sim.ResetRequests()
		time.Sleep(time.Hour)
		if n := sim.CountRequests(nil); n > 20 {
			t.Errorf("%d requests in an hour in which nobody used the account", n)
		}

		// Graph is out of reach: fewer and fewer tries, then back at once when a client asks.
		m, err = a.Open(ctx, "INBOX", false)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		time.Sleep(time.Minute)
		if err := sim.Inject(graphsim.Fault{Path: `/v1\.0/`, Status: 500, Code: "InternalServerError"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Minute)
		if st := a.State(); st.LastError == "" || st.Kind != Unavailable || !st.Ready {
			t.Errorf("state while Graph fails = %+v", st)
		}
		sim.ResetRequests()
		time.Sleep(30 * time.Minute)
		if n := len(deltaTimes(sim)); n > 60 {
			t.Errorf("%d tries in half an hour while Graph fails", n)
		}
		if got, err := a.Status(ctx, "INBOX"); err != nil || got.Messages != 2 {
			t.Errorf("status while Graph fails = %+v, %v", got, err)
		}
		sim.ClearFaults()
		sim.DeliverMessage(alice, mail(3))
		if err := m.Refresh(ctx); err != nil {
			t.Fatal(err)
		}
		if len(m.UIDs()) != 3 {
			t.Errorf("%d messages after NOOP", len(m.UIDs()))
		}
		if st := a.State(); st.LastError != "" {
			t.Errorf("state after recovery = %+v", st)
		}
	})
}

// TestNoopIsQuick checks that a client's NOOP does not hang on a Graph that hangs.
func TestNoopIsQuick(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	sim.AddMessage(alice, "inbox", mail(1), graphsim.MessageSpec{})
	cfg := testConfig(t, url, t.TempDir())
	cfg.Poll = time.Millisecond
	b, _ := start(t, cfg)
	m := open(t, accountOf(t, b, alice), "INBOX")
	inject(t, sim, graphsim.Fault{Path: "delta", Delay: 5 * time.Second})
	began := time.Now()
	if err := m.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(began); d > 3*time.Second {
		t.Errorf("took %s", d)
	}
	sim.ClearFaults()
}

// TestFillResumes stops in the middle of a first fill.
func TestFillResumes(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{EmptyPageEvery: -1})
	const n = 10_000
	sim.AddSynthetic(alice, "inbox", n, graphsim.Synthetic{})
	dir := t.TempDir()
	b, stop := start(t, testConfig(t, url, dir))
	// The fifth page of the list never comes.
	inject(t, sim, graphsim.Fault{Path: `inbox.*receivedDateTime|messages\?.*skip`, Skip: 5, Status: 403, Code: "ErrorAccessDenied"})
	if _, err := accountOf(t, b, alice).Open(t.Context(), "INBOX", false); KindOf(err) != Denied {
		t.Fatalf("open = %v", err)
	}
	stop()
	sim.ClearFaults()
	sim.ResetRequests()
	b, _ = start(t, testConfig(t, url, dir))
	a := accountOf(t, b, alice)
	m := open(t, a, "INBOX")
	if len(m.UIDs()) != n {
		t.Fatalf("%d messages", len(m.UIDs()))
	}
	var last time.Time
	m.Messages(m.UIDs(), func(msg *Message) bool {
		if msg.Received.Before(last) {
			t.Errorf("UID %d is older than the one before", msg.UID)
			return false
		}
		last = msg.Received
		return true
	})
	lists := sim.CountRequests(func(r graphsim.Request) bool {
		return strings.HasSuffix(r.Template, "/messages") && !strings.Contains(r.Query, "0x007D") && r.Method == "GET"
	})
	if lists >= 10 {
		t.Errorf("%d pages after the restart: the fill began anew", lists)
	}
}

// TestSentCopyInFlight appends the client's copy while Exchange has not yet put its own into Sent Items.
func TestSentCopyInFlight(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{SentItemsDelay: time.Second})
	cfg := testConfig(t, url, t.TempDir())
	b, _ := start(t, cfg)
	a := accountOf(t, b, alice)
	sent := open(t, a, "Sent")
	raw := []byte("From: alice@contoso.example\r\nTo: bob@contoso.example\r\nSubject: once\r\nDate: Mon, 02 Mar 2026 10:00:00 +0000\r\nMessage-ID: <once@contoso.example>\r\n\r\nhello\r\n")
	sub, err := b.NewSubmission(&Login{Username: alice, Account: a}, Envelope{From: alice, Recipients: []Recipient{{Address: bob}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sub.Write(raw); err != nil {
		t.Fatal(err)
	}
	if _, err := sub.Submit(t.Context()); err != nil {
		t.Fatal(err)
	}
	uid, err := appendMail(t, a, "Sent", raw, time.Time{}, "\\Seen")
	if err != nil || uid == 0 {
		t.Fatalf("append = %d, %v", uid, err)
	}
	if n := len(sim.Messages(alice, "sentitems")); n != 1 {
		t.Errorf("%d copies in Sent Items", n)
	}
	if err := a.syncer.RefreshNow(t.Context(), sent.view.id); err != nil {
		t.Fatal(err)
	}
	if uids := sent.UIDs(); !slices.Contains(uids, uid) || len(uids) != 1 {
		t.Errorf("clients see %v, appended %d", uids, uid)
	}
	if got := readBody(t, sent, uid); got != string(raw) {
		t.Errorf("read back %q", got)
	}
}

// TestUnreadableMessage has a message whose text Exchange cannot build.
func TestUnreadableMessage(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	sim.AddMessage(alice, "inbox", mail(1), graphsim.MessageSpec{})
	inject(t, sim, graphsim.Fault{Path: `value$`, Status: 500, Code: "ErrorCorruptData"})
	b, _ := start(t, testConfig(t, url, t.TempDir()))
	m := open(t, accountOf(t, b, alice), "INBOX")
	if text := readBody(t, m, 1); !strings.Contains(text, "Subject: number 1") || !strings.Contains(text, "damaged") {
		t.Errorf("text = %q", text)
	}
}

// A text that Graph fails to give for long, while it gives others, is replaced by words that say so: else no program gets past it.
// While Graph gives none at all, nothing is replaced.
func TestTextThatFailsAlone(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault graphsim.Fault
		all   bool
		want  bool
	}{
		{"server fault", graphsim.Fault{Status: 500, Code: "ErrorInternalServerError"}, false, true},
		{"not found", graphsim.Fault{Status: 404, Code: "ErrorItemNotFound"}, false, true},
		{"empty", graphsim.Fault{Status: 200, EmptyBody: true}, false, true},
		{"all", graphsim.Fault{Status: 500, Code: "ErrorInternalServerError"}, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, 5*time.Second, func(t *testing.T, sim *graphsim.Sim, b *Backend, a *Account) {
				tt.fault.Path = `value$`
				if !tt.all {
					tt.fault.Path = regexp.QuoteMeta(strings.TrimRight(sim.Messages(alice, "inbox")[9].ID, "=")) + `.*value$`
				}
				inject(t, sim, tt.fault)
				m, err := a.Open(t.Context(), "INBOX", false)
				if err != nil {
					t.Fatal(err)
				}
				defer m.Close()
				var texts []string
				for range 4 {
					text := ""
					if body, err := m.Body(t.Context(), 1); err == nil {
						body.Close()
						text = readBody(t, m, 1)
					}
					texts = append(texts, text)
					time.Sleep(5 * time.Minute)
				}
				if texts[0] != "" || texts[1] != "" {
					t.Errorf("texts are %q", texts)
				}
				if got := strings.Contains(texts[3], "X-Postern-Unreadable"); got != tt.want {
					t.Errorf("texts are %q", texts)
				}
			})
		})
	}
}

// A list of sent messages, whose headers are in their texts alone, does not fail because Graph fails to give one of them.
func TestHeadersBesideFailingText(t *testing.T) {
	virtual(t, 5*time.Second, func(t *testing.T, sim *graphsim.Sim, b *Backend, a *Account) {
		for i := range 4 {
			sim.AddMessage(alice, "sentitems", mail(50+i), graphsim.MessageSpec{NoTransportHeaders: true})
		}
		id := sim.Messages(alice, "sentitems")[1].ID
		inject(t, sim, graphsim.Fault{Path: regexp.QuoteMeta(strings.TrimRight(id, "=")) + `.*value$`, Status: 500, Code: "ErrorInternalServerError"})
		m, err := a.Open(t.Context(), "Sent", false)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		got := 0
		err = m.Headers(t.Context(), m.UIDs(), func(uid imap.UID, header []byte) error {
			got++
			if !strings.Contains(string(header), "Subject: number 5") {
				t.Errorf("header of %d is %q", uid, header)
			}
			return nil
		})
		if err != nil || got != 4 {
			t.Errorf("%d headers, %v", got, err)
		}
	})
}
