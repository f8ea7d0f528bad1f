package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/backend/graphsim"
)

// rawIMAP speaks IMAP line by line.
type rawIMAP struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
	n    int
	all  strings.Builder // everything the server has said
}

func (r *rig) rawIMAP(t *testing.T) *rawIMAP {
	t.Helper()
	conn, err := net.Dial("tcp", r.addr["imap/none"])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	c := &rawIMAP{t: t, conn: conn, r: bufio.NewReader(conn)}
	c.line()
	return c
}

func (c *rawIMAP) line() string {
	c.t.Helper()
	if err := c.conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		c.t.Fatal(err)
	}
	s, err := c.r.ReadString('\n')
	c.all.WriteString(s)
	if err != nil {
		c.t.Fatalf("after %q: %v", s, err)
	}
	return s
}

// cmd sends a command, with literals in LITERAL+ form, and returns the status of its answer and all of it.
func (c *rawIMAP) cmd(text string) (status, answer string) {
	c.t.Helper()
	c.n++
	tag := fmt.Sprintf("a%d ", c.n)
	if _, err := io.WriteString(c.conn, tag+text+"\r\n"); err != nil {
		c.t.Fatal(err)
	}
	for {
		l := c.line()
		answer += l
		if rest, ok := strings.CutPrefix(l, tag); ok {
			status, _, _ = strings.Cut(rest, " ")
			return status, answer
		}
	}
}

func (c *rawIMAP) login(user string) {
	c.t.Helper()
	if st, a := c.cmd(fmt.Sprintf("LOGIN %q %s", user, imapQuoted(e2ePassword))); st != "OK" {
		c.t.Fatalf("login: %s", a)
	}
}

func imapQuoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// fingerprint is all that a mailbox holds, as Graph has it.
func (r *rig) fingerprint(user string) string {
	var b strings.Builder
	for _, f := range r.sim.Folders(user) {
		fmt.Fprintln(&b, f.Path, f.ID, f.Total, f.Unread)
		if f.Hidden || strings.HasPrefix(f.WellKnown, "recoverable") {
			continue
		}
		for _, m := range r.sim.Messages(user, f.ID) {
			fmt.Fprintln(&b, m.ID, m.IsRead, m.Flagged, m.Categories)
		}
	}
	return b.String()
}

