package syncer

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"postern/backend/graph"
	"postern/backend/message"
	"postern/backend/store"
)

const (
	maxText      = 2 << 20  // bytes of text that go into the message's body; longer texts become attachments
	maxTransport = 30 << 10 // bytes of a header kept as transport headers
	maxExtraHead = 5        // Graph: internetMessageHeaders, observed limit
	maxFiles     = 250      // attachments of one message; learn: Exchange Online limits. Each costs a call
)

// propAppend marks an appended message, so that it is found when the answer to its creation was lost.
var propAppend = graph.PropertyID{Type: "String", Set: propIMAPFlags.Set, Name: "PosternAppend"}

// createJSON makes a message that is no draft by taking the MIME text apart (observed, not documented: it takes 0x0E07
// without the unsent bit, at creation). Text and attachments, addresses, dates, threading, flags and up to five x- fields
// get to Exchange; the rest lives in the bytes the replica keeps. What cannot be taken apart without loss, signed and
// encrypted mail, is attached once more as a whole, so that nothing is lost to Outlook either.
func (s *Syncer) createJSON(ctx context.Context, row *store.Folder, body *store.Body, ix *message.Index, header []byte, in *Incoming) (*graph.Message, []upload, error) {
	m, rest, err := newMessage(body, ix, header, in)
	if err != nil {
		return nil, nil, err
	}
	mark := rand.Text()
	m.Extended[propAppend] = mark
	filter := fmt.Sprintf("singleValueExtendedProperties/Any(ep: ep/id eq '%s' and ep/value eq '%s')", propAppend, mark)
	create := func() (*graph.Message, error) {
		return s.surely(ctx, string(row.GraphID), filter, func() (*graph.Message, error) {
			return s.o.Graph.Create(ctx, string(row.GraphID), m)
		})
	}
	made, err := create()
	if graph.StatusOf(err) == http.StatusRequestEntityTooLarge && m.Body != "" {
		// Less than the documents say is taken here. The text goes as an attachment, then.
		if m, rest, err = newMessageWithin(body, ix, header, in, textApart); err != nil {
			return nil, nil, err
		}
		m.Extended[propAppend] = mark
		made, err = create()
	}
	if graph.StatusOf(err) == 400 && !graph.IsQuota(err) && !graph.IsTooLarge(err) {
		// Old and odd mail has addresses and fields that Graph refuses. What matters is that it can be kept at all.
		s.log.Info("message is appended without its odder fields", "mailbox", row.Name, "err", err)
		m.Headers, m.ReplyTo, m.Sender, m.InternetMessageID = nil, nil, nil, ""
		delete(m.Extended, graph.PropTransportHeaders)
		made, err = create()
		if graph.StatusOf(err) == 400 && !graph.IsQuota(err) && !graph.IsTooLarge(err) {
			m.From, m.To, m.Cc, m.Bcc = nil, nil, nil, nil
			made, err = create()
		}
	}
	return made, rest, err
}

// shape is how much of a message is said by its creation.
type shape int

const (
	everything shape = iota
	textApart        // the text is an attachment
	bare             // addresses and long fields are only in the original, which is an attachment
)

// newMessage makes what creation says of the message as full as one request can be, and returns the attachments to add.
func newMessage(body io.ReaderAt, ix *message.Index, header []byte, in *Incoming) (m graph.NewMessage, rest []upload, err error) {
	for sh := everything; sh <= bare; sh++ {
		if m, rest, err = newMessageWithin(body, ix, header, in, sh); err != nil {
			return m, nil, err
		}
		if large, err := m.TooLarge(); err != nil || !large {
			return m, rest, err
		}
	}
	return m, nil, errRequestSize
}

// newMessageWithin is newMessage of one shape.
func newMessageWithin(body io.ReaderAt, ix *message.Index, header []byte, in *Incoming, sh shape) (graph.NewMessage, []upload, error) {
	m, rest, err := takeApart(body, ix, sh)
	if err != nil {
		return m, nil, err
	}
	m.IsRead = new(in.Flags&store.FlagSeen != 0)
	if in.Flags&store.FlagFlagged != 0 {
		m.Flag = graph.FlagFlagged
	}
	if len(in.Keywords) > 0 {
		m.Categories = categoriesOf(in.Keywords)
	}
	m.Extended = map[graph.PropertyID]string{
		graph.PropDeliveryTime: graphTime(in.Date),
		graph.PropSubmitTime:   graphTime(in.Date),
	}
	if in.Flags&store.FlagDraft == 0 {
		m.Extended[graph.PropFlags] = "4"
	}
	if in.Flags&(store.FlagAnswered|store.FlagForwarded|store.FlagDeleted) != 0 {
		for id, v := range extendedFlags(in.made(), in.Flags) {
			m.Extended[id] = v
		}
	}
	if env := ix.Root.Envelope; env != nil {
		if t, ok := message.ParseDate(env.Date); ok {
			m.Extended[graph.PropSubmitTime] = graphTime(t)
		}
	}
	for name, prop := range map[string]graph.PropertyID{"References": graph.PropReferences, "In-Reply-To": graph.PropInReplyTo} {
		if v, ok := message.FieldValue(header, name); ok && v != "" && (sh != bare || len(v) <= maxTransport) {
			m.Extended[prop] = v
		}
	}
	if len(header) <= maxTransport && len(bytes.TrimSpace(header)) > 0 {
		m.Extended[graph.PropTransportHeaders] = strings.ToValidUTF8(string(header), "?")
	}
	m.Headers = extraHeaders(header)
	return m, rest, nil
}

func graphTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

// extraHeaders picks the fields that Graph lets be given.
func extraHeaders(header []byte) []graph.Header {
	var out []graph.Header
	for _, f := range message.Fields(header) {
		if len(out) == maxExtraHead {
			break
		}
		if len(f.Name) > 2 && (f.Name[0] == 'x' || f.Name[0] == 'X') && f.Name[1] == '-' && f.Value != "" && len(f.Value) < 900 {
			out = append(out, graph.Header{Name: f.Name, Value: strings.ToValidUTF8(f.Value, "?")})
		}
	}
	return out
}

// takeApart turns MIME text into what Graph's message resource can hold.
func takeApart(r io.ReaderAt, ix *message.Index, sh shape) (graph.NewMessage, []upload, error) {
	var m graph.NewMessage
	if env := ix.Root.Envelope; env != nil {
		m.Subject = message.DecodeWords(env.Subject)
		if strings.HasPrefix(env.MessageID, "<") && strings.HasSuffix(env.MessageID, ">") {
			m.InternetMessageID = env.MessageID
		}
		if from := recipients(env.From); len(from) > 0 {
			m.From = &from[0]
		}
		if sender := recipients(env.Sender); len(sender) > 0 {
			m.Sender = &sender[0]
		}
		m.To, m.Cc, m.Bcc = recipients(env.To), recipients(env.Cc), recipients(env.Bcc)
		if h, err := message.HeaderBytes(r, ix); err == nil {
			// The envelope fills Reply-To from From where there is none.
			if _, ok := message.FieldValue(h, "Reply-To"); ok {
				m.ReplyTo = recipients(env.ReplyTo)
			}
		}
	}
	w := walker{r: r, m: &m, text: sh != everything}
	if sh == bare {
		m.From, m.Sender, m.To, m.Cc, m.Bcc, m.ReplyTo = nil, nil, nil, nil, nil, nil
		m.Subject = shortenText(m.Subject)
		if len(m.InternetMessageID) > 900 {
			m.InternetMessageID = ""
		}
	}
	if sh == bare || sealed(ix.Root) {
		w.attachWhole(ix)
	}
	if err := w.walk(ix.Root, false); err != nil {
		return m, nil, err
	}
	if len(w.rest) > maxFiles {
		// Exchange takes no message of so many files, and adding them would use up the mailbox's requests. The whole
		// message is one file.
		w.rest = nil
		w.attachWhole(ix)
	}
	return m, w.rest, nil
}

// shortenText cuts a subject that is longer than any is shown.
func shortenText(s string) string {
	if len(s) > 1000 {
		s = strings.ToValidUTF8(s[:1000], "")
	}
	return s
}

// recipients leaves out what is no address: one of those makes the whole call fail.
func recipients(list []message.Address) []graph.Recipient {
	var out []graph.Recipient
	for _, a := range list {
		addr := a.Addr()
		if at := strings.LastIndexByte(addr, '@'); at < 1 || at == len(addr)-1 || strings.ContainsAny(addr, " \t\r\n") {
			continue
		}
		out = append(out, graph.Recipient{Name: message.DecodeWords(a.Name), Address: addr})
	}
	return out
}

// sealed reports signed and encrypted structures.
func sealed(p *message.Part) bool {
	switch {
	case p.IsType("multipart", "signed"), p.IsType("multipart", "encrypted"),
		p.IsType("application", "pkcs7-mime"), p.IsType("application", "x-pkcs7-mime"):
		return true
	}
	for _, c := range p.Children {
		if sealed(c) {
			return true
		}
	}
	return false
}

// walker collects a message's text and attachments.
type walker struct {
	r    io.ReaderAt
	m    *graph.NewMessage
	text bool // the body is set, or is to be none
	rest []upload
}

