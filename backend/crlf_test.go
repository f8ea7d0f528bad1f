package backend

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
)

// slowCRLF says what crlfWriter is to do, one byte at a time.
func slowCRLF(s string) string {
	s = strings.ReplaceAll(s, "\r\n", "\n")
	s = strings.ReplaceAll(s, "\r", "\n")
	if s != "" && !strings.HasSuffix(s, "\n") {
		s += "\n"
	}
	return strings.ReplaceAll(s, "\n", "\r\n")
}

// However the bytes come in pieces, each line end becomes one CRLF.
func TestCRLFWriter(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		var in []byte
		for range rnd.IntN(12) {
			in = append(in, "ab\r\n\r\n"[rnd.IntN(6)])
		}
		var out bytes.Buffer
		w := crlfWriter{w: &out}
		for rest := in; len(rest) > 0; {
			k := 1 + rnd.IntN(len(rest))
			if n, err := w.Write(rest[:k]); n != k || err != nil {
				t.Fatal(n, err)
			}
			rest = rest[k:]
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if want := slowCRLF(string(in)); out.String() != want {
			t.Fatalf("%q becomes %q, want %q", in, out.String(), want)
		}
	}
}

func BenchmarkCRLFWriter(b *testing.B) {
	text := []byte(strings.Repeat(strings.Repeat("x", 76)+"\r\n", 400))
	w := crlfWriter{w: discard{}}
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := w.Write(text); err != nil {
			b.Fatal(err)
		}
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
