package imapd

// noop is NOOP, the way many clients poll: Graph is asked for changes if that
// was not done just now. RFC 3501 section 6.1.2.
func (s *session) noop(*command) error {
	if err := s.dec.End(); err != nil {
		return err
	}
	if s.view != nil {
		return s.view.mbox.Refresh(s.ctx)
	}
	return nil
}

// check is CHECK. RFC 3501 section 6.4.1.
func (s *session) check(c *command) error { return s.noop(c) }
