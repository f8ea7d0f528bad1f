package store

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"
)

// folderTx is one folder within a transaction. Messages are changed in memory
// through entries; finish then writes rows, counters, mod-sequence and journal in
// one go, so that no two of them can disagree.
type folderTx struct {
	s       *Store
	t       *tx
	f       *folderRow
	changed bool // the folder row must be written

	entries []*entry
	known   map[MessageID]*entry // loaded entries, so that no message has two
	headers []headerData
	ch      Changes
}

// entry is one message in a folderTx.
type entry struct {
	messageRow            // as it shall be
	old        messageRow // as it is in the table
	isNew      bool
	removed    bool
}

func (s *Store) beginFolder(t *tx, id FolderID) (*folderTx, error) {
	f, err := t.folder(id)
	if err != nil {
		return nil, err
	}
	return &folderTx{s: s, t: t, f: f, known: map[MessageID]*entry{}, ch: Changes{Folder: id}}, nil
}

// loadEntries reads the messages of which the column named last in where has one of
// the values; before are the arguments of what stands ahead of it.
func loadEntries[T any](ft *folderTx, where string, before []any, values []T) ([]*entry, error) {
	var list []*entry
	sc := newMessageScanner()
	err := inList(values, before, func(in string, args []any) error {
		rows, err := ft.t.query("SELECT "+messageColumns+" FROM messages WHERE "+where+" IN ("+in+")", args...)
		if err != nil {
			return err
		}
		return sc.each(rows, func(m *messageRow) { list = append(list, ft.entry(m)) })
	})
	return list, err
}

func (ft *folderTx) entry(m *messageRow) *entry {
	if e := ft.known[m.ID]; e != nil {
		return e
	}
	e := &entry{messageRow: *m, old: *m}
	ft.known[m.ID] = e
	ft.entries = append(ft.entries, e)
	return e
}

// byGraphID returns the messages with these ids.
func (ft *folderTx) byGraphID(ids []string) (map[GraphID]*entry, error) {
	list, err := loadEntries(ft, "folder = ? AND graph_id", []any{int64(ft.f.ID)}, ids)
	if err != nil {
		return nil, err
	}
	m := make(map[GraphID]*entry, len(list))
	for _, e := range list {
		m[e.GraphID] = e
	}
	return m, nil
}

// byUID returns the messages with these UIDs.
func (ft *folderTx) byUID(uids []imap.UID) (map[imap.UID]*entry, error) {
	ids := make([]int64, len(uids))
	for i, uid := range uids {
		ids[i] = int64(messageID(ft.f.ID, uid))
	}
	list, err := loadEntries(ft, "id", nil, ids)
	if err != nil {
		return nil, err
	}
	m := make(map[imap.UID]*entry, len(list))
	for _, e := range list {
		m[e.UID] = e
	}
	return m, nil
}

// add gives a message the next UID.
func (ft *folderTx) add(m messageRow) (*entry, error) {
	if m.GraphID == "" || strings.Contains(string(m.GraphID), "\n") { // see packedMessage
		return nil, fmt.Errorf("%q cannot be the id of a message", string(m.GraphID))
	}
	uid := ft.f.UIDNext
	if uid == math.MaxUint32 {
		return nil, ErrUIDsExhausted
	}
	ft.f.UIDNext = uid + 1
	m.ID, m.Folder, m.UID, m.gen = messageID(ft.f.ID, uid), ft.f.ID, uid, ft.f.gen
	e := &entry{messageRow: m, isNew: true}
	ft.entries = append(ft.entries, e)
	return e, nil
}

// merge puts what a row from Graph says into the message.
func (ft *folderTx) merge(e *entry, r *Remote) {
	known := r.FlagsMask &^ e.Pending
	keywords := r.Keywords != nil && !e.PendingKeywords
	if ft.doubted(e, r, known, keywords) {
		ft.ch.Doubted = append(ft.ch.Doubted, e.GraphID)
	}
	if !e.isNew {
		known &^= r.Doubt
		keywords = keywords && !r.DoubtKeywords
	}
	e.Flags = e.Flags&^known | r.Flags&known
	if keywords {
		e.setKeywords(*r.Keywords)
	}
	// A message's INTERNALDATE stays what clients were told (RFC 9051 section 2.3.3);
	// an appended draft has another date than Graph says.
	if r.Received != nil && e.Received.IsZero() {
		e.Received = fromSeconds(seconds(*r.Received))
	}
	if r.Sent != nil {
		e.Sent = fromSeconds(seconds(*r.Sent))
	}
	if r.SizeEstimate != nil && !e.SizeExact {
		e.Size = max(*r.SizeEstimate, 0)
	}
	set(&e.InternetMessageID, r.InternetMessageID)
	if r.ThreadID != nil {
		e.ThreadID = strings.ReplaceAll(*r.ThreadID, "\n", "") // see packedMessage
	}
	if r.Header != nil && !e.HasHeader {
		ft.setHeader(e, r.Header)
	}
	e.gen = ft.f.gen
}