func (w *walker) attachWhole(ix *message.Index) {
	w.rest = append(w.rest, upload{
		meta: graph.NewAttachment{Name: "original.eml", ContentType: "message/rfc822", Size: ix.Size},
		open: func(offset int64) (io.ReadCloser, error) {
			return io.NopCloser(io.NewSectionReader(w.r, offset, ix.Size-offset)), nil
		},
	})
}

// walk visits p. related says that p is below multipart/related, where parts with a Content-ID are shown in the text.
func (w *walker) walk(p *message.Part, related bool) error {
	switch {
	case p.IsType("multipart", "alternative"):
		return w.alternative(p, related)
	case p.Multipart():
		for _, c := range p.Children {
			if err := w.walk(c, related || p.IsType("multipart", "related")); err != nil {
				return err
			}
		}
		return nil
	case !w.text && isText(p) && p.Body.Len <= maxText:
		return w.setText(p)
	}
	return w.attach(p, related)
}

// alternative takes the richest text that Graph can hold; Exchange makes the other one itself. Parts that are no text,
// such as an invitation, are kept as attachments.
func (w *walker) alternative(p *message.Part, related bool) error {
	best := -1
	if !w.text {
		for i, c := range p.Children {
			if t := firstText(c); t != nil && t.Body.Len <= maxText && (best < 0 || t.IsType("text", "html")) {
				best = i
			}
		}
	}
	for i, c := range p.Children {
		if i != best && best >= 0 && (isText(c) || onlyText(c)) {
			continue
		}
		if err := w.walk(c, related); err != nil {
			return err
		}
	}
	return nil
}

// firstText returns the text with which p begins to be shown.
func firstText(p *message.Part) *message.Part {
	if isText(p) {
		return p
	}
	if p.Multipart() && len(p.Children) > 0 {
		return firstText(p.Children[0])
	}
	return nil
}

func onlyText(p *message.Part) bool {
	if !p.Multipart() {
		return isText(p)
	}
	for _, c := range p.Children {
		if !onlyText(c) {
			return false
		}
	}
	return true
}

func isText(p *message.Part) bool {
	return (p.IsType("text", "plain") || p.IsType("text", "html")) && !strings.EqualFold(p.Disposition, "attachment")
}

func (w *walker) setText(p *message.Part) error {
	r, err := message.Text(w.r, p)
	if err != nil {
		return w.attach(p, false)
	}
	b, err := io.ReadAll(io.LimitReader(r, maxText+1))
	if err != nil {
		return err
	}
	if len(b) > maxText {
		return w.attach(p, false)
	}
	w.text = true
	w.m.Body = strings.ToValidUTF8(string(b), "\ufffd")
	w.m.BodyHTML = p.IsType("text", "html")
	return nil
}

func (w *walker) attach(p *message.Part, related bool) error {
	open := func() (io.Reader, error) { return message.Decoded(w.r, p) }
	r, err := open()
	if err != nil {
		// An unknown transfer encoding: the bytes as they are.
		open = func() (io.Reader, error) { return io.NewSectionReader(w.r, p.Body.Off, p.Body.Len), nil }
		if r, err = open(); err != nil {
			return err
		}
	}
	size, err := io.Copy(io.Discard, r)
	if err != nil {
		return err
	}
	cid := strings.Trim(p.ID, "<> ")
	w.rest = append(w.rest, upload{
		meta: graph.NewAttachment{
			Name:        attachmentName(p),
			ContentType: strings.ToLower(p.Type + "/" + p.Subtype),
			ContentID:   cid,
			IsInline:    cid != "" && (related || strings.EqualFold(p.Disposition, "inline")),
			Size:        size,
		},
		open: openAt(open),
	})
	return nil
}

// attachmentName is never empty: Graph insists on one.
func attachmentName(p *message.Part) string {
	for _, name := range []string{p.DispositionParam("filename"), p.Param("name"), p.Description} {
		if name = strings.TrimSpace(message.DecodeWords(name)); name != "" && !strings.HasPrefix(name, "=?") {
			if len(name) > 200 {
				name = strings.ToValidUTF8(name[:200], "")
			}
			return strings.ToValidUTF8(name, "_")
		}
	}
	switch {
	case p.IsType("message", "rfc822"):
		return "message.eml"
	case p.IsType("text", "plain"):
		return "text.txt"
	case p.IsType("text", "html"):
		return "text.html"
	case p.IsType("text", "calendar"):
		return "invite.ics"
	}
	return "attachment." + strings.ToLower(strings.TrimPrefix(p.Subtype, "x-"))
}
