package backend

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend/graphsim"
	"postern/backend/store"
	"postern/internal/faultrun"
)

// virtual runs a backend with one mailbox of ten messages on virtual time.
func virtual(t *testing.T, poll time.Duration, do func(t *testing.T, sim *graphsim.Sim, b *Backend, a *Account)) {
	virtualSim(t, graphsim.Options{EmptyPageEvery: -1}, poll, do)
}

// virtualSim is virtual with options for the simulator.
func virtualSim(t *testing.T, opts graphsim.Options, poll time.Duration, do func(t *testing.T, sim *graphsim.Sim, b *Backend, a *Account)) {
	synctest.Test(t, func(t *testing.T) {
		sim := graphsim.New(opts)
		sim.AddTenant("6d5f3f6e-0000-4000-8000-000000000000", testTenant)
		sim.AddApp(testTenant, testApp, testSecret, "Mail.ReadWrite", "Mail.Send")
		sim.AddUser(testTenant, graphsim.UserSpec{UPN: alice})
		for i := range 10 {
			sim.AddMessage(alice, "inbox", mail(i), graphsim.MessageSpec{})
		}
		cfg := testConfig(t, "http://graph.example", t.TempDir())
		cfg.Mailboxes = cfg.Mailboxes[:1]
		cfg.Poll = poll
		cfg.HTTPClient = &http.Client{Transport: inProcess{sim}}
		b, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { b.Run(ctx); close(done) }()
		defer func() {
			cancel()
			<-done
			b.Close()
		}()
		do(t, sim, b, accountOf(t, b, alice))
	})
}

