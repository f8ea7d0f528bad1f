package message

import (
	"bytes"
	"fmt"
	"io"
)

const (
	// maxPartHeader is how much of one header block is looked at. Whatever follows is skipped over
	// and still served raw.
	maxPartHeader = 1 << 20
	// maxHeaders bounds the same over all parts of a message, so that memory stays bounded
	// when a message consists of nothing but headers.
	maxHeaders = 16 << 20
	// maxAddresses bounds the addresses of all envelopes of a message.
	maxAddresses = 200_000
)

// Parse scans size bytes of r once and returns the index. It never fails on bad MIME: only an I/O
// error of r is returned, io.ErrUnexpectedEOF among them if r is shorter than size.
//
// Structure follows RFC 2046 as Dovecot reads it: a delimiter is any line that begins with a boundary
// in force (the longest that fits, then the innermost); the end of an outer multipart ends all inside it;
// what is never closed reaches to the end.
func Parse(r io.ReaderAt, size int64) (*Index, error) {
	p := parser{headersLeft: maxHeaders, addressesLeft: maxAddresses}
	p.s.r, p.s.size = r, size
	if size < scanBuffer {
		// One byte more than needed: a full buffer means "line longer than the buffer".
		p.s.buf = make([]byte, size+1)
	} else {
		b := scanBuffers.Get().(*[]byte)
		defer scanBuffers.Put(b)
		p.s.buf = *b
	}
	root := p.run()
	if p.s.err != nil {
		return nil, fmt.Errorf("read message: %w", p.s.err)
	}
	return &Index{Size: size, Root: root}, nil
}

// frame is a part whose end has not been found yet.
type frame struct {
	part     *Part
	boundary []byte // nil if no delimiter starts children of this part
	digest   bool
	firstLF  int64 // LF before the body
}

type parser struct {
	s             scanner
	stack         []frame
	parts         int
	header        []byte // reused
	headersLeft   int
	addressesLeft int
	whole         bool // maxParts reached: no delimiter counts any more
}

func (p *parser) run() *Part {
	root := &Part{}
	p.open(root, true, false)
	for {
		i, last := p.nextDelimiter()
		if i < 0 {
			break
		}
		p.delimiter(i, last)
	}
	end, lf := p.s.offset(), p.s.lf
	p.closeTo(0, end, lf)
	return root
}

// open reads the header of part at the position and pushes it, and after it the message it embeds
// and so on. The position is then in the body of the innermost.
func (p *parser) open(part *Part, message, inDigest bool) {
	for {
		p.parts++
		if p.parts >= maxParts {
			p.whole = true
		}
		part.Header.Off = p.s.offset()
		if p.whole && !message {
			part.Type, part.Subtype = "application", "octet-stream"
		} else {
			p.readHeader(part, message, inDigest)
		}
		off := p.s.offset()
		part.Header.Len = off - part.Header.Off
		part.Body.Off = off
		f := frame{part: part, firstLF: p.s.lf}
		multipart := part.IsType("multipart", "")
		nested := part.IsType("message", "rfc822") || part.IsType("message", "global")
		if (multipart || nested) && (len(p.stack)+1 >= maxDepth || p.whole) {
			part.Type, part.Subtype, part.Params = "application", "octet-stream", nil
			multipart, nested = false, false
		}
		if multipart {
			f.boundary = cleanBoundary(part.Param("boundary"))
			f.digest = part.IsType("multipart", "digest")
		}
		p.stack = append(p.stack, f)
		if !nested || !identity(part.Encoding) {
			return
		}
		part.Message = &Part{}
		part, message, inDigest = part.Message, true, false
	}
}

// cleanBoundary returns the boundary as delimiters repeat it, nil if it is not usable. An empty one
// would make a delimiter of every line with two dashes.
func cleanBoundary(s string) []byte {
	b := bytes.TrimRight([]byte(s), " \t")
	if len(b) == 0 || len(b) > maxBoundary {
		return nil
	}
	return b
}

