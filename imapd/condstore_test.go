package imapd

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
)

// number returns the number behind key in one of the lines.
func number(t *testing.T, lines []string, key string) uint64 {
	t.Helper()
	for _, l := range lines {
		if _, rest, ok := strings.Cut(l, key); ok {
			end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
			if end < 0 {
				end = len(rest)
			}
			n, err := strconv.ParseUint(rest[:end], 10, 64)
			if err != nil {
				t.Fatalf("%s in %q: %v", key, l, err)
			}
			return n
		}
	}
	t.Fatalf("no %s in %q", key, lines)
	return 0
}

// wantLines checks that the lines are those wanted, in that order.
func wantLines(t *testing.T, got []string, want ...string) {
	t.Helper()
	ok := len(got) == len(want)
	for i := 0; ok && i < len(got); i++ {
		ok = matches(want[i], got[i])
	}
	if !ok {
		t.Fatalf("got  %q\nwant %q", got, want)
	}
}

func (c *client) fill(name string, n int) {
	c.t.Helper()
	for i := range n {
		c.ok(fmt.Sprintf("APPEND %s {22+}\r\nSubject: n%3d\r\n\r\nHello", name, i))
	}
}

// Nobody who has not asked for them is told mod-sequences: mbsync takes them for garbage.
func TestNoModSeqUnasked(t *testing.T) {
	w := newWorld(t, Limits{})
	c := w.login("alice")
	c.fill("INBOX", 2)
	c.ok("SELECT INBOX")
	wantLines(t, c.ok("STORE 1 +FLAGS (\\Flagged)"), "* 1 FETCH (UID 1 FLAGS (\\Flagged \\Recent))")
	wantLines(t, c.ok("STORE 1 +FLAGS.SILENT (\\Seen)"))
	wantLines(t, c.ok("FETCH 2 (FLAGS)"), "* 2 FETCH (FLAGS (\\Recent))")
	d := w.login("alice")
	d.ok("SELECT INBOX")
	d.ok("STORE 2 +FLAGS (\\Deleted)")
	wantLines(t, c.ok("NOOP"), "* 2 FETCH (UID 2 FLAGS (\\Deleted \\Recent))")
	if lines, tagged := d.do("EXPUNGE"); tagged != "OK EXPUNGE completed" {
		t.Errorf("%q %s", lines, tagged)
	}
}

