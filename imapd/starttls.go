package imapd

// canStartTLS reports whether STARTTLS is possible now.
func (s *session) canStartTLS() bool {
	return s.srv.opts.TLSConfig != nil && !s.secure
}

// starttls is STARTTLS. RFC 3501 section 6.2.1. Commands that were sent behind
// it in plain text could have been put there by anybody: a client that does so
// is cut off.
func (s *session) starttls(c *command) error {
	if err := s.dec.End(); err != nil {
		return err
	}
	if !s.canStartTLS() {
		return bad("TLS is not available")
	}
	if s.dec.Buffered() > 0 {
		return bye("Commands behind STARTTLS are not allowed")
	}
	c.answered = true
	s.enc.Raw(c.tag).Raw(" OK Begin TLS negotiation now").CRLF()
	if err := s.enc.Flush(); err != nil {
		return err
	}
	return s.startTLS()
}
