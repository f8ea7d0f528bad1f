package smtpd

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-smtp"

	"postern/backend"
)

const loginLine = "AUTH PLAIN AGFsaWNlQGNvbnRvc28uZXhhbXBsZQBzZWNyZXQ=\r\n"

// client is a connection whose replies are read by lines.
type client struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func newClient(t *testing.T, c net.Conn) *client { return &client{t, c, bufio.NewReader(c)} }

func dialTest(t *testing.T, addr string) *client {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(10 * time.Second))
	t.Cleanup(func() { c.Close() })
	return newClient(t, c)
}

func (c *client) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		c.t.Fatalf("send %.40q: %v", s, err)
	}
}

// reply reads one whole reply and returns its last line.
func (c *client) reply() string {
	c.t.Helper()
	for {
		l, err := c.r.ReadString('\n')
		if err != nil {
			c.t.Fatalf("reply: %v (%q)", err, l)
		}
		if len(l) > 3 && l[3] == ' ' {
			return strings.TrimSpace(l)
		}
	}
}

func (c *client) expect(prefix string) {
	c.t.Helper()
	if got := c.reply(); !strings.HasPrefix(got, prefix) {
		c.t.Fatalf("got %q, want %q", got, prefix)
	}
}

func (c *client) expectEnd() {
	c.t.Helper()
	if rest, err := c.r.ReadString('\n'); err == nil || rest != "" {
		c.t.Fatalf("connection goes on: %q", rest)
	}
}

// transaction logs in and goes up to the message.
func (c *client) transaction(last string) {
	c.t.Helper()
	c.expect("220")
	c.send("EHLO x\r\n")
	c.expect("250")
	c.send(loginLine)
	c.expect("235")
	c.send("MAIL FROM:<alice@contoso.example>\r\nRCPT TO:<bob@x.example>\r\n" + last)
	c.expect("250")
	c.expect("250")
}

