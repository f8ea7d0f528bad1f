package message

import (
	"bytes"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"postern/internal/fuzzcorpus"
)

func FuzzParse(f *testing.F) {
	for _, b := range mimeFiles(f) {
		f.Add(b)
	}
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		ix := parse(t, b)
		checkIndex(t, b, ix)
		data, err := ix.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		var back Index
		if err := back.UnmarshalBinary(data); err != nil {
			t.Fatalf("own index refused: %v", err)
		}
		header, err := HeaderBytes(bytes.NewReader(b), ix)
		if err != nil || !bytes.HasPrefix(b, header) {
			t.Fatalf("header %q, %v", header, err)
		}
	})
}

func FuzzFields(f *testing.F) {
	for _, b := range mimeFiles(f) {
		f.Add(b)
	}
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		last := 0
		for _, fd := range Fields(b) {
			i := bytes.Index(b[last:], fd.Raw)
			if i < 0 || len(fd.Raw) == 0 || fd.Name == "" || strings.ContainsAny(fd.Name, ": \t\r\n") || strings.ContainsAny(fd.Value, "\r\n") {
				t.Fatalf("field %+v", fd)
			}
			last += i + len(fd.Raw)
		}
		if out := FilterHeader(b, nil, true); !bytes.HasPrefix(b, bytes.TrimRight(out, "\r\n")) || len(out) > 0 && out[len(out)-1] != '\n' {
			t.Fatalf("filtered header %q of %q", out, b)
		}
		ParseEnvelope(b)
	})
}

func FuzzParseAddressList(f *testing.F) {
	for _, s := range []string{`"A" <a@a.example>, b@b.example`, "G: a@a;, (c) <@r:b@b>", `"x <a@a`, "=?utf-8?q?a,b?= <a@a>", "a@[1"} {
		f.Add(s)
	}
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, s string) {
		depth := 0
		for _, a := range ParseAddressList(s) {
			if a.Host == "" {
				if a.Name != "" {
					t.Fatalf("group entry with a name: %+v", a)
				}
				if a.Mailbox != "" {
					depth++
				} else {
					depth--
				}
			} else if a.Mailbox == "" {
				t.Fatalf("address without a mailbox: %+v", a)
			}
		}
		if depth != 0 {
			t.Fatalf("groups are not closed: %d", depth)
		}
	})
}

func FuzzFilterAddressField(f *testing.F) {
	for _, s := range []string{`"A" <a@a.example>, b@b.example`, "G: a@a;, (c) <@r:b@b>", `"x <a@a`, "=?utf-8?q?a,b?= <a@a>"} {
		f.Add(s)
	}
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, s string) {
		all := func(string) bool { return true }
		out, changed := FilterAddressField(s, all)
		if !changed && out != s {
			t.Fatalf("%q became %q with all kept", s, out)
		}
		// Whatever comes behind, the same addresses are named; a group that was never closed may take it in.
		if len(ParseAddressList(s)) < maxAddresses {
			before, after := named(s), named(out+`, (c) "q" <b@y>`)
			if before = append(before, "b@y"); !slices.Equal(before, after) {
				t.Fatalf("%q names %q, but %q names %q", s, before, out, after)
			}
		}
		out, _ = FilterAddressField(s, func(addr string) bool { return len(addr)%2 == 0 })
		if strings.ContainsAny(out, "\r\n") && !strings.ContainsAny(s, "\r\n") {
			t.Fatalf("line end in %q", out)
		}
	})
}

var plausible = regexp.MustCompile(`^[A-Za-z0-9._+-]+@[A-Za-z0-9.-]+$`)

// named returns the addresses in a field that mail could be sent to.
func named(field string) (list []string) {
	for _, a := range ParseAddressList(field) {
		if addr := a.Mailbox + "@" + a.Host; a.Mailbox != MissingMailbox && plausible.MatchString(addr) {
			list = append(list, addr)
		}
	}
	return list
}

func FuzzParseDate(f *testing.F) {
	for _, s := range []string{"Mon, 23 Nov 2026 10:00:00 +0100", "23-Nov-26 1:2 PM", "2026-11-23T10:00:00Z", "Mon Nov 23 10:00:00 CET 2026", "23.11.2026"} {
		f.Add(s)
	}
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, s string) {
		if d, ok := ParseDate(s); ok && (d.Year() < 1 || d.Year() > 10000) {
			t.Fatalf("%q is %v", s, d)
		}
	})
}

func FuzzDecodeWords(f *testing.F) {
	for _, s := range []string{"=?utf-8?Q?a_=C3=A9?= =?utf-8?b?w6k?=", "=?ISO-2022-JP?B?GyRCRnxLXDhsGyhC?=", "=?a*b?q?=??=", "\xe9"} {
		f.Add(s)
	}
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, s string) {
		out := DecodeWords(s)
		if !utf8.ValidString(out) {
			t.Fatalf("DecodeWords(%q) = %q", s, out)
		}
		if !strings.Contains(s, "=?") && utf8.ValidString(s) && out != s {
			t.Fatalf("%q became %q", s, out)
		}
		SplitSubject(s)
	})
}

func FuzzIndexUnmarshal(f *testing.F) {
	for _, b := range mimeFiles(f) {
		if data, err := parse(f, b).MarshalBinary(); err == nil {
			f.Add(data)
		}
	}
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		var ix Index
		if err := ix.UnmarshalBinary(data); err != nil {
			return
		}
		if ix.Root == nil || ix.Root.Body.End() > ix.Size {
			t.Fatalf("bad index accepted: %+v", ix.Root)
		}
		ix.Section([]int{1, 1}, "MIME")
	})
}

func FuzzDecoded(f *testing.F) {
	f.Add("base64", []byte("aGVs\r\nbG8="))
	f.Add("quoted-printable", []byte("a=\r\nb=3D  \r\n"))
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, encoding string, b []byte) {
		r, err := Decoded(bytes.NewReader(b), &Part{Encoding: encoding, Body: Span{0, int64(len(b))}})
		if err != nil {
			return
		}
		if n, err := io.Copy(io.Discard, r); err != nil || n > int64(len(b)) {
			t.Fatalf("%d bytes of %d, %v", n, len(b), err)
		}
	})
}
