package imapd

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// dialogues are the parts of one long dialogue. Each has exchanges "session command" or "note NAME", one on a line.
var dialogues = []struct{ name, lines string }{
	{"store", `
0 SELECT INBOX
1 SELECT INBOX
0 STORE 1 +FLAGS (\Seen)
0 STORE 2:3 FLAGS (\Flagged Work)
1 NOOP
1 STORE 1 -FLAGS.SILENT (\Seen)
0 NOOP
0 STORE 1,3 +FLAGS (\Answered)
0 UID STORE 4:5 +FLAGS.SILENT (\Draft)
0 UID STORE 999 +FLAGS (\Seen)
0 STORE 99 +FLAGS (\Seen)
0 STORE 1 +FLAGS (\Recent)
0 STORE 1 +FLAGS (\Nonsense)
0 STORE 1 FLAGS ()
0 STORE 1 +FLAGS \Seen
0 STORE 1 -FLAGS \Seen \Flagged
0 STORE 1:* -FLAGS (\Seen \Flagged \Answered \Draft Work)
1 NOOP
0 FETCH 1:* FLAGS
1 FETCH 1:* FLAGS
0 FETCH 1 BODY[TEXT]
1 NOOP
`},
	{"expunge", `
0 STORE 2,4 +FLAGS.SILENT (\Deleted)
1 NOOP
0 EXPUNGE
0 EXPUNGE
1 FETCH 1:* UID
1 NOOP
1 FETCH 1:* UID
0 STORE 1:2 +FLAGS.SILENT (\Deleted)
0 UID EXPUNGE 1
0 UID EXPUNGE 99
0 FETCH 1:* (UID FLAGS)
1 FETCH 2 FLAGS
1 STORE 2 +FLAGS (\Flagged)
1 NOOP
0 CLOSE
0 FETCH 1 FLAGS
0 SELECT INBOX
1 NOOP
0 UNSELECT
0 EXAMINE INBOX
0 STORE 1 +FLAGS (\Seen)
0 EXPUNGE
0 CLOSE
`},
	{"append and copy", `
0 CREATE Zoo
0 CREATE Zoo
0 APPEND Zoo (\Seen Work) "01-Feb-2025 10:00:00 +0100" {26+}
Subject: appended

Hello.
0 APPEND Nowhere {26+}
Subject: appended

Hello.
0 SELECT Zoo
0 FETCH 1 (UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[])
0 SELECT INBOX
0 COPY 1:2 Zoo
0 COPY 1 Nowhere
0 COPY 99 Zoo
0 UID COPY 999 Zoo
0 UID COPY 1:* Zoo
0 MOVE 1 Zoo
1 NOOP
0 UID MOVE 999 Zoo
0 MOVE 1 Nowhere
0 STATUS Zoo (MESSAGES UIDNEXT UNSEEN RECENT)
0 SELECT Zoo
0 FETCH 1:* (UID FLAGS)
`},
	{"folders", `
0 CLOSE
0 CREATE Zoo/Apes
0 CREATE Zoo/Apes/Gorilla
0 CREATE "Zoo/B&AOQ-r"
0 CREATE "Zoo/A &- B"
0 CREATE INBOX
0 CREATE inbox
0 LIST "" Zoo*
0 LIST "" Zoo/%
0 LIST "Zoo/" %
0 LIST "" %/Apes
0 LIST "" ""
0 LIST "" Nowhere
0 LSUB "" Zoo*
0 SUBSCRIBE Zoo/Apes/Gorilla
0 LSUB "" Zoo*
0 LSUB "" Zoo/%
0 LIST (SUBSCRIBED) "" Zoo*
0 LIST "" Zoo* RETURN (SUBSCRIBED CHILDREN)
0 LIST (SUBSCRIBED RECURSIVEMATCH) "" Zoo RETURN (CHILDREN)
0 LIST "" (Zoo "Zoo/Apes/*") RETURN (CHILDREN)
0 LIST "" Zoo RETURN (CHILDREN STATUS (MESSAGES UIDNEXT))
0 LIST "" Zoo
0 UNSUBSCRIBE Zoo/Apes/Gorilla
0 UNSUBSCRIBE Zoo/Apes/Gorilla
0 LSUB "" Zoo*
0 RENAME Zoo/Apes Zoo/Monkeys
0 LIST "" Zoo*
0 RENAME Zoo/Nowhere Zoo/Somewhere
0 RENAME Zoo/Monkeys "Zoo/B&AOQ-r"
0 RENAME Zoo/Monkeys Monkeys
0 LIST "" %Monk*
0 LIST "" Zoo*
0 SELECT Monkeys/Gorilla
0 RENAME Monkeys/Gorilla Gorilla
0 STATUS Gorilla (MESSAGES UIDNEXT)
0 UNSELECT
0 DELETE Nowhere
0 DELETE INBOX
0 DELETE Gorilla
0 LIST "" %Gorilla
0 LIST "" %Monk*
0 STATUS Nowhere (MESSAGES)
0 SELECT Nowhere
0 FETCH 1 FLAGS
0 STATUS Zoo (MESSAGES)
0 CREATE Trailing/
0 LIST "" Trailing*
0 CREATE Far/Away
0 LIST "" Far*
0 DELETE Zoo
0 DELETE Monkeys
0 LIST "" %Monk*
`},
	{"condstore", `
0 SELECT INBOX (CONDSTORE)
note A
0 STORE 1 +FLAGS (\Flagged)
note B
0 FETCH 1:* (FLAGS) (CHANGEDSINCE {A})
0 FETCH 1:* (FLAGS) (CHANGEDSINCE {B})
0 UID FETCH 1:* (FLAGS) (CHANGEDSINCE {A})
0 STORE 1 (UNCHANGEDSINCE {A}) +FLAGS (\Seen)
0 STORE 1:2 (UNCHANGEDSINCE {A}) +FLAGS (\Seen)
0 STORE 1 (UNCHANGEDSINCE {B}) +FLAGS.SILENT (\Answered)
0 UID STORE 1:* (UNCHANGEDSINCE {B}) -FLAGS (\Flagged)
0 STORE 1 (UNCHANGEDSINCE 0) +FLAGS (\Draft)
0 SEARCH MODSEQ {B}
0 SEARCH RETURN (COUNT) MODSEQ 1
0 SEARCH MODSEQ 999999999
0 FETCH 1 MODSEQ
0 FETCH 1 (FLAGS) (CHANGEDSINCE 999999999)
0 STATUS INBOX (HIGHESTMODSEQ)
1 SELECT INBOX
1 STORE 1 -FLAGS (\Seen \Answered \Draft)
0 NOOP
0 STORE 2 +FLAGS.SILENT (\Deleted)
0 EXPUNGE
1 NOOP
`},
	{"qresync", `
0 ENABLE QRESYNC
0 SELECT INBOX
note C
1 STORE 1 +FLAGS (\Flagged)
1 STORE 2 +FLAGS.SILENT (\Deleted)
1 EXPUNGE
0 NOOP
0 CLOSE
0 SELECT INBOX (QRESYNC ({VALIDITY} {C}))
0 CLOSE
0 SELECT INBOX (QRESYNC ({VALIDITY} {C} 1:6))
0 CLOSE
0 SELECT INBOX (QRESYNC ({VALIDITY} {C} 1:6 (1 1)))
0 CLOSE
0 SELECT INBOX (QRESYNC (1 {C}))
0 UID FETCH 1:* (FLAGS) (CHANGEDSINCE {C} VANISHED)
0 STORE 1 +FLAGS.SILENT (\Deleted)
0 UID EXPUNGE 1:*
1 NOOP
note D
0 CLOSE
0 SELECT INBOX (QRESYNC ({VALIDITY} {D}))
`},
}

