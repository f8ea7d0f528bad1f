package wire

import (
	"strings"

	"github.com/emersion/go-imap/v2"
)

// Peek returns the next byte of the line without using it, 0 at its end.
func (d *Decoder) Peek() byte {
	if d.err != nil || d.pos >= len(d.line) {
		return 0
	}
	return d.line[d.pos]
}

// More reports whether the command goes on, blanks aside.
func (d *Decoder) More() bool {
	if d.err != nil {
		return false
	}
	for i := d.pos; i < len(d.line); i++ {
		if d.line[i] != ' ' {
			return true
		}
	}
	return false
}

// Try uses the next byte if it is c.
func (d *Decoder) Try(c byte) bool {
	if d.Peek() == c && d.pos < len(d.line) && d.err == nil {
		d.pos++
		return true
	}
	return false
}

// TryText uses text, in whatever case, if it comes next.
func (d *Decoder) TryText(text string) bool {
	if end := d.pos + len(text); d.err == nil && end <= len(d.line) && strings.EqualFold(string(d.line[d.pos:end]), text) {
		d.pos = end
		return true
	}
	return false
}

// Expect uses the next byte, which must be c.
func (d *Decoder) Expect(c byte) {
	if !d.Try(c) {
		d.Fail(syntaxErrorf("'%c' expected", c))
	}
}

// TrySpace uses blanks, and reports whether there was one and an argument
// follows it.
func (d *Decoder) TrySpace() bool {
	if !d.Try(' ') {
		return false
	}
	for d.Try(' ') {
	}
	return d.pos < len(d.line)
}

// Space expects a blank between two arguments. Several are forgiven.
func (d *Decoder) Space() {
	if !d.Try(' ') {
		if d.pos >= len(d.line) {
			d.Fail(syntaxErrorf("missing argument"))
		} else {
			d.Fail(syntaxErrorf("blank expected"))
		}
		return
	}
	for d.Try(' ') {
	}
}

// span uses the longest run of bytes of the class.
func (d *Decoder) span(c uint8) []byte {
	if d.err != nil {
		return nil
	}
	i := d.pos
	for i < len(d.line) && class[d.line[i]]&c != 0 {
		i++
	}
	s := d.line[d.pos:i]
	d.pos = i
	return s
}

// Rest uses all that is left of the line and returns it without blanks at its
// end. Where a literal is announced that is a mistake.
func (d *Decoder) Rest() string {
	if d.err != nil {
		return ""
	}
	if d.litAt >= 0 {
		d.Fail(syntaxErrorf("literal not allowed here"))
		return ""
	}
	s := strings.TrimRight(string(d.line[d.pos:]), " ")
	d.pos = len(d.line)
	return s
}

// Atom expects an atom.
func (d *Decoder) Atom() string {
	s := d.span(classAtom)
	if len(s) == 0 {
		d.Fail(syntaxErrorf("atom expected"))
	}
	return string(s)
}

// Word expects a word of the grammar and returns it in upper case: letters,
// digits, and "-", ".", "=", "+" and "_" within. It stops before anything else,
// so that BODY[ gives BODY.
func (d *Decoder) Word() string {
	if d.err != nil {
		return ""
	}
	i := d.pos
	for i < len(d.line) && isWordChar(d.line[i]) {
		i++
	}
	if i == d.pos {
		d.Fail(syntaxErrorf("word expected"))
		return ""
	}
	s := strings.ToUpper(string(d.line[d.pos:i]))
	d.pos = i
	return s
}

func isWordChar(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		return true
	}
	return c == '-' || c == '.' || c == '=' || c == '_' || c == '+' || c == '/'
}

// AString expects an atom, a quoted string or a literal.
func (d *Decoder) AString() string {
	if d.Peek() == '"' || d.atLiteral() {
		return d.String()
	}
	s := d.span(classAString)
	if len(s) == 0 {
		d.Fail(syntaxErrorf("string expected"))
	}
	return string(s)
}

// String expects a quoted string or a literal.
func (d *Decoder) String() string {
	if d.atLiteral() {
		return d.memoryLiteral()
	}
	if !d.Try('"') {
		d.Fail(syntaxErrorf("string expected"))
		return ""
	}
	first := d.span(classQuoted)
	if d.Try('"') {
		return string(first)
	}
	var sb strings.Builder
	sb.Write(first)
	for d.err == nil {
		switch {
		case d.Try('"'):
			return sb.String()
		case d.Try('\\'):
			// Only \" and \\ are in the grammar; others are taken for the
			// character itself, as Dovecot does.
			if c := d.Peek(); c == 0 || (class[c]&classQuoted == 0 && c != '"' && c != '\\') {
				d.Fail(syntaxErrorf("bad character in quoted string"))
				return ""
			}
			sb.WriteByte(d.line[d.pos])
			d.pos++
		default:
			s := d.span(classQuoted)
			if len(s) == 0 {
				if d.pos >= len(d.line) {
					d.Fail(syntaxErrorf("quoted string without end"))
				} else {
					d.Fail(syntaxErrorf("bad character in quoted string"))
				}
				return ""
			}
			sb.Write(s)
		}
	}
	return ""
}

