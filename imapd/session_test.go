package imapd

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend"
	"postern/imapd/wire"
	"postern/internal/fuzzcorpus"
)

// logBuffer collects a log.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// These commands exist in tests only.
var (
	waiting   atomic.Int32 // XWAIT commands that run
	cancelled atomic.Int32 // XWAIT commands whose context ended
)

func init() {
	commands["XPANIC"] = commandSpec{in: inAny, run: func(s *session, c *command) error {
		s.enc.Raw("* half a ")
		panic("on purpose")
	}}
	commands["XWAIT"] = commandSpec{in: inAny, run: func(s *session, c *command) error {
		return s.wait(func(ctx context.Context) error {
			waiting.Add(1)
			defer waiting.Add(-1)
			<-ctx.Done()
			cancelled.Add(1)
			return ctx.Err()
		})
	}}
	commands["XSLEEP"] = commandSpec{in: inAny, run: func(s *session, c *command) error {
		return s.wait(func(ctx context.Context) error {
			timer := time.NewTimer(50 * time.Second)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
			return ctx.Err()
		})
	}}
	commands["XREAD"] = commandSpec{in: inAny, run: func(s *session, c *command) error {
		s.dec.Space()
		text := s.dec.AString()
		if err := s.dec.End(); err != nil {
			return err
		}
		c.done("", fmt.Sprintf("%d bytes", len(text)))
		return nil
	}}
	// XAUTH makes the session one of a login whose account is of no use.
	commands["XAUTH"] = commandSpec{in: inAny, run: func(s *session, c *command) error {
		s.login = &backend.Login{Username: "test", Account: &backend.Account{}}
		s.loggedIn.Store(true)
		s.state = imap.ConnStateAuthenticated
		s.loginBy = time.Time{}
		s.dec.SetLimits(s.limits.Wire)
		return nil
	}}
}

// pipeListener hands out ends of pipes, for servers on virtual time.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

func (l *pipeListener) dial(t testing.TB) *client {
	ours, theirs := net.Pipe()
	l.conns <- theirs
	return &client{t: t, conn: ours, r: bufio.NewReader(ours)}
}

// serve runs a server for the length of a test, or of a bubble.
func serve(t testing.TB, opts Options) (l *pipeListener, server *Server, stop func()) {
	server = New(opts)
	l = newPipeListener()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(context.Background(), l); err != nil {
			t.Errorf("Serve: %v", err)
		}
	}()
	return l, server, func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		server.Shutdown(ctx)
		<-done
	}
}

func greeted(c *client) *client {
	c.t.Helper()
	c.expect("* OK [CAPABILITY {{.*}}] Postern ready")
	return c
}

// bubble runs a test on virtual time with a server in it.
func bubble(t *testing.T, opts Options, test func(t *testing.T, l *pipeListener, server *Server)) {
	synctest.Test(t, func(t *testing.T) {
		l, server, stop := serve(t, opts)
		test(t, l, server)
		stop()
	})
}

// until reads lines until one matches, and returns how many others came before.
func (c *client) until(want string) int {
	c.t.Helper()
	for n := 0; ; n++ {
		c.conn.SetReadDeadline(time.Time{})
		got, err := c.r.ReadString('\n')
		if err != nil {
			c.t.Fatalf("want %q: %q, %v", want, got, err)
		}
		if matches(want, strings.TrimSuffix(got, "\r\n")) {
			return n
		}
	}
}

func TestPanicSaysBye(t *testing.T) {
	logs := &logBuffer{}
	l, _, stop := serve(t, Options{Logger: logs.logger()})
	defer stop()
	c := greeted(l.dial(t))
	c.send("a XPANIC\r\n")
	c.expect("* BYE Internal error")
	c.expectEOF()
	if !strings.Contains(logs.String(), "on purpose") {
		t.Error("the panic was not logged")
	}
	greeted(l.dial(t)).ok("NOOP") // others are not touched
}

func TestPipelinedCommandsAnsweredInFewWrites(t *testing.T) {
	server := New(Options{AllowPlainAuth: true})
	ours, theirs := net.Pipe()
	counted := &countingConn{Conn: theirs}
	server.start(counted)
	c := greeted(&client{t: t, conn: ours, r: bufio.NewReader(ours)})
	defer ours.Close()
	c.send("x XAUTH\r\n")
	c.expect("x OK XAUTH completed")
	before := counted.writes.Load()
	var sb strings.Builder
	for i := range 100 {
		fmt.Fprintf(&sb, "a%d NOOP\r\n", i)
	}
	c.send(sb.String())
	for i := range 100 {
		c.expect(fmt.Sprintf("a%d OK NOOP completed", i))
	}
	if n := counted.writes.Load() - before; n > 3 {
		t.Errorf("%d writes for 100 commands in one packet", n)
	}
}

