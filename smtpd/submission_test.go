package smtpd

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
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
func startLive(t *testing.T, change func(*backend.Config)) (*graphsim.Sim, string) {
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
	_, addr := startServer(t, liveService{b}, Options{MaxMessage: cfg.MaxMessage}, "")
	return sim, addr
}

func TestSubmission(t *testing.T) {
	sim, addr := startLive(t, nil)
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
	sim, addr := startLive(t, nil)
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
	sim, addr := startLive(t, nil)
	if err := sim.Inject(graphsim.Fault{Path: "/sendMail$", Status: 429, RetryAfter: "3600"}); err != nil {
		t.Fatal(err)
	}
	c := dialTest(t, addr)
	c.transaction("DATA\r\n")
	c.expect("354")
	c.send("From: alice@contoso.example\r\n\r\nbody\r\n.\r\n")
	start := time.Now()
	c.expect("250 2.0.0 Ok: queued as ")
	if d := time.Since(start); d > 5*time.Second {
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
	if d := time.Since(start); d > time.Second {
		t.Errorf("took %v", d)
	}
}

// Clients of other people's making, where they are installed.
func TestOtherClients(t *testing.T) {
	sim, addr := startLive(t, nil)
	host, port, _ := strings.Cut(addr, ":")
	for name, args := range map[string][]string{
		"swaks": {"--server", host, "--port", port, "--auth", "LOGIN", "--auth-user", "alice@contoso.example", "--auth-password", "secret",
			"--from", "alice@contoso.example", "--to", "bob@x.example", "--timeout", "10"},
		"curl": {"-sS", "--max-time", "10", "smtp://" + addr, "--user", "alice@contoso.example:secret", "--mail-from", "alice@contoso.example",
			"--mail-rcpt", "bob@x.example", "-T", "-"},
		"msmtp": {"--host=" + host, "--port=" + port, "--auth=plain", "--user=alice@contoso.example", "--passwordeval=echo secret",
			"--tls=off", "--from=alice@contoso.example", "--timeout=10", "bob@x.example"},
	} {
		t.Run(name, func(t *testing.T) {
			path, err := exec.LookPath(name)
			if err != nil {
				t.Skip(name + " is not installed")
			}
			before := len(sim.Delivered())
			cmd := exec.Command(path, args...)
			cmd.Stdin = strings.NewReader("From: alice@contoso.example\nTo: bob@x.example\nSubject: from " + name + "\n\nbody\n")
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
