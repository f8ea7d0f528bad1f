package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"postern/backend"
	"postern/backend/graphsim"
)

// The end-to-end tests run the built program as other people's mail programs meet it. The
// simulator lives in the test's own process, so that it outlives a killed server and can be asked what it has seen.

var built struct {
	sync.Once
	path string
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.path != "" {
		os.RemoveAll(filepath.Dir(built.path))
	}
	os.Exit(code)
}

// program returns the built program.
func program(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("end-to-end tests are left out with -short")
	}
	built.Do(func() {
		dir, err := os.MkdirTemp("", "postern-e2e-")
		if err != nil {
			built.err = err
			return
		}
		built.path = filepath.Join(dir, "postern")
		args := []string{"build", "-o", built.path}
		if raceDetector {
			args = append(args, "-race")
		}
		if out, err := exec.Command("go", append(args, ".")...).CombinedOutput(); err != nil {
			built.err = fmt.Errorf("go build: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.path
}

// need skips the test if a program is missing, and returns where it is.
func need(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	return path
}

const e2ePassword = "wonder land\"1"

// rig is a running server with its simulator.
type rig struct {
	t     *testing.T
	sim   *graphsim.Sim
	graph string // where the simulator is
	dir   string // configuration, certificate and state
	users []string
	cert  string            // PEM file to trust
	addr  map[string]string // by "protocol/tls", such as imap/starttls
	inRow []string          // the same in the order of the configuration
	cmd   *exec.Cmd
	log   *tail

	wholeLog io.Writer // gets all that the server logs, nil for none
}

// newRig starts a simulator with the sample tenant and the further users, and a server with one login for each.
func newRig(t *testing.T, seed func(*graphsim.Sim), users ...string) *rig {
	t.Helper()
	program(t)
	r := &rig{t: t, sim: graphsim.New(graphsim.Options{}), dir: t.TempDir(), users: append([]string{sampleUser, sampleShared, sampleOther}, users...)}
	seedSample(r.sim, time.Now(), 0)
	for _, u := range users {
		r.sim.AddUser(sampleTenant, graphsim.UserSpec{UPN: u})
	}
	if seed != nil {
		seed(r.sim)
	}
	srv := httptest.NewServer(r.sim)
	t.Cleanup(srv.Close)
	r.graph = srv.URL
	r.writeCertificate()
	r.writeConfig(srv.URL)
	t.Cleanup(func() {
		if r.cmd != nil {
			r.kill()
		}
		r.races()
		if t.Failed() {
			t.Logf("the server's last words:\n%s", r.log)
		}
	})
	r.start()
	return r
}

func (r *rig) writeConfig(graph string) {
	hash, err := backend.HashPassword(e2ePassword)
	if err != nil {
		r.t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "state: state\ncredentials:\n  c: {tenant: %s, client_id: %s, client_secret: \"${E2E_SECRET}\", login_url: %q, graph_url: %q}\nmailboxes:\n",
		sampleTenant, sampleClientID, graph, graph)
	for _, u := range r.users {
		fmt.Fprintf(&b, "  - {address: %s, credential: c}\n", u)
	}
	b.WriteString("logins:\n")
	for _, u := range r.users {
		fmt.Fprintf(&b, "  - username: %s\n    password_hash: %s\n    mailbox: %s\n    allow: [smtp, imap]\n", u, hash, u)
		if u == sampleUser {
			fmt.Fprintf(&b, "    shared: [%s]\n    send_as: [%s]\n", sampleShared, sampleShared)
		}
	}
	b.WriteString("listeners:\n")
	for _, p := range []string{"smtp", "imap"} {
		for _, mode := range []string{"none", "starttls", "implicit"} {
			fmt.Fprintf(&b, "  - {protocol: %s, address: \"127.0.0.1:0\", tls: %s}\n", p, mode)
		}
	}
	b.WriteString("  - {protocol: http, address: \"127.0.0.1:0\"}\ntls: {certificate: cert.pem, key: key.pem}\nimap: {poll: 1s}\nqueue: {log_subject: true}\nhttp: {public_name: localhost}\n")
	if err := os.WriteFile(filepath.Join(r.dir, "postern.yaml"), []byte(b.String()), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// writeCertificate makes a certificate for localhost and 127.0.0.1 that is its own authority.
func (r *rig) writeCertificate() {
	r.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		r.t.Fatal(err)
	}
	r.writeCertificateOf(key)
}

func (r *rig) writeCertificateOf(key crypto.Signer) {
	r.t.Helper()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(100 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		r.t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		r.t.Fatal(err)
	}
	r.cert = filepath.Join(r.dir, "cert.pem")
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(filepath.Join(r.dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			r.t.Fatal(err)
		}
	}
}

var readyLine = regexp.MustCompile(`^(smtp|imap|http) listening on (\S+), tls (\w+)$`)

// start runs the server and waits for the lines that say it is ready.
func (r *rig) start() {
	r.t.Helper()
	r.startWith(new(sync.Mutex), 7)
}

// startWith is start for a server with so many listeners, whose addresses others read under mu.
func (r *rig) startWith(mu *sync.Mutex, listeners int) {
	r.t.Helper()
	cmd := exec.Command(program(r.t), "serve", "--config", filepath.Join(r.dir, "postern.yaml"))
	cmd.Env = append(os.Environ(), "E2E_SECRET="+sampleSecret)
	r.races()
	r.log = &tail{}
	cmd.Stderr = r.log
	if r.wholeLog != nil {
		cmd.Stderr = io.MultiWriter(r.log, r.wholeLog)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	addr := make(map[string]string)
	var inRow []string
	r.cmd = cmd
	ready := make(chan error, 1)
	go func() {
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); {
			m := readyLine.FindStringSubmatch(lines.Text())
			if m == nil {
				ready <- fmt.Errorf("server says %q", lines.Text())
				return
			}
			addr[m[1]+"/"+m[3]] = m[2]
			inRow = append(inRow, m[2])
			if n++; n == listeners {
				ready <- nil
				_, _ = io.Copy(io.Discard, out) // until it ends
				return
			}
		}
		ready <- errors.New("server ended before it was ready")
	}()
	select {
	case err = <-ready:
	case <-time.After(30 * time.Second):
		err = errors.New("server is not ready after 30 s")
	}
	if err != nil {
		r.kill()
		r.t.Fatalf("%v\n%s", err, r.log)
	}
	mu.Lock()
	r.addr, r.inRow = addr, inRow
	mu.Unlock()
}

// races fails the test if the server that has ended reported a data race.
func (r *rig) races() {
	if raceDetector && r.log != nil && strings.Contains(r.log.all(), "DATA RACE") {
		r.t.Errorf("the server reports a data race:\n%s", r.log.all())
	}
}

// kill ends the server without a word, as a power cut does.
func (r *rig) kill() {
	_ = r.cmd.Process.Kill() // it may have ended
	_ = r.cmd.Wait()         // the error is that it was killed
	r.cmd = nil
}

// stop asks the server to end, and expects it to do so cleanly.
func (r *rig) stop() {
	r.t.Helper()
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		r.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- r.cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			r.t.Errorf("after SIGTERM: %v", err)
		}
	case <-time.After(stopTime + 10*time.Second):
		r.t.Error("SIGTERM did not end the server")
		_ = r.cmd.Process.Kill()
		<-done
	}
	r.cmd = nil
}

// port returns the port of a listener, such as "imap/none".
func (r *rig) port(listener string) string {
	r.t.Helper()
	_, port, err := net.SplitHostPort(r.addr[listener])
	if err != nil {
		r.t.Fatalf("listener %s: %v", listener, err)
	}
	return port
}

// run runs a mail program with a time limit, in a home of its own, and returns what it prints.
func (r *rig) run(stdin []byte, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "HOME="+r.dir, "LC_ALL=C.UTF-8")
	cmd.Dir = r.dir
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		err = fmt.Errorf("%s: %w", name, ctx.Err())
	}
	return string(out), err
}

