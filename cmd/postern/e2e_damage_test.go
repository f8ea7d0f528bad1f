package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend/graphsim"
)

// damage overwrites what a database file holds, all but its first page, or all of it.
func damage(t *testing.T, path string, seed uint64, all bool) {
	t.Helper()
	for _, suffix := range []string{"-wal", "-shm"} {
		if err := os.Remove(path + suffix); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(seed, 1))
	from := 4096
	if all {
		from = 0
	}
	for i := from; i < len(b); i++ {
		b[i] = byte(rnd.Uint32())
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// startFails runs the server and returns what it says when it does not start.
func (r *rig) startFails(t *testing.T) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, program(t), "serve", "--config", filepath.Join(r.dir, "postern.yaml"))
	cmd.Env = append(os.Environ(), "E2E_SECRET="+sampleSecret)
	var out bytes.Buffer
	cmd.Stderr, cmd.Stdout = &out, &out
	if err := cmd.Run(); err == nil || ctx.Err() != nil {
		t.Fatalf("the server starts: %v\n%s", err, out.String())
	}
	return out.String()
}

// A damaged replica is told at the start, with what to do. When that has been done mailboxes are read anew under another
// UIDVALIDITY, and nothing else is lost: not the mail that waits, not the logins of the state folder.
func TestE2EReplicaDamaged(t *testing.T) {
	t.Parallel()
	for _, all := range []bool{false, true} {
		t.Run(fmt.Sprintf("all of it %v", all), func(t *testing.T) {
			r := newRig(t, nil)
			if err := r.sim.Inject(graphsim.Fault{Path: "/send(Mail)?$", Status: 503}); err != nil {
				t.Fatal(err)
			}
			accepted := make(map[string]bool)
			for i := range 6 {
				id := fmt.Sprintf("<damage.%d@e2e.example>", i)
				code, err := submitSized(r.addr["smtp/none"], r.users[i%3], id, 10_000)
				if accepted[id] = err == nil && code == 0; !accepted[id] {
					t.Fatalf("submit: %d %v", code, err)
				}
			}
			boxes := []string{"INBOX", "Archive", "Projects/Looking Glass"}
			before := make(map[string]snapshot)
			for _, box := range boxes {
				before[box] = r.snapshot(t, sampleUser, box)
			}
			r.stop()
			state := filepath.Join(r.dir, "state")
			damage(t, filepath.Join(state, "replica.db"), 1, all)

			said := r.startFails(t)
			for _, want := range []string{filepath.Join(state, "replica.db"), "damaged", "move the file"} {
				if !strings.Contains(said, want) {
					t.Errorf("the error does not say %q:\n%s", want, said)
				}
			}
			if err := os.Rename(filepath.Join(state, "replica.db"), filepath.Join(state, "replica.damaged")); err != nil {
				t.Fatal(err)
			}
			r.start()
			for _, box := range boxes {
				after := r.snapshot(t, sampleUser, box)
				if after.validity <= before[box].validity {
					t.Errorf("%s: UIDVALIDITY was %d and is %d", box, before[box].validity, after.validity)
				}
				want := make(map[string]int)
				for _, id := range before[box].messages {
					want[id]++
				}
				for _, id := range after.messages {
					want[id]--
				}
				for id, n := range want {
					if n != 0 {
						t.Errorf("%s: %+d of %s", box, -n, id)
					}
				}
			}
			r.sim.ClearFaults()
			r.drain(t)
			r.onceEach(t, accepted)
		})
	}
}

// drain hurries the queue and waits until it is empty.
func (r *rig) drain(t *testing.T) {
	t.Helper()
	hurried := time.Time{}
	within(t, 5*time.Minute, "the queue is empty", func() bool {
		if time.Since(hurried) > 3*time.Second { // its own waits are made for hours
			hurried = time.Now()
			_, _ = r.run(nil, program(t), "queue", "retry", "--all", "--state", filepath.Join(r.dir, "state")) // some are being sent
		}
		return len(r.queue(t)) == 0
	})
}

