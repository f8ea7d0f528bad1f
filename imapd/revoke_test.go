package imapd

import (
	"testing"
	"time"

	"postern/backend"
	"postern/backend/graphsim"
)

// A login that is taken out, or gets another password, loses its sessions, whatever they do.
func TestRevokedSessionsEnd(t *testing.T) {
	w := newSimWorld(t, graphsim.Options{})
	w.sim.AddMessage(alice, "inbox", []byte("Subject: x\r\n\r\nx\r\n"), graphsim.MessageSpec{})
	// The message is not to be had: whoever reads it waits.
	if err := w.sim.Inject(graphsim.Fault{Path: `/\$value$`, Delay: time.Minute}); err != nil {
		t.Fatal(err)
	}
	w.serve(Limits{})
	waits, idles, reads, sends, other := w.login("alice"), w.login("alice"), w.login("alice"), w.login("alice"), w.login("boss")
	waits.ok("SELECT INBOX")
	idles.ok("SELECT INBOX")
	reads.ok("SELECT INBOX")
	idles.send("i IDLE\r\n")
	idles.expect("+ idling")
	reads.send("f FETCH 1 BODY.PEEK[]\r\n")
	sends.send("a APPEND INBOX {1000}\r\n")
	sends.expect("+ Go ahead")
	other.ok("SELECT INBOX")

	hash, err := backend.HashPassword("another")
	if err != nil {
		t.Fatal(err)
	}
	old, err := passwordHash()
	if err != nil {
		t.Fatal(err)
	}
	err = w.backend.SetLogins([]backend.LoginConfig{
		{Username: "alice", PasswordHash: hash, Mailbox: alice, IMAP: true},
		{Username: "boss", PasswordHash: old, Mailbox: alice, Shared: []string{support}, IMAP: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*client{waits, idles, reads, sends} {
		// No tagged NO comes before: a client might take what it did not get for gone.
		c.expect("* BYE Your login was changed or revoked, log in again")
		c.expectEOF()
	}
	other.ok("NOOP")
	again := w.connect()
	again.expect("* OK {{.*}}")
	again.send("a LOGIN alice pass\r\n")
	again.expect("a NO [AUTHENTICATIONFAILED] {{.*}}")
	again.send("b LOGIN alice another\r\n")
	again.expect("b OK {{.*}}")
}

// One login cannot use up all connections.
func TestConnectionsPerLogin(t *testing.T) {
	w := newWorld(t, Limits{PerLogin: 2})
	first := w.login("alice")
	w.login("alice")
	c := w.connect()
	c.expect("* OK {{.*}}")
	c.send("a LOGIN alice pass\r\n")
	c.expect("a NO [LIMIT] Too many connections of this login, 2 are open")
	c.send("b LOGIN boss pass\r\n")
	c.expect("b OK {{.*}}")
	first.send("a LOGOUT\r\n")
	first.expect("* BYE Logging out")
	first.expect("a OK LOGOUT completed")
	first.expectEOF()
	w.login("alice")
}