// mustRun is run for programs that must succeed.
func (r *rig) mustRun(t *testing.T, stdin []byte, name string, args ...string) string {
	t.Helper()
	out, err := r.run(stdin, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// write puts a file into the rig's folder and returns its path.
func (r *rig) write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// imap returns a client logged in as user.
func (r *rig) imap(t *testing.T, user string) *imapclient.Client {
	t.Helper()
	c, err := imapclient.DialInsecure(r.addr["imap/none"], nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.Login(user, e2ePassword).Wait(); err != nil {
		t.Fatal(err)
	}
	return c
}

// within waits until ok holds, and fails the test when it takes too long.
func within(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%s: not within %v", what, limit)
		}
	}
}

// tail keeps the end of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (l *tail) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = append(l.b, p...)
	if over := len(l.b) - 64<<10; over > 0 {
		l.b = append(l.b[:0], l.b[over:]...)
	}
	return len(p), nil
}

func (l *tail) all() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.b)
}

func (l *tail) String() string {
	if l == nil {
		return ""
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := strings.SplitAfter(string(l.b), "\n")
	return strings.Join(lines[max(0, len(lines)-40):], "")
}

// snapshot is what a client knows of a mailbox: Message-ID and flags by UID.
type snapshot struct {
	validity uint32
	messages map[imap.UID]string
}

func (r *rig) snapshot(t *testing.T, user, mailbox string) snapshot {
	t.Helper()
	c := r.imap(t, user)
	defer c.Close()
	sel, err := c.Select(mailbox, &imap.SelectOptions{ReadOnly: true}).Wait()
	if err != nil {
		t.Fatalf("select %s: %v", mailbox, err)
	}
	s := snapshot{validity: sel.UIDValidity, messages: make(map[imap.UID]string)}
	if sel.NumMessages == 0 {
		return s
	}
	msgs, err := c.Fetch(imap.SeqSet{imap.SeqRange{Start: 1, Stop: 0}}, &imap.FetchOptions{UID: true, Envelope: true}).Collect()
	if err != nil {
		t.Fatalf("fetch %s: %v", mailbox, err)
	}
	for _, m := range msgs {
		s.messages[m.UID] = m.Envelope.MessageID
	}
	return s
}