// differentDialogue are the commands whose answers are not Dovecot's, on purpose.
var differentDialogue = []struct{ command, why string }{
	{`store: 0 STORE 1:* -FLAGS (\Seen \Flagged \Answered \Draft Work)`, "flags that stay as they are are told, too"},
	{`qresync: 1 STORE 1 +FLAGS (\Flagged)`, "the same"},
	{`expunge: 1 FETCH 1:* UID`, "what another session has removed is not shown any more"},
	{`expunge: 1 FETCH 2 FLAGS`, "the same"},
	{`expunge: 0 STORE 1 +FLAGS (\Seen)`, "what is not done is not said to be"},
	{`expunge: 0 EXPUNGE`, "the same"},
	{`folders: 0 LIST (SUBSCRIBED) "" Zoo*`, "children are told unasked"},
	{`folders: 0 LIST (SUBSCRIBED RECURSIVEMATCH) "" Zoo RETURN (CHILDREN)`, "CHILDINFO is a string, as in RFC 9051 section 6.3.9.7"},
	{`folders: 0 DELETE INBOX`, "the code of RFC 5530"},
	{`folders: 0 STATUS Nowhere (MESSAGES)`, "the same"},
	{`folders: 0 SELECT Nowhere`, "the same"},
	{`folders: 0 LIST "" Trailing*`, "Exchange has no folders that cannot hold messages"},
	{`folders: 0 LIST "" Far*`, "the same"},
	{`folders: 0 DELETE Zoo`, "the same; its children would go, too"},
	{`condstore: 0 STORE 1 (UNCHANGEDSINCE {A}) +FLAGS (\Seen)`, "what the client does not know of messages that were left alone is told"},
	{`condstore: 0 STORE 1:2 (UNCHANGEDSINCE {A}) +FLAGS (\Seen)`, "the same"},
	{`condstore: 0 UID STORE 1:* (UNCHANGEDSINCE {B}) -FLAGS (\Flagged)`, "the same"},
	{`condstore: 0 STORE 1 (UNCHANGEDSINCE 0) +FLAGS (\Draft)`, "the same"},
	{`condstore: 0 STATUS INBOX (HIGHESTMODSEQ)`, "STATUS of the selected mailbox is nobody's bug; clients ask for it all the time"},
}

