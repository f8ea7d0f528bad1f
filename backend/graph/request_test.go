package graph

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// What every request carries, whatever it asks.
func TestEveryRequest(t *testing.T) {
	c, s, _ := served(t, func(n int, w http.ResponseWriter, r *http.Request, body string) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/$batch"):
			reply(w, 200, `{"responses":[{"id":"1","status":200,"body":{"id":"m"}}]}`)
		case strings.HasSuffix(r.URL.Path, "/delta"), r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/messages"):
			reply(w, 200, `{"value":[],"@odata.deltaLink":"http://`+r.Host+`/d"}`)
		case strings.HasSuffix(r.URL.Path, "$value"):
			io.WriteString(w, "a: b\r\n")
		default:
			done(w, r)
		}
	})
	ctx := t.Context()
	for name, op := range ops {
		if err := op(ctx, c); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	nothing := func([]Message, string) error { return nil }
	if _, err := c.MessageDelta(ctx, "f", ListOptions{PageSize: 500}, "", nothing); err != nil {
		t.Error(err)
	}
	if err := c.ListMessages(ctx, "f", ListOptions{PageSize: 5000}, "", nothing); err != nil {
		t.Error(err)
	}
	if _, err := c.FolderDelta(ctx, "", func([]Folder) error { return nil }); err != nil {
		t.Error(err)
	}
	if _, err := c.MIME(ctx, "m", io.Discard); err != nil {
		t.Error(err)
	}
	if err := errors.Join(errorsIn(c.UpdateMany(ctx, []UpdateItem{{ID: "m"}}))...); err != nil {
		t.Error(err)
	}
	if err := c.PermanentDelete(ctx, "m"); err != nil {
		t.Error(err)
	}
	ids := make(map[string]bool)
	for _, r := range s.seen() {
		if p := r.Header.Get("Prefer"); !strings.HasPrefix(p, `IdType="ImmutableId"`) || len(r.Header.Values("Prefer")) != 1 {
			t.Errorf("%s %s: Prefer %q", r.Method, r.URI, p)
		}
		if r.Header.Get("Authorization") != "Bearer secret-0" {
			t.Errorf("%s %s: no token", r.Method, r.URI)
		}
		id := r.Header.Get("client-request-id")
		if len(id) != 36 || ids[id] {
			t.Errorf("%s %s: client-request-id %q", r.Method, r.URI, id)
		}
		ids[id] = true
		if r.Method == http.MethodPost && r.Body == "" && r.Header.Get("Content-Length") == "" && r.Length != 0 {
			t.Errorf("%s %s: no Content-Length: 0", r.Method, r.URI)
		}
		if r.Length < 0 {
			t.Errorf("%s %s: chunked", r.Method, r.URI)
		}
		if strings.HasSuffix(r.URI, "$batch") && !strings.Contains(r.Body, `"Prefer":"IdType=\"ImmutableId\"`) {
			t.Errorf("batch item without immutable ids: %s", r.Body)
		}
		if strings.Contains(r.URI, "/mailFolders/f/messages") {
			want := `IdType="ImmutableId", odata.maxpagesize=500`
			if !strings.Contains(r.URI, "delta") {
				want = `IdType="ImmutableId", odata.maxpagesize=1000`
			}
			if r.Header.Get("Prefer") != want {
				t.Errorf("%s: Prefer %q", r.URI, r.Header.Get("Prefer"))
			}
		}
	}
}

// A real POST without a body must say so: Graph answers 411 otherwise.
func TestEmptyPostOnTheWire(t *testing.T) {
	line := make(chan string, 1)
	c := New(Options{BaseURL: rawServer(t, func(request string) string {
		line <- request
		return "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
	}), User: "u", Tokens: new(tokens)})
	if err := c.Send(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}
	if got := <-line; !strings.Contains(got, "\r\nContent-Length: 0\r\n") {
		t.Errorf("request is\n%s", got)
	}
}

func TestPathsAreEncoded(t *testing.T) {
	c, s, _ := served(t, func(n int, w http.ResponseWriter, r *http.Request, body string) { done(w, r) })
	c.Message(t.Context(), "AAMk/x=+?#%é'", ListOptions{})
	want := "/v1.0/users/alice%40contoso.example/messages/AAMk%2Fx%3D%2B%3F%23%25%C3%A9%27"
	if got := s.seen()[0].URI; got != want {
		t.Errorf("request for %s, want %s", got, want)
	}
}

// An empty id would name the collection: DELETE of it must never go out.
func TestEmptyIDs(t *testing.T) {
	c, s, _ := bubbled(func(n int, w http.ResponseWriter, r *http.Request, body string) { done(w, r) })
	ctx := t.Context()
	_, e1 := c.Message(ctx, "", ListOptions{})
	_, e2 := c.Move(ctx, "m", "")
	_, e3 := c.Update(ctx, "", Update{})
	_, e4 := c.MIME(ctx, "", io.Discard)
	_, e5 := c.Folder(ctx, "")
	_, e6 := c.MessageDelta(ctx, "", ListOptions{}, "", nil)
	errs := []error{c.Delete(ctx, ""), c.Delete(ctx, ".."), c.DeleteFolder(ctx, ""), c.PermanentDelete(ctx, ""), c.Send(ctx, ""), e1, e2, e3, e4, e5, e6}
	errs = append(errs, c.DeleteMany(ctx, []string{""}, DeletePermanent)...)
	for _, r := range c.MoveMany(ctx, []string{"m"}, "") {
		errs = append(errs, r.Err)
	}
	for i, err := range errs {
		if !errors.Is(err, errNoID) {
			t.Errorf("call %d: %v", i, err)
		}
	}
	if len(s.seen()) != 0 {
		t.Errorf("requests: %v", s.seen())
	}
}

