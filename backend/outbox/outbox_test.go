package outbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/backend/store"
)

// exchange plays Exchange and its Sender: it has what was sent to it, and does to each
// attempt what its script says.
type exchange struct {
	mu                    sync.Mutex
	script                []step // for each Send, in order; then all is well
	calls                 []time.Time
	sent                  map[string]int  // by id
	visible               map[string]bool // Find sees it
	finds                 []time.Time
	findErr               error
	delay                 time.Duration
	block                 chan struct{} // Send waits for it, if not nil
	notices               []Notice
	noteErrs              int // so many notices fail
	copyLooks, copyHidden int
	removed, cleaned      []string
	running               map[string]int
	most                  map[string]int
	lag                   time.Duration // until what was sent can be seen by Find and Filed
	sentAt                map[string]time.Time
	fileds                int // calls of Filed
	filedErr              error
}

type step struct {
	err     error
	arrives bool // the message is sent all the same
	hidden  int  // so many looks do not see it
	draft   bool // goes by way of a draft, which is left behind on an error
}

func newExchange(script ...step) *exchange {
	return &exchange{script: script, sent: map[string]int{}, visible: map[string]bool{}, running: map[string]int{}, most: map[string]int{}, sentAt: map[string]time.Time{}}
}

func (x *exchange) Delay(string) time.Duration {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.delay
}

func (x *exchange) Send(ctx context.Context, job *Job) error {
	if job.Part() > 0 {
		return nil
	}
	x.mu.Lock()
	x.calls = append(x.calls, time.Now())
	x.running[job.Mailbox]++
	x.most[job.Mailbox] = max(x.most[job.Mailbox], x.running[job.Mailbox])
	block := x.block
	x.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.running[job.Mailbox]--
	if ctx.Err() != nil {
		return &Error{Outcome: Unclear, Err: ctx.Err()}
	}
	if _, err := os.ReadFile(job.Path); err != nil {
		return err
	}
	var st step
	if len(x.script) > 0 {
		st, x.script = x.script[0], x.script[1:]
	}
	if st.draft {
		if err := job.BeginDraft(ctx); err != nil {
			return err
		}
	}
	if st.err == nil || st.arrives {
		if st.draft {
			if err := job.SetDraft(ctx, "", false); err != nil {
				return err
			}
		}
		x.sent[job.ID]++
		x.sentAt[job.ID] = time.Now()
		x.visible[job.ID] = st.hidden == 0
	}
	return st.err
}

func (x *exchange) Find(ctx context.Context, job *Job) (bool, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.finds = append(x.finds, time.Now())
	if x.findErr != nil {
		return false, x.findErr
	}
	if x.lag > 0 && time.Since(x.sentAt[job.ID]) < x.lag {
		return false, nil
	}
	if !x.visible[job.ID] {
		if x.sent[job.ID] > 0 {
			x.visible[job.ID] = true // at the next look
		}
		return false, nil
	}
	return true, job.PartDone(ctx)
}

func (x *exchange) Filed(_ context.Context, sub *store.Submission) (bool, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.fileds++
	return x.sent[sub.ID] > 0 && time.Since(x.sentAt[sub.ID]) >= x.lag, x.filedErr
}

func (x *exchange) Notify(_ context.Context, _ *Job, n Notice) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.noteErrs > 0 {
		x.noteErrs--
		return errors.New("mailbox away")
	}
	x.notices = append(x.notices, n)
	return nil
}

func (x *exchange) total() (n int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, k := range x.sent {
		n += k
	}
	return n
}

// rig is a queue on a store in a folder.
type rig struct {
	t    *testing.T
	x    *exchange
	st   *store.Store
	q    *Queue
	run  func() // begins Run
	stop func()
}

func openRig(t *testing.T, dir string, x *exchange, opts Options) *rig {
	t.Helper()
	r := prepareRig(t, dir, x, opts)
	r.run()
	synctest.Wait()
	return r
}

