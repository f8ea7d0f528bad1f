package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"postern/backend/graphsim"
)

// terminal is a person at a terminal: tmux.
type terminal struct {
	t      *testing.T
	socket string
	keys   int
}

func newTerminal(t *testing.T, dir string) *terminal {
	t.Helper()
	need(t, "tmux")
	term := &terminal{t: t, socket: filepath.Join(t.TempDir(), "tmux")}
	term.run("new-session", "-d", "-x", "120", "-y", "2000", "-c", dir, "env", "PS1=ready> ", "PATH="+filepath.Dir(program(t))+":/usr/bin:/bin", "sh", "-i")
	t.Cleanup(func() { _ = exec.Command("tmux", "-S", term.socket, "kill-server").Run() }) // may have ended
	return term
}

func (term *terminal) run(args ...string) string {
	term.t.Helper()
	out, err := exec.Command("tmux", append([]string{"-S", term.socket, "-f", "/dev/null"}, args...)...).CombinedOutput()
	if err != nil {
		term.t.Fatalf("tmux %s: %v\n%s", args[0], err, out)
	}
	return string(out)
}

// screen is what has been written so far.
func (term *terminal) screen() string {
	return strings.TrimRight(term.run("capture-pane", "-p", "-J"), "\n ")
}

// answer waits until the last line on the screen ends with question, and types text.
func (term *terminal) answer(question, text string) {
	term.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !strings.HasSuffix(term.screen(), question) {
		if time.Now().After(deadline) {
			term.t.Fatalf("no question %q on the screen:\n%s", question, term.screen())
		}
		time.Sleep(20 * time.Millisecond)
	}
	term.keys += len(text) + 1
	if text != "" {
		term.run("send-keys", "-l", text)
	}
	term.run("send-keys", "Enter")
}

// From an empty folder to a sent message and a read mailbox, at a terminal, with the usual slips on the way.
func TestE2EFromNothing(t *testing.T) {
	need(t, "swaks")
	need(t, "curl")
	w := newSetupWorld(t)
	w.sim.AddUser(sampleTenant, graphsim.UserSpec{UPN: "ceo@contoso.example"})
	w.sim.BlockMailbox(sampleTenant, sampleClientID, "ceo@contoso.example", true)
	w.sim.DeliverMessage(sampleUser, []byte("From: bob@contoso.example\r\nTo: alice@contoso.example\r\nSubject: Tea at four?\r\n\r\nWill you come?\r\n"))
	dir := t.TempDir()
	term := newTerminal(t, dir)
	begun := time.Now()
	const ready = "ready>"
	term.answer(ready, fmt.Sprintf("postern setup --login-url %s --graph-url %s", w.flags["login-url"], w.flags["graph-url"]))
	term.answer("[postern.yaml]:", "")
	term.answer("Cloud [global]:", "")
	term.answer("Application (client) ID:", sampleTenant) // the wrong way round
	term.answer("Directory (tenant) ID:", sampleClientID)
	term.answer("Enter when done:", "")
	term.answer("Sign in by [secret]:", "1")
	term.answer("Secret's Value (not shown):", "2c9b0c44-0000-4000-8000-00000000aaaa") // the column beside it
	term.answer("Secret's Value (not shown):", "sample-secret-but-wrong")
	term.answer("no warnings ahead):", "tomorrow")
	term.answer("no warnings ahead):", "2030-01-31")
	term.answer("What now [proof]:", "")
	term.answer("Sign in by [secret]:", "")
	term.answer("Secret's Value (not shown):", sampleSecret)
	term.answer("no warnings ahead):", "2030-01-31")
	term.answer("Mailbox:", "nobody@contoso.example")
	term.answer("What now [drop]:", "")
	term.answer("Mailbox:", "ceo@contoso.example")
	term.answer("What now [drop]:", "")
	term.answer("Mailbox:", "alice")
	term.answer("Mailbox:", sampleUser)
	term.answer("Mailbox:", "")
	term.answer("Shared mailbox:", sampleShared)
	term.answer("Shared mailbox:", "")
	term.answer("(y/N):", "y")
	term.answer("SMTP address [127.0.0.1:2525]:", strings.TrimPrefix(w.flags["login-url"], "http://")) // taken
	term.answer("SMTP address [127.0.0.1:2525]:", w.flags["smtp"])
	term.answer("IMAP address [127.0.0.1:1143]:", w.flags["imap"])
	term.answer("Pages address [127.0.0.1:8025]:", w.flags["http"])
	term.answer("User name for "+sampleUser+" ["+sampleUser+"]:", "")
	term.answer(ready, "postern doctor; echo ended with $?")
	term.answer("ended with 0\n"+ready, "postern serve &")
	screen := ""
	within(t, 30*time.Second, "the server", func() bool { screen = term.screen(); return strings.Contains(screen, "http listening on") })
	for _, want := range []string{"The two ids were the wrong way round", "That is the Secret ID", "AADSTS7000215. The client secret is wrong",
		"there is no Exchange Online mailbox", "an application access policy keeps the app out", "is taken by another program", "ended with 0"} {
		if !strings.Contains(screen, want) {
			t.Errorf("nowhere on the screen: %s", want)
		}
	}
	for _, secret := range []string{sampleSecret + "\n", "sample-secret-but-wrong"} {
		if strings.Contains(screen, secret) {
			t.Error("a secret stands on the screen")
		}
	}
	m := regexp.MustCompile(`password   (\S+)`).FindStringSubmatch(screen)
	if m == nil {
		t.Fatalf("no password on the screen:\n%s", screen)
	}
	t.Logf("%d keys, %.1f s without the portal", term.keys, time.Since(begun).Seconds())

	term.answer("", "")
	term.answer(ready, fmt.Sprintf("swaks --server %s --from %s --to %s --auth PLAIN --auth-user %s --auth-password %s --body 'first of all' >/dev/null; echo swaks ended with $?",
		w.flags["smtp"], sampleShared, sampleOther, sampleUser, m[1]))
	within(t, 30*time.Second, "swaks", func() bool { return strings.Contains(term.screen(), "swaks ended with 0") })
	within(t, 30*time.Second, "the message", func() bool { return len(w.sim.Delivered()) == 1 })
	term.answer("ended with 0\n"+ready, fmt.Sprintf("curl -sS -u '%s:%s' 'imap://%s/INBOX;MAILINDEX=*' | grep ^From; echo curl has ended", sampleUser, m[1], w.flags["imap"]))
	within(t, 30*time.Second, "curl", func() bool { return strings.Contains(term.screen(), "\ncurl has ended") })
	if !strings.Contains(term.screen(), "From: <bob@contoso.example>") {
		t.Errorf("curl shows no message:\n%s", term.screen())
	}
	term.answer("ended\n"+ready, "kill %1; wait; echo it is over")
	within(t, 30*time.Second, "the end", func() bool { return strings.Contains(term.screen(), "\nit is over") })
}
