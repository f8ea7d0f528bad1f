package message

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/emersion/go-message/charset"
	"golang.org/x/text/encoding/unicode"
)

// ErrUnknownEncoding is returned for a Content-Transfer-Encoding that is not known.
var ErrUnknownEncoding = errors.New("unknown transfer encoding")

// Decoded returns the content of p with its transfer encoding removed and its charset untouched (RFC
// 3516). Bytes that have no place in base64 are passed over, broken quoted-printable stays as it is: neither is an
// error. ErrUnknownEncoding is returned for encodings that are not known.
func Decoded(r io.ReaderAt, p *Part) (io.Reader, error) {
	raw := io.NewSectionReader(r, p.Body.Off, p.Body.Len)
	switch strings.ToLower(p.Encoding) {
	case "", "7bit", "8bit", "binary":
		return raw, nil
	case "base64":
		return &base64Reader{r: raw}, nil
	case "quoted-printable":
		return &quotedReader{r: bufio.NewReaderSize(raw, 16<<10)}, nil
	}
	return nil, fmt.Errorf("%w %q", ErrUnknownEncoding, p.Encoding)
}

// Text returns the text of a text/* part in UTF-8, for searching. Charsets and encodings that are not known are
// taken for UTF-8 and for none; bytes that are no characters become U+FFFD.
func Text(r io.ReaderAt, p *Part) (io.Reader, error) {
	in, err := Decoded(r, p)
	if errors.Is(err, ErrUnknownEncoding) {
		in = io.NewSectionReader(r, p.Body.Off, p.Body.Len)
	} else if err != nil {
		return nil, err
	}
	switch cs := strings.ToLower(p.Param("charset")); cs {
	case "", "utf-8", "utf8", "us-ascii", "ascii":
	default:
		if out, err := charset.Reader(cs, in); err == nil {
			return out, nil
		}
	}
	return unicode.UTF8.NewDecoder().Reader(in), nil
}

// base64Reader decodes base64 with anything between its characters.
type base64Reader struct {
	r     io.Reader
	in    [16 << 10]byte
	clean [4 + 16<<10]byte
	n     int // characters in clean that do not make four yet
	out   [3 * (4 + 16<<10) / 4]byte
	have  []byte // decoded, not yet returned
	err   error
}

func (b *base64Reader) Read(p []byte) (int, error) {
	for len(b.have) == 0 {
		if b.err != nil {
			return 0, b.err
		}
		if len(p) == 0 {
			return 0, nil
		}
		b.fill()
	}
	n := copy(p, b.have)
	b.have = b.have[n:]
	return n, nil
}

func (b *base64Reader) fill() {
	n, err := b.r.Read(b.in[:])
	b.have = b.out[:0]
	k := b.n
	for _, c := range b.in[:n] {
		if base64Alphabet[c] {
			b.clean[k] = c
			k++
		} else if c == '=' && k%4 > 1 {
			// Padding ends a group; what follows begins another (concatenated base64).
			k = b.group(k)
		} else if c == '=' {
			k -= k % 4
		}
	}
	whole := k - k%4
	b.decode(b.clean[:whole])
	b.n = copy(b.clean[:], b.clean[whole:k])
	if err != nil {
		if b.n > 1 {
			b.decode(b.clean[:b.n])
		}
		b.n = 0
		b.err = err
	}
}

// group decodes k characters, the last group of which is short, and returns 0.
func (b *base64Reader) group(k int) int {
	b.decode(b.clean[:k])
	return 0
}

func (b *base64Reader) decode(src []byte) {
	n, _ := base64.RawStdEncoding.Decode(b.out[len(b.have):], src)
	b.have = b.out[:len(b.have)+n]
}

// quotedReader decodes quoted-printable (RFC 2045 section 6.7) line by line.
type quotedReader struct {
	r    *bufio.Reader
	line []byte // decoded, not yet returned
	buf  []byte
	err  error
}

func (q *quotedReader) Read(p []byte) (int, error) {
	for len(q.line) == 0 {
		if q.err != nil {
			return 0, q.err
		}
		if len(p) == 0 {
			return 0, nil
		}
		q.fill()
	}
	n := copy(p, q.line)
	q.line = q.line[n:]
	return n, nil
}

func (q *quotedReader) fill() {
	raw, err := q.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		// A line longer than the buffer: cut where no escape is cut.
		err = nil
		if i := strings.LastIndexByte(string(raw[len(raw)-2:]), '='); i >= 0 {
			k := 2 - i
			keep := append([]byte(nil), raw[len(raw)-k:]...)
			q.buf = appendQuoted(q.buf[:0], raw[:len(raw)-k])
			for len(keep) < 3 {
				c, e := q.r.ReadByte()
				if e != nil {
					break
				}
				keep = append(keep, c)
				if c == '\n' {
					break
				}
			}
			q.buf = q.appendLine(q.buf, keep)
		} else {
			q.buf = appendQuoted(q.buf[:0], raw)
		}
		q.line = q.buf
		return
	}
	q.buf = q.appendLine(q.buf[:0], raw)
	q.line = q.buf
	q.err = err
}

// appendLine decodes a line with its end; a soft line break removes the end.
func (q *quotedReader) appendLine(dst, line []byte) []byte {
	end := len(line)
	eol := 0
	if end > 0 && line[end-1] == '\n' {
		eol = 1
		if end > 1 && line[end-2] == '\r' {
			eol = 2
		}
	}
	text := line[:end-eol]
	// Blanks at the end of a line were added on the way (rule 3).
	if eol > 0 {
		for len(text) > 0 && (text[len(text)-1] == ' ' || text[len(text)-1] == '\t') {
			text = text[:len(text)-1]
		}
	}
	if n := len(text); n > 0 && text[n-1] == '=' {
		return appendQuoted(dst, text[:n-1])
	}
	dst = appendQuoted(dst, text)
	return append(dst, line[end-eol:]...)
}

func appendQuoted(dst, src []byte) []byte {
	for i := 0; i < len(src); i++ {
		c := src[i]
		if c == '=' && i+2 < len(src) {
			if h, l := unhex(src[i+1]), unhex(src[i+2]); h >= 0 && l >= 0 {
				dst = append(dst, byte(h<<4|l))
				i += 2
				continue
			}
		}
		dst = append(dst, c)
	}
	return dst
}
