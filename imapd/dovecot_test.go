package imapd

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"postern/backend/message"
)

// imapProcess is where Debian, Fedora and others have Dovecot's IMAP process, which serves one client on its standard
// input and output without any daemon.
var imapProcess = []string{"/usr/lib/dovecot/imap", "/usr/libexec/dovecot/imap"}

// dovecot starts a Dovecot with empty mailboxes and returns a client that is logged in. The test is skipped where there is none.
func dovecot(t *testing.T) *client { return newDovecot(t)() }

// newDovecot returns a function that logs a client in to a Dovecot, each time to the same mailboxes, which are empty at first.
func newDovecot(t *testing.T) func() *client {
	t.Helper()
	i := slices.IndexFunc(imapProcess, func(name string) bool { _, err := os.Stat(name); return err == nil })
	if i < 0 {
		t.Skip("Dovecot is not installed (dovecot-imapd)")
	}
	dir, err := os.MkdirTemp("", "dovecot") // t.TempDir's may not be entered by another user
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	conf := filepath.Join(dir, "dovecot.conf")
	err = os.WriteFile(conf, fmt.Appendf(nil, "log_path = %[1]s/log\nssl = no\nmail_location = sdbox:%[1]s/mail\nfirst_valid_uid = 1\n"+
		"namespace inbox {\n  inbox = yes\n  separator = /\n}\n", dir), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	return func() *client { return dovecotSession(t, imapProcess[i], conf, dir) }
}

// dovecotSession runs one of Dovecot's IMAP processes.
func dovecotSession(t *testing.T, program, conf, dir string) *client {
	t.Helper()
	cmd := exec.Command(program, "-c", conf)
	cmd.Env = []string{"USER=somebody", "HOME=" + dir}
	if err := asNobody(cmd, dir); err != nil {
		t.Skipf("Dovecot does not serve root, and nobody else can be had: %v", err)
	}
	ours, theirs := net.Pipe()
	cmd.Stdin, cmd.Stdout = theirs, theirs
	if err := cmd.Start(); err != nil {
		t.Skipf("Dovecot does not start: %v", err)
	}
	t.Cleanup(func() {
		ours.Close()
		theirs.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	c := &client{t: t, conn: ours, r: bufio.NewReader(ours)}
	if got, err := c.line(); err != nil || !strings.HasPrefix(got, "* PREAUTH ") {
		t.Skipf("Dovecot does not answer: %q, %v", got, err)
	}
	return c
}

// responses sends a command and returns what is answered, untagged responses with their literals in place, and the first
// word of the tagged one.
func (c *client) responses(command string) (untagged [][]byte, tagged string) {
	c.t.Helper()
	c.conn.SetWriteDeadline(time.Now().Add(patience))
	go io.WriteString(c.conn, "x "+command+"\r\n")
	for {
		response := c.response()
		if rest, ok := bytes.CutPrefix(response, []byte("x ")); ok {
			return untagged, string(rest)
		}
		untagged = append(untagged, response)
	}
}

// response reads one response with its literals.
func (c *client) response() []byte {
	c.t.Helper()
	var response []byte
	for {
		c.conn.SetReadDeadline(time.Now().Add(patience))
		line, err := c.r.ReadBytes('\n')
		if err != nil {
			c.t.Fatalf("%q: %v", line, err)
		}
		response = append(response, line...)
		line = bytes.TrimSuffix(line, []byte("\r\n"))
		at := bytes.LastIndexByte(line, '{')
		if at < 0 || !bytes.HasSuffix(line, []byte("}")) {
			return bytes.TrimSuffix(response, []byte("\r\n"))
		}
		n, err := strconv.Atoi(string(line[at+1 : len(line)-1]))
		if err != nil {
			return bytes.TrimSuffix(response, []byte("\r\n"))
		}
		literal := make([]byte, n)
		if _, err := io.ReadFull(c.r, literal); err != nil {
			c.t.Fatal(err)
		}
		response = append(response, literal...)
	}
}

// meaning brings a response into a form in which servers that say the same look the same: strings however they are sent,
// words without regard to case.
func meaning(response []byte) string {
	var sb strings.Builder
	for i := 0; i < len(response); {
		switch b := response[i]; {
		case b == '"':
			var s []byte
			for i++; i < len(response) && response[i] != '"'; i++ {
				if response[i] == '\\' {
					i++
				}
				s = append(s, response[i])
			}
			i++
			fmt.Fprintf(&sb, "%q", s)
		case b == '{' || b == '~' && i+1 < len(response) && response[i+1] == '{':
			end := i + bytes.IndexByte(response[i:], '}')
			digits := strings.TrimLeft(string(response[i:end]), "~{")
			n, _ := strconv.Atoi(digits)
			at := end + len("}\r\n")
			fmt.Fprintf(&sb, "%q", response[at:at+n])
			i = at + n
		default:
			end := i
			for end < len(response) && response[end] != '"' && response[end] != '{' && response[end] != '~' {
				end++
			}
			end = max(end, i+1)
			sb.WriteString(strings.ToUpper(string(response[i:end])))
			i = end
		}
	}
	return sb.String()
}

// pair is the same mailbox in Postern and in Dovecot.
type pair struct {
	t                *testing.T
	postern, dovecot *client
}

// append puts a message into INBOX of both.
func (p *pair) append(options string, message []byte) {
	p.t.Helper()
	for _, c := range []*client{p.postern, p.dovecot} {
		command := fmt.Sprintf("APPEND INBOX %s{%d+}\r\n%s", options, len(message), message)
		if _, tagged := c.responses(command); !strings.HasPrefix(tagged, "OK ") {
			p.t.Fatalf("append: %s", tagged)
		}
	}
}

// ask sends the same command to both and returns what each answers, in the form that same gives it; "" leaves a response out.
func (p *pair) ask(command string, same func(response []byte) string) (postern, dovecot []string) {
	p.t.Helper()
	var got [2][]string
	for i, c := range []*client{p.postern, p.dovecot} {
		untagged, tagged := c.responses(command)
		for _, r := range untagged {
			if s := same(r); s != "" {
				got[i] = append(got[i], s)
			}
		}
		word, _, _ := strings.Cut(tagged, " ")
		got[i] = append(got[i], word)
	}
	return got[0], got[1]
}

// compare reports where the two answer otherwise.
func (p *pair) compare(name, command string, same func(response []byte) string) {
	p.t.Helper()
	if postern, dovecot := p.ask(command, same); !slices.Equal(postern, dovecot) {
		p.t.Errorf("%s: %s\n Postern: %s\n Dovecot: %s", name, command, shown(postern), shown(dovecot))
	}
}

func shown(responses []string) string {
	s := strings.Join(responses, "\n          ")
	if len(s) > 1500 {
		s = s[:700] + " … " + s[len(s)-700:]
	}
	return s
}

// different are the answers that are not Dovecot's, on purpose.
var different = []struct {
	message, item string // regular expressions
	why           string
}{
	{"addresses|charsets", "ENVELOPE", "more addresses are read: ';' between them, blanks in names, commas in encoded words"},
	{"duplicate-fields", "ENVELOPE|BINARY.*", "the first of two fields counts"},
	{"boundary-never-used|no-boundary-param", `BODY.*|BINARY.*\[1\].*`, "the text is shown, not an empty part"},
	{"content-types", `BODY|BODYSTRUCTURE|BINARY.*|BODY.*\[9\.1.*`, "more is read of malformed fields"},
	{"global", `BODY|BODYSTRUCTURE|.*\[1\..*`, "message/global is a message, as RFC 9051 has it"},
	{"rfc822-base64", ".*", "the encoding is known to hide the message"},
	{"nested-rfc822", `BODY|BODYSTRUCTURE|.*\[(3|4|4\.2|4\.2\.2|3\.TEXT|4\.2\.TEXT)\]`, "the line end before a boundary is the boundary's after a multipart too; RFC 2046 section 5.1.1"},
	{"boundary-prefix|boundary-same", `.*\[1\]`, "the same"},
	{"empty-parts", `BODY\.PEEK\[.*\.MIME\]`, "a blank line is a header's end, also where nothing precedes it"},
	{".*", `BINARY.*\[\].*`, "no part inside is decoded: what is signed would no longer be true, and the header would say otherwise"},
	{"mixed-attachment", `BINARY.*\[(1|1\.2)\].*`, "the same for a multipart inside"},
	{"header-only", `BODY\.PEEK\[HEADER\.FIELDS \(.*`, "no blank line where the message has none; RFC 9051 section 6.4.5.1"},
	{"header-only-no-eol", `BODY\.PEEK\[HEADER\.FIELDS.*`, "a field ends with a line end"},
}

// otherwise returns which of different holds, -1 if the answer should be Dovecot's.
func otherwise(name, item string) int {
	for i, d := range different {
		if regexp.MustCompile("^(?:"+d.message+")$").MatchString(name) && regexp.MustCompile("^(?:"+d.item+")$").MatchString(item) {
			return i
		}
	}
	return -1
}

// Every item of FETCH says of every message in testdata/mime what Dovecot says.
func TestFetchAsDovecot(t *testing.T) {
	p := &pair{t: t, dovecot: dovecot(t)}
	w := newWorld(t, Limits{})
	p.postern = w.login("alice")
	names, files := mimeMessages(t)
	names = slices.DeleteFunc(names, func(name string) bool { return len(files[name]) == 0 }) // neither takes it
	var messages [][]byte
	for i, name := range names {
		// Dovecot shows all line ends as CRLF, and NUL as 0x80.
		m := bytes.ReplaceAll(bytes.ReplaceAll(files[name], []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
		m = bytes.ReplaceAll(m, []byte{0}, []byte{0x80})
		messages = append(messages, m)
		flags := []string{"()", `(\Seen)`, `(\Flagged \Answered)`, `(Work)`}[i%4]
		p.append(fmt.Sprintf(`%s "%2d-Nov-2025 10:00:00 +0100" `, flags, i%28+1), m)
	}
	p.postern.ok("SELECT INBOX")
	p.dovecot.ok("SELECT INBOX")
	// Where \Seen is set Dovecot tells the flags before what was asked for.
	p.postern.ok(`STORE 1:* +FLAGS.SILENT (\Seen)`)
	p.dovecot.ok(`STORE 1:* +FLAGS.SILENT (\Seen)`)
	items := []string{"INTERNALDATE", "RFC822.SIZE", "ENVELOPE", "BODYSTRUCTURE", "BODY", "UID", "RFC822.HEADER",
		"BODY.PEEK[]", "BODY.PEEK[HEADER]", "BODY.PEEK[TEXT]", "BODY.PEEK[]<0.20>", "BODY.PEEK[]<30.200>", "BODY.PEEK[]<100000.5>", "BODY.PEEK[TEXT]<3.4>",
		"BODY.PEEK[HEADER.FIELDS (from TO subject x-none)]", "BODY.PEEK[HEADER.FIELDS.NOT (From received)]", "BODY.PEEK[HEADER.FIELDS (Subject)]<2.5>",
		"BINARY.PEEK[]", "BINARY.PEEK[]<3.7>", "BINARY.SIZE[]", "RFC822.TEXT", "RFC822", "BODY[1]"}
	met := make(map[int]bool)
	for i, name := range names {
		for _, item := range append(slices.Clip(items), partItems(t, messages[i])...) {
			command := fmt.Sprintf("FETCH %d (%s)", i+1, item)
			if n := otherwise(name, item); n < 0 {
				p.compare(name, command, meaning)
			} else if postern, dovecot := p.ask(command, meaning); !slices.Equal(postern, dovecot) {
				met[n] = true
			}
		}
	}
	for n, d := range different {
		if !met[n] {
			t.Errorf("no answer is another one than Dovecot's for %s of %s (%s)", d.item, d.message, d.why)
		}
	}
}

// partItems asks for each part of a message, and for some that are not there.
func partItems(t *testing.T, m []byte) (items []string) {
	ix, err := message.Parse(bytes.NewReader(m), int64(len(m)))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(partPaths("", ix.Root), "9", "1.9", "9.1") {
		for _, form := range []string{"BODY.PEEK[%s]", "BODY.PEEK[%s.MIME]", "BODY.PEEK[%s.HEADER]", "BODY.PEEK[%s.TEXT]",
			"BODY.PEEK[%s.HEADER.FIELDS (Subject)]", "BODY.PEEK[%s]<1.10>", "BINARY.PEEK[%s]", "BINARY.SIZE[%s]", "BINARY.PEEK[%s]<2.6>"} {
			items = append(items, fmt.Sprintf(form, path))
		}
	}
	return items
}

// partPaths returns the numbers of the parts of p, whose own number is prefix. A message that is no multipart has one
// part all the same.
func partPaths(prefix string, p *message.Part) (paths []string) {
	if !p.Multipart() && p.Message == nil {
		if prefix == "" {
			return []string{"1"}
		}
		return nil
	}
	if p.Message != nil {
		if p.Message.Multipart() {
			return partPaths(prefix, p.Message)
		}
		return append([]string{prefix + "1"}, partPaths(prefix+"1.", p.Message)...)
	}
	for i, child := range p.Children {
		number := prefix + strconv.Itoa(i+1)
		paths = append(paths, number)
		paths = append(paths, partPaths(number+".", child)...)
	}
	return paths
}

// SEARCH, SORT and THREAD find what Dovecot finds, in its order. Not asked for is when messages without a date were sent
// (Dovecot: in 1970; Postern: when they were received) and the 31st of February (Dovecot: the 3rd of March; Postern: BAD).
func TestSearchAsDovecot(t *testing.T) {
	p := &pair{t: t, dovecot: dovecot(t)}
	w := newWorld(t, Limits{})
	p.postern = w.login("alice")
	add := func(options, header, body string) {
		p.append(options+" ", []byte(strings.ReplaceAll(header+"\n"+body, "\n", "\r\n")))
	}
	add(`(\Seen) "01-Jan-2025 10:00:00 +0000"`, "From: Ann <ann@a.example>\nTo: bob@b.example\nSubject: Plan\nDate: Wed, 01 Jan 2025 10:00:00 +0000\nMessage-ID: <1@a>\n", "the first plan\n")
	add(`(\Flagged Work) "02-Jan-2025 10:00:00 +0000"`, "From: Bob <bob@b.example>\nTo: ann@a.example\nCc: \"Zed, the last\" <zed@z.example>\nSubject: Re: Plan\nDate: Thu, 02 Jan 2025 10:00:00 +0100\nMessage-ID: <2@b>\nIn-Reply-To: <1@a>\nReferences: <1@a>\n", "what plan?\n")
	add(`(\Answered \Draft) "03-Jan-2025 10:00:00 +0000"`, "From: Ann <ann@a.example>\nTo: bob@b.example\nSubject: RE: Re: [list] Plan (fwd)\nDate: Fri, 03 Jan 2025 08:00:00 -0500\nMessage-ID: <3@a>\nReferences: <1@a> <2@b>\n", "this plan\n")
	add(`(\Deleted) "04-Jan-2025 23:30:00 +0000"`, "From: =?utf-8?Q?J=C3=B6rg_M=C3=BCller?= <jm@c.example>\nTo: undisclosed-recipients:;\nSubject: =?utf-8?B?w5xiZXJibGljaw==?=\nDate: Sat, 04 Jan 2025 23:30:00 -0500\nMessage-ID: <4@c>\n", "nichts\n")
	add(`() "05-Jan-2025 10:00:00 +0000"`, "From: zed@z.example\nTo: ann@a.example, bob@b.example\nSubject: alpha\nDate: Sun, 05 Jan 2025 10:00:00 +0000\nMessage-ID: <5@z>\nX-Spam: yes\nContent-Type: text/html; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n", "<b>Gr=FC=DFe</b> aus K=F6ln\n")
	add(`(Work $Forwarded) "06-Jan-2025 10:00:00 +0000"`, "From: Ann <ann@a.example>\nBcc: secret@s.example\nSubject: \nDate: garbage\nMessage-ID: <6@a>\n", strings.Repeat("long line ", 300)+"\n")
	add(`() "06-Jan-2025 10:00:00 +0000"`, "From: ann@a.example\nSubject: Fwd: alpha\nReferences: <missing@z> <5@z>\nMessage-ID: <7@a>\nContent-Type: multipart/mixed; boundary=x\n", "--x\n\npart one\n--x\nContent-Type: message/rfc822\n\nSubject: inside\n\ninner text\n--x--\n")
	add(`() "06-Jan-2025 11:00:00 +0000"`, "Subject: orphan\nIn-Reply-To: <nowhere@x>\nMessage-ID: <8@a>\n", "text\n")
	add(`() "07-Jan-2025 11:00:00 +0000"`, "Subject: Re: orphan\nDate: Tue, 7 Jan 2025 11:00:00 +0000\nMessage-ID: <9@a>\n", "text\n")
	p.postern.ok("SELECT INBOX")
	p.dovecot.ok("SELECT INBOX")
	const utf8 = "CHARSET UTF-8 "
	for _, query := range []string{
		"ALL", "1,3:5", "2:*", "*", "UID 3:5,8", "NOT 1:3", "ANSWERED", "DELETED", "DRAFT", "FLAGGED", "SEEN", "UNANSWERED", "UNDELETED", "UNDRAFT", "UNFLAGGED",
		"UNSEEN", "KEYWORD work", "UNKEYWORD Work", "KEYWORD $Forwarded", "KEYWORD nowhere",
		"BEFORE 3-Jan-2025", "ON 3-Jan-2025", "SINCE 3-Jan-2025", "SENTBEFORE 4-Jan-2025 NOT 6:8", "SENTON 4-Jan-2025", "SENTSINCE 4-Jan-2025 NOT 6:8", "SENTON 5-Jan-2025",
		"FROM ann", "FROM a.example", "FROM Ann", `FROM "Ann <ann@a.example>"`, "TO bob", "TO undisclosed", "CC zed", `CC "Zed, the last"`, "BCC secret", "SUBJECT plan", "SUBJECT PLAN", `SUBJECT ""`, `SUBJECT "re: plan"`,
		"HEADER Message-ID 3@a", "HEADER X-Spam yes", `HEADER X-Spam ""`, `HEADER X-None ""`, "HEADER References 5@z", "HEADER Date garbage",
		"BODY plan", "BODY inner", "BODY inside", "BODY part", `BODY "long line long"`, "TEXT plan", "TEXT inside", "TEXT spam", "TEXT x-spam", "BODY bold", "BODY <b>",
		utf8 + "SUBJECT {10+}\r\n\u00dcberblick", utf8 + `SUBJECT "überblick"`, utf8 + `FROM "jörg"`, utf8 + `FROM "MÜLLER"`, utf8 + `BODY "grüße"`, utf8 + `TEXT "köln"`, utf8 + `SUBJECT "ub"`,
		"LARGER 1000", "SMALLER 300", "LARGER 200 SMALLER 400", "OR SEEN FLAGGED", "OR (SEEN FROM ann) (FLAGGED TO ann)", "NOT (OR SEEN FLAGGED)", "NOT NOT SEEN", "OR OR SEEN FLAGGED DELETED",
		"SEEN FLAGGED", "(((SEEN)))", "RECENT", "NEW", "OLD", "OLDER 100", "YOUNGER 100", "UNSEEN NOT DELETED SINCE 1-Jan-2025 SUBJECT a",
		"RETURN (MIN MAX COUNT) ALL", "RETURN (ALL) FROM ann", "RETURN () SEEN", "RETURN (COUNT) FROM nobody", "RETURN (MIN) 3:5",
		"99", "UID 99", "BADKEY", "CHARSET X-UNKNOWN ALL",
	} {
		for _, form := range []string{"SEARCH ", "UID SEARCH "} {
			p.compare(query, form+query, found)
		}
	}
	for _, order := range []string{"ARRIVAL", "REVERSE ARRIVAL", "CC", "DATE", "REVERSE DATE", "FROM", "SIZE", "REVERSE SIZE", "SUBJECT", "TO", "SUBJECT REVERSE DATE", "FROM SUBJECT", "REVERSE FROM REVERSE SUBJECT", "DISPLAYFROM", "DISPLAYTO"} {
		for _, query := range []string{"ALL", "UNDELETED", "FROM ann"} {
			p.compare(order, "SORT ("+order+") UTF-8 "+query, found)
			p.compare(order, "UID SORT ("+order+") US-ASCII "+query, found)
		}
	}
	for _, algorithm := range []string{"REFERENCES", "ORDEREDSUBJECT"} {
		for _, query := range []string{"ALL", "UNDELETED", "FROM ann", "2:*"} {
			p.compare(algorithm, "THREAD "+algorithm+" UTF-8 "+query, found)
			p.compare(algorithm, "UID THREAD "+algorithm+" UTF-8 "+query, found)
		}
	}
}

// found is meaning for the responses that tell what was found. Dovecot adds a keyword that was searched for to FLAGS.
func found(response []byte) string {
	s := meaning(response)
	for _, name := range []string{"* SEARCH", "* ESEARCH", "* SORT", "* THREAD"} {
		if strings.HasPrefix(s, name) {
			return strings.TrimRight(s, " ")
		}
	}
	return ""
}
