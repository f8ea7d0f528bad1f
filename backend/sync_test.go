package backend

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend/graphsim"
)

func TestMailboxes(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	sim.AddFolder(alice, "Inbox", "Projects")
	sim.AddFolder(alice, "", "a/b")
	sim.AddFolder(alice, "", "Twin")
	sim.AddFolder(alice, "", "Twin")
	sim.AddFolder(alice, "", "Sent")
	sim.AddSearchFolder(alice, "Unread mail")
	b, _ := start(t, testConfig(t, url, t.TempDir()))
	list, err := accountOf(t, b, alice).Mailboxes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	roles := make(map[string]imap.MailboxAttr)
	var names []string
	for _, m := range list {
		names = append(names, m.Name)
		roles[m.Name] = m.Role
		if m.Name == "INBOX" && !m.HasChildren {
			t.Error("INBOX has no children")
		}
	}
	for _, want := range []string{"INBOX", "INBOX/Projects", "Sent", "Drafts", "Trash", "Junk", "a_b", "Twin", "Twin (2)", "Sent (2)"} {
		if !slices.Contains(names, want) {
			t.Errorf("no mailbox %q in %q", want, names)
		}
	}
	for name, want := range map[string]imap.MailboxAttr{"INBOX": "", "Sent": imap.MailboxAttrSent, "Drafts": imap.MailboxAttrDrafts,
		"Trash": imap.MailboxAttrTrash, "Junk": imap.MailboxAttrJunk, "Sent (2)": ""} {
		if roles[name] != want {
			t.Errorf("role of %s = %q, want %q", name, roles[name], want)
		}
	}
	for _, hidden := range []string{"Unread mail", "Conversation History", "Sync Issues"} {
		if slices.Contains(names, hidden) {
			t.Errorf("%q is shown", hidden)
		}
	}
}

func TestFill(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	when := time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)
	for i := range 5 {
		// Out of order: UIDs must follow the dates.
		sim.AddMessage(alice, "inbox", mail(i), graphsim.MessageSpec{Received: when.Add(time.Duration((i*3)%5) * time.Hour), IsRead: i == 2, Flagged: i == 3, Categories: []string{"Red category"}})
	}
	b, _ := start(t, testConfig(t, url, t.TempDir()))
	m := open(t, accountOf(t, b, alice), "inbox")
	uids := m.UIDs()
	if want := []imap.UID{1, 2, 3, 4, 5}; !slices.Equal(uids, want) {
		t.Fatalf("UIDs = %v, want %v", uids, want)
	}
	var last time.Time
	m.Messages(uids, func(msg *Message) bool {
		if msg.Received.Before(last) {
			t.Errorf("UID %d is older than the one before", msg.UID)
		}
		last = msg.Received
		if !msg.HasFlag("Red_category") {
			t.Errorf("UID %d has no keyword: %v", msg.UID, msg.AppendFlags(nil))
		}
		return true
	})
	st, err := accountOf(t, b, alice).Status(t.Context(), "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	if st.Messages != 5 || st.Unseen != 4 || st.UIDNext != 6 {
		t.Errorf("status = %+v", st)
	}
	text := readBody(t, m, 1)
	if !strings.Contains(text, "Hello number") {
		t.Errorf("body = %q", text)
	}
	if msg, _ := m.Message(1); !msg.SizeExact || msg.Size != int64(len(text)) {
		t.Errorf("size after reading = %d exact %v, want %d", msg.Size, msg.SizeExact, len(text))
	}
	headers := make(map[imap.UID]string)
	err = m.Headers(t.Context(), uids, func(uid imap.UID, h []byte) error {
		headers[uid] = string(h)
		return nil
	})
	if err != nil || len(headers) != 5 {
		t.Fatalf("headers: %d, %v", len(headers), err)
	}
	for uid, h := range headers {
		if !strings.Contains(h, "Subject: number") || !strings.HasSuffix(h, "\r\n\r\n") {
			t.Errorf("header of %d = %q", uid, h)
		}
	}
}

