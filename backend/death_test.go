package backend

import (
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/backend/graphsim"
	"postern/backend/outbox"
	"postern/backend/store"
)

var errDead = errors.New("the process is dead")

// death lets a backend get as far as a number of steps, and do nothing any more from the next one on: that is what kill -9 at this
// point leaves behind. A step is what lasts: a change of a row, the removal of a file, a request to Graph, and, by
// itself, the arrival of its answer.
type death struct {
	next http.RoundTripper

	mu    sync.Mutex
	at    int
	later bool // steps do not count before begin
	steps []string
	dead  chan struct{}
}

func (d *death) step(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.isDead() {
		return errDead
	}
	if d.later {
		return nil
	}
	if len(d.steps) == d.at {
		close(d.dead)
		return fmt.Errorf("%w before %q", errDead, name)
	}
	d.steps = append(d.steps, name)
	return nil
}

func (d *death) begin() {
	d.mu.Lock()
	d.later = false
	d.mu.Unlock()
}

func (d *death) isDead() bool {
	select {
	case <-d.dead:
		return true
	default:
		return false
	}
}

// RoundTrip counts what the queue asks of Graph. Other requests, which read the mailbox for its replica, only die with the rest.
func (d *death) RoundTrip(r *http.Request) (*http.Response, error) {
	name := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	if strings.HasPrefix(name, "Attachment") {
		name = "upload"
	}
	counted := name != "token" && name != "$batch" &&
		(r.Method != http.MethodGet || strings.Contains(r.URL.RawQuery, "internetMessageId") || strings.Contains(r.URL.RawQuery, "isDraft"))
	if !counted {
		if d.isDead() {
			return nil, errDead
		}
		return d.next.RoundTrip(r)
	}
	if err := d.step(r.Method + " " + name); err != nil {
		return nil, err
	}
	resp, err := d.next.RoundTrip(r)
	if dead := d.step("answer to " + name); dead != nil {
		if err == nil {
			resp.Body.Close()
		}
		return nil, dead
	}
	return resp, err
}

// TestDeathAtEachStep kills the server at each step that a message takes, one after the other, starts it again, and
// counts what arrived. docs/architecture.md has the states and what a death in each of them leads to.
func TestDeathAtEachStep(t *testing.T) {
	send, sendDraft := "/sendMail$", "/send$"
	large := func(sizes ...int) string { text, _ := largeMessage("mixed", sizes...); return text }
	small := "From: alice@contoso.example\nMessage-ID: <same@x>\nSubject: s\n\nbody\n"
	many := envelope()
	for i := range maxPartRecipients + 2 {
		many.Recipients = append(many.Recipients, Recipient{Address: fmt.Sprintf("r%d@fabrikam.example", i)})
	}
	success := envelope("x@fabrikam.example")
	success.Recipients[0].Notify = []string{"SUCCESS"}
	dropped := envelope("x@fabrikam.example")
	dropped.DropCopy = true
	// Each server finds the death it is to die under its own folder.
	var deaths sync.Map
	adjustOutbox = func(o *outbox.Options) {
		o.Retries = []time.Duration{10 * time.Millisecond}
		o.Looks = []time.Duration{5 * time.Millisecond, 10 * time.Millisecond}
		o.Copies = []time.Duration{5 * time.Millisecond, 20 * time.Millisecond, 40 * time.Millisecond}
		o.Grace = time.Millisecond
		if d, ok := deaths.LoadAndDelete(filepath.Dir(o.Store.SpoolDir())); ok {
			o.Step = d.(*death).step
		}
	}
	t.Cleanup(func() { adjustOutbox = nil })
	denied := graphsim.Fault{Path: send, Status: 403, Code: "ErrorSendAsDenied"}
	for _, tt := range []struct {
		name   string
		text   string
		env    Envelope
		wait   time.Duration // of the client
		faults []graphsim.Fault
		kinds  string // what notices an accepted message leads to
		lost   bool   // it is not to arrive
	}{
		{name: "plain", text: small, wait: time.Second},
		{name: "sent, answer lost", text: small, faults: []graphsim.Fault{{Path: send, Times: 1, DropAfter: true}}},
		{name: "not sent, answer lost", text: small, faults: []graphsim.Fault{{Path: send, Times: 1, Status: 503}}},
		{name: "throttled", text: small, faults: []graphsim.Fault{{Path: send, Times: 1, Status: 423}}},
		{name: "refused", text: small, wait: time.Second, faults: []graphsim.Fault{denied}, kinds: "Not delivered", lost: true},
		{name: "bounced", text: small, faults: []graphsim.Fault{denied}, kinds: "Not delivered", lost: true},
		{name: "success wanted", text: small, env: success, wait: time.Second, kinds: "Handed over"},
		{name: "no copy", text: small, env: dropped, wait: time.Second},
		{name: "two parts", text: small, env: many},
		{name: "two parts, the second unclear", text: small, env: many, faults: []graphsim.Fault{{Path: send, Skip: 1, Times: 1, DropAfter: true}}},
		{name: "large", text: large(3_050_000, 100_000)},
		{name: "large, answer to sending lost", text: large(1_500_000, 1_400_000), faults: []graphsim.Fault{{Path: sendDraft, Times: 1, DropAfter: true}}},
		{name: "large, draft's answer lost", text: large(1_500_000, 1_400_000), faults: []graphsim.Fault{{Path: sendDraft, Times: 1, Status: 504}, {Path: sendDraft, Times: 1, Status: 507}, {Method: "POST", Path: "/messages$", Skip: 1, Times: 1, DropAfter: true}}},
		{name: "large, attachment refused", text: large(1_500_000, 1_400_000), faults: []graphsim.Fault{{Path: "/attachments$", Skip: 1, Times: 1, Status: 503}}},
		{name: "large, refused", text: large(1_500_000, 1_400_000), faults: []graphsim.Fault{{Path: sendDraft, Status: 400, Code: "ErrorMessageSizeExceeded"}}, kinds: "Not delivered", lost: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.env.Recipients == nil {
				tt.env = envelope("x@fabrikam.example")
			}
			var steps []string
			for at := 0; ; at++ {
				d := &death{at: at, dead: make(chan struct{})}
				dir := t.TempDir()
				deaths.Store(dir, d)
				dieOnce(t, d, dir, tt.text, tt.env, tt.wait, tt.faults, tt.kinds, tt.lost)
				if t.Failed() {
					t.Fatalf("dead behind step %d: %s", at, strings.Join(d.steps, ", "))
				}
				if !d.isDead() {
					steps = d.steps
					break
				}
			}
			t.Logf("%d steps: %s", len(steps), strings.Join(steps, ", "))
			if len(steps) < 5 {
				t.Error("that cannot be all")
			}
		})
	}
}

