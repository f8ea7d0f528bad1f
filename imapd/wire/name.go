package wire

import (
	"encoding/base64"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// nameEncoding is the base64 of modified UTF-7: "," for "/", no padding. RFC
// 3501 section 5.1.3.
var nameEncoding = base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,").WithPadding(base64.NoPadding)

// EncodeName returns name, which is UTF-8, in modified UTF-7. Bytes that are no
// UTF-8 become U+FFFD.
func EncodeName(name string) string {
	plain := true
	for i := 0; i < len(name) && plain; i++ {
		plain = name[i] >= 0x20 && name[i] < 0x7f && name[i] != '&'
	}
	if plain {
		return name
	}
	var sb strings.Builder
	var units []byte // UTF-16, big endian, of the run being collected
	end := func() {
		if len(units) > 0 {
			sb.WriteByte('&')
			sb.WriteString(nameEncoding.EncodeToString(units))
			sb.WriteByte('-')
			units = units[:0]
		}
	}
	for _, r := range name {
		if r >= 0x20 && r < 0x7f {
			end()
			sb.WriteByte(byte(r))
			if r == '&' {
				sb.WriteByte('-')
			}
			continue
		}
		for _, u := range utf16.Encode([]rune{r}) {
			units = append(units, byte(u>>8), byte(u))
		}
	}
	end()
	return sb.String()
}

// DecodeName returns the UTF-8 of a name in modified UTF-7. Bytes over 127 that
// are valid UTF-8 stand for themselves, as some clients send them. Every other
// deviation is an error: two spellings of one name would be two mailboxes to a
// client and one to us.
func DecodeName(s string) (string, error) {
	bad := &NameError{Text: "mailbox name is not valid modified UTF-7"}
	if !utf8.ValidString(s) {
		return "", bad
	}
	if strings.IndexByte(s, '&') < 0 {
		return s, checkName(s)
	}
	var sb strings.Builder
	shifted := false // the last thing decoded was a shift sequence
	for i := 0; i < len(s); {
		if s[i] != '&' {
			sb.WriteByte(s[i])
			shifted = false
			i++
			continue
		}
		n := strings.IndexByte(s[i+1:], '-')
		if n < 0 {
			return "", bad
		}
		coded := s[i+1 : i+1+n]
		i += n + 2
		if coded == "" {
			sb.WriteByte('&')
			shifted = false
			continue
		}
		if shifted || strings.ContainsAny(coded, "\r\n") {
			return "", bad
		}
		units, err := nameEncoding.Strict().DecodeString(coded)
		if err != nil || len(units)%2 != 0 {
			return "", bad
		}
		for j := 0; j < len(units); j += 2 {
			r := rune(units[j])<<8 | rune(units[j+1])
			if utf16.IsSurrogate(r) {
				if j += 2; j >= len(units) {
					return "", bad
				}
				if r = utf16.DecodeRune(r, rune(units[j])<<8|rune(units[j+1])); r == utf8.RuneError {
					return "", bad
				}
			}
			if r >= 0x20 && r < 0x7f {
				return "", bad // must stand for itself
			}
			sb.WriteRune(r)
		}
		shifted = true
	}
	return sb.String(), checkName(sb.String())
}

// checkName refuses what no mailbox name may hold. RFC 9051 section 5.1.
func checkName(s string) error {
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 || s[i] == 0x7f {
			return &NameError{Text: "mailbox name holds control characters"}
		}
	}
	return nil
}

func decodeName(raw string, isUTF8 bool) (string, error) {
	if !isUTF8 {
		return DecodeName(raw)
	}
	if !utf8.ValidString(raw) {
		return "", &NameError{Text: "mailbox name is not valid UTF-8"}
	}
	return raw, checkName(raw)
}