// unsent returns the rows of the queue that are not settled.
func unsent(t *testing.T, b *Backend) []store.Submission {
	t.Helper()
	rows, err := b.store.Outbox().List(t.Context(), store.Filter{States: []store.State{store.StateQueued, store.StateSending, store.StateUnclear}})
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func arrivals(sim *graphsim.Sim) map[string]int {
	n := make(map[string]int)
	for _, d := range sim.Delivered() {
		n[d.MessageID]++
	}
	return n
}

// An hour without Microsoft, of whatever kind: mailboxes are read and marked from the replica, mail is taken, the service is not
// pestered, and afterwards everything is done by itself: each message has left once, the marks are in Graph, new mail is seen.
func TestOutage(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault graphsim.Fault
		calls int // at most, in the hour
	}{
		{"503", graphsim.Fault{Path: `/v1\.0/`, Status: 503}, 600},
		{"500 after the effect", graphsim.Fault{Path: `/v1\.0/.*/send(Mail)?$`, Status: 500, AfterEffect: true}, 2000},
		{"429 without Retry-After", graphsim.Fault{Path: `/v1\.0/`, Status: 429, Code: "ApplicationThrottled"}, 1000},
		{"429 with a long Retry-After", graphsim.Fault{Path: `/v1\.0/`, Status: 429, Code: "ApplicationThrottled", RetryAfter: "300"}, 60},
		{"truncated", graphsim.Fault{Path: `/v1\.0/`, TruncateBody: true}, 1000},
		{"slow", graphsim.Fault{Path: `/v1\.0/`, Delay: 40 * time.Second}, 600},
		{"hanging", graphsim.Fault{Path: `/v1\.0/`, Delay: 20 * time.Minute, Status: 504}, 600},
		{"no token", graphsim.Fault{Path: `oauth2`, Status: 503}, 200},
		{"token refused", graphsim.Fault{Path: `/v1\.0/`, TokenExpired: true}, 600},
	} {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, 5*time.Second, func(t *testing.T, sim *graphsim.Sim, b *Backend, a *Account) {
				m, err := a.Open(t.Context(), "INBOX", false)
				if err != nil {
					t.Fatal(err)
				}
				defer m.Close()
				time.Sleep(10 * time.Minute)
				if strings.Contains(tt.fault.Path, "oauth2") {
					time.Sleep(time.Hour) // the token is used up sooner or later
				}
				inject(t, sim, tt.fault)
				if tt.name == "no token" {
					inject(t, sim, graphsim.Fault{Path: `/v1\.0/`, TokenExpired: true})
				}
				sim.ResetRequests()
				accepted := 0
				for i := range 12 {
					text := fmt.Sprintf("From: %s\r\nTo: x@fabrikam.example\r\nSubject: during %d\r\nMessage-ID: <during.%d@contoso.example>\r\n\r\nhello\r\n", alice, i, i)
					began := time.Now()
					if _, err := submit(t, b, loginOf(t, b, alice), envelope("x@fabrikam.example"), text); err != nil {
						t.Errorf("submission %d: %v", i, err)
					}
					accepted++
					if d := time.Since(began); d > 2*time.Second {
						t.Errorf("submission %d took %s, the wait is 1 s", i, d)
					}
					if _, err := m.Store(t.Context(), []imap.UID{imap.UID(i%10 + 1)}, StoreAdd, []imap.Flag{imap.FlagFlagged}, 0); err != nil {
						t.Errorf("store %d: %v", i, err)
					}
					began = time.Now()
					if err := m.Refresh(t.Context()); err != nil {
						t.Errorf("NOOP: %v", err)
					}
					if d := time.Since(began); d > 5*time.Second {
						t.Errorf("NOOP took %s", d)
					}
					time.Sleep(5 * time.Minute)
				}
				if st, err := a.Status(t.Context(), "INBOX"); err != nil || st.Messages != 10 {
					t.Errorf("status = %+v, %v", st, err)
				}
				calls := sim.CountRequests(nil)
				if calls > tt.calls {
					t.Errorf("%d requests in the hour, want at most %d", calls, tt.calls)
				}
				sim.ClearFaults()
				sim.DeliverMessage(alice, mail(77))
				time.Sleep(35 * time.Minute) // the longest wait of the queue is half an hour
				if left := unsent(t, b); len(left) != 0 {
					t.Errorf("%d messages wait, the first: %+v", len(left), left[0])
				}
				got := arrivals(sim)
				for i := range accepted {
					if n := got[fmt.Sprintf("<during.%d@contoso.example>", i)]; n != 1 {
						t.Errorf("message %d arrived %d times", i, n)
					}
				}
				if n := len(m.UIDs()); n != 11 {
					t.Errorf("%d messages are seen, want the new one too", n)
				}
				flagged := 0
				for _, msg := range sim.Messages(alice, "inbox") {
					if msg.Flagged {
						flagged++
					}
				}
				if flagged != 10 {
					t.Errorf("%d marks are in Graph, want 10", flagged)
				}
				if n := len(sim.Messages(alice, "drafts")); n != 0 {
					t.Errorf("%d drafts are left", n)
				}
				if st := a.State(); st.LastError != "" {
					t.Errorf("state = %+v", st)
				}
				t.Logf("%d requests in the hour", calls)
			})
		})
	}
}

