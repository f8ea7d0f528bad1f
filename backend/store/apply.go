package store

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/emersion/go-imap/v2"
)

// Apply puts one page of a delta round or a listing into a folder, in one transaction.
//
// First the messages in removes go; ids that are not there are passed over. Then
// each upsert is merged into the message it names, or, if the folder does not hold
// it, added under the next UID, in the order given. An id in both lists thus comes
// back under a new UID, which is right for a draft whose content was edited. A row
// for an unknown message without Received is only part of a message and is
// reported in Changes.Unknown. Flags and keywords with a pending local change keep
// their value. Messages that Unite has dismissed are passed over. sync may be nil.
func (s *Store) Apply(ctx context.Context, folder FolderID, upserts []Remote, removes []GraphID, sync *SyncUpdate) (Changes, error) {
	return s.inFolder(ctx, "apply changes", folder, func(ft *folderTx) error {
		if err := ft.apply(upserts, removes); err != nil {
			return err
		}
		ft.sync(sync)
		return nil
	})
}

// inFolder runs fn over one folder in a transaction of its own.
func (s *Store) inFolder(ctx context.Context, op string, folder FolderID, fn func(*folderTx) error) (Changes, error) {
	var ch Changes
	err := s.db.write(ctx, op, func(t *tx) error {
		ft, err := s.beginFolder(t, folder)
		if err != nil {
			return err
		}
		if err := fn(ft); err != nil {
			return err
		}
		ch, err = ft.finish()
		return err
	})
	if err != nil {
		return Changes{}, err
	}
	return ch, nil
}

func (ft *folderTx) sync(u *SyncUpdate) {
	if u != nil {
		u.apply(&ft.f.Folder)
		ft.changed = true
	}
}

func (ft *folderTx) apply(upserts []Remote, removes []GraphID) error {
	ids := make([]string, 0, len(upserts)+len(removes))
	for i := range upserts {
		if upserts[i].GraphID == "" {
			return errors.New("row without an id")
		}
		ids = append(ids, string(upserts[i].GraphID))
	}
	for _, id := range removes {
		ids = append(ids, string(id))
	}
	have, err := ft.byGraphID(ids)
	if err != nil {
		return err
	}
	for _, id := range removes {
		if e := have[id]; e != nil {
			e.removed = true
			delete(have, id)
		}
	}
	var dismissed map[GraphID]bool
	asked := false
	for i := range upserts {
		r := &upserts[i]
		e := have[r.GraphID]
		if e == nil {
			if !asked {
				if dismissed, err = ft.dismissed(); err != nil {
					return err
				}
				asked = true
			}
			if dismissed[r.GraphID] {
				continue
			}
			if r.Received == nil {
				if !slices.Contains(ft.ch.Unknown, r.GraphID) {
					ft.ch.Unknown = append(ft.ch.Unknown, r.GraphID)
				}
				continue
			}
			e, err = ft.add(messageRow{Message: Message{GraphID: r.GraphID}})
			if err != nil {
				return err
			}
			have[r.GraphID] = e
		}
		ft.merge(e, r)
	}
	return nil
}

// Relist is a full listing of a folder in several transactions, after which what
// it did not name is removed. UIDs of what is still there stay.
type Relist struct {
	s       *Store
	folder  FolderID
	gen     int64
	resumed bool
}

