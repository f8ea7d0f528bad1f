package imapd

import (
	"bufio"
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"postern/backend/graphsim"
)

// benchWorld has a mailbox with n messages of 15 KB, which is what mail has on average, all of whose texts are kept.
func benchWorld(b *testing.B, n int) *client {
	b.Helper()
	w := newSimWorld(b, graphsim.Options{})
	w.limit = 1_000_000
	body := strings.Repeat("Words that make up a line of text, and some more of them to fill it.\r\n", 210)
	for i := range n {
		w.sim.AddMessage(alice, "inbox", fmt.Appendf(nil, "From: a@b.example\r\nTo: c@d.example\r\nSubject: message %d\r\nMIME-Version: 1.0\r\n"+
			"Content-Type: text/plain\r\n\r\n%s", i, body), graphsim.MessageSpec{})
	}
	w.serve(Limits{})
	c := w.login("alice")
	c.ok("SELECT INBOX")
	c.responses("FETCH 1:* BODY.PEEK[]") // from Graph
	return c
}

// BenchmarkFetchBodies reads a thousand messages at once, as desktop clients do, and one by one, as mbsync does.
func BenchmarkFetchBodies(b *testing.B) {
	const n = 1000
	c := benchWorld(b, n)
	bytesOf := func(responses [][]byte) (sum int64) {
		for _, r := range responses {
			sum += int64(len(r))
		}
		return sum
	}
	b.Run("at once", func(b *testing.B) {
		for b.Loop() {
			responses, tagged := c.responses("FETCH 1:* BODY.PEEK[]")
			if !strings.HasPrefix(tagged, "OK") || len(responses) != n {
				b.Fatalf("%d messages, %s", len(responses), tagged)
			}
			b.SetBytes(bytesOf(responses))
		}
	})
	b.Run("one by one", func(b *testing.B) {
		for b.Loop() {
			for i := range n {
				if responses, _ := c.responses(fmt.Sprintf("FETCH %d (UID BODY.PEEK[])", i+1)); !bytes.Contains(responses[0], []byte("BODY[]")) {
					b.Fatalf("%.100q", responses)
				}
			}
		}
	})
	b.Run("search", func(b *testing.B) {
		for b.Loop() {
			if _, tagged := c.responses("SEARCH BODY nowhere"); !strings.HasPrefix(tagged, "OK") {
				b.Fatal(tagged)
			}
		}
	})
}

// BenchmarkLists is what clients ask of a whole folder that has been read, 20,000 messages here.
func BenchmarkLists(b *testing.B) {
	const n = 20_000
	w := newSimWorld(b, graphsim.Options{})
	w.limit = 1_000_000
	w.sim.AddSynthetic(alice, "inbox", n, graphsim.Synthetic{})
	w.serve(Limits{})
	c := w.login("alice")
	c.ok("SELECT INBOX")
	c.drain(b, "UID FETCH 1:* ENVELOPE") // from Graph
	for _, command := range []string{
		"SELECT INBOX",
		"UID FETCH 1:* FLAGS",
		"UID FETCH 1:* (FLAGS INTERNALDATE RFC822.SIZE ENVELOPE)",
		"UID FETCH 1:* (UID RFC822.SIZE FLAGS BODY.PEEK[HEADER.FIELDS (From To Cc Bcc Subject Date Message-ID Priority X-Priority References Newsgroups In-Reply-To Content-Type Reply-To)])",
		"SEARCH SUBJECT needle",
		"SEARCH FROM nobody@fabrikam.example",
		"SEARCH UNSEEN",
		"SEARCH SENTON 1-Jan-2020 SUBJECT needle",
		"NOOP",
	} {
		name, _, _ := strings.Cut(command, " BODY")
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				b.SetBytes(c.drain(b, command))
			}
		})
	}
}

// drain sends a command and reads past its answer, whose length it returns.
func (c *client) drain(b *testing.B, command string) (size int64) {
	b.Helper()
	c.conn.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprintf(c.conn, "drain %s\r\n", command)
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil && err != bufio.ErrBufferFull {
			b.Fatal(err)
		}
		size += int64(len(line))
		if bytes.HasPrefix(line, []byte("drain ")) {
			if !bytes.HasPrefix(line, []byte("drain OK")) {
				b.Fatalf("%s: %s", command, line)
			}
			return size
		}
	}
}
