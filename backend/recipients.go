package backend

import (
	"slices"
	"strings"

	"golang.org/x/net/idna"

	"postern/backend/message"
)

// maxPartRecipients is how many recipients Exchange Online takes in one message
// unless an administrator has changed it. A message with more goes in parts.
const maxPartRecipients = 500

// addressKey is the form in which two addresses are compared: without regard to case
// in either part, to quotes, and to how an international domain is written.
func addressKey(addr string) string {
	addr = strings.TrimSpace(addr)
	at := strings.LastIndexByte(addr, '@')
	if at < 0 {
		return strings.ToLower(addr)
	}
	local, domain := addr[:at], strings.TrimSuffix(addr[at+1:], ".")
	if len(local) >= 2 && local[0] == '"' && local[len(local)-1] == '"' {
		local = unquote(local[1 : len(local)-1])
	}
	if ascii, err := idna.Lookup.ToASCII(domain); err == nil {
		domain = ascii
	}
	return strings.ToLower(local + "@" + domain)
}

func unquote(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// headerAddress writes an envelope address so that it can stand in a header field.
func headerAddress(addr string) string {
	at := strings.LastIndexByte(addr, '@')
	if at < 0 {
		return addr
	}
	local, domain := addr[:at], addr[at+1:]
	if isDotAtom(local) {
		return addr
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := 0; i < len(local); i++ {
		if c := local[i]; c == '"' || c == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(local[i])
	}
	b.WriteString(`"@`)
	b.WriteString(domain)
	return b.String()
}

// isDotAtom reports whether s needs no quotes as a local part, RFC 5322 section 3.2.3 with RFC 6532's letters.
func isDotAtom(s string) bool {
	if s == "" || s[0] == '.' || s[len(s)-1] == '.' || strings.Contains(s, "..") {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c >= 0x80 ||
			strings.IndexByte(".!#$%&'*+-/=?^_`{|}~", c) >= 0
		if !ok {
			return false
		}
	}
	return true
}

// isRecipientField tells To, Cc and Bcc from everything else. The Resent- fields name nobody to Graph: whoever
// resends a message is in its envelope.
func isRecipientField(name string) bool {
	return strings.EqualFold(name, "To") || strings.EqualFold(name, "Cc") || strings.EqualFold(name, "Bcc")
}

// wholeAddresses returns the entries of an address field that mail can be sent to.
func wholeAddresses(value string) []message.Address {
	return slices.DeleteFunc(message.ParseAddressList(value), func(a message.Address) bool {
		return a.Host == "" || a.Host == message.MissingDomain || a.Mailbox == "" || a.Mailbox == message.MissingMailbox
	})
}

// splitRecipients puts the envelope's recipients into parts of at most limit, those
// that the header names first and in its order, so that the first part shows most.
// The result depends on its arguments alone: a retry must find the same parts.
func splitRecipients(header []byte, recipients []string, limit int) [][]string {
	byKey := make(map[string]string, len(recipients))
	for _, r := range recipients {
		if k := addressKey(r); byKey[k] == "" {
			byKey[k] = r
		}
	}
	ordered := make([]string, 0, len(byKey))
	take := func(addr string) {
		k := addressKey(addr)
		if r := byKey[k]; r != "" {
			ordered = append(ordered, r)
			delete(byKey, k)
		}
	}
	for _, f := range message.Fields(header) {
		if isRecipientField(f.Name) {
			for _, a := range wholeAddresses(f.Value) {
				take(a.Addr())
			}
		}
	}
	for _, r := range recipients {
		take(r)
	}
	var parts [][]string
	for len(ordered) > limit {
		parts = append(parts, ordered[:limit:limit])
		ordered = ordered[limit:]
	}
	return append(parts, ordered)
}

// addressHeader returns header rewritten so that To, Cc and Bcc together name exactly
// the recipients. Graph knows no envelope and delivers to whomever these fields name:
// a recipient they lack becomes a Bcc, which Exchange shows to nobody; one they name
// beyond the envelope is taken out, the field as it was staying as X-Original-To or
// X-Original-Cc. Resent-Bcc goes, for Exchange would show it to all. All other fields stay as they are, byte for byte.
func addressHeader(header []byte, recipients []string) []byte {
	missing := make(map[string]bool, len(recipients))
	for _, r := range recipients {
		missing[addressKey(r)] = true
	}
	wanted := make(map[string]bool, len(missing))
	for k := range missing {
		wanted[k] = true
	}
	keep := func(addr string) bool {
		if addr == "" {
			return false // Graph refuses the whole message for one entry that is no address
		}
		k := addressKey(addr)
		delete(missing, k)
		return wanted[k]
	}

	out := make([]byte, 0, len(header)+256)
	var bcc []string
	for _, f := range message.Fields(header) {
		if strings.EqualFold(f.Name, "Resent-Bcc") {
			continue
		}
		if !isRecipientField(f.Name) {
			out = appendRaw(out, f.Raw)
			continue
		}
		value, changed := message.FilterAddressField(f.Value, keep)
		switch {
		case strings.EqualFold(f.Name, "Bcc"):
			if value = strings.TrimSpace(value); value != "" {
				bcc = append(bcc, value)
			}
		case !changed:
			out = appendRaw(out, f.Raw)
		default:
			if value = strings.TrimSpace(value); value != "" {
				out = appendField(out, f.Name, value)
			}
			out = append(out, "X-Original-"...)
			out = appendRaw(out, f.Raw)
		}
	}
	for _, r := range recipients {
		if k := addressKey(r); missing[k] {
			delete(missing, k)
			bcc = append(bcc, headerAddress(r))
		}
	}
	if len(bcc) > 0 {
		out = appendField(out, "Bcc", strings.Join(bcc, ", "))
	}
	return append(out, "\r\n"...)
}

// appendRaw adds a field as it was, with the line end that the last one may lack.
func appendRaw(dst, raw []byte) []byte {
	dst = append(dst, raw...)
	if n := len(raw); n > 0 && raw[n-1] != '\n' {
		dst = append(dst, "\r\n"...)
	}
	return dst
}

// appendField adds one field, broken behind commas where it would get long.
func appendField(dst []byte, name, value string) []byte {
	dst = append(dst, name...)
	dst = append(dst, ':')
	line := len(name) + 1
	for i, piece := range splitQuoted(value) {
		if i > 0 && line+len(piece) > 76 {
			dst = append(dst, "\r\n"...)
			line = 0
		}
		dst = append(dst, ' ')
		dst = append(dst, piece...)
		line += len(piece) + 1
	}
	return append(dst, "\r\n"...)
}

// splitQuoted cuts s behind each comma outside quotes; the pieces have no blanks around them.
func splitQuoted(s string) []string {
	var pieces []string
	start, quoted := 0, false
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			quoted = !quoted
		case ',':
			if !quoted {
				pieces = append(pieces, strings.TrimSpace(s[start:i+1]))
				start = i + 1
			}
		}
	}
	if rest := strings.TrimSpace(s[min(start, len(s)):]); rest != "" {
		pieces = append(pieces, rest)
	}
	return pieces
}
