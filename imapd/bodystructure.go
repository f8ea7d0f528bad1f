package imapd

import (
	"strings"

	"postern/backend/message"
	"postern/imapd/wire"
)

// writeBodyStructure writes the structure of a part: BODYSTRUCTURE if extended, else BODY. RFC 9051 section
// 7.5.2.
func writeBodyStructure(e *wire.Encoder, p *message.Part, extended bool) {
	e.Byte('(')
	if p.Multipart() {
		for _, c := range p.Children {
			writeBodyStructure(e, c, extended)
		}
		e.SP().String(p.Subtype)
		if extended {
			e.SP()
			writeParams(e, p.Params)
			writeExtension(e, p)
		}
		e.Byte(')')
		return
	}

	// Without IMAP4rev2 message/global has no envelope in the grammar, with it it must have one, and clients
	// of either kind stumble over the other form. Shown as what it extends it is read by all.
	embedded := p.IsType("message", "rfc822") || p.IsType("message", "global")
	if embedded && !e.UTF8() {
		e.Raw(`"message" "rfc822" `)
	} else {
		e.String(p.Type).SP().String(p.Subtype).SP()
	}
	params := p.Params
	if p.IsType("text", "") && p.Param("charset") == "" && p.Param("charset*") == "" {
		// The default of RFC 2045 section 5.2, said aloud as Dovecot does: some clients assume another.
		params = append(params[:len(params):len(params)], message.Param{Name: "charset", Value: "us-ascii"})
	}
	writeParams(e, params)
	e.SP().NString(p.ID, p.ID != "")
	e.SP().NString(p.Description, p.Description != "")
	encoding := p.Encoding
	if encoding == "" {
		encoding = "7bit"
	}
	e.SP().String(encoding).SP().Num(uint64(p.Body.Len))
	switch {
	case embedded:
		e.SP()
		writeEmbedded(e, p.Message, extended)
		e.SP().Num(uint64(p.Lines))
	case p.IsType("text", ""):
		e.SP().Num(uint64(p.Lines))
	}
	if extended {
		e.SP().NString(p.MD5, p.MD5 != "")
		writeExtension(e, p)
	}
	e.Byte(')')
}

// writeEmbedded writes envelope and structure of an embedded message. One that a transfer encoding hides is
// shown empty, for the grammar has no other way.
func writeEmbedded(e *wire.Encoder, m *message.Part, extended bool) {
	if m == nil {
		m = &message.Part{Type: "text", Subtype: "plain"}
	}
	writeEnvelope(e, m.Envelope)
	e.SP()
	writeBodyStructure(e, m, extended)
}

// writeExtension writes disposition, language and location.
func writeExtension(e *wire.Encoder, p *message.Part) {
	e.SP()
	if p.Disposition == "" {
		e.NIL()
	} else {
		e.Byte('(').String(p.Disposition).SP()
		writeParams(e, p.DispositionParams)
		e.Byte(')')
	}
	e.SP()
	if len(p.Language) == 0 {
		e.NIL()
	} else {
		e.Byte('(')
		for i, l := range p.Language {
			if i > 0 {
				e.SP()
			}
			e.String(l)
		}
		e.Byte(')')
	}
	e.SP().NString(p.Location, strings.TrimSpace(p.Location) != "")
}

func writeParams(e *wire.Encoder, params []message.Param) {
	if len(params) == 0 {
		e.NIL()
		return
	}
	e.Byte('(')
	for i, p := range params {
		if i > 0 {
			e.SP()
		}
		e.String(p.Name).SP().String(p.Value)
	}
	e.Byte(')')
}
