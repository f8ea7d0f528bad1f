package imapd

import (
	"bufio"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"postern/backend/graphsim"
	"postern/internal/fuzzcorpus"
)

var answerLine = regexp.MustCompile(`^(\* |\+ |[^ *+]+ (OK|NO|BAD)\b)`)

// FuzzCommands sends anything to a logged-in session with a mailbox open, over a real backend and a simulated Graph. The session
// must end by itself, answer in lines and literals that are whole, and never call anything an internal error.
func FuzzCommands(f *testing.F) {
	files, err := filepath.Glob("../testdata/imap/*.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		var b strings.Builder
		for l := range strings.SplitSeq(string(text), "\n") {
			if s, ok := strings.CutPrefix(l, "C: "); ok {
				b.WriteString(s + "\r\n")
			}
		}
		if b.Len() > 0 && b.Len() < 4000 {
			f.Add(b.String())
		}
	}
	for _, s := range []string{
		"a FETCH 1:* (UID FLAGS BODY.PEEK[HEADER.FIELDS (From To)]<0.20> BODYSTRUCTURE PREVIEW)\r\nb NOOP\r\n", "a UID FETCH 1:* (BINARY.PEEK[1]<5.10> RFC822.SIZE)\r\n",
		"a UID SEARCH RETURN (MIN MAX COUNT SAVE) OR SUBJECT {3+}\r\nabc NOT (TEXT x SINCE 1-Jan-2020)\r\nb FETCH $ FLAGS\r\n", "a STORE 1:2,* +FLAGS.SILENT (\\Seen x)\r\nb EXPUNGE\r\n",
		"a APPEND Drafts (\\Seen) \"01-Jan-2024 10:00:00 +0100\" {20+}\r\nSubject: x\r\n\r\nhello\r\n", "a APPEND INBOX ~{4+}\r\na\x00\r\n {3+}\r\nabc\r\n", "a SELECT INBOX (QRESYNC (1 1 1:2 (1 1)))\r\n",
		"a LIST (SUBSCRIBED) \"\" (\"%\" \"*\") RETURN (STATUS (MESSAGES SIZE) SPECIAL-USE)\r\n", "a COPY 1 Archive\r\nb MOVE 1 Archive\r\nc UID EXPUNGE 1\r\n", "a IDLE\r\nDONE\r\nb THREAD REFERENCES UTF-8 ALL\r\nc SORT (REVERSE DATE) UTF-8 ALL\r\n",
		"a CREATE {5+}\r\nx/&-y (USE (\\Archive))\r\nb RENAME x/&-y z\r\nc DELETE z\r\n", "a COMPRESS DEFLATE\r\n\x00\x01\x02\x03", "a ENABLE IMAP4rev2 UTF8=ACCEPT\r\nb STATUS \"\xc3\xbc\" (MESSAGES DELETED)\r\n", "a GETQUOTAROOT INBOX\r\n",
	} {
		f.Add(s)
	}
	w := newSimWorld(f, graphsim.Options{Limits: graphsim.Limits{Requests: -1, UploadBytes: -1}})
	w.sim.AddMessage(alice, "inbox", []byte("From: x@y.example\r\nTo: alice@contoso.example\r\nSubject: fuzz\r\nMessage-ID: <1@y.example>\r\n\r\ntext\r\n"), graphsim.MessageSpec{})
	w.sim.AddMessage(alice, "inbox", []byte("From: x@y.example\r\nSubject: =?utf-8?q?f=C3=BCzz?=\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\na\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\nb\r\n--b--\r\n"), graphsim.MessageSpec{})
	w.limit = 1 << 30
	w.serve(Limits{Login: time.Minute, Transfer: 5 * time.Second, ConnectionsPerIP: 1 << 20, Connections: 1 << 20, PerLogin: 1 << 20})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { l.Close() })
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, input string) {
		if strings.Count(input, "\n") > 60 {
			return // long conversations are slow, and no more than several short ones
		}
		ours, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer ours.Close()
		theirs, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		w.server.start(theirs)
		if err := ours.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		go func() {
			_, _ = io.WriteString(ours, "l LOGIN boss pass\r\ns SELECT INBOX\r\n"+input+"\r\n") // it may have hung up
			_ = ours.(*net.TCPConn).CloseWrite()
		}()
		compressed := strings.Contains(strings.ToUpper(input), "COMPRESS")
		r := bufio.NewReader(ours)
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				if err != io.EOF && !strings.Contains(err.Error(), "reset") {
					t.Fatalf("the session does not end: %v", err)
				}
				if line != "" && !compressed {
					t.Errorf("cut off: %q", line)
				}
				return
			}
			if compressed {
				continue
			}
			if strings.Contains(line, "Internal error") || strings.Contains(line, "SERVERBUG") {
				t.Errorf("got %q", line)
			}
			if !answerLine.MatchString(line) {
				t.Errorf("no answer: %q", line)
			}
			for n, ok := literalAt(line); ok; n, ok = literalAt(line) {
				if _, err := io.CopyN(io.Discard, r, n); err != nil {
					t.Fatalf("literal of %d bytes: %v", n, err)
				}
				if line, err = r.ReadString('\n'); err != nil {
					t.Fatalf("after a literal: %v", err)
				}
			}
			if !strings.HasSuffix(line, "\r\n") || strings.ContainsAny(strings.TrimSuffix(line, "\r\n"), "\r\x00") {
				t.Errorf("line %q", line)
			}
		}
	})
}

// literalAt returns the size of the literal that a line of the server announces.
func literalAt(line string) (int64, bool) {
	s, ok := strings.CutSuffix(line, "}\r\n")
	i := strings.LastIndexByte(s, '{')
	if !ok || i < 0 {
		return 0, false
	}
	n, err := strconv.ParseInt(s[i+1:], 10, 64)
	return n, err == nil
}
