package backend

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/backend/graphsim"
	"postern/backend/store"
	"postern/internal/faultrun"
)

const crashMailboxes = 6

func crashUser(i int) string { return fmt.Sprintf("user%d@contoso.example", i) }

func crashConfig(t *testing.T, url, dir string) Config {
	cfg := testConfig(t, url, dir)
	cfg.Mailboxes = nil
	for i := range crashMailboxes {
		cfg.Mailboxes = append(cfg.Mailboxes, MailboxConfig{Address: crashUser(i), Credential: "contoso"})
	}
	cfg.Poll = time.Minute
	cfg.SendWait = 300 * time.Millisecond
	return cfg
}

// TestCrashChild is the process that TestKill kills. It submits messages without end and
// says which were accepted; with POSTERN_CRASH_DRAIN it only sends what is queued.
func TestCrashChild(t *testing.T) {
	url, dir := os.Getenv("POSTERN_CRASH_URL"), os.Getenv("POSTERN_CRASH_DIR")
	if url == "" {
		t.Skip("runs as a child of TestKill only")
	}
	quickly(t)
	b, _ := start(t, crashConfig(t, url, dir))
	if os.Getenv("POSTERN_CRASH_DRAIN") != "" {
		// The pace of 30 a minute outlives restarts, and the lives before this one may have used it up more than once.
		for deadline := time.Now().Add(4 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
			rows, err := b.store.Outbox().List(t.Context(), store.Filter{States: []store.State{store.StateQueued, store.StateSending, store.StateUnclear}})
			if err == nil && len(rows) == 0 {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d messages are queued after four minutes, %v", len(rows), err)
			}
		}
	}
	life := os.Getenv("POSTERN_CRASH_LIFE")
	var out sync.Mutex
	var n atomic.Int64
	var wg sync.WaitGroup
	for w := range crashMailboxes {
		wg.Go(func() {
			login := loginOf(t, b, crashUser(w))
			for range 25 { // the pace allows 30
				subject := fmt.Sprintf("m-%s-%d", life, n.Add(1))
				text := "From: " + crashUser(w) + "\nSubject: " + subject + "\nMessage-ID: <same@x>\n\nbody\n"
				if rand.N(8) == 0 {
					large, _ := largeMessage("mixed", 3<<20)
					text = strings.Replace(strings.Replace(large, "Subject: large", "Subject: "+subject, 1), alice, crashUser(w), 1)
				}
				env := Envelope{From: crashUser(w), Recipients: []Recipient{{Address: "x@fabrikam.example"}}}
				s, err := b.NewSubmission(login, env)
				if err != nil {
					t.Error(err)
					return
				}
				io.WriteString(s, text)
				if _, err := s.Submit(context.Background()); err == nil {
					out.Lock()
					fmt.Printf("\naccepted %s\n", subject)
					out.Unlock()
				} else {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	select {} // until killed
}

// Whenever the process is killed, each message it accepted arrives, and none arrives twice.
func TestKill(t *testing.T) {
	if testing.Short() {
		t.Skip("kills processes for some seconds")
	}
	sim, url := newSim(t, graphsim.Options{Latency: 3 * time.Millisecond, SentItemsDelay: 30 * time.Millisecond})
	for i := range crashMailboxes {
		sim.AddUser(testTenant, graphsim.UserSpec{UPN: crashUser(i)})
	}
	inject(t, sim, graphsim.Fault{Path: "/send(Mail)?$", Probability: 0.1, Seed: 1, DropAfter: true})
	inject(t, sim, graphsim.Fault{Path: "/send(Mail)?$", Probability: 0.1, Seed: 2, Status: 503})
	dir := t.TempDir()

	accepted := map[string]bool{}
	life := func(number int, drain bool, kill time.Duration) {
		cmd := exec.Command(os.Args[0], "-test.run=^TestCrashChild$", "-test.timeout=5m")
		cmd.Env = append(os.Environ(), "POSTERN_CRASH_URL="+url, "POSTERN_CRASH_DIR="+dir, fmt.Sprintf("POSTERN_CRASH_LIFE=%d", number))
		if drain {
			cmd.Env = append(cmd.Env, "POSTERN_CRASH_DRAIN=1")
		}
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var rest strings.Builder
		timer := (*time.Timer)(nil)
		for sc := bufio.NewScanner(stdout); sc.Scan(); {
			if subject, ok := strings.CutPrefix(sc.Text(), "accepted "); ok {
				accepted[subject] = true
				if timer == nil && !drain {
					timer = time.AfterFunc(kill, func() { cmd.Process.Kill() })
				}
			} else {
				rest.WriteString(sc.Text() + "\n")
			}
		}
		if err := cmd.Wait(); drain && err != nil {
			t.Fatalf("drain: %v\n%s%s", err, rest.String(), stderr.String())
		}
	}
	rnd := rand.New(rand.NewPCG(faultrun.Seed(t, 1), 1))
	for i := range 4 {
		life(i, false, time.Duration(rnd.IntN(400))*time.Millisecond)
	}
	sim.ClearFaults()
	life(4, true, 0)

	got := map[string]int{}
	for _, d := range sim.Delivered() {
		h, _, _ := bytes.Cut(d.MIME, []byte("\r\n\r\n"))
		for _, l := range strings.Split(string(h), "\r\n") {
			if s, ok := strings.CutPrefix(l, "Subject: "); ok {
				got[s]++
			}
		}
	}
	for s := range accepted {
		if got[s] == 0 {
			t.Errorf("%s was accepted and is lost", s)
		}
	}
	for s, n := range got {
		if n > 1 {
			t.Errorf("%s arrived %d times", s, n)
		}
	}
	for i := range crashMailboxes {
		if d := sim.Messages(crashUser(i), "drafts"); len(d) != 0 {
			t.Errorf("%s has %d drafts left", crashUser(i), len(d))
		}
	}
	if t.Failed() {
		box, err := store.OpenOutboxReadOnly(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer box.Close()
		rows, err := box.List(t.Context(), store.Filter{})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			if r.State != store.StateSent || r.Attempts > 1 {
				t.Logf("%s of %s, %d bytes: %s after %d attempts: %s", r.ID, r.Mailbox, r.Size, r.State, r.Attempts, r.LastError)
			}
		}
	}
	t.Logf("%d accepted, %d arrived", len(accepted), len(got))
}
