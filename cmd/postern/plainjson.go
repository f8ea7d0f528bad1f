package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"unicode"
	"unicode/utf8"
)

// plainJSON passes JSON on with every character escaped that a terminal might act on. encoding/json does so for those below
// U+0020 only, and leaves DEL, the C1 controls (U+009B begins a sequence as ESC [ does) and bidirectional overrides as they are.
// Outside strings JSON has none of them, so that what is written means the same. Each Write must end at a character's end.
type plainJSON struct{ w io.Writer }

// Write implements io.Writer.
func (p plainJSON) Write(b []byte) (int, error) {
	if !bytes.ContainsFunc(b, acts) {
		return p.w.Write(b)
	}
	out := make([]byte, 0, len(b)+64)
	for rest := b; len(rest) > 0; {
		r, n := utf8.DecodeRune(rest)
		switch {
		case !acts(r):
			out = append(out, rest[:n]...)
		case r > 0xffff:
			high, low := (r-0x10000)>>10+0xd800, (r-0x10000)&0x3ff+0xdc00
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		rest = rest[n:]
	}
	if _, err := p.w.Write(out); err != nil {
		return 0, err
	}
	return len(b), nil
}

// acts reports whether r does something instead of being seen. Line ends and tabs between JSON's tokens are not meant.
func acts(r rune) bool { return r != '\n' && r != '\t' && r != '\r' && !unicode.IsPrint(r) }

// writeJSON prints v for programs.
func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(plainJSON{w})
	e.SetIndent("", "  ")
	return e.Encode(v)
}
