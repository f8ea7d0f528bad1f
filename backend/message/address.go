package message

import "strings"

// What stands in for the half an address lacks, so that IMAP does not take it for a group.
// Dovecot uses the same words.
const (
	MissingMailbox = "MISSING_MAILBOX"
	MissingDomain  = "MISSING_DOMAIN"
)

// ParseAddressList reads an address field (RFC 5322 section 3.4) and what people put there instead. One bad
// entry never costs the others. Besides commas, semicolons separate; bytes over 127 are kept; commas in
// encoded words do not separate; an entry without a domain gets MissingDomain.
func ParseAddressList(s string) []Address {
	return parseAddresses(s, maxAddresses)
}

func parseAddresses(s string, limit int) []Address {
	var list []Address
	p := addressParser{src: s}
	for len(list) < limit {
		e, ok := p.next()
		if !ok {
			break
		}
		list = append(list, e.Address)
	}
	return list
}

// Addr returns mailbox@host as a message would write it, with quotes where the mailbox needs them. It is
// the mailbox alone where the domain is missing, and "" where the mailbox is, and for a group's start and
// end.
func (a Address) Addr() string {
	if a.Host == "" || a.Mailbox == "" || a.Mailbox == MissingMailbox {
		return ""
	}
	m := a.Mailbox
	if needsQuotes(m) {
		m = quote(m)
	}
	if a.Host == MissingDomain {
		return m
	}
	return m + "@" + a.Host
}

func needsQuotes(mailbox string) bool {
	return strings.ContainsAny(mailbox, " \t()<>[]:;@\\,\"") || strings.HasPrefix(mailbox, ".") || strings.HasSuffix(mailbox, ".") && len(mailbox) == 1
}

func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// maxLiteral is the length of the longest domain literal that is recognised.
const maxLiteral = 256

// entryKind says what an entry of an address field is.
type entryKind int

const (
	plainEntry entryKind = iota
	groupStart
	groupEnd
)

// entry is an address with its place in the field.
type entry struct {
	Address
	kind       entryKind
	start, end int // of its text; separators are outside
}

type tokenKind byte

const (
	tokEnd     tokenKind = 0
	tokAtom    tokenKind = 'a' // anything not below; dots included
	tokQuoted  tokenKind = 'q'
	tokComment tokenKind = 'c'
	// the specials stand for themselves
)

type addressToken struct {
	kind       tokenKind
	text       string // quotes and backslashes removed
	start, end int
	space      bool // preceded by blanks
}

type addressParser struct {
	src                   string
	pos                   int
	inGroup               bool
	noQuote, noComment    bool // an unfinished one was met: from here on the character is ordinary
	peeked                addressToken
	hasPeeked             bool
	display, addr, remark []addressToken // reused
}

// next returns the next entry. A group that is never closed is closed at the end.
func (p *addressParser) next() (entry, bool) {
	for {
		t := p.peek()
		switch t.kind {
		case tokEnd:
			if p.inGroup {
				p.inGroup = false
				return entry{kind: groupEnd, start: len(p.src), end: len(p.src)}, true
			}
			return entry{}, false
		case ',', '>':
			p.take()
			continue
		case ';':
			p.take()
			if p.inGroup {
				p.inGroup = false
				return entry{kind: groupEnd, start: t.start, end: t.end}, true
			}
			continue
		}
		if e, ok := p.entry(); ok {
			return e, true
		}
	}
}

// entry reads one address or a group's start.
func (p *addressParser) entry() (entry, bool) {
	p.display, p.addr, p.remark = p.display[:0], p.addr[:0], p.remark[:0]
	start := p.peek().start
	end := start
	angle, at := false, false
	for {
		t := p.peek()
		switch t.kind {
		case tokEnd, ',', ';':
			return p.finish(start, end, angle)
		case ':':
			p.take()
			end = t.end
			if angle || p.inGroup || at {
				p.display = append(p.display, addressToken{kind: tokAtom, text: ":", space: t.space})
				continue
			}
			name := phrase(p.display)
			if name == "" || strings.EqualFold(name, "mailto") {
				p.display = p.display[:0]
				continue
			}
			p.inGroup = true
			return entry{Address: Address{Mailbox: name}, kind: groupStart, start: start, end: end}, true
		case '<':
			if angle {
				// Another address with no comma before it.
				return p.finish(start, end, angle)
			}
			p.take()
			angle = true
			end = p.angle(t.end)
		case tokComment:
			p.take()
			end = t.end
			p.remark = append(p.remark, t)
		case '>':
			p.take()
			end = t.end
		default:
			p.take()
			end = t.end
			if !angle {
				p.display = append(p.display, t)
				at = at || t.kind == '@'
			}
		}
	}
}

