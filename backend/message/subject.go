package message

import "strings"

// maxSubject is how much of a subject counts for its base.
const maxSubject = 4000

// SplitSubject returns the base subject of RFC 5256 section 2.1: decoded, blanks collapsed, without "Re:", "Fwd:",
// "[list]" and "(fwd)", and empty where nothing else is there. reply says whether what was taken off marks a reply or a forwarded message.
func SplitSubject(s string) (base string, reply bool) {
	if len(s) > maxSubject {
		s = strings.ToValidUTF8(s[:maxSubject], "")
	}
	s = strings.Join(strings.Fields(DecodeWords(s)), " ")
	for {
		for {
			t := strings.TrimSpace(s)
			if n := len(t) - 5; n >= 0 && strings.EqualFold(t[n:], "(fwd)") {
				s, reply = t[:n], true
				continue
			}
			s = t
			break
		}
		for {
			before := s
			if t, ok := trimLeader(s); ok {
				s, reply = t, true
			}
			if t := trimBlob(s); t != s && t != "" {
				s = t
			}
			if s == before {
				break
			}
		}
		if len(s) >= 6 && strings.EqualFold(s[:5], "[fwd:") && s[len(s)-1] == ']' {
			s, reply = s[5:len(s)-1], true
			continue
		}
		return s, reply
	}
}

// trimLeader removes one "[blob] Re [blob]:".
func trimLeader(s string) (rest string, ok bool) {
	t := s
	for {
		u := trimBlob(t)
		if u == t {
			break
		}
		t = u
	}
	switch {
	case hasPrefixFold(t, "re"):
		t = t[2:]
	case hasPrefixFold(t, "fwd"):
		t = t[3:]
	case hasPrefixFold(t, "fw"):
		t = t[2:]
	default:
		return s, false
	}
	t = trimBlob(strings.TrimLeft(t, " "))
	if t == "" || t[0] != ':' {
		return s, false
	}
	return strings.TrimLeft(t[1:], " "), true
}

// trimBlob removes one "[text] " from the start.
func trimBlob(s string) string {
	if s == "" || s[0] != '[' {
		return s
	}
	i := strings.IndexAny(s[1:], "[]")
	if i < 0 || s[1+i] != ']' {
		return s
	}
	return strings.TrimLeft(s[i+2:], " ")
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}
