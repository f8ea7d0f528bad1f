package smtpd

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/argon2"

	"postern/backend"
	"postern/backend/graphsim"
	"postern/backend/token"
)

// phc hashes a password as the configuration wants it, cheaply.
func phc(password string) string {
	salt := make([]byte, 16)
	rand.Read(salt)
	key := argon2.IDKey([]byte(password), salt, 1, 8*1024, 1, 32)
	enc := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=19$m=8192,t=1,p=1$%s$%s", enc.EncodeToString(salt), enc.EncodeToString(key))
}

// startLive serves SMTP in front of the real backend and a simulated tenant.
func startLive(t testing.TB, change func(*backend.Config), opts Options) (*graphsim.Sim, string) {
	t.Helper()
	const tenant, app = "contoso.example", "2c9b0c44-0000-4000-8000-000000000000"
	sim := graphsim.New(graphsim.Options{})
	sim.AddTenant("6d5f3f6e-0000-4000-8000-000000000000", tenant)
	sim.AddApp(tenant, app, "app-secret", "Mail.ReadWrite", "Mail.Send")
	sim.AddUser(tenant, graphsim.UserSpec{UPN: "alice@contoso.example"})
	web := httptest.NewServer(sim)
	t.Cleanup(web.Close)
	cfg := backend.Config{
		State: t.TempDir(),
		Credentials: map[string]token.Credential{"c": {Name: "c", Tenant: tenant, ClientID: app, ClientSecret: "app-secret",
			LoginURL: web.URL, GraphURL: web.URL}},
		Mailboxes: []backend.MailboxConfig{{Address: "alice@contoso.example", Credential: "c"}},
		Logins: []backend.LoginConfig{{Username: "alice@contoso.example", PasswordHash: phc("secret"),
			Mailbox: "alice@contoso.example", SMTP: true}},
		SendWait: 10 * time.Second, MaxMessage: 50 << 20, Poll: time.Minute, CacheBodies: 1 << 30, HTTPClient: &http.Client{},
	}
	if change != nil {
		change(&cfg)
	}
	b, err := backend.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		b.Close()
	})
	opts.MaxMessage = cfg.MaxMessage
	_, addr := startServer(t, liveService{b}, opts, "")
	return sim, addr
}

func TestSubmission(t *testing.T) {
	sim, addr := startLive(t, nil, Options{})
	c := dialTest(t, addr)
	c.transaction("DATA\r\n")
	c.expect("354")
	c.send("From: alice@contoso.example\r\nTo: bob@x.example\r\nSubject: live\r\n\r\nbody\r\n.\r\n")
	id, ok := strings.CutPrefix(c.reply(), "250 2.0.0 Ok: queued as ")
	if d := sim.Delivered(); !ok || len(id) < 8 || len(d) != 1 || strings.Join(d[0].Recipients, " ") != "bob@x.example" {
		t.Fatalf("id %q, deliveries %+v", id, d)
	}
	// By chunks, on the same connection.
	c.send("MAIL FROM:<>\r\nRCPT TO:<carl@x.example>\r\nBDAT 64 LAST\r\nFrom: alice@contoso.example\nSubject: chunk\n\n" + strings.Repeat("b", 20))
	c.expect("250")
	c.expect("250")
	c.expect("250 2.0.0 Ok: queued as ")
	if d := sim.Delivered(); len(d) != 2 {
		t.Errorf("%d deliveries", len(d))
	}
}

func TestSubmissionRefusals(t *testing.T) {
	sim, addr := startLive(t, nil, Options{})
	c := dialTest(t, addr)
	c.transaction("DATA\r\n")
	c.expect("354")
	c.send("From: eve@evil.example\r\n\r\nbody\r\n.\r\n")
	c.expect("553 5.7.1 The login alice@contoso.example may not send as eve@evil.example")
	c.send("MAIL FROM:<eve@evil.example>\r\n")
	c.expect("553 5.7.1")

	if err := sim.Inject(graphsim.Fault{Path: "/sendMail$", Times: 1, Status: 403, Code: "ErrorSendAsDenied"}); err != nil {
		t.Fatal(err)
	}
	c.send("MAIL FROM:<alice@contoso.example>\r\nRCPT TO:<bob@x.example>\r\nDATA\r\n")
	c.expect("250")
	c.expect("250")
	c.expect("354")
	c.send("From: alice@contoso.example\r\n\r\nbody\r\n.\r\n")
	c.expect("553 5.7.1 Microsoft 365 does not allow alice@contoso.example")

	if err := sim.Inject(graphsim.Fault{Path: "/sendMail$", Times: 1, Status: 400, Code: "ErrorInvalidRecipients"}); err != nil {
		t.Fatal(err)
	}
	c.send("MAIL FROM:<alice@contoso.example>\r\nRCPT TO:<bob@x.example>\r\nDATA\r\n")
	c.expect("250")
	c.expect("250")
	c.expect("354")
	c.send("From: alice@contoso.example\r\n\r\nbody\r\n.\r\n")
	c.expect("550 5.1.3")
	if n := len(sim.Delivered()); n != 0 {
		t.Errorf("%d deliveries", n)
	}
}

