package imapd

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"postern/backend"
	"postern/backend/graphsim"
	"postern/backend/token"
)

const (
	alice   = "alice@contoso.example"
	support = "support@contoso.example"
)

// world is a server over a real backend over a simulated Microsoft 365. The
// mailbox of alice has Archive, Archive/2023 and "Überblick & Co" besides the
// usual folders. Logins, all with the password "pass": alice; boss, who has
// alice's mailbox and that of support beside it; reader, who may only read.
type world struct {
	t       testing.TB
	sim     *graphsim.Sim
	backend *backend.Backend
	server  *Server
	logs    *logBuffer
	limit   int // Graph calls; 0 for what the service allows
}

// passwordHash costs time to make and is the same for all.
var passwordHash = sync.OnceValues(func() (string, error) { return backend.HashPassword("pass") })

func newWorld(t testing.TB, limits Limits) *world {
	t.Helper()
	w := newSimWorld(t, graphsim.Options{})
	w.serve(limits)
	return w
}

// newSimWorld prepares the simulator; serve starts the rest.
func newSimWorld(t testing.TB, opts graphsim.Options) *world {
	t.Helper()
	const tenant, app, secret = "contoso.example", "2c9b0c44-0000-4000-8000-000000000000", "a-secret"
	sim := graphsim.New(opts)
	sim.AddTenant("6d5f3f6e-0000-4000-8000-000000000000", tenant)
	sim.AddApp(tenant, app, secret, "Mail.ReadWrite", "Mail.Send")
	sim.AddUser(tenant, graphsim.UserSpec{UPN: alice, DisplayName: "Alice"})
	sim.AddUser(tenant, graphsim.UserSpec{UPN: support, DisplayName: "Support"})
	sim.AddFolder(alice, "archive", "2023")
	sim.AddFolder(alice, "", "Überblick & Co")
	return &world{t: t, sim: sim, logs: &logBuffer{}}
}

func (w *world) serve(limits Limits) {
	w.t.Helper()
	web := httptest.NewServer(w.sim)
	hash, err := passwordHash()
	if err != nil {
		w.t.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	w.backend, err = backend.New(backend.Config{
		State: w.t.TempDir(),
		Credentials: map[string]token.Credential{"contoso": {
			Name: "contoso", Tenant: "contoso.example", ClientID: "2c9b0c44-0000-4000-8000-000000000000", ClientSecret: "a-secret",
			LoginURL: web.URL, GraphURL: web.URL,
		}},
		Mailboxes: []backend.MailboxConfig{{Address: alice, Credential: "contoso", Quota: 1 << 30}, {Address: support, Credential: "contoso"}},
		Logins: []backend.LoginConfig{
			{Username: "alice", PasswordHash: hash, Mailbox: alice, IMAP: true},
			{Username: "boss", PasswordHash: hash, Mailbox: alice, Shared: []string{support}, IMAP: true},
			{Username: "reader", PasswordHash: hash, Mailbox: alice, IMAP: true, ReadOnly: true},
		},
		MaxMessage:  50 << 20,
		Poll:        time.Second,
		CacheBodies: 1 << 30,
		Logger:      w.logs.logger(),
		HTTPClient:  &http.Client{Transport: transport},

		RequestLimit: w.limit,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.server = New(Options{Backend: w.backend, AllowPlainAuth: true, Limits: limits, Logger: w.logs.logger()})
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- w.backend.Run(ctx) }()
	w.t.Cleanup(func() {
		soon, stop := context.WithTimeout(context.Background(), time.Second)
		defer stop()
		w.server.Shutdown(soon)
		cancel()
		if err := <-ran; err != nil {
			w.t.Errorf("backend.Run: %v", err)
		}
		if err := w.backend.Close(); err != nil {
			w.t.Errorf("backend.Close: %v", err)
		}
		transport.CloseIdleConnections()
		web.Close()
		if w.t.Failed() && testing.Verbose() {
			w.t.Log(w.logs.String())
		}
	})
}

// connect opens a connection over TCP, whose buffers real clients rely on.
func (w *world) connect() *client {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	defer l.Close()
	ours, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	theirs, err := l.Accept()
	if err != nil {
		w.t.Fatal(err)
	}
	w.server.start(theirs)
	w.t.Cleanup(func() { ours.Close() })
	return &client{t: w.t, conn: ours, r: bufio.NewReader(ours)}
}

// login returns a client that has logged in.
func (w *world) login(user string) *client {
	w.t.Helper()
	c := w.connect()
	c.expect("* OK {{.*}}")
	c.ok("LOGIN " + user + " pass")
	return c
}