// dieOnce submits a message to a server that dies, and looks at what the next one makes of it.
func dieOnce(t *testing.T, d *death, dir, text string, env Envelope, wait time.Duration, faults []graphsim.Fault, kinds string, lost bool) {
	t.Helper()
	sim, url := newSim(t, graphsim.Options{})
	for _, f := range faults {
		inject(t, sim, f)
	}
	cfg := testConfig(t, url, dir)
	cfg.SendWait, cfg.Poll = wait, time.Hour
	healthy := cfg.HTTPClient
	d.next = healthy.Transport
	cfg.HTTPClient = &http.Client{Transport: d}
	b, stop := start(t, cfg)
	id, err := submit(t, b, loginOf(t, b, alice), env, text)
	accepted := err == nil
	idle := func(b *Backend) bool {
		rows, err := b.store.Outbox().List(t.Context(), store.Filter{States: []store.State{store.StateQueued, store.StateSending, store.StateUnclear}})
		return err == nil && len(rows) == 0 && spoolFiles(t, b) == 0
	}
	eventually(t, nil, "message dealt with", func() bool { return d.isDead() || idle(b) })
	stop()

	cfg.HTTPClient = healthy
	b, stop = start(t, cfg)
	eventually(t, nil, "rest dealt with", func() bool { return idle(b) })
	stop()

	got := map[string]int{}
	for _, m := range sim.Delivered() {
		for _, r := range m.Recipients {
			got[r]++
		}
		if len(m.MIME) < len(text)-1000 {
			t.Errorf("%d bytes arrived of %d", len(m.MIME), len(text))
		}
	}
	for _, r := range env.Recipients {
		n := got[r.Address]
		if n > 1 || lost && n > 0 || n == 0 && accepted && !lost {
			t.Fatalf("%s (%v): %s has it %d times", id, err, r.Address, n)
		}
	}
	if n := len(sim.Messages(alice, "drafts")); n != 0 {
		t.Errorf("%d drafts left", n)
	}
	if n := len(sim.Messages(alice, "sentitems")); env.DropCopy && n != 0 {
		t.Errorf("%d copies in Sent Items", n)
	}
	notices := 0
	for _, m := range sim.Messages(alice, "inbox") {
		if kinds == "" || !strings.HasPrefix(m.Subject, kinds) {
			t.Errorf("notice %q", m.Subject)
		}
		notices++
	}
	if notices > 1 || accepted && kinds != "" && notices != 1 {
		t.Errorf("%d notices", notices)
	}
}
