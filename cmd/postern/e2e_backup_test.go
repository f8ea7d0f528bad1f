package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend/graphsim"
)

// A backup is taken while the server works; then mail leaves and arrives, the machine is lost and the backup restored.
// Nothing is sent twice, and no UID that was given after the backup comes again for another message.
func TestE2EBackupRestore(t *testing.T) {
	r := newRig(t, nil)
	config := filepath.Join(r.dir, "postern.yaml")
	before := r.snapshot(t, sampleUser, "INBOX")
	c := r.imap(t, sampleUser)
	mime := "From: alice@contoso.example\r\nSubject: appended\r\nMessage-ID: <appended@e2e.example>\r\n\r\nexactly  these bytes \r\n"
	app := c.Append("Archive", int64(len(mime)), nil)
	if _, err := app.Write([]byte(mime)); err != nil {
		t.Fatal(err)
	}
	if err := app.Close(); err != nil {
		t.Fatal(err)
	}
	appended, err := app.Wait()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	r.mustRunEnv(t, []byte("new password\n"), "login", "add", "-c", config, "--state", "--mailbox", sampleOther, "--password-stdin", "scanner")

	if err := r.sim.Inject(graphsim.Fault{Path: "/sendMail$", Status: 503, RetryAfter: "3600"}); err != nil {
		t.Fatal(err)
	}
	ids := []string{"<waits.1@e2e.example>", "<waits.2@e2e.example>"}
	for _, id := range ids {
		if err := sendMail(r.addr["smtp/none"], sampleUser, sampleUser, "one@fabrikam.example", id); err != nil {
			t.Fatal(err)
		}
	}
	archive := filepath.Join(r.dir, "backup.tar.zst")
	r.mustRunEnv(t, nil, "backup", "-c", config, "-o", archive)
	if info, err := os.Stat(archive); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup's mode: %v, %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(r.dir, "state", ".backup-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}

	// Life goes on after the backup.
	r.sim.ClearFaults()
	r.mustRunEnv(t, nil, "queue", "retry", "-c", config, "--all")
	within(t, time.Minute, "the queue is empty", func() bool { return len(r.queue(t)) == 0 })
	r.sim.DeliverMessage(sampleUser, []byte("From: a@fabrikam.example\r\nTo: alice@contoso.example\r\nMessage-ID: <later@e2e.example>\r\nSubject: later\r\n\r\nx\r\n"))
	var given imap.UID
	within(t, time.Minute, "the new message", func() bool {
		for uid, id := range r.snapshot(t, sampleUser, "INBOX").messages {
			if id == "later@e2e.example" {
				given = uid
			}
		}
		return given != 0
	})
	q := newQuick(t, r.addr["imap/none"])
	modSeq := q.highestModSeq(t)
	q.conn.Close()
	if out, err := r.run(nil, program(t), "restore", "--replace", "--state-dir", filepath.Join(r.dir, "state"), archive); err == nil || !strings.Contains(out, "in use by process") {
		t.Errorf("restoring under a running server: %v %s", err, out)
	}

	r.kill()
	if err := os.Rename(filepath.Join(r.dir, "state"), filepath.Join(r.dir, "lost")); err != nil {
		t.Fatal(err)
	}
	out := r.mustRun(t, nil, program(t), "restore", "--state-dir", filepath.Join(r.dir, "state"), archive)
	if !strings.Contains(out, "2 messages") {
		t.Errorf("restore says %s", out)
	}
	r.start()

	after := snapshot{}
	within(t, time.Minute, "the mailbox is in step", func() bool {
		after = r.snapshot(t, sampleUser, "INBOX")
		return len(after.messages) == len(before.messages)+1
	})
	if after.validity != before.validity {
		t.Errorf("UIDVALIDITY was %d, is %d", before.validity, after.validity)
	}
	var again imap.UID
	for uid, id := range after.messages {
		if id == "later@e2e.example" {
			again = uid
			delete(after.messages, uid)
		}
	}
	if again <= given+1000 {
		t.Errorf("the message that had UID %d after the backup has %d", given, again)
	}
	if !maps.Equal(after.messages, before.messages) {
		t.Errorf("messages were\n%v\nare\n%v", before.messages, after.messages)
	}
	if got := r.fetchText(t, "Archive", appended.UID); got != mime {
		t.Errorf("the appended message is now %q", got)
	}
	if err := smtpLogin(r.addr["smtp/none"], "scanner", "new password"); err != nil {
		t.Errorf("the login of the state folder: %v", err)
	}
	// A client that was there in between hears that its UID is gone, and all flags.
	q = newQuick(t, r.addr["imap/none"])
	answer := q.ask(t, fmt.Sprintf("SELECT INBOX (QRESYNC (%d %d))", after.validity, modSeq))
	if !vanished(answer, given) {
		t.Errorf("a client with UID %d is told\n%s", given, answer)
	}
	if n := strings.Count(answer, " FETCH ("); n != len(before.messages)+1 {
		t.Errorf("the client is told the flags of %d messages, want all %d", n, len(before.messages)+1)
	}

	rows := r.queue(t)
	if len(rows) != 2 || rows[0].State != "held" || !strings.Contains(rows[0].HoldReason, "restored from a backup") {
		t.Fatalf("the queue is %+v", rows)
	}
	r.mustRunEnv(t, nil, "queue", "release", "-c", config, "--all")
	within(t, time.Minute, "the queue is empty", func() bool { return len(r.queue(t)) == 0 })
	left := make(map[string]int)
	for _, d := range r.sim.Delivered() {
		left[d.MessageID]++
	}
	for _, id := range ids {
		if left[id] != 1 {
			t.Errorf("%s left %d times", id, left[id])
		}
	}
	r.stop()

	// Once more over this state, which knows what became of the messages.
	if out, err := r.run(nil, program(t), "restore", "--state-dir", filepath.Join(r.dir, "state"), archive); err == nil || !strings.Contains(out, "--replace") {
		t.Errorf("restoring over a state: %v %s", err, out)
	}
	out = r.mustRun(t, nil, program(t), "restore", "--replace", "--new-uids", "--state-dir", filepath.Join(r.dir, "state"), archive)
	if !strings.Contains(out, "2 messages of the backup's queue had been dealt with") || !strings.Contains(out, "read anew") {
		t.Errorf("restore says %s", out)
	}
	r.start()
	if rows := r.queue(t); len(rows) != 0 {
		t.Errorf("the queue is %+v", rows)
	}
	if s := r.snapshot(t, sampleUser, "INBOX"); s.validity <= before.validity || len(s.messages) != len(before.messages)+1 {
		t.Errorf("with new UIDs: UIDVALIDITY %d, %d messages", s.validity, len(s.messages))
	}
	r.stop()
	b, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	for _, cut := range []int{0, 100, len(b) / 2, len(b) - 4} {
		bad := r.write(t, "bad.tar.zst", string(b[:cut]))
		if out, err := r.run(nil, program(t), "restore", "--state-dir", filepath.Join(r.dir, "empty"), bad); err == nil {
			t.Errorf("the first %d bytes of a backup are restored: %s", cut, out)
		}
		if rows, _ := filepath.Glob(filepath.Join(r.dir, "empty", "*.db")); len(rows) > 0 {
			t.Errorf("the first %d bytes of a backup leave %v", cut, rows)
		}
	}
}