// One trouble after another for hours: Graph or its sign-in away, slow, throttling, cutting answers off, forgetting its delta links, and
// doing what it says it has not done. Meanwhile a client marks, moves and sends, and so does another program; in calm hours in between, and in the end, all is as
// it was said: each message has left once, marks and moves are in Graph, what the other program did is seen, UIDs and UIDVALIDITY are what they were.
func TestTroubleAtRandom(t *testing.T) {
	seed := faultrun.Seed(t, 9)
	end := time.Now().Add(faultrun.Length(t, 0)) // the clock of the machine; in the bubble it is another
	rounds := func(round int) bool { return round < 1 || time.Now().Before(end) }
	for round := 0; rounds(round); round++ {
		rnd := rand.New(rand.NewPCG(seed, uint64(round)))
		virtualSim(t, graphsim.Options{SentItemsDelay: time.Duration(rnd.IntN(15)) * time.Second}, 30*time.Second, func(t *testing.T, sim *graphsim.Sim, b *Backend, a *Account) {
			troubled(t, sim, b, a, rnd)
		})
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
}

func trouble(rnd *rand.Rand) []graphsim.Fault {
	one := graphsim.Fault{Path: `/v1\.0/`, Seed: rnd.Uint64(), Probability: []float64{0.1, 0.5, 1}[rnd.IntN(3)]}
	switch rnd.IntN(12) {
	case 0:
		one.Status = 503
	case 1:
		one.Status, one.Code = 429, "ApplicationThrottled" // without Retry-After
	case 2:
		one.Status, one.Code, one.RetryAfter = 429, "ApplicationThrottled", strconv.Itoa(1+rnd.IntN(400))
	case 3:
		one.TruncateBody = true
	case 4:
		one.Delay = time.Duration(1+rnd.IntN(50)) * time.Second
	case 5:
		one.Delay, one.Status = 20*time.Minute, 504
	case 6:
		one.Path, one.ResetDelta = "delta", true
	case 7:
		one.Path, one.Status, one.AfterEffect = `/send(Mail)?$`, []int{500, 503, 504}[rnd.IntN(3)], true
	case 8:
		one.Path, one.DropAfter = `/send(Mail)?$|/move$|batch$`, true
	case 9:
		one.DropBefore = true
	case 10:
		one.TokenExpired = true
	default:
		token := graphsim.Fault{Path: "oauth2", Status: 503}
		one.TokenExpired, one.Probability = true, 1
		return []graphsim.Fault{token, one}
	}
	return []graphsim.Fault{one}
}

func troubled(t *testing.T, sim *graphsim.Sim, b *Backend, a *Account, rnd *rand.Rand) {
	m, err := a.Open(t.Context(), "INBOX", false)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	archive, err := a.Open(t.Context(), "Archive", false)
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	time.Sleep(5 * time.Minute)
	valid := [2]uint32{m.UIDValidity(), archive.UIDValidity()}
	flagged := make(map[imap.UID]bool)
	sent, delivered, moved := 0, 0, 0
	for hour := range 6 {
		for _, f := range trouble(rnd) {
			inject(t, sim, f)
		}
		for range 6 {
			text := fmt.Sprintf("From: %s\r\nTo: x@fabrikam.example\r\nSubject: s\r\nMessage-ID: <trouble.%d@contoso.example>\r\n\r\nhello\r\n", alice, sent)
			if _, err := submit(t, b, loginOf(t, b, alice), envelope("x@fabrikam.example"), text); err != nil {
				t.Errorf("submission: %v", err)
			}
			sent++
			uids := m.UIDs()
			if uid := uids[rnd.IntN(len(uids))]; !flagged[uid] {
				if _, err := m.Store(t.Context(), []imap.UID{uid}, StoreAdd, []imap.Flag{imap.FlagFlagged, "Mine"}, 0); err != nil {
					t.Errorf("store: %v", err)
				}
				flagged[uid] = true
			}
			if rnd.IntN(2) == 0 {
				uid := uids[rnd.IntN(len(uids))]
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				if res, err := m.Move(ctx, []imap.UID{uid}, "Archive"); err == nil && len(res.Source) == 1 {
					moved++
					delete(flagged, uid)
				}
				cancel()
			}
			if rnd.IntN(2) == 0 {
				sim.DeliverMessage(alice, mail(100+delivered))
				delivered++
			}
			if list := sim.Messages(alice, "inbox"); rnd.IntN(2) == 0 && len(list) > 0 {
				sim.UpdateMessage(alice, list[rnd.IntN(len(list))].ID, graphsim.Change{IsRead: new(rnd.IntN(2) == 0)})
			}
			time.Sleep(time.Duration(rnd.IntN(20)) * time.Minute)
		}
		if hour%2 == 1 {
			sim.ClearFaults()
			time.Sleep(time.Hour)
		}
	}
	sim.ClearFaults()
	time.Sleep(2 * time.Hour) // longer than anything waits
	if left := unsent(t, b); len(left) != 0 {
		t.Errorf("%d messages wait, the first: %+v", len(left), left[0])
	}
	got := arrivals(sim)
	for i := range sent {
		if n := got[fmt.Sprintf("<trouble.%d@contoso.example>", i)]; n != 1 {
			t.Errorf("message %d arrived %d times", i, n)
		}
	}
	if m.UIDValidity() != valid[0] || archive.UIDValidity() != valid[1] {
		t.Errorf("UIDVALIDITY was %d, is %d and %d", valid, m.UIDValidity(), archive.UIDValidity())
	}
	inGraph := 0
	for folder, m := range map[string]*Mailbox{"inbox": m, "archive": archive} {
		list := sim.Messages(alice, folder)
		inGraph += len(list)
		if len(list) != len(m.UIDs()) {
			t.Errorf("%s has %d messages, clients see %d", folder, len(list), len(m.UIDs()))
		}
		marks, read := 0, 0
		for _, uid := range m.UIDs() {
			if flags := flagsOf(m, uid); strings.Contains(flags, "Mine") {
				marks++
			}
			if strings.Contains(flagsOf(m, uid), `\Seen`) {
				read++
			}
		}
		for _, msg := range list {
			if slices.Contains(msg.Categories, "Mine") {
				marks--
				if !msg.Flagged {
					t.Errorf("%s is not flagged in Graph", msg.MessageID)
				}
			}
			if msg.IsRead {
				read--
			}
		}
		if marks != 0 || read != 0 {
			t.Errorf("%s: clients see %+d marks and %+d read messages more than Graph has", folder, marks, read)
		}
	}
	if want := 10 + delivered; inGraph != want {
		t.Errorf("%d messages in both folders, want %d", inGraph, want)
	}
	for uid := range flagged {
		if f := flagsOf(m, uid); f != "gone" && !strings.Contains(f, "Mine") {
			t.Errorf("the mark of UID %d is lost: %s", uid, f)
		}
	}
	if n := len(sim.Messages(alice, "drafts")); n != 0 {
		t.Errorf("%d drafts are left", n)
	}
	if st := a.State(); st.LastError != "" {
		t.Errorf("state = %+v", st)
	}
	t.Logf("%d sent, %d delivered, %d moved, %d marked", sent, delivered, moved, len(flagged))
}

// How long a message that was perhaps sent is looked for before it is sent again depends on how its sending ended: where Graph gave
// no answer it may have left, and its copy may come late.
func TestRepeatOfUnclearSend(t *testing.T) {
	const soon, patient = 25 * time.Second, 125 * time.Second
	for _, tt := range []struct {
		name   string
		fault  graphsim.Fault
		filed  time.Duration // how long Exchange takes to file a copy
		within time.Duration // it has arrived
		after  time.Duration // but not before
	}{
		{"503", graphsim.Fault{Status: 503}, 0, soon, 15 * time.Second},
		{"200, and nothing sent", graphsim.Fault{Status: 200, EmptyBody: true}, 0, soon, 15 * time.Second},
		{"504", graphsim.Fault{Status: 504}, 0, patient, time.Minute},
		{"504, and sent", graphsim.Fault{Status: 504, AfterEffect: true}, 90 * time.Second, time.Second, 0},
		{"500, and sent", graphsim.Fault{Status: 500, AfterEffect: true}, 30 * time.Second, time.Second, 0},
		{"answer lost", graphsim.Fault{DropAfter: true}, 100 * time.Second, time.Second, 0},
		{"connection lost, and not sent", graphsim.Fault{DropBefore: true}, 0, patient, time.Minute},
		{"no answer for minutes, and sent", graphsim.Fault{Delay: 20 * time.Minute, AfterEffect: true, Status: 504}, 0, 20 * time.Minute, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			opts := graphsim.Options{EmptyPageEvery: -1, SentItemsDelay: tt.filed}
			virtualSim(t, opts, time.Minute, func(t *testing.T, sim *graphsim.Sim, b *Backend, a *Account) {
				time.Sleep(time.Minute)
				tt.fault.Path, tt.fault.Times = "/send(Mail)?$", 1
				inject(t, sim, tt.fault)
				began := time.Now()
				if _, err := submit(t, b, loginOf(t, b, alice), envelope("x@fabrikam.example"),
					"From: "+alice+"\r\nTo: x@fabrikam.example\r\nSubject: perhaps\r\nMessage-ID: <perhaps@contoso.example>\r\n\r\nhello\r\n"); err != nil {
					t.Fatal(err)
				}
				for len(sim.Delivered()) == 0 && time.Since(began) < time.Hour {
					time.Sleep(time.Second)
				}
				if d := time.Since(began); d > tt.within+2*time.Second || d < tt.after {
					t.Errorf("arrived after %s, want %s to %s", d, tt.after, tt.within)
				}
				time.Sleep(time.Hour)
				if left := unsent(t, b); len(left) != 0 {
					t.Errorf("still there: %+v", left)
				}
				if n := len(sim.Delivered()); n != 1 {
					t.Errorf("arrived %d times", n)
				}
			})
		})
	}
}

