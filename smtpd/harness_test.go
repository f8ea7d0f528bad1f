package smtpd

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/backend"
)

// fakeService stands in for the backend: one login, and messages kept in memory.
type fakeService struct {
	mu       sync.Mutex
	n        int
	accepted []*fakeSubmission

	answered   []string
	unanswered []string // queue ids

	sessions map[*func()]struct{} // what to call when the logins change

	spoolErr  error         // what writing a message fails with
	submit    chan struct{} // if not nil, Submit waits for it
	submitted chan struct{} // told when Submit begins
}

type fakeSubmission struct {
	svc       *fakeService
	env       backend.Envelope
	buf       bytes.Buffer
	discarded bool
}

func (f *fakeService) Authenticate(_ context.Context, a backend.Attempt) (*backend.Login, error) {
	switch {
	case a.Password == "locked":
		return nil, &backend.Error{Kind: backend.TooMany, Op: "log in"}
	case a.Password == "panic":
		panic("boom")
	case a.Protocol == "smtp" && a.Username == "alice@contoso.example" && a.Password == "secret":
		return &backend.Login{Username: a.Username}, nil
	}
	return nil, &backend.Error{Kind: backend.AuthFailed, Op: "log in", Err: errors.New("wrong password at 10.1.2.3")}
}

func (f *fakeService) enter(_ *backend.Login, revoked func()) (func(), error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sessions == nil {
		f.sessions = make(map[*func()]struct{})
	}
	f.sessions[&revoked] = struct{}{}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.sessions, &revoked)
	}, nil
}

// revoke says that the login of all sessions no longer holds.
func (f *fakeService) revoke() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for revoked := range f.sessions {
		(*revoked)()
	}
	clear(f.sessions)
}

func (f *fakeService) CheckSender(_ *backend.Login, from string) error {
	if strings.HasPrefix(from, "mallory@") {
		return &backend.Error{Kind: backend.Denied, Op: "check sender", Text: "alice may not send as " + from}
	}
	return nil
}

func (f *fakeService) CheckRoom(_ *backend.Login, size int64) error {
	switch size {
	case 77:
		return &backend.Error{Kind: backend.TooMany, Op: "submit", Text: "not so fast"}
	case 88:
		return &backend.Error{Kind: backend.OverQuota, Op: "submit", Text: "the disk is full"}
	}
	return nil
}

func (f *fakeService) Unanswered(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unanswered = append(f.unanswered, id)
}

func (f *fakeService) Answered(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answered = append(f.answered, id)
}

func (f *fakeService) newSubmission(_ *backend.Login, env backend.Envelope) (submission, error) {
	return &fakeSubmission{svc: f, env: env}, nil
}

func (s *fakeSubmission) Write(p []byte) (int, error) {
	if s.svc.spoolErr != nil {
		return 0, s.svc.spoolErr
	}
	return s.buf.Write(p)
}

func (s *fakeSubmission) Submit(ctx context.Context) (string, error) {
	if s.svc.submitted != nil {
		s.svc.submitted <- struct{}{}
	}
	if s.svc.submit != nil {
		select {
		case <-s.svc.submit:
		case <-ctx.Done():
		}
	}
	switch local, _, _ := strings.Cut(s.env.Recipients[0].Address, "@"); local {
	case "denied":
		return "", &backend.Error{Kind: backend.Denied, Op: "submit", Text: "the Send As right\nis missing"}
	case "broken":
		return "", fmt.Errorf("disk 7 at /var/lib is full: %w", errors.New("no space"))
	case "away":
		return "", &backend.Error{Kind: backend.Unavailable, Op: "submit", Err: errors.New("dial 10.0.0.1")}
	case "large":
		return "", &backend.Error{Kind: backend.TooLarge, Op: "submit"}
	}
	s.svc.mu.Lock()
	defer s.svc.mu.Unlock()
	s.svc.n++
	s.svc.accepted = append(s.svc.accepted, s)
	return fmt.Sprintf("ID%d", s.svc.n), nil
}

func (s *fakeSubmission) Discard() { s.discarded = true }

func (f *fakeService) messages() []*fakeSubmission {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*fakeSubmission(nil), f.accepted...)
}

var testTLS = sync.OnceValue(func() *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mail.example"}, DNSNames: []string{"mail.example"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
})

// peerListener makes clients look as if they came from elsewhere.
type peerListener struct {
	net.Listener
	peer net.Addr
}

type peerConn struct {
	net.Conn
	peer net.Addr
}

func (l *peerListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil || l.peer == nil {
		return c, err
	}
	return &peerConn{c, l.peer}, nil
}

func (c *peerConn) RemoteAddr() net.Addr { return c.peer }

func (c *peerConn) CloseWrite() error { return c.Conn.(*net.TCPConn).CloseWrite() }

// pipeListener serves in-memory connections, for tests on virtual time.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

func (l *pipeListener) dial() net.Conn {
	client, server := net.Pipe()
	l.conns <- server
	return client
}

// startServer serves on a loopback port until the test ends.
func startServer(t testing.TB, svc service, opts Options, peer string) (*Server, string) {
	t.Helper()
	opts.Hostname = "mail.example"
	s, err := newServer(opts, svc)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pl := &peerListener{Listener: l}
	if peer != "" {
		pl.peer = &net.TCPAddr{IP: net.ParseIP(peer), Port: 1}
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(context.Background(), pl) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return s, l.Addr().String()
}
