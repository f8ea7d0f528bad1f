package imapd

import (
	"context"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"

	"postern/backend"
)

// create is CREATE, with USE of RFC 6154 section 3.
func (s *session) create(c *command) error {
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
	id := ""
	err = s.wait(func(ctx context.Context) error {
		made, err := newLevels(ctx, account, inner)
		if err != nil {
			return err
		}
		if err := account.Create(ctx, inner, role); err != nil {
			return err
		}
		// A mailbox that comes from elsewhere counts as subscribed, so that it is seen;
		// a client that makes one says itself whether it wants that.
		for _, name := range made {
			if err := account.Subscribe(ctx, name, false); err != nil {
				return err
			}
		}
		id, err = mailboxID(ctx, account, inner)
		return err
	})
	if err == nil && id != "" {
		c.done("MAILBOXID ("+id+")", "CREATE completed")
	}
	return err
}

// mailboxID returns the id of RFC 8474, "" if the mailbox is not there any more.
func mailboxID(ctx context.Context, account *backend.Account, name string) (string, error) {
	boxes, err := account.Mailboxes(ctx)
	if err != nil {
		return "", err
	}
	for i := range boxes {
		if boxes[i].Name == name {
			return boxes[i].ID, nil
		}
	}
	return "", nil
}

// newLevels returns which mailboxes creating name makes that nobody has subscribed to
// in advance.
func newLevels(ctx context.Context, account *backend.Account, name string) ([]string, error) {
	boxes, err := account.Mailboxes(ctx)
	if err != nil {
		return nil, err
	}
	names, err := account.Subscriptions(ctx)
	if err != nil {
		return nil, err
	}
	for _, b := range boxes {
		names = append(names, b.Name)
	}
	var levels []string
	for {
		if !slices.Contains(names, name) {
			levels = append(levels, name)
		}
		at := strings.LastIndex(name, delimiter)
		if at < 0 {
			return levels, nil
		}
		name = name[:at]
	}
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
