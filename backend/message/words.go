package message

import (
	"bytes"
	"encoding/base64"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/emersion/go-message/charset"
	"golang.org/x/text/encoding/charmap"
)

// DecodeWords decodes the encoded words of RFC 2047 in s and never fails: what cannot be decoded stays as
// it is. The result is valid UTF-8; raw bytes that are not are taken for Windows-1252, as they mostly are.
//
// More is accepted than the RFC allows: words inside quotes and without blanks around them, blanks in a word,
// characters cut in two by the end of a word, bad padding.
func DecodeWords(s string) string {
	if !strings.Contains(s, "=?") {
		return toUTF8("", []byte(s))
	}
	var out strings.Builder
	var pending []byte // decoded bytes of words in the same charset
	var pendingCharset string
	flush := func() {
		if len(pending) > 0 {
			out.WriteString(toUTF8(pendingCharset, pending))
			pending = pending[:0]
		}
	}
	afterWord := false
	for s != "" {
		i := strings.Index(s, "=?")
		if i < 0 {
			break
		}
		n := encodedWordLength(s[i:])
		if n == 0 {
			flush()
			afterWord = false
			out.WriteString(toUTF8("", []byte(s[:i+2])))
			s = s[i+2:]
			continue
		}
		// Blanks between two words are not shown (RFC 2047 section 6.2).
		if gap := s[:i]; !afterWord || strings.Trim(gap, " \t\r\n") != "" {
			flush()
			out.WriteString(toUTF8("", []byte(gap)))
		}
		cs, text := decodeWord(s[i : i+n])
		if !strings.EqualFold(cs, pendingCharset) {
			flush()
			pendingCharset = cs
		}
		pending = append(pending, text...)
		afterWord = true
		s = s[i+n:]
	}
	flush()
	out.WriteString(toUTF8("", []byte(s)))
	return out.String()
}

// encodedWordLength returns the length of the encoded word at the start of s, 0 if there is none.
func encodedWordLength(s string) int {
	if len(s) < 8 || s[0] != '=' || s[1] != '?' {
		return 0
	}
	cs := strings.IndexByte(s[2:min(len(s), 82)], '?')
	if cs < 1 || strings.ContainsAny(s[2:2+cs], " \t\"<>,;=") {
		return 0
	}
	i := 2 + cs + 1 // the encoding
	if i+2 >= len(s) || s[i+1] != '?' || strings.IndexByte("bBqQ", s[i]) < 0 {
		return 0
	}
	end := strings.IndexByte(s[i+2:], '?')
	if end < 0 {
		return 0
	}
	end += i + 2
	if end+1 >= len(s) || s[end+1] != '=' {
		return 0
	}
	return end + 2
}

// decodeWord returns the charset of an encoded word and its bytes.
func decodeWord(w string) (cs string, b []byte) {
	w = w[2 : len(w)-2]
	cs, rest, _ := strings.Cut(w, "?")
	cs, _, _ = strings.Cut(cs, "*") // language, RFC 2231 section 5
	text := rest[2:]
	if lower(rest[0]) == 'b' {
		return cs, decodeBase64([]byte(text))
	}
	b = make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '_':
			b = append(b, ' ')
		case c == '=' && i+2 < len(text) && unhex(text[i+1]) >= 0 && unhex(text[i+2]) >= 0:
			b = append(b, byte(unhex(text[i+1])<<4|unhex(text[i+2])))
			i += 2
		default:
			b = append(b, c)
		}
	}
	return cs, b
}

// decodeBase64 decodes what is in the alphabet and passes over the rest.
func decodeBase64(b []byte) []byte {
	clean := b[:0:0]
	for _, c := range b {
		if base64Alphabet[c] {
			clean = append(clean, c)
		}
	}
	out := make([]byte, base64.RawStdEncoding.DecodedLen(len(clean)))
	if len(clean)%4 == 1 {
		clean = clean[:len(clean)-1]
	}
	n, _ := base64.RawStdEncoding.Decode(out, clean)
	return out[:n]
}

var base64Alphabet = func() (t [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
		t[c] = true
	}
	return t
}()

// toUTF8 converts b from a charset; unknown charsets and bytes that are not in it are taken for UTF-8 and
// else for Windows-1252. Characters never disappear.
func toUTF8(cs string, b []byte) string {
	if isASCII(b) && asciiSuperset(cs) {
		return string(b)
	}
	switch strings.ToLower(cs) {
	case "", "utf-8", "utf8", "us-ascii", "ascii", "unknown-8bit":
	default:
		if r, err := charset.Reader(cs, bytes.NewReader(b)); err == nil {
			if out, err := io.ReadAll(r); err == nil && utf8.Valid(out) {
				return string(out)
			}
		}
	}
	if utf8.Valid(b) {
		return string(b)
	}
	out, err := charmap.Windows1252.NewDecoder().Bytes(b)
	if err != nil {
		return strings.ToValidUTF8(string(b), "\uFFFD")
	}
	return string(out)
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// asciiSuperset reports whether bytes below 128 mean ASCII in the charset.
func asciiSuperset(cs string) bool {
	cs = strings.ToLower(cs)
	return !strings.HasPrefix(cs, "iso-2022") && !strings.HasPrefix(cs, "utf-16") && !strings.HasPrefix(cs, "utf-32") &&
		!strings.HasPrefix(cs, "hz") && cs != "utf-7"
}
