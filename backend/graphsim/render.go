package graphsim

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"mime"
	"mime/quotedprintable"
	"strings"
	"time"
)

// rendering writes a message as MIME the way Exchange does: not the bytes that came in, but new ones with the same content.
type rendering struct {
	buf        bytes.Buffer
	m          *message
	c          *content
	salt       int  // differs between readings with Options.MutableMIME
	forOthers  bool // the copy for receivers: without Bcc
	boundaries int
}

// renderMIME is $value. Graph: outlook-get-mime-message.
func (s *Sim) renderMIME(m *message) []byte {
	r := rendering{m: m, c: m.content()}
	if s.opts.MutableMIME {
		s.renderings++
		r.salt = s.renderings
	}
	return r.run()
}

// renderForDelivery is the copy that receivers get.
func renderForDelivery(m *message) []byte {
	r := rendering{m: m, c: m.content(), forOthers: true}
	return r.run()
}

func (r *rendering) run() []byte {
	r.header()
	r.body()
	return r.buf.Bytes()
}

// structural fields belong to the encoding of the body and are made anew.
var structural = map[string]bool{
	"content-type": true, "content-transfer-encoding": true, "mime-version": true, "content-disposition": true,
	"content-id": true, "content-description": true, "content-language": true,
	"x-ms-has-attach": true, "x-ms-exchange-organization-recordreviewcfmtype": true, "thread-topic": true, "thread-index": true,
}

var propertyFields = []string{
	"From", "Sender", "To", "CC", "Bcc", "Reply-To", "Subject", "Date", "Message-ID", "References", "In-Reply-To",
	"Importance", "Disposition-Notification-To", "Return-Receipt-To",
}

func (r *rendering) header() {
	done := map[string]bool{}
	emit := func(name string) {
		key := asciiLower(name)
		if done[key] {
			return
		}
		done[key] = true
		if v := r.property(key); v != "" {
			r.field(name, v)
		}
	}
	ours := map[string]bool{}
	for _, name := range propertyFields {
		ours[asciiLower(name)] = true
	}
	if fieldValue(r.c.headers, "From") == "" {
		for _, name := range propertyFields {
			emit(name)
		}
	}
	for _, f := range r.c.headers {
		key := asciiLower(f.name)
		switch {
		case structural[key]:
		case ours[key]:
			for _, name := range propertyFields {
				if asciiLower(name) == key {
					emit(name)
				}
			}
		default:
			r.field(f.name, f.value)
		}
	}
	for _, name := range propertyFields {
		emit(name)
	}
	if r.c.subject != "" {
		r.field("Thread-Topic", encodeWords(threadTopic(r.c.subject)))
	}
	r.field("Thread-Index", r.threadIndex())
	r.field("Content-Language", "en-US")
	if r.c.hasAttachments() {
		r.field("X-MS-Has-Attach", "yes")
	} else {
		r.field("X-MS-Has-Attach", "")
	}
	r.field("X-MS-Exchange-Organization-RecordReviewCfmType", "0")
	if r.salt > 0 {
		r.field("X-MS-Exchange-Transport-EndToEndLatency", fmt.Sprintf("00:00:%02d.%07d", r.salt%60, r.salt))
	}
	r.field("MIME-Version", "1.0")
}

// property renders the header field of a property, "" when it is not set.
func (r *rendering) property(key string) string {
	c := r.c
	switch key {
	case "from":
		if c.from != nil {
			return formatAddresses([]address{*c.from})
		}
	case "sender":
		if c.sender != nil && c.from != nil && !strings.EqualFold(c.sender.addr, c.from.addr) {
			return formatAddresses([]address{*c.sender})
		}
	case "to":
		return formatAddresses(c.to)
	case "cc":
		return formatAddresses(c.cc)
	case "bcc":
		if !r.forOthers {
			return formatAddresses(c.bcc)
		}
	case "reply-to":
		return formatAddresses(c.replyTo)
	case "subject":
		return encodeWords(c.subject)
	case "date":
		if r.m.sent != 0 {
			return time.Unix(r.m.sent, 0).UTC().Format("Mon, 2 Jan 2006 15:04:05 -0700")
		}
	case "message-id":
		return c.messageID
	case "references":
		return c.references
	case "in-reply-to":
		return c.inReplyTo
	case "importance":
		switch r.m.importance {
		case 0:
			return "low"
		case 2:
			return "high"
		}
	case "disposition-notification-to":
		if r.m.is(bitReadReceipt) && c.from != nil {
			return formatAddresses([]address{*c.from})
		}
	case "return-receipt-to":
		if r.m.is(bitDelivReceipt) && c.from != nil {
			return formatAddresses([]address{*c.from})
		}
	}
	return ""
}