// onVirtualTime runs f against a server on in-memory connections and virtual time.
func onVirtualTime(t *testing.T, opts Options, svc *fakeService, f func(s *Server, dial func() *client)) {
	synctest.Test(t, func(t *testing.T) {
		opts.AllowPlainAuth = true
		s, err := newServer(opts, svc)
		if err != nil {
			t.Fatal(err)
		}
		l := newPipeListener()
		done := make(chan error, 1)
		go func() { done <- s.Serve(t.Context(), l) }()
		var open []net.Conn
		f(s, func() *client {
			c := l.dial()
			open = append(open, c)
			return newClient(t, c)
		})
		for _, c := range open {
			c.Close()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := len(s.conns); n != 0 {
			t.Errorf("%d connections still counted", n)
		}
	})
}

// A pause inside DATA makes go-smtp answer and read the rest of the body as commands.
func TestPauseInDataEndsConnection(t *testing.T) {
	svc := &fakeService{}
	onVirtualTime(t, Options{}, svc, func(_ *Server, dial func() *client) {
		c := dial()
		c.transaction("DATA\r\n")
		c.expect("354")
		c.send("Subject: a\r\n\r\nbody\r\n")
		c.expect("421 4.4.2") // after the idle time
		c.expectEnd()
		// The pipe is closed: nothing of the rest can be taken for a command.
		if _, err := io.WriteString(c, "\r\nMAIL FROM:<evil@x.example>\r\n"); err == nil {
			t.Error("the rest of the message was read")
		}
	})
	if n := len(svc.messages()); n != 0 {
		t.Errorf("%d messages accepted", n)
	}
}

func TestPauseInBdatEndsConnection(t *testing.T) {
	svc := &fakeService{}
	onVirtualTime(t, Options{}, svc, func(_ *Server, dial func() *client) {
		c := dial()
		c.transaction("BDAT 1000 LAST\r\nSubject: a\r\n")
		c.expect("421 4.4.2")
		c.expectEnd()
	})
	if n := len(svc.messages()); n != 0 {
		t.Errorf("%d messages accepted", n)
	}
}

// The deadline moves with the transfer: a slow line is no reason to give up.
func TestSlowMessage(t *testing.T) {
	svc := &fakeService{}
	onVirtualTime(t, Options{}, svc, func(_ *Server, dial func() *client) {
		c := dial()
		c.transaction("DATA\r\n")
		c.expect("354")
		for range 30 { // two hours
			time.Sleep(4 * time.Minute)
			c.send("line\r\n")
		}
		c.send(".\r\n")
		c.expect("250 2.0.0 Ok: queued as ID1")
	})
}

// But a message that never ends holds a connection for so long and no longer.
func TestEndlessMessage(t *testing.T) {
	svc := &fakeService{}
	onVirtualTime(t, Options{}, svc, func(_ *Server, dial func() *client) {
		c := dial()
		c.transaction("DATA\r\n")
		c.expect("354")
		for range 44 {
			time.Sleep(4 * time.Minute)
			c.send("line\r\n")
		}
		c.expect("421 4.4.2")
		c.expectEnd()
	})
	if n := len(svc.messages()); n != 0 {
		t.Errorf("%d messages accepted", n)
	}
}

// A connection that ends before its client said anything behind the 250 leaves open whether it was seen.
func TestUnansweredMessage(t *testing.T) {
	svc := &fakeService{}
	onVirtualTime(t, Options{}, svc, func(_ *Server, dial func() *client) {
		for _, next := range []string{"", "QUIT\r\n"} {
			c := dial()
			c.transaction("DATA\r\n")
			c.expect("354")
			c.send("Subject: x\r\n\r\nbody\r\n.\r\n")
			c.expect("250 2.0.0")
			if next != "" {
				c.send(next)
				c.expect("221")
			}
			c.Close()
			synctest.Wait()
		}
	})
	if got := fmt.Sprint(svc.unanswered, svc.answered); got != "[ID1] [ID2]" {
		t.Errorf("unanswered and answered: %s", got)
	}
}

func TestIdleAndLoginTimeouts(t *testing.T) {
	onVirtualTime(t, Options{}, &fakeService{}, func(_ *Server, dial func() *client) {
		start := time.Now()
		c := dial()
		c.expect("220")
		for range 2 {
			time.Sleep(50 * time.Second)
			c.send("NOOP\r\n") // keeping busy does not help
			c.expect("250")
		}
		c.expect("421 4.7.0")
		if d := time.Since(start); d != 2*time.Minute {
			t.Errorf("ended after %v", d)
		}
		c = dial()
		c.transaction("")
		start = time.Now()
		c.expect("421 4.4.2")
		if d := time.Since(start); d != 5*time.Minute {
			t.Errorf("ended after %v", d)
		}
	})
}

// A client that opens a connection and never speaks TLS must not hold it for ever.
func TestSilentHandshake(t *testing.T) {
	onVirtualTime(t, Options{TLS: TLSImplicit, TLSConfig: testTLS()}, &fakeService{}, func(_ *Server, dial func() *client) {
		start := time.Now()
		c := dial()
		c.expectEnd()
		if d := time.Since(start); d != 30*time.Second {
			t.Errorf("ended after %v", d)
		}
	})
}

// go-smtp takes the end of the connection inside a chunk for the chunk's end.
func TestCutOffMessages(t *testing.T) {
	for _, mode := range []TLSMode{TLSNone, TLSStart, TLSImplicit} {
		for _, verb := range []string{"DATA\r\n", "BDAT 1000 LAST\r\n", "BDAT 1000\r\n"} {
			t.Run(fmt.Sprintf("%s %s", mode, verb[:4]), func(t *testing.T) {
				svc := &fakeService{}
				opts := Options{TLS: mode, TLSConfig: testTLS()}
				s, addr := startServer(t, svc, opts, "")
				raw := dialTest(t, addr)
				c := raw
				if mode == TLSStart {
					c.expect("220")
					c.send("STARTTLS\r\n")
					c.expect("220")
				}
				if mode != TLSNone {
					c = newClient(t, tls.Client(raw.Conn, &tls.Config{InsecureSkipVerify: true}))
				}
				if mode == TLSStart {
					c.send("EHLO x\r\n" + loginLine)
					c.expect("250")
					c.expect("235")
					c.send("MAIL FROM:<alice@contoso.example>\r\nRCPT TO:<bob@x.example>\r\n" + verb)
					c.expect("250")
					c.expect("250")
				} else {
					c.transaction(verb)
				}
				c.send("Subject: cut\r\n\r\nhalf of")
				if tc, ok := c.Conn.(*tls.Conn); ok {
					tc.CloseWrite() // a proper TLS end, and still not the end of the message
				}
				raw.Conn.(*net.TCPConn).CloseWrite()
				io.Copy(io.Discard, c.r)
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				if err := s.Shutdown(ctx); err != nil {
					t.Error(err)
				}
				if n := len(svc.messages()); n != 0 {
					t.Errorf("%d messages accepted: %q", n, lastMessage(svc.messages()))
				}
			})
		}
	}
}

func TestLongLines(t *testing.T) {
	svc := &fakeService{}
	_, addr := startServer(t, svc, Options{Limits: Limits{LineLength: 1 << 20}}, "")

	c := dialTest(t, addr)
	c.transaction("DATA\r\n")
	c.expect("354")
	line := strings.Repeat("x", 1<<20-100)
	c.send("A: b\r\n\r\n" + line + "\r\n.\r\n")
	c.expect("250")
	if got := len(lastMessage(svc.messages())); got != len(line)+10 {
		t.Errorf("%d bytes arrived", got)
	}

	c = dialTest(t, addr)
	c.transaction("DATA\r\n")
	c.expect("354")
	go io.WriteString(c.Conn, "A: b\r\n\r\n"+line+line+"\r\n.\r\nNOOP\r\n")
	c.expect("554 5.6.0 A line of the message is longer")
	c.expectEnd()

	// The log-in line too: RFC 4954 wants 12,288 bytes, tokens are longer.
	c = dialTest(t, addr)
	c.expect("220")
	c.send("EHLO x\r\n")
	c.expect("250")
	c.send("AUTH PLAIN " + strings.Repeat("QUFB", 5000) + "\r\n")
	c.expect("501 5.5.2")

	// Pipelined BDAT whose data has no line end was counted as a line.
	c = dialTest(t, addr)
	c.transaction("BDAT 30000 LAST\r\n" + strings.Repeat("y", 30000))
	c.expect("250 2.0.0 Ok")
}

func TestSpoolFailureIsTemporary(t *testing.T) {
	svc := &fakeService{spoolErr: errors.New("no space left on /var/lib/postern")}
	_, addr := startServer(t, svc, Options{}, "")
	c := dialTest(t, addr)
	c.transaction("DATA\r\n")
	c.expect("354")
	c.send("A: b\r\n\r\nMAIL FROM:<evil@x.example>\r\n.\r\nNOOP\r\n")
	if got := c.reply(); got != "451 4.3.0 Internal error, try again later" {
		t.Errorf("got %q", got)
	}
	c.expect("250") // NOOP; the body was not read as commands
}

func TestPanicIsContained(t *testing.T) {
	_, addr := startServer(t, &fakeService{}, Options{}, "")
	c := dialTest(t, addr)
	c.expect("220")
	c.send("EHLO x\r\n")
	c.expect("250")
	c.send("AUTH PLAIN AGEAcGFuaWM=\r\n")
	c.expect("421")
	c.expectEnd()
}

func TestConnectionLimits(t *testing.T) {
	_, addr := startServer(t, &fakeService{}, Options{Limits: Limits{PerAddress: 2}}, "")
	a, b := dialTest(t, addr), dialTest(t, addr)
	a.expect("220")
	b.expect("220")
	c := dialTest(t, addr)
	c.expect("421 4.7.0 Too many connections from your address")
	c.expectEnd()
	a.send("QUIT\r\n")
	a.expect("221")
	a.expectEnd()
	a.Close()
	for range 200 { // the server counts the end of a connection a moment later
		d := dialTest(t, addr)
		if strings.HasPrefix(d.reply(), "220") {
			return
		}
	}
	t.Error("a place that was freed is not given out")
}

func TestTotalConnectionLimit(t *testing.T) {
	_, addr := startServer(t, &fakeService{}, Options{Limits: Limits{Connections: 1}}, "")
	a := dialTest(t, addr)
	a.expect("220")
	dialTest(t, addr).expect("421 4.7.0 Too many connections, ")
}

func TestRecipientLimit(t *testing.T) {
	_, addr := startServer(t, &fakeService{}, Options{Limits: Limits{Recipients: 2}}, "")
	c := dialTest(t, addr)
	c.transaction("RCPT TO:<b@x.example>\r\nRCPT TO:<c@x.example>\r\n")
	c.expect("250")
	c.expect("452 4.5.3")
}

// Idle clients hear 421 at once, a message under way is finished.
func TestShutdown(t *testing.T) {
	svc := &fakeService{submit: make(chan struct{}), submitted: make(chan struct{}, 1)}
	s, addr := startServer(t, svc, Options{}, "")
	idle, busy := dialTest(t, addr), dialTest(t, addr)
	idle.expect("220")
	busy.transaction("DATA\r\n")
	busy.expect("354")
	busy.send("A: b\r\n")

	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(ctx) }()
	idle.expect("421 4.3.2")
	idle.expectEnd()
	busy.send("\r\nrest\r\n.\r\n")
	<-svc.submitted
	close(svc.submit)
	busy.expect("250 2.0.0 Ok: queued as ID1")
	busy.expect("421 4.3.2")
	busy.expectEnd()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
		t.Error("still listening")
	}
}