func TestDelta(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	first := sim.AddMessage(alice, "inbox", mail(1), graphsim.MessageSpec{})
	second := sim.AddMessage(alice, "inbox", mail(2), graphsim.MessageSpec{})
	b, _ := start(t, testConfig(t, url, t.TempDir()))
	m := open(t, accountOf(t, b, alice), "INBOX")
	since := m.HighestModSeq()

	sim.DeliverMessage(alice, mail(3))
	eventually(t, m, "new message", func() bool { return len(m.UIDs()) == 3 })
	ch := m.Changes(since)
	if len(ch.Added) != 1 || ch.Added[0] != 3 || len(ch.Removed) != 0 {
		t.Fatalf("changes = %+v", ch)
	}
	if msg, _ := m.Message(3); msg.Size == 0 || msg.Received.IsZero() {
		t.Errorf("new message = %+v", msg)
	}
	since = ch.ModSeq

	yes := true
	sim.UpdateMessage(alice, first, graphsim.Change{IsRead: &yes, Flagged: &yes, Extended: map[string]string{"Integer 0x1081": "102"}})
	eventually(t, m, "flags", func() bool { return flagsOf(m, 1) == `\Seen \Answered \Flagged` })
	if ch := m.Changes(since); !slices.Equal(ch.Updated, []imap.UID{1}) {
		t.Errorf("changes = %+v", ch)
	}
	since = m.HighestModSeq()

	sim.DeleteMessage(alice, second, false)
	eventually(t, m, "removal", func() bool { return flagsOf(m, 2) == "gone" })
	if ch := m.Changes(since); !slices.Equal(ch.Removed, []imap.UID{2}) {
		t.Errorf("changes = %+v", ch)
	}
	gone, err := m.Vanished(t.Context(), since)
	if err != nil || !slices.Equal(gone, []imap.UID{2}) {
		t.Errorf("vanished = %v, %v", gone, err)
	}
}

func TestFlags(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	id := sim.AddMessage(alice, "inbox", mail(1), graphsim.MessageSpec{Categories: []string{"Blue"}})
	dir := t.TempDir()
	b, stop := start(t, testConfig(t, url, dir))
	m := open(t, accountOf(t, b, alice), "INBOX")
	add := []imap.Flag{imap.FlagSeen, imap.FlagAnswered, imap.FlagForwarded, imap.FlagDeleted, "$label1", "My_tag"}
	if _, err := m.Store(t.Context(), []imap.UID{1}, StoreAdd, add, 0); err != nil {
		t.Fatal(err)
	}
	want := `\Seen \Answered \Deleted $Forwarded $label1 Blue My_tag`
	if got := flagsOf(m, 1); got != want {
		t.Errorf("flags at once = %q, want %q", got, want)
	}
	eventually(t, m, "push", func() bool {
		msg, _ := sim.Message(alice, id)
		cats := slices.Sorted(slices.Values(msg.Categories))
		return msg.IsRead && slices.Equal(cats, []string{"$label1", "Blue", "My tag"}) && msg.Extended["0x1081"] != ""
	})
	// Delta brings our own change back; it must not change anything.
	before := m.HighestModSeq()
	if err := b.accounts[0].syncer.Refresh(t.Context(), m.view.id); err != nil {
		t.Fatal(err)
	}
	if m.HighestModSeq() != before || flagsOf(m, 1) != want {
		t.Errorf("flags after delta = %q at %d, want %q at %d", flagsOf(m, 1), m.HighestModSeq(), want, before)
	}
	if _, err := m.Store(t.Context(), []imap.UID{1}, StoreReplace, []imap.Flag{imap.FlagFlagged}, 0); err != nil {
		t.Fatal(err)
	}
	stop() // the change is journalled and survives

	b, _ = start(t, testConfig(t, url, dir))
	m = open(t, accountOf(t, b, alice), "INBOX")
	if got := flagsOf(m, 1); got != `\Flagged` {
		t.Errorf("flags after restart = %q", got)
	}
	eventually(t, m, "push after restart", func() bool {
		msg, _ := sim.Message(alice, id)
		return !msg.IsRead && msg.Flagged && len(msg.Categories) == 0
	})
}

