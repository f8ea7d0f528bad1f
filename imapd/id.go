package imapd

import "strings"

// id is ID. RFC 2971. What clients say of themselves goes to the log.
func (s *session) id(*command) error {
	d := s.dec
	d.Space()
	var fields []any
	if d.Peek() == '(' {
		n := 0
		d.List(func() {
			key := d.String()
			d.Space()
			value, ok := d.NString()
			// RFC 2971 section 3.3 allows 30 fields; the log takes the usual ones.
			if n++; n > 30 {
				d.Fail(bad("Too many fields"))
			}
			if ok && (strings.EqualFold(key, "name") || strings.EqualFold(key, "version") || strings.EqualFold(key, "vendor")) {
				fields = append(fields, "client_"+strings.ToLower(key), value[:min(len(value), 100)])
			}
		})
	} else {
		d.NString()
	}
	if err := d.End(); err != nil {
		return err
	}
	if len(fields) > 0 {
		s.log.Debug("client", fields...)
	}
	s.enc.Raw(`* ID ("name" "Postern")`).CRLF()
	return nil
}