func TestCondstore(t *testing.T) {
	w := newWorld(t, Limits{})
	c := w.login("alice")
	c.fill("INBOX", 4)
	first := number(t, c.ok("SELECT INBOX (CONDSTORE)"), "[HIGHESTMODSEQ ")
	lines := c.ok("FETCH 1:4 (MODSEQ)")
	if len(lines) != 4 || number(t, lines[3:], "MODSEQ (") != first {
		t.Fatalf("%q, highest is %d", lines, first)
	}

	// STORE tells the new one, silent or not.
	lines = c.ok("STORE 1 +FLAGS (\\Flagged)")
	wantLines(t, lines, "* 1 FETCH (UID 1 MODSEQ ({{\\d+}}) FLAGS (\\Flagged \\Recent))")
	second := number(t, lines, "MODSEQ (")
	if second <= first {
		t.Errorf("mod-sequence %d after %d", second, first)
	}
	wantLines(t, c.ok("UID STORE 2 +FLAGS.SILENT (\\Seen)"), "* 2 FETCH (UID 2 MODSEQ ({{\\d+}}))")
	// One that changes nothing says nothing.
	wantLines(t, c.ok("STORE 2 +FLAGS.SILENT (\\Seen)"))

	// CHANGEDSINCE
	wantLines(t, c.ok(fmt.Sprintf("FETCH 1:* (FLAGS) (CHANGEDSINCE %d)", first)),
		"* 1 FETCH (FLAGS (\\Flagged \\Recent) MODSEQ ({{\\d+}}))", "* 2 FETCH (FLAGS (\\Seen \\Recent) MODSEQ ({{\\d+}}))")
	wantLines(t, c.ok(fmt.Sprintf("UID FETCH 1:* (FLAGS) (CHANGEDSINCE %d)", second)),
		"* 2 FETCH (UID 2 FLAGS (\\Seen \\Recent) MODSEQ ({{\\d+}}))")

	// Conditional STORE leaves alone what has changed, and says what it is now.
	lines, tagged := c.do(fmt.Sprintf("STORE 1:3 (UNCHANGEDSINCE %d) +FLAGS.SILENT (\\Answered)", first))
	if tagged != "OK [MODIFIED 1:2] Conditional STORE failed for some messages" {
		t.Error(tagged)
	}
	wantLines(t, lines, "* 3 FETCH (UID 3 MODSEQ ({{\\d+}}))",
		"* 1 FETCH (UID 1 MODSEQ ({{\\d+}}) FLAGS (\\Flagged \\Recent))", "* 2 FETCH (UID 2 MODSEQ ({{\\d+}}) FLAGS (\\Seen \\Recent))")
	_, tagged = c.do(fmt.Sprintf("UID STORE 1,4 (UNCHANGEDSINCE %d) +FLAGS.SILENT (\\Answered)", first))
	if !strings.HasPrefix(tagged, "OK [MODIFIED 1] ") {
		t.Error(tagged)
	}
	// 0 is older than any message.
	if _, tagged = c.do("STORE 4 (UNCHANGEDSINCE 0) +FLAGS (\\Deleted)"); !strings.HasPrefix(tagged, "OK [MODIFIED 4] ") {
		t.Error(tagged)
	}
	wantLines(t, c.ok("SEARCH DELETED"), "* SEARCH")

	// SEARCH MODSEQ
	lines = c.ok(fmt.Sprintf("SEARCH MODSEQ %d", second))
	wantLines(t, lines, "* SEARCH 1 2 3 4 (MODSEQ {{\\d+}})")
	wantLines(t, c.ok(fmt.Sprintf(`SEARCH MODSEQ "/flags/\\seen" all %d`, second+1)), "* SEARCH 2 3 4 (MODSEQ {{\\d+}})")

	// A FETCH that sets \Seen tells what has become of the mod-sequence.
	lines = c.ok("FETCH 3 BODY[TEXT]")
	if l := lines[len(lines)-1]; !matches("* 3 FETCH (UID 3 MODSEQ ({{\\d+}}))", l) {
		t.Errorf("%q", lines)
	}

	// Others' changes, new messages, removals.
	d := w.login("alice")
	d.ok("SELECT INBOX")
	d.ok("STORE 4 +FLAGS (\\Deleted)")
	wantLines(t, c.ok("NOOP"), "* 4 FETCH (UID 4 MODSEQ ({{\\d+}}) FLAGS (\\Answered \\Deleted \\Recent))")
	lines, tagged = c.do("EXPUNGE")
	wantLines(t, lines, "* 4 EXPUNGE", "* 3 RECENT")
	highest := number(t, []string{tagged}, "OK [HIGHESTMODSEQ ")
	wantLines(t, c.ok("STATUS INBOX (MESSAGES HIGHESTMODSEQ)"), fmt.Sprintf("* STATUS INBOX (MESSAGES 3 HIGHESTMODSEQ %d)", highest))
	d.ok("NOOP")
	wantLines(t, c.ok(fmt.Sprintf("FETCH 1:* UID (CHANGEDSINCE %d)", highest)))
}

// Each of these commands is one that only a client sends that knows mod-sequences.
func TestCondstoreEnabling(t *testing.T) {
	w := newWorld(t, Limits{})
	w.login("alice").fill("INBOX", 1)
	for _, command := range []string{
		"STATUS INBOX (HIGHESTMODSEQ)", `LIST "" INBOX RETURN (STATUS (HIGHESTMODSEQ))`, "FETCH 1 (MODSEQ)", "UID FETCH 1 FLAGS (CHANGEDSINCE 1)",
		"STORE 1 (UNCHANGEDSINCE 1000000) FLAGS ()", "SEARCH MODSEQ 1", "ENABLE CONDSTORE", "ENABLE QRESYNC",
	} {
		c := w.login("alice")
		c.ok("SELECT INBOX")
		if lines := c.ok(command); !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, "* OK [HIGHESTMODSEQ ") }) {
			t.Errorf("%s: %q", command, lines)
		}
		c.ok("STORE 1 FLAGS ()")
		if lines := c.ok("STORE 1 FLAGS (\\Seen)"); !strings.Contains(strings.Join(lines, ""), "MODSEQ (") {
			t.Errorf("after %s: %q", command, lines)
		}
	}
}

