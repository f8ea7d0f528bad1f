package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"postern/backend/graphsim"
)

// replica is what a client that knows QRESYNC keeps of a mailbox while it is away. RFC 7162 section 3.2.
type replica struct {
	validity, modSeq, uidNext uint64
	flags                     map[uint64]string // by UID; sorted
}

var (
	fetchLine    = regexp.MustCompile(`^\* \d+ FETCH \(UID (\d+)(?: MODSEQ \((\d+)\))? FLAGS \(([^)]*)\)`)
	vanishedLine = regexp.MustCompile(`^\* VANISHED (?:\(EARLIER\) )?(\S+)`)
	codeNumber   = regexp.MustCompile(`\[(UIDVALIDITY|UIDNEXT|HIGHESTMODSEQ|APPENDUID) (\d+)[^]]*\]`)
)

// take applies responses to the replica, and returns the highest mod-sequence in them.
func (c *replica) take(t *testing.T, answer string) (highest uint64) {
	t.Helper()
	number := func(s string) uint64 {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("number in %q: %v", answer, err)
		}
		return n
	}
	for line := range strings.Lines(answer) {
		if m := fetchLine.FindStringSubmatch(line); m != nil {
			words := slices.DeleteFunc(strings.Fields(m[3]), func(f string) bool { return f == `\Recent` })
			slices.Sort(words)
			c.flags[number(m[1])] = strings.Join(words, " ")
			if m[2] != "" {
				highest = max(highest, number(m[2]))
			}
		}
		if m := vanishedLine.FindStringSubmatch(line); m != nil {
			for part := range strings.SplitSeq(m[1], ",") {
				first, last, ok := strings.Cut(part, ":")
				if !ok {
					last = first
				}
				for uid := number(first); uid <= number(last); uid++ {
					delete(c.flags, uid)
				}
			}
		}
		for _, m := range codeNumber.FindAllStringSubmatch(line, -1) {
			switch n := number(m[2]); m[1] {
			case "UIDVALIDITY":
				c.validity = n
			case "UIDNEXT":
				c.uidNext = max(c.uidNext, n)
			case "HIGHESTMODSEQ":
				highest = max(highest, n)
			}
		}
	}
	return highest
}

// TestE2EKillKeepsModSeqs kills the server again and again. HIGHESTMODSEQ and UIDNEXT, once told, never go back, and a
// client that was away gets by QRESYNC just what has changed since, whoever did it: its copy is then what a client sees that
// reads everything.
func TestE2EKillKeepsModSeqs(t *testing.T) {
	r := newRig(t, nil)
	away := &replica{flags: make(map[uint64]string)}
	q := newQuick(t, r.addr["imap/none"])
	away.modSeq = away.take(t, q.ask(t, "SELECT INBOX"))
	away.take(t, q.ask(t, "UID FETCH 1:* (FLAGS)"))
	q.conn.Close()
	validity, told := away.validity, away.modSeq
	if validity == 0 || told == 0 || len(away.flags) < 6 {
		t.Fatalf("SELECT told %+v", away)
	}

	for round := range 3 {
		// Another client works, and other programs do too. Graph takes flags in every other round only.
		if round%2 == 1 {
			if err := r.sim.Inject(graphsim.Fault{Method: "PATCH", Status: 503, RetryAfter: "1"}); err != nil {
				t.Fatal(err)
			}
		}
		busy := &replica{flags: make(map[uint64]string)}
		q := newQuick(t, r.addr["imap/none"])
		ask := func(command string) {
			t.Helper()
			told = max(told, busy.take(t, q.ask(t, command)))
		}
		ask("SELECT INBOX")
		ask("UID FETCH 1:* (FLAGS)")
		uids := slices.Sorted(maps.Keys(busy.flags))
		first, second := uids[0], uids[1]
		ask(fmt.Sprintf(`UID STORE %d +FLAGS (\Deleted)`, first))
		ask(fmt.Sprintf(`UID STORE %d FLAGS (round%d \Answered)`, second, round))
		ask(fmt.Sprintf("UID EXPUNGE %d", first))
		ask(fmt.Sprintf("APPEND INBOX (\\Flagged) {%d+}\r\n%s", len(roundMail(round)), roundMail(round)))
		foreign := fmt.Sprintf("elsewhere-%d", round)
		graphID := r.sim.AddMessage(sampleUser, "inbox", []byte("From: x@y.example\r\nSubject: "+foreign+"\r\n\r\nHello\r\n"), graphsim.MessageSpec{})
		known := len(busy.flags)
		within(t, time.Minute, "news from elsewhere", func() bool {
			ask("NOOP")
			ask("UID FETCH 1:* (FLAGS)")
			return len(busy.flags) > known+1
		})
		r.sim.UpdateMessage(sampleUser, graphID, graphsim.Change{IsRead: new(true)})
		arrived := slices.Max(slices.Collect(maps.Keys(busy.flags)))
		within(t, time.Minute, "a change from elsewhere", func() bool {
			ask("NOOP")
			return busy.flags[arrived] == `\Seen`
		})
		ask(fmt.Sprintf(`UID STORE %d +FLAGS (\Flagged)`, arrived))
		// Nobody waits for the last one.
		if _, err := fmt.Fprintf(q.conn, "x UID STORE %d FLAGS.SILENT (unanswered%d)\r\n", second, round); err != nil {
			t.Fatal(err)
		}
		r.kill()
		r.sim.ClearFaults()
		r.start()

		q = newQuick(t, r.addr["imap/none"])
		answer := q.ask(t, fmt.Sprintf("SELECT INBOX (QRESYNC (%d %d))", away.validity, away.modSeq))
		before := away.modSeq
		away.modSeq = away.take(t, answer)
		if away.validity != validity {
			t.Fatalf("round %d: UIDVALIDITY was %d and is %d", round, validity, away.validity)
		}
		if away.modSeq < told {
			t.Errorf("round %d: HIGHESTMODSEQ is %d after %d was told", round, away.modSeq, told)
		}
		if away.uidNext <= arrived || away.uidNext < busy.uidNext {
			t.Errorf("round %d: UIDNEXT is %d after %d, and UID %d", round, away.uidNext, busy.uidNext, arrived)
		}
		told = max(told, away.modSeq)
		now := &replica{flags: make(map[uint64]string)}
		now.take(t, q.ask(t, "UID FETCH 1:* (FLAGS)"))
		if !maps.Equal(away.flags, now.flags) {
			t.Errorf("round %d: after QRESYNC from %d the copy has\n%v\nand the mailbox\n%v\n%s", round, before, away.flags, now.flags, answer)
		}
		// What was answered holds, and of the last command either nothing or all of it.
		want := maps.Clone(busy.flags)
		if got := now.flags[second]; got == fmt.Sprintf("unanswered%d", round) {
			want[second] = got
		}
		if !maps.Equal(now.flags, want) {
			t.Errorf("round %d: clients were told\n%v\nand the mailbox has\n%v", round, want, now.flags)
		}
		// What is not news is not told: each message that is named has changed since.
		for line := range strings.Lines(answer) {
			if m := fetchLine.FindStringSubmatch(line); m != nil && m[2] != "" {
				if n, _ := strconv.ParseUint(m[2], 10, 64); n <= before {
					t.Errorf("round %d: QRESYNC from %d tells %s", round, before, line)
				}
			}
		}
		q.conn.Close()
	}
}

func roundMail(n int) string {
	return fmt.Sprintf("From: x@y.example\r\nSubject: round %d\r\nMessage-ID: <round%d@e2e.example>\r\n\r\nHello\r\n", n, n)
}
