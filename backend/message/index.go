package message

import "strings"

// Limits of an Index. Beyond them the rest of the message is one opaque part.
const (
	maxDepth = 100    // nesting of parts and embedded messages
	maxParts = 10_000 // parts of all kinds in one message
)

// Index is the structure of one message. It holds no content besides the header fields that IMAP
// shows in ENVELOPE and BODYSTRUCTURE, and may be shared by any number of readers.
type Index struct {
	Size int64 // bytes of the whole message
	Root *Part // never nil
}

// Span is a range of bytes counted from the start of the message.
type Span struct{ Off, Len int64 }

// End is the offset behind the last byte.
func (s Span) End() int64 { return s.Off + s.Len }

// Part is one MIME entity: the message itself, a part of a multipart, or an embedded message.
type Part struct {
	Header Span  // the header block with the blank line that ends it; may be empty
	Body   Span  // raw bytes, without the line end that belongs to the next boundary
	Lines  int64 // number of LF in Body

	// Type and Subtype are as written; text/plain when the field is absent or malformed,
	// message/rfc822 when it is absent in a multipart/digest.
	Type, Subtype string
	Params        []Param // in the order written, RFC 2231 continuations joined

	ID, Description, Encoding, MD5, Location string
	Language                                 []string
	Disposition                              string
	DispositionParams                        []Param

	Children []*Part // of a multipart; never empty there
	// Message is the embedded message of a message/rfc822 or message/global, whose Body it fills.
	// It is nil where a transfer encoding hides it.
	Message  *Part
	Envelope *Envelope // of the root and of each Message, nil elsewhere
}

// Param is one parameter of Content-Type or Content-Disposition.
type Param struct{ Name, Value string }

// Multipart reports whether p has children instead of content.
func (p *Part) Multipart() bool { return len(p.Children) > 0 }

// IsType reports whether p has the given media type; an empty subtype matches all.
func (p *Part) IsType(typ, subtype string) bool {
	return strings.EqualFold(p.Type, typ) && (subtype == "" || strings.EqualFold(p.Subtype, subtype))
}

// Param returns the value of a Content-Type parameter, "" if there is none.
func (p *Part) Param(name string) string { return paramValue(p.Params, name) }

// DispositionParam returns the value of a Content-Disposition parameter, "" if there is none.
func (p *Part) DispositionParam(name string) string { return paramValue(p.DispositionParams, name) }

func paramValue(params []Param, name string) string {
	for _, q := range params {
		if strings.EqualFold(q.Name, name) {
			return q.Value
		}
	}
	return ""
}

// Envelope holds the fields of IMAP's ENVELOPE (RFC 9051 section 7.5.2): unfolded, encoded words
// kept. Sender and ReplyTo are those of From where the message has none.
type Envelope struct {
	Date, Subject                      string
	From, Sender, ReplyTo, To, Cc, Bcc []Address
	InReplyTo, MessageID               string
}

// Address is one entry of an address field, undecoded. A group starts with an entry that has only
// Mailbox, the group's name, and ends with an empty one. Route is the obsolete source route (RFC 5322
// section 4.4), "@a.example,@b.example", which only ENVELOPE shows.
type Address struct{ Name, Mailbox, Host, Route string }