// A login reaches its own mailbox and the shared ones that it names, by no name, identity or command any other.
func TestE2ENoCrossLoginAccess(t *testing.T) {
	const marker = "Zzyzx-only-for-alice"
	r := newRig(t, func(sim *graphsim.Sim) {
		for _, u := range []string{sampleUser, sampleShared} {
			sim.AddFolder(u, "", marker)
			for _, f := range []string{"inbox", marker} {
				sim.AddMessage(u, f, []byte("From: x@y.example\r\nTo: "+u+"\r\nSubject: "+marker+"\r\nMessage-ID: <"+marker+"@y.example>\r\n\r\n"+marker+"\r\n"), graphsim.MessageSpec{})
			}
		}
	})
	// What is to be stolen is in the replica already.
	stolen := r.snapshot(t, sampleUser, "INBOX")
	r.snapshot(t, sampleUser, "Shared/"+sampleShared+"/INBOX")
	aliceIDs := regexp.MustCompile(`\(([MTF][0-9a-zA-Z_-]+)\)`)
	owner := r.rawIMAP(t)
	owner.login(sampleUser)
	owner.cmd("SELECT INBOX")
	owner.cmd("FETCH 1:* (EMAILID THREADID)")
	var ids []string
	for _, m := range aliceIDs.FindAllStringSubmatch(owner.all.String(), -1) {
		ids = append(ids, m[1])
	}
	if len(ids) < 3 {
		t.Fatalf("no object ids: %s", owner.all.String())
	}
	before := map[string]string{sampleUser: r.fingerprint(sampleUser), sampleShared: r.fingerprint(sampleShared)}

	c := r.rawIMAP(t)
	c.login(sampleOther)
	var names []string
	for _, who := range []string{sampleUser, sampleShared, strings.ToUpper(sampleUser), "alice", "%"} {
		for _, form := range []string{"Shared/%s/INBOX", "Shared/%s/" + marker, "Shared/%s", "shared/%s/INBOX", "SHARED/%s/INBOX", "Shared//%s/INBOX", "Shared/./%s/INBOX",
			"%s/INBOX", "/%s/INBOX", "../%s/INBOX", "INBOX/../../%s/INBOX", "#user/%s/INBOX", "~%s/INBOX", "Other Users/%s/INBOX", "user.%s.INBOX", "user/%s", "users/%s/mailFolders/inbox",
			"../users/%s/mailFolders/inbox", "%%2e%%2e/users/%s/mailFolders/inbox", "inbox/../../../users/%s/mailFolders('inbox')", "INBOX?x=%s", "INBOX#%s"} {
			names = append(names, fmt.Sprintf(form, who))
		}
	}
	for _, f := range r.sim.Folders(sampleUser) {
		names = append(names, f.ID, "Shared/"+sampleOther+"/"+f.ID)
	}
	names = append(names, ids...)
	for _, name := range names {
		q := imapQuoted(name)
		for _, command := range []string{
			"SELECT " + q, "EXAMINE " + q, "SELECT " + q + " (CONDSTORE)", fmt.Sprintf("SELECT %s (QRESYNC (%d 1 1:1000))", q, stolen.validity),
			"STATUS " + q + " (MESSAGES UIDNEXT UIDVALIDITY UNSEEN)",
			"APPEND " + q + " {23+}\r\nSubject: planted\r\n\r\nx\r\n",
			"DELETE " + q,
		} {
			if st, a := c.cmd(command); st == "OK" {
				t.Errorf("%s: %s", command, a)
			}
		}
		c.cmd("LIST \"\" " + q)
		c.cmd("LIST " + q + " *")
		c.cmd("LSUB \"\" " + q)
	}
	if st, a := c.cmd("SELECT INBOX"); st != "OK" {
		t.Fatal(a)
	}
	for _, name := range names {
		q := imapQuoted(name)
		for _, command := range []string{"COPY 1 " + q, "UID COPY 1 " + q, "MOVE 1 " + q, "UID MOVE 1 " + q, "RENAME " + q + " Mine"} {
			if st, a := c.cmd(command); st == "OK" && !strings.Contains(a, "No messages") {
				t.Errorf("%s: %s", command, a)
			}
		}
	}
	for _, pattern := range []string{"*", "%", "*/*", "Shared/*", "Shared/%/%", "*" + marker + "*"} {
		c.cmd(`LIST "" ` + imapQuoted(pattern))
		c.cmd(`LSUB "" ` + imapQuoted(pattern))
		c.cmd(`LIST "" ` + imapQuoted(pattern) + ` RETURN (STATUS (MESSAGES) SUBSCRIBED CHILDREN)`)
	}
	c.cmd("NAMESPACE")
	// Ids and numbers of somebody else's messages mean nothing here.
	for _, command := range []string{
		"UID FETCH 1:* (UID FLAGS ENVELOPE BODY.PEEK[])", "SEARCH SUBJECT " + marker, "SEARCH TEXT " + marker, "SEARCH BODY " + marker,
		"SEARCH EMAILID " + ids[0], "SEARCH EMAILID " + ids[len(ids)-1], "UID SORT (SUBJECT) UTF-8 ALL", "THREAD REFERENCES UTF-8 ALL",
		fmt.Sprintf("SELECT INBOX (QRESYNC (%d 1 1:1000))", stolen.validity),
	} {
		c.cmd(command)
	}
	if said := c.all.String(); strings.Contains(said, "SUBJECT "+marker) || strings.Contains(said, "Subject: "+marker) {
		t.Error("somebody else's mail was told")
	}
	for _, id := range ids {
		// A name that was asked for may be repeated in an error; as an answer to FETCH it may not.
		if strings.Contains(c.all.String(), "("+id+")") {
			t.Errorf("object id %s of another mailbox was told", id)
		}
	}
	// These may make mailboxes of that name in one's own account, nothing more.
	for i := 0; i < len(names); i += 5 {
		name := names[i]
		c.cmd("CREATE " + imapQuoted(name))
		c.cmd("SUBSCRIBE " + imapQuoted(name))
		c.cmd("RENAME INBOX " + imapQuoted(name+"/x"))
	}

	// Other identities.
	for _, user := range []string{sampleOther + "/" + sampleUser, sampleOther + "/" + sampleShared, sampleUser + "/" + sampleOther, sampleUser + "*" + sampleOther,
		sampleOther + "\x01" + sampleUser, sampleUser} {
		c := r.rawIMAP(t)
		password := e2ePassword
		if user == sampleUser {
			password += "x"
		}
		if strings.HasPrefix(user, sampleUser+"/") || strings.HasPrefix(user, sampleUser+"*") {
			password = "not alice's"
		}
		if st, a := c.cmd("LOGIN " + imapQuoted(user) + " " + imapQuoted(password)); st == "OK" {
			t.Errorf("log-in as %q: %s", user, a)
		}
		c = r.rawIMAP(t)
		if st, a := c.cmd("AUTHENTICATE PLAIN " + base64.StdEncoding.EncodeToString([]byte(user+"\x00"+sampleOther+"\x00"+e2ePassword))); st == "OK" {
			t.Errorf("log-in for %q: %s", user, a)
		}
	}
	// Sending.
	for _, identity := range []string{sampleUser, sampleShared} {
		if err := smtpPlain(r.addr["smtp/none"], identity, sampleOther, e2ePassword); err == nil {
			t.Errorf("SMTP log-in of %s as %s", sampleOther, identity)
		}
	}
	for _, tt := range []struct{ mailFrom, header string }{
		{sampleUser, "From: " + sampleUser}, {sampleShared, "From: " + sampleShared}, {sampleOther, "From: " + sampleUser}, {sampleOther, "From: Bob <" + sampleOther + ">, Alice <" + sampleUser + ">"},
		{sampleOther, "From: " + sampleOther + "\r\nFrom: " + sampleUser}, {sampleOther, "Sender: " + sampleUser + "\r\nFrom: " + sampleUser},
		{sampleOther, "From:\r\n " + sampleUser}, {sampleOther, "from : " + sampleUser}, {sampleOther, "From: " + sampleOther + "\r\nSender: " + sampleUser},
		{"", "From: " + sampleUser}, {sampleOther, "From: =?utf-8?q?" + strings.ReplaceAll(sampleUser, "@", "=40") + "?= <" + sampleUser + ">"},
	} {
		err := sendRaw(r.addr["smtp/none"], sampleOther, tt.mailFrom, "one@fabrikam.example", tt.header+"\r\nSubject: forged\r\n\r\nforged\r\n")
		var refused *textproto.Error
		if err != nil && !errors.As(err, &refused) {
			t.Errorf("MAIL FROM:<%s> %q: %v", tt.mailFrom, tt.header, err) // what is taken is looked at below
		}
	}
	r.drain(t)
	for _, d := range r.sim.Delivered() {
		if head, _, _ := bytes.Cut(d.MIME, []byte("\r\n\r\n")); d.From != sampleOther || d.Sender != sampleOther || bytes.Contains(head, []byte("\nFrom: "+sampleUser)) || bytes.Contains(head, []byte(sampleShared)) {
			t.Errorf("sent as %s by %s:\n%s", d.From, sampleOther, head)
		}
	}
	for user, was := range before {
		if now := r.fingerprint(user); now != was {
			t.Errorf("the mailbox of %s was changed:\n%s", user, difference(slices.Sorted(strings.SplitSeq(was, "\n")), slices.Sorted(strings.SplitSeq(now, "\n"))))
		}
	}
}

