package smtpd

import (
	"bytes"
	"io"

	"github.com/emersion/go-smtp"
)

// messageReader reads the message behind DATA straight from the connection. go-smtp's own reader does the same, but looks at each
// byte by itself and three times, which for large messages is most of the work of taking them.
//
// The message ends with CRLF . CRLF and in no other way. LF alone and CR alone are content, and so is what follows an even number of
// CRs and a LF, as for go-smtp: two readings of one message are what smuggling lives on. When the message has ended,
// go-smtp's reader is given its last line alone.
type messageReader struct {
	c     *conn
	room  int64  // bytes that may still come
	line  int    // bytes of the line under way
	most  int    // of a line
	mid   bool   // the next byte is inside a line
	crs   int    // CRs at the end of what was given out of the line under way
	out   []byte // ready to be given out
	ended bool
	err   error
}

// lastLine is the end of a message.
const lastLine = ".\r\n"

// messageChunk is how much is read at once.
const messageChunk = 64 << 10

// Read gives out the message without its last line and without the dots that were added to lines.
func (m *messageReader) Read(p []byte) (int, error) {
	for len(m.out) == 0 {
		switch {
		case m.ended:
			return 0, io.EOF
		case m.err != nil:
			return 0, m.err
		}
		m.next()
	}
	if m.room <= 0 {
		return 0, smtp.ErrDataTooLarge
	}
	n := copy(p[:min(int64(len(p)), m.room)], m.out)
	m.out = m.out[n:]
	m.room -= int64(n)
	return n, nil
}

// next makes the next piece of a line ready, or several lines that need no change.
func (m *messageReader) next() {
	in := m.c.held
	i := bytes.IndexByte(in, '\n')
	if i < 0 && len(in) < messageChunk {
		m.err = m.c.fill()
		return
	}
	if i >= 0 && !m.mid && string(in[:i+1]) == lastLine {
		m.c.held, m.c.behind = in[i+1:], true
		m.ended = true
		return
	}
	start := 0
	if !m.mid && in[0] == '.' {
		start = 1
	}
	if i < 0 {
		// A long line goes piece by piece.
		m.take(in[start:], false)
		m.c.held = nil
		return
	}
	end := i + 1
	m.take(in[start:end], true)
	// Further whole lines that begin with no dot.
	for !m.mid && m.err == nil && end < len(in) && in[end] != '.' {
		i := bytes.IndexByte(in[end:], '\n')
		if i < 0 {
			break
		}
		m.take(in[end:end+i+1], true)
		end += i + 1
	}
	m.out, m.c.held = in[start:end], in[end:]
}

// take notes what piece, a line or the rest of one if whole is set, does to the state.
func (m *messageReader) take(piece []byte, whole bool) {
	m.out = piece
	if m.line += len(piece); m.line > m.most {
		m.out, m.err = nil, smtp.ErrTooLongLine
		return
	}
	body := piece
	if whole {
		body = piece[:len(piece)-1]
	}
	trimmed := bytes.TrimRight(body, "\r")
	crs := len(body) - len(trimmed)
	if len(trimmed) == 0 {
		crs += m.crs
	}
	if !whole {
		m.crs, m.mid = crs, true
		return
	}
	m.mid = crs%2 == 0
	m.crs, m.line = 0, 0
}

// finish reads what is left of the message, so that nothing of it is taken for a command.
func (m *messageReader) finish() {
	for !m.ended && m.err == nil {
		m.next()
	}
}
