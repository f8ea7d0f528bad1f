package imapd

import (
	"bufio"
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"

	"postern/imapd/wire"
)

// squeezed is a client's end of a compressed connection.
type squeezed struct {
	net.Conn
	w *flate.Writer
}

func (s squeezed) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	if err == nil {
		err = s.w.Flush()
	}
	return n, err
}

// squeeze sends COMPRESS and goes on compressed.
func (c *client) squeeze() {
	c.t.Helper()
	c.ok("COMPRESS DEFLATE")
	w, err := flate.NewWriter(c.conn, 6)
	if err != nil {
		c.t.Fatal(err)
	}
	c.r = bufio.NewReader(flate.NewReader(c.r))
	c.conn = squeezed{c.conn, w}
}

func TestCompress(t *testing.T) {
	w := newWorld(t, Limits{})
	c := w.login("alice")
	if got := c.ok("CAPABILITY"); !strings.Contains(got[0], " COMPRESS=DEFLATE ") {
		t.Errorf("%q", got)
	}
	if _, tagged := c.do("COMPRESS LZ4"); !strings.HasPrefix(tagged, "NO ") {
		t.Error(tagged)
	}
	c.squeeze()
	if got := c.ok("CAPABILITY"); strings.Contains(got[0], "COMPRESS") {
		t.Errorf("%q", got)
	}
	if _, tagged := c.do("COMPRESS DEFLATE"); tagged != "NO [COMPRESSIONACTIVE] Compression is on already" {
		t.Error(tagged)
	}
	text := "Subject: long\r\n\r\n" + strings.Repeat("the same again and again\r\n", 40_000)
	c.ok(fmt.Sprintf("APPEND INBOX {%d+}\r\n%s", len(text), text))
	c.ok("SELECT INBOX")
	if got := strings.Join(c.ok("FETCH 1 BODY.PEEK[]"), "\r\n"); !strings.Contains(got, text) {
		t.Errorf("%d bytes came back of %d", len(got), len(text))
	}
	// IDLE reads and writes at the same time.
	d := w.login("alice")
	c.send("i IDLE\r\n")
	c.expect("+ idling")
	d.fill("INBOX", 1)
	c.expect("* 2 EXISTS")
	c.expect("* {{1|2}} RECENT")
	c.send("DONE\r\n")
	c.expect("i OK IDLE completed")
	c.send("o LOGOUT\r\n")
	c.expect("* BYE {{.*}}")
	c.expect("o OK LOGOUT completed")
	c.expectEOF()
}

// What comes in plain text behind COMPRESS, or is no DEFLATE at all, ends the connection.
func TestCompressGarbage(t *testing.T) {
	w := newWorld(t, Limits{})
	c := w.login("alice")
	c.send("a COMPRESS DEFLATE\r\nb NOOP\r\n")
	c.expect("* BYE Commands behind COMPRESS are not allowed")
	c.expectEOF()

	c = w.login("alice")
	c.ok("COMPRESS DEFLATE")
	c.send("\xff\xff\xff\xff\xff\xff")
	c.expectEOF()
}

// A little that is much once inflated takes no more memory than the same in plain text would: one endless line, and an endless
// literal, end the connection at the limits.
func TestCompressBomb(t *testing.T) {
	limits := wire.DefaultLimits
	limits.Drain = 32 << 20
	w := newWorld(t, Limits{Wire: limits, Message: 1 << 20})
	for _, begin := range []string{"x NOOP ", "x APPEND INBOX {900000000+}\r\n", "x SEARCH SUBJECT {900000000+}\r\n"} {
		var bomb bytes.Buffer
		z, err := flate.NewWriter(&bomb, 9)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(z, begin)
		for range 64 {
			z.Write(bytes.Repeat([]byte("y"), 1<<20))
		}
		z.Close()
		c := w.login("alice")
		c.ok("COMPRESS DEFLATE")
		c.r = bufio.NewReader(flate.NewReader(c.r))
		runtime.GC()
		var before, now runtime.MemStats
		runtime.ReadMemStats(&before)
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			_, _ = c.conn.Write(bomb.Bytes()) // the server may hang up in between
		}()
		said, _ := io.ReadAll(c.r) // hanging up may come as a reset
		<-sent
		runtime.ReadMemStats(&now)
		if len(said) > 1000 || !strings.Contains(string(said), "x ") && !strings.HasPrefix(string(said), "* BYE ") {
			t.Errorf("%q is answered %.200q", begin, said)
		}
		if grown := int64(now.HeapAlloc) - int64(before.HeapAlloc); grown > 16<<20 {
			t.Errorf("%q takes %d bytes of memory for %d", begin, grown, bomb.Len())
		}
	}
	w.login("alice").ok("NOOP")
}
