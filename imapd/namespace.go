package imapd

// namespace is NAMESPACE. RFC 2342. Shared mailboxes are those of other users.
func (s *session) namespace(*command) error {
	if err := s.dec.End(); err != nil {
		return err
	}
	s.enc.Raw(`* NAMESPACE (("" "` + delimiter + `")) `)
	if len(s.login.Shared) > 0 {
		s.enc.Raw(`(("` + sharedRoot + delimiter + `" "` + delimiter + `"))`)
	} else {
		s.enc.NIL()
	}
	s.enc.Raw(" NIL").CRLF()
	return nil
}
