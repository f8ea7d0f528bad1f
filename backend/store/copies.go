package store

import (
	"context"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
)

// A client's own copy of a message it has sent, and the one that Exchange files, are one message to everybody. The client may
// store its copy before Exchange does, and has then been told a UID for it. So a message in the replica can be told to stand
// for another message in Graph, which is Exchange's, and the one that the client's APPEND had made there is
// dismissed: it is never shown again, and removed from Graph.

// SentCopy is a client's own copy of a message it sends, in Sent.
type SentCopy struct {
	ID        MessageID
	MessageID string    // the Message-ID field as the client wrote it
	Content   string    // message.Fingerprint
	Stored    time.Time // whole seconds, UTC
	United    bool      // it stands for Exchange's own copy
}

// Dismissed is a message in Graph that is to be removed there.
type Dismissed struct {
	Folder  FolderID
	GraphID GraphID
	At      time.Time
}

// ApplySentCopy is Apply for one message, which a client has stored in Sent and which is remembered as its copy. ID and Stored
// of c are set here.
func (s *Store) ApplySentCopy(ctx context.Context, folder FolderID, r Remote, c SentCopy) (Changes, error) {
	return s.inFolder(ctx, "store sent copy", folder, func(ft *folderTx) error {
		if err := ft.apply([]Remote{r}, nil); err != nil {
			return err
		}
		for _, e := range ft.entries {
			if e.GraphID != r.GraphID || e.removed {
				continue
			}
			_, err := ft.t.exec(`INSERT INTO sent_copies (message, message_id, content, stored, united) VALUES (?, ?, ?, ?, ?)
				ON CONFLICT (message) DO UPDATE SET united = max(united, excluded.united)`,
				int64(e.ID), c.MessageID, c.Content, s.now().Unix(), intOf(c.United))
			return err
		}
		return nil
	})
}

// SentCopies returns the client's copies in a folder with this Message-ID field that are still there, oldest first.
func (s *Store) SentCopies(ctx context.Context, folder FolderID, messageID string) ([]SentCopy, error) {
	list, err := s.sentCopies(ctx, folder, "c.message_id = ?", messageID)
	return list, s.db.explain("list sent copies", err)
}

// SentCopiesBeside returns those copies of a folder that wait for Exchange's and have a message with the same Message-ID beside them.
func (s *Store) SentCopiesBeside(ctx context.Context, folder FolderID) ([]SentCopy, error) {
	first, last := messageIDs(folder)
	list, err := s.sentCopies(ctx, folder, `c.united = 0 AND EXISTS (SELECT 1 FROM messages own, messages other WHERE own.id = c.message
		AND other.message_id_hash = own.message_id_hash AND other.message_id_hash <> 0 AND other.message_id = own.message_id
		AND other.id <> own.id AND other.id BETWEEN ? AND ?)`, first, last)
	return list, s.db.explain("list sent copies", err)
}

// HasWaitingCopies reports whether any client's copy in a folder waits for Exchange's.
func (s *Store) HasWaitingCopies(ctx context.Context, folder FolderID) (bool, error) {
	first, last := messageIDs(folder)
	var has int
	err := s.db.row(ctx, []any{&has}, "SELECT EXISTS (SELECT 1 FROM sent_copies WHERE message BETWEEN ? AND ? AND united = 0)", first, last)
	return has != 0, s.db.explain("list sent copies", err)
}

