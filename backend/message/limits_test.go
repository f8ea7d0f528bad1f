package message

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"runtime"
	"strings"
	"testing"
)

func crlf(s string) []byte { return []byte(strings.ReplaceAll(s, "\n", "\r\n")) }

func TestParseDeepNesting(t *testing.T) {
	for _, kind := range []string{"multipart", "message", "both"} {
		t.Run(kind, func(t *testing.T) {
			var sb strings.Builder
			for i := range 5000 {
				if kind == "message" || kind == "both" && i%2 == 0 {
					sb.WriteString("Content-Type: message/rfc822\n\n")
				} else {
					fmt.Fprintf(&sb, "Content-Type: multipart/mixed; boundary=b%d.\n\n--b%d.\n", i, i)
				}
			}
			sb.WriteString("\ndeepest\n")
			b := crlf(sb.String())
			ix := parse(t, b)
			checkIndex(t, b, ix)
			depth := 0
			for p := ix.Root; ; depth++ {
				if p.Message != nil {
					p = p.Message
				} else if p.Multipart() {
					p = p.Children[0]
				} else {
					if !p.IsType("application", "octet-stream") {
						t.Errorf("what is too deep is %s/%s", p.Type, p.Subtype)
					}
					if p.Body.End() != ix.Size {
						t.Errorf("the last part ends at %d of %d", p.Body.End(), ix.Size)
					}
					break
				}
			}
			if depth != maxDepth-1 {
				t.Errorf("depth %d", depth)
			}
		})
	}
}

func TestParseManyParts(t *testing.T) {
	b := crlf("Content-Type: multipart/mixed; boundary=b\n\n" + strings.Repeat("--b\n\nx\n", 30_000) + "--b--\nend\n")
	ix := parse(t, b)
	checkIndex(t, b, ix)
	if n := len(ix.Root.Children); n != maxParts-1 {
		t.Fatalf("%d children", n)
	}
	last := ix.Root.Children[maxParts-2]
	if last.Body.End() != ix.Size || !last.IsType("application", "octet-stream") {
		t.Errorf("last part %s/%s ends at %d of %d", last.Type, last.Subtype, last.Body.End(), ix.Size)
	}
	data, err := ix.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	if err := new(Index).UnmarshalBinary(data); err != nil {
		t.Error(err)
	}
}

// A delimiter anywhere around the edge of the scanner's buffer must be found, and sizes stay right.
func TestParseAcrossBuffers(t *testing.T) {
	for d := -1100; d <= 20; d++ {
		if d < -40 && d%53 != 0 {
			continue
		}
		head := "Content-Type: multipart/mixed; boundary=bound\r\n\r\n--bound\r\n\r\n"
		pad := scanBuffer - len(head) + d
		b := []byte(head + strings.Repeat("abcdefghi\n", pad/10) + strings.Repeat("x", pad%10) +
			"\r\n--bound\r\nContent-Type: text/html\r\n\r\nsecond\r\n--bound--\r\n")
		ix := parse(t, b)
		checkIndex(t, b, ix)
		if len(ix.Root.Children) != 2 || string(b[ix.Root.Children[1].Body.Off:ix.Root.Children[1].Body.End()]) != "second" ||
			ix.Root.Children[0].Body.Len != int64(pad) {
			t.Fatalf("shift %d: %s", d, dump(b, ix))
		}
	}
}

func TestParseLongHeaderLine(t *testing.T) {
	b := []byte("Subject: first\r\nX-Long: " + strings.Repeat("x", 3*scanBuffer) + "\r\nTo: late@a.example\r\n\r\nbody\r\n")
	ix := parse(t, b)
	checkIndex(t, b, ix)
	if ix.Root.Envelope.Subject != "first" || len(ix.Root.Envelope.To) != 1 || ix.Root.Body.Len != 6 {
		t.Errorf("%+v %+v", ix.Root.Envelope, ix.Root.Body)
	}
}