// prepareRig opens a queue and does not run it yet.
func prepareRig(t *testing.T, dir string, x *exchange, opts Options) *rig {
	t.Helper()
	st, err := store.Open(t.Context(), store.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	opts.Store, opts.Sender = st.Outbox(), x
	q, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, x: x, st: st, q: q}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	r.run = func() {
		running.Go(func() {
			if err := q.Run(ctx); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	r.stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
		if err := st.Close(); err != nil {
			t.Errorf("close store: %v", err)
		}
	})
	return r
}

func (r *rig) submit(wait time.Duration, change ...func(*store.Submission)) (string, error) {
	r.t.Helper()
	s, err := r.q.NewSpool()
	if err != nil {
		r.t.Fatal(err)
	}
	defer s.Discard()
	fmt.Fprintf(s, "Subject: x\r\n\r\nbody\r\n")
	sub := store.Submission{Mailbox: "a@x", EnvelopeFrom: "a@x", Recipients: []store.Recipient{{Address: "b@y"}}}
	for _, c := range change {
		c(&sub)
	}
	return r.q.Submit(r.t.Context(), s, sub, wait)
}

func (r *rig) row(id string) *store.Submission {
	r.t.Helper()
	s, err := r.st.Outbox().Get(r.t.Context(), id)
	if err != nil {
		r.t.Fatalf("row %s: %v", id, err)
	}
	return s
}

func (r *rig) files() []string {
	r.t.Helper()
	entries, err := os.ReadDir(r.st.Outbox().SpoolDir())
	if err != nil {
		r.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func (x *exchange) RemoveCopy(_ context.Context, job *Job) (bool, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.copyLooks++
	if x.sent[job.ID] == 0 || x.copyLooks <= x.copyHidden {
		return false, nil
	}
	x.removed = append(x.removed, job.ID)
	return true, nil
}

func (x *exchange) RemoveDrafts(_ context.Context, job *Job) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.noteErrs > 0 {
		x.noteErrs--
		return errors.New("mailbox away")
	}
	x.cleaned = append(x.cleaned, job.ID)
	return nil
}

// told returns the notices given out so far.
func (x *exchange) told() []Notice {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Clone(x.notices)
}

// called returns when Send was called.
func (x *exchange) called() []time.Time {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Clone(x.calls)
}

// looked returns how often Find was called.
func (x *exchange) looked() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.finds)
}

// atOnce returns how many attempts for the mailbox ran together at most.
func (x *exchange) atOnce(mailbox string) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.most[mailbox]
}

// copies returns which copies were removed, and how often they were looked for.
func (x *exchange) copies() (removed []string, looks int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Clone(x.removed), x.copyLooks
}

func bubble(t *testing.T, x *exchange, opts Options, f func(r *rig)) {
	synctest.Test(t, func(t *testing.T) {
		r := openRig(t, t.TempDir(), x, opts)
		defer r.stop()
		f(r)
	})
}

var (
	temporary = &Error{Outcome: Temporary, Status: "4.4.0", Err: errors.New("away")}
	permanent = &Error{Outcome: Permanent, Status: "5.7.1", Text: "The right is missing.", Err: errors.New("denied")}
	unclear   = &Error{Outcome: Unclear, Err: errors.New("reset")}
	unlikely  = &Error{Outcome: Unclear, Unlikely: true, Err: errors.New("503")}
)

func TestSentAtOnce(t *testing.T) {
	x := newExchange()
	bubble(t, x, Options{}, func(r *rig) {
		start := time.Now()
		id, err := r.submit(10 * time.Second)
		if err != nil || time.Since(start) != 0 {
			t.Fatalf("submit: %v after %v", err, time.Since(start))
		}
		synctest.Wait()
		if s := r.row(id); s.State != store.StateSent || !s.NextAttempt.IsZero() {
			t.Errorf("row %+v", s)
		}
		if f := r.files(); len(f) != 0 {
			t.Errorf("files left: %v", f)
		}
		if x.total() != 1 || len(x.told()) != 0 {
			t.Errorf("sent %d, notices %v", x.total(), x.told())
		}
	})
}

// A refusal for good while the client waits is the client's answer; only the log keeps it.
func TestRefusedWhileWaiting(t *testing.T) {
	x := newExchange(step{err: permanent})
	bubble(t, x, Options{}, func(r *rig) {
		id, err := r.submit(10 * time.Second)
		if e, ok := errors.AsType[*Error](err); !ok || e != permanent {
			t.Fatalf("submit: %v", err)
		}
		synctest.Wait()
		if row := r.row(id); row.State != store.StateRefused || !row.NextAttempt.IsZero() || row.LastError == "" {
			t.Errorf("row %+v", row)
		}
		if len(r.files()) != 0 || len(x.told()) != 0 {
			t.Errorf("files %v, notices %v", r.files(), x.told())
		}
	})
}