func TestCondstoreSyntax(t *testing.T) {
	w := newWorld(t, Limits{})
	c := w.login("alice")
	c.fill("INBOX", 1)
	c.ok("SELECT INBOX")
	for _, command := range []string{
		"SELECT INBOX (QRESYNC (1 1))", "SELECT INBOX (FOO)", "UID FETCH 1:* FLAGS (CHANGEDSINCE 1 VANISHED)",
		"STORE 1 (UNCHANGEDSINCE -1) FLAGS ()", "STORE 1 (FOO 1) FLAGS ()", "FETCH 1 FLAGS (CHANGEDSINCE)",
		"STORE 1 (UNCHANGEDSINCE 9223372036854775808) FLAGS ()",
	} {
		if _, tagged := c.do(command); !strings.HasPrefix(tagged, "BAD") {
			t.Errorf("%s: %s", command, tagged)
		}
	}
	c.ok("ENABLE QRESYNC")
	for _, command := range []string{
		"SELECT INBOX (QRESYNC 1 1)", "SELECT INBOX (QRESYNC (1))", "SELECT INBOX (QRESYNC (1 1 1:2 (1)))", "FETCH 1:* FLAGS (CHANGEDSINCE 1 VANISHED)",
		"UID FETCH 1:* FLAGS (VANISHED)",
	} {
		if _, tagged := c.do(command); !strings.HasPrefix(tagged, "BAD") {
			t.Errorf("%s: %s", command, tagged)
		}
	}
}

func TestQresync(t *testing.T) {
	w := newWorld(t, Limits{})
	c := w.login("alice")
	c.fill("INBOX", 6)
	c.ok("ENABLE QRESYNC")
	lines := c.ok("SELECT INBOX")
	validity, left := number(t, lines, "[UIDVALIDITY "), number(t, lines, "[HIGHESTMODSEQ ")
	c.ok("UNSELECT")

	d := w.login("alice")
	d.ok("SELECT INBOX")
	d.ok("STORE 2:3,5 +FLAGS.SILENT (\\Deleted)")
	d.ok("EXPUNGE") // 1 4 6 stay
	d.ok("STORE 2 +FLAGS.SILENT (\\Flagged)")
	d.fill("INBOX", 1)

	resync := func(args string) []string {
		t.Helper()
		lines := c.ok(fmt.Sprintf("SELECT INBOX (QRESYNC (%d %d%s))", validity, left, args))
		i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "* OK [HIGHESTMODSEQ ") })
		return lines[i+1:]
	}
	flagged := "* 2 FETCH (UID 4 MODSEQ ({{\\d+}}) FLAGS (\\Flagged))"
	added := "* 4 FETCH (UID 7 MODSEQ ({{\\d+}}) FLAGS ({{.*}}))"
	wantLines(t, resync(""), "* VANISHED (EARLIER) 2:3,5", flagged, added)
	wantLines(t, resync(" 1:6"), "* VANISHED (EARLIER) 2:3,5", flagged)
	wantLines(t, resync(" 1:2,5"), "* VANISHED (EARLIER) 2,5")
	wantLines(t, resync(" 4"), flagged)
	// Numbers: what the client had as 1 is still 1, as 2 no longer is.
	wantLines(t, resync(" 1:6 (1,4 1,4)"), "* VANISHED (EARLIER) 2:3,5", flagged)
	wantLines(t, resync(" (1:2 1,4)"), "* VANISHED (EARLIER) 5", flagged, added) // up to 4 it knew already
	left++                                                                       // at least the removals were told
	validity++
	wantLines(t, resync("")) // another life of the mailbox: nothing to say
	validity--
	left--

	// UID FETCH with VANISHED
	wantLines(t, c.ok(fmt.Sprintf("UID FETCH 3:7 (FLAGS) (CHANGEDSINCE %d VANISHED)", left)), "* VANISHED (EARLIER) 3,5",
		"* 2 FETCH (UID 4 FLAGS (\\Flagged) MODSEQ ({{\\d+}}))", "* 4 FETCH (UID 7 FLAGS ({{.*}}) MODSEQ ({{\\d+}}))")

	wantLines(t, c.ok(fmt.Sprintf("UID FETCH 2:3 (FLAGS) (CHANGEDSINCE %d VANISHED)", left)), "* VANISHED (EARLIER) 2:3")

	// VANISHED instead of EXPUNGE, own and others' removals.
	lines, _ = c.do("UID STORE 1,6 +FLAGS.SILENT (\\Deleted)")
	wantLines(t, lines, "* 1 FETCH (UID 1 MODSEQ ({{\\d+}}))", "* 3 FETCH (UID 6 MODSEQ ({{\\d+}}))")
	lines, tagged := c.do("UID EXPUNGE 1:6")
	wantLines(t, lines, "* VANISHED 1,6")
	if !matches("OK [HIGHESTMODSEQ {{\\d+}}] UID EXPUNGE completed", tagged) {
		t.Error(tagged)
	}
	d.ok("NOOP")
	d.ok("MOVE 1 Archive")
	wantLines(t, c.ok("NOOP"), "* VANISHED 4")
	wantLines(t, c.ok("FETCH 1:* UID"), "* 1 FETCH (UID 7)")

	// CLOSE says up to where the client knows all.
	c.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
	_, tagged = c.do("CLOSE")
	left = number(t, []string{tagged}, "OK [HIGHESTMODSEQ ")
	wantLines(t, resync(""))
}