var (
	messageNumber = regexp.MustCompile(`^\* (\d+) EXPUNGE$`)
	fetched       = regexp.MustCompile(`(?s)^(\* \d+ FETCH \()(.*)\)$`)
	fetchedItem   = regexp.MustCompile(`(?s)([^ (]+) (\([^()]*\)|"(?:[^"\\]|\\.)*"|[^ ]+) ?`)
	listed        = regexp.MustCompile(`^(\* (?:LIST|LSUB|STATUS) )(.*)$`)
	wordsBehind   = regexp.MustCompile(`(?s)^((?:\* )?(?:OK|NO|BAD|BYE)(?: \[[^]]*\])?).*$`)
	serverNumbers = regexp.MustCompile(`(APPENDUID|COPYUID|UIDVALIDITY|MODSEQ) (\(?)\d+`)
)

// said is meaning for all responses to one command, sorted, with the tagged one last: without the words for people, without
// the numbers that servers choose as they like, and without what may be told or not.
func said(command string, untagged [][]byte, tagged string) (list []string) {
	var there, expunged []int // there: the numbers of before, of the messages whose numbers were looked at
	for _, response := range untagged {
		s := meaning(response)
		if m := messageNumber.FindStringSubmatch(s); m != nil {
			// From the first to the last or the other way round, the same messages are gone.
			n := 0
			fmt.Sscan(m[1], &n)
			for len(there) < n {
				there = append(there, len(there)+len(expunged)+1)
			}
			expunged = append(expunged, there[n-1])
			there = slices.Delete(there, n-1, n)
			continue
		}
		switch m := fetched.FindStringSubmatch(s); {
		case strings.HasPrefix(s, "* FLAGS "), strings.HasPrefix(s, "* OK [PERMANENTFLAGS "), strings.HasPrefix(s, "* OK [MAILBOXID "),
			strings.HasPrefix(s, "* OK [HIGHESTMODSEQ "), strings.HasPrefix(s, "* OK [NOMODSEQ"):
			continue
		case strings.HasPrefix(s, "* LIST ") && strings.Contains(strings.ToUpper(s), "TRASH/"):
			continue // Exchange keeps removed folders there, and they show when the tree has been looked at next
		case m != nil:
			var items []string
			for _, item := range fetchedItem.FindAllStringSubmatch(m[2], -1) {
				if item[1] != "UID" || strings.Contains(command, "UID") {
					items = append(items, item[1]+" "+sortedWords(item[2], 1))
				}
			}
			slices.Sort(items)
			s = m[1] + strings.Join(items, " ") + ")"
		default:
			s = plain(s)
		}
		list = append(list, serverNumbers.ReplaceAllString(s, "$1 $2#"))
	}
	if len(expunged) > 0 {
		slices.Sort(expunged)
		list = append(list, fmt.Sprint("expunged ", expunged))
	}
	slices.Sort(list)
	last := plain(meaning([]byte(tagged)))
	last = strings.TrimSuffix(regexp.MustCompile(` \[(MAILBOXID|HIGHESTMODSEQ) [^]]*\]$`).ReplaceAllString(last, ""), " ")
	return append(list, serverNumbers.ReplaceAllString(last, "$1 $2#"))
}

