package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/emersion/go-imap/v2"
)

const folderColumns = `id, account, graph_id, parent_id, display_name, name, role, hidden,
	uidvalidity, uidnext, modseq, pruned, first_recent, gen, messages, unseen, deleted, size_sum,
	delta_link, fill_link, fill, headers_link, headers_done, synced_at,
	COALESCE((SELECT subscribed FROM subscriptions s WHERE s.account = folders.account AND s.name = folders.name), 1)`

// folderRow is a row of the folder table with what stays in this package.
type folderRow struct {
	Folder
	pruned uint64
	gen    int64
}

func scanFolder(scan func(...any) error) (*folderRow, error) {
	var (
		f                                                 folderRow
		id, account, uidValidity, uidNext, modSeq, pruned int64
		recent, messages, unseen, deleted, fill, synced   int64
		graphID, parentID, role                           string
		hidden, headersDone, subscribed                   int64
	)
	err := scan(&id, &account, &graphID, &parentID, &f.DisplayName, &f.Name, &role, &hidden,
		&uidValidity, &uidNext, &modSeq, &pruned, &recent, &f.gen, &messages, &unseen, &deleted, &f.SizeSum,
		&f.DeltaLink, &f.FillLink, &fill, &f.HeadersLink, &headersDone, &synced, &subscribed)
	if err != nil {
		return nil, notFound(err)
	}
	f.ID, f.Account, f.GraphID, f.ParentGraphID = FolderID(id), AccountID(account), GraphID(graphID), GraphID(parentID)
	f.Role, f.Hidden = imap.MailboxAttr(role), hidden != 0
	f.UIDValidity, f.UIDNext, f.HighestModSeq, f.pruned = uint32(uidValidity), imap.UID(uidNext), uint64(modSeq), uint64(pruned)
	f.FirstRecent, f.Messages, f.Unseen, f.DeletedCount = imap.UID(recent), int(messages), int(unseen), int(deleted)
	f.Fill, f.HeadersDone, f.SyncedAt, f.Subscribed = FillState(fill), headersDone != 0, fromMillis(synced), subscribed != 0
	return &f, nil
}

// Folders returns all folders of an account, ordered by name.
func (s *Store) Folders(ctx context.Context, id AccountID) ([]Folder, error) {
	rows, err := s.db.query(ctx, "SELECT "+folderColumns+" FROM folders WHERE account = ? ORDER BY name", int64(id))
	if err != nil {
		return nil, s.db.explain("list folders", err)
	}
	defer rows.Close()
	var list []Folder
	for rows.Next() {
		f, err := scanFolder(rows.Scan)
		if err != nil {
			return nil, s.db.explain("list folders", err)
		}
		list = append(list, f.Folder)
	}
	return list, s.db.explain("list folders", rows.Err())
}

// Folder returns one folder, or [ErrNotFound].
func (s *Store) Folder(ctx context.Context, id FolderID) (*Folder, error) {
	f, err := s.folderRow(ctx, id)
	if err != nil {
		return nil, s.db.explain("read folder", err)
	}
	return &f.Folder, nil
}

func (s *Store) folderRow(ctx context.Context, id FolderID) (*folderRow, error) {
	st, err := s.db.reader("SELECT " + folderColumns + " FROM folders WHERE id = ?")
	if err != nil {
		return nil, err
	}
	return scanFolder(st.QueryRowContext(ctx, int64(id)).Scan)
}

// FolderNamed returns the folder of an account with an IMAP name, or [ErrNotFound].
func (s *Store) FolderNamed(ctx context.Context, account AccountID, name string) (*Folder, error) {
	age, key := s.db.folderAge.Load(), folderKey{account, name}
	if f := s.folders.get(age, key); f != nil {
		return f, ctx.Err()
	}
	st, err := s.db.reader("SELECT " + folderColumns + " FROM folders WHERE account = ? AND name = ?")
	if err != nil {
		return nil, s.db.explain("read folder", err)
	}
	f, err := scanFolder(st.QueryRowContext(ctx, int64(account), name).Scan)
	if err != nil {
		return nil, s.db.explain("read folder", err)
	}
	s.folders.put(age, key, f.Folder)
	return &f.Folder, nil
}

