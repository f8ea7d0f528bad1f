package imapd

import (
	"context"
	"errors"
	"io"
	"strings"
	"unicode"

	"github.com/emersion/go-imap/v2"
	"golang.org/x/net/html"

	"postern/backend"
	"postern/backend/message"
)

const (
	// maxPreview is how many characters a preview has. RFC 8970 section 3.1 wants no more than 256, and 200 rather.
	maxPreview = 200
	// maxPreviewText is how many bytes of a text are looked at: style sheets and hidden words may fill the first of them.
	maxPreviewText = 128 << 10
	maxPreviewPart = 20 // parts that are tried
)

// readPreviews asks Graph for the previews of messages whose bytes are not kept. With LAZY those have none.
func (f *fetcher) readPreviews(sel selection) error {
	if f.preview == nil || f.preview.lazy || f.needsBody {
		return nil
	}
	var ask []imap.UID
	f.s.view.messages(sel, func(_ uint32, msg *backend.Message) bool {
		if !msg.HasBody && msg.ModSeq > f.req.changedSince {
			ask = append(ask, msg.UID)
		}
		return true
	})
	if len(ask) == 0 {
		return nil
	}
	if err := f.s.enc.Flush(); err != nil {
		return err
	}
	return f.s.wait(func(ctx context.Context) (err error) {
		f.previews, err = f.s.view.mbox.Previews(ctx, ask)
		return err
	})
}

// setPreview gives a row its preview, from the bytes if they are kept.
func (f *fetcher) setPreview(row *fetchRow) (err error) {
	row.noPreview = false
	switch text, ok := f.previews[row.msg.UID]; {
	case row.body != nil:
		row.preview, err = previewText(row.body)
	case ok:
		row.preview = previewOf(text)
	case f.preview.lazy && !row.msg.HasBody:
		row.preview, row.noPreview = "", true
	default:
		var body *backend.Body
		if body, err = f.s.view.mbox.Body(f.s.ctx, row.msg.UID); err == nil {
			row.preview, err = previewText(body)
			err = errors.Join(err, body.Close())
		} else if backend.KindOf(err) == backend.NotFound {
			row.preview, err = "", nil
		}
	}
	return err
}

// previewOf makes a preview of a text that is none yet.
func previewOf(text string) string {
	var p preview
	p.add(text)
	return p.String()
}

// previewText returns the beginning of what a message says, on one line: "" if it has no text.
func previewText(body content) (string, error) {
	tries := maxPreviewPart
	return previewPart(body, body.Index().Root, &tries)
}

// previewPart returns the first text in a part that is more than blanks.
func previewPart(body content, p *message.Part, tries *int) (string, error) {
	if strings.EqualFold(p.Disposition, "attachment") || *tries == 0 {
		return "", nil
	}
	*tries--
	for _, c := range p.Children {
		if s, err := previewPart(body, c, tries); s != "" || err != nil {
			return s, err
		}
	}
	if p.Multipart() || !p.IsType("text", "plain") && !p.IsType("text", "html") {
		return "", nil
	}
	r, err := message.Text(body, p)
	if err != nil {
		return "", err
	}
	r = io.LimitReader(r, maxPreviewText)
	if p.IsType("text", "html") {
		return previewHTML(r)
	}
	return previewPlain(r)
}

// previewPlain leaves out what is quoted, unless there is nothing else, and the signature.
func previewPlain(r io.Reader) (string, error) {
	b, err := io.ReadAll(io.LimitReader(r, 16<<10))
	if err != nil {
		return "", err
	}
	var own, quoted preview
	for line := range strings.Lines(string(b)) {
		line = strings.TrimRight(line, "\r\n")
		if line == "-- " {
			break
		}
		if strings.HasPrefix(line, ">") {
			quoted.add(strings.TrimLeft(line, "> "))
			quoted.add(" ")
			continue
		}
		own.add(line)
		own.add(" ")
		if own.full() {
			break
		}
	}
	if s := own.String(); s != "" {
		return s, nil
	}
	return quoted.String(), nil
}

// previewHTML takes the text that HTML shows.
func previewHTML(r io.Reader) (string, error) {
	var out preview
	z := html.NewTokenizer(r)
	z.SetMaxBuf(maxPreviewText)
	hidden := "" // the element whose content is not shown
	for !out.full() {
		switch z.Next() {
		case html.ErrorToken:
			if err := z.Err(); err != io.EOF && err != html.ErrBufferExceeded {
				return "", err
			}
			return out.String(), nil
		case html.TextToken:
			if hidden == "" {
				out.add(string(z.Text())) // entities resolved
			}
		case html.StartTagToken:
			name, _ := z.TagName()
			switch n := string(name); n {
			case "head", "style", "script", "title", "template", "noscript":
				if hidden == "" {
					hidden = n
				}
			case "body":
				hidden = "" // a head that is not closed ends here
			case "b", "i", "u", "em", "strong", "span", "font", "a", "small", "big", "code", "sub", "sup":
			default:
				out.add(" ")
			}
		case html.EndTagToken:
			name, _ := z.TagName()
			switch n := string(name); {
			case n == hidden:
				hidden = ""
			case n == "p" || n == "div" || n == "td" || n == "li" || n == "tr":
				out.add(" ")
			}
		case html.SelfClosingTagToken:
			out.add(" ")
		}
	}
	return out.String(), nil
}

// preview collects text, blanks made one, up to maxPreview characters.
type preview struct {
	sb    strings.Builder
	n     int
	blank bool // one is due
}

func (p *preview) full() bool { return p.n >= maxPreview }

func (p *preview) add(s string) {
	for _, r := range s {
		switch {
		case p.full():
			return
		case unicode.IsSpace(r):
			p.blank = p.n > 0
			continue
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r) && r != '\u200c' && r != '\u200d', r == '\u034f', r == unicode.ReplacementChar:
			// What nobody sees, newsletters put in by the hundred. Joiners belong to words.
			continue
		case (r == '\u200c' || r == '\u200d') && (p.blank || p.n == 0):
			continue
		}
		if p.blank {
			p.blank = false
			p.n++
			if p.full() {
				return
			}
			p.sb.WriteByte(' ')
		}
		p.sb.WriteRune(r)
		p.n++
	}
}

// String returns the text.
func (p *preview) String() string { return p.sb.String() }
