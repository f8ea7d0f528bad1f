package message

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

func TestSection(t *testing.T) {
	files := mimeFiles(t)
	for _, tt := range []struct{ file, section, want string }{
		{"plain", "", "*"},
		{"plain", "1", "Hello Bob,\r\n\r\nall is well – so far.\r\n"},
		{"plain", "TEXT", "Hello Bob,\r\n\r\nall is well – so far.\r\n"},
		{"plain", "1.1", "none"},
		{"plain", "2", "none"},
		{"plain", "0", "none"},
		{"plain", "1.HEADER", "none"},
		{"plain", "MIME", "none"},
		{"plain", "1.MIME", "header"},
		{"plain", "HEADER", "header"},
		{"nested-rfc822", "1", "1"},
		{"nested-rfc822", "2.MIME", "Content-Type: application/octet-stream\r\n\r\n"},
		{"nested-rfc822", "3.HEADER", "From: inner@a.example\r\nSubject: inner\r\nContent-Type: multipart/mixed; boundary=y\r\n\r\n"},
		{"nested-rfc822", "3.MIME", "Content-Type: message/rfc822\r\n\r\n"},
		{"nested-rfc822", "3.1", "3.1"},
		{"nested-rfc822", "3.2", "3.2"},
		{"nested-rfc822", "3.TEXT", "--y\r\nContent-Type: text/plain\r\n\r\n3.1\r\n--y\r\nContent-Type: application/octet-stream\r\n\r\n3.2\r\n--y--"},
		{"nested-rfc822", "4.1", "4.1"},
		{"nested-rfc822", "4.HEADER", "none"},
		{"nested-rfc822", "4.1.MIME", "Content-Type: image/gif\r\n\r\n"},
		{"nested-rfc822", "4.2.1", "4.2.1"},
		{"nested-rfc822", "4.2.2.2", "4.2.2.2"},
		{"nested-rfc822", "4.2.2.2.1", "none"},
		{"rfc822-root", "1", "From: in@a.example\r\nTo: out@a.example\r\nSubject: embedded\r\n\r\nembedded text\r\n"},
		{"rfc822-root", "1.1", "embedded text\r\n"},
		{"rfc822-root", "1.TEXT", "embedded text\r\n"},
		{"rfc822-base64", "1.1", "none"},
		{"rfc822-base64", "1.HEADER", "none"},
		{"junk-header", "TEXT", "The body.\r\n"},
		{"junk-header", "", "*"},
		{"mbox-from", "TEXT", "body\r\n"},
		{"empty", "", ""},
		{"empty", "TEXT", ""},
		{"empty", "HEADER", ""},
		{"empty", "1", ""},
		{"no-boundary-param", "1", "--b\r\nContent-Type: text/plain\r\n\r\nvisible all the same\r\n--b--\r\n"},
		{"boundary-never-used", "1", "--other\r\nContent-Type: text/plain\r\n\r\nvisible all the same\r\n--other--\r\n"},
		{"no-end-boundary", "2", "two, and then nothing\r\n"},
		{"bare-lf", "1", "one\ntwo"},
	} {
		b := files[tt.file]
		ix := parse(t, b)
		var path []int
		specifier := ""
		for _, s := range strings.Split(tt.section, ".") {
			if n, err := strconv.Atoi(s); err == nil {
				path = append(path, n)
			} else {
				specifier = s
			}
		}
		got := "none"
		if span, ok := ix.Section(path, specifier); ok {
			got = string(b[span.Off:span.End()])
		}
		switch want := tt.want; {
		case want == "*" && got == string(b):
		case want == "header" && got == string(b[:ix.Root.Header.Len]):
		case got != want:
			t.Errorf("%s BODY[%s] = %q, want %q", tt.file, tt.section, got, want)
		}
	}
}

func TestMarshal(t *testing.T) {
	for name, b := range mimeFiles(t) {
		ix := parse(t, b)
		data, err := ix.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		var back Index
		if err := back.UnmarshalBinary(data); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if d := cmp.Diff(ix, &back); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		for i := range data {
			var cut Index
			if err := cut.UnmarshalBinary(data[:i]); err == nil {
				t.Fatalf("%s: %d of %d bytes accepted", name, i, len(data))
			}
		}
		old := append([]byte{indexVersion + 1}, data[1:]...)
		if err := back.UnmarshalBinary(old); !errors.Is(err, ErrVersion) {
			t.Errorf("another version: %v", err)
		}
	}
}