func TestMoveCopyExpunge(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	for i := range 45 {
		sim.AddMessage(alice, "inbox", mail(i), graphsim.MessageSpec{})
	}
	sim.AddFolder(alice, "", "Work")
	b, _ := start(t, testConfig(t, url, t.TempDir()))
	a := accountOf(t, b, alice)
	m := open(t, a, "INBOX")
	work := open(t, a, "Work")
	res, err := m.Move(t.Context(), m.UIDs()[:25], "Work")
	if err != nil || len(res.Source) != 25 || len(res.Dest) != 25 || res.UIDValidity != work.UIDValidity() {
		t.Fatalf("move = %+v, %v", res, err)
	}
	if len(m.UIDs()) != 20 || len(work.UIDs()) != 25 || len(sim.Messages(alice, "Work")) != 25 {
		t.Errorf("after move: %d and %d messages", len(m.UIDs()), len(work.UIDs()))
	}
	res, err = m.Copy(t.Context(), m.UIDs(), "Work")
	if err != nil || len(res.Dest) != 20 {
		t.Fatalf("copy = %+v, %v", res, err)
	}
	if _, err := m.Store(t.Context(), m.UIDs()[:3], StoreAdd, []imap.Flag{imap.FlagDeleted}, 0); err != nil {
		t.Fatal(err)
	}
	done, err := m.Expunge(t.Context(), nil)
	if err != nil || len(done) != 3 || len(m.UIDs()) != 17 {
		t.Fatalf("expunge = %v, %v", done, err)
	}
	if n := len(sim.Messages(alice, "recoverableitemsdeletions")); n != 3 {
		t.Errorf("%d messages in Recoverable Items", n)
	}
	// What delta says afterwards is nothing new.
	for _, mb := range []*Mailbox{m, work} {
		before := mb.UIDs()
		if err := a.syncer.RefreshNow(t.Context(), mb.view.id); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(mb.UIDs(), before) {
			t.Errorf("%s: UIDs %v after delta, %v before", mb.Name(), mb.UIDs(), before)
		}
	}
}

func TestAppend(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	b, _ := start(t, testConfig(t, url, t.TempDir()))
	a := accountOf(t, b, alice)
	date := time.Date(2020, 5, 6, 7, 8, 9, 0, time.UTC)
	raw := "From: x@y.example\nSubject: =?utf-8?q?gr=C3=BCn?=\nX-Odd: kept\n\nbare line feeds\n"
	multi := "From: x@y.example\r\nTo: undisclosed-recipients:;\r\nSubject: files\r\nMessage-ID: <files@y.example>\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nsee file\r\n--b\r\n" +
		"Content-Type: application/pdf; name=a.pdf\r\nContent-Disposition: attachment; filename=a.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\naGVsbG8=\r\n--b--\r\n"
	for _, tt := range []struct {
		mailbox, raw, want string
		flags              []imap.Flag
	}{
		{"INBOX", raw, `\Seen \Flagged kw`, []imap.Flag{imap.FlagSeen, imap.FlagFlagged, "kw"}},
		{"INBOX", multi, ``, nil},
		{"INBOX", multi, `\Answered \Draft`, []imap.Flag{imap.FlagDraft, imap.FlagAnswered}},
		{"Drafts", multi, `\Seen \Draft`, []imap.Flag{imap.FlagSeen, imap.FlagDraft}},
		{"Sent", multi, `\Seen`, []imap.Flag{imap.FlagSeen}},
	} {
		m := open(t, a, tt.mailbox)
		uid, err := appendMail(t, a, tt.mailbox, []byte(tt.raw), date, tt.flags...)
		if err != nil || uid == 0 {
			t.Fatalf("%s: append = %d, %v", tt.mailbox, uid, err)
		}
		if got := readBody(t, m, uid); got != tt.raw {
			t.Errorf("%s: read back %q, want %q", tt.mailbox, got, tt.raw)
		}
		check := func(when string) {
			msg, ok := m.Message(uid)
			if !ok || msg.Size != int64(len(tt.raw)) || !msg.SizeExact || !msg.Received.Equal(date) {
				t.Errorf("%s %s: message = %+v, %v", tt.mailbox, when, msg, ok)
			}
			if got := flagsOf(m, uid); got != tt.want {
				t.Errorf("%s %s: flags = %q, want %q", tt.mailbox, when, got, tt.want)
			}
		}
		check("at once")
		n := len(m.UIDs())
		if err := a.syncer.RefreshNow(t.Context(), m.view.id); err != nil {
			t.Fatal(err)
		}
		check("after delta")
		if len(m.UIDs()) != n {
			t.Errorf("%s: %d messages after delta, %d before", tt.mailbox, len(m.UIDs()), n)
		}
	}
	info := sim.Messages(alice, "inbox")
	if len(info) != 3 || info[1].IsDraft && info[2].IsDraft {
		t.Fatalf("inbox = %+v", info)
	}
	for _, i := range info {
		if i.Subject == "files" && !slices.Equal(i.Files, []string{"a.pdf"}) {
			t.Errorf("attachments = %v", i.Files)
		}
	}
}