func smtpPlain(addr, identity, user, password string) error {
	c, err := textproto.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, step := range []string{"", "EHLO test", "AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte(identity+"\x00"+user+"\x00"+password))} {
		if step != "" {
			if err := c.PrintfLine("%s", step); err != nil {
				return err
			}
		}
		if _, _, err := c.ReadResponse(2); err != nil {
			return err
		}
	}
	return nil
}

// sendRaw submits what is a whole message already.
func sendRaw(addr, login, from, to, message string) error {
	c, err := textproto.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, step := range []struct {
		send string
		code int
	}{{"", 220}, {"EHLO test", 250}, {"AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00"+login+"\x00"+e2ePassword)), 235},
		{"MAIL FROM:<" + from + ">", 250}, {"RCPT TO:<" + to + ">", 250}, {"DATA", 354}, {message + ".", 250}} {
		if step.send != "" {
			if err := c.PrintfLine("%s", step.send); err != nil {
				return err
			}
		}
		if _, _, err := c.ReadResponse(step.code); err != nil {
			return err
		}
	}
	return nil
}

// A login that may only read changes nothing, whatever it sends.
func TestE2EReadOnlyLogin(t *testing.T) {
	r := newRig(t, nil)
	r.stop()
	path := filepath.Join(r.dir, "postern.yaml")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b = bytes.Replace(b, []byte("    shared: ["), []byte("    read_only: true\n    shared: ["), 1)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	r.start()
	before := []string{r.fingerprint(sampleUser), r.fingerprint(sampleShared)}
	c := r.rawIMAP(t)
	c.login(sampleUser)
	for _, box := range []string{"INBOX", "Shared/" + sampleShared + "/INBOX"} {
		q := imapQuoted(box)
		if st, a := c.cmd("SELECT " + q); st != "OK" || !strings.Contains(a, "READ-ONLY") {
			t.Errorf("SELECT: %s", a)
		}
		for _, command := range []string{
			"FETCH 1:* (BODY[])", "FETCH 1:* (RFC822.TEXT)", "FETCH 1:* (BINARY[1])", // these would set \Seen
			`STORE 1:* +FLAGS (\Deleted)`, `UID STORE 1:* FLAGS.SILENT (\Seen)`, `STORE 1 (UNCHANGEDSINCE 1) +FLAGS (x)`, "EXPUNGE", "UID EXPUNGE 1:*", "COPY 1 Archive", "UID COPY 1 " + q, "MOVE 1 Archive",
			"UID MOVE 1 Archive", "APPEND " + q + " {23+}\r\nSubject: planted\r\n\r\nx\r\n", "APPEND Drafts {23+}\r\nSubject: planted\r\n\r\nx\r\n", "CREATE New", "CREATE Shared/" + sampleShared + "/New",
			"DELETE Archive", "RENAME Archive Old", "CLOSE",
		} {
			st, a := c.cmd(command)
			if name, _, _ := strings.Cut(command, " "); st == "OK" && name != "FETCH" && name != "CLOSE" {
				t.Errorf("%s: %s", command, a)
			}
		}
	}
	within(t, 5*time.Second, "rounds of changes", func() bool { // what was noted would be written by now
		return r.sim.CountRequests(func(q graphsim.Request) bool { return strings.HasSuffix(q.Template, "/messages/delta") }) > 4
	})
	for i, u := range []string{sampleUser, sampleShared} {
		if now := r.fingerprint(u); now != before[i] {
			t.Errorf("the mailbox of %s was changed", u)
		}
	}
}

