package graph

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/oauth2"
)

// tokens is a token source that counts.
type tokens struct {
	mu          sync.Mutex
	n           int
	invalidated []string
}

func (s *tokens) Token(ctx context.Context) (*oauth2.Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &oauth2.Token{AccessToken: fmt.Sprintf("secret-%d", s.n), TokenType: "Bearer"}, ctx.Err()
}

func (s *tokens) Invalidate(t string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.invalidated = append(s.invalidated, t)
	s.n++
}

// recorded is a request as the server saw it.
type recorded struct {
	Method, URI string
	Header      http.Header
	Body        string
	Length      int64
	At          time.Time
}

// service answers by a function per request and keeps the requests. As a RoundTripper it needs no network, so that it can
// run in a synctest bubble.
type service struct {
	mu       sync.Mutex
	requests []recorded
	answer   func(n int, w http.ResponseWriter, r *http.Request, body string)
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	s.mu.Lock()
	n := len(s.requests)
	s.requests = append(s.requests, recorded{r.Method, r.RequestURI, r.Header.Clone(), string(body), r.ContentLength, time.Now()})
	s.mu.Unlock()
	if err != nil {
		return
	}
	s.answer(n, w, r, string(body))
}

func (s *service) seen() []recorded {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]recorded(nil), s.requests...)
}

func (s *service) RoundTrip(r *http.Request) (*http.Response, error) {
	in := r.Clone(r.Context())
	in.RequestURI = r.URL.RequestURI()
	if r.Body == nil {
		in.Body = http.NoBody
	} else {
		defer r.Body.Close()
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, in)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	resp := w.Result()
	resp.Request = r
	return resp, nil
}

const testHost = "http://graph.test"

// bubbled returns a client for answer without a network.
func bubbled(answer func(n int, w http.ResponseWriter, r *http.Request, body string)) (*Client, *service, *tokens) {
	s := &service{answer: answer}
	t := new(tokens)
	return New(Options{BaseURL: testHost, User: "alice@contoso.example", Tokens: t, HTTPClient: &http.Client{Transport: s}}), s, t
}

// served returns a client for answer over a real connection.
func served(t *testing.T, answer func(n int, w http.ResponseWriter, r *http.Request, body string)) (*Client, *service, *tokens) {
	t.Helper()
	s := &service{answer: answer}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	tok := new(tokens)
	return New(Options{BaseURL: srv.URL, User: "alice@contoso.example", Tokens: tok, HTTPClient: srv.Client()}), s, tok
}

// reply writes a JSON answer.
func reply(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("request-id", "req-1")
	w.WriteHeader(status)
	io.WriteString(w, body)
}

// refuse writes an error as Graph does.
func refuse(w http.ResponseWriter, status int, code string) {
	reply(w, status, fmt.Sprintf(`{"error":{"code":%q,"message":"no","innerError":{"request-id":"req-1"}}}`, code))
}

func source(s string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(s)), nil }
}

func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

func mustJSON(t *testing.T, s string) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return v
}

type failingTokens struct{ err error }

func (f failingTokens) Token(context.Context) (*oauth2.Token, error) { return nil, f.err }
func (f failingTokens) Invalidate(string)                            {}

// rawServer answers each connection's first request with the text that answer returns, and closes it.
func rawServer(t *testing.T, answer func(request string) string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				var head strings.Builder
				in := bufio.NewReader(conn)
				length := 0
				for {
					line, err := in.ReadString('\n')
					head.WriteString(line)
					if n, ok := strings.CutPrefix(line, "Content-Length: "); ok {
						length, _ = strconv.Atoi(strings.TrimSpace(n))
					}
					if err != nil || line == "\r\n" {
						break
					}
				}
				io.CopyN(&head, in, int64(length))
				io.WriteString(conn, answer(head.String()))
			}()
		}
	}()
	return "http://" + l.Addr().String()
}