func TestRestartKeepsUIDs(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	for i := range 30 {
		sim.AddMessage(alice, "inbox", mail(i), graphsim.MessageSpec{})
	}
	dir := t.TempDir()
	b, stop := start(t, testConfig(t, url, dir))
	m := open(t, accountOf(t, b, alice), "INBOX")
	ids := make(map[imap.UID]ObjectID)
	m.Messages(m.UIDs(), func(msg *Message) bool { ids[msg.UID] = msg.EmailID; return true })
	valid := m.UIDValidity()
	eventually(t, m, "delta link", func() bool {
		row, err := b.store.Folder(t.Context(), m.view.id)
		return err == nil && row.DeltaLink != ""
	})
	stop()
	sim.ResetDelta(alice, "inbox")
	sim.DeliverMessage(alice, mail(99))
	b, _ = start(t, testConfig(t, url, dir))
	m = open(t, accountOf(t, b, alice), "INBOX")
	eventually(t, m, "new message after relist", func() bool { return len(m.UIDs()) == 31 })
	if m.UIDValidity() != valid {
		t.Error("UIDVALIDITY has changed")
	}
	for uid, id := range ids {
		if msg, ok := m.Message(uid); !ok || msg.EmailID != id {
			t.Errorf("UID %d is another message now", uid)
		}
	}
}

func TestBroken(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	cfg := testConfig(t, url, t.TempDir())
	c := cfg.Credentials["contoso"]
	c.ClientSecret = "wrong"
	cfg.Credentials["bad"] = c
	cfg.Mailboxes[1].Credential = "bad"
	sim.AddUser(testTenant, graphsim.UserSpec{UPN: "carol@contoso.example"})
	sim.AddUser(testTenant, graphsim.UserSpec{UPN: "none@contoso.example", NoMailbox: true})
	sim.BlockMailbox(testTenant, testApp, "carol@contoso.example", true)
	cfg.Mailboxes = append(cfg.Mailboxes, MailboxConfig{Address: "carol@contoso.example", Credential: "contoso"},
		MailboxConfig{Address: "none@contoso.example", Credential: "contoso"})
	b, _ := start(t, cfg)
	for _, tt := range []struct {
		address string
		kind    Kind
	}{{bob, SignInNeeded}, {"carol@contoso.example", Denied}, {"none@contoso.example", Denied}} {
		began := time.Now()
		_, err := accountOf(t, b, tt.address).Open(t.Context(), "INBOX", false)
		if KindOf(err) != tt.kind || TextOf(err) == "" {
			t.Errorf("%s: %v, kind %v, want %v", tt.address, err, KindOf(err), tt.kind)
		}
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("%s: took %s", tt.address, d)
		}
		st := accountOf(t, b, tt.address).State()
		if st.Ready || st.LastError == "" || st.Advice == "" || st.Kind != tt.kind {
			t.Errorf("%s: state = %+v", tt.address, st)
		}
	}
	open(t, accountOf(t, b, alice), "INBOX")
}

