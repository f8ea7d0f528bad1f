package main

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// lines starts a program and returns a channel of what it prints.
func (r *rig) lines(t *testing.T, args ...string) (*exec.Cmd, <-chan string) {
	t.Helper()
	cmd := exec.Command(program(t), args...)
	r.log = &tail{}
	cmd.Stderr = r.log
	cmd.Env = append(os.Environ(), "TMPDIR="+r.dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it has ended by then if all went well
	said := make(chan string, 1000)
	go func() {
		defer close(said)
		s := bufio.NewScanner(out)
		for s.Scan() {
			said <- s.Text()
		}
		_, _ = io.Copy(io.Discard, out) // a line too long for the scanner
	}()
	return cmd, said
}

// next returns the next line, which must come in time.
func next(t *testing.T, r *rig, said <-chan string) string {
	t.Helper()
	select {
	case line, ok := <-said:
		if !ok {
			t.Fatalf("it has ended:\n%s", r.log)
		}
		return line
	case <-time.After(30 * time.Second):
		t.Fatalf("it says nothing for 30 s:\n%s", r.log)
	}
	return ""
}

// Every command the demo prints must work as it is printed.
func TestE2EDemo(t *testing.T) {
	need(t, "curl")
	r := &rig{t: t, dir: t.TempDir()}
	cmd, said := r.lines(t, "demo")
	var commands []string
	for line := ""; line != "Ctrl-C ends the demo."; line = next(t, r, said) {
		if c, ok := strings.CutPrefix(line, "    "); ok {
			commands = append(commands, c)
		}
	}
	if len(commands) != 4 {
		t.Fatalf("the demo prints %d commands: %q", len(commands), commands)
	}
	wants := []string{`INBOX/Newsletters`, "Subject: Tea at four?", "", ""}
	for i, c := range commands {
		name, _, _ := strings.Cut(c, " ")
		if _, err := exec.LookPath(name); err != nil {
			t.Logf("%s is not installed", name)
			continue
		}
		out, err := r.run(nil, "sh", "-c", c)
		if err != nil || !strings.Contains(out, wants[i]) {
			t.Errorf("%s: %v, lacks %q:\n%s", c, err, wants[i], out)
		}
	}
	within(t, 20*time.Second, "the message sent to oneself", func() bool {
		out, err := r.run(nil, "sh", "-c", commands[1])
		return err == nil && strings.Contains(out, "Subject: hello")
	})
	if _, err := exec.LookPath("mbsync"); err == nil {
		copied, err := filepath.Glob(filepath.Join(r.dir, "postern-demo-*", "mail", "INBOX", "*", "*"))
		if err != nil || len(copied) < 7 {
			t.Errorf("mbsync has copied %v, %v", copied, err)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	for range said { // until it ends
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("Ctrl-C: %v\n%s", err, r.log)
	}
	if left, _ := filepath.Glob(filepath.Join(r.dir, "postern-demo-*")); len(left) > 0 {
		t.Errorf("the demo leaves %v behind", left)
	}
}

// Simulator and server as two processes, as somebody tries a configuration without Microsoft 365.
func TestE2ESimulator(t *testing.T) {
	program(t)
	r := &rig{t: t, dir: t.TempDir(), users: []string{sampleUser, sampleShared, sampleOther}}
	_, said := r.lines(t, "simulator", "--address", "127.0.0.1:0", "--admin", "--messages", "1500")
	m := regexp.MustCompile(`^simulator listening on (http://\S+)$`).FindStringSubmatch(next(t, r, said))
	if m == nil {
		t.Fatal("the simulator does not say where it listens")
	}
	r.writeCertificate()
	r.writeConfig(m[1])
	r.start()
	defer func() {
		if r.cmd != nil {
			r.kill()
		}
	}()
	before := r.snapshot(t, sampleOther, "INBOX")
	if err := sendMail(r.addr["smtp/none"], sampleUser, sampleUser, sampleOther, "<two-processes@e2e.example>"); err != nil {
		t.Fatal(err)
	}
	within(t, 20*time.Second, "the message", func() bool {
		return len(r.snapshot(t, sampleOther, "INBOX").messages) == len(before.messages)+1
	})
	if n := len(r.snapshot(t, sampleUser, "INBOX").messages); n < 1500 {
		t.Errorf("INBOX has %d messages, want 1,500 and the sample's", n)
	}
	r.stop()
}
