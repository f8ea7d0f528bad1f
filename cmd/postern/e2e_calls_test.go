package main

import (
	"fmt"
	"net/smtp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"postern/backend/graphsim"
)

// What Thunderbird and Apple Mail ask for, of all messages at once, to show the list of a folder.
var (
	thunderbirdList = imap.FetchOptions{UID: true, RFC822Size: true, Flags: true, BodySection: []*imap.FetchItemBodySection{{Peek: true,
		Specifier: imap.PartSpecifierHeader, HeaderFields: []string{"From", "To", "Cc", "Bcc", "Subject", "Date", "Message-ID", "Priority",
			"X-Priority", "References", "Newsgroups", "In-Reply-To", "Content-Type", "Reply-To"}}}}
	appleList = imap.FetchOptions{UID: true, InternalDate: true, RFC822Size: true, Flags: true, BodySection: []*imap.FetchItemBodySection{{Peek: true,
		Specifier: imap.PartSpecifierHeader, HeaderFields: []string{"date", "subject", "from", "to", "cc", "message-id", "in-reply-to",
			"references", "content-type", "x-priority", "x-uniform-type-identifier", "x-universally-unique-identifier", "list-id",
			"list-unsubscribe", "authentication-results", "dkim-signature"}}}}
)

// callMeter counts what the server asks of Graph while a client does something.
type callMeter struct {
	*rig
	t      *testing.T
	client *imapclient.Client // has INBOX open
}

// calls are the requests of one action.
type calls struct {
	http   int      // HTTP requests, polls aside
	graph  int      // as Graph counts them: the items of a batch are one each
	value  []string // ids of the messages that were read whole, each as often as it was
	polls  int      // pages of changes
	took   time.Duration
	detail map[string]int
}

func isPoll(q graphsim.Request) bool { return strings.HasSuffix(q.Template, "/delta") }

func isWhole(q graphsim.Request) bool { return strings.HasSuffix(q.Template, "/$value") }

// during runs do, then waits until settled holds and two more rounds of changes have been read, for those may ask for more.
func (m *callMeter) during(name string, do func(), settled func() bool) calls {
	m.t.Helper()
	m.sim.ResetRequests()
	start := time.Now()
	do()
	took := time.Since(start)
	if settled != nil {
		within(m.t, 5*time.Minute, name+" is in Graph", settled) // folders that nobody has open are looked at each minute or two
		polls := func() int {
			return m.sim.CountRequests(func(q graphsim.Request) bool { return strings.HasSuffix(q.Template, "/messages/delta") })
		}
		seen := polls()
		within(m.t, time.Minute, "two rounds of changes", func() bool {
			if err := m.client.Noop().Wait(); err != nil { // asks for one
				m.t.Fatal(err)
			}
			return polls() >= seen+2
		})
	}
	c := calls{took: took, detail: make(map[string]int)}
	for _, q := range m.sim.Requests() {
		switch {
		case strings.Contains(q.Path, "oauth2"):
			continue
		case isPoll(q):
			c.polls++
			continue
		case isWhole(q):
			id := strings.TrimSuffix(q.Path, "/$value")
			c.value = append(c.value, id[strings.LastIndexByte(id, '/')+1:])
		}
		if !q.InBatch {
			c.http++
		}
		if !strings.HasSuffix(q.Path, "/$batch") {
			c.graph++
		}
		kind := q.Method + " " + strings.TrimPrefix(strings.TrimPrefix(q.Template, "/v1.0"), "/users/{u}")
		if q.InBatch {
			kind += " (in batches)"
		}
		c.detail[kind]++
	}
	var detail []string
	for kind, n := range c.detail {
		detail = append(detail, fmt.Sprintf("%d × %s", n, kind))
	}
	slices.Sort(detail)
	m.t.Logf("| %s | %d | %d | %d | %v | %s |", name, c.http, c.graph, c.polls, took.Round(time.Millisecond), strings.Join(detail, ", "))
	return c
}

// atMost fails the test when an action has cost more HTTP requests than that.
func (m *callMeter) atMost(name string, c calls, n int) {
	m.t.Helper()
	if c.http > n {
		m.t.Errorf("%s: %d HTTP requests, want at most %d: %v", name, c.http, n, c.detail)
	}
}