// NString expects a string or NIL, for which ok is false.
func (d *Decoder) NString() (s string, ok bool) {
	if d.Peek() == '"' || d.atLiteral() {
		s = d.String()
		return s, d.err == nil
	}
	if d.Word() != "NIL" {
		d.Fail(syntaxErrorf("string or NIL expected"))
	}
	return "", false
}

// Number expects an unsigned number of 32 bits.
func (d *Decoder) Number() uint32 {
	return uint32(d.number(1<<32 - 1))
}

// Number64 expects an unsigned number of 63 bits.
func (d *Decoder) Number64() uint64 {
	return d.number(maxInt63)
}

func (d *Decoder) number(limit uint64) uint64 {
	if d.err != nil {
		return 0
	}
	i, n := d.pos, uint64(0)
	for i < len(d.line) && d.line[i] >= '0' && d.line[i] <= '9' {
		digit := uint64(d.line[i] - '0')
		if n > (limit-digit)/10 {
			d.Fail(syntaxErrorf("number too large"))
			return 0
		}
		n = n*10 + digit
		i++
	}
	if i == d.pos {
		d.Fail(syntaxErrorf("number expected"))
		return 0
	}
	d.pos = i
	return n
}

// List expects a parenthesised list and calls item for each of its members; an
// empty list has none. item must use up its member.
func (d *Decoder) List(item func()) {
	d.Expect('(')
	if d.err != nil {
		return
	}
	if d.depth++; d.depth > d.lim.Nesting {
		d.Fail(&LimitError{Text: "parentheses nested too deep"})
		return
	}
	d.TrySpace()
	for d.err == nil && !d.Try(')') {
		pos, line := d.pos, d.line
		item()
		if d.err == nil && d.pos == pos && len(line) == len(d.line) {
			d.Fail(syntaxErrorf("list member expected"))
		}
		if d.Peek() != ')' {
			d.Space()
		}
	}
	d.depth--
}

// Mailbox expects the name of a mailbox and returns it in UTF-8. INBOX, in
// whatever case, is returned as "INBOX", also where it is the first level of a
// name with "/".
func (d *Decoder) Mailbox() string {
	return d.name(d.AString())
}

// MailboxPattern expects a mailbox name that may hold the wildcards of LIST,
// and returns it in UTF-8.
func (d *Decoder) MailboxPattern() string {
	if d.Peek() == '"' || d.atLiteral() {
		return d.pattern(d.String())
	}
	s := d.span(classList)
	if len(s) == 0 {
		d.Fail(syntaxErrorf("mailbox pattern expected"))
	}
	return d.pattern(string(s))
}

// Reference expects the reference name of LIST, which may be empty, and returns
// it in UTF-8, its case as it is.
func (d *Decoder) Reference() string {
	return d.pattern(d.AString())
}

func (d *Decoder) name(raw string) string {
	if d.err != nil {
		return ""
	}
	s, err := decodeName(raw, d.utf8)
	if err != nil {
		d.Fail(err)
		return ""
	}
	return CanonicalName(s)
}

// pattern decodes what LIST compares names with. What is no valid name matches
// none, which is no mistake: Dovecot answers with an empty list too.
func (d *Decoder) pattern(raw string) string {
	s, err := decodeName(raw, d.utf8)
	if err != nil {
		return "\xff" // in no name, for names are UTF-8
	}
	return s
}

// CanonicalName returns name with INBOX, when it is the whole name or its first
// level, in upper case. RFC 3501 section 5.1.
func CanonicalName(name string) string {
	const inbox = "INBOX"
	if len(name) < len(inbox) || !strings.EqualFold(name[:len(inbox)], inbox) {
		return name
	}
	if len(name) == len(inbox) || name[len(inbox)] == '/' {
		return inbox + name[len(inbox):]
	}
	return name
}

// Flag expects a flag: a keyword, or one that starts with a backslash. System
// flags come back in the standard's case.
func (d *Decoder) Flag() imap.Flag {
	system := d.Try('\\')
	s := d.span(classAtom)
	if len(s) == 0 {
		d.Fail(syntaxErrorf("flag expected"))
		return ""
	}
	if !system {
		return imap.Flag(s)
	}
	for _, f := range systemFlags {
		if strings.EqualFold(string(f[1:]), string(s)) {
			return f
		}
	}
	return imap.Flag(`\` + string(s))
}

var systemFlags = [...]imap.Flag{imap.FlagSeen, imap.FlagAnswered, imap.FlagFlagged, imap.FlagDeleted, imap.FlagDraft, `\Recent`}

// FlagList expects a parenthesised list of flags.
func (d *Decoder) FlagList() []imap.Flag {
	var flags []imap.Flag
	d.List(func() { flags = append(flags, d.Flag()) })
	return flags
}

// Flags expects flags with or without parentheses, as STORE has them.
func (d *Decoder) Flags() []imap.Flag {
	if d.Peek() == '(' {
		return d.FlagList()
	}
	flags := []imap.Flag{d.Flag()}
	for d.err == nil && d.TrySpace() {
		flags = append(flags, d.Flag())
	}
	return flags
}
