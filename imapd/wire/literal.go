package wire

import (
	"io"
	"math"
)

// takeLiteral accepts the literal announced at the current position. Sync
// literals are asked for.
func (d *Decoder) takeLiteral() error {
	if !d.lit.nonSync {
		if err := d.cont(); err != nil {
			return err
		}
	}
	d.pos, d.needLine, d.remain = len(d.line), true, d.lit.size
	return nil
}

// atLiteral reports whether a literal is announced at the current position.
func (d *Decoder) atLiteral() bool {
	return d.err == nil && d.litAt >= 0 && d.pos == d.litAt && !d.needLine
}

// memoryLiteral reads a literal into memory and goes on to the line behind it.
func (d *Decoder) memoryLiteral() string {
	size := d.lit.size
	if d.lit.binary {
		d.Fail(syntaxErrorf("binary literal not allowed here"))
		return ""
	}
	if size > d.lim.Literal || d.held+size > d.lim.Command {
		d.Fail(&LimitError{Literal: true, Text: "literal too big"})
		return ""
	}
	if err := d.takeLiteral(); err != nil {
		d.die(err)
		return ""
	}
	d.held += size
	b := make([]byte, size)
	if _, err := io.ReadFull(literalReader{d}, b); err != nil {
		d.die(lineEOF(err, 1))
		return ""
	}
	d.afterLiteral()
	return string(b)
}

// afterLiteral goes on to the line behind a literal that was read to its end.
func (d *Decoder) afterLiteral() {
	if d.err != nil {
		return
	}
	if d.remain > 0 {
		d.Fail(syntaxErrorf("literal not read to its end"))
		return
	}
	d.needLine = false
	limit := int(max(0, min(int64(d.lim.Line), d.lim.Command-d.held)))
	if err := d.readLine(limit); err != nil {
		d.input(err)
	}
}

// literalReader reads the literal that was taken.
type literalReader struct{ d *Decoder }

// Read implements io.Reader. The end of the connection within the literal is
// io.ErrUnexpectedEOF.
func (l literalReader) Read(p []byte) (int, error) {
	d := l.d
	if d.remain == 0 {
		return 0, io.EOF
	}
	if d.err != nil {
		return 0, d.err
	}
	if int64(len(p)) > d.remain {
		p = p[:d.remain]
	}
	if len(p) == 0 {
		return 0, nil
	}
	if d.start == d.end && len(p) >= smallBuffer {
		if d.before != nil {
			if err := d.before(); err != nil {
				return 0, err
			}
		}
		n, err := d.r.Read(p)
		d.remain -= int64(n)
		if n > 0 {
			err = nil
		}
		return n, l.lost(err)
	}
	if d.start == d.end {
		d.start, d.end = 0, 0
		d.makeRoom(smallBuffer)
		if err := d.fill(); err != nil {
			return 0, l.lost(err)
		}
	}
	n := copy(p, d.buf[d.start:d.end])
	d.start += n
	d.remain -= int64(n)
	return n, nil
}

// lost keeps an error of the connection, after which nothing can be parsed.
func (l literalReader) lost(err error) error {
	if err == nil {
		return nil
	}
	err = lineEOF(err, 1)
	l.d.die(err)
	return err
}

// A Literal is one that is read as a stream, such as the message of APPEND. It
// is only announced at first: nothing has been asked of the client yet. Either
// Accept it, read it to its end and call Close, or leave it alone: Finish reads
// past it if the client sends it unasked.
type Literal struct {
	Size   int64 // bytes announced
	Binary bool  // a literal8, ~{n}
	d      *Decoder
}

// Literal expects a literal and returns it, unread. With a parse error it
// returns nil.
func (d *Decoder) Literal() *Literal {
	if !d.atLiteral() {
		d.Fail(syntaxErrorf("literal expected"))
		return nil
	}
	return &Literal{Size: d.lit.size, Binary: d.lit.binary, d: d}
}

// Accept asks the client for the literal unless it comes by itself. The reader
// gives its bytes; its errors are those of the connection.
func (l *Literal) Accept() (io.Reader, error) {
	if err := l.d.takeLiteral(); err != nil {
		l.d.die(err)
		return nil, err
	}
	return literalReader{l.d}, nil
}

// Discard reads past what is left of an accepted literal, after its content
// could not be used, and goes on behind it. At most Limits.Drain bytes.
func (l *Literal) Discard() error {
	budget := l.d.lim.Drain
	if l.d.err != nil {
		return l.d.err
	}
	if err := l.d.drain(l.d.remain, &budget); err != nil {
		l.d.die(err)
		return err
	}
	l.d.remain = 0
	return nil
}

// Close goes on to what follows an accepted literal that was read to its end.
func (l *Literal) Close() error {
	l.d.afterLiteral()
	return l.d.err
}

// maxInt63 is the largest number that number64 allows.
const maxInt63 = math.MaxInt64
