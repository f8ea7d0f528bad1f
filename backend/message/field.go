package message

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
)

// Field is one field of a header block.
type Field struct {
	Name  string // as written
	Raw   []byte // the whole field with its line ends; aliases the header it was read from
	Value string // unfolded and trimmed, not decoded
}

// rawField is Field before anything is copied.
type rawField struct {
	name  []byte
	body  []byte // behind the colon, folded
	raw   []byte
	start int // offset of raw in the header
}

// fieldScanner goes through the fields of a header block. Lines that are no field (an mbox From line, a
// continuation of nothing, text without a colon) are passed over with their continuations.
type fieldScanner struct {
	header []byte
	pos    int
}

// next returns the next field. ok is false at the blank line or the end.
func (s *fieldScanner) next() (f rawField, ok bool) {
	for s.pos < len(s.header) {
		rest := s.header[s.pos:]
		if isBlankLine(rest) {
			return rawField{}, false
		}
		start := s.pos
		end := lineLength(rest)
		for end < len(rest) && (rest[end] == ' ' || rest[end] == '\t') {
			end += lineLength(rest[end:])
		}
		s.pos += end
		raw := rest[:end]
		if n, c := fieldName(raw); n > 0 {
			return rawField{name: raw[:n], body: raw[c+1:], raw: raw, start: start}, true
		}
	}
	return rawField{}, false
}

func isBlankLine(b []byte) bool {
	return len(b) > 0 && (b[0] == '\n' || b[0] == '\r' && len(b) > 1 && b[1] == '\n')
}

func lineLength(b []byte) int {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return i + 1
	}
	return len(b)
}

// fieldName returns the length of the field name at the start of line and the place of its colon;
// n is 0 if the line is no field. Blanks before the colon are allowed (RFC 5322 section 4.5), bytes
// over 127 too, as some gateways write them.
func fieldName(line []byte) (n, colon int) {
	for i, c := range line {
		switch {
		case c == ':':
			return i, i
		case c == ' ' || c == '\t':
			for j := i; j < len(line); j++ {
				switch line[j] {
				case ' ', '\t':
				case ':':
					return i, j
				default:
					return 0, 0
				}
			}
			return 0, 0
		case c < ' ' || c == 0x7f:
			return 0, 0
		}
	}
	return 0, 0
}

// equalFold compares a field name with one in ASCII without allocating.
func equalFold(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i := range b {
		if lower(b[i]) != lower(s[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// unfold joins the lines of a value with one blank each and removes the blanks around it. RFC 5322 section 2.2.3
// would keep tabs and runs of blanks, but they are the work of whoever folded the line. A bare CR counts as a line
// end.
func unfold(b []byte) string {
	b = bytes.Trim(b, " \t\r\n")
	if bytes.IndexByte(b, '\n') < 0 && bytes.IndexByte(b, '\r') < 0 {
		return string(b)
	}
	out := make([]byte, 0, len(b))
	for {
		i := bytes.IndexAny(b, "\r\n")
		if i < 0 {
			return string(append(out, b...))
		}
		out = append(bytes.TrimRight(append(out, b[:i]...), " \t"), ' ')
		b = bytes.TrimLeft(b[i:], " \t\r\n")
	}
}

// Fields returns the fields of a header block in order, up to its blank line. Lines that are not fields
// are left out.
func Fields(header []byte) []Field {
	var fields []Field
	s := fieldScanner{header: header}
	for f, ok := s.next(); ok; f, ok = s.next() {
		fields = append(fields, Field{Name: string(f.name), Raw: f.raw, Value: unfold(f.body)})
	}
	return fields
}

// FieldValue returns the value of the first field with the given name, unfolded and trimmed.
func FieldValue(header []byte, name string) (string, bool) {
	s := fieldScanner{header: header}
	for f, ok := s.next(); ok; f, ok = s.next() {
		if equalFold(f.name, name) {
			return unfold(f.body), true
		}
	}
	return "", false
}

// FieldValues yields the values of all fields with the given name, unfolded and trimmed.
func FieldValues(header []byte, name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		s := fieldScanner{header: header}
		for f, ok := s.next(); ok; f, ok = s.next() {
			if equalFold(f.name, name) && !yield(unfold(f.body)) {
				return
			}
		}
	}
}

// FilterHeader returns the fields named or, with not, all but those, lines that are no field among them: raw bytes in the
// order written, with the blank line if the header has one (RFC 9051 section 6.4.5.1). Names match without regard to case.
func FilterHeader(header []byte, names []string, not bool) []byte {
	return AppendFiltered(nil, header, names, not)
}

// AppendFiltered is FilterHeader that appends to out.
func AppendFiltered(out, header []byte, names []string, not bool) []byte {
	eol := lineEnd(header)
	take := func(raw []byte) {
		out = append(out, raw...)
		if len(raw) > 0 && raw[len(raw)-1] != '\n' {
			out = append(out, eol...)
		}
	}
	s := fieldScanner{header: header}
	last := 0 // where the last field ended
	for f, ok := s.next(); ok; f, ok = s.next() {
		if not {
			take(header[last:f.start])
		}
		last = s.pos
		if containsName(names, f.name) != not {
			take(f.raw)
		}
	}
	if not {
		take(header[last:s.pos])
	}
	if s.pos < len(header) {
		out = append(out, eol...)
	}
	return out
}

func containsName(names []string, name []byte) bool {
	for _, n := range names {
		if equalFold(name, n) {
			return true
		}
	}
	return false
}

// lineEnd returns the line end a header uses: CRLF unless its first line ends in a bare LF.
func lineEnd(header []byte) string {
	if i := bytes.IndexByte(header, '\n'); i == 0 || i > 0 && header[i-1] != '\r' {
		return "\n"
	}
	return "\r\n"
}

// ErrHeaderTooLarge is returned where a header block is larger than a function takes.
var ErrHeaderTooLarge = errors.New("header too large")

// HeaderBytes reads the header block of the message, with its blank line. It is as long as the message
// has it; ErrHeaderTooLarge is returned beyond 16 MB.
func HeaderBytes(r io.ReaderAt, ix *Index) ([]byte, error) {
	n := ix.Root.Header.Len
	if n > maxHeaders {
		return nil, fmt.Errorf("%w: %d bytes", ErrHeaderTooLarge, n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(io.NewSectionReader(r, ix.Root.Header.Off, n), b); err != nil {
		return nil, fmt.Errorf("read header: %w", err)
	}
	return b, nil
}
