package message

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
)

// ErrNUL is returned where a message holds a NUL that no encoding takes away.
var ErrNUL = errors.New("NUL in a message")

// EncodeBinary writes a copy of the message r, whose index is ix, in which parts with Content-Transfer-Encoding
// binary are in base64; what holds them is declared 8bit. All else stays byte for byte. What holds a NUL outside of
// such parts gives ErrNUL, after some of it was written.
func EncodeBinary(w io.Writer, r io.ReaderAt, ix *Index) error {
	e := &binaryEncoder{w: bufio.NewWriterSize(w, 32<<10), r: r}
	if err := e.part(ix.Root); err != nil {
		return err
	}
	if err := e.copy(ix.Size); err != nil {
		return err
	}
	return e.w.Flush()
}

type binaryEncoder struct {
	w   *bufio.Writer
	r   io.ReaderAt
	pos int64 // all before is written
}

// copy writes what comes before end as it is.
func (e *binaryEncoder) copy(end int64) error {
	if end <= e.pos {
		return nil
	}
	_, err := io.Copy(noNULWriter{e.w}, io.NewSectionReader(e.r, e.pos, end-e.pos))
	e.pos = end
	return err
}

type noNULWriter struct{ w io.Writer }

func (n noNULWriter) Write(p []byte) (int, error) {
	if bytes.IndexByte(p, 0) >= 0 {
		return 0, ErrNUL
	}
	return n.w.Write(p)
}

func (e *binaryEncoder) part(p *Part) error {
	inside := p.Children
	if p.Message != nil {
		inside = []*Part{p.Message}
	}
	if strings.EqualFold(p.Encoding, "binary") {
		encoding := "base64"
		if len(inside) > 0 {
			encoding = "8bit" // RFC 2045 section 6.4 allows these no other
		}
		if err := e.header(p, encoding); err != nil {
			return err
		}
		if len(inside) == 0 {
			return e.body(p)
		}
	}
	for _, sub := range inside {
		if err := e.part(sub); err != nil {
			return err
		}
	}
	return nil
}

// header writes the header block of p with another encoding.
func (e *binaryEncoder) header(p *Part, encoding string) error {
	if p.Header.Len > maxPartHeader {
		return ErrHeaderTooLarge
	}
	if err := e.copy(p.Header.Off); err != nil {
		return err
	}
	header := make([]byte, p.Header.Len)
	if _, err := io.ReadFull(io.NewSectionReader(e.r, p.Header.Off, p.Header.Len), header); err != nil {
		return fmt.Errorf("read header: %w", err)
	}
	e.pos = p.Header.End()
	out := make([]byte, 0, len(header)+len(encoding))
	done := 0 // up to here header is in out
	s := fieldScanner{header: header}
	for f, ok := s.next(); ok; f, ok = s.next() {
		if !equalFold(f.name, "Content-Transfer-Encoding") {
			continue
		}
		out = append(append(out, header[done:f.start]...), f.name...)
		out = append(out, ": "+encoding+lineEnd(f.raw)...)
		done = s.pos
	}
	_, err := noNULWriter{e.w}.Write(append(out, header[done:]...))
	return err
}

// body writes the body of p in base64, in lines of 76 characters.
func (e *binaryEncoder) body(p *Part) error {
	const raw = 57
	if err := e.copy(p.Body.Off); err != nil {
		return err
	}
	in := bufio.NewReaderSize(io.NewSectionReader(e.r, p.Body.Off, p.Body.Len), 32<<10)
	line := make([]byte, base64.StdEncoding.EncodedLen(raw)+2)
	chunk := make([]byte, raw)
	for left := p.Body.Len; left > 0; left -= raw {
		n := int(min(left, raw))
		if _, err := io.ReadFull(in, chunk[:n]); err != nil {
			return fmt.Errorf("read body: %w", err)
		}
		m := base64.StdEncoding.EncodedLen(n)
		base64.StdEncoding.Encode(line, chunk[:n])
		line[m], line[m+1] = '\r', '\n'
		end := m + 2
		if left <= raw {
			end = m // what comes behind has a line end of its own
		}
		if _, err := e.w.Write(line[:end]); err != nil {
			return err
		}
	}
	e.pos = p.Body.End()
	return nil
}