type countingConn struct {
	net.Conn
	writes atomic.Int64
}

func (c *countingConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

func TestLongCommands(t *testing.T) {
	l, _, stop := serve(t, Options{})
	defer stop()
	c := greeted(l.dial(t))
	c.ok("XAUTH")
	c.conn.SetWriteDeadline(time.Time{})
	go c.send("a XREAD " + strings.Repeat("x", 1_500_000) + "\r\n")
	c.expect("a OK 1500000 bytes")
	// Over the limit: refused, and its rest is no command.
	go c.send("b XREAD " + strings.Repeat("\t LOGOUT ", 500_000) + "\r\nc NOOP\r\n")
	c.expect("b NO [LIMIT] Line too long")
	c.expect("c OK NOOP completed")
	// A literal over the limit is answered without waiting for it.
	c.send("d XREAD {300000}\r\n")
	c.expect("d NO [TOOBIG] Literal too big")
	go c.send("e XREAD {300000+}\r\n" + strings.Repeat("z LOGOUT\r\n", 30_000) + "\r\nf NOOP\r\n")
	c.expect("e NO [TOOBIG] Literal too big")
	c.expect("f OK NOOP completed")
}

func TestUnknownClientsAreHeldShort(t *testing.T) {
	l, _, stop := serve(t, Options{})
	defer stop()
	c := greeted(l.dial(t))
	// Nobody is asked for a message before login, and none is read for long.
	c.send("a APPEND INBOX {100000000}\r\n")
	c.expect("a BAD Log in first")
	c.conn.SetWriteDeadline(time.Time{})
	go io.WriteString(c.conn, "b APPEND INBOX {100000000+}\r\n"+strings.Repeat("z LOGOUT\r\n", 100))
	c.expect("b BAD Log in first")
	c.expect("* BYE Too much refused input")
	c.expectEOF()

	c = greeted(l.dial(t))
	for range maxCommandsBeforeLogin {
		c.ok("NOOP")
	}
	c.send("a NOOP\r\n")
	c.expect("* BYE Too many commands before login")
	c.expectEOF()

	// A literal refused although the client did not wait is not read as commands.
	c = greeted(l.dial(t))
	c.send("a APPEND INBOX {100000}\r\nz LOGOUT\r\n")
	c.expect("a BAD Log in first")
	c.expect("* BYE Too much refused input")
	c.expectEOF()
}

func TestSASLResponseOverFourKiB(t *testing.T) {
	l, _, stop := serve(t, Options{AllowPlainAuth: true})
	defer stop()
	c := greeted(l.dial(t))
	c.send("a AUTHENTICATE PLAIN\r\n")
	c.expect("+ ")
	c.send(strings.Repeat("QUFB", 2500) + "\r\n") // 10,000 bytes, no NUL in them
	c.expect("a BAD Invalid PLAIN response")
	c.send("b AUTHENTICATE PLAIN\r\n")
	c.expect("+ ")
	c.send(strings.Repeat("QUFB", 5000) + "\r\n")
	c.expect("b BAD Response too long")
	c.ok("NOOP")
}

func TestPrivacyRequired(t *testing.T) {
	server := New(Options{TLSConfig: testTLS(t)})
	dial := func(conn net.Conn, theirs net.Conn, ip string) *client {
		sess := newSession(server, theirs, netip.MustParseAddr(ip))
		server.running.Go(sess.serve)
		return &client{t: t, conn: conn, r: bufio.NewReader(conn)}
	}
	ours, theirs := net.Pipe()
	c := dial(ours, theirs, "192.0.2.1")
	if line := c.expect("* OK [CAPABILITY {{.*}}] Postern ready"); !strings.Contains(line, "STARTTLS LOGINDISABLED") || strings.Contains(line, "AUTH=") {
		t.Errorf("greeting %q", line)
	}
	for _, command := range []string{"a LOGIN alice pass", "a LOGIN {5}", "a AUTHENTICATE PLAIN", "a AUTHENTICATE PLAIN AGFsaWNlAHBhc3M="} {
		c.send(command + "\r\n")
		c.expect("a NO [PRIVACYREQUIRED] Logging in needs TLS")
	}
	// Over TLS, which lies above the wrapper of the connection, it is allowed.
	c.send("b STARTTLS\r\n")
	c.expect("b OK Begin TLS negotiation now")
	secure := tls.Client(ours, &tls.Config{InsecureSkipVerify: true})
	c = &client{t: t, conn: secure, r: bufio.NewReader(secure)}
	caps := c.ok("CAPABILITY")
	if !strings.Contains(caps[0], "AUTH=PLAIN") || strings.Contains(caps[0], "STARTTLS") || strings.Contains(caps[0], "LOGINDISABLED") {
		t.Errorf("over TLS: %q", caps)
	}
	if _, tagged := c.do("STARTTLS"); tagged != "BAD TLS is not available" {
		t.Errorf("second STARTTLS: %s", tagged)
	}
	secure.Close()

	ours, theirs = net.Pipe()
	c = dial(ours, theirs, "127.0.0.1")
	if line := c.expect("* OK {{.*}}"); !strings.Contains(line, "AUTH=PLAIN") {
		t.Errorf("from this machine: %q", line)
	}
	ours.Close()
	server.running.Wait()
}

func TestNothingIsInjectedBeforeTLS(t *testing.T) {
	l, _, stop := serve(t, Options{TLSConfig: testTLS(t)})
	defer stop()
	c := greeted(l.dial(t))
	c.send("a STARTTLS\r\nb NOOP\r\n")
	c.expect("* BYE Commands behind STARTTLS are not allowed")
	c.expectEOF()
}

func TestImplicitTLS(t *testing.T) {
	l, _, stop := serve(t, Options{TLSConfig: testTLS(t), ImplicitTLS: true})
	defer stop()
	raw := l.dial(t)
	secure := tls.Client(raw.conn, &tls.Config{InsecureSkipVerify: true})
	c := greeted(&client{t: t, conn: secure, r: bufio.NewReader(secure)})
	var sb strings.Builder
	for i := range 2000 { // over several records
		fmt.Fprintf(&sb, "a%d XREAD {3+}\r\nabc\r\n", i%100)
		if i == 50 {
			sb.WriteString("x XAUTH\r\n")
		}
	}
	go c.conn.Write([]byte(sb.String()))
	for i := range 2000 {
		c.expect(fmt.Sprintf("a%d OK 3 bytes", i%100))
		if i == 50 {
			c.expect("x OK {{.*}}")
		}
	}
	c.send("z LOGOUT\r\n")
	c.expect("* BYE Logging out")
	c.expect("z OK LOGOUT completed")
	c.expectEOF()
}

func testTLS(t testing.TB) *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

func TestTooManyConnections(t *testing.T) {
	bubble(t, Options{Limits: Limits{Connections: 3, ConnectionsPerIP: 2}}, func(t *testing.T, l *pipeListener, server *Server) {
		first := greeted(l.dial(t))
		greeted(l.dial(t))
		c := l.dial(t) // pipes have no address, so they are all from one
		c.expect("* BYE [LIMIT] Too many connections from your address")
		c.expectEOF()
		first.send("a LOGOUT\r\n")
		first.expect("* BYE Logging out")
		first.expect("a OK LOGOUT completed")
		first.expectEOF()
		synctest.Wait()
		if open, _ := server.Sessions(); open != 1 {
			t.Errorf("%d sessions", open)
		}
		greeted(l.dial(t))
		// Other limits hold from the next connection on.
		server.SetLimits(Limits{Connections: 3, ConnectionsPerIP: 3})
		greeted(l.dial(t))
		c = l.dial(t)
		c.expect("* BYE [UNAVAILABLE] Too many connections")
		c.expectEOF()
	})
}

// Where TLS is implicit the words come over TLS.
func TestTooManyConnectionsOverTLS(t *testing.T) {
	cfg := testTLS(t)
	bubble(t, Options{TLSConfig: cfg, ImplicitTLS: true, Limits: Limits{Connections: 1}}, func(t *testing.T, l *pipeListener, server *Server) {
		over := func(c *client) *client {
			conn := tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true})
			return &client{t: t, conn: conn, r: bufio.NewReader(conn)}
		}
		greeted(over(l.dial(t)))
		c := over(l.dial(t))
		c.expect("* BYE [UNAVAILABLE] Too many connections")
		c.expectEOF()
		// Those who never shake hands are let go soon, and few are waited for.
		var silent []*client
		for range maxRefusals + 3 {
			silent = append(silent, l.dial(t))
		}
		start := time.Now()
		for _, c := range silent {
			c.conn.SetReadDeadline(time.Time{})
			io.ReadAll(c.conn)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("connections that are refused were held for %v", took)
		}
		synctest.Wait()
		if server.refusals != 0 {
			t.Errorf("%d refusals are still counted", server.refusals)
		}
	})
}

