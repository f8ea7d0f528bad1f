package wire

// Character classes of RFC 3501 section 9.
const (
	classAtom    = 1 << iota // ATOM-CHAR
	classAString             // ASTRING-CHAR, and bytes over 127, which old clients put into names
	classList                // list-char: ASTRING-CHAR and the wildcards, and bytes over 127
	classTag                 // ASTRING-CHAR without "+"
	classQuoted              // may stand in a quoted string as it is
)

var class = func() (t [256]uint8) {
	special := map[byte]bool{'(': true, ')': true, '{': true, ' ': true, '%': true, '*': true, '"': true, '\\': true, ']': true}
	for i := range 256 {
		c := byte(i)
		switch {
		case c < 0x20 || c == 0x7f:
			if c == '\t' {
				t[i] |= classQuoted
			}
			continue
		case c >= 0x80:
			t[i] = classAString | classList | classQuoted
			continue
		}
		if c != '"' && c != '\\' {
			t[i] |= classQuoted
		}
		if !special[c] {
			t[i] |= classAtom
		}
		if !special[c] || c == ']' {
			t[i] |= classAString
			if c != '+' {
				t[i] |= classTag
			}
		}
		if !special[c] || c == ']' || c == '%' || c == '*' {
			t[i] |= classList
		}
	}
	return t
}()

// ValidAtom reports whether s is a non-empty atom.
func ValidAtom(s string) bool {
	for i := 0; i < len(s); i++ {
		if class[s[i]]&classAtom == 0 {
			return false
		}
	}
	return s != ""
}

// ValidFlag reports whether s may be sent as a flag: an atom, or a backslash
// and an atom.
func ValidFlag(s string) bool {
	if len(s) > 0 && s[0] == '\\' {
		s = s[1:]
	}
	return ValidAtom(s)
}