// A login that no longer holds ends its connections: idle ones at once, a message on its way is not taken, one that has come
// whole is answered first.
func TestRevokedLogin(t *testing.T) {
	svc := &fakeService{submit: make(chan struct{}), submitted: make(chan struct{}, 1)}
	_, addr := startServer(t, svc, Options{}, "")
	idle, halfway, sent, stranger := dialTest(t, addr), dialTest(t, addr), dialTest(t, addr), dialTest(t, addr)
	stranger.expect("220")
	idle.expect("220")
	idle.send("EHLO x\r\n")
	idle.expect("250")
	idle.send(loginLine)
	idle.expect("235")
	halfway.transaction("DATA\r\n")
	halfway.expect("354")
	halfway.send("A: b\r\n")
	sent.transaction("DATA\r\n")
	sent.expect("354")
	sent.send("A: b\r\n\r\nrest\r\n.\r\n")
	<-svc.submitted

	svc.revoke()
	idle.expect("421 4.7.0 The login was changed or revoked")
	idle.expectEnd()
	halfway.expect("421 4.7.0 The login was changed or revoked")
	halfway.expectEnd()
	close(svc.submit)
	sent.expect("250 2.0.0 Ok: queued as ID1")
	sent.expect("421 4.7.0 The login was changed or revoked")
	sent.expectEnd()
	stranger.send("NOOP\r\n")
	stranger.expect("250")
	if n := len(svc.messages()); n != 1 {
		t.Errorf("%d messages were taken", n)
	}
	svc.mu.Lock()
	defer svc.mu.Unlock()
	if len(svc.sessions) != 0 {
		t.Errorf("%d sessions are still known", len(svc.sessions))
	}
}