// Without its database the queue does not know who was to get the mail that waits, but the mail is not thrown away.
func TestE2EOutboxDamaged(t *testing.T) {
	r := newRig(t, nil)
	if err := r.sim.Inject(graphsim.Fault{Path: "/send(Mail)?$", Status: 503}); err != nil {
		t.Fatal(err)
	}
	const n = 4
	for i := range n {
		if code, err := submitSized(r.addr["smtp/none"], sampleUser, fmt.Sprintf("<lost.%d@e2e.example>", i), 5_000); err != nil || code != 0 {
			t.Fatalf("submit: %d %v", code, err)
		}
	}
	before := r.snapshot(t, sampleUser, "INBOX")
	r.stop()
	state := filepath.Join(r.dir, "state")
	damage(t, filepath.Join(state, "outbox.db"), 2, true)
	said := r.startFails(t)
	for _, want := range []string{filepath.Join(state, "outbox.db"), "damaged", "backup", "unsent"} {
		if !strings.Contains(said, want) {
			t.Errorf("the error does not say %q:\n%s", want, said)
		}
	}
	if err := os.Rename(filepath.Join(state, "outbox.db"), filepath.Join(state, "outbox.damaged")); err != nil {
		t.Fatal(err)
	}
	r.sim.ClearFaults()
	for i := range 2 { // the second start has nothing more to tell
		r.start()
		if after := r.snapshot(t, sampleUser, "INBOX"); after.validity != before.validity || len(after.messages) != len(before.messages) {
			t.Errorf("INBOX was %v, is %v", before, after)
		}
		if told := strings.Contains(r.log.all(), filepath.Join(state, "unsent")); told != (i == 0) {
			t.Errorf("start %d: the log tells where the mail is: %v\n%s", i, told, r.log)
		}
		r.stop()
	}
	kept, err := filepath.Glob(filepath.Join(state, "unsent", "*.eml"))
	if err != nil || len(kept) != n {
		t.Fatalf("%d messages are kept, want %d: %v", len(kept), n, err)
	}
	found := 0
	for _, name := range kept {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, []byte("Message-ID: <lost.")) && bytes.Contains(b, []byte("one@fabrikam.example")) {
			found++
		}
	}
	if found != n {
		t.Errorf("%d of the kept files are whole messages, want %d", found, n)
	}
	// A damaged table that turns up while the server runs does not end it.
	r.start()
	if code, err := submitSized(r.addr["smtp/none"], sampleUser, "<after@e2e.example>", 1000); err != nil || code != 0 {
		t.Errorf("submit after the loss: %d %v", code, err)
	}
	r.drain(t)
	r.onceEach(t, map[string]bool{"<after@e2e.example>": true})
	c := r.imap(t, sampleUser)
	if _, err := c.Select("INBOX", &imap.SelectOptions{ReadOnly: true}).Wait(); err != nil {
		t.Error(err)
	}
	r.stop()
}

// onceEach fails the test unless each message that was accepted has left once, and no other twice.
func (r *rig) onceEach(t *testing.T, accepted map[string]bool) {
	t.Helper()
	left := make(map[string]int)
	for _, d := range r.sim.Delivered() {
		left[d.MessageID]++
	}
	for id, ok := range accepted {
		if ok && left[id] != 1 || left[id] > 1 {
			t.Errorf("%s: accepted %v, left %d times", id, ok, left[id])
		}
	}
}

// submitSized submits a message of about size bytes, and says which code it was refused with, 0 for none.
func submitSized(addr, user, id string, size int) (refused int, err error) {
	body := strings.Repeat(strings.Repeat("x", 70)+"\r\n", size/72+1)
	err = sendMailText(addr, user, user, "one@fabrikam.example", id, body)
	var reply *textproto.Error
	if errors.As(err, &reply) {
		return reply.Code, nil
	}
	return 0, err
}
