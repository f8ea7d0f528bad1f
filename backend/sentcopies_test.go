package backend

import (
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend/graphsim"
	"postern/backend/message"
	"postern/backend/outbox"
	"postern/backend/store"
)

func fingerprint(t *testing.T, text string) string {
	t.Helper()
	r := strings.NewReader(text)
	ix, err := message.Parse(r, int64(len(text)))
	if err != nil {
		t.Fatal(err)
	}
	sum, err := message.Fingerprint(r, ix)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// The message of the tests below, as it is sent, and as the client files it.
const (
	onceSent = "From: alice@contoso.example\r\nTo: bob@contoso.example\r\nSubject: once\r\nDate: Mon, 02 Mar 2026 10:00:00 +0000\r\n" +
		"Message-ID: <once@contoso.example>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\ncaf\u00e9\r\n"
	onceFiled = "X-Client: yes\r\nBcc: secret@contoso.example\r\n" + onceSent
)

var onceEncoded = strings.NewReplacer("8bit", "quoted-printable", "caf\u00e9", "caf=C3=A9").Replace(onceFiled)

// exchangeCopies returns how many messages in a folder bear a submission's mark, and how many do not.
func exchangeCopies(sim *graphsim.Sim, folder string) (marked, others int) {
	for _, m := range sim.Messages(alice, folder) {
		if strings.Contains(string(sim.MIME(alice, m.ID)), markField+": ") {
			marked++
		} else {
			others++
		}
	}
	return marked, others
}

// oneCopy waits until the folder holds one message only, in Graph and for clients: Exchange's, under the client's UID and with the
// client's bytes.
func oneCopy(t *testing.T, sim *graphsim.Sim, m *Mailbox, uid imap.UID, text string) {
	t.Helper()
	a := m.account
	defer func() {
		if t.Failed() {
			copies, err := a.store.SentCopies(t.Context(), m.view.id, "<once@contoso.example>")
			dismissed, derr := a.store.DismissedMessages(t.Context(), a.id)
			marked, others := exchangeCopies(sim, "sentitems")
			t.Logf("in Graph %d and %d, clients see %v of %d, copies %+v (%v), dismissed %+v (%v)", marked, others, m.UIDs(), uid, copies, err, dismissed, derr)
		}
	}()
	eventually(t, nil, "one copy", func() bool {
		if err := a.syncer.RefreshNow(t.Context(), m.view.id); err != nil {
			t.Fatal(err)
		}
		marked, others := exchangeCopies(sim, "sentitems")
		return marked == 1 && others == 0 && len(m.UIDs()) == 1
	})
	if uids := m.UIDs(); !slices.Equal(uids, []imap.UID{uid}) {
		t.Fatalf("clients see %v, appended %d", uids, uid)
	}
	if got := readBody(t, m, uid); got != text {
		t.Errorf("read back %q", got)
	}
	if n := len(sim.Delivered()); n != 1 {
		t.Errorf("delivered %d times", n)
	}
}

// A client's own copy and Exchange's are one message, whichever comes first.
func TestSentCopyOnce(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		delay      time.Duration // of Exchange's copy
		order      string
	}{
		{"after", onceSent, 0, "submit append"},
		{"after, in flight", onceFiled, 700 * time.Millisecond, "submit append"},
		{"after, encoded otherwise", onceEncoded, 0, "submit append"},
		{"before", onceSent, 0, "append submit"},
		{"before, encoded otherwise", onceEncoded, 300 * time.Millisecond, "append submit"},
		{"while it waits", onceFiled, 0, "fail submit append heal"},
		{"before, twice", onceFiled, 0, "append submit wait append"},
		{"after, twice", onceFiled, 0, "submit append append"},
		{"before, over a restart", onceFiled, 0, "append restart submit"},
		{"while it waits, over a restart", onceFiled, 0, "fail submit append restart heal"},
		{"before, looked at in between", onceFiled, 0, "append flag submit"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			sim, url := newSim(t, graphsim.Options{SentItemsDelay: tt.delay})
			cfg := testConfig(t, url, t.TempDir())
			cfg.SendWait = 0
			b, stop := start(t, cfg)
			a := accountOf(t, b, alice)
			m := open(t, a, "Sent")
			var uid imap.UID
			flagged := false
			for _, step := range strings.Fields(tt.order) {
				switch step {
				case "fail":
					inject(t, sim, graphsim.Fault{Path: "/sendMail$", Status: 423})
				case "heal":
					sim.ClearFaults()
					if _, err := b.QueueAct(t.Context(), outboxRows(t, b)[0].ID, string(outbox.Retry), ""); err != nil {
						t.Fatal(err)
					}
				case "submit":
					if _, err := submit(t, b, loginOf(t, b, alice), envelope(bob), onceSent); err != nil {
						t.Fatal(err)
					}
					if !strings.Contains(tt.order, "fail") {
						break
					}
					eventually(t, nil, "a first attempt", func() bool {
						return outboxRows(t, b)[0].Attempts > 0 && outboxRows(t, b)[0].State != store.StateSending
					})
				case "append":
					got, err := appendMail(t, a, "Sent", []byte(tt.text), time.Time{}, imap.FlagSeen)
					if err != nil || got == 0 || uid != 0 && got != uid {
						t.Fatalf("append = %d, %v; before it was %d", got, err, uid)
					}
					uid = got
				case "flag":
					if _, err := m.Store(t.Context(), []imap.UID{uid}, StoreAdd, []imap.Flag{imap.FlagFlagged, "Kept"}, 0); err != nil {
						t.Fatal(err)
					}
					flagged = true
				case "wait":
					oneCopy(t, sim, m, uid, tt.text)
				case "restart":
					m.Close()
					stop()
					b, stop = start(t, cfg)
					a = accountOf(t, b, alice)
					m = open(t, a, "Sent")
				}
			}
			oneCopy(t, sim, m, uid, tt.text)
			if flagged {
				eventually(t, nil, "flags in Graph", func() bool {
					sent := sim.Messages(alice, "sentitems")[0]
					return sent.Flagged && sent.IsRead && slices.Equal(sent.Categories, []string{"Kept"})
				})
				if got := flagsOf(m, uid); got != `\Seen \Flagged Kept` {
					t.Errorf("flags = %q", got)
				}
			}
		})
	}
}

