package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/emersion/go-imap/v2"
)

const (
	// flushAt is how much output is collected before it is written although the
	// client may still be sending. A TLS record holds 16 KiB; a write costs the
	// same for 1 byte and for 32 KiB.
	flushAt = 32 << 10
	// maxQuoted is the longest string sent in quotes; some clients have fixed
	// buffers for quoted strings. Longer ones become literals.
	maxQuoted = 4 << 10
)

// ErrBroken is the encoder's error after a literal could not be completed.
var ErrBroken = errors.New("literal broken off")

// Encoder collects output. Its methods append and return the encoder, so that a
// response is written in one chain. The first error of writing sticks; Flush
// returns it.
//
// An Encoder is used by one goroutine at a time.
type Encoder struct {
	w    io.Writer
	buf  []byte
	sent int64 // bytes that have left buf
	line int64 // position behind the last CRLF call
	utf8 bool
	err  error
}

// NewEncoder returns an Encoder that writes to w.
func NewEncoder(w io.Writer) *Encoder { return &Encoder{w: w} }

// Reset makes e write to w, as after STARTTLS. Output must have been flushed.
func (e *Encoder) Reset(w io.Writer) { e.w = w }

// SetUTF8 says that strings and names may be sent as UTF-8 in quotes (RFC 6855,
// RFC 9051).
func (e *Encoder) SetUTF8(on bool) { e.utf8 = on }

// UTF8 reports whether SetUTF8(true) was called.
func (e *Encoder) UTF8() bool { return e.utf8 }

// Err returns the first error.
func (e *Encoder) Err() error { return e.err }

// Pending returns how many bytes wait for Flush.
func (e *Encoder) Pending() int { return len(e.buf) }

// Bytes returns what waits for Flush. It is good until more is appended.
func (e *Encoder) Bytes() []byte { return e.buf }

// Flush writes what was collected.
func (e *Encoder) Flush() error {
	if e.err == nil && len(e.buf) > 0 {
		_, e.err = e.w.Write(e.buf)
	}
	e.sent += int64(len(e.buf))
	if cap(e.buf) > 2*flushAt {
		e.buf = nil // an unusually long line; do not keep its memory
	}
	e.buf = e.buf[:0]
	return e.err
}

// Mark returns a position in the output for Rollback.
func (e *Encoder) Mark() int64 { return e.sent + int64(len(e.buf)) }

// Rollback takes back what was appended since mark, and reports false if some
// of that has been written already.
func (e *Encoder) Rollback(mark int64) bool {
	if mark < e.sent || mark > e.Mark() {
		return false
	}
	e.buf = e.buf[:mark-e.sent]
	return true
}

// DropPartial takes back a response that has not been ended by CRLF, and reports
// false if some of it has been written already.
func (e *Encoder) DropPartial() bool { return e.Rollback(e.line) }

// Release gives the buffer's memory back if nothing waits in it, before a wait
// that may be long.
func (e *Encoder) Release() {
	if len(e.buf) == 0 {
		e.buf = nil
	}
}

// Raw appends s as it is. It must be of our own making.
func (e *Encoder) Raw(s string) *Encoder {
	e.buf = append(e.buf, s...)
	return e
}

// RawBytes appends b as it is.
func (e *Encoder) RawBytes(b []byte) *Encoder {
	e.buf = append(e.buf, b...)
	return e
}

// Byte appends c.
func (e *Encoder) Byte(c byte) *Encoder {
	e.buf = append(e.buf, c)
	return e
}

// SP appends a blank.
func (e *Encoder) SP() *Encoder { return e.Byte(' ') }

// CRLF ends a response and writes if enough has been collected.
func (e *Encoder) CRLF() *Encoder {
	e.buf = append(e.buf, '\r', '\n')
	e.line = e.Mark()
	if len(e.buf) >= flushAt {
		e.Flush()
	}
	return e
}

// Num appends a number.
func (e *Encoder) Num(n uint64) *Encoder {
	e.buf = strconv.AppendUint(e.buf, n, 10)
	return e
}

// NIL appends NIL.
func (e *Encoder) NIL() *Encoder { return e.Raw("NIL") }

// Text appends text for people, which ends a line: control characters become
// blanks, and an empty text a dash, for the grammar wants one character.
func (e *Encoder) Text(s string) *Encoder {
	if s == "" {
		return e.Byte('-')
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c < 0x20 || c == 0x7f {
			c = ' '
		} else if c >= 0x80 && !e.utf8 {
			c = '?'
		}
		e.buf = append(e.buf, c)
	}
	return e
}

// quotable reports whether s may stand in quotes.
func (e *Encoder) quotable(s string) bool {
	if len(s) > maxQuoted {
		return false
	}
	high := false
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < 0x20 || c == 0x7f {
			return false
		} else if c >= 0x80 {
			high = true
		}
	}
	return !high || (e.utf8 && utf8.ValidString(s))
}

// String appends s in quotes, or as a literal where quotes cannot hold it.
func (e *Encoder) String(s string) *Encoder {
	if !e.quotable(s) {
		return e.literalString(s)
	}
	e.buf = append(e.buf, '"')
	for i := 0; i < len(s); i++ {
		if s[i] == '"' || s[i] == '\\' {
			e.buf = append(e.buf, '\\')
		}
		e.buf = append(e.buf, s[i])
	}
	e.buf = append(e.buf, '"')
	return e
}

