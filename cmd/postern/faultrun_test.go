package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http/httptest"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/backend/graphsim"
	"postern/internal/faultrun"
)

// TestFaultRun submits messages by SMTP to the real program while one request of Graph in five goes wrong, in all the
// ways known, and the program is killed every few seconds. Every message that was acknowledged must arrive
// exactly once, and no other twice. All chance comes from one seed; the order in which things happen does not.
func TestFaultRun(t *testing.T) {
	t.Parallel()
	program(t)
	seed := faultrun.Seed(t, 20260101)
	messages := int(faultrun.Length(t, 16*time.Second) / (100 * time.Millisecond))
	mailboxes := max(8, messages/50) // Exchange takes 30 a minute from each
	sim := graphsim.New(graphsim.Options{SentItemsDelay: 300 * time.Millisecond, Latency: 5 * time.Millisecond,
		// A server that was killed knows nothing of its pace; Exchange would then deliver some later, after we have counted.
		Limits: graphsim.Limits{SendsPerMinute: -1}})
	sim.AddTenant(sampleTenant, sampleDomain)
	sim.AddApp(sampleTenant, sampleClientID, sampleSecret, "Mail.ReadWrite", "Mail.Send")
	r := &rig{t: t, sim: sim, dir: t.TempDir()}
	for i := range mailboxes {
		u := fmt.Sprintf("u%d@contoso.example", i)
		sim.AddUser(sampleTenant, graphsim.UserSpec{UPN: u})
		r.users = append(r.users, u)
	}
	srv := httptest.NewServer(sim)
	t.Cleanup(srv.Close)
	r.writeFaultConfig(srv.URL)

	// One in five in all: eight kinds on what sends, some on everything else.
	for i, f := range []graphsim.Fault{
		{Status: 429, RetryAfter: "1"}, {Status: 429}, {Status: 503}, {Status: 503, AfterEffect: true}, {DropBefore: true},
		{DropAfter: true}, {StatusInstead: 200}, {Status: 200, EmptyBody: true}, {TokenExpired: true},
	} {
		f.Path, f.Method, f.Probability, f.Seed = "/send(Mail)?$", "POST", 0.022, seed+uint64(i)
		if err := sim.Inject(f); err != nil {
			t.Fatal(err)
		}
	}
	for i, f := range []graphsim.Fault{
		{Status: 429, RetryAfter: "0.5"}, {Status: 503}, {DropBefore: true}, {DropAfter: true}, {TruncateBody: true}, {TokenExpired: true},
	} {
		f.Path, f.Probability, f.Seed = "/messages|/AttachmentSessions|createUploadSession", 0.033, seed+100+uint64(i)
		if err := sim.Inject(f); err != nil {
			t.Fatal(err)
		}
	}

	var (
		mu       sync.Mutex
		accepted = map[string]bool{}
		tried    = map[string]bool{}
		next     int
	)
	rng := rand.New(rand.NewPCG(seed, 1))
	large := strings.Repeat(strings.Repeat("Q", 76)+"\r\n", 70_000) // 5.4 MB: goes by upload session
	addr := func() string {
		mu.Lock()
		defer mu.Unlock()
		return r.addr["smtp/none"]
	}
	// No message is submitted twice: what was not acknowledged may arrive or not.
	submit := func(n int, big bool) {
		subject := fmt.Sprintf("m%d", n)
		user := r.users[n%len(r.users)]
		mu.Lock()
		tried[subject] = true
		mu.Unlock()
		body := "body\r\n"
		if big {
			body = "--b\r\nContent-Type: text/plain\r\n\r\nx\r\n--b\r\nContent-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=f\r\nContent-Transfer-Encoding: base64\r\n\r\n" + large + "--b--\r\n"
		}
		text := "From: " + user + "\r\nTo: x@fabrikam.example\r\nSubject: " + subject + "\r\nMIME-Version: 1.0\r\n"
		if big {
			text += "Content-Type: multipart/mixed; boundary=b\r\n"
		}
		if n%3 == 0 {
			text += "Message-ID: <same@fabrikam.example>\r\n"
		}
		if err := sendPlain(addr(), user, "x@fabrikam.example", text+"\r\n"+body); err == nil {
			mu.Lock()
			accepted[subject] = true
			mu.Unlock()
		}
	}
	done := make(chan struct{})
	work := make(chan int)
	bigs := map[int]bool{}
	for n := range messages {
		bigs[n] = rng.IntN(50) == 0
	}
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for n := range work {
				submit(n, bigs[n])
			}
		})
	}
	r.startWith(&mu, 2)
	go func() {
		defer close(done)
		// Spread over the run, so that each life has something to do.
		tick := time.NewTicker(40 * time.Millisecond)
		defer tick.Stop()
		for next = range messages {
			<-tick.C
			work <- next
		}
		close(work)
		clients.Wait()
	}()
	kills := 0
	for running := true; running; {
		life := time.Duration(1500+rng.IntN(3500)) * time.Millisecond
		select {
		case <-done:
			running = false
		case <-time.After(life):
		}
		r.kill()
		kills++
		if running {
			r.startWith(&mu, 2)
		}
	}
	// Faults go on while what is left is sent; only then must all be well.
	r.startWith(&mu, 2)
	deadline := time.Duration(60+messages/4) * time.Second
	faults := 0
	calm := time.AfterFunc(5*time.Second+time.Duration(messages/50)*time.Second, func() {
		mu.Lock()
		faults = sim.FaultsFired()
		mu.Unlock()
		sim.ClearFaults()
	})
	defer calm.Stop()
	state := filepath.Join(r.dir, "state")
	hurried := time.Now()
	within(t, deadline, "queue empty", func() bool {
		// The queue's own waits are made for a service that is down for minutes.
		if time.Since(hurried) > 2*time.Second {
			hurried = time.Now()
			if out, err := runCommand(t, "queue", "retry", "--all", "--state-dir", state); err != nil && !strings.Contains(out, "being sent") && !strings.Contains(out, "already") {
				t.Fatalf("queue retry: %v\n%s", err, out)
			}
		}
		out, err := runCommand(t, "queue", "list", "--json", "--state-dir", state)
		return err == nil && strings.TrimSpace(out) == "[]"
	})
	r.stop()

	got := map[string]int{}
	for _, d := range sim.Delivered() {
		header, _, _ := bytes.Cut(d.MIME, []byte("\r\n\r\n"))
		for _, l := range strings.Split(string(header), "\r\n") {
			if s, ok := strings.CutPrefix(l, "Subject: "); ok {
				got[s]++
			}
		}
	}
	for s := range accepted {
		if got[s] == 0 {
			t.Errorf("%s was acknowledged and is lost\n%s", s, history(t, state, s))
		}
	}
	for s, n := range got {
		if n > 1 {
			t.Errorf("%s arrived %d times\n%s", s, n, history(t, state, s))
		}
		if !tried[s] {
			t.Errorf("%s was never submitted", s)
		}
	}
	for _, u := range r.users {
		if n := len(sim.Messages(u, "drafts")); n != 0 {
			t.Errorf("%s has %d drafts left", u, n)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(state, "spool", "*")); len(left) != 0 {
		t.Errorf("%d spool files left", len(left))
	}
	mu.Lock()
	if faults == 0 {
		faults = sim.FaultsFired()
	}
	mu.Unlock()
	t.Logf("%d submitted, %d acknowledged, %d arrived, %d faults, %d kills", len(tried), len(accepted), len(got), faults, kills)
	if len(accepted) < messages/2 {
		t.Errorf("only %d of %d were acknowledged: the run shows little", len(accepted), messages)
	}
}