// field writes a header field, folded at blanks where it is long; blanks themselves are kept. RFC 5322 section 2.2.3.
func (r *rendering) field(name, value string) {
	r.buf.WriteString(name)
	r.buf.WriteByte(':')
	line := len(name) + 1
	blanks := 1 // the one after the colon
	flush := func(word string) {
		if line+blanks+len(word) > 76 && line > len(name)+1 {
			r.buf.WriteString("\r\n")
			line = 0
		}
		for range blanks {
			r.buf.WriteByte(' ')
		}
		r.buf.WriteString(word)
		line += blanks + len(word)
	}
	value = strings.Trim(lineBreaks.Replace(value), " \t")
	for value != "" {
		word, rest, _ := strings.Cut(value, " ")
		flush(word)
		value = strings.TrimLeft(rest, " ")
		blanks = 1 + len(rest) - len(value)
	}
	r.buf.WriteString("\r\n")
}

var lineBreaks = strings.NewReplacer("\r\n", "", "\r", " ", "\n", " ", "\t", " ")

func encodeWords(s string) string {
	s = strings.Map(func(c rune) rune {
		if c == '\r' || c == '\n' {
			return ' '
		}
		return c
	}, s)
	return mime.QEncoding.Encode("utf-8", s)
}

var quoteEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

func formatAddresses(list []address) string {
	var b strings.Builder
	for i, a := range list {
		if i > 0 {
			b.WriteString(", ")
		}
		if a.name != "" && a.name != a.addr {
			if enc := encodeWords(a.name); enc != a.name {
				b.WriteString(enc)
			} else {
				b.WriteString(`"` + quoteEscapes.Replace(a.name) + `"`)
			}
			b.WriteByte(' ')
		}
		b.WriteString("<" + a.addr + ">")
	}
	return b.String()
}

func threadTopic(subject string) string {
	for {
		rest, found := strings.CutPrefix(subject, "RE: ")
		if !found {
			if rest, found = strings.CutPrefix(subject, "Re: "); !found {
				if rest, found = strings.CutPrefix(subject, "FW: "); !found {
					return subject
				}
			}
		}
		subject = rest
	}
}

// threadIndex is a conversation index block: time and a GUID of the thread. MS-OXOMSG section 2.2.1.3.
func (r *rendering) threadIndex() string {
	if r.c.convIndex != "" {
		return r.c.convIndex
	}
	return conversationIndex(r.c.conversation(), r.m.created)
}

func conversationIndex(thread string, unix int64) string {
	var b [22]byte
	b[0] = 1
	binary.BigEndian.PutUint32(b[1:], uint32(unix))
	copy(b[6:], hash16(thread))
	return base64.StdEncoding.EncodeToString(b[:])
}

func hash16(s string) []byte {
	h := fnv.New128a()
	h.Write([]byte(s))
	return h.Sum(nil)
}

func (r *rendering) boundary() string {
	b := r.boundaries
	r.boundaries++
	return fmt.Sprintf("_%03d_%s_", b, strings.ToUpper(hex.EncodeToString(hash16(fmt.Sprint(r.m.num, r.salt, b)))))
}

func (r *rendering) body() {
	if r.c.root != nil {
		r.part(r.c.root)
		return
	}
	var inline, rest []*attachment
	for _, a := range r.c.attachments {
		if a.inline {
			inline = append(inline, a)
		} else {
			rest = append(rest, a)
		}
	}
	r.multipart("mixed", rest, func() {
		r.multipart("related", inline, func() {
			if !r.c.html {
				r.text("text/plain", r.c.text)
				return
			}
			b := r.boundary()
			r.field("Content-Type", `multipart/alternative; boundary="`+b+`"`)
			r.open(b)
			r.text("text/plain", r.c.plainText())
			r.open(b)
			r.text("text/html", r.c.text)
			r.close(b)
		})
	})
}