// On virtual time.

func TestSilentHandshakeEnds(t *testing.T) {
	cfg := testTLS(t)
	bubble(t, Options{TLSConfig: cfg, ImplicitTLS: true}, func(t *testing.T, l *pipeListener, _ *Server) {
		c, start := l.dial(t), time.Now()
		c.conn.SetReadDeadline(time.Time{})
		if _, err := io.ReadAll(c.conn); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took < 29*time.Second || took > 40*time.Second {
			t.Errorf("a client that says nothing was held for %v", took)
		}
	})
}

func TestLoginTimeout(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, l *pipeListener, _ *Server) {
		c, start := greeted(l.dial(t)), time.Now()
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() { // signs of life do not help
			for range 20 {
				time.Sleep(10 * time.Second)
				if _, err := io.WriteString(c.conn, "a NOOP\r\n"); err != nil {
					return
				}
			}
		})
		c.until("* BYE Not logged in in time")
		if took := time.Since(start); took < 59*time.Second || took > 62*time.Second {
			t.Errorf("after %v", took)
		}
		c.conn.Close()
	})
}

func TestIdleTimeoutSaysBye(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, l *pipeListener, _ *Server) {
		c := greeted(l.dial(t))
		c.send("a XAUTH\r\n")
		c.until("a OK {{.*}}")
		start := time.Now()
		c.until("* BYE Idle for too long")
		if took := time.Since(start); took < 30*time.Minute {
			t.Errorf("after %v; RFC 3501 section 5.4 wants 30 minutes", took)
		}
	})
}

