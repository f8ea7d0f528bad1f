package message

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"strings"
)

// Fingerprint returns a text that is the same for two messages with the same content: subject, parts in their order, their
// media types and what they hold. How they are written makes no difference: transfer encodings, boundaries, charsets,
// line ends and other blanks of texts; nor do header fields but the subject's. A mail program may write a
// message that it sends otherwise than the copy it files, with Bcc, another encoding, or new boundaries.
//
// Only errors of r are returned.
func Fingerprint(r io.ReaderAt, ix *Index) (string, error) {
	sum := sha256.New()
	if env := ix.Root.Envelope; env != nil {
		_, _ = io.WriteString(blankless{sum}, DecodeWords(env.Subject))
	}
	if err := fingerprintPart(sum, r, ix.Root); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)[:16]), nil
}

func fingerprintPart(sum hash.Hash, r io.ReaderAt, p *Part) error {
	if p.Multipart() {
		for _, c := range p.Children {
			if err := fingerprintPart(sum, r, c); err != nil {
				return err
			}
		}
		return nil
	}
	if p.Message != nil {
		_, _ = io.WriteString(sum, "\x00message\x00")
		return fingerprintPart(sum, r, p.Message)
	}
	_, _ = io.WriteString(sum, "\x00"+strings.ToLower(p.Type+"/"+p.Subtype)+"\x00")
	var to io.Writer = blankless{sum}
	var content io.Reader
	var err error
	switch {
	case p.IsType("text", ""):
		content, err = Text(r, p)
	case strings.EqualFold(p.Encoding, "base64"):
		content, err = Decoded(r, p)
		to = sum
	default:
		content, err = Decoded(r, p)
	}
	if err != nil { // an encoding nobody knows
		content = io.NewSectionReader(r, p.Body.Off, p.Body.Len)
	}
	_, err = io.Copy(to, content)
	return err
}

// blankless passes on what is no blank and no line end.
type blankless struct{ w io.Writer }

func (b blankless) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := 0
		for n < len(rest) && !isBlank(rest[n]) {
			n++
		}
		if n > 0 {
			if _, err := b.w.Write(rest[:n]); err != nil {
				return 0, err
			}
		}
		for n < len(rest) && isBlank(rest[n]) {
			n++
		}
		rest = rest[n:]
	}
	return len(p), nil
}