// The Graph calls of what clients do, as docs/graph-calls.md tells them. Run with -v it prints the rows of the table there.
func TestE2EGraphCalls(t *testing.T) {
	const user, many, n = "calls@contoso.example", 20_000, 1000
	const ahead = 200 // messages of an open folder whose text is read when there is nothing else to do
	r := newRig(t, func(sim *graphsim.Sim) {
		sim.AddUser(sampleTenant, graphsim.UserSpec{UPN: user})
		sim.AddSynthetic(user, "inbox", many, graphsim.Synthetic{Seed: 9, FlaggedEvery: -1})
		sim.AddFolder(user, "", "Target")
		sim.AddFolder(user, "", "Copies")
	})
	r.stop()
	r.users = []string{user}
	r.writeConfig(r.graph)
	m := &callMeter{rig: r, t: t}
	inSim := func(folder string) int { return len(r.sim.Messages(user, folder)) }

	done := func() bool { return true }
	t.Log("| action | HTTP requests | as Graph counts | polls | time of the command | which |")
	var c *imapclient.Client
	open := func() {
		c = r.imap(t, user)
		m.client = c
		if _, err := c.List("", "*", nil).Collect(); err != nil {
			t.Fatal(err)
		}
		if sel, err := c.Select("INBOX", nil).Wait(); err != nil || int(sel.NumMessages) != many {
			t.Fatalf("select: %v %v", sel, err)
		}
	}
	list := func(options imap.FetchOptions) func() {
		return func() {
			cmd := c.Fetch(imap.SeqSet{imap.SeqRange{Start: 1, Stop: 0}}, &options)
			got := 0
			for msg := cmd.Next(); msg != nil; msg = cmd.Next() {
				if _, err := msg.Collect(); err != nil {
					t.Fatal(err)
				}
				got++
			}
			if err := cmd.Close(); err != nil || got != many {
				t.Fatalf("%d messages listed: %v", got, err)
			}
		}
	}
	first := m.during("first open of 20,000 messages", func() { r.start(); open() }, nil)
	m.atMost("first open", first, many/500+10)
	headers := m.during("Thunderbird's list, at once after it", list(thunderbirdList), nil)
	m.atMost("headers", headers, many/100)
	// The list itself reads no whole message. In the background, when Graph has nothing else to do, the newest 200 are
	// read ahead, each once; on a slow machine that begins before the list has ended.
	unread := make(map[string]bool)
	for _, msg := range r.sim.Messages(user, "inbox")[:ahead] {
		unread[msg.ID] = true
	}
	readAhead := func(ids []string) {
		for _, id := range ids {
			if !unread[id] {
				t.Errorf("a whole message was read that is not read ahead, or twice: %s", id)
			}
			delete(unread, id)
		}
	}
	readAhead(first.value)
	readAhead(headers.value)
	t.Logf("while the list was read, %d of the newest %d messages were read ahead", ahead-len(unread), ahead)
	// When the others are read nothing is left to ask.
	rest := m.during("reading ahead", func() {
		within(t, 5*time.Minute, "the newest messages are read ahead", func() bool {
			return r.sim.CountRequests(isWhole) >= len(unread)
		})
	}, nil)
	readAhead(rest.value)
	if len(unread) > 0 {
		t.Errorf("%d of the newest messages were not read ahead", len(unread))
	}
	m.atMost("second open", m.during("second open", open, nil), 0)
	m.atMost("Apple Mail's list", m.during("Apple Mail's list", list(appleList), nil), 0)
	r.kill()
	restart := m.during("open after a restart", func() { r.start(); open() }, done)
	m.atMost("restart", restart, 0)
	m.atMost("Thunderbird's list after it", m.during("Thunderbird's list after it", list(thunderbirdList), nil), 0)

	for _, name := range []string{"Copies", "Target", "Drafts", "Sent"} { // their own first listing is not what is measured
		if _, err := c.Status(name, &imap.StatusOptions{NumMessages: true}).Wait(); err != nil {
			t.Fatal(err)
		}
	}
	next := imap.UID(1)
	take := func() imap.UIDSet { // the next thousand messages
		set := imap.UIDSet{imap.UIDRange{Start: next, Stop: next + n - 1}}
		next += n
		return set
	}
	store := func(set imap.UIDSet, flag imap.Flag) {
		if err := c.Store(set, &imap.StoreFlags{Op: imap.StoreFlagsAdd, Silent: true, Flags: []imap.Flag{flag}}, nil).Close(); err != nil {
			t.Fatal(err)
		}
	}
	// Flags are answered at once and written afterwards.
	written := func() bool {
		return r.sim.CountRequests(func(q graphsim.Request) bool { return q.Method == "PATCH" && q.Status == 200 }) >= n
	}
	const batches = n / 20
	m.atMost("flags", m.during("1,000 flag changes, one STORE", func() { store(take(), imap.FlagFlagged) }, written), batches)
	m.atMost("keywords", m.during("1,000 keyword changes, one STORE", func() { store(take(), imap.Flag("$Label1")) }, written), 2*batches)
	set := take()
	m.atMost("single flags", m.during("1,000 flag changes, 1,000 STOREs", func() {
		cmds := make([]*imapclient.FetchCommand, 0, n)
		for uid := set[0].Start; uid <= set[0].Stop; uid++ {
			cmds = append(cmds, c.Store(imap.UIDSetNum(uid), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Silent: true, Flags: []imap.Flag{imap.FlagFlagged}}, nil))
		}
		for _, cmd := range cmds {
			if err := cmd.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}, written), 2*batches)
	m.atMost("copies", m.during("1,000 copies", func() {
		if _, err := c.Copy(take(), "Copies").Wait(); err != nil {
			t.Fatal(err)
		}
	}, done), batches)
	m.atMost("moves", m.during("1,000 moves", func() {
		if _, err := c.Move(take(), "Target").Wait(); err != nil {
			t.Fatal(err)
		}
	}, done), batches)
	set = take()
	m.atMost("deleted", m.during(`1,000 messages marked \Deleted`, func() { store(set, imap.FlagDeleted) }, written), batches)
	m.atMost("expunges", m.during("1,000 expunges", func() {
		if err := c.Expunge().Close(); err != nil {
			t.Fatal(err)
		}
	}, done), batches)
	if got, want := [3]int{inSim("inbox"), inSim("Target"), inSim("Copies")}, [3]int{many - 2*n, n, n}; got != want {
		t.Errorf("Inbox, Target and Copies have %d messages, want %d", got, want)
	}

	for _, a := range []struct {
		mailbox, folder string
		each            int // requests for a message; a few more may complete the rows of a round of changes
	}{{"Drafts", "drafts", 2}, {"Sent", "sentitems", 2}, {"Target", "Target", 2}} {
		before := inSim(a.folder)
		m.atMost("appends", m.during("100 appends to "+a.mailbox, func() {
			for i := range 100 {
				text := fmt.Sprintf("From: a@b.example\r\nTo: %s\r\nSubject: appended %d\r\nMessage-ID: <%s.%d@b.example>\r\nDate: Mon, 23 Nov 2026 10:00:00 +0000\r\n\r\nhello\r\n",
					user, i, a.mailbox, i)
				cmd := c.Append(a.mailbox, int64(len(text)), &imap.AppendOptions{Flags: []imap.Flag{imap.FlagSeen}, Time: time.Now().Add(-time.Hour)})
				if _, err := cmd.Write([]byte(text)); err != nil {
					t.Fatal(err)
				}
				if err := cmd.Close(); err != nil {
					t.Fatal(err)
				}
				if data, err := cmd.Wait(); err != nil || data.UID == 0 {
					t.Fatalf("append %d: %v %v", i, data, err)
				}
			}
		}, done), 100*a.each+5)
		if got := inSim(a.folder); got != before+100 {
			t.Errorf("%s has %d messages, want %d", a.mailbox, got, before+100)
		}
	}
	m.sentCopies(user)
	m.newMail(user)
}

