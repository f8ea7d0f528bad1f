package imapd

import (
	"testing"

	"postern/backend/graphsim"
)

// A full mailbox is said to be full, and a message too much leaves nothing behind.
func TestOverQuota(t *testing.T) {
	for _, status := range []int{507, 403} {
		w := newSimWorld(t, graphsim.Options{OverQuotaStatus: status})
		w.sim.AddMessage(alice, "inbox", []byte("Subject: x\r\n\r\nx\r\n"), graphsim.MessageSpec{})
		w.serve(Limits{})
		c := w.login("alice")
		c.ok("SELECT INBOX")
		w.sim.SetOverQuota(alice, true)
		for _, name := range []string{"INBOX", "Drafts", "Archive"} {
			c.send("a APPEND " + name + " {16+}\r\nSubject: y\r\n\r\ny\n\r\n")
			c.expect("a NO [OVERQUOTA] The Microsoft 365 mailbox is full")
		}
		c.send("b COPY 1 Archive\r\n")
		c.expect("b NO [OVERQUOTA] The Microsoft 365 mailbox is full")
		for _, name := range []string{"INBOX", "Drafts", "Archive"} {
			want := "0"
			if name == "INBOX" {
				want = "1"
			}
			if got := c.ok("STATUS " + name + " (MESSAGES)"); got[0] != "* STATUS "+name+" (MESSAGES "+want+")" {
				t.Errorf("%d: %s", status, got)
			}
		}
		w.sim.SetOverQuota(alice, false)
		c.send("c APPEND INBOX {16+}\r\nSubject: y\r\n\r\ny\n\r\n")
		c.until("c OK [APPENDUID {{.*}}")
	}
}
