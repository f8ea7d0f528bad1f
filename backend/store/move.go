package store

import (
	"context"

	"github.com/emersion/go-imap/v2"
)

// Move follows a move that Graph has done: the messages leave from and join to
// under new UIDs, in the order given, with flags, keywords, pending changes,
// header, size and body. Where a delta round was quicker and the message is in the
// destination already, that one is used and completed. A message that is gone from
// the source and not in the destination cannot be made up here: its new id is in
// toCh.Unknown. uids maps old to new UIDs. When both folders are the same,
// everything is in fromCh.
func (s *Store) Move(ctx context.Context, from, to FolderID, moved []Moved) (fromCh, toCh Changes, uids map[imap.UID]imap.UID, err error) {
	return s.carry(ctx, "move messages", from, to, moved, true)
}

// Copy does the same after a copy: the source stays, the body is shared. Local
// changes that are pending on the source are pending on the copy, which Graph made
// without them.
func (s *Store) Copy(ctx context.Context, from, to FolderID, copied []Moved) (toCh Changes, uids map[imap.UID]imap.UID, err error) {
	fromCh, toCh, uids, err := s.carry(ctx, "copy messages", from, to, copied, false)
	if from == to {
		toCh = fromCh
	}
	return toCh, uids, err
}

func (s *Store) carry(ctx context.Context, op string, from, to FolderID, list []Moved, move bool) (fromCh, toCh Changes, uids map[imap.UID]imap.UID, err error) {
	err = s.db.write(ctx, op, func(t *tx) error {
		src, err := s.beginFolder(t, from)
		if err != nil {
			return err
		}
		dst := src
		if from != to {
			if dst, err = s.beginFolder(t, to); err != nil {
				return err
			}
		}
		if uids, err = carryMessages(src, dst, list, move); err != nil {
			return err
		}
		// The destination first: a body that both hold must not look unused.
		if dst != src {
			if toCh, err = dst.finish(); err != nil {
				return err
			}
		}
		fromCh, err = src.finish()
		return err
	})
	if err != nil {
		return Changes{}, Changes{}, nil, err
	}
	if from == to {
		toCh = Changes{Folder: to, UIDNext: fromCh.UIDNext, HighestModSeq: fromCh.HighestModSeq}
	}
	return fromCh, toCh, uids, nil
}

func carryMessages(src, dst *folderTx, list []Moved, move bool) (map[imap.UID]imap.UID, error) {
	oldUIDs := make([]imap.UID, len(list))
	newIDs := make([]string, len(list))
	for i, m := range list {
		oldUIDs[i], newIDs[i] = m.UID, string(m.NewGraphID)
	}
	sources, err := src.byUID(oldUIDs)
	if err != nil {
		return nil, err
	}
	targets, err := dst.byGraphID(newIDs)
	if err != nil {
		return nil, err
	}
	uids := make(map[imap.UID]imap.UID, len(list))
	var header []headerCopy
	for _, m := range list {
		e, target := sources[m.UID], targets[m.NewGraphID]
		if e != nil && e.removed {
			e = nil // named twice
		}
		if target == e {
			target = nil // moved within its folder
		}
		if target == nil && e == nil {
			dst.ch.Unknown = append(dst.ch.Unknown, m.NewGraphID)
			continue
		}
		if target == nil {
			row := e.messageRow
			row.GraphID = m.NewGraphID
			if target, err = dst.add(row); err != nil {
				return nil, err
			}
			targets[m.NewGraphID] = target
			if e.HasHeader {
				header = append(header, headerCopy{e.ID, target.ID})
			}
		} else if e != nil {
			if e.HasHeader && !target.HasHeader {
				target.HasHeader, target.HeaderAbsent = true, false
				header = append(header, headerCopy{e.ID, target.ID})
			}
			target.complete(&e.messageRow)
		}
		target.gen = dst.f.gen // it is there, whatever a listing under way has seen
		uids[m.UID] = target.UID
		if e != nil {
			e.removed = move
		}
	}
	return uids, dst.t.copyHeaders(header)
}

// complete adds to a message that a delta round brought what only the row it was
// moved or copied from knows.
func (e *entry) complete(from *messageRow) {
	if e.body == 0 && from.body != 0 {
		e.body, e.HasBody = from.body, true
	}
	if from.SizeExact && !e.SizeExact {
		e.Size, e.SizeExact = from.Size, true
	}
	if from.PendingSeq == 0 || e.PendingSeq != 0 {
		return
	}
	e.Flags = e.Flags&^from.Pending | from.Flags&from.Pending
	e.Pending, e.PendingSeq = from.Pending, from.PendingSeq
	if from.PendingKeywords {
		e.Keywords, e.keywords, e.PendingKeywords, e.touched = from.Keywords, from.keywords, true, from.touched
	}
}
