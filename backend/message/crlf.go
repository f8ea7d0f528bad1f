package message

import (
	"bytes"
	"io"
)

// NormalizeCRLF returns a reader that turns each bare LF and bare CR of r into CRLF. Graph refuses
// MIME with bare LF, and RFC 5321 section 2.3.8 forbids both.
func NormalizeCRLF(r io.Reader) io.Reader {
	return &crlfReader{r: r, in: make([]byte, 32<<10)}
}

type crlfReader struct {
	r    io.Reader
	in   []byte
	out  []byte // converted, not yet returned
	buf  []byte
	cr   bool // the last byte read was CR, already answered with CRLF
	err  error
	zero int // reads that gave nothing
}

func (c *crlfReader) Read(p []byte) (int, error) {
	for len(c.out) == 0 {
		if c.err != nil {
			return 0, c.err
		}
		if len(p) == 0 {
			return 0, nil
		}
		n, err := c.r.Read(c.in)
		if n == 0 && err == nil {
			if c.zero++; c.zero > 100 {
				err = io.ErrNoProgress
			}
		} else {
			c.zero = 0
		}
		c.convert(c.in[:n])
		c.err = err
	}
	n := copy(p, c.out)
	c.out = c.out[n:]
	return n, nil
}

func (c *crlfReader) convert(b []byte) {
	out := c.buf[:0]
	for len(b) > 0 {
		if c.cr {
			c.cr = false
			if b[0] == '\n' {
				b = b[1:]
				continue
			}
		}
		// LF is looked for first: it is much more common than a CR without one.
		n := bytes.IndexByte(b, '\n')
		line := b
		if n >= 0 {
			line = b[:n]
		}
		if k := bytes.IndexByte(line, '\r'); k >= 0 {
			out = append(append(out, b[:k]...), '\r', '\n')
			b = b[k+1:]
			c.cr = true
			continue
		}
		out = append(out, line...)
		if n < 0 {
			break
		}
		out = append(out, '\r', '\n')
		b = b[n+1:]
	}
	c.buf, c.out = out, out
}
