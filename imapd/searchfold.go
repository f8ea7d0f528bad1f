package imapd

import (
	"bytes"
	"html"
	"io"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// foldSearch appends s to dst in the form in which texts are compared: compatibility decomposed, in lower case.
// It is what i;unicode-casemap (RFC 5051) does but for the direction of the case, so that "e" finds
// "é" and "É" alike.
func foldSearch(dst []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return foldUnicode(dst, norm.NFKD.String(s))
		}
	}
	return foldUnicode(dst, s)
}

// foldASCII is foldSearch for ASCII; ok is false if s is something else.
func foldASCII(dst, s []byte) (folded []byte, ok bool) {
	from := len(dst)
	dst = append(dst, s...)
	for i, c := range dst[from:] {
		if c >= utf8.RuneSelf {
			return dst[:from], false
		}
		if 'A' <= c && c <= 'Z' {
			dst[from+i] = c + 'a' - 'A'
		}
	}
	return dst, true
}

// foldUnicode is foldSearch for what is decomposed.
func foldUnicode(dst []byte, s string) []byte {
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			dst = append(dst, c)
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		i += n
		switch r {
		case 'ß', 'ẞ':
			dst = append(dst, "ss"...)
		case 'ς':
			dst = utf8.AppendRune(dst, 'σ')
		default:
			dst = utf8.AppendRune(dst, unicode.ToLower(r))
		}
	}
	return dst
}

const (
	textChunk = 64 << 10 // how much text is folded at once
	maxEntity = 40       // length of the longest entity of HTML, and more
)

// needles are strings looked for in one text at once.
type needles struct {
	want   [][]byte
	inBody []bool // these are not looked for in headers; nil: none
	found  []bool
	left   int
	max    int // length of the longest

	// Reused from text to text.
	buf, chunk, folded []byte
}

func newNeedles(want [][]byte) *needles {
	n := &needles{want: want, found: make([]bool, len(want))}
	for _, w := range want {
		n.max = max(n.max, len(w))
	}
	n.reset()
	return n
}

// reset begins anew, for another message.
func (n *needles) reset() {
	n.left = len(n.want)
	for i, w := range n.want {
		n.found[i] = len(w) == 0 // the empty string is everywhere
		if n.found[i] {
			n.left--
		}
	}
}

// in looks for what is not found yet.
func (n *needles) in(folded []byte, header bool) {
	for i, w := range n.want {
		if !n.found[i] && !(header && n.inBody != nil && n.inBody[i]) && bytes.Contains(folded, w) {
			n.found[i] = true
			n.left--
		}
	}
}

// inField is in for the text of a header field, not folded yet.
func (n *needles) inField(s string) {
	n.buf = foldSearch(n.buf[:0], s)
	n.in(n.buf, true)
}

// inText reads a UTF-8 text to its end or until all is found. With entities, those of HTML are resolved.
func (n *needles) inText(r io.Reader, entities bool) error {
	if n.chunk == nil {
		n.chunk = make([]byte, textChunk)
	}
	chunk := n.chunk
	keep := 0 // bytes at the start of chunk that are left from before
	folded := n.folded[:0]
	defer func() { n.folded = folded }()
	for n.left > 0 {
		k, err := io.ReadFull(r, chunk[keep:])
		b := chunk[:keep+k]
		end := err != nil
		cut := len(b)
		if !end {
			// Not within a character or, if it can be helped, within a word, which an entity or a combining
			// accent may end.
			if i := bytes.LastIndexAny(b, " \n"); i > len(b)/2 {
				cut = i + 1
			} else {
				for cut > len(b)-utf8.UTFMax && !utf8.RuneStart(b[cut-1]) {
					cut--
				}
				if cut > 0 {
					cut--
				}
				if i := bytes.LastIndexByte(b[:cut], '&'); entities && i > cut-maxEntity {
					cut = i
				}
			}
		}
		// A match may begin in the text before.
		if over := len(folded) - (n.max - 1); over > 0 {
			folded = append(folded[:0], folded[over:]...)
		}
		if text := b[:cut]; entities && bytes.IndexByte(text, '&') >= 0 {
			folded = foldSearch(folded, html.UnescapeString(string(text)))
		} else if f, ok := foldASCII(folded, text); ok {
			folded = f
		} else {
			folded = foldSearch(folded, string(text))
		}
		n.in(folded, false)
		if end {
			if err == io.EOF || err == io.ErrUnexpectedEOF {
				return nil
			}
			return err
		}
		keep = copy(chunk, b[cut:])
	}
	return nil
}
