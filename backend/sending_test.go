package backend

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"postern/backend/graphsim"
	"postern/backend/outbox"
	"postern/backend/store"
	"postern/backend/syncer"
	"postern/internal/fuzzcorpus"
)

// Aliases come from the directory where the app may read it, else from the configuration alone.
func TestAliases(t *testing.T) {
	for _, tt := range []struct {
		role string
		want bool
	}{{"User.Read.All", true}, {"Mail.Read", false}} {
		t.Run(tt.role, func(t *testing.T) {
			sim, url := newSim(t, graphsim.Options{})
			sim.AddApp(testTenant, testApp, testSecret, "Mail.ReadWrite", "Mail.Send", tt.role)
			sim.AddUser(testTenant, graphsim.UserSpec{UPN: "carol@contoso.example", Aliases: []string{"sales@contoso.example"}})
			cfg := testConfig(t, url, t.TempDir())
			cfg.Mailboxes = append(cfg.Mailboxes, MailboxConfig{Address: "carol@contoso.example", Credential: "contoso", Aliases: []string{"c@contoso.example"}})
			b, _ := start(t, cfg)
			login := loginOf(t, b, "carol@contoso.example")
			for range 3 {
				if err := b.CheckSender(login, "Sales@contoso.example"); (err == nil) != tt.want {
					t.Errorf("alias of the directory: %v", err)
				}
			}
			if err := b.CheckSender(login, "c@contoso.example"); err != nil {
				t.Errorf("alias of the configuration: %v", err)
			}
			err := b.CheckSender(login, "other@contoso.example")
			if KindOf(err) != Denied || !strings.Contains(TextOf(err), "Send As") || !strings.Contains(TextOf(err), "send_as") {
				t.Errorf("stranger: %v", err)
			}
			asked := sim.CountRequests(func(r graphsim.Request) bool { return r.Template == "/v1.0/users/{u}" })
			if asked != 1 {
				t.Errorf("the directory was asked %d times", asked)
			}
		})
	}
}

// Where no copy is wanted it is removed from Sent Items, and nothing else with the same mark or Message-ID.
func TestNoCopyInSentItems(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{SentItemsDelay: 100 * time.Millisecond})
	b, _ := start(t, testConfig(t, url, t.TempDir()))
	login := loginOf(t, b, alice)
	login.DropCopy = true
	text := "From: alice@contoso.example\nTo: alice@contoso.example\nSubject: to myself\nMessage-ID: <one@x>\n\nbody\n"
	sim.AddMessage(alice, "sentitems", []byte(strings.ReplaceAll(text, "\n", "\r\n")), graphsim.MessageSpec{IsRead: true})
	var many []string
	for i := range 501 {
		many = append(many, fmt.Sprintf("r%d@fabrikam.example", i))
	}
	many[0] = alice
	ids := []string{}
	for _, env := range []Envelope{envelope(alice), envelope(many...)} {
		id, err := submit(t, b, login, env, text)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	for _, id := range ids {
		settledRow(t, b, id)
		events, err := b.store.Outbox().Events(t.Context(), id)
		if err != nil || events[len(events)-1].What != "copy removed" {
			t.Errorf("log %v, %v", events, err)
		}
	}
	if sent := sim.Messages(alice, "sentitems"); len(sent) != 1 {
		t.Errorf("%d messages in Sent Items", len(sent))
	}
	if in := sim.Messages(alice, "inbox"); len(in) != 2 {
		t.Errorf("%d messages in the Inbox", len(in))
	}
	if b.sending(t.Context(), alice, "<one@x>", fingerprint(t, strings.ReplaceAll(text, "\n", "\r\n"))) != syncer.NotSending {
		t.Error("a client's own copy would be taken for the one that was removed")
	}
}