// Whatever a client writes into names and headers stays data: Graph's paths and headers, and the log's lines, are ours.
func TestE2EInjection(t *testing.T) {
	var log bytes.Buffer
	r := newRig(t, nil)
	r.stop()
	t.Setenv("POSTERN_LOG_LEVEL", "debug")
	r.wholeLog = &log
	r.start()
	evil := []string{"a/../b", "..", ".", "x?$select=id", "x#y", "x%2f..%2f..", "x%00y", "x'y", "x')/messages('z", `x"y`, `x\y`, "x\ty", "x&y", "x=y", "x;y", "{id}", "$value", "$batch", "x y", "ü/ñ", "\u202egnp.exe",
		"inbox", "msgfolderroot", "recoverableitemsdeletions", strings.Repeat("x", 300)}
	c := r.rawIMAP(t)
	c.login(sampleOther)
	r.sim.ResetRequests()
	for _, name := range evil {
		q := imapQuoted(name)
		for _, command := range []string{"CREATE " + q, "STATUS " + q + " (MESSAGES)", "SELECT " + q, "APPEND " + q + " {25+}\r\nSubject: injected\r\n\r\nx\r\n.", "RENAME " + q + " " + imapQuoted(name+" again"),
			"DELETE " + imapQuoted(name+" again"), "SEARCH SUBJECT " + q, "SEARCH BODY " + q, "SEARCH HEADER " + q + " " + q, "SEARCH KEYWORD x", "SUBSCRIBE " + q} {
			c.cmd(command)
		}
	}
	// CR, LF and NUL can only come in literals, and log-ins are the place where a stranger can write something.
	for _, text := range []string{"a\r\nb", "x\x00y", "\r\n{\"level\":\"ERROR\",\"msg\":\"forged line\"}", "x\nlevel=ERROR msg=forged"} {
		c := r.rawIMAP(t)
		c.cmd(fmt.Sprintf("LOGIN {%d+}\r\n%s {%d+}\r\n%s", len(text), text, len(text), text))
		c = r.rawIMAP(t)
		c.login(sampleOther)
		for _, verb := range []string{"CREATE", "SELECT", "SUBSCRIBE", "DELETE"} {
			c.cmd(fmt.Sprintf("%s {%d+}\r\n%s", verb, len(text), text))
		}
		c.cmd(fmt.Sprintf("ID (\"name\" {%d+}\r\n%s)", len(text), text))
		_ = smtpPlain(r.addr["smtp/none"], "", text, text) // is refused
	}
	for _, h := range []string{"Subject: x\r\n y", "Subject: \x00", "Subject: x\ry", "Subject: x\ny", "To: one@fabrikam.example\rBcc: two@fabrikam.example", "X:\r\n\r\n.\r\nMAIL FROM:<x@y.example>"} {
		_ = sendRaw(r.addr["smtp/none"], sampleOther, sampleOther, "one@fabrikam.example", "From: "+sampleOther+"\r\n"+h+"\r\n\r\ntext\r\n") // some are refused
	}
	r.drain(t)
	for _, q := range r.sim.Requests() {
		if strings.Contains(q.Path, "oauth2") {
			continue
		}
		if q.Template == "" || strings.Contains(q.Path, "..") || q.Mailbox != "" && !slices.Contains(r.users, q.Mailbox) && !strings.Contains(q.Path, "$batch") {
			t.Errorf("odd request: %s %s?%s (%s)", q.Method, q.Path, q.Query, q.Template)
		}
		if q.Status == http.StatusNotFound && strings.Contains(q.Path, "/mailFolders/") && strings.ContainsAny(q.Path, "'?#\\ ") {
			t.Errorf("a client's name is in the path: %s %s", q.Method, q.Path)
		}
	}
	for _, d := range r.sim.Delivered() {
		for _, to := range d.Recipients {
			if to != "one@fabrikam.example" {
				t.Errorf("sent to %s", to)
			}
		}
	}
	r.stop()
	for l := range strings.SplitSeq(strings.TrimSpace(log.String()), "\n") {
		if !strings.HasPrefix(l, `{"time":`) || !strings.HasSuffix(l, "}") {
			t.Errorf("no line of ours in the log: %q", l)
		}
	}
}