// After an outage new mail is seen soon, not after the longest wait of the outage.
func TestOutageEndIsSeen(t *testing.T) {
	virtual(t, 5*time.Second, func(t *testing.T, sim *graphsim.Sim, b *Backend, a *Account) {
		m, err := a.Open(t.Context(), "INBOX", false)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		time.Sleep(time.Minute)
		inject(t, sim, graphsim.Fault{Path: `/v1\.0/`, Status: 503})
		time.Sleep(time.Hour)
		sim.ClearFaults()
		sim.DeliverMessage(alice, mail(50))
		began := time.Now()
		for len(m.UIDs()) == 10 && time.Since(began) < time.Hour {
			time.Sleep(time.Second)
		}
		t.Logf("seen after %s", time.Since(began))
		if d := time.Since(began); d > 6*time.Minute {
			t.Errorf("a message that came after the outage was seen after %s", d)
		}
	})
}

// Every delta link is void at once, each time: mail is seen all the same, UIDs stay, and it does not cost more than a listing each time.
func TestDeltaAlwaysGone(t *testing.T) {
	virtual(t, 5*time.Second, func(t *testing.T, sim *graphsim.Sim, b *Backend, a *Account) {
		m, err := a.Open(t.Context(), "INBOX", false)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		time.Sleep(time.Minute)
		before := slices.Clone(m.UIDs())
		valid := m.UIDValidity()
		inject(t, sim, graphsim.Fault{Path: "delta", ResetDelta: true})
		sim.ResetRequests()
		since := m.HighestModSeq()
		old := sim.Messages(alice, "inbox")[0].ID
		sim.DeliverMessage(alice, mail(60))
		sim.DeleteMessage(alice, old, true)
		time.Sleep(30 * time.Minute)
		if n := sim.CountRequests(nil); n > 1500 {
			t.Errorf("%d requests in half an hour", n)
		} else {
			t.Logf("%d requests in half an hour", n)
		}
		if ch := m.Changes(since); len(ch.Added) != 1 || len(ch.Removed) != 1 {
			t.Errorf("changes = %+v, want one message more and one less", ch)
		}
		after := m.UIDs()
		if m.UIDValidity() != valid || len(after) != 10 {
			t.Errorf("UIDVALIDITY was %d, is %d; %d messages", valid, m.UIDValidity(), len(after))
		}
		for _, uid := range after {
			if uid <= before[len(before)-1] && !slices.Contains(before, uid) {
				t.Errorf("UID %d is new among the old ones", uid)
			}
		}
		sim.ClearFaults()
		sim.DeliverMessage(alice, mail(61))
		time.Sleep(10 * time.Minute)
		if len(m.UIDs()) != 11 {
			t.Errorf("%d messages when delta works again", len(m.UIDs()))
		}
	})
}