// sentCopies tells what a client's own copy of a message costs that it sends. There is one in the end.
func (m *callMeter) sentCopies(user string) {
	const mails = 10
	text := func(subject string, i int) []byte {
		return fmt.Appendf(nil, "From: %s\r\nTo: x@y.example\r\nSubject: %s %d\r\nMessage-ID: <%[2]s.%[3]d@calls.example>\r\nDate: Mon, 23 Nov 2026 10:00:00 +0000\r\n\r\nhello\r\n",
			user, subject, i)
	}
	send := func(msg []byte) {
		if err := smtp.SendMail(m.addr["smtp/none"], smtp.PlainAuth("", user, e2ePassword, "127.0.0.1"), user, []string{"x@y.example"}, msg); err != nil {
			m.t.Fatal(err)
		}
	}
	file := func(msg []byte) {
		cmd := m.client.Append("Sent", int64(len(msg)), &imap.AppendOptions{Flags: []imap.Flag{imap.FlagSeen}})
		if _, err := cmd.Write(msg); err != nil {
			m.t.Fatal(err)
		}
		if err := cmd.Close(); err != nil {
			m.t.Fatal(err)
		}
		if data, err := cmd.Wait(); err != nil || data.UID == 0 {
			m.t.Fatalf("append: %v %v", data, err)
		}
	}
	for _, o := range []struct {
		name, subject string
		steps         [2]func([]byte)
		each          int
	}{
		{"10 messages sent, then their copies to Sent", "after", [2]func([]byte){send, file}, 4},
		{"10 copies to Sent, then the messages sent", "before", [2]func([]byte){file, send}, 8},
	} {
		before := len(m.sim.Messages(user, "sentitems"))
		cost := m.during(o.name, func() {
			for i := range mails {
				for _, step := range o.steps {
					step(text(o.subject, i))
				}
			}
		}, func() bool {
			removed := m.sim.CountRequests(func(q graphsim.Request) bool { return strings.HasSuffix(q.Path, "/permanentDelete") })
			return len(m.sim.Messages(user, "sentitems")) == before+mails && (o.subject == "after" || removed == mails)
		})
		m.atMost(o.name, cost, o.each*mails)
	}
}