// Temporary trouble at Microsoft's is not the client's: the message is queued.
func TestSubmissionQueues(t *testing.T) {
	sim, addr := startLive(t, nil, Options{})
	if err := sim.Inject(graphsim.Fault{Path: "/sendMail$", Status: 429, RetryAfter: "3600"}); err != nil {
		t.Fatal(err)
	}
	c := dialTest(t, addr)
	c.transaction("DATA\r\n")
	c.expect("354")
	c.send("From: alice@contoso.example\r\n\r\nbody\r\n.\r\n")
	start := time.Now()
	c.expect("250 2.0.0 Ok: queued as ")
	if d := time.Since(start); d > 9*time.Second {
		t.Errorf("took %v", d)
	}
	// The mailbox is paused: the next one does not even wait.
	c.send("MAIL FROM:<alice@contoso.example>\r\nRCPT TO:<bob@x.example>\r\nDATA\r\n")
	c.expect("250")
	c.expect("250")
	c.expect("354")
	c.send("From: alice@contoso.example\r\n\r\nbody\r\n.\r\n")
	start = time.Now()
	c.expect("250 2.0.0 Ok: queued as ")
	if d := time.Since(start); d > 9*time.Second {
		t.Errorf("took %v", d)
	}
}

// Clients of other people's making, where they are installed.
func TestOtherClients(t *testing.T) {
	const from, to = "alice@contoso.example", "bob@x.example"
	swaks := []string{"swaks", "--auth-user", from, "--auth-password", "secret", "--from", from, "--to", to, "--timeout", "10", "--server", "127.0.0.1", "--port", "PORT"}
	curl := []string{"curl", "-sSk", "--max-time", "10", "--user", from + ":secret", "--mail-from", from, "--mail-rcpt", to, "-T", "-"}
	msmtp := []string{"msmtp", "--host=127.0.0.1", "--port=PORT", "--user=" + from, "--passwordeval=echo secret", "--from=" + from, "--timeout=10"}
	with := func(base []string, more ...string) []string { return append(slices.Clone(base), more...) }
	for mode, clients := range map[TLSMode][][]string{
		TLSNone: {
			with(swaks, "--auth", "LOGIN"), with(swaks, "--auth", "PLAIN"), with(swaks, "--pipeline"),
			with(curl, "smtp://127.0.0.1:PORT"), with(msmtp, "--auth=plain", "--tls=off", to), with(msmtp, "--auth=login", "--tls=off", to),
		},
		TLSStart: {
			with(swaks, "-tls"), with(curl, "--ssl-reqd", "smtp://127.0.0.1:PORT"),
			with(msmtp, "--auth=on", "--tls=on", "--tls-starttls=on", "--tls-certcheck=off", to),
		},
		TLSImplicit: {
			with(swaks, "-tlsc"), with(curl, "smtps://127.0.0.1:PORT"),
			with(msmtp, "--auth=on", "--tls=on", "--tls-starttls=off", "--tls-certcheck=off", to),
		},
	} {
		sim, addr := startLive(t, nil, Options{TLS: mode, TLSConfig: testTLS()})
		_, port, _ := strings.Cut(addr, ":")
		for i, args := range clients {
			t.Run(fmt.Sprintf("%s/%s %d", mode, args[0], i), func(t *testing.T) {
				path, err := exec.LookPath(args[0])
				if err != nil {
					t.Skip(args[0] + " is not installed")
				}
				for i := range args {
					args[i] = strings.ReplaceAll(args[i], "PORT", port)
				}
				before := len(sim.Delivered())
				cmd := exec.Command(path, args[1:]...)
				cmd.Stdin = strings.NewReader("From: alice@contoso.example\nTo: bob@x.example\nSubject: from " + args[0] + "\n\nbody\n")
				out, err := cmd.CombinedOutput()
				if err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				if n := len(sim.Delivered()); n != before+1 {
					t.Errorf("%d messages arrived\n%s", n-before, out)
				}
			})
		}
	}
}

// BenchmarkAccept measures from MAIL to the 250 of a 2 KB message that is only queued:
// all that a power cut must not take is on the disk.
func BenchmarkAccept(b *testing.B) {
	b.Run("one session", func(b *testing.B) { benchmarkAccept(b, 1) })
	b.Run("many sessions", func(b *testing.B) { benchmarkAccept(b, 8*runtime.GOMAXPROCS(0)) })
}

func benchmarkAccept(b *testing.B, sessions int) {
	_, addr := startLive(b, func(c *backend.Config) { c.SendWait = 0 }, Options{Limits: Limits{PerAddress: 1000}})
	text := "From: alice@contoso.example\r\nSubject: s\r\n\r\n" + strings.Repeat(strings.Repeat("x", 70)+"\r\n", 28) + ".\r\n"
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	defer wg.Wait()
	for range sessions {
		wg.Go(func() { acceptAll(b, addr, text, func() bool { return left.Add(-1) >= 0 }) })
	}
}

// acceptAll submits text over one connection for as long as next says so.
func acceptAll(b *testing.B, addr, text string, next func() bool) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		b.Error(err)
		return
	}
	defer nc.Close()
	r := textproto.NewReader(bufio.NewReader(nc))
	step := func(send string, codes ...int) bool {
		if _, err := io.WriteString(nc, send); err != nil {
			b.Error(err)
			return false
		}
		for _, code := range codes {
			if _, _, err := r.ReadResponse(code); err != nil {
				b.Error(err)
				return false
			}
		}
		return true
	}
	if !step("EHLO x\r\n", 220, 250) || !step(loginLine, 235) {
		return
	}
	for next() {
		if !step("MAIL FROM:<alice@contoso.example>\r\nRCPT TO:<bob@x.example>\r\nDATA\r\n", 250, 250, 354) || !step(text, 250) {
			return
		}
	}
}