// readHeader consumes a header block and the blank line behind it, or up to the delimiter or end that
// cuts it off, and sets the fields of part.
func (p *parser) readHeader(part *Part, message, inDigest bool) {
	p.header = p.header[:0]
	room := min(maxPartHeader, p.headersLeft)
	start := true
	for {
		if start {
			if b := p.s.need(delimiterRoom); len(b) >= 2 && b[0] == '-' && b[1] == '-' {
				if i, _ := p.match(b); i >= 0 {
					break
				}
			}
		}
		b, whole := p.s.line()
		if len(b) == 0 {
			break
		}
		if start && (b[0] == '\n' || len(b) == 2 && b[0] == '\r' && b[1] == '\n') {
			break
		}
		if k := min(len(b), room-len(p.header)); k > 0 {
			p.header = append(p.header, b[:k]...)
		}
		start = whole
	}
	p.headersLeft -= len(p.header)
	part.setFields(p.header, inDigest)
	if message {
		part.Envelope = parseEnvelope(p.header, &p.addressesLeft)
	}
}

// match finds the frame whose delimiter the line b is, -1 if none. last is set for a closing
// delimiter.
func (p *parser) match(b []byte) (i int, last bool) {
	if p.whole {
		return -1, false
	}
	b = b[2:]
	i = -1
	best := 0
	for k := len(p.stack) - 1; k >= 0; k-- {
		if bd := p.stack[k].boundary; len(bd) > best && bytes.HasPrefix(b, bd) {
			i, best = k, len(bd)
		}
	}
	if i >= 0 {
		rest := b[best:]
		last = len(rest) >= 2 && rest[0] == '-' && rest[1] == '-'
	}
	return i, last
}

// nextDelimiter moves to the next line that is a delimiter of an open frame. At the end it
// returns -1.
func (p *parser) nextDelimiter() (i int, last bool) {
	found := p.s.skipTo()
	for found {
		if i, last = p.match(p.s.need(delimiterRoom)); i >= 0 {
			return i, last
		}
		found = p.s.skipPast()
	}
	return -1, false
}

// delimiter handles the delimiter of frame i at the position.
func (p *parser) delimiter(i int, last bool) {
	end, lf := p.s.offset(), p.s.lf
	// The line end before a delimiter belongs to it. Its bytes are still in the buffer
	// unless the buffer was just refilled; the position tells in either case.
	if cut := p.lineEndBefore(); cut > 0 {
		end -= int64(cut)
		lf--
	}
	p.closeTo(i+1, end, lf)
	for {
		if b, whole := p.s.line(); whole || len(b) == 0 {
			break
		}
	}
	f := &p.stack[i]
	if last {
		f.boundary = nil
		return
	}
	child := &Part{}
	f.part.Children = append(f.part.Children, child)
	p.open(child, false, f.digest)
}

// lineEndBefore is the length of the line end before the position, 0 at the start of the message.
func (p *parser) lineEndBefore() int {
	s := &p.s
	if s.p >= 2 {
		if s.buf[s.p-2] == '\r' {
			return 2
		}
		return 1
	}
	if s.offset() == 0 {
		return 0
	}
	var b [2]byte
	if off := s.offset() - 2; off >= 0 {
		if n, _ := s.r.ReadAt(b[:], off); n == 2 && b[0] == '\r' {
			return 2
		}
	}
	return 1
}

// closeTo ends all frames from index k on. A body never ends before it begins (a delimiter may follow a
// header at once), nor before what is inside it.
func (p *parser) closeTo(k int, end, lf int64) {
	for len(p.stack) > k {
		f := p.stack[len(p.stack)-1]
		p.stack = p.stack[:len(p.stack)-1]
		body := &f.part.Body
		if end < body.Off {
			end, lf = body.Off, f.firstLF
		}
		body.Len = end - body.Off
		f.part.Lines = lf - f.firstLF
		if f.part.IsType("multipart", "") && len(f.part.Children) == 0 {
			// No boundary, or none that occurs. IMAP has no multipart without parts, and what is
			// there shall be seen.
			f.part.Children = []*Part{{
				Header: Span{Off: body.Off}, Body: *body, Lines: f.part.Lines,
				Type: "text", Subtype: "plain",
			}}
		}
	}
}
