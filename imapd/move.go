package imapd

import (
	"context"

	"github.com/emersion/go-imap/v2"

	"postern/backend"
)

// move is MOVE and UID MOVE. RFC 6851: COPYUID comes before the EXPUNGEs, in an
// untagged OK, so that a client knows the new UIDs when the messages go.
func (s *session) move(c *command) error {
	uids, account, inner, err := s.parseCopy(c)
	if err != nil {
		return err
	}
	v := s.view
	if v.mbox.ReadOnly() {
		return errReadOnly
	}
	if len(uids) == 0 {
		c.done("", "No messages to move")
		return nil
	}
	c.tellsModSeq = true // as for EXPUNGE
	var result backend.CopyResult
	err = s.wait(func(ctx context.Context) (err error) {
		if account == v.account {
			result, err = v.mbox.Move(ctx, uids, inner)
			return err
		}
		// Between accounts: only what has arrived there is removed here.
		result, err = v.mbox.CopyTo(ctx, uids, account, inner)
		if len(result.Source) == 0 {
			return err
		}
		if _, storeErr := v.mbox.Store(ctx, result.Source, backend.StoreAdd, []imap.Flag{imap.FlagDeleted}, 0); storeErr != nil {
			return storeErr
		}
		if _, expungeErr := v.mbox.Expunge(ctx, result.Source); expungeErr != nil {
			return expungeErr
		}
		return err
	})
	// A move that fails half way has moved some, and the client must know where to.
	if len(result.Dest) > 0 {
		s.untagged(copyUID(result), "Moved")
	}
	if err != nil {
		return tryCreate(err)
	}
	return nil
}
