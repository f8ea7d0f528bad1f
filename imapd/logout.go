package imapd

// logout is LOGOUT. RFC 3501 section 6.1.3.
func (s *session) logout(c *command) error {
	if err := s.dec.End(); err != nil {
		return err
	}
	s.enc.Raw("* BYE Logging out").CRLF()
	s.enc.Raw(c.tag).Raw(" OK LOGOUT completed").CRLF()
	return errLoggedOut
}
