package imapd

import (
	"fmt"
	"strings"
	"testing"

	"postern/backend/graphsim"
)

// A literal8 may hold binary parts; they are stored so that every client can read them.
func TestAppendBinary(t *testing.T) {
	w := newWorld(t, Limits{})
	c := w.login("alice")
	text := "Content-Type: image/png\r\nContent-Transfer-Encoding: binary\r\n\r\n\x00\x01"
	c.ok(fmt.Sprintf("APPEND INBOX (\\Seen) ~{%d+}\r\n%s", len(text), text))
	text = "Subject: x\r\n\r\n\x00"
	if _, tagged := c.do(fmt.Sprintf("APPEND INBOX ~{%d+}\r\n%s", len(text), text)); tagged != "NO [UNKNOWN-CTE] The message holds a NUL outside of a binary part" {
		t.Error(tagged)
	}
	c.ok("SELECT INBOX")
	lines := c.ok("FETCH 1:* (RFC822.SIZE BODY.PEEK[1])")
	wantLines(t, lines, "* 1 FETCH (RFC822.SIZE 66 BODY[1] {4}", "AAE=)")
}

// What one message of several has against it keeps all of them out, and takes away what
// Graph had already made.
func TestAppendAllOrNothing(t *testing.T) {
	for _, mailbox := range []string{"INBOX", "Drafts"} {
		t.Run(mailbox, func(t *testing.T) {
			w := newWorld(t, Limits{})
			c := w.login("alice")
			c.ok("SELECT " + mailbox)
			folder := map[string]string{"INBOX": "inbox", "Drafts": "drafts"}[mailbox]
			command := "APPEND " + mailbox
			for i := range 4 {
				command += fmt.Sprintf(" {22+}\r\nSubject: n%3d\r\n\r\nHello", i)
			}
			if err := w.sim.Inject(graphsim.Fault{Method: "POST", Path: "/messages$", Skip: 2, Status: 413, Code: "ErrorMessageSizeExceeded"}); err != nil {
				t.Fatal(err)
			}
			lines, tagged := c.do(command)
			if !strings.HasPrefix(tagged, "NO [TOOBIG]") || w.sim.FaultsFired() < 1 { // smaller requests are refused, too
				t.Fatalf("%s, %d faults", tagged, w.sim.FaultsFired())
			}
			w.sim.ClearFaults()
			wantLines(t, lines)
			if left := w.sim.Messages(alice, folder); len(left) != 0 {
				t.Errorf("%d messages are left", len(left))
			}
			wantLines(t, c.ok(command), "* 4 EXISTS", "* 4 RECENT")
			if n := len(w.sim.Messages(alice, folder)); n != 4 {
				t.Errorf("%d messages", n)
			}
		})
	}
}
