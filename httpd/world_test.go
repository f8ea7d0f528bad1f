package httpd

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"postern/backend"
	"postern/backend/graphsim"
	"postern/backend/token"
)

const (
	tenant   = "6d5f3f6e-0000-4000-8000-000000000000"
	app      = "2c9b0c44-0000-4000-8000-000000000000"
	appKey   = "app-key"
	alice    = "alice@contoso.example"
	bob      = "bob@contoso.example"
	password = "open sesame"
)

// world is a server with a real backend in front of the simulator.
type world struct {
	t    *testing.T
	sim  *graphsim.Sim
	cfg  backend.Config
	b    *backend.Backend
	s    *Server
	host string
	from string
	jar  map[string]*http.Cookie
}

// newWorld starts one; change may alter the options.
func newWorld(t *testing.T, change func(*Options)) *world {
	t.Helper()
	w := &world{t: t, sim: graphsim.New(graphsim.Options{}), host: "127.0.0.1:8025", from: "127.0.0.1:50000", jar: make(map[string]*http.Cookie)}
	w.sim.AddTenant(tenant, "contoso.example")
	w.sim.AddApp(tenant, app, appKey, "Mail.ReadWrite", "Mail.Send")
	w.sim.AddUser(tenant, graphsim.UserSpec{UPN: alice, DisplayName: "Alice"})
	w.sim.AddUser(tenant, graphsim.UserSpec{UPN: bob, DisplayName: "Bob"})
	srv := httptest.NewServer(w.sim)
	t.Cleanup(srv.Close)
	hash, err := backend.HashPassword(password)
	if err != nil {
		t.Fatal(err)
	}
	metrics := NewMetrics("1.2.3")
	w.cfg = backend.Config{
		State: t.TempDir(), Observer: metrics.Observer(), QueueLifetime: time.Hour, LogSubject: true, Poll: time.Second, CacheBodies: 1e6,
		Credentials: map[string]token.Credential{"c": {Name: "c", Tenant: tenant, ClientID: app, ClientSecret: appKey, Cloud: token.Global,
			LoginURL: srv.URL, GraphURL: srv.URL, SecretEnds: time.Now().Add(10 * 24 * time.Hour)},
			"spare": {Name: "spare", Tenant: tenant, ClientID: app, ClientSecret: "x", Cloud: token.Global, LoginURL: srv.URL, GraphURL: srv.URL,
				SecretEnds: time.Now().Add(3 * 24 * time.Hour)}},
		Mailboxes: []backend.MailboxConfig{{Address: alice, Credential: "c"}, {Address: bob, Credential: "c"}},
		Logins: []backend.LoginConfig{{Username: "admin", PasswordHash: hash, Admin: true},
			{Username: alice, PasswordHash: hash, Mailbox: alice, SMTP: true, IMAP: true}},
	}
	if w.b, err = backend.New(w.cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- w.b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
		if err := w.b.Close(); err != nil {
			t.Error(err)
		}
	})
	listeners := func() []Listener {
		return []Listener{{Protocol: "imap", Address: "127.0.0.1:1143", TLS: "none", Open: 3, LoggedIn: 2}, {Protocol: "http", Address: "127.0.0.1:8025", TLS: "none"}}
	}
	metrics.Watch(w.b, listeners, func() time.Time { return time.Now().Add(time.Hour) })
	opts := Options{Backend: w.b, Version: "1.2.3", Metrics: metrics, Listeners: listeners, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Settings: Settings{Hosts: []string{"mail.contoso.example"}, PublicName: "mail.contoso.example", MailServers: []MailServer{
			{"imap", 143, "starttls"}, {"smtp", 465, "implicit"}, {"imap", 993, "implicit"}, {"smtp", 587, "starttls"}}}}
	if change != nil {
		change(&opts)
	}
	w.s = New(opts)
	w.s.liveEvery = 50 * time.Millisecond
	w.within("the mailboxes to be read", func() bool {
		for _, a := range w.b.Accounts() {
			if !a.State().Ready {
				return false
			}
		}
		return true
	})
	return w
}

// within waits until ok holds.
func (w *world) within(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// request makes one as a browser would: with the cookies it has, which it takes from the answer.
func (w *world) request(method, target string, form url.Values, change func(*http.Request)) (*http.Response, string) {
	w.t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r := httptest.NewRequest(method, target, body)
	r.Host, r.RemoteAddr = w.host, w.from
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	for _, c := range w.jar {
		r.AddCookie(c)
	}
	if change != nil {
		change(r)
	}
	rec := httptest.NewRecorder()
	w.s.ServeHTTP(rec, r)
	res := rec.Result()
	for _, c := range res.Cookies() {
		if c.MaxAge < 0 {
			delete(w.jar, c.Name)
		} else {
			w.jar[c.Name] = c
		}
	}
	return res, rec.Body.String()
}

func (w *world) get(target string) (*http.Response, string) {
	w.t.Helper()
	return w.request("GET", target, nil, nil)
}

// page is get for a page that must be there.
func (w *world) page(target string) string {
	w.t.Helper()
	res, body := w.get(target)
	if res.StatusCode != 200 {
		w.t.Fatalf("%s: status %d\n%s", target, res.StatusCode, body)
	}
	return body
}

func (w *world) signIn() {
	w.t.Helper()
	res, body := w.request("POST", "/signin", url.Values{"username": {"admin"}, "password": {password}}, nil)
	if res.StatusCode != http.StatusSeeOther {
		w.t.Fatalf("sign-in: status %d\n%s", res.StatusCode, body)
	}
}

var formToken = regexp.MustCompile(`name="form" value="([^"]+)"`)

// post sends a form with the token that the pages have, and returns the page it leads to.
func (w *world) post(target string, form url.Values) string {
	w.t.Helper()
	form.Set("form", formToken.FindStringSubmatch(w.page("/queue"))[1])
	res, body := w.request("POST", target, form, nil)
	if res.StatusCode != http.StatusSeeOther {
		w.t.Fatalf("%s: status %d\n%s", target, res.StatusCode, body)
	}
	return w.page(res.Header.Get("Location"))
}

// submit puts a message into the queue and returns its id.
func (w *world) submit(subject string) string {
	w.t.Helper()
	login, err := w.b.Authenticate(w.t.Context(), backend.Attempt{Protocol: "smtp", Username: alice, Password: password})
	if err != nil {
		w.t.Fatal(err)
	}
	sub, err := w.b.NewSubmission(login, backend.Envelope{From: alice, Recipients: []backend.Recipient{{Address: bob}}, Remote: "192.0.2.9"})
	if err != nil {
		w.t.Fatal(err)
	}
	defer sub.Discard()
	if _, err := io.WriteString(sub, "From: "+alice+"\r\nTo: "+bob+"\r\nSubject: "+subject+"\r\n\r\nA secret body.\r\n"); err != nil {
		w.t.Fatal(err)
	}
	id, err := sub.Submit(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

// faultOf makes Graph answer requests whose path matches with a status.
func faultOf(path string, status int) graphsim.Fault {
	return graphsim.Fault{Path: path, Status: status}
}
