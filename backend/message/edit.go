package message

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxEditHeader is the largest header block Edit takes.
const maxEditHeader = 1 << 20

// ErrHeaderTooLarge is returned where a header block is larger than a function takes.
var ErrHeaderTooLarge = errors.New("header too large")

// NewField is a header field to be written. Value is one line of text; it is folded at blanks. Line ends
// and other control characters in it become blanks, so that no value can add a field.
type NewField struct{ Name, Value string }

// HeaderEdit says how to change the header of a message. Names match without regard to case, and all
// fields of that name are meant.
type HeaderEdit struct {
	Remove  []string
	Rename  map[string]string // old name to new; value and folding stay
	Prepend []NewField        // before the first field
	Append  []NewField        // behind the last line of the header
}

// Edit writes a copy of the message r with top-level header fields changed and everything else byte for byte:
// lines that are no fields, order, line ends. New fields use the line end of the first line. The header is held
// in memory, the body never. ErrHeaderTooLarge is returned for headers over 1 MB, before anything was
// written.
func Edit(w io.Writer, r io.Reader, e HeaderEdit) error {
	header, rest, err := readHeaderBlock(r, maxEditHeader)
	if err != nil {
		return err
	}
	if _, err := w.Write(editHeader(header, e)); err != nil {
		return fmt.Errorf("write header: %w", err)
	}
	if _, err := w.Write(rest); err != nil {
		return fmt.Errorf("write body: %w", err)
	}
	if _, err := io.Copy(w, r); err != nil {
		return fmt.Errorf("copy body: %w", err)
	}
	return nil
}

// readHeaderBlock reads r up to the blank line that ends the header. header is without that line, rest
// begins with it and holds what was read beyond.
func readHeaderBlock(r io.Reader, limit int) (header, rest []byte, err error) {
	buf := make([]byte, 0, 16<<10)
	lineStart := 0
	for {
		// Whole lines that have come.
		for {
			i := bytes.IndexByte(buf[lineStart:], '\n')
			if i < 0 {
				break
			}
			if isBlankLine(buf[lineStart:]) {
				return buf[:lineStart], buf[lineStart:], nil
			}
			lineStart += i + 1
		}
		if len(buf) > limit {
			return nil, nil, fmt.Errorf("%w: over %d bytes", ErrHeaderTooLarge, limit)
		}
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if errors.Is(err, io.EOF) {
			if n > 0 {
				continue // the next read says so again
			}
			return buf, nil, nil
		}
		if err != nil {
			return nil, nil, fmt.Errorf("read header: %w", err)
		}
	}
}

// editHeader changes a header block without its blank line.
func editHeader(header []byte, e HeaderEdit) []byte {
	eol := lineEnd(header)
	out := make([]byte, 0, len(header)+512)
	pos := 0 // up to here header is in out
	prepended := false
	prepend := func() {
		prepended = true
		for _, f := range e.Prepend {
			out = appendField(out, f, eol)
		}
	}
	s := fieldScanner{header: header}
	for f, ok := s.next(); ok; f, ok = s.next() {
		if !prepended {
			out = append(out, header[pos:f.start]...)
			pos = f.start
			prepend()
		}
		if containsName(e.Remove, f.name) {
			out = append(out, header[pos:f.start]...)
			pos = f.start + len(f.raw)
			continue
		}
		for old, name := range e.Rename {
			if equalFold(f.name, old) {
				out = append(out, header[pos:f.start]...)
				out = append(out, cleanName(name)...)
				pos = f.start + len(f.name)
				break
			}
		}
	}
	out = append(out, header[pos:]...)
	if (!prepended && len(e.Prepend) > 0 || len(e.Append) > 0) && len(out) > 0 && out[len(out)-1] != '\n' {
		out = append(out, eol...)
	}
	if !prepended {
		prepend()
	}
	for _, f := range e.Append {
		out = appendField(out, f, eol)
	}
	return out
}

// cleanName removes what would end a field name.
func cleanName(name string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r == ':' || r == 0x7f {
			return -1
		}
		return r
	}, name)
}

// appendField writes a field, folded so that lines keep to 78 characters where there are blanks to fold at
// (RFC 5322 section 2.1.1).
func appendField(dst []byte, f NewField, eol string) []byte {
	dst = append(append(dst, cleanName(f.Name)...), ':')
	col := len(f.Name) + 1
	value := strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f {
			return ' '
		}
		return r
	}, f.Value)
	first := true
	for value = strings.Trim(value, " \t"); value != ""; {
		// A word with the blanks before it.
		blanks := len(value) - len(strings.TrimLeft(value, " \t"))
		end := strings.IndexAny(value[blanks:], " \t")
		if end < 0 {
			end = len(value)
		} else {
			end += blanks
		}
		word := value[:end]
		value = value[end:]
		if first {
			dst = append(dst, ' ')
			col++
		} else if col+len(word) > 78 {
			dst = append(dst, eol...)
			col = 0
		}
		first = false
		dst = append(dst, word...)
		col += len(word)
	}
	return append(dst, eol...)
}

// CompleteHeader returns the header told to clients before the message itself was read, with what the message's own header
// has besides. A field that was told stays as it was, for clients keep it: only those that say how the content is written
// (MIME-Version, Content-...) are the message's own, since they must fit it. Without told it is the message's header. It
// makes no difference to complete a header twice.
func CompleteHeader(told, own []byte) []byte {
	if len(told) == 0 {
		return own
	}
	out := make([]byte, 0, len(told)+len(own)/4)
	add := func(f rawField) {
		out = append(out, f.raw...)
		if f.raw[len(f.raw)-1] != '\n' {
			out = append(out, "\r\n"...)
		}
	}
	known := make(map[string]bool)
	s := fieldScanner{header: told}
	for f, ok := s.next(); ok; f, ok = s.next() {
		if !describesContent(f.name) {
			known[strings.ToLower(string(f.name))] = true
			add(f)
		}
	}
	for _, content := range []bool{false, true} { // in this order, to come to the same when done twice
		s = fieldScanner{header: own}
		for f, ok := s.next(); ok; f, ok = s.next() {
			if describesContent(f.name) == content && !known[strings.ToLower(string(f.name))] {
				add(f)
			}
		}
	}
	return append(out, "\r\n"...)
}

// describesContent reports a field of RFC 2045.
func describesContent(name []byte) bool {
	const prefix = "content-"
	return equalFold(name, "MIME-Version") || len(name) > len(prefix) && equalFold(name[:len(prefix)], prefix)
}
