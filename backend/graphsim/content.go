package graphsim

import (
	"net/mail"
	"regexp"
	"strings"
	"time"
)

// attachment is one attachment; its bytes stay in the MIME tree when they came from there.
type attachment struct {
	num         uint32
	name        string
	contentType string
	contentID   string
	location    string
	inline      bool
	modified    int64
	data        []byte // nil when from is set
	from        *part
	item        bool   // itemAttachment: data is a message
	reference   string // sourceUrl of a referenceAttachment
}

// bytes returns the decoded content.
func (a *attachment) bytes() []byte {
	if a.from == nil {
		return a.data
	}
	if a.item {
		return a.from.body
	}
	return a.from.decoded()
}

// contentFromMIME reads properties from a message. The tree keeps slices of raw, which must not change afterwards.
func contentFromMIME(raw []byte, now int64) (c *content, sent int64, hints mimeHints) {
	root := parsePart(raw, 0)
	c = &content{root: root}
	for _, f := range root.fields {
		switch asciiLower(f.name) {
		case "subject":
			if c.subject == "" {
				c.subject = decodeWords(f.value)
			}
		case "from":
			if c.from == nil {
				c.from = firstAddress(f.value)
			}
		case "sender":
			c.sender = firstAddress(f.value)
		case "to":
			c.to = append(c.to, parseAddresses(f.value)...)
		case "cc":
			c.cc = append(c.cc, parseAddresses(f.value)...)
		case "bcc":
			c.bcc = append(c.bcc, parseAddresses(f.value)...)
		case "reply-to":
			c.replyTo = append(c.replyTo, parseAddresses(f.value)...)
		case "message-id":
			if c.messageID == "" {
				c.messageID = strings.TrimSpace(f.value)
			}
		case "in-reply-to":
			c.inReplyTo = strings.TrimSpace(f.value)
		case "references":
			c.references = strings.TrimSpace(f.value)
		case "date":
			if t, err := mail.ParseDate(f.value); err == nil {
				sent = t.Unix()
			}
		case "thread-index":
			c.convIndex = strings.TrimSpace(f.value)
		case "importance":
			hints.importance(f.value)
		case "x-priority":
			switch strings.TrimSpace(f.value) {
			case "1", "2":
				hints.importance("high")
			case "4", "5":
				hints.importance("low")
			}
		case "disposition-notification-to":
			hints.readReceipt = true
		case "return-receipt-to":
			hints.deliveryReceipt = true
		}
		c.headers = append(c.headers, f)
	}
	if c.sender == nil {
		c.sender = c.from
	}
	c.collect(root, now, false)
	return c, sent, hints
}

// mimeHints are properties that are kept with the message and not with its content.
type mimeHints struct {
	level           *uint8
	readReceipt     bool
	deliveryReceipt bool
}

func (h *mimeHints) importance(v string) {
	var n uint8 = 1
	switch strings.ToLower(strings.TrimSpace(v)) {
	case "low":
		n = 0
	case "high":
		n = 2
	}
	h.level = &n
}

func firstAddress(v string) *address {
	list := parseAddresses(v)
	if len(list) == 0 {
		return nil
	}
	return &list[0]
}

// collect finds the body and the attachments.
func (c *content) collect(p *part, now int64, related bool) {
	if p.opaque() && p.media != "multipart/signed" {
		name := "smime.p7m"
		if len(p.children) > 0 {
			name = "encrypted.eml"
		}
		c.attach(&attachment{name: name, contentType: p.media, from: p, modified: now})
		return
	}
	if len(p.children) > 0 {
		for _, child := range p.children {
			c.collect(child, now, related || p.media == "multipart/related")
		}
		return
	}
	raw := p.get("Content-Disposition")
	_, dparams := parseMedia(raw)
	disposition, _, _ := strings.Cut(raw, ";")
	disposition = strings.ToLower(strings.TrimSpace(disposition))
	name := dparams["filename"]
	if name == "" {
		name = p.params["name"]
	}
	name = decodeWords(name)
	if disposition != "attachment" && name == "" {
		switch {
		case p.media == "text/plain" && c.text == "" && !c.html:
			c.text = p.textOf()
			return
		case p.media == "text/plain" && c.html && c.plain == "":
			c.plain = p.textOf()
			return
		case p.media == "text/plain" && !c.html: // such as a mailing list's footer
			c.text += "\r\n" + p.textOf()
			return
		case p.media == "text/html" && !c.html:
			c.plain, c.text, c.html = c.text, p.textOf(), true
			return
		}
	}
	a := &attachment{
		name: name, contentType: p.media, from: p, modified: now,
		contentID: strings.Trim(strings.TrimSpace(p.get("Content-ID")), "<>"),
		location:  p.get("Content-Location"),
	}
	a.inline = disposition == "inline" && a.contentID != "" || related && a.contentID != "" && disposition != "attachment"
	if p.media == "message/rfc822" {
		a.item = true
		if a.name == "" {
			inner, _ := splitHeader(p.body)
			a.name = decodeWords(fieldValue(inner, "Subject"))
		}
	}
	if a.name == "" {
		a.name = "Untitled attachment"
	}
	c.attach(a)
}

