package imapd

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"testing/iotest"

	"postern/internal/fuzzcorpus"
)

// samples are texts of all kinds.
func samples() map[string][]byte {
	rng := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 100_000)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	skewed := make([]byte, 200_000) // makes long codes
	for i := range skewed {
		skewed[i] = byte(min(255, int(rng.ExpFloat64()*12)))
	}
	return map[string][]byte{
		"empty":    {},
		"one":      []byte("a"),
		"command":  []byte("a1 LOGIN alice secret\r\n"),
		"zeros":    make([]byte, 300_000),
		"noise":    noise,
		"skewed":   skewed,
		"text":     []byte(strings.Repeat("Received: from mail.example.org by mx.example.net\r\n", 3000)),
		"far back": append(bytes.Clone(noise[:32760]), noise[:32760]...),
	}
}

func TestInflate(t *testing.T) {
	for name, text := range samples() {
		for _, level := range []int{flate.HuffmanOnly, flate.NoCompression, 1, 6, 9} {
			var packed bytes.Buffer
			w, err := flate.NewWriter(&packed, level)
			if err != nil {
				t.Fatal(err)
			}
			for piece := range chunks(text, 7001) {
				w.Write(piece)
				w.Flush()
			}
			w.Close()
			for _, r := range []io.Reader{bytes.NewReader(packed.Bytes()), iotest.OneByteReader(bytes.NewReader(packed.Bytes()))} {
				got, err := io.ReadAll(newInflater(r))
				if err != nil || !bytes.Equal(got, text) {
					t.Errorf("%s, level %d: %d bytes of %d, %v", name, level, len(got), len(text), err)
				}
			}
			// Cut off anywhere it is an error, and what comes before it is right.
			for _, n := range []int{0, 1, packed.Len() / 2, packed.Len() - 1} {
				got, err := io.ReadAll(newInflater(bytes.NewReader(packed.Bytes()[:n])))
				if !bytes.HasPrefix(text, got) || (err != nil && !errors.Is(err, io.ErrUnexpectedEOF)) {
					t.Errorf("%s, level %d, %d bytes: %d bytes, %v", name, level, n, len(got), err)
				}
			}
		}
	}
}

func chunks(b []byte, n int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			k := min(n, len(b))
			if !yield(b[:k]) {
				return
			}
			b = b[k:]
		}
	}
}

// noMore fails a test that reads beyond what a flush has sent.
type noMore struct {
	t *testing.T
	r io.Reader
}

func (n noMore) Read(p []byte) (int, error) {
	k, err := n.r.Read(p)
	if err == io.EOF {
		n.t.Helper()
		n.t.Error("waits for more before giving out what has come")
	}
	return k, err
}

// All that was written before a flush can be read before more comes, whichever flush of
// zlib's it is. The partial one is that of mbsync; bytes made with Python's zlib.
func TestInflateFlush(t *testing.T) {
	for name, packed := range map[string]string{
		"partial": "\x4a\x34\x54\xf0\xf3\xf7\x0f\xe0\xe5\x02\x08",
		"sync":    "\x4a\x34\x54\xf0\xf3\xf7\x0f\xe0\xe5\x02\x00\x00\x00\xff\xff",
	} {
		z := newInflater(noMore{t, strings.NewReader(packed)})
		got := make([]byte, 9)
		if _, err := io.ReadFull(z, got); err != nil || string(got) != "a1 NOOP\r\n" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// TestInflatePartialFlushes takes a whole dialogue of partial flushes from zlib itself.
func TestInflatePartialFlushes(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not installed")
	}
	const script = `
import zlib, sys, struct, random
random.seed(4)
for flush in zlib.Z_PARTIAL_FLUSH, zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH:
    z = zlib.compressobj(random.choice((1, 6, 9)), zlib.DEFLATED, -15)
    for i in range(300):
        text = bytes(random.choice(b"abcdefghij \r\n") for _ in range(random.randrange(1, random.choice((20, 4000)))))
        packed = z.compress(text) + z.flush(flush)
        sys.stdout.buffer.write(struct.pack(">II", len(text), len(packed)) + text + packed)
    sys.stdout.buffer.write(struct.pack(">II", 0, 0))
`
	out, err := exec.Command(python, "-c", script).Output()
	if err != nil {
		t.Fatal(err)
	}
	number := func() int {
		n := int(out[0])<<24 | int(out[1])<<16 | int(out[2])<<8 | int(out[3])
		out = out[4:]
		return n
	}
	for range 3 {
		var fed bytes.Buffer
		z := newInflater(noMore{t, &fed})
		for i := 0; ; i++ {
			size, packed := number(), number()
			if size == 0 {
				break
			}
			want := out[:size]
			fed.Write(out[size : size+packed])
			out = out[size+packed:]
			got := make([]byte, size)
			if _, err := io.ReadFull(z, got); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("piece %d: %v", i, err)
			}
		}
	}
}

func FuzzInflate(f *testing.F) {
	for _, text := range samples() {
		var packed bytes.Buffer
		w, _ := flate.NewWriter(&packed, 6)
		w.Write(text[:min(len(text), 5000)])
		w.Close()
		f.Add(packed.Bytes())
	}
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, packed []byte) {
		const limit = 1 << 20
		want, wantErr := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(packed)), limit))
		got, gotErr := io.ReadAll(io.LimitReader(newInflater(bytes.NewReader(packed)), limit))
		if wantErr == nil && (gotErr != nil || !bytes.Equal(got, want)) {
			t.Fatalf("got %d bytes, %v; want %d", len(got), gotErr, len(want))
		}
		if wantErr != nil && gotErr == nil && len(got) < limit && !errors.Is(wantErr, io.ErrUnexpectedEOF) {
			t.Fatalf("accepted what is refused: %v", wantErr)
		}
	})
}

func BenchmarkInflate(b *testing.B) {
	text := samples()["skewed"]
	var packed bytes.Buffer
	w, _ := flate.NewWriter(&packed, 6)
	w.Write(text)
	w.Close()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := io.Copy(io.Discard, newInflater(bytes.NewReader(packed.Bytes()))); err != nil {
			b.Fatal(err)
		}
	}
}