func TestLargeMailbox(t *testing.T) {
	if testing.Short() {
		t.Skip("a hundred thousand messages")
	}
	const n = 100_000
	sim, url := newSim(t, graphsim.Options{EmptyPageEvery: -1})
	sim.AddSynthetic(alice, "inbox", n, graphsim.Synthetic{})
	dir := t.TempDir()
	b, stop := start(t, testConfig(t, url, dir))
	a := accountOf(t, b, alice)
	began := time.Now()
	m := open(t, a, "INBOX")
	took := time.Since(began)
	if len(m.UIDs()) != n {
		t.Fatalf("%d messages", len(m.UIDs()))
	}
	// The enumeration goes on after the mailbox can be selected; how long depends on what else the machine does.
	eventuallyWithin(t, m, 5*time.Minute, "delta link", func() bool {
		row, err := b.store.Folder(t.Context(), m.view.id)
		return err == nil && row.DeltaLink != ""
	})
	calls := sim.CountRequests(func(r graphsim.Request) bool {
		return strings.Contains(r.Template, "/messages") && !strings.Contains(r.Query, "0x007D")
	})
	t.Logf("first SELECT %s, all %s, %d calls", took, time.Since(began), calls)
	if calls > 210 {
		t.Errorf("%d calls", calls)
	}
	stop()
	sim.ResetRequests()
	b, _ = start(t, testConfig(t, url, dir))
	began = time.Now()
	m = open(t, accountOf(t, b, alice), "INBOX")
	t.Logf("SELECT after restart %s", time.Since(began))
	if len(m.UIDs()) != n {
		t.Fatalf("%d messages", len(m.UIDs()))
	}
	began = time.Now()
	count := 0
	m.Messages(m.UIDs(), func(*Message) bool { count++; return true })
	t.Logf("walk over %d: %s", count, time.Since(began))
	if err := m.account.syncer.RefreshNow(t.Context(), m.view.id); err != nil {
		t.Fatal(err)
	}
	for _, r := range sim.Requests() {
		if strings.Contains(r.Template, "delta") && strings.Contains(r.Query, "skiptoken") {
			t.Fatalf("restart walks through the folder: %s %s", r.Template, r.Query)
		}
	}
}

// While a folder is walked through for the first time, which takes minutes with many messages, whoever asks for news
// does not wait for the end of it.
func TestRefreshDuringFirstFill(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	sim.AddMessage(alice, "inbox", mail(1), graphsim.MessageSpec{})
	// The enumeration that leads to the first delta link hangs.
	inject(t, sim, graphsim.Fault{Path: "/messages/delta", Delay: time.Minute})
	b, _ := start(t, testConfig(t, url, t.TempDir()))
	begun := time.Now()
	inbox := open(t, accountOf(t, b, alice), "INBOX")
	for range 20 {
		if err := inbox.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	// 21 waits, Open's among them, would be 21 times refreshWait.
	if took := time.Since(begun); took > 10*refreshWait {
		t.Errorf("asking for news during the first fill took %v", took)
	}
	if sim.CountRequests(func(q graphsim.Request) bool { return strings.HasSuffix(q.Template, "/messages/delta") }) != 0 {
		t.Error("the enumeration has ended: nothing was tested")
	}
}

// A round that needed several pages and held nothing new must not be asked for again instead of the next one: its later pages
// never tell of what comes after it.
func TestNewMailAfterPagedRound(t *testing.T) {
	virtualSim(t, graphsim.Options{EmptyPageEvery: 2}, time.Second, func(t *testing.T, sim *graphsim.Sim, b *Backend, a *Account) {
		m := open(t, a, "inbox")
		for i := range 20 {
			action := StoreAdd
			if i%2 == 1 {
				action = StoreRemove
			}
			if _, err := m.Store(t.Context(), []imap.UID{3}, action, []imap.Flag{imap.FlagFlagged}, 0); err != nil {
				t.Fatal(err)
			}
			time.Sleep(7 * time.Second) // the own change comes back in a round that holds nothing else
			sim.DeliverMessage(alice, mail(100+i))
			time.Sleep(5 * time.Second)
			if n := len(m.UIDs()); n != 11+i {
				t.Fatalf("%d messages are seen 5 s after message %d was delivered, want %d", n, i, 11+i)
			}
		}
	})
}