func (s *Store) sentCopies(ctx context.Context, folder FolderID, where string, args ...any) ([]SentCopy, error) {
	first, last := messageIDs(folder)
	rows, err := s.db.query(ctx, `SELECT c.message, c.message_id, c.content, c.stored, c.united FROM sent_copies c
		WHERE c.message BETWEEN ? AND ? AND EXISTS (SELECT 1 FROM messages m WHERE m.id = c.message) AND `+where+" ORDER BY c.message", append([]any{first, last}, args...)...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []SentCopy
	for rows.Next() {
		var c SentCopy
		var id, stored, united int64
		if err := rows.Scan(&id, &c.MessageID, &c.Content, &stored, &united); err != nil {
			return nil, err
		}
		c.ID, c.Stored, c.United = MessageID(id), fromSeconds(stored), united != 0
		list = append(list, c)
	}
	return list, rows.Err()
}

// Unite makes a client's copy stand for Exchange's own, which r names and describes. The UID, what the client has stored and its
// flags stay; where they differ from Exchange's they are to be pushed. A message that the folder has for r already is taken
// out, and its flags are joined. The message that stood there before is dismissed.
//
// It is [ErrNotFound] if the copy is gone, or is no longer what was in Graph as from.
func (s *Store) Unite(ctx context.Context, id MessageID, from GraphID, r Remote) (Changes, error) {
	var ch Changes
	err := s.db.write(ctx, "unite sent copies", func(t *tx) error {
		ft, err := s.beginFolder(t, id.Folder())
		if err != nil {
			return err
		}
		have, err := ft.byUID([]imap.UID{id.UID()})
		if err != nil {
			return err
		}
		e := have[id.UID()]
		if e == nil || e.GraphID != from || from == r.GraphID {
			return ErrNotFound
		}
		twins, err := ft.byGraphID([]string{string(r.GraphID)})
		if err != nil {
			return err
		}
		e.uniteWith(twins[r.GraphID], &r)
		e.GraphID, e.gen = r.GraphID, ft.f.gen // it is there, whatever a listing under way has seen
		if e.Pending != 0 || e.PendingKeywords {
			if e.PendingSeq, err = t.nextPendingSeq(ft.f.Account); err != nil {
				return err
			}
		}
		if ch, err = ft.finish(); err != nil {
			return err
		}
		now := s.now().Unix()
		for _, step := range []struct {
			sql  string
			args []any
		}{
			{"UPDATE messages SET graph_id = ? WHERE id = ?", []any{string(r.GraphID), int64(id)}},
			{"UPDATE sent_copies SET united = 1 WHERE message = ?", []any{int64(id)}},
			{"INSERT INTO dismissed (folder, graph_id, at) VALUES (?, ?, ?) ON CONFLICT (folder, graph_id) DO NOTHING", []any{int64(ft.f.ID), string(from), now}},
		} {
			if _, err := t.exec(step.sql, step.args...); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return Changes{}, err
	}
	return ch, nil
}

// uniteWith takes over what is known of Exchange's copy: from r and, where the folder has a message for it, from twin, which goes.
func (e *entry) uniteWith(twin *entry, r *Remote) {
	theirs, mask, keywords := r.Flags, r.FlagsMask, r.Keywords
	if r.ThreadID != nil {
		e.ThreadID = strings.ReplaceAll(*r.ThreadID, "\n", "")
	}
	if twin != nil {
		twin.removed = true
		if mask == 0 {
			theirs, mask = twin.Flags, (FlagsAll|FlagIsDraft)&^twin.Pending
			if !twin.PendingKeywords {
				keywords = &twin.Keywords
			}
		}
		if r.ThreadID == nil {
			e.ThreadID = twin.ThreadID
		}
		// What clients have set on either is set. But for \Deleted: it was meant for the other one.
		e.Flags |= twin.Flags & (FlagSeen | FlagAnswered | FlagFlagged | FlagForwarded)
		if len(twin.Keywords) > 0 {
			e.setKeywords(append(append([]string(nil), e.Keywords...), twin.Keywords...))
		}
		e.Pending |= twin.Pending &^ FlagDeleted
	}
	e.Flags = e.Flags&^FlagIsDraft | theirs&mask&FlagIsDraft
	e.Pending |= (e.Flags ^ theirs) & mask & FlagsAll
	var have []string
	if keywords != nil {
		have = *keywords
	}
	if have = normalKeywords(have); strings.Join(have, " ") != e.keywords {
		e.touch(have, e.Keywords)
	}
}

// DismissedMessages returns the account's messages that are still to be removed from Graph.
func (s *Store) DismissedMessages(ctx context.Context, account AccountID) ([]Dismissed, error) {
	list, err := s.dismissedMessages(ctx, account)
	return list, s.db.explain("list dismissed messages", err)
}

func (s *Store) dismissedMessages(ctx context.Context, account AccountID) ([]Dismissed, error) {
	rows, err := s.db.query(ctx, `SELECT d.folder, d.graph_id, d.at FROM dismissed d JOIN folders f ON f.id = d.folder
		WHERE f.account = ? AND d.gone = 0 ORDER BY d.at, d.graph_id`, int64(account))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []Dismissed
	for rows.Next() {
		var d Dismissed
		var folder, at int64
		var id string
		if err := rows.Scan(&folder, &id, &at); err != nil {
			return nil, err
		}
		d.Folder, d.GraphID, d.At = FolderID(folder), GraphID(id), fromSeconds(at)
		list = append(list, d)
	}
	return list, rows.Err()
}

// DismissedGone notes that a dismissed message is no longer in Graph's folder. Rows that tell of it late are passed over all the
// same. With shown it is dismissed no longer: it cannot be removed, and the next listing may show it.
func (s *Store) DismissedGone(ctx context.Context, d Dismissed, shown bool) error {
	return s.db.write(ctx, "note removed copy", func(t *tx) error {
		if shown {
			_, err := t.exec("DELETE FROM dismissed WHERE folder = ? AND graph_id = ?", int64(d.Folder), string(d.GraphID))
			return err
		}
		_, err := t.exec("UPDATE dismissed SET gone = ? WHERE folder = ? AND graph_id = ?", s.now().Unix(), int64(d.Folder), string(d.GraphID))
		return err
	})
}

// PruneSentCopies forgets copies that were stored before a time, and dismissed messages that were gone by then.
func (s *Store) PruneSentCopies(ctx context.Context, before time.Time) error {
	return s.db.write(ctx, "forget sent copies", func(t *tx) error {
		if _, err := t.exec("DELETE FROM sent_copies WHERE stored < ?", before.Unix()); err != nil {
			return err
		}
		_, err := t.exec("DELETE FROM dismissed WHERE gone <> 0 AND gone < ?", before.Unix())
		return err
	})
}

// dismissed returns the ids that must not be shown in the folder.
func (ft *folderTx) dismissed() (map[GraphID]bool, error) {
	rows, err := ft.t.query("SELECT graph_id FROM dismissed WHERE folder = ?", int64(ft.f.ID))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var ids map[GraphID]bool
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		if ids == nil {
			ids = make(map[GraphID]bool)
		}
		ids[GraphID(id)] = true
	}
	return ids, rows.Err()
}