func TestOptionsThatCannotWork(t *testing.T) {
	for _, o := range []Options{
		{BaseURL: "graph.microsoft.com", User: "u", Tokens: new(tokens)},
		{BaseURL: "ftp://x", User: "u", Tokens: new(tokens)},
		{BaseURL: "http://[", User: "u", Tokens: new(tokens)},
		{Tokens: new(tokens)},
		{User: "u"},
	} {
		if _, err := New(o).Folder(t.Context(), "inbox"); err == nil {
			t.Errorf("%+v works", o)
		}
	}
}

// Neither tokens nor addresses with permissions in them get into logs or errors.
func TestLog(t *testing.T) {
	var buf syncBuffer
	var kinds []string
	s := &service{answer: func(n int, w http.ResponseWriter, r *http.Request, body string) { refuse(w, 404, "itemNotFound") }}
	c := New(Options{BaseURL: testHost, User: "u", Tokens: new(tokens), HTTPClient: &http.Client{Transport: s},
		Logger:    slog.New(slog.NewTextHandler(&buf, &slog.HandlerOptions{Level: slog.LevelDebug})),
		OnRequest: func(kind string, status int, d time.Duration) { kinds = append(kinds, kind); _ = status }})
	_, err := c.Message(t.Context(), "m", ListOptions{})
	if !IsNotFound(err) || !strings.Contains(err.Error(), "req-1") {
		t.Errorf("error %v", err)
	}
	line := buf.String()
	for _, want := range []string{"op=\"read message\"", "status=404", "request_id=req-1", "client_request_id=", "duration="} {
		if !strings.Contains(line, want) {
			t.Errorf("no %s in %s", want, line)
		}
	}
	if strings.Contains(line, "secret") || strings.Contains(line, "graph.test") {
		t.Errorf("log tells too much: %s", line)
	}
	if len(kinds) != 1 || kinds[0] != "message" {
		t.Errorf("OnRequest told of %v", kinds)
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// A token that cannot be had is no Graph answer, and the request never started.
func TestNoToken(t *testing.T) {
	cause := errors.New("signed out")
	s := &service{answer: func(n int, w http.ResponseWriter, r *http.Request, body string) { done(w, r) }}
	c := New(Options{BaseURL: testHost, User: "u", Tokens: failingTokens{cause}, HTTPClient: &http.Client{Transport: s}})
	err := c.Send(t.Context(), "m")
	if !errors.Is(err, cause) || Unclear(err) || len(s.seen()) != 0 || c.Budget().Usage().Requests != 0 {
		t.Errorf("%v, %d requests, %+v", err, len(s.seen()), c.Budget().Usage())
	}
}

// A redirect would carry the token or the mail elsewhere.
func TestRedirectsAreNotFollowed(t *testing.T) {
	c, s, _ := served(t, func(n int, w http.ResponseWriter, r *http.Request, body string) {
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	})
	if err := ops["send"](context.Background(), c); StatusOf(err) != 307 || len(s.seen()) != 1 {
		t.Errorf("%v, %d requests", err, len(s.seen()))
	}
}

// The same rules over HTTP/2, where a cut-off body and a reset look different.
func TestHTTP2(t *testing.T) {
	s := &service{answer: func(n int, w http.ResponseWriter, r *http.Request, body string) {
		if r.ProtoMajor != 2 {
			t.Errorf("request by %s", r.Proto)
		}
		switch {
		case strings.HasSuffix(r.URL.Path, "/whole/$value"):
			io.WriteString(w, mail)
		case strings.HasSuffix(r.URL.Path, "$value"):
			io.WriteString(w, mail)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		default:
			panic(http.ErrAbortHandler)
		}
	}}
	srv := httptest.NewUnstartedServer(s)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	c := New(Options{BaseURL: srv.URL, User: "u", Tokens: new(tokens), HTTPClient: srv.Client()})
	if n, err := c.MIME(t.Context(), "whole", io.Discard); err != nil || n != int64(len(mail)) {
		t.Errorf("%d bytes, %v", n, err)
	}
	if n, err := c.MIME(t.Context(), "cut", io.Discard); err == nil || !IsTemporary(err) {
		t.Errorf("%d bytes, %v", n, err)
	}
	before := len(s.seen())
	if err := c.SendMIME(t.Context(), source(mail), int64(len(mail))); !Unclear(err) || len(s.seen()) != before+1 {
		t.Errorf("%v, %d requests", err, len(s.seen())-before)
	}
}

// A kept-open connection that the server has closed is no reason to fail, nor to send twice.
func TestStaleConnection(t *testing.T) {
	c, s, _ := served(t, func(n int, w http.ResponseWriter, r *http.Request, body string) {
		w.Header().Set("Connection", "close")
		done(w, r)
	})
	for range 5 {
		if err := c.SendMIME(t.Context(), source(mail), int64(len(mail))); err != nil {
			t.Error(err)
		}
	}
	if len(s.seen()) != 5 {
		t.Errorf("%d requests", len(s.seen()))
	}
}