// A login may submit so many messages a minute, and the disk may get so full.
func TestLimits(t *testing.T) {
	_, url := newSim(t, graphsim.Options{})
	cfg := testConfig(t, url, t.TempDir())
	cfg.Rate = 3
	b, _ := start(t, cfg)
	login, quick := loginOf(t, b, alice), loginOf(t, b, bob)
	quick.Rate = 1000
	text := "From: alice@contoso.example\n\nbody\n"
	for i := range 4 {
		err := b.CheckRoom(login, 0)
		if (err == nil) != (i < 3) {
			t.Fatalf("message %d: %v", i, err)
		}
		if err != nil {
			if c, s, d, ok := StatusOf(err); KindOf(err) != TooMany || !ok || fmt.Sprint(c, s, d) != "4 7 1" {
				t.Errorf("%v", err)
			}
			if _, err := b.NewSubmission(login, envelope(bob)); KindOf(err) != TooMany {
				t.Errorf("submission: %v", err)
			}
			continue
		}
		if _, err := submit(t, b, login, envelope(bob), text); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.CheckRoom(quick, 0); err != nil {
		t.Errorf("another login: %v", err)
	}
	b.config().MinFree = 1 << 60
	for _, err := range []error{b.CheckRoom(quick, 0), func() error { _, err := b.NewSubmission(quick, envelope(bob)); return err }()} {
		if c, s, d, ok := StatusOf(err); KindOf(err) != OverQuota || !ok || fmt.Sprint(c, s, d) != "4 3 1" {
			t.Errorf("full disk: %v", err)
		}
	}
	b.config().MinFree = 0
	if err := b.CheckRoom(quick, 1<<60); KindOf(err) != OverQuota {
		t.Errorf("more than the disk holds: %v", err)
	}
}

func TestRateFills(t *testing.T) {
	var r rates
	now := time.Now()
	for i := range 60 {
		if !r.take("a", 60, true, now) {
			t.Fatalf("message %d refused", i)
		}
	}
	if r.take("a", 60, true, now) || r.take("a", 60, true, now.Add(900*time.Millisecond)) {
		t.Error("over the rate")
	}
	if !r.take("a", 60, true, now.Add(1100*time.Millisecond)) || !r.take("b", 60, true, now) || !r.take("a", 0, true, now) {
		t.Error("within the rate refused")
	}
}

// A message whose 250 was not seen is acknowledged when it comes again, and sent once; also when the server was started anew
// in between.
func TestRepeatedAfterLostAnswer(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	cfg := testConfig(t, url, t.TempDir())
	b, stop := start(t, cfg)
	whole := t
	for i, tt := range []struct {
		name     string
		noID     bool
		change   string
		rcpt     string
		answered bool // the client has gone on after the 250
		lost     bool // its connection has ended instead
		restart  bool
		same     bool
	}{
		{name: "lost", lost: true, same: true},
		{name: "still connected"},
		{name: "answered", answered: true},
		{name: "another body", change: "more\n", lost: true},
		{name: "another recipient", rcpt: alice, lost: true},
		{name: "without Message-ID", noID: true, lost: true},
		{name: "server killed", restart: true, same: true},
		{name: "lost, then server killed", lost: true, restart: true, same: true},
		{name: "answered, then server killed", answered: true, restart: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sim.ResetDeliveries()
			text := "From: alice@contoso.example\nMessage-ID: <m" + strconv.Itoa(i) + "@x>\n\nbody\n"
			if tt.noID {
				text = "From: alice@contoso.example\nSubject: on battery\n\nbody\n"
			}
			first, err := submit(t, b, loginOf(t, b, alice), envelope(bob), text)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case tt.answered:
				b.Answered(first)
			case tt.lost:
				b.Unanswered(first)
			}
			if tt.restart {
				stop()
				b, stop = start(whole, cfg)
			}
			login := loginOf(t, b, alice)
			second, err := submit(t, b, login, envelope(cmp.Or(tt.rcpt, bob)), text+tt.change)
			if err != nil || (first == second) != tt.same {
				t.Fatalf("%s, then %s: %v", first, second, err)
			}
			if tt.same {
				b.Answered(second)
				third, err := submit(t, b, login, envelope(bob), text)
				if err != nil || third == first {
					t.Errorf("the guard holds for more than one repeat: %v", err)
				}
			}
			if n := len(sim.Delivered()); n != 2 {
				t.Errorf("%d deliveries", n)
			}
		})
	}
	// What clients have seen is written down in the end.
	eventually(t, nil, "answers noted", func() bool {
		b.repeats.mu.Lock()
		defer b.repeats.mu.Unlock()
		return len(b.repeats.answered) == 0
	})
}