func decoded(t *testing.T, encoding, body string) string {
	t.Helper()
	r, err := Decoded(strings.NewReader(body), &Part{Encoding: encoding, Body: Span{0, int64(len(body))}})
	if err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(iotest.OneByteReader(r))
	if err != nil {
		t.Fatal(err)
	}
	return string(all)
}

func TestDecoded(t *testing.T) {
	for _, tt := range []struct{ encoding, in, want string }{
		{"", "as is", "as is"},
		{"8BIT", "as is", "as is"},
		{"BASE64", "aGVs\r\nbG8=\r\n", "hello"},
		{"base64", "aGVsbG8", "hello"},
		{"base64", "aGVs*-!bG8=", "hello"},
		{"base64", "aGVsbG8=aGVsbG8=", "hellohello"},
		{"base64", "====", ""},
		{"base64", "a", ""},
		{"base64", "", ""},
		{"quoted-printable", "a=3Db=3d=\r\nc \t\r\nd=", "a=b=c\r\nd"},
		{"quoted-printable", "bad =ZZ =4 esc", "bad =ZZ =4 esc"},
		{"quoted-printable", "soft=  \r\nbreak=\nbare", "softbreakbare"},
		{"quoted-printable", strings.Repeat("x", 20_000) + "=41", strings.Repeat("x", 20_000) + "A"},
	} {
		if got := decoded(t, tt.encoding, tt.in); got != tt.want {
			t.Errorf("%s %q = %q, want %q", tt.encoding, tt.in, got, tt.want)
		}
	}
	// An escape at every place around the edge of the line buffer.
	for n := 16<<10 - 5; n < 16<<10+5; n++ {
		if got := decoded(t, "quoted-printable", strings.Repeat("x", n)+"=41=42y"); got != strings.Repeat("x", n)+"ABy" {
			t.Errorf("escape at %d: …%q", n, got[n-3:])
		}
	}
	long := strings.Repeat("0123456789", 20_000)
	var enc bytes.Buffer
	for i := 0; i < len(long); i += 57 {
		enc.WriteString(encode64(long[i:min(i+57, len(long))]) + "\r\n")
	}
	if got := decoded(t, "base64", enc.String()); got != long {
		t.Error("long base64 differs")
	}
	if _, err := Decoded(strings.NewReader(""), &Part{Encoding: "x-odd"}); !errors.Is(err, ErrUnknownEncoding) {
		t.Errorf("unknown encoding: %v", err)
	}
}

func TestText(t *testing.T) {
	for _, tt := range []struct{ charset, encoding, in, want string }{
		{"iso-8859-1", "quoted-printable", "Gr=FC=DFe", "Grüße"},
		{"koi8-r", "base64", "8NLJ18XU", "Привет"},
		{"UTF-8", "", "Grüße", "Grüße"},
		{"", "", "a\xffb", "a\uFFFDb"},
		{"x-none", "", "abc", "abc"},
		{"utf-8", "x-none", "abc", "abc"},
	} {
		p := &Part{Type: "text", Subtype: "plain", Encoding: tt.encoding, Params: []Param{{"charset", tt.charset}}, Body: Span{0, int64(len(tt.in))}}
		r, err := Text(strings.NewReader(tt.in), p)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err != nil || string(got) != tt.want {
			t.Errorf("%+v: %q, %v", tt, got, err)
		}
	}
}

func TestNormalizeCRLF(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", ""},
		{"a", "a"},
		{"a\nb\r\nc\rd", "a\r\nb\r\nc\r\nd"},
		{"\n\n", "\r\n\r\n"},
		{"\r\r\n", "\r\n\r\n"},
		{"a\r", "a\r\n"},
		{"\r", "\r\n"},
	} {
		for _, r := range []io.Reader{strings.NewReader(tt.in), iotest.OneByteReader(strings.NewReader(tt.in)), iotest.DataErrReader(strings.NewReader(tt.in))} {
			got, err := io.ReadAll(NormalizeCRLF(r))
			if string(got) != tt.want || err != nil {
				t.Errorf("NormalizeCRLF(%q) = %q, %v, want %q", tt.in, got, err, tt.want)
			}
		}
	}
}

func BenchmarkDecoded(b *testing.B) {
	body := strings.Repeat(strings.Repeat("QUJD", 19)+"\r\n", 50_000)
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		r, _ := Decoded(strings.NewReader(body), &Part{Encoding: "base64", Body: Span{0, int64(len(body))}})
		if _, err := io.Copy(io.Discard, r); err != nil {
			b.Fatal(err)
		}
	}
}