// At the most talkative level, through all that can go wrong, no log holds a password, token, secret or anything of a message.
func TestE2ENothingSecretIsLogged(t *testing.T) {
	const (
		subject  = "Quixotic-Subject-7719"
		body     = "Quixotic-Body-7719"
		header   = "Quixotic-Header-7719"
		file     = "Quixotic-File-7719"
		wrong    = "Quixotic-Wrong-7719"
		searched = "Quixotic-Search-7719"
		keyword  = "Quixotic-Preview-7719"
	)
	var log syncBuffer
	mime := "From: Quixotic Sender <%s>\r\nTo: %s\r\nSubject: " + subject + "\r\nX-Custom: " + header + "\r\nMessage-ID: <secret.%s@e2e.example>\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n" + body + " " + keyword + "\r\n--b\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename=" + file + ".pdf\r\n\r\n" + body + "\r\n--b--\r\n"
	r := newRig(t, func(sim *graphsim.Sim) {
		sim.AddMessage(sampleUser, "inbox", fmt.Appendf(nil, mime, "x@y.example", sampleUser, "seeded"), graphsim.MessageSpec{})
	})
	r.stop()
	t.Setenv("POSTERN_LOG_LEVEL", "debug")
	r.wholeLog = &log
	r.start()
	for _, f := range []graphsim.Fault{
		{Path: "/messages", Every: 5, Status: 503, Times: 10}, {Path: "/messages", Every: 7, TruncateBody: true, Times: 5}, {Path: "oauth2", Times: 1, Status: 503},
		{Path: "/send(Mail)?$", Times: 1, Status: 400, Code: "ErrorInvalidRecipients", Message: "bad"}, {Path: "/send(Mail)?$", Skip: 1, Times: 2, DropAfter: true}, {Path: "/v1.0/", TokenExpired: true, Times: 2, Skip: 20},
	} {
		if err := r.sim.Inject(f); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		c := r.rawIMAP(t)
		c.cmd("LOGIN " + imapQuoted(sampleUser) + " " + wrong)
		c.cmd("AUTHENTICATE PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00"+sampleUser+"\x00"+wrong)))
		c.login(sampleUser)
		app := fmt.Sprintf(mime, "x@y.example", sampleUser, "appended")
		for _, command := range []string{"SELECT INBOX", "FETCH 1:* (FLAGS ENVELOPE BODYSTRUCTURE PREVIEW BODY.PEEK[])", "SEARCH SUBJECT " + subject, "SEARCH TEXT " + searched, "SEARCH BODY " + body,
			fmt.Sprintf("APPEND Drafts {%d+}\r\n%s", len(app), app), fmt.Sprintf("APPEND Archive {%d+}\r\n%s", len(app), app), "APPEND Archive {7+}\r\n" + "Quixoti", "STORE 1 +FLAGS (work)", "COPY 1 Archive", "BOGUS " + searched,
			"SELECT " + "\"" + searched + "\"", "SORT (SUBJECT) UTF-8 ALL", "UID FETCH 1:* (BODY[1] BODY[2.MIME])"} {
			c.cmd(command)
		}
		_ = smtpPlain(r.addr["smtp/none"], "", sampleUser, wrong)                                                                                       // is refused
		_ = sendRaw(r.addr["smtp/none"], sampleUser, sampleUser, "one@fabrikam.example", fmt.Sprintf(mime, sampleUser, "one@fabrikam.example", "sent")) // may be refused
		_ = sendRaw(r.addr["smtp/none"], sampleUser, "forged@evil.example", "one@fabrikam.example", fmt.Sprintf(mime, sampleUser, "one@fabrikam.example", "forged"))
	}
	_ = r.imap(t, sampleUser).Logout().Wait()
	r.drain(t)
	r.stop()
	text := log.String()
	if len(text) < 5000 {
		t.Fatalf("the log is short, %d bytes: is it the whole?", len(text))
	}
	secrets := []string{subject, body, header, file, wrong, searched, keyword, e2ePassword, "wonder land", sampleSecret, "Quixotic Sender", "Bearer ", "eyJ",
		base64.StdEncoding.EncodeToString([]byte("\x00" + sampleUser + "\x00" + e2ePassword)), base64.StdEncoding.EncodeToString([]byte(body))[:12]}
	for _, secret := range secrets {
		if i := strings.Index(text, secret); i >= 0 {
			t.Errorf("the log holds %q: …%s…", secret, text[max(0, i-200):min(len(text), i+100)])
		}
	}
}

// syncBuffer is a buffer that a running program's output goes to.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