// literalString appends s as a literal. A NUL cannot stand in one (RFC 3501
// section 4.3): it is sent as 0x80, one byte for one byte, as Dovecot does.
func (e *Encoder) literalString(s string) *Encoder {
	e.announce("", int64(len(s)))
	from := len(e.buf)
	e.buf = append(e.buf, s...)
	noNUL(e.buf[from:])
	return e
}

// NString appends s, or NIL if ok is false.
func (e *Encoder) NString(s string, ok bool) *Encoder {
	if !ok {
		return e.NIL()
	}
	return e.String(s)
}

// AString appends s as an atom if it is one and not NIL, else as String does.
func (e *Encoder) AString(s string) *Encoder {
	if ValidAtom(s) && !(len(s) == 3 && (s[0]|0x20) == 'n' && (s[1]|0x20) == 'i' && (s[2]|0x20) == 'l') {
		return e.Raw(s)
	}
	return e.String(s)
}

// Mailbox appends the name of a mailbox, which is UTF-8, as the client expects
// it: in modified UTF-7 unless it has enabled UTF-8.
func (e *Encoder) Mailbox(name string) *Encoder {
	if !e.utf8 {
		name = EncodeName(name)
	}
	return e.AString(name)
}

// Flag appends a flag. Those that would break the grammar must have been sorted
// out with ValidFlag; here they are replaced by nothing.
func (e *Encoder) Flag(f imap.Flag) *Encoder {
	if ValidFlag(string(f)) {
		e.Raw(string(f))
	}
	return e
}

// Flags appends a parenthesised list of flags, leaving out what is no flag.
func (e *Encoder) Flags(flags []imap.Flag) *Encoder {
	e.buf = append(e.buf, '(')
	first := true
	for _, f := range flags {
		if !ValidFlag(string(f)) && f != imap.FlagWildcard {
			continue
		}
		if !first {
			e.buf = append(e.buf, ' ')
		}
		first = false
		e.buf = append(e.buf, f...)
	}
	e.buf = append(e.buf, ')')
	return e
}

// DateTime appends t quoted, as INTERNALDATE has it, in t's own zone.
func (e *Encoder) DateTime(t time.Time) *Encoder {
	// A year outside of four digits breaks the grammar and many clients.
	if y := t.Year(); y < 1 || y > 9999 {
		t = time.Unix(0, 0).UTC()
	}
	e.buf = append(e.buf, '"')
	e.buf = t.AppendFormat(e.buf, "02-Jan-2006 15:04:05 -0700")
	e.buf = append(e.buf, '"')
	return e
}

// UIDs appends UIDs in the order given as a set; neighbours that follow on each
// other become ranges, so that the set still lists them in that order. An empty
// list appends nothing.
func (e *Encoder) UIDs(uids []imap.UID) *Encoder {
	for i := 0; i < len(uids); {
		j := i + 1
		for j < len(uids) && uids[j] == uids[j-1]+1 {
			j++
		}
		if i > 0 {
			e.buf = append(e.buf, ',')
		}
		e.Num(uint64(uids[i]))
		if j-i > 1 {
			e.buf = append(e.buf, ':')
			e.Num(uint64(uids[j-1]))
		}
		i = j
	}
	return e
}

func (e *Encoder) announce(prefix string, size int64) {
	e.buf = append(e.buf, prefix...)
	e.buf = append(e.buf, '{')
	e.buf = strconv.AppendInt(e.buf, size, 10)
	e.buf = append(e.buf, '}', '\r', '\n')
}

// LiteralBytes appends b as a literal, NUL replaced as by String.
func (e *Encoder) LiteralBytes(b []byte) *Encoder {
	e.announce("", int64(len(b)))
	from := len(e.buf)
	e.buf = append(e.buf, b...)
	noNUL(e.buf[from:])
	return e
}

// Literal8Bytes appends b as a literal8 (RFC 3516), which may hold NUL.
func (e *Encoder) Literal8Bytes(b []byte) *Encoder {
	e.announce("~", int64(len(b)))
	return e.RawBytes(b)
}

// LiteralAt appends n bytes of r from off as a literal, in pieces. If the first
// piece cannot be read nothing is appended and the error returned: the response
// can still be shaped differently. A later failure breaks the connection, for
// bytes have been promised that do not exist: Err is then ErrBroken.
func (e *Encoder) LiteralAt(r io.ReaderAt, off, n int64) error {
	return e.literalFrom("", io.NewSectionReader(r, off, n), n)
}

// Literal8At is LiteralAt for a literal8.
func (e *Encoder) Literal8At(r io.ReaderAt, off, n int64) error {
	return e.literalFrom("~", io.NewSectionReader(r, off, n), n)
}

func (e *Encoder) literalFrom(prefix string, r io.Reader, n int64) error {
	if e.err != nil {
		return e.err
	}
	mark := len(e.buf)
	e.announce(prefix, n)
	for sent := int64(0); sent < n; {
		from := len(e.buf)
		k := int(min(n-sent, flushAt))
		e.buf = append(e.buf, make([]byte, k)...)
		if _, err := io.ReadFull(r, e.buf[from:]); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			if sent == 0 {
				e.buf = e.buf[:mark]
				return err
			}
			e.buf = e.buf[:from]
			e.err = fmt.Errorf("%w: %w", ErrBroken, err)
			return e.err
		}
		if prefix == "" {
			noNUL(e.buf[from:])
		}
		sent += int64(k)
		if len(e.buf) >= flushAt && e.Flush() != nil {
			return e.err
		}
	}
	return nil
}

func noNUL(b []byte) {
	for {
		i := bytes.IndexByte(b, 0)
		if i < 0 {
			return
		}
		b[i] = 0x80
		b = b[i+1:]
	}
}
