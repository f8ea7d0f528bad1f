package store

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"
)

// ChangeFlags makes local changes: they hold at once, win over what Graph says, and
// are pending until Pushed. UIDs that are not there are passed over. It returns the
// UIDs left alone because they had changed since UnchangedSince, in the order given.
func (s *Store) ChangeFlags(ctx context.Context, folder FolderID, changes []FlagChange) (Changes, []imap.UID, error) {
	var modified []imap.UID
	ch, err := s.inFolder(ctx, "change flags", folder, func(ft *folderTx) error {
		uids := make([]imap.UID, len(changes))
		for i := range changes {
			uids[i] = changes[i].UID
		}
		have, err := ft.byUID(uids)
		if err != nil {
			return err
		}
		var seq int64
		for i := range changes {
			c := &changes[i]
			e := have[c.UID]
			if e == nil {
				continue
			}
			if c.UnchangedSince != 0 && e.old.ModSeq > c.UnchangedSince {
				modified = append(modified, c.UID)
				continue
			}
			if !e.changeLocally(c) {
				continue
			}
			if seq == 0 {
				if seq, err = ft.t.nextPendingSeq(ft.f.Account); err != nil {
					return err
				}
			}
			e.PendingSeq = seq
		}
		return nil
	})
	if err != nil {
		return Changes{}, nil, err
	}
	return ch, modified, nil
}

// changeLocally reports whether anything became different.
func (e *entry) changeLocally(c *FlagChange) bool {
	flags := e.Flags&^c.Clear | c.Set
	diff := flags ^ e.Flags
	e.Flags = flags
	e.Pending |= diff

	var keywords []string
	if !c.ReplaceKeywords {
		for _, k := range e.Keywords {
			if !hasKeyword(c.RemoveKeywords, k) {
				keywords = append(keywords, k)
			}
		}
	}
	before, list := e.keywords, e.Keywords
	e.setKeywords(append(keywords, c.AddKeywords...))
	if strings.EqualFold(before, e.keywords) {
		// The same list in another case is the same list.
		e.setKeywords(strings.Fields(before))
		return diff != 0
	}
	e.touch(list, e.Keywords)
	return true
}

// nextPendingSeq orders local changes within an account.
func (t *tx) nextPendingSeq(account AccountID) (int64, error) {
	var seq int64
	err := t.row([]any{&seq}, "UPDATE accounts SET pending_seq = pending_seq + 1 WHERE id = ? RETURNING pending_seq", int64(account))
	return seq, err
}

// Pushed notes how pushing pending changes ended. A message that was changed again
// meanwhile (its PendingSeq is another) stays pending as a whole; one that is gone
// is passed over. With Undo the change is given up and Graph's own values come
// back. One transaction; it returns the changes of each folder that has any.
func (s *Store) Pushed(ctx context.Context, results []PushResult) ([]Changes, error) {
	byFolder := map[FolderID][]PushResult{}
	for _, r := range results {
		byFolder[r.ID.Folder()] = append(byFolder[r.ID.Folder()], r)
	}
	var all []Changes
	err := s.db.write(ctx, "note pushed changes", func(t *tx) error {
		for folder, results := range byFolder {
			exists, err := t.exists("SELECT 1 FROM folders WHERE id = ?", int64(folder))
			if err != nil {
				return err
			}
			if !exists {
				continue
			}
			ch, err := s.pushedIn(t, folder, results)
			if err != nil {
				return err
			}
			if !ch.Empty() {
				all = append(all, ch)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b Changes) int { return cmp.Compare(a.Folder, b.Folder) })
	return all, nil
}

func (s *Store) pushedIn(t *tx, folder FolderID, results []PushResult) (Changes, error) {
	ft, err := s.beginFolder(t, folder)
	if err != nil {
		return Changes{}, err
	}
	uids := make([]imap.UID, len(results))
	for i, r := range results {
		uids[i] = r.ID.UID()
	}
	have, err := ft.byUID(uids)
	if err != nil {
		return Changes{}, err
	}
	for _, r := range results {
		e := have[r.ID.UID()]
		if e == nil || e.PendingSeq == 0 || e.PendingSeq != r.PendingSeq {
			continue
		}
		e.Pending, e.PendingKeywords, e.PendingSeq, e.touched = 0, false, 0, ""
		if r.Undo != nil {
			ft.merge(e, r.Undo)
		}
	}
	return ft.finish()
}