// doubted reports whether the row says something else in what is in doubt. Of a message that is new nothing else is known.
func (ft *folderTx) doubted(e *entry, r *Remote, known Flags, keywords bool) bool {
	if known &= r.Doubt; known != 0 && (e.isNew || (e.Flags^r.Flags)&known != 0) {
		return true
	}
	if !keywords || !r.DoubtKeywords {
		return false
	}
	is := entry{messageRow: e.messageRow}
	is.setKeywords(*r.Keywords)
	return e.isNew || !strings.EqualFold(is.keywords, e.keywords)
}

func (ft *folderTx) setHeader(e *entry, header []byte) {
	ft.headers = append(ft.headers, headerData{e.ID, ft.s.bodies.codec.pack(header)})
	e.HasHeader, e.HeaderAbsent = true, false
}

// shows reports whether clients see the difference as a change of the message,
// which then gets a new mod-sequence (RFC 7162 section 3: flags and keywords; the
// rest of a message never changes in IMAP's eyes).
func (e *entry) shows() bool {
	return e.Flags != e.old.Flags || e.keywords != e.old.keywords
}

// differs reports whether there is something to tell to whoever holds a copy.
func (e *entry) differs() bool {
	return e.shows() || e.GraphID != e.old.GraphID || !e.Received.Equal(e.old.Received) || !e.Sent.Equal(e.old.Sent) ||
		e.Size != e.old.Size || e.SizeExact != e.old.SizeExact ||
		e.InternetMessageID != e.old.InternetMessageID || e.ThreadID != e.old.ThreadID ||
		e.HasHeader != e.old.HasHeader || e.HeaderAbsent != e.old.HeaderAbsent || e.HasBody != e.old.HasBody
}

// stored reports whether the row must be written, apart from its gen.
func (e *entry) stored() bool {
	return e.differs() || e.body != e.old.body || e.Pending != e.old.Pending ||
		e.PendingKeywords != e.old.PendingKeywords || e.touched != e.old.touched || e.PendingSeq != e.old.PendingSeq
}

// count adds a message to the folder's counters, or takes it away.
func (ft *folderTx) count(m *messageRow, sign int) {
	ft.f.Messages += sign
	if m.Flags&FlagSeen == 0 {
		ft.f.Unseen += sign
	}
	if m.Flags&FlagDeleted != 0 {
		ft.f.DeletedCount += sign
	}
	ft.f.SizeSum += int64(sign) * m.Size
}

// finish writes everything and returns what was done.
func (ft *folderTx) finish() (Changes, error) {
	var (
		added, updated, removed []*entry
		seen                    []int64 // only gen differs
		freed                   []int64
	)
	modSeq := ft.f.HighestModSeq + 1
	bumped := false
	for _, e := range ft.entries {
		switch {
		case e.removed && e.isNew: // came and went: its UID is spent all the same
		case e.removed:
			ft.count(&e.old, -1)
			removed = append(removed, e)
			bumped = true
		case e.isNew:
			e.ModSeq = modSeq
			ft.count(&e.messageRow, 1)
			added = append(added, e)
			bumped = true
		case e.stored():
			if e.shows() {
				e.ModSeq = modSeq
				bumped = true
			}
			ft.count(&e.old, -1)
			ft.count(&e.messageRow, 1)
			updated = append(updated, e)
		case e.gen != e.old.gen:
			seen = append(seen, int64(e.ID))
		}
		if !e.isNew && e.old.body != 0 && (e.removed || e.body != e.old.body) {
			freed = append(freed, int64(e.old.body))
		}
	}
	for _, list := range [][]*entry{updated, removed} {
		slices.SortFunc(list, func(a, b *entry) int { return cmp.Compare(a.ID, b.ID) })
	}
	if bumped {
		ft.f.HighestModSeq = modSeq
	}
	// Removals first: what comes back in the same transaction has the same Graph id.
	for _, step := range []func() error{
		func() error { return ft.delete(removed, modSeq) },
		func() error { return ft.insert(added) },
		func() error { return ft.update(updated) },
		func() error {
			return inList(seen, []any{ft.f.gen}, func(in string, args []any) error {
				_, err := ft.t.exec("UPDATE messages SET gen = ? WHERE id IN ("+in+")", args...)
				return err
			})
		},
		func() error { return ft.t.putHeaders(ft.headers) },
		func() error { return ft.s.bodies.release(ft.t, freed) },
		func() error {
			if len(added)+len(updated)+len(removed) == 0 && !ft.changed {
				return nil
			}
			return ft.t.putFolderRow(ft.f)
		},
	} {
		if err := step(); err != nil {
			return Changes{}, err
		}
	}
	ch := ft.ch
	ch.UIDNext, ch.HighestModSeq = ft.f.UIDNext, ft.f.HighestModSeq
	for _, e := range added {
		ch.Added = append(ch.Added, e.Message)
	}
	for _, e := range updated {
		if e.differs() {
			ch.Updated = append(ch.Updated, e.Message)
		}
	}
	for _, e := range removed {
		ch.Removed = append(ch.Removed, Removed{UID: e.UID, ModSeq: modSeq, GraphID: e.GraphID})
	}
	return ch, nil
}

