package main

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"postern/backend/graphsim"
	"postern/internal/faultrun"
)

// torture is a mailbox that mail programs and another client, such as Outlook, change at the same time, while Graph
// fails now and then and the server is killed.
type torture struct {
	*rig
	t    *testing.T
	user string

	serving sync.RWMutex // held for writing while the server is down

	mu   sync.Mutex
	uids map[tortureUID]string // Message-ID
	done map[string]int        // what happened how often
	next int
}

// tortureUID is all a client has to tell a message by.
type tortureUID struct {
	mailbox  string
	validity uint32
	uid      imap.UID
}

var tortureFlags = []imap.Flag{imap.FlagSeen, imap.FlagFlagged, imap.FlagAnswered, "Red", "Blue", "$Forwarded"}

func (w *torture) mail() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next++
	return fmt.Appendf(nil, "From: x@y.example\r\nTo: %s\r\nSubject: torture %d\r\nMessage-ID: <t%d@y.example>\r\nDate: Mon, 23 Nov 2026 10:00:00 +0000\r\n\r\nmessage %d\r\n",
		w.user, w.next, w.next, w.next)
}

func (w *torture) count(what string, err error) {
	if err != nil {
		what += " refused"
	}
	w.mu.Lock()
	w.done[what]++
	w.mu.Unlock()
}

// saw notes what a UID means, and fails the test if it has meant something else.
func (w *torture) saw(key tortureUID, id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if before, ok := w.uids[key]; ok && before != id {
		w.t.Errorf("%v was %s and is %s", key, before, id)
	}
	w.uids[key] = id
}

// outlook is one act of the other client. Ids that are gone meanwhile make the simulator panic; those are no act.
func (w *torture) outlook(rnd *rand.Rand) {
	defer func() { _ = recover() }()
	folders := []string{"inbox", "Red box", "Blue box", "archive"}
	folder := folders[rnd.IntN(len(folders))]
	list := w.sim.Messages(w.user, folder)
	act := rnd.IntN(20)
	if len(list) == 0 || act < 4 {
		w.sim.DeliverMessage(w.user, w.mail())
		w.count("delivered", nil)
		return
	}
	msg := list[rnd.IntN(len(list))]
	switch {
	case act < 8:
		w.sim.MoveMessage(w.user, msg.ID, folders[rnd.IntN(len(folders))])
		w.count("moved elsewhere", nil)
	case act < 10:
		w.sim.DeleteMessage(w.user, msg.ID, act == 9)
		w.count("deleted elsewhere", nil)
	case act < 16:
		ch := graphsim.Change{}
		yes := rnd.IntN(2) == 0
		switch rnd.IntN(3) {
		case 0:
			ch.IsRead = &yes
		case 1:
			ch.Flagged = &yes
		default:
			categories := []string{"Red", "Work to do", "größer"}[:rnd.IntN(4)]
			ch.Categories = &categories
		}
		w.sim.UpdateMessage(w.user, msg.ID, ch)
		w.count("changed elsewhere", nil)
	case act < 17:
		names := []string{"Green", "Green", "Yellow", "Grün"}
		w.sim.RenameFolder(w.user, "archive/Leaf", "Leaf") // keeps the path; a change of the tree
		w.sim.SetOverQuota(w.user, rnd.IntN(3) == 0)
		w.count("quota and folder changes", nil)
		w.sim.RenameFolder(w.user, "Third", names[rnd.IntN(len(names))])
	case act < 18:
		w.sim.ResetDelta(w.user, folder)
		w.count("delta reset", nil)
	default:
		faults := []graphsim.Fault{
			{Status: 429, Code: "ApplicationThrottled", RetryAfter: "1", Times: 2},
			{Status: 503, Code: "ServiceUnavailable", Times: 3},
			{Method: "POST", DropAfter: true, Times: 1},
			{Method: "PATCH", DropBefore: true, Times: 2},
			{Path: "messages/delta", ResetDelta: true, Times: 1},
			{Path: "messages/delta", TruncateBody: true, Times: 1},
			{Path: `/move$`, Status: 504, AfterEffect: true, Times: 3},
			{Status: 401, TokenExpired: true, Times: 1},
		}
		f := faults[rnd.IntN(len(faults))]
		f.Mailbox = w.user
		if err := w.sim.Inject(f); err != nil {
			w.t.Error(err)
		}
		w.count("faults", nil)
	}
}

// session is a mail program's connection with one mailbox open.
type tortureSession struct {
	w        *torture
	conn     net.Conn
	c        *imapclient.Client
	mailbox  string
	validity uint32
}

