package imapd

import (
	"context"

	"github.com/emersion/go-imap/v2"
)

// delete is DELETE. RFC 3501 section 6.3.4. What is below a mailbox must not go
// with it, and Graph would take it along: mailboxes with something below are
// refused.
func (s *session) delete(*command) error {
	s.dec.Space()
	name := s.dec.Mailbox()
	if err := s.dec.End(); err != nil {
		return err
	}
	if err := s.mayWrite(); err != nil {
		return err
	}
	account, inner, err := s.existing(name)
	if err != nil {
		return err
	}
	if inner == "INBOX" {
		return no(imap.ResponseCodeCannot, "INBOX cannot be deleted")
	}
	err = s.wait(func(ctx context.Context) error {
		boxes, err := account.Mailboxes(ctx)
		if err != nil {
			return err
		}
		for _, b := range boxes {
			if b.Name == inner && b.HasChildren {
				return no(imap.ResponseCodeHasChildren, "Delete the mailboxes below it first")
			}
		}
		return account.Delete(ctx, inner)
	})
	if err != nil {
		return err
	}
	if s.view != nil && s.view.account == account && (s.view.mbox.Gone() || s.view.mbox.Name() == inner) {
		s.closeView()
		s.untagged("CLOSED", "The selected mailbox has been deleted")
	}
	return nil
}
