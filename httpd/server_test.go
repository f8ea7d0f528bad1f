package httpd

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"postern/backend"
)

var states = map[string]backend.AccountState{
	"fine":    {Address: "alice@contoso.example", Ready: true, LastSync: time.Now().Add(-3 * time.Second)},
	"unread":  {Address: "bob@contoso.example"},
	"busy":    {Address: "carol@contoso.example", Ready: true, LastSync: time.Now().Add(-time.Hour), LastError: "429 too many requests", Kind: backend.Unavailable, Since: time.Now().Add(-time.Minute)},
	"expired": {Address: "dave@contoso.example", Ready: true, LastError: "AADSTS7000222: The client secret has expired: <make> a new one.", Kind: backend.SignInNeeded, Advice: "The client secret has expired: <make> a new one.", Since: time.Now().Add(-72 * time.Hour)},
}

func get(t *testing.T, path, host string, accounts ...string) *http.Response {
	t.Helper()
	s := New(Options{Version: "1.2.3", Accounts: func() (out []backend.AccountState) {
		for _, a := range accounts {
			out = append(out, states[a])
		}
		return out
	}})
	r := httptest.NewRequest("GET", path, nil)
	r.Host = host
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Result()
}

func TestReady(t *testing.T) {
	for _, tt := range []struct {
		name     string
		accounts []string
		status   int
	}{
		{"none", nil, 200},
		{"fine", []string{"fine"}, 200},
		{"busy passes", []string{"fine", "busy"}, 200},
		{"never read", []string{"fine", "unread"}, 503},
		{"secret expired", []string{"expired", "fine"}, 503},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res := get(t, "/readyz", "127.0.0.1:8025", tt.accounts...)
			if res.StatusCode != tt.status {
				t.Errorf("status %d, want %d", res.StatusCode, tt.status)
			}
			var body readiness
			if err := json.NewDecoder(res.Body).Decode(&body); err != nil {
				t.Fatal(err)
			}
			if body.Ready != (tt.status == 200) || len(body.Accounts) != len(tt.accounts) {
				t.Errorf("body %+v", body)
			}
		})
	}
}

func TestPages(t *testing.T) {
	for _, tt := range []struct {
		path, host string
		status     int
		want       string
	}{
		{"/healthz", "localhost:8025", 200, "ok"},
		{"/healthz", "[::1]:8025", 200, "ok"},
		{"/", "127.0.0.1", 200, "alice@contoso.example"},
		{"/", "127.0.0.1", 200, "in step"},
		{"/", "127.0.0.1", 200, "reading the folders for the first time"},
		{"/", "127.0.0.1", 200, "&lt;make&gt; a new one"},
		{"/", "127.0.0.1", 200, ">AADSTS7000222<"},
		{"/", "127.0.0.1", 200, "1.2.3"},
		{"/", "evil.example:8025", 421, ""},
		{"/", "localhost.evil.example", 421, ""},
		{"/nothing", "localhost", 404, ""},
	} {
		res := get(t, tt.path, tt.host, "fine", "unread", "expired")
		body, _ := io.ReadAll(res.Body)
		if res.StatusCode != tt.status || !strings.Contains(string(body), tt.want) {
			t.Errorf("%s of %s: %d, lacks %q:\n%s", tt.path, tt.host, res.StatusCode, tt.want, body)
		}
	}
}

func TestOnlyReads(t *testing.T) {
	s := New(Options{Accounts: func() []backend.AccountState { return nil }})
	for _, method := range []string{"POST", "PUT", "DELETE"} {
		r := httptest.NewRequest(method, "/", nil)
		r.Host = "localhost"
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d", method, w.Code)
		}
	}
}

func TestServeEndsWithContext(t *testing.T) {
	s := New(Options{Accounts: func() []backend.AccountState { return nil }})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	res, err := http.Get("http://" + l.Addr().String() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	cancel(errors.New("test is over"))
	if err := <-served; err != nil {
		t.Error(err)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// The program's own state is part of the answers: it is not ready while it starts, stops or cannot write, and what hangs is to be
// started anew.
func TestProgramState(t *testing.T) {
	broken := errors.New("no space left")
	for _, tt := range []struct {
		name           string
		alive, check   error
		health, ready  int
		healthy, state string
	}{
		{"well", nil, nil, 200, 200, "ok", `"ready": true`},
		{"broken", nil, broken, 200, 503, "ok", `"problem": "no space left"`},
		{"hangs", context.DeadlineExceeded, nil, 503, 200, "hangs: ", `"ready": true`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := New(Options{Accounts: func() []backend.AccountState { return []backend.AccountState{states["fine"]} },
				Alive: func(context.Context) error { return tt.alive }, Check: func(context.Context) error { return tt.check }})
			for _, ask := range []struct {
				path   string
				status int
				body   string
			}{{"/healthz", tt.health, tt.healthy}, {"/readyz", tt.ready, tt.state}} {
				w := httptest.NewRecorder()
				s.ServeHTTP(w, httptest.NewRequest("GET", "http://127.0.0.1:8025"+ask.path, nil))
				if w.Code != ask.status || !strings.Contains(w.Body.String(), ask.body) {
					t.Errorf("%s answers %d %s", ask.path, w.Code, w.Body)
				}
			}
		})
	}
}

func TestStarting(t *testing.T) {
	for path, status := range map[string]int{"/healthz": 200, "/readyz": 503, "/": 503} {
		w := httptest.NewRecorder()
		Starting().ServeHTTP(w, httptest.NewRequest("GET", "http://127.0.0.1:8025"+path, nil))
		if w.Code != status {
			t.Errorf("%s answers %d, want %d", path, w.Code, status)
		}
	}
	w := httptest.NewRecorder()
	if Starting().ServeHTTP(w, httptest.NewRequest("GET", "http://evil.example/readyz", nil)); w.Code != http.StatusMisdirectedRequest {
		t.Errorf("a foreign name is answered %d", w.Code)
	}
}
