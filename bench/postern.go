package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"postern/backend/graphsim"
)

const (
	benchUser     = "bench@contoso.example"
	benchPassword = "bench-password"
	benchTenant   = "6d5f3f6e-0000-4000-8000-000000000000"
	benchApp      = "2c9b0c44-0000-4000-8000-000000000000"
)

// world is a simulated tenant and a Postern in front of it.
type world struct {
	b     *bench
	sim   *graphsim.Sim
	url   string
	srv   *http.Server
	dir   string
	cmd   *exec.Cmd
	imap  string // address
	smtp  string // without log-in
	ready time.Duration
}

// newWorld makes a tenant with so many mailboxes, each seeded by seed, and a configuration. Postern is not started.
func (b *bench) newWorld(opts graphsim.Options, mailboxes int, extra string, seed func(sim *graphsim.Sim, user string)) (*world, error) {
	dir, err := os.MkdirTemp(b.dir, "world-")
	if err != nil {
		return nil, err
	}
	w := &world{b: b, sim: graphsim.New(opts), dir: dir}
	w.sim.AddTenant(benchTenant, "contoso.example")
	w.sim.AddApp(benchTenant, benchApp, "bench-secret", "Mail.ReadWrite", "Mail.Send")
	hash := exec.CommandContext(b.ctx, b.postern, "login", "hash")
	hash.Stdin = strings.NewReader(benchPassword + "\n")
	out, err := hash.Output()
	if err != nil {
		return nil, fmt.Errorf("hash the password: %w", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w.srv = &http.Server{Handler: w.sim}
	go func() { _ = w.srv.Serve(l) }() // ends with close
	w.url = "http://" + l.Addr().String()

	var boxes, logins bytes.Buffer
	var users []string
	for i := range mailboxes {
		u := userName(i)
		users = append(users, u)
		w.sim.AddUser(benchTenant, graphsim.UserSpec{UPN: u})
		seed(w.sim, u)
		fmt.Fprintf(&boxes, "  - {address: %s, credential: c}\n", u)
		fmt.Fprintf(&logins, "  - {username: %s, password_hash: \"%s\", mailbox: %s, allow: [smtp, imap]}\n", u, strings.TrimSpace(string(out)), u)
	}
	conf := fmt.Sprintf("state: state\ncredentials:\n  c: {tenant: %s, client_id: %s, client_secret: bench-secret, login_url: %q, graph_url: %q}\nmailboxes:\n%slogins:\n%slisteners:\n"+
		"  - {protocol: imap, address: \"127.0.0.1:0\"}\n  - {protocol: smtp, address: \"127.0.0.1:0\", profile: device, networks: [127.0.0.0/8], mailbox: %s, send_as: [%s]}\n%s",
		benchTenant, benchApp, w.url, w.url, boxes.String(), logins.String(), users[0], strings.Join(users[1:], ", "), extra)
	if mailboxes == 1 {
		conf = strings.Replace(conf, ", send_as: []", "", 1)
	}
	return w, os.WriteFile(filepath.Join(dir, "postern.yaml"), []byte(conf), 0o600)
}

func userName(i int) string {
	if i == 0 {
		return benchUser
	}
	return fmt.Sprintf("u%d@contoso.example", i)
}

var readyLine = regexp.MustCompile(`^(imap|smtp) listening on (\S+),`)

// start runs Postern and waits until it listens.
func (w *world) start() error {
	w.cmd = exec.Command(w.b.postern, "serve", "--config", filepath.Join(w.dir, "postern.yaml"))
	log, err := os.OpenFile(filepath.Join(w.dir, "log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	w.cmd.Stderr = log
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := w.cmd.Start(); err != nil {
		return err
	}
	process := w.cmd.Process
	w.b.atEnd(func() { _ = process.Kill() }) // it may have ended
	w.imap, w.smtp = "", ""
	for lines := bufio.NewScanner(out); w.imap == "" || w.smtp == ""; {
		if !lines.Scan() {
			text, _ := os.ReadFile(log.Name()) // what there is of it
			return fmt.Errorf("postern ended: %s", text)
		}
		if m := readyLine.FindStringSubmatch(lines.Text()); m != nil && m[1] == "imap" {
			w.imap = m[2]
		} else if m != nil {
			w.smtp = m[2]
		}
	}
	w.ready = time.Since(began)
	return nil
}

func (w *world) stop() error {
	if w.cmd == nil {
		return nil
	}
	err := w.cmd.Process.Signal(syscall.SIGTERM)
	return errors.Join(err, w.cmd.Wait())
}

// close ends everything and frees the disk.
func (w *world) close() {
	if w.cmd != nil && w.cmd.ProcessState == nil {
		_ = w.cmd.Process.Kill() // it may have ended
		_ = w.cmd.Wait()
	}
	w.srv.Close()
	os.RemoveAll(w.dir)
}

// memory returns a value of the process's status in MB, such as VmRSS.
func (w *world) memory(key string) float64 { return processMemory(w.cmd.Process.Pid, key) }

func processMemory(pid int, key string) float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for l := range strings.SplitSeq(string(b), "\n") {
		if rest, ok := strings.CutPrefix(l, key+":"); ok {
			kb, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kb / 1024
		}
	}
	return 0
}

// cpu returns the processor time the process has used.
func (w *world) cpu() time.Duration { return processCPU(w.cmd.Process.Pid) }

// ownCPU is that of this process, in which the simulator is.
func ownCPU() time.Duration { return processCPU(os.Getpid()) }

func processCPU(pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond // hundredths of a second on every Linux
}

// quiet waits until Postern has asked nothing but for changes for so long.
func (w *world) quiet(d time.Duration, limit time.Duration) {
	work := func() int {
		return w.sim.CountRequests(func(r graphsim.Request) bool { return !strings.HasSuffix(r.Template, "/delta") })
	}
	last, since := work(), time.Now()
	for end := time.Now().Add(limit); time.Now().Before(end) && time.Since(since) < d; {
		time.Sleep(100 * time.Millisecond)
		if n := work(); n != last {
			last, since = n, time.Now()
		}
	}
}