// The same refusal behind the 250 is a notice, also when the notice fails at first.
func TestRefusedAfterAccepting(t *testing.T) {
	for _, wait := range []time.Duration{0, time.Second} {
		x := newExchange(step{err: permanent})
		x.noteErrs = 1
		x.block = make(chan struct{})
		bubble(t, x, Options{}, func(r *rig) {
			x.block = make(chan struct{})
			id, err := r.submit(wait)
			if err != nil {
				t.Fatal(err)
			}
			close(x.block)
			synctest.Wait()
			if s := r.row(id); s.State != store.StateBounced || s.NextAttempt.IsZero() {
				t.Errorf("wait %v: %+v", wait, s)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if len(x.told()) != 1 || x.told()[0].Kind != Failed || x.told()[0].Text != permanent.Text || x.told()[0].Status != "5.7.1" {
				t.Errorf("wait %v: notices %+v", wait, x.told())
			}
			if s := r.row(id); s.State != store.StateBounced || !s.NextAttempt.IsZero() || len(r.files()) != 0 {
				t.Errorf("wait %v: %+v, files %v", wait, s, r.files())
			}
		})
	}
}

func TestNoticesWanted(t *testing.T) {
	for _, tt := range []struct {
		name   string
		script []step
		from   string
		rcpts  []store.Recipient
		want   string
	}{
		{"default", []step{{err: permanent}}, "a@x", []store.Recipient{{Address: "b"}, {Address: "c"}}, "failed b c"},
		{"never", []step{{err: permanent}}, "a@x", []store.Recipient{{Address: "b", Notify: []string{"NEVER"}}, {Address: "c"}}, "failed c"},
		{"nobody", []step{{err: permanent}}, "a@x", []store.Recipient{{Address: "b", Notify: []string{"NEVER"}}}, ""},
		{"no sender", []step{{err: permanent}}, "", []store.Recipient{{Address: "b"}}, ""},
		{"success asked", nil, "a@x", []store.Recipient{{Address: "b", Notify: []string{"SUCCESS", "FAILURE"}}, {Address: "c"}}, "relayed b"},
		{"success not asked", nil, "a@x", []store.Recipient{{Address: "b"}}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := newExchange(tt.script...)
			bubble(t, x, Options{}, func(r *rig) {
				r.submit(0, func(s *store.Submission) { s.EnvelopeFrom, s.Recipients = tt.from, tt.rcpts })
				time.Sleep(time.Second)
				synctest.Wait()
				var got string
				for _, n := range x.told() {
					got = string(n.Kind)
					for _, rc := range n.Recipients {
						got += " " + rc.Address
					}
				}
				if got != tt.want || len(r.files()) != 0 {
					t.Errorf("notices %q, want %q; files %v", got, tt.want, r.files())
				}
			})
		})
	}
}

func TestRetriesGrow(t *testing.T) {
	script := make([]step, 8)
	for i := range script {
		script[i] = step{err: temporary}
	}
	x := newExchange(script...)
	bubble(t, x, Options{}, func(r *rig) {
		if _, err := r.submit(10 * time.Second); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if len(x.called()) != 9 || x.total() != 1 {
			t.Fatalf("%d attempts, %d sent", len(x.called()), x.total())
		}
		for i := 1; i < len(x.called()); i++ {
			want := retryWaits[min(i-1, len(retryWaits)-1)]
			if got := x.called()[i].Sub(x.called()[i-1]); got < want || got > want+want/9 {
				t.Errorf("wait %d is %v, want about %v", i, got, want)
			}
		}
	})
}