const tortureWait = 40 * time.Second // for one command, with Graph failing

func (w *torture) connect(mailbox string) (*tortureSession, error) {
	conn, err := net.Dial("tcp", w.addr["imap/none"])
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(tortureWait)); err != nil {
		return nil, err
	}
	s := &tortureSession{w: w, conn: conn, c: imapclient.New(conn, nil), mailbox: mailbox}
	if err := s.c.Login(w.user, e2ePassword).Wait(); err != nil {
		s.c.Close()
		return nil, err
	}
	sel, err := s.c.Select(mailbox, nil).Wait()
	if err != nil {
		s.c.Close()
		return nil, err
	}
	s.validity = sel.UIDValidity
	return s, nil
}

// row is a message as a client sees it.
type tortureRow struct {
	uid   imap.UID
	id    string
	flags []imap.Flag
}

func (s *tortureSession) rows() ([]tortureRow, error) {
	msgs, err := s.c.Fetch(imap.UIDSet{imap.UIDRange{Start: 1, Stop: 0}}, &imap.FetchOptions{UID: true, Flags: true, Envelope: true}).Collect()
	var out []tortureRow
	for _, m := range msgs {
		if m.Envelope == nil {
			continue // flags that changed
		}
		s.w.saw(tortureUID{s.mailbox, s.validity, m.UID}, m.Envelope.MessageID)
		out = append(out, tortureRow{m.UID, m.Envelope.MessageID, m.Flags})
	}
	return out, err
}

