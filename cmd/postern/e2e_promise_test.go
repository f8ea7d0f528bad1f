package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"postern/backend/graphsim"
	"postern/internal/faultrun"
)

// promised is what a client was told of a message, or may think of it when the answer did not come.
type promised struct {
	text      string
	box       string
	uid       imap.UID // 0: not told
	appended  bool     // the APPEND was answered with OK: the bytes are promised, too
	flags     map[imap.Flag]bool
	unsure    map[imap.Flag]bool // a STORE of these was not answered
	maybeGone bool               // an APPEND or EXPUNGE was not answered
	maybeIn   string             // a MOVE to this mailbox was not answered
}

// witness is one user's mail program, the only one that changes the mailbox. It remembers all that it was told.
type witness struct {
	*rig
	t        *testing.T
	user     string
	rnd      *rand.Rand
	serving  *sync.RWMutex
	messages map[string]*promised // by Message-ID
	validity map[string]uint32
	sent     map[string]bool   // Message-ID: was it accepted
	gone     map[string]string // what became of messages that are not there any more
	next     int
	answered atomic.Int64 // commands with OK
	checks   int
}

var (
	witnessBoxes = []string{"INBOX", "Red", "Blue"}
	witnessFlags = []imap.Flag{imap.FlagSeen, imap.FlagFlagged, imap.FlagAnswered, imap.FlagDeleted, "$Label1", "work"}
)

// errDown ends a connection's life.
var errDown = errors.New("connection lost")

// answer sorts errors: nil for OK, a refusal is no error but not an OK either.
func (w *witness) answer(err error) (ok bool, down error) {
	var no *imap.Error
	switch {
	case err == nil:
		w.answered.Add(1)
		return true, nil
	case errors.As(err, &no) && no.Type == imap.StatusResponseTypeNo:
		return false, nil
	}
	return false, fmt.Errorf("%w: %w", errDown, err)
}

func (w *witness) connect() (*imapclient.Client, error) {
	w.serving.RLock()
	defer w.serving.RUnlock()
	conn, err := net.Dial("tcp", w.addr["imap/none"])
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return nil, err
	}
	c := imapclient.New(conn, nil)
	if err := c.Login(w.user, e2ePassword).Wait(); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (w *witness) id() string {
	w.next++
	return fmt.Sprintf("%d.%s", w.next, w.user)
}

