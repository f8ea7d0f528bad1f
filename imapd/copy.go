package imapd

import (
	"context"
	"slices"

	"github.com/emersion/go-imap/v2"

	"postern/backend"
)

// copy is COPY and UID COPY, with COPYUID of RFC 4315 section 3.
func (s *session) copy(c *command) error {
	uids, account, inner, err := s.parseCopy(c)
	if err != nil {
		return err
	}
	if len(uids) == 0 {
		c.done("", "No messages to copy")
		return nil
	}
	v := s.view
	var result backend.CopyResult
	err = s.wait(func(ctx context.Context) (err error) {
		if account == v.account {
			result, err = v.mbox.Copy(ctx, uids, inner)
		} else {
			result, err = v.mbox.CopyTo(ctx, uids, account, inner)
		}
		return err
	})
	if err != nil {
		return tryCreate(err)
	}
	if len(result.Dest) > 0 {
		c.done(copyUID(result), c.name+" completed")
	}
	return nil
}

// parseCopy parses the arguments of COPY and MOVE.
func (s *session) parseCopy(c *command) (uids []imap.UID, account *backend.Account, inner string, err error) {
	d := s.dec
	d.Space()
	set := d.NumSet(c.uid)
	d.Space()
	name := d.Mailbox()
	if err := d.End(); err != nil {
		return nil, nil, "", err
	}
	if err := s.mayWrite(); err != nil {
		return nil, nil, "", err
	}
	sel, err := s.selected(set)
	if err != nil {
		return nil, nil, "", err
	}
	if account, inner = s.locate(name); inner == "" {
		return nil, nil, "", no(imap.ResponseCodeCannot, "Not a mailbox that holds messages")
	}
	return slices.Clone(s.view.uidsOf(sel)), account, inner, nil
}

// copyUID returns the response code COPYUID.
func copyUID(r backend.CopyResult) string {
	b := append([]byte("COPYUID "), decimal(r.UIDValidity)...)
	b = appendUIDs(append(b, ' '), r.Source)
	return string(appendUIDs(append(b, ' '), r.Dest))
}
