package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"maps"
	"net/smtp"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend/graphsim"
)

// After kill -9 clients find the same UIDs, and everything that was acknowledged.
func TestE2EKillKeepsMailboxes(t *testing.T) {
	r := newRig(t, nil)
	folders := []string{"INBOX", "Archive", "Projects/Looking Glass", "会議", "Sent"}
	before := make(map[string]snapshot)
	for _, f := range folders {
		before[f] = r.snapshot(t, sampleUser, f)
		if len(before[f].messages) == 0 {
			t.Fatalf("%s is empty", f)
		}
	}
	// Graph takes no writes for now: what is acknowledged lives in Postern alone.
	if err := r.sim.Inject(graphsim.Fault{Method: "PATCH", Status: 503, RetryAfter: "1"}); err != nil {
		t.Fatal(err)
	}
	c := r.imap(t, sampleUser)
	if _, err := c.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	if err := c.Store(imap.SeqSetNum(1, 2, 3), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagFlagged, "kept"}}, nil).Close(); err != nil {
		t.Fatal(err)
	}
	mime := "From: alice@contoso.example\r\nTo: bob@contoso.example\r\nSubject: appended\r\nMessage-ID: <appended@e2e.example>\r\n\r\nkept\r\n"
	app := c.Append("Archive", int64(len(mime)), &imap.AppendOptions{Flags: []imap.Flag{imap.FlagSeen}})
	if _, err := app.Write([]byte(mime)); err != nil {
		t.Fatal(err)
	}
	if err := app.Close(); err != nil {
		t.Fatal(err)
	}
	appended, err := app.Wait()
	if err != nil {
		t.Fatal(err)
	}

	r.kill()
	r.sim.ClearFaults()
	r.start()

	for _, f := range folders {
		after := r.snapshot(t, sampleUser, f)
		if f == "Archive" {
			if after.messages[appended.UID] != "appended@e2e.example" {
				t.Errorf("UID %d of the appended message is now %q", appended.UID, after.messages[appended.UID])
			}
			delete(after.messages, appended.UID)
		}
		if after.validity != before[f].validity {
			t.Errorf("%s: UIDVALIDITY was %d, is %d", f, before[f].validity, after.validity)
		}
		if !maps.Equal(after.messages, before[f].messages) {
			t.Errorf("%s: messages were\n%v\nare\n%v", f, before[f].messages, after.messages)
		}
	}
	within(t, 30*time.Second, "flags in Graph", func() bool {
		n := 0
		for _, m := range r.sim.Messages(sampleUser, "inbox") {
			if m.Flagged && strings.Contains(strings.Join(m.Categories, " "), "kept") {
				n++
			}
		}
		return n == 3
	})
	if n := len(r.sim.Messages(sampleUser, "archive")); n != len(before["Archive"].messages)+1 {
		t.Errorf("Archive has %d messages, want %d and the appended one", n, len(before["Archive"].messages))
	}
}