func TestShutdownOutOfTime(t *testing.T) {
	svc := &fakeService{}
	s, addr := startServer(t, svc, Options{}, "")
	c := dialTest(t, addr)
	c.transaction("DATA\r\n")
	c.expect("354")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown: %v", err)
	}
	c.expect("421 4.3.2")
	c.expectEnd()
}

// Reset and Logout come while Data runs in go-smtp's own goroutine. Run with -race.
func TestResetDuringBdat(t *testing.T) {
	svc := &fakeService{}
	_, addr := startServer(t, svc, Options{}, "")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				c := dialTest(t, addr)
				c.transaction("BDAT 6\r\nA: b\r\nRSET\r\n")
				c.expect("250")
				c.expect("250")
				c.send("MAIL FROM:<alice@contoso.example>\r\n")
				c.expect("421")
				c.expectEnd()
			}
			c := dialTest(t, addr)
			c.transaction("BDAT 6\r\nA: b\r\n")
			c.expect("250")
			c.Close()
		})
	}
	wg.Wait()
	if n := len(svc.messages()); n != 0 {
		t.Errorf("%d messages accepted", n)
	}
}

func TestReply(t *testing.T) {
	lapsed := &backend.Error{Kind: backend.SignInNeeded, Op: "send", Err: errors.New("AADSTS70008")}
	for _, tt := range []struct {
		name, want string
		err        error
	}{
		{"sign-in lapsed", "451 [4 7 0]", lapsed},
		{"wrapped", "451 [4 7 0]", fmt.Errorf("submit: %w", lapsed)},
		{"no kind", "451 [4 3 0]", io.ErrUnexpectedEOF},
		{"cancelled", "451 [4 4 0]", context.Canceled},
		{"too large", "552 [5 3 4]", &backend.Error{Kind: backend.TooLarge}},
		{"denied", "553 [5 7 1]", &backend.Error{Kind: backend.Denied}},
		{"refused", "554 [5 6 0]", &backend.Error{Kind: backend.Refused}},
		{"full", "452 [4 2 2]", &backend.Error{Kind: backend.OverQuota}},
		{"password", "535 [5 7 8]", &backend.Error{Kind: backend.AuthFailed}},
		{"locked out", "454 [4 7 0]", &backend.Error{Kind: backend.TooMany}},
		{"no mailbox", "550 [5 1 0]", &backend.Error{Kind: backend.NotFound}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var err error = reply(tt.err)
			r := err.(*smtp.SMTPError) // asserted, not errors.As: go-smtp does the same
			if got := fmt.Sprint(r.Code, r.EnhancedCode); got != tt.want {
				t.Errorf("reply(%v) = %s, want %s", tt.err, got, tt.want)
			}
			if strings.Contains(r.Message, "AADSTS") || strings.Contains(r.Message, "EOF") {
				t.Errorf("internals told: %q", r.Message)
			}
		})
	}
}

func TestNewRefusesBadOptions(t *testing.T) {
	if _, err := New(Options{}); err == nil {
		t.Error("no backend: no error")
	}
	for _, o := range []Options{{TLS: TLSStart}, {TLS: TLSImplicit}, {TLS: "ssl", TLSConfig: testTLS()}} {
		if _, err := newServer(o, &fakeService{}); err == nil {
			t.Errorf("tls %q: no error", o.TLS)
		}
	}
}

func TestValidAddress(t *testing.T) {
	for addr, want := range map[string]bool{
		"a@b.example": true, "a.b+c@b-c.example": true, "jürgen@exämple.example": true, "john doe@x.example": true,
		"a@[192.0.2.1]": true, "a@[IPv6:2001:db8::1]": true, "a@localhost": true,
		"": false, "a": false, "@b": false, "a@": false, "a@b,c": false, "a@b c": false, "a@b>": false, "a@b;c": false,
		"a@b@c": false, "a\r\nb@c": false, "a\x00@b": false, "a@b\xff": false, "a@[1]2": false, "a@[": false,
		strings.Repeat("a", 400) + "@b": false,
	} {
		if got := validAddress(addr); got != want {
			t.Errorf("validAddress(%q) = %v", addr, got)
		}
	}
}