func (t *tx) folder(id FolderID) (*folderRow, error) {
	st, err := t.stmt("SELECT " + folderColumns + " FROM folders WHERE id = ?")
	if err != nil {
		return nil, err
	}
	return scanFolder(st.QueryRowContext(context.Background(), int64(id)).Scan)
}

// PutFolder adds the folder that Account and GraphID name, with a UIDVALIDITY
// higher than each one given before in this store, or brings DisplayName,
// ParentGraphID, Name, Role and Hidden of an existing one up to date. All other
// fields of f are ignored. It returns the folder as it is then, or [ErrNameTaken].
func (s *Store) PutFolder(ctx context.Context, f Folder) (*Folder, error) {
	if f.GraphID == "" || f.Name == "" {
		return nil, errors.New("put folder: no id or no name")
	}
	var out *folderRow
	err := s.db.write(ctx, "put folder", func(t *tx) error {
		var id, owner int64
		err := t.row([]any{&id}, "SELECT id FROM folders WHERE account = ? AND graph_id = ?", int64(f.Account), string(f.GraphID))
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		err = t.row([]any{&owner}, "SELECT id FROM folders WHERE account = ? AND name = ?", int64(f.Account), f.Name)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if err == nil && owner != id {
			return fmt.Errorf("%q: %w", f.Name, ErrNameTaken)
		}
		if id == 0 {
			validity, err := s.nextUIDValidity(ctx, t)
			if err != nil {
				return err
			}
			err = t.row([]any{&id}, `INSERT INTO folders (account, graph_id, parent_id, display_name, name, role, hidden, uidvalidity)
				VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING id`,
				int64(f.Account), string(f.GraphID), string(f.ParentGraphID), f.DisplayName, f.Name, string(f.Role), intOf(f.Hidden), int64(validity))
			if err != nil {
				return err
			}
			if id > maxFolderID {
				return errors.New("no folder ids left")
			}
		} else {
			_, err := t.exec("UPDATE folders SET parent_id = ?, display_name = ?, name = ?, role = ?, hidden = ? WHERE id = ?",
				string(f.ParentGraphID), f.DisplayName, f.Name, string(f.Role), intOf(f.Hidden), id)
			if err != nil {
				return err
			}
		}
		out, err = t.folder(FolderID(id))
		return err
	})
	if err != nil {
		return nil, err
	}
	return &out.Folder, nil
}

// RenameFolders gives several folders new IMAP names at once, such as a folder and
// its children; they may trade names. [ErrNameTaken] if a name belongs to a folder
// that is not among them.
func (s *Store) RenameFolders(ctx context.Context, account AccountID, names map[FolderID]string) error {
	return s.db.write(ctx, "rename folders", func(t *tx) error {
		// First to names that no folder can have, so that the order does not matter.
		for id := range names {
			res, err := t.exec("UPDATE folders SET name = ? WHERE id = ? AND account = ?", "\x01"+strconv.FormatInt(int64(id), 10), int64(id), int64(account))
			if err != nil {
				return err
			}
			if n, err := res.RowsAffected(); err != nil || n == 0 {
				return errors.Join(ErrNotFound, err)
			}
		}
		for id, name := range names {
			taken, err := t.exists("SELECT 1 FROM folders WHERE account = ? AND name = ?", int64(account), name)
			if err != nil {
				return err
			}
			if taken || name == "" {
				return fmt.Errorf("%q: %w", name, ErrNameTaken)
			}
			if _, err := t.exec("UPDATE folders SET name = ? WHERE id = ?", name, int64(id)); err != nil {
				return err
			}
		}
		return nil
	})
}