// newMail tells how long a new message takes to an idling client, and what it costs.
func (m *callMeter) newMail(user string) {
	told := make(chan uint32, 10)
	c, err := imapclient.DialInsecure(m.addr["imap/none"], &imapclient.Options{UnilateralDataHandler: &imapclient.UnilateralDataHandler{
		Mailbox: func(data *imapclient.UnilateralDataMailbox) {
			if data.NumMessages != nil {
				told <- *data.NumMessages
			}
		},
	}})
	if err != nil {
		m.t.Fatal(err)
	}
	defer c.Close()
	if err := c.Login(user, e2ePassword).Wait(); err != nil {
		m.t.Fatal(err)
	}
	if _, err := c.Select("INBOX", nil).Wait(); err != nil {
		m.t.Fatal(err)
	}
	idle, err := c.Idle()
	if err != nil {
		m.t.Fatal(err)
	}
	const mails = 5
	var slowest, sum time.Duration
	cost := m.during("5 new messages to an idling client", func() {
		for i := range mails {
			start := time.Now()
			m.sim.DeliverMessage(user, fmt.Appendf(nil, "From: x@y.example\r\nTo: %s\r\nSubject: new %d\r\n\r\nnew\r\n", user, i))
			select {
			case <-told:
			case <-time.After(20 * time.Second):
				m.t.Fatal("not told of a new message within 20 s")
			}
			took := time.Since(start)
			sum += took
			slowest = max(slowest, took)
		}
	}, func() bool { return true })
	m.t.Logf("new mail with a poll time of 1 s: mean %v, longest %v", (sum / mails).Round(time.Millisecond), slowest.Round(time.Millisecond))
	if slowest > 5*time.Second {
		m.t.Errorf("a new message was told after %v", slowest)
	}
	m.atMost("new mail", cost, 3*mails) // its header, and its text ahead of time
	if err := idle.Close(); err != nil {
		m.t.Error(err)
	}
}