// TestSlowTransfer: a literal may take as long as it likes while bytes come.
func TestSlowTransfer(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, l *pipeListener, _ *Server) {
		c := greeted(l.dial(t))
		c.send("x XAUTH\r\n")
		c.until("x OK {{.*}}")
		start := time.Now()
		c.conn.SetWriteDeadline(time.Time{})
		go func() {
			io.WriteString(c.conn, "a XREAD {100+}\r\n")
			for range 100 {
				time.Sleep(4 * time.Minute)
				io.WriteString(c.conn, "x")
			}
			io.WriteString(c.conn, "\r\n")
		}()
		c.until("a OK 100 bytes")
		if took := time.Since(start); took < 6*time.Hour {
			t.Errorf("done after %v", took)
		}
		// But a client that stops in the middle is not waited for.
		start = time.Now()
		c.conn.SetWriteDeadline(time.Time{})
		io.WriteString(c.conn, "b XREAD {100+}\r\nabc")
		c.until("* BYE Idle for too long")
		if took := time.Since(start); took > 6*time.Minute {
			t.Errorf("stuck for %v", took)
		}
	})
}

func TestIdleKeepsAlive(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, l *pipeListener, _ *Server) {
		c := greeted(l.dial(t))
		c.send("a XAUTH\r\nb IDLE\r\n")
		c.until("+ idling")
		start := time.Now()
		for range 100 {
			c.conn.SetReadDeadline(time.Time{})
			if got, err := c.r.ReadString('\n'); got != "* OK Still here\r\n" || err != nil {
				t.Fatalf("%q, %v", got, err)
			}
		}
		if took := time.Since(start); took != 200*time.Minute {
			t.Errorf("100 signs of life in %v", took)
		}
		c.send("dOnE \r\n")
		c.until("b OK IDLE completed")
		// Leaving in the middle of IDLE leaves nothing behind: the bubble would say.
		c.send("c IDLE\r\n")
		c.until("+ idling")
		c.conn.Close()
	})
}

func TestLongCommandKeepsAlive(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, l *pipeListener, _ *Server) {
		c := greeted(l.dial(t))
		c.send("a XSLEEP\r\n")
		c.conn.SetReadDeadline(time.Time{})
		if n := c.until("a OK XSLEEP completed"); n != 6 {
			t.Errorf("%d signs of life in 50 s", n)
		}
	})
}

