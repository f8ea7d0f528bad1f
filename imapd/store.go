package imapd

import (
	"context"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"

	"postern/backend"
)

// storeRequest is a STORE command. RFC 3501 section 6.4.6.
type storeRequest struct {
	set    imap.NumSet
	action backend.StoreAction
	silent bool
	flags  []imap.Flag
}

// store is STORE and UID STORE.
func (s *session) store(c *command) error {
	req := s.parseStore(c)
	if err := s.dec.End(); err != nil {
		return err
	}
	v := s.view
	if v.mbox.ReadOnly() {
		return errReadOnly
	}
	sel, err := s.selected(req.set)
	if err != nil {
		return err
	}
	uids := slices.Clone(v.uidsOf(sel))
	if len(uids) == 0 {
		return nil
	}
	// What others have changed is told first, so that silence afterwards hides
	// nothing but the client's own change.
	if err := s.tellChanges(false); err != nil {
		return err
	}
	err = s.wait(func(ctx context.Context) error {
		_, err := v.mbox.Store(ctx, uids, req.action, req.flags, 0)
		return err
	})
	if err != nil {
		return err
	}
	s.tellKeywords()
	if err := s.tellChangesBut(false, uids); err != nil {
		return err
	}
	if !req.silent {
		s.tellFlags(uids) // after the journal, so that nothing newer is missed
	}
	return s.enc.Err()
}

func (s *session) parseStore(c *command) *storeRequest {
	d, req := s.dec, &storeRequest{}
	d.Space()
	req.set = d.NumSet(c.uid)
	d.Space()
	req.action = backend.StoreReplace
	if d.Try('+') {
		req.action = backend.StoreAdd
	} else if d.Try('-') {
		req.action = backend.StoreRemove
	}
	switch d.Word() {
	case "FLAGS":
	case "FLAGS.SILENT":
		req.silent = true
	default:
		d.Fail(bad("Unknown STORE item"))
	}
	d.Space()
	req.flags = d.Flags()
	for _, f := range req.flags {
		if strings.HasPrefix(string(f), `\`) && !isSystemFlag(f) {
			d.Fail(bad("Not a flag that can be set"))
		}
	}
	return req
}

// isSystemFlag reports whether f is one of the flags with a backslash that a
// client may set. \Recent is not.
func isSystemFlag(f imap.Flag) bool {
	switch f {
	case imap.FlagSeen, imap.FlagAnswered, imap.FlagFlagged, imap.FlagDeleted, imap.FlagDraft:
		return true
	}
	return false
}
