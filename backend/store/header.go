package store

import (
	"cmp"
	"context"
	"slices"

	"github.com/emersion/go-imap/v2"
)

// headerData is a packed header on its way into the table.
type headerData struct {
	id   MessageID
	data []byte
}

type headerCopy struct{ from, to MessageID }

// SetHeaders keeps raw headers, replacing earlier ones. A nil Header notes that
// Graph has none, unless one is kept. Messages that are gone are passed over.
func (s *Store) SetHeaders(ctx context.Context, rows []HeaderRow) error {
	return s.writeHeaders(ctx, rows, (*tx).putHeaders)
}

// AddHeaders is SetHeaders for messages that have no header yet; that of the others stays.
func (s *Store) AddHeaders(ctx context.Context, rows []HeaderRow) error {
	return s.writeHeaders(ctx, rows, (*tx).addHeaders)
}

func (s *Store) writeHeaders(ctx context.Context, rows []HeaderRow, write func(*tx, []headerData) error) error {
	type packed struct {
		id   int64
		data []byte
	}
	list := make([]packed, len(rows))
	for i, r := range rows {
		list[i].id = int64(r.ID)
		if r.Header != nil {
			list[i].data = s.bodies.codec.pack(r.Header)
		}
	}
	return s.db.write(ctx, "write headers", func(t *tx) error {
		ids := make([]int64, len(list))
		for i := range list {
			ids[i] = list[i].id
		}
		there := map[int64]bool{}
		err := inList(ids, nil, func(in string, args []any) error {
			found, err := t.ids("SELECT id FROM messages WHERE id IN ("+in+")", args...)
			for _, id := range found {
				there[id] = true
			}
			return err
		})
		if err != nil {
			return err
		}
		var kept, absent []int64
		var data []headerData
		for _, p := range list {
			switch {
			case !there[p.id]:
			case p.data == nil:
				absent = append(absent, p.id)
			default:
				kept = append(kept, p.id)
				data = append(data, headerData{MessageID(p.id), p.data})
			}
		}
		for _, mark := range []struct {
			ids   []int64
			query string
		}{
			{kept, "UPDATE messages SET header = 1 WHERE header <> 1 AND id IN ("},
			{absent, "UPDATE messages SET header = 2 WHERE header = 0 AND id IN ("},
		} {
			err := inList(mark.ids, nil, func(in string, args []any) error {
				_, err := t.exec(mark.query+in+")", args...)
				return err
			})
			if err != nil {
				return err
			}
		}
		return write(t, data)
	})
}

func (t *tx) putHeaders(list []headerData) error {
	return t.insertHeaders(list, "DO UPDATE SET data = excluded.data")
}

func (t *tx) addHeaders(list []headerData) error { return t.insertHeaders(list, "DO NOTHING") }

func (t *tx) insertHeaders(list []headerData, conflict string) error {
	// The last of two for one message wins; a statement may not hit a row twice.
	slices.SortStableFunc(list, func(a, b headerData) int { return cmp.Compare(a.id, b.id) })
	rows := newRowInserter(t, "headers (message, data)", 2, " ON CONFLICT (message) "+conflict)
	for i, h := range list {
		if i+1 < len(list) && list[i+1].id == h.id {
			continue
		}
		if err := rows.add(int64(h.id), h.data); err != nil {
			return err
		}
	}
	return rows.flush()
}

func (t *tx) copyHeaders(list []headerCopy) error {
	for _, c := range list {
		_, err := t.exec(`INSERT INTO headers (message, data) SELECT ?, data FROM headers WHERE message = ?
			ON CONFLICT (message) DO UPDATE SET data = excluded.data`, int64(c.to), int64(c.from))
		if err != nil {
			return err
		}
	}
	return nil
}

// Headers returns the kept raw headers of those messages that have one.
func (s *Store) Headers(ctx context.Context, ids []MessageID) (map[MessageID][]byte, error) {
	out := make(map[MessageID][]byte, len(ids))
	err := inList(ids, nil, func(in string, args []any) error {
		for i, a := range args {
			args[i] = int64(a.(MessageID))
		}
		rows, err := s.db.query(ctx, "SELECT message, data FROM headers WHERE message IN ("+in+")", args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id int64
			var data []byte
			if err := rows.Scan(&id, &data); err != nil {
				return err
			}
			if out[MessageID(id)], err = s.bodies.codec.unpack(data); err != nil {
				return err
			}
		}
		return rows.Err()
	})
	if err != nil {
		return nil, s.db.explain("read headers", err)
	}
	return out, nil
}

// HeadersOf is Headers for the messages with some UIDs of a folder.
func (s *Store) HeadersOf(ctx context.Context, folder FolderID, uids []imap.UID) (map[imap.UID][]byte, error) {
	ids := make([]MessageID, len(uids))
	for i, uid := range uids {
		ids[i] = messageID(folder, uid)
	}
	headers, err := s.Headers(ctx, ids)
	if err != nil {
		return nil, err
	}
	out := make(map[imap.UID][]byte, len(headers))
	for id, h := range headers {
		out[id.UID()] = h
	}
	return out, nil
}

// SetSize notes a message's size. An estimate does not replace an exact size. A
// message that is gone is passed over.
func (s *Store) SetSize(ctx context.Context, id MessageID, size int64, exact bool) (Changes, error) {
	return s.onMessage(ctx, "write size", id, func(e *entry) {
		if exact || !e.SizeExact {
			e.Size, e.SizeExact = max(size, 0), exact
		}
	})
}

// onMessage changes one message if it is there.
func (s *Store) onMessage(ctx context.Context, op string, id MessageID, fn func(*entry)) (Changes, error) {
	return s.inFolder(ctx, op, id.Folder(), func(ft *folderTx) error {
		list, err := loadEntries(ft, "id", nil, []int64{int64(id)})
		if err != nil {
			return err
		}
		for _, e := range list {
			fn(e)
		}
		return nil
	})
}
