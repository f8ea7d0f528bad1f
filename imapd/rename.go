package imapd

import (
	"context"
	"strings"

	"github.com/emersion/go-imap/v2"
)

// rename is RENAME. RFC 3501 section 6.3.5.
func (s *session) rename(*command) error {
	d := s.dec
	d.Space()
	from := d.Mailbox()
	d.Space()
	to := strings.TrimSuffix(d.Mailbox(), delimiter)
	if err := d.End(); err != nil {
		return err
	}
	if err := s.mayWrite(); err != nil {
		return err
	}
	account, inner, err := s.existing(from)
	if err != nil {
		return err
	}
	target, innerTo, err := s.creatable(to)
	if err != nil {
		return err
	}
	if target != account {
		return no(imap.ResponseCodeCannot, "Mailboxes cannot be moved between accounts")
	}
	err = s.wait(func(ctx context.Context) error { return account.Rename(ctx, inner, innerTo) })
	if err == nil && s.enabled.rev2 {
		s.tellName(innerTo, account, inner)
	}
	return err
}