// plain takes out of a response that is no FETCH what does not matter.
func plain(s string) string {
	if m := listed.FindStringSubmatch(s); m != nil {
		words := 1
		if strings.HasPrefix(s, "* STATUS") {
			words = 2
		}
		s = regexp.MustCompile(` ?\\(UNMARKED|MARKED)`).ReplaceAllString(s, "")
		return regexp.MustCompile(`\([^()]*\)`).ReplaceAllStringFunc(s, func(l string) string { return sortedWords(l, words) })
	}
	return wordsBehind.ReplaceAllString(s, "$1")
}

// sortedWords sorts a list in parentheses, of so many words each.
func sortedWords(s string, words int) string {
	if !strings.HasPrefix(s, "(") {
		return s
	}
	var groups []string
	for group := range slices.Chunk(strings.Fields(strings.Trim(s, "()")), words) {
		groups = append(groups, strings.Join(group, " "))
	}
	slices.Sort(groups)
	return "(" + strings.Join(groups, " ") + ")"
}

// Two sessions that write, and make and remove folders, are told what Dovecot tells them.
func TestDialoguesAsDovecot(t *testing.T) {
	connect := newDovecot(t)
	w := newWorld(t, Limits{})
	sessions := [2]*pair{{t: t, postern: w.login("alice"), dovecot: connect()}, {t: t, postern: w.login("alice"), dovecot: connect()}}
	for i := range 8 {
		sessions[0].append("", fmt.Appendf(nil, "Subject: %d\r\n\r\nHello %d\r\n", i, i))
	}
	noted := [2]map[string]string{make(map[string]string), make(map[string]string)} // by Postern and by Dovecot
	note := func(item, name string) {
		for i, c := range []*client{sessions[0].postern, sessions[0].dovecot} {
			untagged, _ := c.responses("STATUS INBOX (" + item + ")")
			for _, r := range untagged {
				if _, n, ok := strings.Cut(string(r), item+" "); ok {
					noted[i]["{"+name+"}"] = strings.TrimRight(n, ")")
				}
			}
		}
	}
	note("UIDVALIDITY", "VALIDITY")
	met := make(map[int]bool)
	for _, d := range dialogues {
		for _, line := range splitDialogue(d.lines) {
			who, command, _ := strings.Cut(line, " ")
			if who == "note" {
				note("HIGHESTMODSEQ", command)
				continue
			}
			p := sessions[0]
			if who == "1" {
				p = sessions[1]
			}
			var got [2][]string
			for i, c := range []*client{p.postern, p.dovecot} {
				filled := command
				for name, n := range noted[i] {
					filled = strings.ReplaceAll(filled, name, n)
				}
				untagged, tagged := c.responses(filled)
				got[i] = said(command, untagged, tagged)
			}
			if slices.Equal(got[0], got[1]) {
				continue
			}
			at := slices.IndexFunc(differentDialogue, func(o struct{ command, why string }) bool { return o.command == d.name+": "+line })
			if met[at] = true; at < 0 {
				t.Errorf("%s: %s\n Postern: %s\n Dovecot: %s", d.name, line, shown(got[0]), shown(got[1]))
			}
		}
	}
	for i, o := range differentDialogue {
		if !met[i] {
			t.Errorf("the answer to %s is Dovecot's (%s)", o.command, o.why)
		}
	}
}

// splitDialogue returns the exchanges; a line that begins otherwise goes on with the one before, as text of a message.
func splitDialogue(lines string) (list []string) {
	for line := range strings.Lines(strings.TrimPrefix(lines, "\n")) {
		line = strings.TrimSuffix(line, "\n")
		if n := len(list); n > 0 && !strings.HasPrefix(line, "0 ") && !strings.HasPrefix(line, "1 ") && !strings.HasPrefix(line, "note ") {
			list[n-1] += "\r\n" + line
			continue
		}
		list = append(list, line)
	}
	return list
}