func TestRetryAfterIsObeyed(t *testing.T) {
	x := newExchange(
		step{err: &Error{Outcome: Temporary, RetryAfter: 7 * time.Minute}},
		step{err: &Error{Outcome: Temporary, RetryAfter: 3 * time.Second, Uncounted: true}})
	bubble(t, x, Options{}, func(r *rig) {
		id, _ := r.submit(10 * time.Second)
		time.Sleep(8 * time.Minute)
		synctest.Wait()
		if len(x.called()) != 3 || x.called()[1].Sub(x.called()[0]) < 7*time.Minute || x.called()[2].Sub(x.called()[1]) > 4*time.Second {
			t.Errorf("attempts at %v", x.called())
		}
		if s := r.row(id); s.Attempts != 2 {
			t.Errorf("%d attempts counted", s.Attempts)
		}
	})
}

func TestLifetimeEnds(t *testing.T) {
	x := newExchange(slices.Repeat([]step{{err: temporary}}, 1000)...)
	bubble(t, x, Options{Lifetime: 2 * time.Hour}, func(r *rig) {
		id, err := r.submit(0)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2*time.Hour - time.Second)
		synctest.Wait()
		if early := x.told(); len(early) != 0 {
			t.Errorf("too early: %v", early)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if len(x.told()) != 1 || x.told()[0].Status != "4.4.7" || r.row(id).State != store.StateBounced {
			t.Errorf("notices %+v, row %+v", x.told(), r.row(id))
		}
	})
}

// Each way an attempt can end unclearly, with the copy visible at once, late or never.
func TestUnclearIsSentOnce(t *testing.T) {
	for _, tt := range []struct {
		name   string
		script []step
		calls  int
		within time.Duration
	}{
		{"arrived, seen at once", []step{{err: unclear, arrives: true}}, 1, 3 * time.Second},
		{"arrived, seen late", []step{{err: unclear, arrives: true, hidden: 1}}, 1, 8 * time.Second},
		{"did not arrive", []step{{err: unclear}}, 2, 2 * time.Minute},
		{"did not arrive, as its answer said", []step{{err: unlikely}}, 2, 20 * time.Second},
		{"twice unclear", []step{{err: unclear}, {err: unclear, arrives: true}}, 2, 2*time.Minute + 3*time.Second},
		{"then throttled", []step{{err: unclear}, {err: temporary}}, 3, 5 * time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := newExchange(tt.script...)
			bubble(t, x, Options{}, func(r *rig) {
				id, err := r.submit(10 * time.Second)
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(tt.within)
				synctest.Wait()
				if x.total() != 1 || len(x.called()) != tt.calls || r.row(id).State != store.StateSent {
					t.Errorf("sent %d times in %d calls, state %s, looks %d", x.total(), len(x.called()), r.row(id).State, x.looked())
				}
			})
		})
	}
}

// While the mailbox cannot be searched, nothing is sent again.
func TestNoSecondSendWithoutLooking(t *testing.T) {
	x := newExchange(step{err: unclear, arrives: true})
	x.findErr = temporary
	bubble(t, x, Options{}, func(r *rig) {
		id, _ := r.submit(10 * time.Second)
		time.Sleep(time.Hour)
		synctest.Wait()
		x.mu.Lock()
		x.findErr = nil
		x.mu.Unlock()
		time.Sleep(time.Hour)
		synctest.Wait()
		if x.total() != 1 || len(x.called()) != 1 || r.row(id).State != store.StateSent {
			t.Errorf("sent %d, calls %d, %s", x.total(), len(x.called()), r.row(id).State)
		}
	})
}

func TestClientDoesNotWaitForPace(t *testing.T) {
	x := newExchange()
	x.delay = 40 * time.Second
	bubble(t, x, Options{}, func(r *rig) {
		start := time.Now()
		if _, err := r.submit(10 * time.Second); err != nil || time.Since(start) != 0 {
			t.Fatalf("%v after %v", err, time.Since(start))
		}
		if x.total() != 0 {
			t.Error("sent against the pace")
		}
		x.mu.Lock()
		x.delay = 0
		x.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		if x.total() != 1 {
			t.Errorf("sent %d", x.total())
		}
	})
}

func TestWaitEnds(t *testing.T) {
	x := newExchange()
	bubble(t, x, Options{}, func(r *rig) {
		x.block = make(chan struct{})
		start := time.Now()
		if _, err := r.submit(10 * time.Second); err != nil || time.Since(start) != 10*time.Second {
			t.Fatalf("%v after %v", err, time.Since(start))
		}
		close(x.block)
		synctest.Wait()
		if x.total() != 1 {
			t.Errorf("sent %d", x.total())
		}
	})
}