// failingReader fails at one offset.
type failingReader struct {
	io.ReaderAt
	at  int64
	err error
}

func (f failingReader) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.at {
		n, _ := f.ReaderAt.ReadAt(p[:max(0, f.at-off)], off)
		return n, f.err
	}
	return f.ReaderAt.ReadAt(p, off)
}

func TestParseReaderErrors(t *testing.T) {
	b := bytes.Repeat([]byte("a: b\r\n"), 100_000)
	broken := errors.New("disk on fire")
	if _, err := Parse(failingReader{bytes.NewReader(b), 300_000, broken}, int64(len(b))); !errors.Is(err, broken) {
		t.Errorf("error of the reader: %v", err)
	}
	if _, err := Parse(bytes.NewReader(b), int64(len(b))+1); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("message shorter than said: %v", err)
	}
}

// repeated is an endless message without the memory for it.
type repeated struct {
	head, unit string
}

func (r repeated) ReadAt(p []byte, off int64) (int, error) {
	for i := range p {
		o := off + int64(i)
		if o < int64(len(r.head)) {
			p[i] = r.head[o]
		} else {
			p[i] = r.unit[(o-int64(len(r.head)))%int64(len(r.unit))]
		}
	}
	return len(p), nil
}

func TestParseBoundedMemory(t *testing.T) {
	for _, tt := range []struct {
		name string
		r    repeated
	}{
		{"one body", repeated{"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n", "0123456789abcdef\r\n"}},
		{"one line", repeated{"Subject: x\r\n\r\n", "x"}},
		{"one header line", repeated{"", "x"}},
		{"one header", repeated{"", "To: a@a.example, b@b.example\r\n"}},
		{"headers only", repeated{"Content-Type: multipart/mixed; boundary=b\r\n\r\n", "--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: a long subject which is kept\r\n"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			ix, err := Parse(tt.r, 40<<20)
			if err != nil {
				t.Fatal(err)
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			runtime.KeepAlive(ix)
			if held := int64(after.HeapAlloc) - int64(before.HeapAlloc); held > 24<<20 {
				t.Errorf("index holds %d MB", held>>20)
			}
		})
	}
}

// Any cut and any damage of a message gives an index that holds together.
func TestParseMutations(t *testing.T) {
	rnd := rand.New(rand.NewSource(1))
	for name, b := range mimeFiles(t) {
		for i := 0; i <= len(b); i += 1 + len(b)/150 {
			cut := b[:i]
			checkIndex(t, cut, parse(t, cut))
		}
		for range 100 {
			m := bytes.Clone(b)
			for k := 0; k < 5 && len(m) > 0; k++ {
				m[rnd.Intn(len(m))] = "\r\n-: ;\"ab"[rnd.Intn(8)]
			}
			checkIndex(t, m, parse(t, m))
		}
		if t.Failed() {
			t.Fatalf("mutation of %s", name)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	body := strings.Repeat(strings.Repeat("QUJD", 19)+"\r\n", 120_000) // 9.4 MB
	for _, bb := range []struct {
		name string
		msg  []byte
	}{
		{"attachment", []byte("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ntext\r\n--b\r\nContent-Transfer-Encoding: base64\r\n\r\n" + body + "\r\n--b--\r\n")},
		{"dashes", []byte("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n" + strings.Repeat("--- a/file b/file ----------------------\r\n", 200_000) + "\r\n--b--\r\n")},
		{"small", crlf("From: a@a.example\nTo: b@b.example\nSubject: s\nDate: Mon, 23 Nov 2026 10:00:00 +0100\nContent-Type: multipart/alternative; boundary=b\n\n--b\nContent-Type: text/plain; charset=utf-8\n\ntext\n--b\nContent-Type: text/html\n\nhtml\n--b--\n")},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.SetBytes(int64(len(bb.msg)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Parse(bytes.NewReader(bb.msg), int64(len(bb.msg))); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
