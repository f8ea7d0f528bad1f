package message

import (
	"bytes"
	"errors"
	"io"
	"sync"
)

const (
	scanBuffer = 128 << 10
	// maxBoundary is the longest boundary honoured. RFC 2046 section 5.1.1 allows 70 characters;
	// some programs write more.
	maxBoundary = 998
	// delimiterRoom is how much of a line is looked at to recognise a delimiter.
	delimiterRoom = maxBoundary + 4
)

var scanBuffers = sync.Pool{New: func() any { b := make([]byte, scanBuffer); return &b }}

// scanner goes once through a message. It knows its offset and how many LF it has passed, so that
// lines need not be counted again for each enclosing part.
type scanner struct {
	r    io.ReaderAt
	size int64
	buf  []byte
	base int64 // offset of buf[0]
	n    int   // bytes valid in buf
	p    int   // position in buf
	lf   int64 // number of LF before p
	err  error // a failure of r, never io.EOF
}

func (s *scanner) offset() int64 { return s.base + int64(s.p) }

// more slides what is unread to the front of the buffer and reads behind it. It reports whether
// anything came.
func (s *scanner) more() bool {
	if s.err != nil || s.base+int64(s.n) >= s.size {
		return false
	}
	if s.p > 0 {
		copy(s.buf, s.buf[s.p:s.n])
		s.base += int64(s.p)
		s.n -= s.p
		s.p = 0
	}
	room := s.buf[s.n:]
	if left := s.size - s.base - int64(s.n); int64(len(room)) > left {
		room = room[:left]
	}
	if len(room) == 0 {
		return false
	}
	n, err := s.r.ReadAt(room, s.base+int64(s.n))
	s.n += n
	switch {
	case n == len(room):
	case err == nil || errors.Is(err, io.EOF):
		// The reader is shorter than was said; offsets beyond its end would announce bytes
		// that do not exist.
		s.err = io.ErrUnexpectedEOF
	default:
		s.err = err
	}
	return n > 0
}

// need makes at least k bytes available where the message has them.
func (s *scanner) need(k int) []byte {
	for s.n-s.p < k && s.more() {
	}
	return s.buf[s.p:s.n]
}

// line returns the rest of the line at the position with its LF and moves behind it. A line that
// is longer than the buffer comes in pieces: only the last one has whole set, as has the end of
// the message.
func (s *scanner) line() (b []byte, whole bool) {
	searched := 0
	for {
		b = s.buf[s.p:s.n]
		if i := bytes.IndexByte(b[searched:], '\n'); i >= 0 {
			b = b[:searched+i+1]
			s.p += len(b)
			s.lf++
			return b, true
		}
		searched = len(b)
		if len(b) == len(s.buf) {
			s.p += len(b)
			return b, false
		}
		if !s.more() {
			b = s.buf[s.p:s.n]
			s.p = s.n
			return b, true
		}
	}
}

// skipTo moves forward to the next line that starts with "--", counting lines; to the end if there
// is none. The position must be at the start of a line.
func (s *scanner) skipTo() bool {
	if b := s.need(2); len(b) >= 2 && b[0] == '-' && b[1] == '-' {
		return true
	}
	return s.skipPast()
}

// skipPast is skipTo for lines that start behind the position.
func (s *scanner) skipPast() bool {
	for {
		b := s.buf[s.p:s.n]
		if i := bytes.Index(b, newlineDashes); i >= 0 {
			s.lf += int64(bytes.Count(b[:i+1], newline))
			s.p += i + 1
			return true
		}
		// "\n-" may be cut by the end of the buffer.
		if done := len(b) - 2; done > 0 {
			s.lf += int64(bytes.Count(b[:done], newline))
			s.p += done
		}
		if !s.more() {
			s.lf += int64(bytes.Count(s.buf[s.p:s.n], newline))
			s.p = s.n
			return false
		}
	}
}

var (
	newline       = []byte("\n")
	newlineDashes = []byte("\n--")
)