// angle reads up to '>' into p.addr and returns where it ended. Commas belong to a source route only.
func (p *addressParser) angle(end int) int {
	for {
		t := p.peek()
		switch t.kind {
		case tokEnd, '<', ';':
			return end
		case ',':
			if len(p.addr) == 0 || p.addr[0].kind != '@' {
				return end
			}
		case '>':
			p.take()
			return t.end
		}
		p.take()
		end = t.end
		if t.kind != tokComment {
			p.addr = append(p.addr, t)
		}
	}
}

// finish makes an entry of the tokens read.
func (p *addressParser) finish(start, end int, angle bool) (entry, bool) {
	e := entry{start: start, end: end}
	if angle {
		e.Name = phrase(p.display)
		addr := p.addr
		if len(addr) > 0 && addr[0].kind == '@' {
			for i, t := range addr {
				if t.kind == ':' { // <@a,@b:user@host>
					e.Route = glue(addr[:i])
					addr = addr[i+1:]
					break
				}
			}
		}
		if len(addr) > 1 && addr[1].kind == ':' && strings.EqualFold(addr[0].text, "mailto") {
			addr = addr[2:]
		}
		e.Mailbox, e.Host = splitAddress(addr)
	} else {
		display := p.display
		if len(display) == 0 && len(p.remark) == 0 {
			return entry{}, false
		}
		// "Some Name user@host": the address is the last run of tokens around an '@'.
		if at := lastAt(display); at >= 0 {
			from, to := at, at+1
			for from > 0 && joined(display, from) {
				from--
			}
			for to < len(display) && joined(display, to) {
				to++
			}
			e.Name = phrase(display[:from])
			if e.Name == "" {
				e.Name = phrase(display[to:])
			}
			e.Mailbox, e.Host = splitAddress(display[from:to])
		} else if len(display) > 0 {
			e.Mailbox, e.Host = splitAddress(display)
		} else if p.inGroup {
			return entry{}, false // "group: (nobody);" has no members
		} else {
			e.Mailbox, e.Host = MissingMailbox, MissingDomain
		}
	}
	if e.Name == "" && len(p.remark) > 0 {
		e.Name = p.remark[0].text
	}
	return e, true
}

func lastAt(tokens []addressToken) int {
	for i := len(tokens) - 1; i >= 0; i-- {
		if tokens[i].kind == '@' {
			return i
		}
	}
	return -1
}

// joined reports whether token i continues the address that token i-1 belongs to: no blank between, or
// one around '@' or '.'.
func joined(tokens []addressToken, i int) bool {
	a, b := tokens[i-1], tokens[i]
	if !b.space {
		return true
	}
	return a.kind == '@' || b.kind == '@' || a.kind == tokAtom && a.text == "." || b.kind == tokAtom && b.text == "."
}

// splitAddress divides tokens at the last '@' and fills in what is missing.
func splitAddress(tokens []addressToken) (mailbox, host string) {
	at := lastAt(tokens)
	if at < 0 {
		mailbox = phrase(tokens)
	} else {
		mailbox, host = glue(tokens[:at]), glue(tokens[at+1:])
	}
	if mailbox == "" {
		mailbox = MissingMailbox
	}
	if host == "" {
		host = MissingDomain
	}
	return mailbox, host
}

// glue joins tokens without the blanks between them.
func glue(tokens []addressToken) string {
	if len(tokens) == 1 {
		return tokens[0].text
	}
	var sb strings.Builder
	for _, t := range tokens {
		sb.WriteString(t.text)
	}
	return sb.String()
}

// phrase joins tokens with one blank where there were any.
func phrase(tokens []addressToken) string {
	if len(tokens) == 1 {
		return strings.TrimSpace(tokens[0].text)
	}
	var sb strings.Builder
	for i, t := range tokens {
		if i > 0 && t.space {
			sb.WriteByte(' ')
		}
		sb.WriteString(t.text)
	}
	return strings.TrimSpace(sb.String())
}

func (p *addressParser) peek() addressToken {
	if !p.hasPeeked {
		p.peeked = p.scan()
		p.hasPeeked = true
	}
	return p.peeked
}

func (p *addressParser) take() { p.hasPeeked = false }

