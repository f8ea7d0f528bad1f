package imapd

import (
	"postern/backend/message"
	"postern/imapd/wire"
)

// writeEnvelope writes an ENVELOPE. Strings go out as the message has them, encoded words and all. RFC 9051
// section 7.5.2.
func writeEnvelope(e *wire.Encoder, env *message.Envelope) {
	if env == nil {
		env = &message.Envelope{}
	}
	e.Byte('(')
	e.NString(env.Date, env.Date != "").SP()
	e.NString(env.Subject, env.Subject != "").SP()
	for _, list := range [...][]message.Address{env.From, env.Sender, env.ReplyTo, env.To, env.Cc, env.Bcc} {
		writeAddresses(e, list)
		e.SP()
	}
	e.NString(env.InReplyTo, env.InReplyTo != "").SP()
	e.NString(env.MessageID, env.MessageID != "").Byte(')')
}

// writeAddresses writes an address list. The second of the four strings is the obsolete source route.
func writeAddresses(e *wire.Encoder, list []message.Address) {
	if len(list) == 0 {
		e.NIL()
		return
	}
	e.Byte('(')
	for _, a := range list {
		e.Byte('(')
		e.NString(a.Name, a.Name != "").SP()
		e.NString(a.Route, a.Route != "").SP()
		e.NString(a.Mailbox, a.Mailbox != "").SP()
		e.NString(a.Host, a.Host != "").Byte(')')
	}
	e.Byte(')')
}
