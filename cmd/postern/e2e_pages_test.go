package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/backend/graphsim"
)

// The pages in a real browser: testdata/pages/walk.js walks them, and asks this test for what happens elsewhere. With
// POSTERN_PICTURES=DIR it leaves pictures there for a person to look at.
func TestE2EPages(t *testing.T) {
	node := need(t, "node")
	need(t, "swaks")
	chromium := need(t, "chromium")
	dir, err := filepath.Abs("testdata/pages")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "playwright-core")); err != nil {
		t.Skip("npm packages are not installed: npm install in cmd/postern/testdata/pages")
	}
	r := newRig(t, nil)
	r.mustRun(t, []byte(e2ePassword+"\n"), program(t), "login", "add", "-c", filepath.Join(r.dir, "postern.yaml"), "admin", "--allow", "admin", "--password-stdin")
	base := "http://" + r.addr["http/none"]
	within(t, 20*time.Second, "the administrator's login to be taken over", func() bool {
		res, err := http.Get(base + "/signin")
		if err != nil {
			return false
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		return err == nil && !strings.Contains(string(b), "No login may use these pages")
	})

	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, filepath.Join(dir, "walk.js"))
	cmd.Env = append(os.Environ(), "BASE="+base, "PASSWORD="+e2ePassword, "CHROMIUM="+chromium, "OUT="+os.Getenv("POSTERN_PICTURES"), "HOME="+r.dir)
	cmd.WaitDelay = 5 * time.Second
	failures := &tail{}
	cmd.Stderr = failures
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		text, ok := strings.CutPrefix(lines.Text(), "do ")
		if !ok {
			done = lines.Text() == "done"
			continue
		}
		word, argument, _ := strings.Cut(text, " ")
		answer := r.pagesDo(t, word, argument)
		if _, err := fmt.Fprintln(in, answer); err != nil {
			break
		}
	}
	if err := cmd.Wait(); err != nil || !done {
		t.Fatalf("the walk ended early: %v\n%s", err, failures.all())
	}
}

// pagesDo does what the walk asks for.
func (r *rig) pagesDo(t *testing.T, word, argument string) string {
	t.Helper()
	swaks := func(user, password, subject string) error {
		_, err := r.run(nil, "swaks", "--server", r.addr["smtp/none"], "--auth", "PLAIN", "--auth-user", user, "--auth-password", password,
			"--from", sampleOther, "--to", sampleShared, "--header", "Subject: "+subject, "--body", "for nobody's eyes")
		return err
	}
	inject := func(f graphsim.Fault) {
		if err := r.sim.Inject(f); err != nil {
			t.Error(err)
		}
	}
	switch word {
	case "send":
		password, subject, _ := strings.Cut(argument, " ")
		if err := swaks("scanner", password, subject); err != nil {
			t.Errorf("send %s: %v", subject, err)
		}
	case "submit":
		if err := swaks(sampleOther, e2ePassword, argument); err != nil {
			t.Errorf("submit %s: %v", argument, err)
		}
	case "refused":
		if err := swaks("scanner", argument, "never"); err != nil {
			return "yes"
		}
		return "no"
	case "refuse":
		inject(graphsim.Fault{Path: "sendMail$", Status: http.StatusForbidden, Code: "ErrorAccessDenied"})
	case "throttle":
		inject(graphsim.Fault{Mailbox: argument, Status: http.StatusTooManyRequests, RetryAfter: "90"})
		// Somebody reads, which makes Postern ask.
		go func() {
			_, _ = r.run(nil, "curl", "-sS", "--max-time", "5", "-u", argument+":"+e2ePassword, "imap://"+r.addr["imap/none"]+"/", "-X", "STATUS Archive (MESSAGES)")
		}()
	case "allow":
		r.sim.ClearFaults()
	case "delivered":
		return fmt.Sprint(len(r.sim.Delivered()))
	default:
		t.Errorf("the walk asks for %q", word)
	}
	return "done"
}