// vanished reports whether the answer's list of UIDs that are gone has uid.
func vanished(answer string, uid imap.UID) bool {
	_, rest, _ := strings.Cut(answer, "VANISHED (EARLIER) ")
	list, _, _ := strings.Cut(rest, "\r\n")
	for _, part := range strings.Split(list, ",") {
		first, last, many := strings.Cut(part, ":")
		a, err := strconv.ParseUint(first, 10, 32)
		b := a
		if many {
			b, _ = strconv.ParseUint(last, 10, 32)
		}
		if err == nil && a <= uint64(uid) && uint64(uid) <= b {
			return true
		}
	}
	return false
}

// quick is a client that knows QRESYNC, line by line.
type quick struct {
	conn net.Conn
	r    *bufio.Reader
	n    int
}

func newQuick(t *testing.T, addr string) *quick {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	q := &quick{conn: conn, r: bufio.NewReader(conn)}
	if _, err := q.r.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	password, err := json.Marshal(e2ePassword) // a quoted string of IMAP escapes the same here
	if err != nil {
		t.Fatal(err)
	}
	q.ask(t, "LOGIN "+sampleUser+" "+string(password))
	q.ask(t, "ENABLE QRESYNC")
	return q
}

// ask sends a command and returns all that comes until it is answered with OK.
func (q *quick) ask(t *testing.T, command string) string {
	t.Helper()
	q.n++
	tag := fmt.Sprintf("q%d ", q.n)
	if _, err := q.conn.Write([]byte(tag + command + "\r\n")); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for {
		line, err := q.r.ReadString('\n')
		if err != nil {
			t.Fatalf("%s: %v", command, err)
		}
		b.WriteString(line)
		if strings.HasPrefix(line, tag) {
			if !strings.HasPrefix(line, tag+"OK") {
				t.Fatalf("%s is answered %s", command, line)
			}
			return b.String()
		}
	}
}

func (q *quick) highestModSeq(t *testing.T) uint64 {
	t.Helper()
	_, rest, _ := strings.Cut(q.ask(t, "SELECT INBOX"), "HIGHESTMODSEQ ")
	number, _, _ := strings.Cut(rest, "]")
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (r *rig) fetchText(t *testing.T, mailbox string, uid imap.UID) string {
	t.Helper()
	c := r.imap(t, sampleUser)
	defer c.Close()
	if _, err := c.Select(mailbox, &imap.SelectOptions{ReadOnly: true}).Wait(); err != nil {
		t.Fatal(err)
	}
	whole := &imap.FetchItemBodySection{Peek: true}
	msgs, err := c.Fetch(imap.UIDSetNum(uid), &imap.FetchOptions{BodySection: []*imap.FetchItemBodySection{whole}}).Collect()
	if err != nil {
		t.Fatal(err)
	}
	if len(msgs) != 1 {
		t.Fatalf("%s has no UID %d", mailbox, uid)
	}
	return string(msgs[0].FindBodySection(whole))
}
