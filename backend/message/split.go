package message

import (
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"
)

// MaxSkeleton is the most that may remain of a message that is taken apart: with base64 around it, such a MIME text stays
// within Graph's 4 MB for one request. TightSkeleton is what to aim at where even that was refused.
const (
	MaxSkeleton   = 3_000_000
	TightSkeleton = 1_000_000
)

// ErrIndivisible is returned, with the reason, for a message that cannot be taken apart without damage.
var ErrIndivisible = errors.New("message cannot be taken apart")

// Attachment is one part that was separated.
type Attachment struct {
	Name        string // never empty
	ContentType string // type/subtype in lower case
	ContentID   string // without angle brackets
	Inline      bool   // shown in the text by its ContentID
	Size        int64  // decoded
	Part        *Part
	Open        func() (io.Reader, error) // the decoded content, from its start
}

// Split is a message in two: the MIME text without some attachments, and these.
type Split struct {
	Skeleton     func(w io.Writer) error // writes SkeletonSize bytes
	SkeletonSize int64
	Attachments  []Attachment // in the order of the message
}

// SplitAttachments separates attachments whose encoded size is at least minSize, the biggest first, until what
// remains has at most aim bytes. The skeleton is otherwise byte for byte the message.
//
// ErrIndivisible is returned for S/MIME and PGP/MIME, whose signatures and ciphers cover the bytes as they are,
// where more than MaxSkeleton would remain, and where there is nothing to separate although aim is below that. Parts that Exchange gives a meaning by their place (text, invitations, reports,
// TNEF) are never separated.
func SplitAttachments(r io.ReaderAt, ix *Index, minSize, aim int64) (*Split, error) {
	root := ix.Root
	if why := protected(root); why != "" {
		return nil, fmt.Errorf("%w: %s", ErrIndivisible, why)
	}
	s := splitter{minSize: minSize, cut: map[*Part]bool{}}
	s.collect(root, "", 0)
	sort.SliceStable(s.found, func(i, j int) bool { return s.found[i].weight() > s.found[j].weight() })
	left := ix.Size
	for _, c := range s.found {
		if left <= aim {
			break
		}
		s.cut[c.part] = true
		left -= c.weight()
	}
	sort.SliceStable(s.found, func(i, j int) bool { return s.found[i].order < s.found[j].order })

	var pieces []piece
	if s.cut[root] {
		head, err := s.bareHeader(r, ix)
		if err != nil {
			return nil, err
		}
		pieces = []piece{{text: head}}
	} else {
		s.plan(root)
		pieces = s.pieces(ix.Size)
	}
	out := &Split{}
	for _, p := range pieces {
		out.SkeletonSize += p.length()
	}
	if out.SkeletonSize > MaxSkeleton || aim < MaxSkeleton && len(s.cut) == 0 {
		return nil, fmt.Errorf("%w: %d bytes remain without its attachments", ErrIndivisible, out.SkeletonSize)
	}
	out.Skeleton = func(w io.Writer) error { return writePieces(w, r, pieces) }
	for _, c := range s.found {
		if !s.cut[c.part] {
			continue
		}
		a, err := newAttachment(r, c)
		if err != nil {
			return nil, err
		}
		out.Attachments = append(out.Attachments, a)
	}
	return out, nil
}

// protected returns why a part must keep its bytes, "" if it need not.
func protected(p *Part) string {
	switch {
	case p.IsType("multipart", "signed"):
		return "signed (" + protocolOf(p) + ")"
	case p.IsType("multipart", "encrypted"):
		return "encrypted (" + protocolOf(p) + ")"
	case p.IsType("application", "pkcs7-mime"), p.IsType("application", "x-pkcs7-mime"):
		return "S/MIME"
	}
	return ""
}

func protocolOf(p *Part) string {
	if strings.Contains(strings.ToLower(p.Param("protocol")), "pgp") {
		return "PGP/MIME"
	}
	return "S/MIME"
}

type candidate struct {
	part   *Part
	parent string // subtype of the multipart it is in
	order  int
}

func (c candidate) weight() int64 { return c.part.Header.Len + c.part.Body.Len }

type splitter struct {
	minSize int64
	found   []candidate
	cut     map[*Part]bool
	holes   []hole
}

// collect finds the parts that may be separated. parent is the subtype of the multipart around p, index its place
// there.
func (s *splitter) collect(p *Part, parent string, index int) {
	if protected(p) != "" {
		return
	}
	if p.Multipart() {
		sub := strings.ToLower(p.Subtype)
		for i, c := range p.Children {
			s.collect(c, sub, i)
		}
		return
	}
	if p.Body.Len < s.minSize || !separable(p, parent, index) {
		return
	}
	s.found = append(s.found, candidate{part: p, parent: parent, order: len(s.found)})
}

func separable(p *Part, parent string, index int) bool {
	switch parent {
	case "", "mixed", "parallel":
	case "related":
		if index == 0 {
			return false // the text itself, RFC 2387 section 3.2
		}
	default:
		// Alternatives are versions of one thing, a report's parts are known by their place.
		return false
	}
	if _, err := Decoded(nil, p); err != nil {
		return false
	}
	switch {
	case p.IsType("message", "rfc822"):
		return parent != ""
	case p.IsType("message", ""), p.IsType("multipart", ""):
		return false
	case p.IsType("text", ""):
		if p.IsType("text", "calendar") && p.Param("method") != "" {
			return false
		}
		return strings.EqualFold(p.Disposition, "attachment") || p.FileName() != ""
	case p.IsType("application", "ms-tnef"), p.IsType("application", "vnd.ms-tnef"):
		return false
	}
	return true
}