// act does one thing and remembers the answer.
func (w *witness) act(c *imapclient.Client) error {
	var known []string
	for id, m := range w.messages {
		if m.uid != 0 {
			known = append(known, id)
		}
	}
	slices.Sort(known)
	kind := w.rnd.IntN(10)
	if len(known) == 0 || len(known) < 8 && kind > 5 {
		kind = 0
	}
	switch {
	case kind < 3:
		return w.append(c)
	case kind == 3:
		w.submit()
		return nil
	}
	id := known[w.rnd.IntN(len(known))]
	m := w.messages[id]
	if sel, err := c.Select(m.box, nil).Wait(); err != nil {
		_, err = w.answer(err)
		return err
	} else if sel.UIDValidity != w.validity[m.box] {
		w.t.Errorf("%s: UIDVALIDITY was %d, is %d", m.box, w.validity[m.box], sel.UIDValidity)
	}
	set := imap.UIDSetNum(m.uid)
	switch {
	case kind < 7:
		flag := witnessFlags[w.rnd.IntN(len(witnessFlags))]
		op := imap.StoreFlagsAdd
		if m.flags[flag] {
			op = imap.StoreFlagsDel
		}
		ok, err := w.answer(c.Store(set, &imap.StoreFlags{Op: op, Flags: []imap.Flag{flag}}, nil).Close())
		if ok {
			m.flags[flag] = op == imap.StoreFlagsAdd
		} else {
			m.unsure[flag] = true
		}
		return err
	case kind < 9:
		dest := witnessBoxes[w.rnd.IntN(len(witnessBoxes))]
		if dest == m.box {
			return nil
		}
		data, err := c.Move(set, dest).Wait()
		ok, down := w.answer(err)
		if !ok {
			m.maybeIn = dest
			return down
		}
		uids, known := data.DestUIDs.(imap.UIDSet)
		nums, _ := uids.Nums()
		if !known || len(nums) != 1 {
			w.t.Errorf("MOVE says %v", data)
			return nil
		}
		m.box, m.uid = dest, nums[0]
	default:
		err := c.Store(set, &imap.StoreFlags{Op: imap.StoreFlagsAdd, Silent: true, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Close()
		ok, down := w.answer(err)
		if !ok {
			m.unsure[imap.FlagDeleted] = true
			return down
		}
		m.flags[imap.FlagDeleted] = true
		if ok, down = w.answer(c.UIDExpunge(set).Close()); !ok {
			m.maybeGone = true
			return down
		}
		delete(w.messages, id)
		w.gone[id] = fmt.Sprintf("UID %d of %s was expunged", m.uid, m.box)
	}
	return nil
}

func (w *witness) append(c *imapclient.Client) error {
	id := w.id()
	box := witnessBoxes[w.rnd.IntN(len(witnessBoxes))]
	// The odd bytes at the end are such as no server makes up anew.
	text := fmt.Sprintf("From:   x@y.example\r\nTo: %s\r\nSubject: promise\t%d\r\nMessage-ID: <%s>\r\nX-Odd:a\r\n\r\nline %d  \r\n%s\r\n\r\n\r\n", w.user, w.next, id, w.next, strings.Repeat("Ω", w.rnd.IntN(3000)))
	m := &promised{text: text, box: box, flags: map[imap.Flag]bool{}, unsure: map[imap.Flag]bool{}}
	for _, f := range witnessFlags[:3] {
		m.flags[f] = w.rnd.IntN(2) == 0
	}
	w.messages[id] = m
	var flags []imap.Flag
	for f, on := range m.flags {
		if on {
			flags = append(flags, f)
		}
	}
	cmd := c.Append(box, int64(len(text)), &imap.AppendOptions{Flags: flags})
	_, err := cmd.Write([]byte(text))
	if err == nil {
		err = cmd.Close()
	}
	var data *imap.AppendData
	if err == nil {
		data, err = cmd.Wait()
	}
	ok, down := w.answer(err)
	if !ok {
		m.maybeGone = true
		return down
	}
	if data.UID == 0 || data.UIDValidity != w.validity[box] {
		w.t.Errorf("APPEND says %v, UIDVALIDITY is %d", data, w.validity[box])
	}
	m.uid, m.appended = data.UID, true
	return nil
}

func (w *witness) submit() {
	id := "<" + w.id() + ">"
	w.serving.RLock()
	addr := w.addr["smtp/none"]
	w.serving.RUnlock()
	w.sent[id] = sendMail(addr, w.user, w.user, "one@fabrikam.example", id) == nil
}

// check compares the mailboxes with what was told, and takes over what was not.
func (w *witness) check(c *imapclient.Client, texts bool) error {
	seen := make(map[string]int)
	for _, box := range witnessBoxes {
		sel, err := c.Select(box, &imap.SelectOptions{ReadOnly: true}).Wait()
		if err != nil {
			_, err = w.answer(err)
			return err
		}
		if before, ok := w.validity[box]; ok && before != sel.UIDValidity {
			w.t.Errorf("%s: UIDVALIDITY was %d, is %d", box, before, sel.UIDValidity)
		}
		w.validity[box] = sel.UIDValidity
		options := &imap.FetchOptions{UID: true, Flags: true, Envelope: true}
		if texts {
			options.BodySection = []*imap.FetchItemBodySection{{Peek: true}}
		}
		rows, err := c.Fetch(imap.UIDSet{imap.UIDRange{Start: 1, Stop: 0}}, options).Collect()
		if err != nil {
			_, err = w.answer(err)
			return err
		}
		for _, row := range rows {
			if row.Envelope == nil {
				continue // flags only
			}
			id := row.Envelope.MessageID
			m := w.messages[id]
			if m == nil {
				w.t.Errorf("%s has %q as UID %d, but %s", box, id, row.UID, w.gone[id])
				continue
			}
			if seen[id]++; seen[id] > 1 {
				w.t.Errorf("%q is there %d times", id, seen[id])
			}
			switch {
			case m.uid == 0 && m.box == box: // appended without an answer, or moved and found where it was
				m.uid = row.UID
			case m.maybeIn == box:
				m.box, m.uid = box, row.UID
				m.appended = false // another UID; that its bytes are the same nobody was told
			case m.box != box || m.uid != row.UID:
				w.t.Errorf("%q was UID %d of %s and is UID %d of %s", id, m.uid, m.box, row.UID, box)
			}
			for _, f := range witnessFlags {
				has := slices.Contains(row.Flags, f)
				if m.unsure[f] {
					m.flags[f] = has
				} else if has != m.flags[f] {
					w.t.Errorf("%q: flag %s was %v and is %v", id, f, m.flags[f], has)
				}
			}
			if texts && m.appended {
				if got := string(row.BodySection[0].Bytes); got != m.text {
					w.t.Errorf("%q reads\n%q\nand was\n%q", id, got, m.text)
				}
			}
			m.maybeIn, m.maybeGone = "", false
			clear(m.unsure)
		}
	}
	for id, m := range w.messages {
		if seen[id] > 0 {
			continue
		}
		if m.maybeIn != "" {
			// Graph has moved it and nobody was told. It may have left the one mailbox with a round of changes, and come to the
			// other with one that is still under way.
			m.uid = 0
			continue
		}
		if !m.maybeGone {
			w.t.Errorf("%q, UID %d of %s, is lost", id, m.uid, m.box)
		}
		if m.uid == 0 {
			continue // the server died while Graph made it: it comes with a later round of changes, or never was
		}
		w.gone[id] = fmt.Sprintf("UID %d of %s, perhaps moved to %q, was perhaps expunged, and not there at check %d", m.uid, m.box, m.maybeIn, w.checks)
		delete(w.messages, id)
	}
	w.checks++
	return nil
}

// unlikeGraph returns in what Graph's mailboxes are other than what was told.
func (w *witness) unlikeGraph() (differs []string) {
	inGraph := make(map[string]string)
	for _, folder := range []string{"inbox", "Red", "Blue"} {
		for _, m := range w.sim.Messages(w.user, folder) {
			inGraph[m.MessageID] += fmt.Sprintf("%s, read %v, flagged %v; ", strings.ToLower(folder), m.IsRead, m.Flagged)
		}
	}
	for id, m := range w.messages {
		is := inGraph["<"+id+">"]
		delete(inGraph, "<"+id+">")
		if m.uid == 0 {
			continue // its client was told nothing
		}
		if want := fmt.Sprintf("%s, read %v, flagged %v; ", strings.ToLower(m.box), m.flags[imap.FlagSeen], m.flags[imap.FlagFlagged]); is != want {
			differs = append(differs, fmt.Sprintf("%s is %q, told was %q as UID %d", id, is, want, m.uid))
		}
	}
	for id, is := range inGraph {
		differs = append(differs, fmt.Sprintf("%s is %q, told was that it is gone: %s", id, is, w.gone[strings.Trim(id, "<>")]))
	}
	return differs
}

// run works until stop is closed. Whenever a connection has gone, the next one begins with a check.
func (w *witness) run(stop <-chan struct{}) {
	var c *imapclient.Client
	defer func() {
		if c != nil {
			c.Close()
		}
	}()
	for {
		select {
		case <-stop:
			return
		default:
		}
		err := error(nil)
		if c == nil {
			if c, err = w.connect(); err != nil {
				c = nil
				<-time.After(20 * time.Millisecond)
				continue
			}
			err = w.check(c, false)
		} else {
			err = w.act(c)
		}
		if err != nil {
			c.Close()
			c = nil
		}
	}
}

// TestE2EKillPromises kills the server at any moment while mail programs append, mark, move, expunge and submit, with a Graph that is slow
// and fails now and then. What a client was told stays true: UIDs, flags, where messages are and their bytes; mail that was accepted
// leaves once, other mail at most once.
func TestE2EKillPromises(t *testing.T) {
	t.Parallel()
	length, seed := faultrun.Length(t, 6*time.Second), faultrun.Seed(t, 1)
	users := []string{"w1@contoso.example", "w2@contoso.example", "w3@contoso.example", "w4@contoso.example"}
	r := newRig(t, func(sim *graphsim.Sim) {
		for _, u := range users {
			sim.AddUser(sampleTenant, graphsim.UserSpec{UPN: u})
			sim.AddFolder(u, "", "Red")
			sim.AddFolder(u, "", "Blue")
		}
	})
	r.stop()
	r.users = users
	r.writeConfig(r.graph)
	for i, f := range []graphsim.Fault{
		{Path: "/v1.0/", Delay: 20 * time.Millisecond, Probability: 0.2},
		{Path: "/messages|/batch", Status: 503, Probability: 0.01},
		{Path: "/send(Mail)?$", DropAfter: true, Probability: 0.1},
	} {
		f.Seed = seed + uint64(i)
		if err := r.sim.Inject(f); err != nil {
			t.Fatal(err)
		}
	}
	r.start()
	var serving sync.RWMutex
	stop := make(chan struct{})
	var working sync.WaitGroup
	var all []*witness
	for i, u := range users {
		w := &witness{rig: r, t: t, user: u, rnd: rand.New(rand.NewPCG(seed, uint64(i))), serving: &serving,
			messages: make(map[string]*promised), validity: make(map[string]uint32), sent: make(map[string]bool), gone: make(map[string]string)}
		all = append(all, w)
		working.Go(func() { w.run(stop) })
	}
	rnd := rand.New(rand.NewPCG(seed, 99))
	kills := 0
	enough := func() bool { // on a busy machine that takes longer
		var n int64
		for _, w := range all {
			n += w.answered.Load()
		}
		return n >= 40 && kills >= 3
	}
	for began := time.Now(); time.Since(began) < length || !enough() && time.Since(began) < length+2*time.Minute; kills++ {
		<-time.After(time.Duration(150+rnd.IntN(1200)) * time.Millisecond)
		serving.Lock()
		r.kill()
		r.start()
		serving.Unlock()
	}
	close(stop)
	working.Wait()
	r.sim.ClearFaults()

	accepted := make(map[string]bool)
	answered, checks := 0, 0
	for _, w := range all {
		c, err := w.connect()
		if err != nil {
			t.Fatal(err)
		}
		if err := w.check(c, true); err != nil {
			t.Error(err)
		}
		within(t, time.Minute, "what was being moved is somewhere", func() bool {
			for _, m := range w.messages {
				if m.maybeIn != "" {
					return w.check(c, true) != nil
				}
			}
			return true
		})
		c.Close()
		answered += int(w.answered.Load())
		checks += w.checks
		for id, ok := range w.sent {
			accepted[id] = ok
		}
	}
	r.drain(t)
	r.onceEach(t, accepted)
	// And Graph has it too.
	for _, w := range all {
		var differs []string
		defer func() {
			for _, d := range differs {
				t.Log(d)
			}
		}()
		within(t, time.Minute, "Graph has what "+w.user+" was told", func() bool {
			differs = w.unlikeGraph()
			return len(differs) == 0
		})
	}
	t.Logf("seed %d: %d kills, %d commands answered, %d checks, %d messages submitted", seed, kills, answered, checks, len(accepted))
	if answered < 40 || kills < 3 {
		t.Errorf("%d commands were answered between %d kills: the run shows little", answered, kills)
	}
}