// Relist begins a full listing, or goes on with one that was interrupted: that is
// when the folder has a FillLink, which leads to the next page.
func (s *Store) Relist(ctx context.Context, folder FolderID) (*Relist, error) {
	r := &Relist{s: s, folder: folder}
	err := s.db.write(ctx, "begin listing", func(t *tx) error {
		f, err := t.folder(folder)
		if err != nil {
			return err
		}
		r.resumed = f.FillLink != ""
		if !r.resumed {
			f.gen++
			if err := t.putFolderRow(f); err != nil {
				return err
			}
		}
		r.gen = f.gen
		return nil
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Resumed reports whether an interrupted listing goes on.
func (r *Relist) Resumed() bool { return r.resumed }

// errSuperseded is returned to a Relist when a later one has begun.
var errSuperseded = errors.New("another listing of the folder has begun")

// Page is Apply for one page of the listing. sync may be nil; with the next page's
// link in its FillLink the listing can be resumed.
func (r *Relist) Page(ctx context.Context, rows []Remote, sync *SyncUpdate) (Changes, error) {
	return r.s.inFolder(ctx, "apply listing", r.folder, func(ft *folderTx) error {
		if ft.f.gen != r.gen {
			return errSuperseded
		}
		if err := ft.apply(rows, nil); err != nil {
			return err
		}
		ft.sync(sync)
		return nil
	})
}

// Missed returns how many messages no page has named so far: those that Finish would remove.
func (r *Relist) Missed(ctx context.Context) (n int, err error) {
	first, last := messageIDs(r.folder)
	err = r.s.db.row(ctx, []any{&n}, "SELECT count(*) FROM messages WHERE id BETWEEN ? AND ? AND gen < ?", first, last, r.gen)
	return n, r.s.db.explain("read listing", err)
}

// Finish removes the messages that no page has named. Messages that came into the
// folder by other ways since the listing began stay. It clears the folder's
// FillLink unless sync sets it.
func (r *Relist) Finish(ctx context.Context, sync SyncUpdate) (Changes, error) {
	return r.s.inFolder(ctx, "finish listing", r.folder, func(ft *folderTx) error {
		if ft.f.gen != r.gen {
			return errSuperseded
		}
		first, last := messageIDs(r.folder)
		rows, err := ft.t.query("SELECT "+messageColumns+" FROM messages WHERE id BETWEEN ? AND ? AND gen < ?", first, last, r.gen)
		if err != nil {
			return err
		}
		err = newMessageScanner().each(rows, func(m *messageRow) { ft.entry(m).removed = true })
		if err != nil {
			return err
		}
		ft.f.FillLink = ""
		ft.sync(&sync)
		return nil
	})
}

// RemovedSince returns the messages removed after modSeq, by UID; [ErrPruned] if the
// journal does not go back that far. Their GraphID is not kept.
func (s *Store) RemovedSince(ctx context.Context, folder FolderID, modSeq uint64) ([]Removed, error) {
	list, err := s.removedSince(ctx, folder, modSeq)
	return list, s.db.explain("read journal", err)
}

func (s *Store) removedSince(ctx context.Context, folder FolderID, modSeq uint64) ([]Removed, error) {
	rows, err := s.db.query(ctx, "SELECT uid, modseq FROM removed WHERE folder = ? AND modseq > ? ORDER BY uid", int64(folder), int64(min(modSeq, 1<<63-1)))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []Removed
	for rows.Next() {
		var uid, seq int64
		if err := rows.Scan(&uid, &seq); err != nil {
			return nil, err
		}
		list = append(list, Removed{UID: imap.UID(uid), ModSeq: uint64(seq)})
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	// Read after the journal: if it was pruned between the two, this shows it.
	f, err := s.folderRow(ctx, folder)
	if err != nil {
		return nil, err
	}
	if modSeq < f.pruned {
		return nil, ErrPruned
	}
	return list, nil
}

// PruneRemoved forgets removals older than before in all folders. QRESYNC with an
// older mod-sequence then gets [ErrPruned].
func (s *Store) PruneRemoved(ctx context.Context, before time.Time) error {
	return s.db.write(ctx, "prune journal", func(t *tx) error {
		rows, err := t.query("SELECT folder, MAX(modseq) FROM removed WHERE removed_at < ? GROUP BY folder", before.Unix())
		if err != nil {
			return err
		}
		defer rows.Close()
		upTo := map[int64]int64{}
		for rows.Next() {
			var folder, seq int64
			if err := rows.Scan(&folder, &seq); err != nil {
				return err
			}
			upTo[folder] = seq
		}
		if err := rows.Err(); err != nil {
			return err
		}
		for folder, seq := range upTo {
			// By mod-sequence, not by time, so that nothing is left behind the mark
			// when the clock went back.
			if _, err := t.exec("DELETE FROM removed WHERE folder = ? AND modseq <= ?", folder, seq); err != nil {
				return err
			}
			if _, err := t.exec("UPDATE folders SET pruned = ? WHERE id = ?", seq, folder); err != nil {
				return err
			}
		}
		return nil
	})
}