// history is what the log says of the message with the subject.
func history(t *testing.T, state, subject string) string {
	t.Helper()
	out, err := runCommand(t, "queue", "list", "--all", "--json", "--subject", subject, "--state-dir", state)
	var rows []queueRow
	if err != nil || json.Unmarshal([]byte(out), &rows) != nil {
		return fmt.Sprint(out, err)
	}
	args := []string{"queue", "show", "--state-dir", state}
	for _, r := range rows {
		if r.Subject == subject {
			args = append(args, r.ID)
		}
	}
	out, err = runCommand(t, args...)
	return fmt.Sprint(out, err)
}

// writeFaultConfig writes a configuration that takes mail without log-in, so that each connection is quick.
func (r *rig) writeFaultConfig(graph string) {
	var b strings.Builder
	fmt.Fprintf(&b, "state: state\ncredentials:\n  c: {tenant: %s, client_id: %s, client_secret: \"${E2E_SECRET}\", login_url: %q, graph_url: %q}\nmailboxes:\n",
		sampleTenant, sampleClientID, graph, graph)
	for _, u := range r.users {
		fmt.Fprintf(&b, "  - {address: %s, credential: c}\n", u)
	}
	fmt.Fprintf(&b, "listeners:\n  - {protocol: smtp, address: \"127.0.0.1:0\", profile: device, networks: [127.0.0.0/8], mailbox: %s, send_as: [%s]}\n",
		r.users[0], strings.Join(r.users[1:], ", "))
	b.WriteString("  - {protocol: http, address: \"127.0.0.1:0\"}\nsmtp: {wait: 1s}\nimap: {poll: 1m}\nqueue: {log_subject: true}\n")
	if err := os.WriteFile(filepath.Join(r.dir, "postern.yaml"), []byte(b.String()), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// sendPlain submits one message without log-in. A nil error means 250.
func sendPlain(addr, from, to, text string) error {
	raw, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	defer raw.Close()
	if err := raw.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return err
	}
	c := textproto.NewConn(raw)
	for _, step := range []struct {
		send string
		code int
	}{{"", 220}, {"EHLO test", 250}, {"MAIL FROM:<" + from + ">", 250}, {"RCPT TO:<" + to + ">", 250}, {"DATA", 354}} {
		if step.send != "" {
			if err := c.PrintfLine("%s", step.send); err != nil {
				return err
			}
		}
		if _, _, err := c.ReadResponse(step.code); err != nil {
			return err
		}
	}
	if _, err := c.W.WriteString(text + ".\r\n"); err != nil {
		return err
	}
	if err := c.W.Flush(); err != nil {
		return err
	}
	if _, _, err := c.ReadResponse(250); err != nil {
		return err
	}
	if err := c.PrintfLine("QUIT"); err != nil && !errors.Is(err, net.ErrClosed) {
		return nil // it was acknowledged
	}
	return nil
}
