package message

import "strings"

// maxSubject is how much of a subject counts for its base.
const maxSubject = 4000

// BaseSubject returns the base subject of RFC 5256 section 2.1: decoded, blanks collapsed, without
// "Re:", "Fwd:", "[list]" and "(fwd)". It is empty where nothing else is there.
func BaseSubject(s string) string {
	if len(s) > maxSubject {
		s = strings.ToValidUTF8(s[:maxSubject], "")
	}
	s = strings.Join(strings.Fields(DecodeWords(s)), " ")
	for {
		for {
			t := strings.TrimSpace(s)
			if n := len(t) - 5; n >= 0 && strings.EqualFold(t[n:], "(fwd)") {
				s = t[:n]
				continue
			}
			s = t
			break
		}
		for {
			before := s
			s = trimLeader(s)
			if t := trimBlob(s); t != s && t != "" {
				s = t
			}
			if s == before {
				break
			}
		}
		if len(s) >= 6 && strings.EqualFold(s[:5], "[fwd:") && s[len(s)-1] == ']' {
			s = s[5 : len(s)-1]
			continue
		}
		return s
	}
}

// trimLeader removes blanks, or one "[blob] Re [blob]:".
func trimLeader(s string) string {
	s = strings.TrimLeft(s, " ")
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
		return s
	}
	t = trimBlob(strings.TrimLeft(t, " "))
	if t == "" || t[0] != ':' {
		return s
	}
	return strings.TrimLeft(t[1:], " ")
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