func (c *content) attach(a *attachment) {
	c.nextAtt++
	a.num = c.nextAtt
	c.attachments = append(c.attachments, a)
}

// hasAttachments leaves inline ones out, as the service does.
func (c *content) hasAttachments() bool {
	for _, a := range c.attachments {
		if !a.inline {
			return true
		}
	}
	return false
}

// storeSize is 0x0E08: what the store says the message takes, which is not the length of its MIME.
func (c *content) storeSize() int {
	if c.size != 0 {
		return c.size
	}
	n := 3072 + 2*len(c.subject) + len(c.text) + len(c.plain) + len(c.transport)
	for _, f := range c.headers {
		n += len(f.name) + len(f.value)
	}
	for _, a := range c.attachments {
		n += 512
		switch {
		case a.from == nil:
			n += len(a.data)
		case strings.EqualFold(strings.TrimSpace(a.from.get("Content-Transfer-Encoding")), "base64"):
			n += len(a.from.body) * 3 / 4
		default:
			n += len(a.from.body)
		}
	}
	c.size = n
	return n
}

var (
	tagPattern   = regexp.MustCompile(`(?s)<(script|style|head)\b.*?</(script|style|head)>|<!--.*?-->|<[^>]*>`)
	breakPattern = regexp.MustCompile(`(?i)<br\s*/?>|</p>|</div>|</tr>|</li>|</h\d>`)
	entities     = strings.NewReplacer("&nbsp;", " ", "&lt;", "<", "&gt;", ">", "&quot;", `"`, "&#39;", "'", "&amp;", "&")
)

// plainText is the body as text, for previews and for the alternative that Exchange makes of HTML.
func (c *content) plainText() string {
	if !c.html {
		return c.text
	}
	if c.plain != "" {
		return c.plain
	}
	return htmlToText(c.text)
}

func htmlToText(s string) string {
	s = breakPattern.ReplaceAllString(s, "\r\n")
	return strings.TrimSpace(entities.Replace(tagPattern.ReplaceAllString(s, "")))
}

var htmlEscapes = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "\r\n", "<br>\r\n", "\n", "<br>\r\n")

func textToHTML(s string) string {
	s = htmlEscapes.Replace(s)
	return "<html><head>\r\n<meta http-equiv=\"Content-Type\" content=\"text/html; charset=utf-8\"></head><body>" + s + "</body></html>"
}

// preview is the first 255 characters of text, white space folded.
func (c *content) preview() string {
	s := c.text
	if c.html {
		if c.plain != "" {
			s = c.plain
		} else {
			s = htmlToText(s)
		}
	}
	var out strings.Builder
	n, blank := 0, false
	for _, r := range s {
		if r == ' ' || r == '\n' || r == '\r' || r == '\t' {
			blank = n > 0
			continue
		}
		if blank {
			if n++; n >= 255 {
				break
			}
			out.WriteByte(' ')
			blank = false
		}
		out.WriteRune(r)
		if n++; n >= 255 {
			break
		}
	}
	return out.String()
}

// conversation names the thread: the first message of References, else the one replied to, else this one.
func (c *content) conversation() string {
	if f := strings.Fields(c.references); len(f) > 0 {
		return f[0]
	}
	if f := strings.Fields(c.inReplyTo); len(f) > 0 {
		return f[0]
	}
	return c.messageID
}

// recipients are all who get the message when it is sent. There is no other envelope.
func (c *content) recipients() []address {
	out := make([]address, 0, len(c.to)+len(c.cc)+len(c.bcc))
	out = append(out, c.to...)
	out = append(out, c.cc...)
	return append(out, c.bcc...)
}

func unixOr(t int64, fallback time.Time) int64 {
	if t != 0 {
		return t
	}
	return fallback.Unix()
}
