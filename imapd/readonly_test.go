package imapd

import (
	"fmt"
	"testing"
	"time"

	"postern/backend/graphsim"
)

// A login that may only read changes nothing, by whatever command, and the mailbox is afterwards as it was.
func TestReadOnlyLogin(t *testing.T) {
	w := newSimWorld(t, graphsim.Options{})
	for i := range 2 {
		w.sim.AddMessage(alice, "inbox", fmt.Appendf(nil, "Subject: %d\r\n\r\nx\r\n", i), graphsim.MessageSpec{})
	}
	w.serve(Limits{})
	owner := w.login("alice")
	owner.ok("SELECT INBOX")
	owner.ok(`STORE 1 +FLAGS.SILENT (\Deleted)`)
	owner.ok("CREATE Old")
	reader := w.login("reader")
	reader.ok("SELECT INBOX")
	// The owner's flag is on its way to Graph by itself.
	for w.sim.CountRequests(func(r graphsim.Request) bool { return r.Method == "PATCH" }) == 0 {
		select {
		case <-t.Context().Done():
			t.Fatal("the owner's flag never got to Graph")
		case <-time.After(10 * time.Millisecond):
		}
	}
	w.sim.ResetRequests()
	for _, command := range []string{
		`STORE 1:2 +FLAGS (\Seen)`,
		`STORE 1:2 FLAGS.SILENT (a)`,
		`UID STORE 1:* -FLAGS (\Deleted)`,
		"EXPUNGE",
		"UID EXPUNGE 1:*",
		"MOVE 1 Old",
		"UID MOVE 1 Old",
		"COPY 1 Old",
		"UID COPY 1 Old",
		"CREATE New",
		"CREATE New (USE (\\Archive))",
		"DELETE Old",
		"RENAME Old New",
		"RENAME INBOX New",
		"SUBSCRIBE Old",
		"UNSUBSCRIBE INBOX",
		"APPEND INBOX {5}",
	} {
		reader.send("x " + command + "\r\n")
		reader.expect("x NO [{{NOPERM|READ-ONLY}}] {{.*}}")
	}
	reader.send("y APPEND INBOX (\\Seen) {3+}\r\na\r\n\r\n") // not waiting for a "+", and something behind it
	reader.expect("y NO [NOPERM] {{.*}}")
	reader.ok("FETCH 1:2 BODY[]") // sets no \Seen
	reader.ok("CLOSE")            // expunges nothing
	for _, r := range w.sim.Requests() {
		if r.Method != "GET" {
			t.Errorf("Graph was asked %s %s", r.Method, r.Template)
		}
	}
	owner.ok("NOOP")
	if lines := owner.ok("FETCH 1:* FLAGS"); len(lines) != 2 || lines[0] != `* 1 FETCH (FLAGS (\Deleted))` && lines[0] != `* 1 FETCH (FLAGS (\Deleted \Recent))` {
		t.Errorf("afterwards: %q", lines)
	}
}