// The clock is set, while the server is down, or backwards while it runs: backwards, so that all times of the state folder lie ahead, or forwards, by hours or by the
// years that a machine without a clock of its own is behind until it has asked for the time. Mail that waits leaves, new mail is seen, UIDVALIDITY grows.
func TestClockSet(t *testing.T) {
	const day = 24 * time.Hour
	jumps := []time.Duration{-400 * day, -2 * time.Hour, 30 * time.Hour, 20 * 365 * day}
	rnd := rand.New(rand.NewPCG(faultrun.Seed(t, 1), 5))
	end := time.Now().Add(faultrun.Length(t, 0))
	for i := 0; i < len(jumps) || time.Now().Before(end); i++ {
		jump := time.Duration(rnd.Int64N(int64(2000*day))) - 1000*day
		if i < len(jumps) {
			jump = jumps[i]
		}
		// Times in the table that lie behind are those of a server that was down, too: only the clock of the process tells.
		t.Run(jump.String(), func(t *testing.T) { setClock(t, jump, jump < 0 && i%2 == 1) })
	}
}

func setClock(t *testing.T, jump time.Duration, running bool) {
	quickly(t)
	sim, url := newSim(t, graphsim.Options{})
	for i := range 3 {
		sim.AddMessage(alice, "inbox", mail(i), graphsim.MessageSpec{})
	}
	inject(t, sim, graphsim.Fault{Path: "/send(Mail)?$", Status: 503, RetryAfter: "2"})
	cfg := testConfig(t, url, t.TempDir())
	b, stop := start(t, cfg)
	a := accountOf(t, b, alice)
	valid := open(t, a, "INBOX").UIDValidity()
	id, err := submit(t, b, loginOf(t, b, alice), envelope("x@fabrikam.example"), "From: "+alice+"\nTo: x@fabrikam.example\nMessage-ID: <clock@contoso.example>\n\nhello\n")
	if err != nil {
		t.Fatal(err)
	}
	if !running {
		stop()
	}
	sim.ClearFaults()
	shiftTimes(t, cfg.State, -jump) // as if they had been written by a clock that far ahead
	if !running {
		b, _ = start(t, cfg)
		a = accountOf(t, b, alice)
	}
	row := settledRow(t, b, id)
	if row.State != store.StateSent {
		t.Errorf("the message is %s: %s", row.State, row.LastError)
	}
	if n := len(sim.Delivered()); n != 1 {
		t.Errorf("it arrived %d times", n)
	}
	m := open(t, a, "INBOX")
	if m.UIDValidity() != valid {
		t.Errorf("UIDVALIDITY was %d, is %d", valid, m.UIDValidity())
	}
	sim.DeliverMessage(alice, mail(9))
	eventually(t, m, "new mail", func() bool { return len(m.UIDs()) == 4 })
	if err := a.Create(t.Context(), "Later", ""); err != nil {
		t.Fatal(err)
	}
	if v := open(t, a, "Later").UIDValidity(); v <= valid {
		t.Errorf("UIDVALIDITY of a new mailbox is %d, an older one has %d", v, valid)
	}
	if _, err := m.Body(t.Context(), 1); err != nil {
		t.Error(err)
	}
}