// One mailbox with much to send, or one that hangs, does not hold up another.
func TestMailboxesAreApart(t *testing.T) {
	x := newExchange()
	bubble(t, x, Options{Total: 6}, func(r *rig) {
		block := make(chan struct{})
		x.block = block
		for range 20 {
			r.submit(0)
		}
		synctest.Wait()
		x.mu.Lock()
		x.block = nil
		x.mu.Unlock()
		if _, err := r.submit(10*time.Second, func(s *store.Submission) { s.Mailbox = "other@x" }); err != nil {
			t.Fatal(err)
		}
		if x.total() != 1 || x.atOnce("a@x") != 4 {
			t.Errorf("sent %d, at once %v", x.total(), x.atOnce("a@x"))
		}
		close(block)
		synctest.Wait()
		if x.total() != 21 {
			t.Errorf("sent %d", x.total())
		}
	})
}

// What one run leaves, the next one takes up; order and counts survive.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		x := newExchange(step{err: temporary})
		r := openRig(t, dir, x, Options{})
		first, _ := r.submit(10 * time.Second)
		x.mu.Lock()
		x.block = make(chan struct{})
		x.mu.Unlock()
		second, _ := r.submit(0) // running when we stop
		synctest.Wait()
		r.stop()

		if err := os.WriteFile(filepath.Join(dir, "spool", "stray.tmp"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "spool", "orphan.eml"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		y := newExchange()
		r = openRig(t, dir, y, Options{})
		if f := r.files(); len(f) != 2 || slices.ContainsFunc(f, func(s string) bool { return strings.Contains(s, "stray") || strings.Contains(s, "orphan") }) {
			t.Errorf("files after the start: %v", f)
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if y.sent[first] != 1 || y.sent[second] != 1 || len(y.finds) != len(lookWaits) {
			t.Errorf("sent %v, looks %d", y.sent, len(y.finds))
		}
		r.stop()
	})
}

func TestSubmitBeforeAndAfterRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		x := newExchange()
		st, err := store.Open(t.Context(), store.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		q, err := New(Options{Store: st.Outbox(), Sender: x})
		if err != nil {
			t.Fatal(err)
		}
		r := &rig{t: t, x: x, st: st, q: q}
		if _, err := r.submit(10 * time.Second); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- q.Run(ctx) }()
		synctest.Wait()
		if x.total() != 1 {
			t.Errorf("sent %d", x.total())
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		id, err := r.submit(10 * time.Second)
		if err != nil || r.row(id).State != store.StateQueued {
			t.Errorf("%v %v", err, r.row(id))
		}
		st.Close()
	})
}

func TestMissingFile(t *testing.T) {
	x := newExchange(step{err: temporary})
	bubble(t, x, Options{}, func(r *rig) {
		id, _ := r.submit(10 * time.Second)
		os.Remove(r.q.path(id + spoolSuffix))
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := r.row(id); s.State != store.StateBounced || len(x.told()) != 1 {
			t.Errorf("%+v, notices %v", s, x.told())
		}
	})
}

func TestHeldIsLeftAlone(t *testing.T) {
	x := newExchange(step{err: temporary})
	bubble(t, x, Options{}, func(r *rig) {
		id, _ := r.submit(10 * time.Second)
		r.q.update(r.t.Context(), "held", id, func(s *store.Submission) { s.State = store.StateHeld })
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(x.called()) != 1 {
			t.Errorf("%d attempts", len(x.called()))
		}
	})
}

func TestPrune(t *testing.T) {
	x := newExchange()
	bubble(t, x, Options{Keep: 24 * time.Hour}, func(r *rig) {
		id, _ := r.submit(10 * time.Second)
		time.Sleep(26 * time.Hour)
		synctest.Wait()
		if _, err := r.st.Outbox().Get(r.t.Context(), id); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("row of yesterday: %v", err)
		}
	})
}

func TestIDsSort(t *testing.T) {
	a := newID(time.UnixMilli(1_700_000_000_000))
	b := newID(time.UnixMilli(1_700_000_000_001))
	now := time.Now()
	first, second := newID(now), newID(now)
	if a >= b || len(a) != 16 || first == second {
		t.Errorf("%s %s", a, b)
	}
}
