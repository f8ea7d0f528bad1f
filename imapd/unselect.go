package imapd

import (
	"context"

	"postern/backend"
)

// unselect is UNSELECT. RFC 3691.
func (s *session) unselect(*command) error {
	if err := s.dec.End(); err != nil {
		return err
	}
	s.closeView()
	return nil
}

// close is CLOSE: messages with \Deleted are removed without a word. RFC 3501
// section 6.4.2.
func (s *session) close(*command) error {
	if err := s.dec.End(); err != nil {
		return err
	}
	v := s.view
	if v.mbox.ReadOnly() {
		s.closeView()
		return nil
	}
	err := s.wait(func(ctx context.Context) error {
		_, err := v.mbox.Expunge(ctx, nil)
		return err
	})
	// The mailbox is left in any case; CLOSE has no way to say that it is not.
	s.closeView()
	if err != nil && backend.KindOf(err) == backend.NotFound {
		return nil
	}
	return err
}