// Mail that was acknowledged leaves once, whatever happens in between; mail that was not leaves at most once.
func TestE2EKillKeepsQueue(t *testing.T) {
	t.Parallel()
	const each = 8
	users := []string{"q1@contoso.example", "q2@contoso.example", "q3@contoso.example"}
	r := newRig(t, nil, users...)
	// Slow, and often without an answer although the mail has left.
	if err := r.sim.Inject(graphsim.Fault{Path: "/sendMail$", Delay: 250 * time.Millisecond, Every: 3, DropAfter: true}); err != nil {
		t.Fatal(err)
	}
	if err := r.sim.Inject(graphsim.Fault{Path: "/sendMail$", Delay: 250 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}

	var mu sync.Mutex
	accepted := make(map[string]bool)
	enough := make(chan struct{})
	var sending sync.WaitGroup
	for _, user := range users {
		sending.Go(func() {
			for i := range each {
				id := fmt.Sprintf("<%d.%s>", i, user)
				err := sendMail(r.addr["smtp/none"], user, user, "one@fabrikam.example", id)
				mu.Lock()
				accepted[id] = err == nil
				n := len(accepted)
				mu.Unlock()
				if n == each {
					close(enough)
				}
			}
		})
	}
	<-enough
	r.kill()
	sending.Wait() // the others fail
	r.start()

	within(t, 2*time.Minute, "an empty queue", func() bool { return len(r.queue(t)) == 0 })
	left := make(map[string]int)
	for _, d := range r.sim.Delivered() {
		left[d.MessageID]++
	}
	n := 0
	for id, ok := range accepted {
		if ok {
			n++
		}
		if ok && left[id] != 1 || left[id] > 1 {
			t.Errorf("%s: accepted %v, left %d times", id, ok, left[id])
		}
	}
	if n < 3 || n == len(accepted) {
		t.Errorf("%d of %d were accepted before the end: this test has tested nothing", n, len(accepted))
	}
}

// sendMail submits one small message, logged in as login.
func sendMail(addr, login, from, to, id string) error {
	return sendMailText(addr, login, from, to, id, "hello\r\n")
}

func sendMailText(addr, login, from, to, id, body string) error {
	c, err := smtp.Dial(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Auth(smtp.PlainAuth("", login, e2ePassword, "127.0.0.1")); err != nil {
		return err
	}
	if err := c.Mail(from); err != nil {
		return err
	}
	if err := c.Rcpt(to); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "From: %s\r\nTo: %s\r\nSubject: queue\r\nMessage-ID: %s\r\n\r\n%s", from, to, id, body); err != nil {
		return err
	}
	return w.Close() // the answer to the message
}

// queue returns what postern queue list prints of mail that waits, beside the running server.
func (r *rig) queue(t *testing.T) []queueRow {
	t.Helper()
	out, err := r.run(nil, program(t), "queue", "list", "--json", "--state", filepath.Join(r.dir, "state"))
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var rows []queueRow
	if err := json.Unmarshal([]byte(out), &rows); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return rows
}

// A folder of 100,000 messages opens after one listing, and after a restart without any.
func TestE2EBigFolder(t *testing.T) {
	many := 100_000
	if raceDetector {
		many = 10_000 // it makes everything several times slower
	}
	const user = "big@contoso.example"
	r := newRig(t, func(sim *graphsim.Sim) {
		sim.AddUser(sampleTenant, graphsim.UserSpec{UPN: user})
		sim.AddSynthetic(user, "inbox", many, graphsim.Synthetic{Seed: 5})
	}, "small@contoso.example")
	r.stop()
	config := filepath.Join(r.dir, "postern.yaml")
	src, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(src), "small@contoso.example", user)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}

	// open starts the server, selects INBOX, and returns how long that took and the calls for this mailbox made until then.
	open := func() (took time.Duration, calls []graphsim.Request, sel *imap.SelectData) {
		r.sim.ResetRequests()
		r.start()
		c := r.imap(t, user)
		defer c.Close()
		start := time.Now()
		sel, err := c.Select("INBOX", nil).Wait()
		if err != nil {
			t.Fatal(err)
		}
		took = time.Since(start)
		for _, q := range r.sim.Requests() {
			if q.Mailbox == user || strings.Contains(q.Path, user) {
				calls = append(calls, q)
			}
		}
		if int(sel.NumMessages) != many {
			t.Fatalf("INBOX has %d messages, want %d", sel.NumMessages, many)
		}
		return took, calls, sel
	}
	took, calls, first := open()
	t.Logf("first SELECT: %v, %d calls", took.Round(time.Millisecond), len(calls))
	if len(calls) > 260 {
		t.Errorf("the first SELECT took %d calls, want about 200: %s", len(calls), summary(calls))
	}
	r.kill()

	took, calls, second := open()
	t.Logf("SELECT after a restart: %v, %d calls: %s", took.Round(time.Millisecond), len(calls), summary(calls))
	if took > 5*time.Second {
		t.Errorf("SELECT after a restart took %v", took)
	}
	for _, q := range calls {
		if listing := strings.HasSuffix(q.Template, "/messages") && !strings.Contains(strings.ToLower(q.Query), "007d"); listing {
			t.Errorf("listed again after a restart: %s?%s", q.Path, q.Query)
		}
	}
	if second.UIDValidity != first.UIDValidity || second.UIDNext != first.UIDNext {
		t.Errorf("UIDVALIDITY and UIDNEXT were %d %d, are %d %d", first.UIDValidity, first.UIDNext, second.UIDValidity, second.UIDNext)
	}
}

// summary counts requests by what they ask.
func summary(calls []graphsim.Request) string {
	n := make(map[string]int)
	for _, q := range calls {
		n[q.Method+" "+q.Template]++
	}
	return fmt.Sprint(n)
}

// mustRunEnv runs the program itself with the rig's secret in its environment.
func (r *rig) mustRunEnv(t *testing.T, stdin []byte, args ...string) {
	t.Helper()
	t.Setenv("E2E_SECRET", sampleSecret)
	r.mustRun(t, stdin, program(t), args...)
}

func smtpLogin(addr, user, password string) error {
	c, err := smtp.Dial(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Auth(smtp.PlainAuth("", user, password, "127.0.0.1"))
}

func (r *rig) servedCertificate(t *testing.T) []byte {
	t.Helper()
	conn, err := tls.Dial("tcp", r.addr["imap/implicit"], &tls.Config{InsecureSkipVerify: true}) // only looked at
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].Raw
}
