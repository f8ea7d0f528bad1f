package imapd

import "strings"

// subscribe is SUBSCRIBE. RFC 3501 section 6.3.6.
func (s *session) subscribe(*command) error { return s.setSubscribed(true) }

// unsubscribe is UNSUBSCRIBE. RFC 3501 section 6.3.7.
func (s *session) unsubscribe(*command) error { return s.setSubscribed(false) }

func (s *session) setSubscribed(on bool) error {
	s.dec.Space()
	name := strings.TrimSuffix(s.dec.Mailbox(), delimiter)
	if err := s.dec.End(); err != nil {
		return err
	}
	// Subscriptions are the mailbox's, so that all of its programs see the same.
	if err := s.mayWrite(); err != nil {
		return err
	}
	account, inner, err := s.existing(name)
	if err != nil {
		return err
	}
	return account.Subscribe(s.ctx, inner, on)
}
