package imapd

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/faultrun"
)

// mirror is what a client believes of its mailbox from the responses alone.
type mirror struct {
	c     *client
	uids  []uint32 // by sequence number; 0: not known
	flags map[uint32]string
	busy  string // the command that runs
}

// take applies one untagged response.
func (m *mirror) take(line string) error {
	fields := strings.Fields(line)
	if len(fields) < 3 {
		return nil
	}
	n, err := strconv.Atoi(fields[1])
	if err != nil {
		return nil
	}
	switch fields[2] {
	case "EXISTS":
		if n < len(m.uids) {
			return fmt.Errorf("%s: EXISTS fell from %d to %d", m.busy, len(m.uids), n)
		}
		m.uids = append(m.uids, make([]uint32, n-len(m.uids))...)
	case "EXPUNGE":
		if n < 1 || n > len(m.uids) {
			return fmt.Errorf("%s: EXPUNGE %d of %d", m.busy, n, len(m.uids))
		}
		if strings.HasPrefix(m.busy, "STORE") || strings.HasPrefix(m.busy, "FETCH") {
			return fmt.Errorf("%s: EXPUNGE in between", m.busy)
		}
		m.uids = slices.Delete(m.uids, n-1, n)
	case "FETCH":
		if n < 1 || n > len(m.uids) {
			return fmt.Errorf("%s: FETCH %d of %d", m.busy, n, len(m.uids))
		}
		_, rest, ok := strings.Cut(line, "UID ")
		if !ok {
			return fmt.Errorf("%s: no UID in %q", m.busy, line)
		}
		num, _, _ := strings.Cut(strings.TrimRight(rest, ")"), " ")
		uid, err := strconv.ParseUint(num, 10, 32)
		if err != nil {
			return fmt.Errorf("%s: %q: %v", m.busy, line, err)
		}
		if have := m.uids[n-1]; have != 0 && have != uint32(uid) {
			return fmt.Errorf("%s: message %d was UID %d and is now %d", m.busy, n, have, uid)
		}
		m.uids[n-1] = uint32(uid)
		if _, flags, ok := strings.Cut(line, "FLAGS ("); ok {
			flags, _, _ = strings.Cut(flags, ")")
			words := slices.DeleteFunc(strings.Fields(flags), func(f string) bool { return f == `\Recent` })
			slices.Sort(words)
			m.flags[uint32(uid)] = strings.Join(words, " ")
		}
	}
	return nil
}

// run sends a command and takes the responses. NO and BAD are no errors: others
// may have removed what the command means.
func (m *mirror) run(command string) error {
	m.busy = command
	m.c.send("x " + command + "\r\n")
	for {
		line, err := m.c.line()
		if err != nil {
			return fmt.Errorf("%.80s: %q, %v", command, line, err)
		}
		if strings.HasPrefix(line, "x ") {
			if strings.Contains(line, "SERVERBUG") {
				return fmt.Errorf("%.80s: %s", command, line)
			}
			return nil
		}
		if err := m.take(line); err != nil {
			return err
		}
	}
}

// TestSessionsAgree lets several sessions change one mailbox at random. None may
// ever be told something that contradicts what it was told before, and in the
// end all must see the same, and what Graph has. Two of them are of another login.
func TestSessionsAgree(t *testing.T) {
	w := newWorld(t, Limits{})
	const sessions, rounds = 4, 60
	seed, end := faultrun.Seed(t, 7), time.Now().Add(faultrun.Length(t, 0))
	mirrors := make([]*mirror, sessions)
	for i := range mirrors {
		mirrors[i] = &mirror{c: w.login([]string{"alice", "boss"}[i%2]), flags: make(map[uint32]string)}
	}
	for i := range 20 {
		if err := mirrors[0].run(fmt.Sprintf("APPEND INBOX {22+}\r\nSubject: n%3d\r\n\r\nHello", i)); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for i, m := range mirrors {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), seed))
			step := func(command string) {
				if err := m.run(command); err != nil {
					t.Error(err)
				}
			}
			step("SELECT INBOX")
			step("FETCH 1:* (UID FLAGS)")
			for round := 0; round < rounds || time.Now().Before(end); round++ {
				if t.Failed() {
					return
				}
				n := max(1, len(m.uids))
				seq := 1 + rng.IntN(n)
				switch rng.IntN(12) {
				case 0:
					step("APPEND INBOX {22+}\r\nSubject: more\r\n\r\nHello")
				case 1:
					step(fmt.Sprintf("STORE %d +FLAGS (\\Deleted)", seq))
				case 2:
					step("EXPUNGE")
				case 3:
					step(fmt.Sprintf("STORE %d +FLAGS (\\Seen $K%d)", seq, rng.IntN(3)))
				case 4:
					step(fmt.Sprintf("STORE %d -FLAGS (\\Seen)", seq))
				case 5:
					step(fmt.Sprintf("COPY %d INBOX", seq))
				case 6:
					step(fmt.Sprintf("FETCH %d (UID FLAGS)", seq))
				case 7:
					step("UID FETCH 1:* (FLAGS)")
				case 9:
					step(fmt.Sprintf("MOVE %d Archive", seq))
				case 10:
					step(fmt.Sprintf("MOVE %d INBOX", seq))
				case 8:
					m.c.send("i IDLE\r\nDONE\r\n")
					step("NOOP")
				default:
					step("NOOP")
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	// Changes of others arrive by the journal; each asks until all see the same.
	deadline := time.Now().Add(patience)
	for {
		var states []string
		for _, m := range mirrors {
			m.flags = make(map[uint32]string)
			for _, command := range []string{"NOOP", "UID FETCH 1:* (FLAGS)"} {
				if err := m.run(command); err != nil {
					t.Fatal(err)
				}
			}
			var sb strings.Builder
			for seq, uid := range m.uids {
				fmt.Fprintf(&sb, "%d=%d(%s) ", seq+1, uid, m.flags[uid])
			}
			states = append(states, sb.String())
		}
		inGraph := w.sim.Messages(alice, "inbox")
		seen := 0
		for _, msg := range inGraph {
			if msg.IsRead {
				seen++
			}
		}
		if len(slices.Compact(states)) == 1 && len(inGraph) == len(mirrors[0].uids) && seen == strings.Count(states[0], `\Seen`) {
			t.Logf("%d messages in the end", len(inGraph))
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("sessions do not agree, or not with Graph (%d messages, %d read):\n%s", len(inGraph), seen, strings.Join(states, "\n"))
		}
	}
}
