package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"postern/backend/graphsim"
)

// Connections that end in all possible ways leave no descriptor open.
func TestE2ENoDescriptorLeak(t *testing.T) {
	r := newRig(t, func(sim *graphsim.Sim) {
		for i := range 20 {
			sim.AddMessage(sampleUser, "inbox", fmt.Appendf(nil, "From: x@y.example\r\nSubject: leak %d\r\nMessage-ID: <leak.%d@y.example>\r\n\r\ntext\r\n", i, i), graphsim.MessageSpec{})
		}
	})
	dir := fmt.Sprintf("/proc/%d/fd", r.cmd.Process.Pid)
	open := func() int {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Skipf("descriptors are counted on Linux only: %v", err)
		}
		return len(entries)
	}
	n := 0
	round := func() {
		c := r.rawIMAP(t)
		c.login(sampleUser)
		for _, command := range []string{"SELECT INBOX", "UID FETCH 1:* (FLAGS BODY.PEEK[])", "SEARCH BODY text", "APPEND Archive {20+}\r\nSubject: x\r\n\r\nhello\r\n", "COPY 1 Archive"} {
			c.cmd(command)
		}
		switch n++; n % 3 {
		case 0:
			c.cmd("LOGOUT")
		case 1: // in the middle of a literal
			_, _ = io.WriteString(c.conn, "x APPEND INBOX {100000}\r\nhalf a message")
		case 2:
			_, _ = io.WriteString(c.conn, "x IDLE\r\n")
		}
		c.conn.Close()
		_ = sendMail(r.addr["smtp/none"], sampleOther, sampleOther, "one@fabrikam.example", fmt.Sprintf("<leak.%d@e2e.example>", n))
		_ = smtpPlain(r.addr["smtp/none"], "", sampleUser, "wrong")
		for _, listener := range []string{"imap/implicit", "smtp/implicit", "imap/starttls", "smtp/starttls", "http/none"} {
			conn, err := net.Dial("tcp", r.addr[listener])
			if err != nil {
				t.Fatal(err)
			}
			switch n % 3 {
			case 0:
				_, _ = io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n\x16\x03\x01")
			case 1:
				_ = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"x"}}).Handshake() // fails where there is no TLS
			}
			conn.Close()
		}
	}
	for range 3 {
		round()
	}
	time.Sleep(500 * time.Millisecond)
	before := open()
	for range 12 {
		round()
	}
	within(t, 3*time.Minute, fmt.Sprintf("no more than the %d descriptors of before", before), func() bool { return open() <= before+3 }) // unused connections to Graph stay for 90 s
}