// shiftTimes moves all times of the queue by d.
func shiftTimes(t *testing.T, dir string, d time.Duration) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(dir, "outbox.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ms := d.Milliseconds()
	if _, err := db.Exec("UPDATE submissions SET next_attempt = next_attempt + ?, created = created + ?, updated = updated + ?, expires = expires + ?", ms, ms, ms, ms); err != nil {
		t.Fatal(err)
	}
}

// A link that is refused again and again, without the word that it is void, is given up: the folder is compared and keeps its UIDs,
// and so is the tree.
func TestRefusedLinks(t *testing.T) {
	for _, f := range []graphsim.Fault{
		{Status: 400, Code: "BadRequest", Message: "Badly formed token."},
		{Status: 404, Code: "ErrorItemNotFound"},
		{Status: 500, Code: "ErrorInternalServerError"},
	} {
		t.Run(f.Code, func(t *testing.T) {
			virtual(t, 5*time.Second, func(t *testing.T, sim *graphsim.Sim, b *Backend, a *Account) {
				m, err := a.Open(t.Context(), "INBOX", false)
				if err != nil {
					t.Fatal(err)
				}
				defer m.Close()
				time.Sleep(5 * time.Minute)
				before := slices.Clone(m.UIDs())
				sim.ResetRequests()
				time.Sleep(5 * time.Minute)
				tokens := make(map[string]bool)
				for _, r := range sim.Requests() {
					if _, token, ok := strings.Cut(r.Query, "deltatoken="); ok {
						tokens[token] = true
					}
				}
				if len(tokens) == 0 {
					t.Fatal("no link is in use")
				}
				for token := range tokens {
					f.Path = regexp.QuoteMeta(token) + "$"
					inject(t, sim, f)
				}
				sim.DeliverMessage(alice, mail(70))
				sim.AddFolder(alice, "", "New one")
				time.Sleep(25 * time.Minute)
				if sim.FaultsFired() == 0 {
					t.Fatal("no link was refused")
				}
				if after := m.UIDs(); len(after) != len(before)+1 || !slices.Equal(after[:len(before)], before) {
					t.Errorf("UIDs %v became %v", before, after)
				}
				boxes, err := a.Mailboxes(t.Context())
				if err != nil || !slices.ContainsFunc(boxes, func(i MailboxInfo) bool { return i.Name == "New one" }) {
					t.Errorf("the new folder is not seen: %v", err)
				}
			})
		})
	}
}
