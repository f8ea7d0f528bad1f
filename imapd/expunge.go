package imapd

import (
	"context"
	"slices"

	"github.com/emersion/go-imap/v2"
)

// expunge is EXPUNGE (RFC 3501 section 6.4.3) and UID EXPUNGE (RFC 4315 section 2.1).
func (s *session) expunge(c *command) error {
	var set imap.NumSet
	if c.uid {
		s.dec.Space()
		set = s.dec.NumSet(true)
	}
	if err := s.dec.End(); err != nil {
		return err
	}
	if s.view.mbox.ReadOnly() {
		return errReadOnly
	}
	var uids []imap.UID // nil: all
	if c.uid {
		sel, err := s.selected(set)
		if err != nil {
			return err
		}
		if sel.count() == 0 {
			return nil
		}
		uids = slices.Clone(s.view.uidsOf(sel))
	}
	c.tellsModSeq = true // RFC 7162 section 3.2.7
	// The EXPUNGE responses come out of the journal.
	return s.wait(func(ctx context.Context) error {
		_, err := s.view.mbox.Expunge(ctx, uids)
		return err
	})
}
