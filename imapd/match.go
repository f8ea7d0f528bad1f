package imapd

import (
	"strings"

	"postern/imapd/wire"
)

// pattern is a mailbox name with wildcards: "*" stands for anything, "%" for
// anything within one level. RFC 3501 section 6.3.8.
type pattern struct {
	text     string // runs of wildcards are one
	literals int    // bytes of text that are no wildcards
}

func newPattern(s string) pattern {
	var p pattern
	var sb strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '*' && s[i] != '%' {
			sb.WriteByte(s[i])
			p.literals++
			continue
		}
		wild := s[i]
		for i+1 < len(s) && (s[i+1] == '*' || s[i+1] == '%') {
			i++
			if s[i] == '*' {
				wild = '*'
			}
		}
		sb.WriteByte(wild)
	}
	p.text = wire.CanonicalName(sb.String())
	return p
}

// match reports whether the pattern matches the whole name. It follows all
// possibilities at once, so that the time is at most len(name) times
// len(pattern): matchers that go back take hours for *a*a*a*a*a*b.
func (p pattern) match(name string) bool {
	if p.literals > len(name) {
		return false
	}
	// at[i]: the bytes so far can be matched by text[:i].
	at := make([]bool, len(p.text)+1)
	at[0] = true
	p.skipWild(at)
	inbox := name == "INBOX" || strings.HasPrefix(name, "INBOX"+delimiter)
	for n := 0; n < len(name); n++ {
		c, alive := name[n], false
		// From the back, so that at[i] is still that of the byte before.
		for i := len(p.text); i > 0; i-- {
			switch t := p.text[i-1]; t {
			case '*':
				at[i] = at[i] || at[i-1]
			case '%':
				at[i] = (at[i] || at[i-1]) && c != delimiter[0]
			default:
				at[i] = at[i-1] && (t == c || (inbox && n < len("INBOX") && t|0x20 == c|0x20))
			}
			alive = alive || at[i]
		}
		at[0] = false
		if !alive {
			return false
		}
		p.skipWild(at)
	}
	return at[len(p.text)]
}

// skipWild lets wildcards match nothing.
func (p pattern) skipWild(at []bool) {
	for i := range len(p.text) {
		if at[i] && (p.text[i] == '*' || p.text[i] == '%') {
			at[i+1] = true
		}
	}
}

// patterns is several of them; a name matches when one of them does.
type patterns []pattern

func (ps patterns) match(name string) bool {
	for _, p := range ps {
		if p.match(name) {
			return true
		}
	}
	return false
}