func TestVanishedClientCancels(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, l *pipeListener, server *Server) {
		c := greeted(l.dial(t))
		cancelled.Store(0)
		c.send("a XWAIT\r\n")
		synctest.Wait()
		if waiting.Load() != 1 {
			t.Fatal("XWAIT does not run")
		}
		start := time.Now()
		c.conn.Close()
		for waiting.Load() != 0 {
			time.Sleep(time.Second)
		}
		if took := time.Since(start); took > 10*time.Second || cancelled.Load() != 1 {
			t.Errorf("the command went on for %v", took)
		}
		synctest.Wait()
		if open, _ := server.Sessions(); open != 0 {
			t.Errorf("%d sessions left", open)
		}
	})
}

func TestShutdown(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, l *pipeListener, server *Server) {
		var clients []*client
		for i := range 4 {
			c := greeted(l.dial(t))
			c.send("x XAUTH\r\n")
			c.until("x OK {{.*}}")
			switch i {
			case 1:
				c.send("a IDLE\r\n")
				c.until("+ idling")
			case 2:
				c.send("a XSLEEP\r\n")
			case 3:
				c.send("a XWAIT\r\n")
			}
			clients = append(clients, c)
		}
		synctest.Wait()
		var wg sync.WaitGroup
		for i, c := range clients {
			wg.Go(func() {
				want := []string{"", "", "a OK XSLEEP completed", "a NO [UNAVAILABLE] {{.*}}"}[i]
				if want != "" {
					c.until(want)
				}
				c.until("* BYE Server is shutting down")
				c.conn.Close()
			})
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := server.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) { // XWAIT had to be cut off
			t.Errorf("Shutdown: %v", err)
		}
		wg.Wait()
	})
}

func TestShutdownAtOnceWhenNothingRuns(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, l *pipeListener, server *Server) {
		c := greeted(l.dial(t))
		go func() {
			c.until("* BYE Server is shutting down")
			c.conn.Close()
		}()
		if err := server.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := server.Serve(t.Context(), newPipeListener()); err != nil {
			t.Errorf("Serve after Shutdown: %v", err)
		}
	})
}

// TestReplies checks what clients are told of backend errors, and that nothing
// of the errors themselves reaches them.
func TestReplies(t *testing.T) {
	secret := errors.New("dial tcp 10.0.0.1:443: AADSTS7000215 secret")
	for _, tt := range []struct {
		err  error
		want string
	}{
		{&backend.Error{Kind: backend.Internal, Op: "x", Err: secret}, "NO [SERVERBUG] "},
		{&backend.Error{Kind: backend.Unavailable, Op: "x", Err: secret}, "NO [UNAVAILABLE] "},
		{&backend.Error{Kind: backend.NotFound, Op: "x", Err: secret}, "NO [NONEXISTENT] "},
		{&backend.Error{Kind: backend.Exists, Op: "x", Err: secret}, "NO [ALREADYEXISTS] "},
		{&backend.Error{Kind: backend.SignInNeeded, Op: "x", Err: secret}, "NO [CONTACTADMIN] "},
		{&backend.Error{Kind: backend.Denied, Op: "x", Err: secret}, "NO [NOPERM] "},
		{&backend.Error{Kind: backend.Refused, Op: "x", Err: secret}, "NO [CANNOT] "},
		{&backend.Error{Kind: backend.TooLarge, Op: "x", Err: secret}, "NO [TOOBIG] "},
		{&backend.Error{Kind: backend.OverQuota, Op: "x", Err: secret}, "NO [OVERQUOTA] "},
		{&backend.Error{Kind: backend.AuthFailed, Op: "x", Err: secret}, "NO [AUTHENTICATIONFAILED] "},
		{&backend.Error{Kind: backend.TooMany, Op: "x", Err: secret}, "NO [LIMIT] "},
		{&backend.Error{Kind: backend.Refused, Op: "x", Text: "No such luck", Err: secret}, "NO [CANNOT] No such luck"},
		{fmt.Errorf("copy: %w", &backend.Error{Kind: backend.NotFound, Op: "x", Err: secret}), "NO [NONEXISTENT] "},
		{secret, "NO [SERVERBUG] "},
		{context.Canceled, "NO [UNAVAILABLE] "},
		{&wire.SyntaxError{Text: "atom expected"}, "BAD Atom expected"},
		{&wire.LimitError{Text: "line too long"}, "NO [LIMIT] Line too long"},
		{&wire.LimitError{Literal: true, Text: "literal too big"}, "NO [TOOBIG] Literal too big"},
		{&wire.NameError{Text: "bad name"}, "NO [CANNOT] Bad name"},
		{errReadOnly, "NO [READ-ONLY] "},
	} {
		got := reply(tt.err).Error()
		if !strings.HasPrefix(got, tt.want) || strings.Contains(got, "secret") || strings.Contains(got, "10.0.0.1") {
			t.Errorf("reply(%v) = %s, want %s", tt.err, got, tt.want)
		}
	}
	if st := reply(tryCreate(&backend.Error{Kind: backend.NotFound, Op: "x"})); st.code != "TRYCREATE" {
		t.Errorf("missing destination: %v", st)
	}
}