// A removal that the client could not be told of yet must not be skipped by a higher mod-sequence.
func TestToldModSeq(t *testing.T) {
	w := newWorld(t, Limits{})
	c, d := w.login("alice"), w.login("alice")
	c.fill("INBOX", 3)
	before := number(t, c.ok("SELECT INBOX"), "[HIGHESTMODSEQ ")
	d.ok("SELECT INBOX")
	d.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
	d.ok("EXPUNGE")
	// Not a command that may tell removals.
	lines := c.ok("FETCH 2 (MODSEQ)")
	if got := number(t, lines, "[HIGHESTMODSEQ "); got != before {
		t.Errorf("told %d, knows all up to %d", got, before)
	}
	wantLines(t, c.ok("NOOP"), "* 1 EXPUNGE", "* 2 RECENT")
	lines, tagged := c.do("EXPUNGE")
	wantLines(t, lines)
	if got := number(t, []string{tagged}, "[HIGHESTMODSEQ "); got <= before {
		t.Errorf("told %d", got)
	}
}

func TestResyncMatched(t *testing.T) {
	v := &view{uids: []imap.UID{2, 3, 7, 8, 9, 20}}
	seqs := func(r ...uint32) (s imap.SeqSet) {
		for i := 0; i < len(r); i += 2 {
			s = append(s, imap.SeqRange{Start: r[i], Stop: r[i+1]})
		}
		return s
	}
	uids := func(r ...imap.UID) (s imap.UIDSet) {
		for i := 0; i < len(r); i += 2 {
			s = append(s, imap.UIDRange{Start: r[i], Stop: r[i+1]})
		}
		return s
	}
	const top = 1<<32 - 1
	for _, tt := range []struct {
		seqs imap.SeqSet
		uids imap.UIDSet
		want imap.UID
	}{
		{nil, nil, 0},
		{seqs(1, 1), uids(2, 2), 2},
		{seqs(1, 1), uids(1, 1), 0},
		{seqs(3, 5), uids(7, 9), 9},
		{seqs(2, 6), uids(3, 3, 7, 9, 20, 20), 20},
		{seqs(2, 6), uids(3, 7), 3},
		{seqs(1, top), uids(1, top), 0},
		{seqs(1, top), uids(2, top), 3},
		{seqs(7, top), uids(21, top), 0},
		{seqs(0, 0), uids(20, 20), 0},
		{seqs(1, 2), uids(0, 0), 0},
		{seqs(1, 3), uids(2, 2), 2},
	} {
		if got := (&resync{seqs: tt.seqs, uids: tt.uids}).matched(v); got != tt.want {
			t.Errorf("%v %v: %d, want %d", tt.seqs, tt.uids, got, tt.want)
		}
	}
}

func TestWithin(t *testing.T) {
	all := []imap.UID{1, 4, 5, 9}
	for _, tt := range []struct {
		set  imap.UIDSet
		want []imap.UID
	}{
		{nil, all},
		{imap.UIDSet{}, nil},
		{imap.UIDSet{{Start: 4, Stop: 5}}, []imap.UID{4, 5}},
		{imap.UIDSet{{Start: 2, Stop: 3}, {Start: 5, Stop: 0}}, []imap.UID{5, 9}},
		{imap.UIDSet{{Start: 0, Stop: 0}}, nil},
	} {
		if got := within(all, tt.set); !slices.Equal(got, tt.want) {
			t.Errorf("%v: %v, want %v", tt.set, got, tt.want)
		}
	}
}
