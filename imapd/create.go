package imapd

import (
	"context"
	"strings"

	"github.com/emersion/go-imap/v2"
)

// create is CREATE, with USE of RFC 6154 section 3.
func (s *session) create(*command) error {
	d := s.dec
	d.Space()
	// A delimiter at the end says that names below it will follow. RFC 3501
	// section 6.3.3.
	name := strings.TrimSuffix(d.Mailbox(), delimiter)
	role, roles := imap.MailboxAttr(""), 0
	if d.TrySpace() {
		d.List(func() {
			if d.Word() != "USE" {
				d.Fail(bad("Unknown CREATE parameter"))
			}
			d.Space()
			d.List(func() {
				role = roleNamed(string(d.Flag()))
				roles++
			})
		})
	}
	if err := d.End(); err != nil {
		return err
	}
	if roles > 1 || (roles == 1 && role == "") {
		return no("USEATTR", "No mailbox of that use can be created")
	}
	if err := s.mayWrite(); err != nil {
		return err
	}
	account, inner, err := s.creatable(name)
	if err != nil {
		return err
	}
	return s.wait(func(ctx context.Context) error { return account.Create(ctx, inner, role) })
}

// roleNamed returns the special use that a client names, "" if it is none.
func roleNamed(attr string) imap.MailboxAttr {
	for _, role := range []imap.MailboxAttr{imap.MailboxAttrArchive, imap.MailboxAttrDrafts, imap.MailboxAttrJunk,
		imap.MailboxAttrSent, imap.MailboxAttrTrash, imap.MailboxAttrAll, imap.MailboxAttrFlagged, imap.MailboxAttrImportant} {
		if strings.EqualFold(string(role), attr) {
			return role
		}
	}
	return ""
}