// TestOnlyFlagsAreTold: an Outlook category with a blank must not break a response.
func TestOnlyFlagsAreTold(t *testing.T) {
	var out bytes.Buffer
	e := wire.NewEncoder(&out)
	e.Flags([]imap.Flag{imap.FlagSeen, "Red Category", "Grün", "a(b"}).Flush()
	if out.String() != `(\Seen)` {
		t.Errorf("%q", out.String())
	}
}

// expungesOf makes the session tell expunges and returns their numbers.
func expungesOf(s *session) []uint32 {
	var out bytes.Buffer
	s.enc = wire.NewEncoder(&out)
	s.tellExpunges()
	s.enc.Flush()
	var seqs []uint32
	for line := range strings.Lines(out.String()) {
		var n uint32
		fmt.Sscanf(line, "* %d EXPUNGE", &n)
		seqs = append(seqs, n)
	}
	return slices.Clip(seqs)
}

// FuzzSession sends anything to a session, which must neither panic nor hang nor
// answer with a line that is none.
func FuzzSession(f *testing.F) {
	for _, s := range []string{
		"a LOGIN a b\r\n", "a AUTHENTICATE PLAIN\r\n*\r\nb NOOP\r\n", "a CAPABILITY\r\nb ID (\"a\" NIL)\r\n",
		"x XAUTH\r\na ENABLE X\r\nb IDLE\r\nDONE\r\n", "x XAUTH\r\na NAMESPACE\r\nb STATUS INBOX (MESSAGES\r\n",
		"a XREAD {3+}\r\nabc\r\n", "a LOGIN {3+}\r\nabc {3}\r\nabc\r\nb LOGOUT\r\n", "x XAUTH\r\na LIST (SUBSCRIBED \"\" *\r\n",
		"x XAUTH\r\na CREATE x (USE (\\Sent)\r\n", "x XAUTH\r\na UID FETCH 1\r\nb UID FROB\r\nc UID\r\n",
	} {
		f.Add(s)
	}
	server := New(Options{Limits: Limits{Login: time.Hour, ConnectionsPerIP: 1 << 20, Connections: 1 << 20}})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { l.Close() })
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, s string) {
		upper := strings.ToUpper(s)
		for _, slow := range []string{"XPANIC", "XWAIT", "XSLEEP", "PLAIN", "LOGIN"} {
			if strings.Contains(upper, slow) {
				return // panics on purpose, or needs a backend
			}
		}
		if strings.Contains(upper, "XAUTH") {
			for _, real := range []string{"LIST", "LSUB", "SUBSCRIBE", "CREATE", "DELETE", "RENAME", "STATUS", "SELECT", "EXAMINE", "APPEND"} {
				if strings.Contains(upper, real) {
					return // needs an account
				}
			}
		}
		ours, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		server.start(theirs)
		if err := ours.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		go func() {
			_, _ = io.WriteString(ours, s+"\r\n") // it may have hung up
			_ = ours.(*net.TCPConn).CloseWrite()  // which ends the session without waiting for anything
		}()
		r := bufio.NewReader(ours)
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				if err != io.EOF && !strings.Contains(err.Error(), "reset") {
					t.Fatalf("the session does not end: %v", err)
				}
				break
			}
			if !strings.HasSuffix(line, "\r\n") || strings.ContainsAny(strings.TrimSuffix(line, "\r\n"), "\r\x00") {
				t.Errorf("line %q", line)
			}
			if strings.Contains(line, "Internal error") {
				t.Errorf("got %q", line)
			}
		}
		ours.Close()
	})
}