// act is one command or two. An error of the connection ends the session; a refusal does not.
func (s *tortureSession) act(rnd *rand.Rand) error {
	if err := s.conn.SetDeadline(time.Now().Add(tortureWait)); err != nil {
		return err
	}
	rows, err := s.rows()
	if err != nil {
		return err
	}
	some := func() imap.UIDSet {
		var set imap.UIDSet
		for range 1 + rnd.IntN(3) {
			set.AddNum(rows[rnd.IntN(len(rows))].uid)
		}
		return set
	}
	others := []string{"INBOX", "Red box", "Blue box", "Archive"}
	other := others[rnd.IntN(len(others))]
	act := rnd.IntN(16)
	if len(rows) == 0 {
		act = 15
	}
	what := ""
	switch {
	case act < 7:
		what = "flags"
		op := []imap.StoreFlagsOp{imap.StoreFlagsAdd, imap.StoreFlagsDel, imap.StoreFlagsSet}[rnd.IntN(3)]
		flags := []imap.Flag{tortureFlags[rnd.IntN(len(tortureFlags))], tortureFlags[rnd.IntN(len(tortureFlags))]}
		err = s.c.Store(some(), &imap.StoreFlags{Op: op, Flags: flags, Silent: rnd.IntN(2) == 0}, nil).Close()
	case act < 10:
		what = "move"
		_, err = s.c.Move(some(), other).Wait()
	case act < 12:
		what = "copy"
		_, err = s.c.Copy(some(), other).Wait()
	case act < 14:
		what = "expunge"
		set := some()
		if err = s.c.Store(set, &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Close(); err == nil {
			err = s.c.UIDExpunge(set).Close()
		}
	default:
		what = "append"
		text := s.w.mail()
		cmd := s.c.Append(other, int64(len(text)), &imap.AppendOptions{Flags: []imap.Flag{imap.FlagSeen}})
		if _, err = cmd.Write(text); err == nil {
			if err = cmd.Close(); err == nil {
				_, err = cmd.Wait()
			}
		}
	}
	s.w.count(what, err)
	var refused *imap.Error
	if errors.As(err, &refused) {
		return nil
	}
	return err
}

// program is a mail program that goes on until stop.
func (w *torture) program(rnd *rand.Rand, stop <-chan struct{}) {
	mailboxes := []string{"INBOX", "Red box", "Blue box", "Archive"}
	var s *tortureSession
	for {
		select {
		case <-stop:
			if s != nil {
				s.c.Close()
			}
			return
		default:
		}
		if s == nil {
			w.serving.RLock() // not while it is down
			var err error
			s, err = w.connect(mailboxes[rnd.IntN(len(mailboxes))])
			w.serving.RUnlock()
			if err != nil {
				w.count("log in and select", err)
				continue
			}
		}
		if err := s.act(rnd); err != nil || rnd.IntN(12) == 0 {
			s.c.Close()
			s = nil
		}
	}
}

// truth is what Graph has in a folder, one line for each message; view what a client sees of it.
func (w *torture) truth(folder string) []string {
	var out []string
	for _, m := range w.sim.Messages(w.user, folder) {
		words := slices.Clone(m.Categories)
		for i := range words {
			words[i] = strings.ToLower(asKeyword.Replace(words[i]))
		}
		if m.IsRead {
			words = append(words, `\seen`)
		}
		if m.Flagged {
			words = append(words, `\flagged`)
		}
		slices.Sort(words)
		out = append(out, m.MessageID+" "+strings.Join(words, " "))
	}
	slices.Sort(out)
	return out
}

// asKeyword writes the categories used here as keywords.
var asKeyword = strings.NewReplacer(" ", "_", "ö", "=c3=b6", "ß", "=c3=9f")

func (w *torture) view(mailbox string) ([]string, error) {
	s, err := w.connect(mailbox)
	if err != nil {
		return nil, err
	}
	defer s.c.Close()
	rows, err := s.rows()
	var out []string
	for _, r := range rows {
		var words []string
		for _, f := range r.flags {
			switch f {
			case imap.FlagAnswered, imap.FlagForwarded, imap.FlagDeleted:
				continue // not among what the simulator tells
			}
			words = append(words, strings.ToLower(string(f)))
		}
		slices.Sort(words)
		out = append(out, "<"+r.id+"> "+strings.Join(words, " "))
	}
	slices.Sort(out)
	return out, err
}

// However mail programs, another client, a failing Graph and kill -9 come together: when it is quiet again a mail program sees what
// Graph has, and no UID has ever meant two messages.
func TestE2ETorture(t *testing.T) {
	t.Parallel()
	const user = "torture@contoso.example"
	seed, length := faultrun.Seed(t, 7), faultrun.Length(t, 12*time.Second)
	w := &torture{t: t, user: user, uids: make(map[tortureUID]string), done: make(map[string]int)}
	w.rig = newRig(t, func(sim *graphsim.Sim) {
		sim.AddUser(sampleTenant, graphsim.UserSpec{UPN: user})
		for _, name := range []string{"Red box", "Blue box", "Third"} {
			sim.AddFolder(user, "", name)
		}
		sim.AddFolder(user, "archive", "Leaf")
		for i := range 80 {
			sim.AddMessage(user, []string{"inbox", "Red box", "Blue box", "archive"}[i%4], w.mail(), graphsim.MessageSpec{IsRead: i%3 == 0})
		}
	})
	w.users = []string{user}
	w.stop()
	w.writeConfig(w.graph)
	w.start()

	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() { w.program(rand.New(rand.NewPCG(seed, uint64(i))), stop) })
	}
	wg.Go(func() {
		rnd := rand.New(rand.NewPCG(seed, 11))
		tick := time.NewTicker(15 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				w.outlook(rnd)
			}
		}
	})
	rnd := rand.New(rand.NewPCG(seed, 13))
	for end := time.Now().Add(length); time.Now().Before(end); {
		<-time.After(time.Duration(1000+rnd.IntN(2500)) * time.Millisecond)
		w.serving.Lock()
		w.kill()
		w.start()
		w.serving.Unlock()
		w.count("kills", nil)
	}
	close(stop)
	wg.Wait()
	w.sim.ClearFaults()
	w.sim.SetOverQuota(user, false)

	t.Log("what happened:")
	for _, what := range slices.Sorted(maps.Keys(w.done)) {
		t.Logf("  %5d %s", w.done[what], what)
	}
	for mailbox, folder := range map[string]string{"INBOX": "inbox", "Red box": "Red box", "Blue box": "Blue box", "Archive": "archive", "Trash": "deleteditems"} {
		var graph, seen []string
		deadline := time.Now().Add(40 * time.Second)
		for {
			var err error
			graph = w.truth(folder)
			if seen, err = w.view(mailbox); err == nil && slices.Equal(graph, seen) {
				break
			}
			if time.Now().After(deadline) {
				t.Errorf("%s is not what Graph has (%v):\n%s", mailbox, err, difference(graph, seen))
				break
			}
			<-time.After(200 * time.Millisecond)
		}
	}
}

// difference tells which lines only one of two sorted lists has.
func difference(graph, seen []string) string {
	n := make(map[string]int)
	for _, s := range graph {
		n[s]++
	}
	for _, s := range seen {
		n[s]--
	}
	var b strings.Builder
	for _, s := range slices.Sorted(maps.Keys(n)) {
		if n[s] != 0 {
			fmt.Fprintf(&b, "%+d in Graph: %s\n", n[s], s)
		}
	}
	return b.String()
}