// scan reads the next token.
func (p *addressParser) scan() addressToken {
	space := false
	for p.pos < len(p.src) && isBlank(p.src[p.pos]) {
		p.pos++
		space = true
	}
	start := p.pos
	if start == len(p.src) {
		return addressToken{kind: tokEnd, start: start, end: start, space: space}
	}
	t := addressToken{start: start, space: space}
	switch c := p.src[start]; c {
	case ',', ';', ':', '<', '>', '@':
		p.pos++
		t.kind, t.text, t.end = tokenKind(c), p.src[start:p.pos], p.pos
		return t
	case '"':
		if !p.noQuote {
			if text, n := unquote(p.src[start:], '"'); n > 0 {
				p.pos += n
				t.kind, t.text, t.end = tokQuoted, text, p.pos
				return t
			}
			p.noQuote = true
		}
	case '(':
		if !p.noComment {
			if n := commentLength(p.src[start:]); n > 0 {
				p.pos += n
				t.kind, t.text, t.end = tokComment, strings.TrimSpace(unescape(p.src[start+1:p.pos-1])), p.pos
				return t
			}
			p.noComment = true
		}
	case '[':
		if n := strings.IndexAny(p.src[start:min(start+maxLiteral, len(p.src))], "],;<>"); n > 0 && p.src[start+n] == ']' {
			p.pos += n + 1
			t.kind, t.text, t.end = tokAtom, p.src[start:p.pos], p.pos
			return t
		}
	}
	p.pos += p.atomLength()
	t.kind, t.text, t.end = tokAtom, p.src[start:p.pos], p.pos
	return t
}

// atomLength returns the length of the atom at the position, at least 1. Encoded words are taken whole:
// programs put commas and quotes into them.
func (p *addressParser) atomLength() int {
	s := p.src[p.pos:]
	if n := encodedWordLength(s); n > 0 {
		return n
	}
	i := 1
	for i < len(s) {
		switch c := s[i]; {
		case isBlank(c), strings.IndexByte(",;:<>@[", c) >= 0:
			return i
		case c == '"' && !p.noQuote, c == '(' && !p.noComment:
			return i
		case c == '=' && encodedWordLength(s[i:]) > 0:
			return i
		}
		i++
	}
	return i
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// unquote reads the string that s begins with up to the closing delimiter; n is 0 if there is none.
func unquote(s string, closing byte) (text string, n int) {
	escaped := false
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			escaped = true
			i++
		case closing:
			text = s[1:i]
			if escaped {
				text = unescape(text)
			}
			return text, i + 1
		}
	}
	return "", 0
}

func unescape(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b = append(b, s[i])
	}
	return string(b)
}

// FilterAddressField returns an address field without the addresses for which keep returns false, the others
// as they were written and in their order, and whether anything is different. keep gets what
// Address.Addr returns, "" for an entry without an address. A group that loses all its members goes; the result
// is "" if nothing remains. What would mean something else in front of other entries, such as "<a@b" without its end, is
// written as it should have been, and left out where that cannot be.
func FilterAddressField(value string, keep func(addr string) bool) (string, bool) {
	var out []string // entries and whole groups
	changed := false
	var group []string // members of the open group
	var groupName string
	inGroup, lost := false, false
	p := addressParser{src: value}
	for e, ok := p.next(); ok; e, ok = p.next() {
		text := strings.Trim(unfold([]byte(value[e.start:e.end])), " \t\r\n")
		addr := e.Addr()
		if e.kind != groupEnd && !e.standsAlone(text) {
			changed = true
			if text = e.rewritten(); !e.standsAlone(text) {
				text, addr = "", "" // not even so
			}
		}
		switch e.kind {
		case groupStart:
			inGroup, lost, group, groupName = true, false, nil, text
		case groupEnd:
			if len(group) > 0 || !lost {
				out = append(out, groupName+" "+strings.Join(group, ", ")+";")
			}
			inGroup = false
		default:
			if !keep(addr) || text == "" {
				changed, lost = true, true
				continue
			}
			if inGroup {
				group = append(group, text)
			} else {
				out = append(out, text)
			}
		}
	}
	if !changed {
		return value, false
	}
	return strings.Join(out, ", "), true
}

// followers are what may stand behind an entry: whatever is open in it would be closed by one of them.
var followers = []string{"<b@y>", `"" <b@y>`, "] <b@y>", "?= <b@y>", "> <b@y>"}

// standsAlone reports whether text, by which e was written, says the same wherever it stands.
func (e *entry) standsAlone(text string) bool {
	if e.kind == plainEntry && !strings.ContainsAny(text, "\"\\()<>[]=:;,") {
		return true // nothing in it could be open
	}
	want := []Address{e.Address, {Mailbox: "c", Host: "z"}, {Mailbox: "b", Host: "y"}}
	separator := ", c@z, "
	if e.kind == groupStart {
		separator = " c@z, "
	}
	closing := strings.Repeat(")", strings.Count(text, "(")) + " <b@y>"
	for _, f := range append(followers[:len(followers):len(followers)], closing) {
		p := addressParser{src: text + separator + f}
		for i := range want {
			got, ok := p.next()
			if !ok || got.Mailbox != want[i].Mailbox || got.Host != want[i].Host {
				return false
			}
		}
	}
	return true
}

// rewritten is an entry in a form that nobody misunderstands, without its name.
func (e *entry) rewritten() string {
	if e.kind == groupStart {
		return quote(e.Mailbox) + ":"
	}
	return "<" + e.Addr() + ">"
}
