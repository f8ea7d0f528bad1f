package smtpd

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/emersion/go-smtp"
)

// dotReader says what messageReader is to do, one byte at a time: the states of go-smtp's reader. It returns the message, what
// is behind it, and whether its end was found.
func dotReader(in string) (message, rest string, ok bool) {
	const (
		begin = iota
		dot
		dotCR
		cr
		inside
	)
	state := begin
	var out []byte
	for i := range len(in) {
		b := in[i]
		switch state {
		case begin:
			if b == '.' {
				state = dot
				continue
			}
			state = inside
			if b == '\r' {
				state = cr
			}
		case dot:
			if b == '\r' {
				state = dotCR
				continue
			}
			state = inside
		case dotCR:
			if b == '\n' {
				return string(out), in[i+1:], true
			}
			out = append(out, '\r') // go-smtp loses it
			state = inside
		case cr:
			state = inside
			if b == '\n' {
				state = begin
			}
		case inside:
			if b == '\r' {
				state = cr
			}
		}
		out = append(out, b)
	}
	return string(out), "", false
}

// pieces is a connection whose input comes in pieces of any size.
type pieces struct {
	net.Conn
	r io.Reader
}

func (p pieces) Read(b []byte) (int, error) { return p.r.Read(b) }

func newMessageReader(t *testing.T, held, input string, rnd *rand.Rand, room int64, most int) *messageReader {
	t.Helper()
	s, err := newServer(Options{MaxMessage: 1 << 20}, &fakeService{})
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	var r io.Reader = strings.NewReader(input)
	if rnd.IntN(3) == 0 {
		r = iotest.OneByteReader(r)
	} else if rnd.IntN(2) == 0 {
		r = iotest.HalfReader(r)
	}
	c := newConn(s, pieces{ours, r}, netip.Addr{})
	c.trusted = true
	c.held = []byte(held)
	return &messageReader{c: c, room: room, most: most}
}

// Whatever the line ends and however the bytes come, the message is the one that go-smtp would have read, and what follows it
// is left for commands.
func TestMessageReader(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	parts := []string{"\r\n", "\r\n", "\r\n.\r\n", ".", "\r", "\n", "a", "bc", "..", "\n.\n", "\r\r\n", "\r\r\r\n.", ".\r", "MAIL FROM:<x>"}
	for range 4000 {
		var b strings.Builder
		for range rnd.IntN(14) {
			b.WriteString(parts[rnd.IntN(len(parts))])
		}
		in := b.String()
		want, rest, ok := dotReader(in)
		cut := rnd.IntN(len(in) + 1)
		m := newMessageReader(t, in[:cut], in[cut:], rnd, 1<<20, 1<<20)
		got, err := io.ReadAll(m)
		switch {
		case !ok:
			if err == nil {
				t.Fatalf("%q has an end: %q", in, got)
			}
		case err != nil || string(got) != want:
			t.Fatalf("%q reads %q, %v, want %q", in, got, err, want)
		default:
			left, _ := io.ReadAll(m.c.inner) // strings.Reader cannot fail
			if string(m.c.held)+string(left) != rest || !m.c.behind {
				t.Fatalf("%q leaves %q, want %q", in, string(m.c.held)+string(left), rest)
			}
		}
	}
}

func TestMessageReaderLimits(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 8))
	body := strings.Repeat("0123456789\r\n", 30_000)
	for _, tt := range []struct {
		name, in string
		room     int64
		most     int
		want     error
	}{
		{"fits", body + ".\r\n", int64(len(body)), 100, nil},
		{"one byte too large", body + "\n.\r\n\r\n.\r\n", int64(len(body)), 100, smtp.ErrDataTooLarge},
		{"line too long", strings.Repeat("x", 200_000) + "\r\n.\r\n", 1 << 20, 100_000, smtp.ErrTooLongLine},
		{"long line", strings.Repeat("x", 200_000) + "\r\n.\r\n", 1 << 20, 300_000, nil},
		{"CRs at a piece's end", strings.Repeat("x", messageChunk-1) + "\r\r\n.\r\ny\r\n.\r\n", 1 << 20, 300_000, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMessageReader(t, "", tt.in, rnd, tt.room, tt.most)
			got, err := io.ReadAll(m)
			if !errors.Is(err, tt.want) || tt.want == nil && err != nil {
				t.Fatalf("%d bytes, %v, want %v", len(got), err, tt.want)
			}
			if want, _, _ := dotReader(tt.in); tt.want == nil && string(got) != want {
				t.Errorf("%d bytes, want %d", len(got), len(want))
			}
			m.finish()
			if tt.want == smtp.ErrDataTooLarge && !m.ended {
				t.Error("the end of a message that is too large was not found")
			}
		})
	}
}

func BenchmarkMessageReader(b *testing.B) {
	text := bytes.Repeat([]byte(strings.Repeat("x", 76)+"\r\n"), 13_000)
	text = append(text, lastLine...)
	b.SetBytes(int64(len(text)))
	s, err := newServer(Options{}, &fakeService{})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		ours, theirs := net.Pipe()
		c := newConn(s, pieces{ours, bytes.NewReader(text)}, netip.Addr{})
		c.trusted = true
		if n, err := io.Copy(io.Discard, &messageReader{c: c, room: 1 << 30, most: 1 << 20}); err != nil || n != int64(len(text)-3) {
			b.Fatal(n, err)
		}
		ours.Close()
		theirs.Close()
	}
}