// hole is a range of the message that is not copied, with what stands there instead.
type hole struct {
	Span
	text string
}

// emptyText stands for a multipart's parts when all are gone.
const emptyText = "Content-Type: text/plain; charset=us-ascii\r\n\r\n"

// plan finds what to leave out below p. A part goes with the delimiter that follows it; those at the end of their
// multipart go with the delimiter before them, so that the closing one stays.
func (s *splitter) plan(p *Part) {
	if !p.Multipart() {
		return
	}
	n := len(p.Children)
	last := n - 1 // the last part that stays
	for last >= 0 && s.cut[p.Children[last]] {
		last--
	}
	if last < 0 {
		off := p.Children[0].Header.Off
		s.holes = append(s.holes, hole{Span{off, p.Children[n-1].Body.End() - off}, emptyText})
		return
	}
	for i := 0; i <= last; i++ {
		if c := p.Children[i]; s.cut[c] {
			s.holes = append(s.holes, hole{Span: Span{c.Header.Off, p.Children[i+1].Header.Off - c.Header.Off}})
		} else {
			s.plan(c)
		}
	}
	if last < n-1 {
		off := p.Children[last].Body.End()
		s.holes = append(s.holes, hole{Span: Span{off, p.Children[n-1].Body.End() - off}})
	}
}

// piece is a range of the message, or text.
type piece struct {
	Span
	text string
}

func (p piece) length() int64 { return p.Len + int64(len(p.text)) }

func (s *splitter) pieces(size int64) []piece {
	var out []piece
	var off int64
	for _, h := range s.holes {
		out = append(out, piece{Span: Span{off, h.Off - off}}, piece{text: h.text})
		off = h.End()
	}
	return append(out, piece{Span: Span{off, size - off}})
}

// bareHeader is the header of a message that is one attachment, as that of an empty text.
func (s *splitter) bareHeader(r io.ReaderAt, ix *Index) (string, error) {
	header, err := HeaderBytes(r, ix)
	if err != nil {
		return "", err
	}
	if n := len(header); isBlankLine(header[max(0, n-2):]) {
		header = header[:n-2]
	} else if isBlankLine(header[max(0, n-1):]) {
		header = header[:n-1]
	}
	var remove []string
	mimeVersion := false
	for _, f := range Fields(header) {
		if hasPrefixFold(f.Name, "content-") {
			remove = append(remove, f.Name)
		}
		mimeVersion = mimeVersion || strings.EqualFold(f.Name, "mime-version")
	}
	bare := string(FilterHeader(header, remove, true))
	if !mimeVersion {
		bare += "MIME-Version: 1.0" + lineEnd(header)
	}
	return bare + emptyText, nil
}

func writePieces(w io.Writer, r io.ReaderAt, pieces []piece) error {
	for _, p := range pieces {
		if p.text != "" {
			if _, err := io.WriteString(w, p.text); err != nil {
				return fmt.Errorf("write skeleton: %w", err)
			}
		}
		if p.Len == 0 {
			continue
		}
		n, err := io.Copy(w, io.NewSectionReader(r, p.Off, p.Len))
		if err == nil && n < p.Len {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return fmt.Errorf("write skeleton: %w", err)
		}
	}
	return nil
}

func newAttachment(r io.ReaderAt, c candidate) (Attachment, error) {
	p := c.part
	a := Attachment{
		Name:        attachmentName(r, c),
		ContentType: strings.ToLower(p.Type + "/" + p.Subtype),
		ContentID:   strings.TrimSuffix(strings.TrimPrefix(p.ID, "<"), ">"),
		Part:        p,
		Open:        func() (io.Reader, error) { return Decoded(r, p) },
	}
	a.Inline = a.ContentID != "" && !strings.EqualFold(p.Disposition, "attachment") &&
		(c.parent == "related" || strings.EqualFold(p.Disposition, "inline"))
	content, err := a.Open()
	if err != nil {
		return a, err
	}
	if a.Size, err = io.Copy(io.Discard, content); err != nil {
		return a, fmt.Errorf("read attachment: %w", err)
	}
	return a, nil
}

// attachmentName is the name written or one that tells what it is; Graph wants one.
func attachmentName(r io.ReaderAt, c candidate) string {
	p := c.part
	name := p.FileName()
	if name == "" && p.Message != nil && p.Message.Envelope != nil {
		if name = DecodeWords(p.Message.Envelope.Subject); name != "" {
			name += ".eml"
		}
	}
	name = strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, name))
	if name == "" {
		ext := extensions[strings.ToLower(p.Type+"/"+p.Subtype)]
		if ext == "" {
			ext = "bin"
		}
		name = fmt.Sprintf("attachment-%d.%s", c.order+1, ext)
	}
	return name
}

var extensions = map[string]string{
	"application/pdf": "pdf", "application/zip": "zip", "image/jpeg": "jpg", "image/png": "png", "image/gif": "gif",
	"image/tiff": "tif", "message/rfc822": "eml", "text/plain": "txt", "text/html": "html", "text/csv": "csv", "text/calendar": "ics",
	"audio/mpeg": "mp3", "audio/wav": "wav", "video/mp4": "mp4",
}
