package imapd

import (
	"context"
	"slices"
	"strconv"

	"github.com/emersion/go-imap/v2"

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
func (s *session) close(c *command) error {
	if err := s.dec.End(); err != nil {
		return err
	}
	v := s.view
	if v.mbox.ReadOnly() {
		s.closeView()
		return nil
	}
	var removed []imap.UID
	err := s.wait(func(ctx context.Context) (err error) {
		removed, err = v.mbox.Expunge(ctx, nil)
		return err
	})
	if s.enabled.qresync && len(removed) > 0 && err == nil {
		c.done("HIGHESTMODSEQ "+strconv.FormatUint(v.afterClose(removed), 10), "CLOSE completed")
	}
	// The mailbox is left in any case; CLOSE has no way to say that it is not.
	s.closeView()
	if err != nil && backend.KindOf(err) == backend.NotFound {
		return nil
	}
	return err
}

// afterClose returns up to which mod-sequence the client knows everything once it is
// told that CLOSE has removed what had \Deleted. RFC 7162 section 3.2.8. Where others
// have changed something too, which CLOSE cannot say, that is what it knew before.
func (v *view) afterClose(removed []imap.UID) uint64 {
	ch := v.mbox.Changes(v.modSeq)
	if v.told != v.modSeq || len(ch.Added) > 0 || len(ch.Updated) > 0 || !slices.Equal(ch.Removed, removed) {
		return v.told
	}
	return ch.ModSeq
}