func (ft *folderTx) delete(list []*entry, modSeq uint64) error {
	if len(list) == 0 {
		return nil
	}
	ids := make([]int64, len(list))
	for i, e := range list {
		ids[i] = int64(e.ID)
	}
	err := inList(ids, nil, func(in string, args []any) error {
		if _, err := ft.t.exec("DELETE FROM headers WHERE message IN ("+in+")", args...); err != nil {
			return err
		}
		_, err := ft.t.exec("DELETE FROM messages WHERE id IN ("+in+")", args...)
		return err
	})
	if err != nil {
		return err
	}
	now := ft.s.now().Unix()
	rows := newRowInserter(ft.t, "removed (folder, modseq, uid, removed_at)", 4, "")
	for _, e := range list {
		if err := rows.add(int64(ft.f.ID), int64(modSeq), int64(e.UID), now); err != nil {
			return err
		}
	}
	return rows.flush()
}

func (ft *folderTx) insert(list []*entry) error {
	rows := newRowInserter(ft.t, `messages (id, folder, graph_id, modseq, flags, keywords, received, sent, size, size_exact,
		message_id, message_id_hash, thread_id, header, body, pending, pending_keywords, pending_seq, gen, touched)`, 20, "")
	for _, e := range list {
		err := rows.add(int64(e.ID), int64(e.Folder), string(e.GraphID), int64(e.ModSeq), int64(e.Flags), e.keywords,
			seconds(e.Received), seconds(e.Sent), e.Size, intOf(e.SizeExact),
			e.InternetMessageID, hashMessageID(e.InternetMessageID), e.ThreadID, e.headerState(), nullable(int64(e.body)),
			int64(e.Pending), intOf(e.PendingKeywords), e.PendingSeq, e.gen, e.touched)
		if err != nil {
			return err
		}
	}
	return rows.flush()
}

func (ft *folderTx) update(list []*entry) error {
	for _, e := range list {
		var err error
		if e.onlyFlags() {
			// By far the most frequent change; it touches no index but that of pending changes.
			_, err = ft.t.exec("UPDATE messages SET modseq = ?, flags = ?, keywords = ?, pending = ?, pending_keywords = ?, pending_seq = ?, gen = ?, touched = ? WHERE id = ?",
				int64(e.ModSeq), int64(e.Flags), e.keywords, int64(e.Pending), intOf(e.PendingKeywords), e.PendingSeq, e.gen, e.touched, int64(e.ID))
		} else {
			_, err = ft.t.exec(`UPDATE messages SET modseq = ?, flags = ?, keywords = ?, received = ?, sent = ?, size = ?, size_exact = ?,
				message_id = ?, message_id_hash = ?, thread_id = ?, header = ?, body = ?,
				pending = ?, pending_keywords = ?, pending_seq = ?, gen = ?, touched = ? WHERE id = ?`,
				int64(e.ModSeq), int64(e.Flags), e.keywords, seconds(e.Received), seconds(e.Sent), e.Size, intOf(e.SizeExact),
				e.InternetMessageID, hashMessageID(e.InternetMessageID), e.ThreadID, e.headerState(), nullable(int64(e.body)),
				int64(e.Pending), intOf(e.PendingKeywords), e.PendingSeq, e.gen, e.touched, int64(e.ID))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (e *entry) onlyFlags() bool {
	other := *e
	other.Flags, other.keywords = e.old.Flags, e.old.keywords
	return !other.differs() && e.body == e.old.body
}

func (m *messageRow) headerState() int64 {
	switch {
	case m.HasHeader:
		return headerKept
	case m.HeaderAbsent:
		return headerAbsent
	}
	return headerUnread
}

func nullable(n int64) any {
	if n == 0 {
		return nil
	}
	return n
}

// rowInserter inserts many rows with few statements: a call into the engine costs
// more than a row.
type rowInserter struct {
	t       *tx
	head    string
	tail    string
	columns int
	args    []any
}

const insertRows = 32

func newRowInserter(t *tx, into string, columns int, tail string) *rowInserter {
	return &rowInserter{t: t, head: "INSERT INTO " + into + " VALUES ", tail: tail, columns: columns}
}

func (r *rowInserter) add(values ...any) error {
	r.args = append(r.args, values...)
	if len(r.args) < insertRows*r.columns {
		return nil
	}
	return r.exec(insertRows)
}

func (r *rowInserter) exec(rows int) error {
	row := "(?" + strings.Repeat(",?", r.columns-1) + ")"
	_, err := r.t.exec(r.head+row+strings.Repeat(","+row, rows-1)+r.tail, r.args[:rows*r.columns]...)
	r.args = slices.Delete(r.args, 0, rows*r.columns)
	return err
}

func (r *rowInserter) flush() error {
	for len(r.args) > 0 {
		if err := r.exec(1); err != nil {
			return err
		}
	}
	return nil
}
