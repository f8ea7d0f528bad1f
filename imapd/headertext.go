package imapd

import (
	"strings"

	"postern/backend"
	"postern/backend/message"
	"postern/imapd/wire"
)

// What lists of messages and searches need of a header is made of it once, in the form in which it is needed, and then kept
// by the backend. The names say all that the texts depend on.

// envelopeText is ENVELOPE as it goes over the wire.
func envelopeText(utf8 bool) backend.HeaderText {
	name := "ENVELOPE"
	if utf8 {
		name += " UTF8"
	}
	return backend.HeaderText{Name: name, Make: func(dst, header []byte) []byte {
		e := wire.NewEncoder(nil)
		e.SetUTF8(utf8)
		writeEnvelope(e, message.ParseEnvelope(header))
		return append(dst, e.Bytes()...)
	}}
}

// fieldsText is the bytes of BODY[HEADER.FIELDS (...)], whole.
func fieldsText(fields []string) backend.HeaderText {
	return backend.HeaderText{Name: "FIELDS " + strings.Join(fields, "\n"), Make: func(dst, header []byte) []byte {
		return message.AppendFiltered(dst, header, fields, false)
	}}
}

// fieldSearchText is what SEARCH HEADER looks through.
func fieldSearchText(field string) backend.HeaderText {
	field = upperASCII(field)
	return backend.HeaderText{Name: "SEARCH " + field, Make: func(dst, header []byte) []byte { return appendSearchText(dst, header, field) }}
}

// wholeHeader is the header itself, which is not kept.
var wholeHeader = backend.HeaderText{Make: func(dst, header []byte) []byte { return append(dst, header...) }}

// searchMark stands before each text that SEARCH looks through. It is in no UTF-8 text, so that nothing is found across two
// of them.
const searchMark = 0xff

// appendSearchText appends the values of all fields with the name, which is in upper case, decoded and folded, and those of
// addresses once more without the comments, quotes and blanks that may stand in them.
func appendSearchText(dst, header []byte, field string) []byte {
	addresses := addressFields[field]
	for value := range message.FieldValues(header, field) {
		dst = foldSearch(append(dst, searchMark), message.DecodeWords(value))
		if !addresses || !strings.ContainsAny(value, "(\"\\") {
			continue // the addresses are there as they are
		}
		for _, a := range message.ParseAddressList(value) {
			dst = foldSearch(append(dst, searchMark), a.Mailbox+"@"+a.Host)
		}
	}
	return dst
}

// addressFields are those that hold addresses, as the keys of SEARCH name them.
var addressFields = map[string]bool{"FROM": true, "TO": true, "CC": true, "BCC": true}

// upperASCII is a field's name in upper case: no other letters than those of ASCII are alike to a header.
func upperASCII(name string) string {
	b := []byte(name)
	for i, c := range b {
		if 'a' <= c && c <= 'z' {
			b[i] = c - ('a' - 'A')
		}
	}
	return string(b)
}