// A client that repeats what was gathered for one of several recipients is told that it is taken.
func TestRepeatedOfGathered(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	cfg := testConfig(t, url, t.TempDir())
	cfg.Gather = 200 * time.Millisecond
	b, stop := start(t, cfg)
	text := "From: alice@contoso.example\nTo: a@y.example, b@y.example\nMessage-ID: <m@x>\n\nbody\n"
	var ids []string
	for _, rcpt := range []string{"a@y.example", "b@y.example"} {
		id, err := submit(t, b, loginOf(t, b, alice), envelope(rcpt), text)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	settledRow(t, b, ids[0])
	stop()
	b, _ = start(t, cfg)
	id, err := submit(t, b, loginOf(t, b, alice), envelope("b@y.example"), text)
	if err != nil || id != ids[0] || ids[1] != id {
		t.Errorf("%v, then %s: %v", ids, id, err)
	}
	if n := len(sim.Delivered()); n != 1 {
		t.Errorf("%d deliveries", n)
	}
}

// The same message for one recipient after another goes out as one, To and Cc whole.
func TestGatheredRecipients(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	cfg := testConfig(t, url, t.TempDir())
	cfg.Gather = 300 * time.Millisecond
	b, _ := start(t, cfg)
	login := loginOf(t, b, alice)
	text := "From: alice@contoso.example\nTo: a@y.example, b@y.example\nCc: c@y.example\nMessage-ID: <m@x>\n\nbody\n"
	var ids []string
	for _, r := range []string{"a@y.example", "b@y.example", "c@y.example", "hidden@y.example"} {
		id, err := submit(t, b, login, envelope(r), text)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if len(slices.Compact(ids)) != 1 {
		t.Fatalf("ids %v", ids)
	}
	settledRow(t, b, ids[0])
	d := sim.Delivered()
	if len(d) != 1 || len(d[0].Recipients) != 4 {
		t.Fatalf("deliveries %+v", d)
	}
	if s := string(d[0].MIME); !strings.Contains(s, "a@y.example") || !strings.Contains(s, "c@y.example") || strings.Contains(s, "hidden@") || strings.Contains(s, "X-Original") {
		t.Errorf("message:\n%s", s)
	}
}

// Devices that invent senders get one that is valid; what they wrote stays in Reply-To.
func TestFallbackSender(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	sim.AddUser(testTenant, graphsim.UserSpec{UPN: "dave@contoso.example", Aliases: []string{"scanner@contoso.example"}})
	cfg := testConfig(t, url, t.TempDir())
	cfg.Mailboxes = append(cfg.Mailboxes, MailboxConfig{Address: "dave@contoso.example", Credential: "contoso", Aliases: []string{"scanner@contoso.example"}})
	sent := watchSends(&cfg)
	b, _ := start(t, cfg)
	login, err := b.FixedLogin(LoginConfig{Username: "devices", Mailbox: "dave@contoso.example", RewriteFrom: true, FallbackFrom: "scanner@contoso.example"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ in, from, replyTo string }{
		{"From: MFP <printer@localhost>\n", "From: MFP <scanner@contoso.example>\r\n", "Reply-To: MFP <printer@localhost>\r\n"},
		{"From: printer\n", "From: scanner@contoso.example\r\n", ""},
		{"Subject: no sender\n", "From: scanner@contoso.example\r\n", ""},
		{"From: Dave <dave@contoso.example>\n", "From: Dave <dave@contoso.example>\r\n", ""},
	} {
		if _, err := submit(t, b, login, envelope(bob), tt.in+"\nbody\n"); err != nil {
			t.Fatal(err)
		}
		got := sent.take()
		if len(got) != 1 || !strings.Contains(got[0], tt.from) || tt.replyTo != "" && !strings.Contains(got[0], tt.replyTo) || tt.replyTo == "" && strings.Contains(got[0], "Reply-To") {
			t.Errorf("%q: sent %q", tt.in, got)
		}
	}
}

// Mail dropped as a file is sent once, whether the server runs or not, and what is no mail harms nobody.
func TestDrop(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	dir := t.TempDir()
	cfg := testConfig(t, url, filepath.Join(dir, "state"))
	cfg.Drop = DropConfig{Dir: filepath.Join(dir, "drop"), Login: LoginConfig{Username: "sendmail", Mailbox: alice, RewriteFrom: true}}
	drop := func(text string) string {
		t.Helper()
		id, err := DropMessage(cfg.Drop.Dir, envelope(bob), strings.NewReader(text), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	if err := os.Mkdir(cfg.Drop.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	before := drop("From: root@localhost\nSubject: before\n\nbody\n")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(cfg.Drop.Dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("nonsense.msg", "{}\n")
	write(outbox.NewID()+".msg", "no json\nFrom: x\n\n")
	write(outbox.NewID()+".msg", `{"from":"a@x","recipients":[{"address":"b@x, evil@y"}]}`+"\n\n")
	write("../"+outbox.NewID(), "")
	if err := os.Symlink("/etc/passwd", filepath.Join(cfg.Drop.Dir, outbox.NewID()+".msg")); err != nil {
		t.Fatal(err)
	}
	b, stop := start(t, cfg)
	during := drop("From: alice@contoso.example\nSubject: during\n\nbody\n")
	for _, id := range []string{before, during} {
		eventually(t, nil, "dropped message sent", func() bool {
			r, err := b.store.Outbox().Get(t.Context(), id)
			return err == nil && r.State == store.StateSent
		})
	}
	row, _ := b.store.Outbox().Get(t.Context(), before)
	if row.Login != "sendmail" || row.RemoteAddr == "" {
		t.Errorf("row %+v", row)
	}
	// Killed between taking the message and removing the file.
	again, err := os.ReadFile(filepath.Join(cfg.Drop.Dir, before+dropRefused))
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%q, %v", again, err)
	}
	write(before+".msg", `{"from":"alice@contoso.example","recipients":[{"address":"bob@contoso.example"}]}`+"\nSubject: before\n\nbody\n")
	eventually(t, nil, "second file gone", func() bool {
		_, err := os.Stat(filepath.Join(cfg.Drop.Dir, before+".msg"))
		return errors.Is(err, os.ErrNotExist)
	})
	stop()
	if n := len(sim.Delivered()); n != 2 {
		t.Errorf("%d deliveries", n)
	}
	refused, _ := filepath.Glob(filepath.Join(cfg.Drop.Dir, "*"+dropRefused))
	if len(refused) != 4 {
		t.Errorf("refused: %v", refused)
	}
	if err := os.Chmod(cfg.Drop.Dir, 0o733|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	shared := filepath.Join(cfg.Drop.Dir, drop("\nx\n")+".msg")
	if info, err := os.Stat(shared); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("in a folder for all: %v, %v", info, err)
	}
	if _, err := DropMessage(cfg.Drop.Dir, envelope(bob), strings.NewReader(strings.Repeat("x", 2<<20)), 1<<20); KindOf(err) != TooLarge {
		t.Errorf("too large: %v", err)
	}
	if _, err := DropMessage(cfg.Drop.Dir, Envelope{}, strings.NewReader("x"), 1<<20); KindOf(err) != Refused {
		t.Errorf("no recipients: %v", err)
	}
}

// FuzzDropEnvelope reads what any user of the machine can put into the folder.
func FuzzDropEnvelope(f *testing.F) {
	f.Add(`{"from":"a@x.example","recipients":[{"address":"b@y.example","notify":"NEVER"}],"ret":"FULL","envid":"x"}` + "\nSubject: x\n\nbody\n")
	f.Add(`{"recipients":[{"address":"b@x, evil@y"}]}` + "\n")
	f.Add("{}\n")
	f.Add(`{"from":"a\r\nRCPT TO:<x@y>@x.example","recipients":[{"address":"\u0000@y"}]}` + "\n")
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, text string) {
		env, err := readDropEnvelope(bufio.NewReader(strings.NewReader(text)), alice)
		if err != nil {
			return
		}
		if len(env.Recipients) == 0 {
			t.Error("no recipients")
		}
		for _, addr := range append([]string{env.From}, recipientAddresses(env)...) {
			if strings.ContainsAny(addr, "\r\n\x00,;<>") || addr == "" && len(env.From) > 0 {
				t.Errorf("address %q", addr)
			}
		}
	})
}

func recipientAddresses(env *Envelope) []string {
	var out []string
	for _, r := range env.Recipients {
		out = append(out, r.Address)
	}
	return out
}

// Filed tells whether Exchange has filed the copy of a message, by its mark.
func TestFiled(t *testing.T) {
	for _, delay := range []time.Duration{0, time.Hour} {
		sim, url := newSim(t, graphsim.Options{SentItemsDelay: delay})
		b, _ := start(t, testConfig(t, url, t.TempDir()))
		sim.AddMessage(alice, "sentitems", []byte("From: alice@contoso.example\r\nMessage-ID: <same@x>\r\n\r\nthe client's own copy\r\n"), graphsim.MessageSpec{})
		id, err := submit(t, b, loginOf(t, b, alice), envelope(bob), "From: alice@contoso.example\nMessage-ID: <same@x>\n\nbody\n")
		if err != nil {
			t.Fatal(err)
		}
		row := settledRow(t, b, id)
		if filed, err := (&sender{b}).Filed(t.Context(), row); err != nil || filed != (delay == 0) {
			t.Errorf("with a delay of %v: filed %v, %v", delay, filed, err)
		}
	}
}

// An app with Mail.Send alone cannot look for what was perhaps sent. It is not sent again unless that was chosen, and says why.
func TestMaySendOnly(t *testing.T) {
	for _, again := range []bool{false, true} {
		quickly(t)
		sim, url := newSim(t, graphsim.Options{})
		sim.AddApp(testTenant, testApp, "", "Mail.Send")
		inject(t, sim, graphsim.Fault{Path: "/sendMail$", Times: 1, DropAfter: true})
		cfg := testConfig(t, url, t.TempDir())
		cfg.SendUnsure = again
		hash, err := HashPassword("a password")
		if err != nil {
			t.Fatal(err)
		}
		cfg.Logins = []LoginConfig{{Username: "alice", PasswordHash: hash, Mailbox: alice, SMTP: true}, {Username: "bob", PasswordHash: hash, Mailbox: bob, SMTP: true, IMAP: true}}
		b, _ := start(t, cfg)
		for address, sendOnly := range map[string]bool{alice: true, bob: false} {
			a := accountOf(t, b, address)
			eventually(t, nil, "a refusal to read", func() bool { return a.State().LastError != "" })
			if st := a.State(); st.SendOnly != sendOnly || st.Kind != Denied {
				t.Errorf("%+v", st)
			}
		}
		id, err := submit(t, b, loginOf(t, b, alice), envelope(bob), "From: alice@contoso.example\n\nbody\n")
		if err != nil {
			t.Fatal(err)
		}
		if again {
			if row := settledRow(t, b, id); row.State != store.StateSent || len(sim.Delivered()) != 2 {
				t.Errorf("%s, delivered %d times", row.State, len(sim.Delivered()))
			}
			continue
		}
		looked := func() bool {
			events, err := b.store.Outbox().Events(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if slices.ContainsFunc(events, func(e store.Event) bool { return e.What == "unclear" && !strings.Contains(e.Text, "no clear answer") }) {
				t.Fatalf("an unclear end is told as something else: %+v", events)
			}
			return slices.ContainsFunc(events, func(e store.Event) bool { return strings.Contains(e.Text, "Mail.ReadWrite") })
		}
		eventually(t, nil, "a look that is refused", looked)
		if row, err := b.store.Outbox().Get(t.Context(), id); err != nil || row.State == store.StateSent || len(sim.Delivered()) != 1 {
			t.Errorf("%+v, delivered %d times, %v", row, len(sim.Delivered()), err)
		}
		// A large one waits, and says for what.
		text, _ := largeMessage("mixed", 5<<20)
		id, err = submit(t, b, loginOf(t, b, alice), envelope(bob), text)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, nil, "a draft that is refused", looked)
	}
}
