package main

import (
	"bufio"
	"database/sql"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"postern/backend/graphsim"
)

// manager is systemd as a service sees it: the socket for sd_notify(3).
type manager struct {
	conn   *net.UnixConn
	mu     sync.Mutex
	states []string
}

func newManager(t *testing.T, name string) *manager {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	m := &manager{conn: conn}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 8192)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			m.mu.Lock()
			m.states = append(m.states, strings.Split(strings.TrimSpace(string(buf[:n])), "\n")...)
			m.mu.Unlock()
		}
	}()
	return m
}

// take returns what was told since the last call.
func (m *manager) take() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := m.states
	m.states = nil
	return out
}

// await waits until something told begins with each of want, in this order.
func (m *manager) await(t *testing.T, want ...string) {
	t.Helper()
	within(t, time.Minute, "systemd is told "+strings.Join(want, ", "), func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		i := 0
		for _, s := range m.states {
			if i < len(want) && strings.HasPrefix(s, want[i]) {
				i++
			}
		}
		if i < len(want) {
			return false
		}
		m.states = nil
		return true
	})
}

// As systemd runs it: sockets handed over by name, every state told, the watchdog petted only while the program works, and
// on SIGTERM clients are told and what is being sent is sent.
func TestE2ESystemd(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("systemd is of Linux")
	}
	r := newRig(t, nil)
	r.stop()
	b, err := os.ReadFile(filepath.Join(r.dir, "postern.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(string(b), "listeners:\n")
	_, more, _ := strings.Cut(rest, "\ntls:")
	r.write(t, "postern.yaml", head+`listeners:
  - {protocol: smtp, address: "systemd:submission", tls: none}
  - {protocol: imap, address: "systemd:imap", tls: none}
  - {protocol: http, address: "127.0.0.1:0"}
tls:`+more)

	m := newManager(t, filepath.Join(r.dir, "notify"))
	sockets := make([]*os.File, 3)
	addr := make([]string, 3)
	for i := range sockets {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr[i] = l.Addr().String()
		if sockets[i], err = l.(*net.TCPListener).File(); err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
	// LISTEN_PID is the process that is to take the sockets.
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, program(t), "serve", "--config", filepath.Join(r.dir, "postern.yaml"))
	cmd.Env = append(os.Environ(), "E2E_SECRET="+sampleSecret, "NOTIFY_SOCKET="+m.conn.LocalAddr().String(), "WATCHDOG_USEC=1500000",
		"LISTEN_FDS=3", "LISTEN_FDNAMES=imap:forgotten:submission")
	cmd.ExtraFiles = sockets
	r.log = &tail{}
	cmd.Stderr = r.log
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.cmd = cmd
	for _, f := range sockets {
		f.Close()
	}
	m.await(t, "STATUS=Starting", "EXTEND_TIMEOUT_USEC=", "READY=1", "WATCHDOG=1", "STATUS=")
	r.addr = map[string]string{"imap/none": addr[0], "smtp/none": addr[2]}
	lines := bufio.NewReader(out)
	for range 3 {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if at := readyLine.FindStringSubmatch(strings.TrimSpace(line)); at != nil && at[1] == "http" {
			r.addr["http/none"] = at[2]
		}
	}
	go func() { _, _ = io.Copy(io.Discard, lines) }() // until it ends
	if !strings.Contains(r.log.all(), "forgotten") {
		t.Errorf("nothing is said of the socket that no listener uses:\n%s", r.log)
	}
	if c, err := net.DialTimeout("tcp", addr[1], time.Second); err == nil {
		c.Close()
		t.Error("the socket that no listener uses takes connections")
	}
	if status, body := r.get(t, "/healthz"); status != 200 || body != "ok\n" {
		t.Errorf("/healthz says %d %s", status, body)
	}
	within(t, 30*time.Second, "/readyz", func() bool { status, _ := r.get(t, "/readyz"); return status == 200 })
	// The command for health checks, with a file that names the port.
	asks := r.write(t, "asks.yaml", "listeners: [{protocol: http, address: \""+r.addr["http/none"]+"\"}]\n")
	if out := r.mustRun(t, nil, program(t), "health", "-c", asks, "--ready"); !strings.Contains(out, `"ready": true`) {
		t.Errorf("postern health --ready says %s", out)
	}

	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	m.await(t, "RELOADING=1", "MONOTONIC_USEC=", "READY=1")

	t.Run("hang", func(t *testing.T) {
		// Another program locks the queue's database, and the server waits for it.
		db, err := sql.Open("sqlite", filepath.Join(r.dir, "state", "outbox.db"))
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		db.SetMaxOpenConns(1)
		if _, err := db.Exec("PRAGMA busy_timeout = 10000; BEGIN IMMEDIATE"); err != nil {
			t.Fatal(err)
		}
		sent := make(chan error, 1)
		go func() {
			sent <- sendMail(addr[2], sampleUser, sampleUser, "one@fabrikam.example", "<hang@e2e.example>")
		}()
		within(t, time.Minute, "the watchdog goes hungry", func() bool { return strings.Contains(r.log.all(), "not answering") })
		if _, err := db.Exec("ROLLBACK"); err != nil {
			t.Fatal(err)
		}
		m.take()
		m.await(t, "WATCHDOG=1")
		<-sent // taken or refused, depending on how long it had to wait
	})

	t.Run("stop", func(t *testing.T) {
		if err := r.sim.Inject(graphsim.Fault{Path: "/sendMail$", Delay: 3 * time.Second}); err != nil {
			t.Fatal(err)
		}
		imap := dialLine(t, addr[0], "* OK")
		smtp := dialLine(t, addr[2], "220 ")
		sent := make(chan error, 1)
		before := len(r.sim.Delivered())
		go func() {
			sent <- sendMail(addr[2], sampleUser, sampleUser, "one@fabrikam.example", "<stop@e2e.example>")
		}()
		within(t, 20*time.Second, "the message is being sent", func() bool {
			rows := r.queue(t)
			return len(rows) == 1 && rows[0].State == "sending"
		})
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		m.await(t, "STOPPING=1")
		if status, body := r.get(t, "/readyz"); status != 503 || !strings.Contains(body, "stopping") {
			t.Errorf("/readyz says %d %s while stopping", status, body)
		}
		if status, body := r.get(t, "/healthz"); status != 200 {
			t.Errorf("/healthz says %d %s while stopping", status, body)
		}
		if line, err := imap.ReadString('\n'); err != nil || !strings.HasPrefix(line, "* BYE") {
			t.Errorf("an IMAP session is told %q, %v", line, err)
		}
		if line, err := smtp.ReadString('\n'); err != nil || !strings.HasPrefix(line, "421 4.3.2") {
			t.Errorf("an SMTP session is told %q, %v", line, err)
		}
		if err := <-sent; err != nil {
			t.Errorf("the client whose message was being sent: %v", err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the server ends with %v", err)
		}
		r.cmd = nil
		if out, err := r.run(nil, program(t), "health", "-c", asks); err == nil || !strings.Contains(out, "does not answer") {
			t.Errorf("postern health of a stopped server: %v %s", err, out)
		}
		if n := len(r.sim.Delivered()) - before; n != 1 {
			t.Errorf("%d messages have left, want 1", n)
		}
		if rows := r.queue(t); len(rows) != 0 {
			t.Errorf("left in the queue: %+v", rows)
		}
	})
}

// get asks a status page.
func (r *rig) get(t *testing.T, path string) (status int, body string) {
	t.Helper()
	res, err := (&http.Client{Timeout: 30 * time.Second}).Get("http://" + r.addr["http/none"] + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// dialLine connects and reads a greeting.
func dialLine(t *testing.T, addr, want string) *bufio.Reader {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	r := bufio.NewReader(c)
	if line, err := r.ReadString('\n'); err != nil || !strings.HasPrefix(line, want) {
		t.Fatalf("greeting %q, %v", line, err)
	}
	return r
}

// What config check cannot know of systemd's sockets is made sure of when they come.
func TestCheckInherited(t *testing.T) {
	local, far := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 25}, &net.TCPAddr{IP: net.IPv4zero, Port: 25}
	for _, tt := range []struct {
		conf listenerConfig
		addr net.Addr
		want string // part of the error
	}{
		{listenerConfig{Protocol: "imap", TLS: "none"}, local, ""},
		{listenerConfig{Protocol: "imap", TLS: "implicit"}, far, ""},
		{listenerConfig{Protocol: "smtp", TLS: "none", AllowPlaintext: true}, far, ""},
		{listenerConfig{Protocol: "smtp", TLS: "none"}, far, "in clear"},
		{listenerConfig{Protocol: "http", TLS: "none"}, far, "other machines"},
		{listenerConfig{Protocol: "imap", TLS: "none"}, &net.UnixAddr{Name: "/run/imap"}, "none of TCP"},
	} {
		err := checkInherited(tt.conf, tt.addr)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v on %v: %v, want %q", tt.conf, tt.addr, err, tt.want)
		}
	}
	if _, err := takeInherited(listenerConfig{Protocol: "imap"}, "imap", map[string][]net.Listener{"smtp": nil}); err == nil || !strings.Contains(err.Error(), "there is smtp") {
		t.Errorf("a socket that is not there: %v", err)
	}
}