// multipart wraps what first writes together with attachments, and leaves the wrapper out when there are none.
func (r *rendering) multipart(kind string, list []*attachment, first func()) {
	if len(list) == 0 {
		first()
		return
	}
	b := r.boundary()
	r.field("Content-Type", "multipart/"+kind+`; boundary="`+b+`"`)
	r.open(b)
	first()
	for _, a := range list {
		r.open(b)
		r.attachment(a)
	}
	r.close(b)
}

func (r *rendering) open(b string)  { r.buf.WriteString("\r\n--" + b + "\r\n") }
func (r *rendering) close(b string) { r.buf.WriteString("\r\n--" + b + "--\r\n") }

func (r *rendering) text(media, s string) {
	r.field("Content-Type", media+`; charset="utf-8"`)
	r.encode(media, []byte(s))
}

func (r *rendering) attachment(a *attachment) {
	contentType := a.contentType
	if contentType == "" {
		contentType = "application/octet-stream"
	}
	if a.item {
		r.field("Content-Type", "message/rfc822")
	} else {
		r.field("Content-Type", contentType+`; name="`+paramValue(a.name)+`"`)
	}
	r.field("Content-Description", encodeWords(a.name))
	kind := "attachment"
	if a.inline {
		kind = "inline"
	}
	data := a.bytes()
	r.field("Content-Disposition", fmt.Sprintf(`%s; filename="%s"; size=%d`, kind, paramValue(a.name), len(data)))
	if a.contentID != "" {
		r.field("Content-ID", "<"+a.contentID+">")
	}
	if a.location != "" {
		r.field("Content-Location", a.location)
	}
	if a.item {
		r.buf.WriteString("\r\n")
		r.buf.Write(data)
		return
	}
	r.encode(contentType, data)
}

func paramValue(s string) string {
	return quoteEscapes.Replace(encodeWords(s))
}

// part writes a node of the tree: new boundaries and encodings, the same content.
func (r *rendering) part(p *part) {
	if p.opaque() {
		r.kept(p, "content-type", "content-transfer-encoding", "content-disposition", "content-description", "content-id")
		r.buf.WriteString("\r\n")
		r.buf.Write(p.body)
		return
	}
	if len(p.children) > 0 {
		b := r.boundary()
		params := map[string]string{}
		for k, v := range p.params {
			params[k] = v
		}
		params["boundary"] = b
		v := mime.FormatMediaType(p.media, params)
		if v == "" {
			v = p.media + `; boundary="` + b + `"`
		}
		r.field("Content-Type", v)
		for _, child := range p.children {
			r.open(b)
			if child.opaque() {
				r.buf.Write(child.raw)
				continue
			}
			r.part(child)
		}
		r.close(b)
		return
	}
	if p.get("Content-Type") == "" {
		r.field("Content-Type", `text/plain; charset="us-ascii"`)
	} else {
		r.kept(p, "content-type")
	}
	r.kept(p, "content-disposition", "content-description", "content-id", "content-location")
	if p.media == "message/rfc822" || p.media == "message/delivery-status" || p.media == "text/rfc822-headers" {
		r.kept(p, "content-transfer-encoding")
		r.buf.WriteString("\r\n")
		r.buf.Write(p.body)
		return
	}
	r.encode(p.media, p.decoded())
}

// kept writes fields of a part as they came.
func (r *rendering) kept(p *part, names ...string) {
	for _, name := range names {
		for _, f := range p.fields {
			if strings.EqualFold(f.name, name) {
				r.field(f.name, f.value)
				break
			}
		}
	}
}

// encode writes the transfer encoding, the empty line and the body.
func (r *rendering) encode(media string, data []byte) {
	if strings.HasPrefix(media, "text/") {
		r.field("Content-Transfer-Encoding", "quoted-printable")
		r.buf.WriteString("\r\n")
		w := quotedprintable.NewWriter(&r.buf)
		_, _ = w.Write(data) // a bytes.Buffer takes everything
		_ = w.Close()
		return
	}
	r.field("Content-Transfer-Encoding", "base64")
	r.buf.WriteString("\r\n")
	enc := make([]byte, base64.StdEncoding.EncodedLen(len(data)))
	base64.StdEncoding.Encode(enc, data)
	for len(enc) > 76 {
		r.buf.Write(enc[:76])
		r.buf.WriteString("\r\n")
		enc = enc[76:]
	}
	r.buf.Write(enc)
	r.buf.WriteString("\r\n")
}
