package store

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
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
	ids := make([]MessageID, len(list))
	for i, h := range list {
		ids[i] = h.id
	}
	t.headersReplaced(ids)
	return t.insertHeaders(list, "DO UPDATE SET data = excluded.data")
}

// headersReplaced tells who wants to know that messages may have got other headers, once that is committed.
func (t *tx) headersReplaced(ids []MessageID) {
	if t.d.headersReplaced != nil && len(ids) > 0 {
		t.after = append(t.after, func() { t.d.headersReplaced(ids) })
	}
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
	ids := make([]MessageID, len(list))
	for i, c := range list {
		ids[i] = c.to
	}
	t.headersReplaced(ids)
	for _, c := range list {
		_, err := t.exec(`INSERT INTO headers (message, data) SELECT ?, data FROM headers WHERE message = ?
			ON CONFLICT (message) DO UPDATE SET data = excluded.data`, int64(c.to), int64(c.from))
		if err != nil {
			return err
		}
	}
	return nil
}

// LacksHeaders reports whether a folder has messages without a kept header.
func (s *Store) LacksHeaders(ctx context.Context, folder FolderID) (bool, error) {
	first, last := messageIDs(folder)
	for _, query := range []string{
		"SELECT id FROM messages WHERE header = 0 AND id BETWEEN ? AND ? LIMIT 1", // of these there is an index
		"SELECT id FROM messages WHERE header = 2 AND id BETWEEN ? AND ? LIMIT 1",
	} {
		if err := s.db.row(ctx, []any{new(int64)}, query, first, last); !errors.Is(err, ErrNotFound) {
			return err == nil, s.db.explain("look for headers", err)
		}
	}
	return false, nil
}

// LackingHeaders returns those of the messages of a folder with these ids that have no kept header.
func (s *Store) LackingHeaders(ctx context.Context, folder FolderID, ids []string) (map[string]MessageID, error) {
	out := make(map[string]MessageID, len(ids))
	err := inList(ids, []any{int64(folder)}, func(in string, args []any) error {
		rows, err := s.db.query(ctx, "SELECT graph_id, id, header FROM messages WHERE folder = ? AND graph_id IN ("+in+")", args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var graphID string
			var id, header int64
			if err := rows.Scan(&graphID, &id, &header); err != nil {
				return err
			}
			if header != headerKept {
				out[graphID] = MessageID(id)
			}
		}
		return rows.Err()
	})
	if err != nil {
		return nil, s.db.explain("look for headers", err)
	}
	return out, nil
}

// header returns the kept raw header of a message, nil if there is none.
func (ft *folderTx) header(id MessageID) ([]byte, error) {
	var data []byte
	err := ft.t.row([]any{&data}, "SELECT data FROM headers WHERE message = ?", int64(id))
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return ft.s.bodies.codec.unpack(data)
}

// replaceHeader makes header that of a message, or returns [ErrNotFound].
func (ft *folderTx) replaceHeader(id MessageID, header []byte) error {
	e, err := ft.message(id)
	if err != nil {
		return err
	}
	ft.setHeader(e, header)
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
	out := make(map[imap.UID][]byte, len(uids))
	err := s.EachHeader(ctx, folder, uids, func(uid imap.UID, header []byte) error {
		out[uid] = slices.Clone(header)
		return nil
	})
	return out, err
}

// headerRun is from how many messages on, of all that could be between the first and the last, their headers are read as one
// range of the table.
const headerRun = 16

// EachHeader yields the kept raw headers of those of the messages that have one, ascending by UID where uids are. A header
// is good during the call only. An error of yield ends it and is returned as it is.
func (s *Store) EachHeader(ctx context.Context, folder FolderID, uids []imap.UID, yield func(uid imap.UID, header []byte) error) error {
	var failed error
	var buf []byte
	each := func(id MessageID, data []byte) (err error) {
		if buf, err = s.bodies.codec.dec.DecodeAll(data, buf[:0]); err != nil {
			return fmt.Errorf("decompress: %w", err)
		}
		failed = yield(id.UID(), buf)
		return failed
	}
	err := s.eachHeader(ctx, folder, uids, each)
	if failed != nil {
		return failed
	}
	return s.db.explain("read headers", err)
}

func (s *Store) eachHeader(ctx context.Context, folder FolderID, uids []imap.UID, each func(MessageID, []byte) error) error {
	if n := len(uids); n >= headerRun && slices.IsSorted(uids) && int(uids[n-1]-uids[0]) < 4*n {
		return s.headerRange(ctx, folder, uids, each)
	}
	ids := make([]int64, len(uids))
	for i, uid := range uids {
		ids[i] = int64(messageID(folder, uid))
	}
	return inList(ids, nil, func(in string, args []any) error {
		rows, err := s.db.query(ctx, "SELECT message, data FROM headers WHERE message IN ("+in+")", args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id int64
			var data sql.RawBytes
			if err := rows.Scan(&id, &data); err != nil {
				return err
			}
			if err := each(MessageID(id), data); err != nil {
				return err
			}
		}
		return rows.Err()
	})
}

// headerRange reads from the first to the last of uids, which ascend, with the driver's own rows: database/sql does more
// for each of them than decompressing it costs.
func (s *Store) headerRange(ctx context.Context, folder FolderID, uids []imap.UID, each func(MessageID, []byte) error) error {
	conn, err := s.db.r.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	query := "SELECT message, data FROM headers WHERE message BETWEEN ? AND ? ORDER BY message"
	return conn.Raw(func(dc any) error {
		q, ok := dc.(driver.QueryerContext)
		if !ok {
			return fmt.Errorf("driver %T cannot query", dc)
		}
		rows, err := q.QueryContext(ctx, query, []driver.NamedValue{
			{Ordinal: 1, Value: int64(messageID(folder, uids[0]))}, {Ordinal: 2, Value: int64(messageID(folder, uids[len(uids)-1]))}})
		if err != nil {
			return err
		}
		return errors.Join(eachHeaderRow(rows, uids, each), rows.Close())
	})
}

// eachHeaderRow passes on the rows of the messages that are among uids.
func eachHeaderRow(rows driver.Rows, uids []imap.UID, each func(MessageID, []byte) error) error {
	values := make([]driver.Value, 2)
	for {
		switch err := rows.Next(values); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		id, isID := values[0].(int64)
		data, isData := values[1].([]byte)
		if !isID || !isData {
			return errPacked
		}
		uid := MessageID(id).UID()
		for len(uids) > 0 && uids[0] < uid {
			uids = uids[1:]
		}
		if len(uids) == 0 || uids[0] != uid {
			continue
		}
		if err := each(MessageID(id), data); err != nil {
			return err
		}
	}
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
