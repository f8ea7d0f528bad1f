package imapd

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

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