func outboxRows(t *testing.T, b *Backend) []store.Submission {
	t.Helper()
	rows, err := b.store.Outbox().List(t.Context(), store.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// What is not the client's copy of the message stays: another content under the same Message-ID, a copy in another folder, a copy
// that another program made, one of a message that was refused.
func TestSentCopyOthersStay(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	cfg := testConfig(t, url, t.TempDir())
	b, _ := start(t, cfg)
	a := accountOf(t, b, alice)
	m := open(t, a, "Sent")
	other := strings.Replace(onceFiled, "caf\u00e9", "without it", 1)
	for _, c := range []struct{ folder, text string }{{"Sent", other}, {"Archive", onceFiled}, {"Sent", onceFiled}} {
		if _, err := appendMail(t, a, c.folder, []byte(c.text), time.Time{}, imap.FlagSeen); err != nil {
			t.Fatal(err)
		}
	}
	sim.AddMessage(alice, "sentitems", []byte(onceFiled), graphsim.MessageSpec{IsRead: true})
	refused := strings.NewReplacer("once", "refused").Replace(onceSent)
	inject(t, sim, graphsim.Fault{Path: "/sendMail$", Times: 1, Status: 403, Code: "ErrorSendAsDenied"})
	uid, err := appendMail(t, a, "Sent", []byte(refused), time.Time{}, imap.FlagSeen)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := submit(t, b, loginOf(t, b, alice), envelope(bob), refused); err == nil {
		t.Fatal("not refused")
	}
	if _, err := submit(t, b, loginOf(t, b, alice), envelope(bob), onceSent); err != nil {
		t.Fatal(err)
	}
	eventually(t, nil, "the copy united", func() bool {
		if err := a.syncer.RefreshNow(t.Context(), m.view.id); err != nil {
			t.Fatal(err)
		}
		marked, others := exchangeCopies(sim, "sentitems")
		return marked == 1 && others == 3
	})
	if n := len(m.UIDs()); n != 4 {
		t.Errorf("clients see %d messages", n)
	}
	if got := readBody(t, m, uid); got != refused {
		t.Errorf("the copy of what was refused is %q", got)
	}
	if n := len(sim.Messages(alice, "archive")); n != 1 {
		t.Errorf("%d messages in the archive", n)
	}
	// An old message is filed: long after it was sent, so it is a copy of its own.
	justSent = -time.Minute
	defer func() { justSent = time.Hour }()
	again, err := appendMail(t, a, "Sent", []byte(onceSent), time.Time{}, imap.FlagSeen)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.syncer.RefreshNow(t.Context(), m.view.id); err != nil {
		t.Fatal(err)
	}
	if got := readBody(t, m, again); got != onceSent || len(m.UIDs()) != 5 {
		t.Errorf("clients see %d messages, the last is %q", len(m.UIDs()), got)
	}
}

// Exchange's copy has taken the place of the client's, which Graph does not remove for a while, also not before the server dies.
func TestSentCopyRemovalFails(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	cfg := testConfig(t, url, t.TempDir())
	b, stop := start(t, cfg)
	a := accountOf(t, b, alice)
	m := open(t, a, "Sent")
	uid, err := appendMail(t, a, "Sent", []byte(onceFiled), time.Time{}, imap.FlagSeen)
	if err != nil {
		t.Fatal(err)
	}
	inject(t, sim, graphsim.Fault{Path: "/permanentDelete$", Status: 503})
	if _, err := submit(t, b, loginOf(t, b, alice), envelope(bob), onceSent); err != nil {
		t.Fatal(err)
	}
	eventually(t, nil, "united", func() bool {
		if err := a.syncer.RefreshNow(t.Context(), m.view.id); err != nil {
			t.Fatal(err)
		}
		list, err := b.store.DismissedMessages(t.Context(), a.id)
		return err == nil && len(list) == 1
	})
	if marked, others := exchangeCopies(sim, "sentitems"); marked != 1 || others != 1 {
		t.Fatalf("%d and %d messages in Graph", marked, others)
	}
	if uids := m.UIDs(); !slices.Equal(uids, []imap.UID{uid}) {
		t.Errorf("clients see %v", uids)
	}
	m.Close()
	stop()
	sim.ResetDelta(alice, "sentitems") // all of it is listed anew
	b, _ = start(t, cfg)
	m = open(t, accountOf(t, b, alice), "Sent")
	if err := m.account.syncer.RefreshNow(t.Context(), m.view.id); err != nil {
		t.Fatal(err)
	}
	if uids := m.UIDs(); !slices.Equal(uids, []imap.UID{uid}) {
		t.Errorf("clients see %v after the restart", uids)
	}
	sim.ClearFaults()
	oneCopy(t, sim, m, uid, onceFiled)
}

// TestSentCopyDeath lets the server die before and after each request to Graph and each change of the queue, with the client's copy
// stored before sending. The next server brings it to one copy.
func TestSentCopyDeath(t *testing.T) {
	var deaths sync.Map
	adjustOutbox = func(o *outbox.Options) {
		o.Retries = []time.Duration{10 * time.Millisecond}
		o.Looks = []time.Duration{5 * time.Millisecond, 10 * time.Millisecond}
		o.Grace = time.Millisecond
		if d, ok := deaths.LoadAndDelete(filepath.Dir(o.Store.SpoolDir())); ok {
			o.Step = d.(*death).step
		}
	}
	t.Cleanup(func() { adjustOutbox = nil })
	for at := range 16 {
		t.Run(strconv.Itoa(at), func(t *testing.T) {
			t.Parallel()
			d := &death{at: at, later: true, dead: make(chan struct{})}
			dir := t.TempDir()
			deaths.Store(dir, d)
			dieWithCopy(t, d, dir)
			if t.Failed() || !d.isDead() {
				t.Logf("%d steps: %s", len(d.steps), strings.Join(d.steps, ", "))
			}
			if at < 12 && !d.isDead() {
				t.Error("that cannot be all")
			}
		})
	}
}

func dieWithCopy(t *testing.T, d *death, dir string) {
	t.Helper()
	sim, url := newSim(t, graphsim.Options{})
	cfg := testConfig(t, url, dir)
	cfg.SendWait, cfg.Poll = time.Second, 20*time.Millisecond
	healthy := cfg.HTTPClient
	d.next = healthy.Transport
	cfg.HTTPClient = &http.Client{Transport: d}
	b, stop := start(t, cfg)
	a := accountOf(t, b, alice)
	m := open(t, a, "Sent")
	d.begin()
	uid, err := appendMail(t, a, "Sent", []byte(onceFiled), time.Time{}, imap.FlagSeen)
	appended, submitted := err == nil, false
	if appended {
		_, err = submit(t, b, loginOf(t, b, alice), envelope(bob), onceSent)
		submitted = err == nil
	}
	done := func() bool {
		marked, others := exchangeCopies(sim, "sentitems")
		return marked == 1 && others == 0
	}
	eventually(t, nil, "dealt with", func() bool { return d.isDead() || done() })
	m.Close()
	stop()

	cfg.HTTPClient = healthy
	b, stop = start(t, cfg)
	defer stop()
	a = accountOf(t, b, alice)
	m = open(t, a, "Sent")
	defer m.Close()
	if !appended {
		// The client was not told that it is stored, so it does so again; what the first server made may be there too.
		if uid, err = appendMail(t, a, "Sent", []byte(onceFiled), time.Time{}, imap.FlagSeen); err != nil {
			t.Fatal(err)
		}
	}
	if !submitted {
		if _, err = submit(t, b, loginOf(t, b, alice), envelope(bob), onceSent); err != nil {
			t.Fatal(err)
		}
	}
	if appended {
		oneCopy(t, sim, m, uid, onceFiled)
		return
	}
	eventually(t, nil, "united", func() bool {
		if err := a.syncer.RefreshNow(t.Context(), m.view.id); err != nil {
			t.Fatal(err)
		}
		marked, others := exchangeCopies(sim, "sentitems")
		return marked == 1 && others <= 1
	})
	if got := readBody(t, m, uid); got != onceFiled {
		t.Errorf("read back %q", got)
	}
}

func isPageOfChanges(r graphsim.Request) bool {
	return strings.HasSuffix(r.Template, "/messages/delta")
}

// A client's copy that was stored before the message was sent, or while Exchange's did not come, is not shown beside Exchange's for
// long, also where nobody has Sent open; and it costs little to see that.
func TestSentCopyComesLate(t *testing.T) {
	for _, tt := range []struct {
		name   string
		after  bool // the client stores its copy after sending
		delay  time.Duration
		within time.Duration // of Exchange's copy
		rounds int           // of Sent, in the minute after it
	}{
		{"at once", false, 0, time.Second, 2},
		{"1 s", false, time.Second, 2 * time.Second, 3},
		{"6 s", false, 6 * time.Second, 2 * time.Second, 4},
		{"18 s", false, 18 * time.Second, 2 * time.Second, 5},
		{"47 s", false, 47 * time.Second, 3 * time.Second, 6},
		{"stored after sending, 23 s", true, 23 * time.Second, 5 * time.Second, 6},
	} {
		t.Run(tt.name, func(t *testing.T) {
			virtualSim(t, graphsim.Options{EmptyPageEvery: -1, SentItemsDelay: tt.delay}, 5*time.Second, func(t *testing.T, sim *graphsim.Sim, b *Backend, a *Account) {
				m, err := a.Open(t.Context(), "Sent", false) // the client has looked at it once
				if err != nil {
					t.Fatal(err)
				}
				m.Close()
				time.Sleep(10 * time.Minute)
				store := func() {
					t.Helper()
					if _, err := appendMail(t, a, "Sent", []byte(onceFiled), time.Time{}, imap.FlagSeen); err != nil {
						t.Fatal(err)
					}
				}
				if !tt.after {
					store()
					time.Sleep(5 * time.Minute)
				}
				sim.ResetRequests()
				if _, err := submit(t, b, loginOf(t, b, alice), envelope(bob), onceSent); err != nil {
					t.Fatal(err)
				}
				filed := time.Now().Add(tt.delay)
				if tt.after {
					store()
				}
				one := func() bool {
					marked, others := exchangeCopies(sim, "sentitems")
					st, err := a.Status(t.Context(), "Sent")
					return err == nil && marked == 1 && others == 0 && st.Messages == 1
				}
				for !one() && time.Since(filed) < 10*time.Minute {
					time.Sleep(200 * time.Millisecond)
				}
				if d := time.Since(filed); d > tt.within {
					t.Errorf("both were there for %s", d)
				}
				time.Sleep(time.Until(filed.Add(time.Minute - tt.delay)))
				sent, err := b.store.Folder(t.Context(), m.view.id)
				if err != nil {
					t.Fatal(err)
				}
				rounds := sim.CountRequests(func(r graphsim.Request) bool {
					return isPageOfChanges(r) && strings.Contains(r.Path, strings.TrimRight(string(sent.GraphID), "="))
				})
				if rounds > tt.rounds || rounds == 0 {
					t.Errorf("%d rounds, want at most %d", rounds, tt.rounds)
				}
			})
		})
	}
}
