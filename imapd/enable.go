package imapd

// enable is ENABLE. RFC 5161: unknown extensions are passed over in silence, so
// the answer lists those that are on now. None of those offered needs it yet.
func (s *session) enable(*command) error {
	d := s.dec
	d.Space()
	d.Atom()
	for d.TrySpace() {
		d.Atom()
	}
	if err := d.End(); err != nil {
		return err
	}
	s.enc.Raw("* ENABLED").CRLF()
	return nil
}