// DeleteFolder forgets a folder with its messages, headers, bodies and journal. A
// folder that is not there is no error.
func (s *Store) DeleteFolder(ctx context.Context, id FolderID) error {
	return s.db.write(ctx, "delete folder", func(t *tx) error {
		first, last := messageIDs(id)
		lost, err := t.ids("SELECT DISTINCT body FROM messages WHERE id BETWEEN ? AND ? AND body IS NOT NULL", first, last)
		if err != nil {
			return err
		}
		for _, step := range []struct {
			query string
			args  []any
		}{
			{"DELETE FROM headers WHERE message BETWEEN ? AND ?", []any{first, last}},
			{"DELETE FROM messages WHERE id BETWEEN ? AND ?", []any{first, last}},
			{"DELETE FROM removed WHERE folder = ?", []any{int64(id)}},
			{"DELETE FROM sent_copies WHERE message BETWEEN ? AND ?", []any{first, last}},
			{"DELETE FROM dismissed WHERE folder = ?", []any{int64(id)}},
			{"DELETE FROM folders WHERE id = ?", []any{int64(id)}},
		} {
			if _, err := t.exec(step.query, step.args...); err != nil {
				return err
			}
		}
		return s.bodies.release(t, lost)
	})
}

// SetSync changes what the syncer keeps on a folder.
func (s *Store) SetSync(ctx context.Context, id FolderID, u SyncUpdate) error {
	return s.db.write(ctx, "write sync state", func(t *tx) error {
		f, err := t.folder(id)
		if err != nil {
			return err
		}
		u.apply(&f.Folder)
		return t.putFolderRow(f)
	})
}

func (u *SyncUpdate) apply(f *Folder) {
	if u == nil {
		return
	}
	set(&f.DeltaLink, u.DeltaLink)
	set(&f.FillLink, u.FillLink)
	set(&f.HeadersLink, u.HeadersLink)
	set(&f.Fill, u.Fill)
	set(&f.HeadersDone, u.HeadersDone)
	set(&f.SyncedAt, u.SyncedAt)
}

func set[T any](dst *T, src *T) {
	if src != nil {
		*dst = *src
	}
}

// putFolderRow writes what transactions over messages and the syncer change.
func (t *tx) putFolderRow(f *folderRow) error {
	_, err := t.exec(`UPDATE folders SET uidnext = ?, modseq = ?, pruned = ?, first_recent = ?, gen = ?,
		messages = ?, unseen = ?, deleted = ?, size_sum = ?,
		delta_link = ?, fill_link = ?, fill = ?, headers_link = ?, headers_done = ?, synced_at = ? WHERE id = ?`,
		int64(f.UIDNext), int64(f.HighestModSeq), int64(f.pruned), int64(f.FirstRecent), f.gen,
		int64(f.Messages), int64(f.Unseen), int64(f.DeletedCount), f.SizeSum,
		f.DeltaLink, f.FillLink, int64(f.Fill), f.HeadersLink, intOf(f.HeadersDone), millis(f.SyncedAt), int64(f.ID))
	return err
}

// ClaimRecent returns the folder's FirstRecent and moves it up to before: the caller
// is the one session that is told that the messages between the two are \Recent. There are none if before is not
// the higher one.
func (s *Store) ClaimRecent(ctx context.Context, id FolderID, before imap.UID) (imap.UID, error) {
	// Mostly nothing is new, and then nothing need be written.
	if first := s.folders.recent(s.db.folderAge.Load(), id); first >= before {
		return first, ctx.Err()
	}
	var known int64
	if err := s.db.row(ctx, []any{&known}, "SELECT first_recent FROM folders WHERE id = ?", int64(id)); err != nil {
		return 0, s.db.explain("claim recent", err)
	}
	if imap.UID(known) >= before {
		return imap.UID(known), nil
	}
	var first imap.UID
	err := s.db.write(ctx, "claim recent", func(t *tx) error {
		f, err := t.folder(id)
		if err != nil {
			return err
		}
		first = f.FirstRecent
		_, err = t.exec("UPDATE folders SET first_recent = min(max(first_recent, ?), uidnext) WHERE id = ?", int64(before), int64(id))
		return err
	})
	return first, err
}

func (t *tx) exists(query string, args ...any) (bool, error) {
	var one int64
	err := t.row([]any{&one}, query, args...)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// ids reads a list of integers.
func (t *tx) ids(query string, args ...any) ([]int64, error) {
	rows, err := t.query(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []int64
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		list = append(list, id)
	}
	return list, rows.Err()
}

func intOf(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// millis and fromMillis keep a time in milliseconds, the zero time as 0.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// seconds and fromSeconds do the same in whole seconds.
func seconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func fromSeconds(s int64) time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.Unix(s, 0).UTC()
}
