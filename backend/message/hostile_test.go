package message

import (
	"strings"
	"testing"
	"time"
)

// Input made to be slow must not be: every function takes time linear in it.
func TestHostileInput(t *testing.T) {
	const size = maxFieldValue + 64
	units := []string{"(", ")", "((", "\"", "\\", "\\\"", "<", ">", "<<a@b", ",", ";", ":", "a:", "a@b:", "@", ".", " . ", "[", "[a", "]", "=?", "=?a?q?", "=?utf-8?q?a?= ", "=?utf-8?q?", "=", "a=b;", "a=b ", "a*0=b;", "/",
		" ", "\t", "a", "\xff", "a ", "a,", "G:a@b;", "\r\n ", "\r\n", "--", "\n--", "a: b\r\n", "re:", "re[a]", "[a]", "[fwd:", "(fwd)", "%41", "1", "1 ", "-1", "Jan "}
	for _, u := range units {
		s := strings.Repeat(u, size/len(u))
		for _, f := range []struct {
			name string
			run  func()
		}{
			{"ParseAddressList", func() { ParseAddressList(s) }},
			{"ParseAddressList after an address", func() { ParseAddressList("a@b:" + s) }},
			{"ParseAddressList in angle", func() { ParseAddressList("x <" + s) }},
			{"FilterAddressField", func() { FilterAddressField(s, func(string) bool { return true }) }},
			{"DecodeWords", func() { DecodeWords(s) }},
			{"ParseDate", func() { ParseDate(s) }},
			{"SplitSubject", func() { SplitSubject(s) }},
			{"Fields", func() { Fields([]byte(s)) }},
			{"content type", func() { parseContentType("text/plain; a=" + s[:maxFieldValue]); parseContentType(s[:maxFieldValue]) }},
			{"disposition", func() { parseDisposition("attachment;" + s[:maxFieldValue]) }},
			{"languages", func() { parseLanguages(s[:maxFieldValue]) }},
			{"ParseEnvelope", func() { ParseEnvelope([]byte("To: " + s)) }},
			{"Parse", func() { parse(t, []byte("Content-Type: multipart/mixed; boundary=-\r\n\r\n"+s)) }},
		} {
			start := time.Now()
			f.run()
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("%s of %q repeated took %v", f.name, u, took)
			}
		}
	}
}

// A hundred boundaries in force and a body of nothing but dashes is the worst for the search of delimiters.
func TestHostileBoundaries(t *testing.T) {
	var sb strings.Builder
	for i := range maxDepth - 2 {
		b := strings.Repeat("-", 60) + string(rune('a'+i%26)) + strings.Repeat("x", i)
		sb.WriteString("Content-Type: multipart/mixed; boundary=\"" + b + "\"\r\n\r\n--" + b + "\r\n")
	}
	sb.WriteString("\r\n" + strings.Repeat(strings.Repeat("-", 62)+"\r\n", 50_000))
	b := []byte(sb.String())
	start := time.Now()
	checkIndex(t, b, parse(t, b))
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("%d bytes took %v", len(b), took)
	}
}
