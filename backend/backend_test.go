package backend

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend/graph/graphtest"
	"postern/backend/graphsim"
	"postern/backend/token"
)

const (
	testTenant = "contoso.example"
	testApp    = "2c9b0c44-0000-4000-8000-000000000000"
	testSecret = "a-secret"
	alice      = "alice@contoso.example"
	bob        = "bob@contoso.example"
)

// newSim returns a simulated tenant with two mailboxes and its address.
func newSim(t *testing.T, opts graphsim.Options) (*graphsim.Sim, string) {
	t.Helper()
	sim := graphsim.New(opts)
	sim.AddTenant("6d5f3f6e-0000-4000-8000-000000000000", testTenant)
	sim.AddApp(testTenant, testApp, testSecret, "Mail.ReadWrite", "Mail.Send")
	sim.AddUser(testTenant, graphsim.UserSpec{UPN: alice, DisplayName: "Alice"})
	sim.AddUser(testTenant, graphsim.UserSpec{UPN: bob, DisplayName: "Bob"})
	srv := httptest.NewServer(sim)
	t.Cleanup(srv.Close)
	return sim, srv.URL
}

func testConfig(t *testing.T, url, dir string) Config {
	t.Helper()
	var logger *slog.Logger
	if testing.Verbose() {
		logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	pool := &http.Transport{MaxIdleConnsPerHost: 16}
	t.Cleanup(pool.CloseIdleConnections)
	return Config{
		State: dir,
		Credentials: map[string]token.Credential{"contoso": {
			Name: "contoso", Tenant: testTenant, ClientID: testApp, ClientSecret: testSecret, LoginURL: url, GraphURL: url,
		}},
		Mailboxes:   []MailboxConfig{{Address: alice, Credential: "contoso"}, {Address: bob, Credential: "contoso"}},
		SendWait:    time.Second,
		MaxMessage:  50 << 20,
		Poll:        50 * time.Millisecond,
		CacheBodies: 1 << 30,
		Logger:      logger,
		HTTPClient:  &http.Client{Transport: graphtest.Transport(t, pool)},
	}
}

// start runs a backend until the test ends or stop is called.
func start(t *testing.T, cfg Config) (b *Backend, stop func()) {
	t.Helper()
	b, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := b.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	t.Cleanup(stop)
	return b, stop
}

func accountOf(t *testing.T, b *Backend, address string) *Account {
	t.Helper()
	a, ok := b.Account(address)
	if !ok {
		t.Fatalf("no account %s", address)
	}
	return a
}

func open(t *testing.T, a *Account, name string) *Mailbox {
	t.Helper()
	m, err := a.Open(t.Context(), name, false)
	if err != nil {
		t.Fatalf("open %s: %v", name, err)
	}
	t.Cleanup(m.Close)
	return m
}

// eventually waits for cond, looking again after each change of m (nil: now and then).
func eventually(t *testing.T, m *Mailbox, what string, cond func() bool) {
	t.Helper()
	eventuallyWithin(t, m, 10*time.Second, what, cond)
}

// eventuallyWithin is eventually for what takes long on a busy machine.
func eventuallyWithin(t *testing.T, m *Mailbox, limit time.Duration, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		var notify <-chan struct{}
		if m != nil {
			notify = m.Notify()
		}
		select {
		case <-notify:
		case <-tick.C:
		case <-deadline:
			t.Fatalf("timed out: %s", what)
		}
	}
}

func mail(n int) []byte {
	return fmt.Appendf(nil, "From: Carol <carol@fabrikam.example>\r\nTo: alice@contoso.example\r\nSubject: number %d\r\n"+
		"Date: Mon, 02 Mar 2026 10:%02d:00 +0000\r\nMessage-ID: <m%d@fabrikam.example>\r\nMIME-Version: 1.0\r\n"+
		"Content-Type: text/plain; charset=utf-8\r\n\r\nHello number %d.\r\n", n, n%60, n, n)
}

func flagsOf(m *Mailbox, uid imap.UID) string {
	msg, ok := m.Message(uid)
	if !ok {
		return "gone"
	}
	var out []string
	for _, f := range msg.AppendFlags(nil) {
		out = append(out, string(f))
	}
	return strings.Join(out, " ")
}

func appendMail(t *testing.T, a *Account, name string, raw []byte, date time.Time, flags ...imap.Flag) (imap.UID, error) {
	t.Helper()
	nm, err := a.NewMessage()
	if err != nil {
		t.Fatal(err)
	}
	defer nm.Discard()
	if _, err := nm.Write(raw); err != nil {
		t.Fatal(err)
	}
	_, uid, err := a.Append(t.Context(), name, flags, date, nm)
	return uid, err
}

func readBody(t *testing.T, m *Mailbox, uid imap.UID) string {
	t.Helper()
	b, err := m.Body(t.Context(), uid)
	if err != nil {
		t.Fatalf("body of %d: %v", uid, err)
	}
	defer b.Close()
	text, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
