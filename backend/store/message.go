package store

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/emersion/go-imap/v2"
)

// maxFolderID leaves room for the UID in a message's id.
const maxFolderID = 1<<31 - 1

func messageID(folder FolderID, uid imap.UID) MessageID {
	return MessageID(int64(folder)<<32 | int64(uid))
}

// messageIDs returns the first and the last id a message of the folder can have.
func messageIDs(folder FolderID) (first, last int64) {
	return int64(folder) << 32, int64(folder)<<32 | math.MaxUint32
}

// Folder returns the folder the id is in.
func (id MessageID) Folder() FolderID { return FolderID(id >> 32) }

// UID returns the UID the id stands for.
func (id MessageID) UID() imap.UID { return imap.UID(uint32(id)) }

// What messages.header says.
const (
	headerUnread = iota
	headerKept
	headerAbsent
)

const messageColumns = `id, graph_id, modseq, flags, keywords, received, sent, size, size_exact,
	message_id, thread_id, header, COALESCE(body, 0), pending, pending_keywords, pending_seq, gen, touched`

// messageRow is a row of the message table.
type messageRow struct {
	Message
	keywords string // as in the table; Keywords follows it
	touched  string // keywords that clients have changed since the last push; with PendingKeywords
	body     BodyID
	gen      int64
}

// messageScanner turns rows into messages. It reuses its buffers and shares equal
// keyword lists.
type messageScanner struct {
	id, modSeq, flags, received, sent, size, exact, header, body, pending, pendingKeywords, pendingSeq, gen int64

	graphID, keywords, messageID, threadID, touched string

	dest []any
	seen map[string][]string
}

func newMessageScanner() *messageScanner {
	s := &messageScanner{seen: map[string][]string{}}
	s.dest = []any{&s.id, &s.graphID, &s.modSeq, &s.flags, &s.keywords, &s.received, &s.sent, &s.size, &s.exact,
		&s.messageID, &s.threadID, &s.header, &s.body, &s.pending, &s.pendingKeywords, &s.pendingSeq, &s.gen, &s.touched}
	return s
}

// fill puts the row last scanned into m.
func (s *messageScanner) fill(m *messageRow) {
	id := MessageID(s.id)
	m.Message = Message{
		ID: id, Folder: id.Folder(), UID: id.UID(), GraphID: GraphID(s.graphID), ModSeq: uint64(s.modSeq),
		Flags: Flags(s.flags), Received: fromSeconds(s.received), Sent: fromSeconds(s.sent),
		Size: s.size, SizeExact: s.exact != 0, InternetMessageID: s.messageID, ThreadID: s.threadID,
		HasHeader: s.header == headerKept, HeaderAbsent: s.header == headerAbsent, HasBody: s.body != 0,
		Pending: Flags(s.pending), PendingKeywords: s.pendingKeywords != 0, PendingSeq: s.pendingSeq,
	}
	m.keywords, m.touched, m.body, m.gen = s.keywords, s.touched, BodyID(s.body), s.gen
	if s.keywords != "" {
		list, ok := s.seen[s.keywords]
		if !ok {
			list = strings.Split(s.keywords, " ")
			s.seen[s.keywords] = list
		}
		m.Keywords = list
	}
}

// each calls fn for every row and closes rows. fn may keep what it is given.
func (s *messageScanner) each(rows *sql.Rows, fn func(*messageRow)) error {
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(s.dest...); err != nil {
			return err
		}
		m := new(messageRow)
		s.fill(m)
		fn(m)
	}
	return rows.Err()
}

// Messages reads each row as one text: every column of its own costs an allocation
// or two on its way through the driver. A newline can be in none of the columns
// but the last. concat_ws is in SQLite and in PostgreSQL.
const packedMessage = `concat_ws(?, id, modseq, flags, received, sent, size, size_exact, header, COALESCE(body, 0),
	pending, pending_keywords, pending_seq, gen, keywords, graph_id, thread_id, message_id)`

// unpack reads what packedMessage made.
func (s *messageScanner) unpack(text string) error {
	for _, dest := range [...]*int64{&s.id, &s.modSeq, &s.flags, &s.received, &s.sent, &s.size, &s.exact, &s.header, &s.body,
		&s.pending, &s.pendingKeywords, &s.pendingSeq, &s.gen} {
		digits, rest, ok := strings.Cut(text, "\n")
		if !ok {
			return errPacked
		}
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil {
			return errPacked
		}
		*dest, text = n, rest
	}
	for _, dest := range [...]*string{&s.keywords, &s.graphID, &s.threadID} {
		field, rest, ok := strings.Cut(text, "\n")
		if !ok {
			return errPacked
		}
		*dest, text = field, rest
	}
	s.messageID = text
	return nil
}

var errPacked = errors.New("message row is not as expected")

// Messages returns all messages of a folder by UID. 100,000 take about 45 MB.
func (s *Store) Messages(ctx context.Context, folder FolderID) ([]Message, error) {
	list, err := s.messages(ctx, folder)
	return list, s.db.explain("list messages", err)
}

func (s *Store) messages(ctx context.Context, folder FolderID) ([]Message, error) {
	f, err := s.folderRow(ctx, folder)
	if err != nil {
		return nil, err
	}
	first, last := messageIDs(folder)
	conn, err := s.db.r.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	list := make([]Message, 0, f.Messages)
	query := "SELECT " + packedMessage + " FROM messages WHERE id BETWEEN ? AND ? ORDER BY id"
	err = conn.Raw(func(dc any) error {
		q, ok := dc.(driver.QueryerContext)
		if !ok {
			return fmt.Errorf("driver %T cannot query", dc)
		}
		rows, err := q.QueryContext(ctx, query, []driver.NamedValue{
			{Ordinal: 1, Value: "\n"}, {Ordinal: 2, Value: first}, {Ordinal: 3, Value: last}})
		if err != nil {
			return err
		}
		list, err = appendPacked(list, rows)
		return errors.Join(err, rows.Close())
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// appendPacked reads a driver's own rows, without what database/sql does for each.
func appendPacked(list []Message, rows driver.Rows) ([]Message, error) {
	var m messageRow
	sc := newMessageScanner()
	value := make([]driver.Value, 1)
	for {
		switch err := rows.Next(value); {
		case errors.Is(err, io.EOF):
			return list, nil
		case err != nil:
			return nil, err
		}
		text, ok := value[0].(string)
		if !ok {
			return nil, errPacked
		}
		if err := sc.unpack(text); err != nil {
			return nil, err
		}
		sc.fill(&m)
		list = append(list, m.Message)
	}
}

// Message returns one message, or [ErrNotFound].
func (s *Store) Message(ctx context.Context, id MessageID) (*Message, error) {
	list, err := s.find(ctx, "SELECT "+messageColumns+" FROM messages WHERE id = ?", int64(id))
	if err == nil && len(list) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return nil, s.db.explain("read message", err)
	}
	return &list[0], nil
}

// MessagesByUID returns those of the UIDs that are there, ascending.
func (s *Store) MessagesByUID(ctx context.Context, folder FolderID, uids []imap.UID) ([]Message, error) {
	ids := make([]int64, len(uids))
	for i, uid := range uids {
		ids[i] = int64(messageID(folder, uid))
	}
	// Lists are filled up with repeated values and may hold a UID twice in
	// different parts, so sort and make unique first.
	slices.Sort(ids)
	ids = slices.Compact(ids)
	list := make([]Message, 0, len(ids))
	err := inList(ids, nil, func(in string, args []any) error {
		part, err := s.find(ctx, "SELECT "+messageColumns+" FROM messages WHERE id IN ("+in+") ORDER BY id", args...)
		list = append(list, part...)
		return err
	})
	if err != nil {
		return nil, s.db.explain("read messages", err)
	}
	return list, nil
}

// MessageByGraphID returns the message in each folder of the account that holds
// it: two for a moment while a move is under way, else one or none.
func (s *Store) MessageByGraphID(ctx context.Context, account AccountID, id GraphID) ([]Message, error) {
	list, err := s.find(ctx, "SELECT "+messageColumns+` FROM messages WHERE graph_id = ?
		AND folder IN (SELECT f.id FROM folders f WHERE f.account = ?) ORDER BY id`, string(id), int64(account))
	return list, s.db.explain("read message", err)
}

// ByInternetMessageID returns the messages of the account with exactly this
// Message-ID, by folder and UID.
func (s *Store) ByInternetMessageID(ctx context.Context, account AccountID, id string) ([]Message, error) {
	if id == "" {
		return nil, nil
	}
	list, err := s.find(ctx, "SELECT "+messageColumns+` FROM messages WHERE message_id_hash = ? AND message_id_hash <> 0 AND message_id = ?
		AND folder IN (SELECT f.id FROM folders f WHERE f.account = ?) ORDER BY id`, hashMessageID(id), id, int64(account))
	return list, s.db.explain("find message id", err)
}

// Pending returns messages with local changes that are not in Graph yet, oldest
// change first, at most limit.
func (s *Store) Pending(ctx context.Context, account AccountID, limit int) ([]Message, error) {
	list, err := s.find(ctx, "SELECT "+messageColumns+` FROM messages WHERE pending_seq <> 0
		AND folder IN (SELECT f.id FROM folders f WHERE f.account = ?) ORDER BY pending_seq, id LIMIT ?`, int64(account), int64(limit))
	return list, s.db.explain("list pending changes", err)
}

// Touched returns, of messages whose keywords are pending, those keywords that clients have changed: they may be set now or
// not. What is missing was made pending by a version that did not note them.
func (s *Store) Touched(ctx context.Context, ids []MessageID) (map[MessageID][]string, error) {
	touched := make(map[MessageID][]string, len(ids))
	err := inList(ids, nil, func(in string, args []any) error {
		rows, err := s.db.query(ctx, "SELECT id, touched FROM messages WHERE touched <> '' AND id IN ("+in+")", args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id int64
			var list string
			if err := rows.Scan(&id, &list); err != nil {
				return err
			}
			touched[MessageID(id)] = strings.Split(list, " ")
		}
		return rows.Err()
	})
	return touched, s.db.explain("list changed keywords", err)
}

// MissingHeaders returns messages whose header was neither read nor found absent,
// highest UID first, at most limit.
func (s *Store) MissingHeaders(ctx context.Context, folder FolderID, limit int) ([]Message, error) {
	first, last := messageIDs(folder)
	list, err := s.find(ctx, "SELECT "+messageColumns+` FROM messages WHERE header = 0 AND id BETWEEN ? AND ?
		ORDER BY id DESC LIMIT ?`, first, last, int64(limit))
	return list, s.db.explain("list missing headers", err)
}

func (s *Store) find(ctx context.Context, query string, args ...any) ([]Message, error) {
	rows, err := s.db.query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	var list []Message
	err = newMessageScanner().each(rows, func(m *messageRow) { list = append(list, m.Message) })
	return list, err
}

// hashMessageID is what message_id_hash holds; never 0 but for the empty id.
func hashMessageID(id string) int64 {
	if id == "" {
		return 0
	}
	h := fnv.New64a()
	_, _ = io.WriteString(h, id)
	if v := int64(h.Sum64()); v != 0 {
		return v
	}
	return 1
}

// normalKeywords returns keywords as the table holds them: sorted, each once
// (their case does not matter, RFC 9051 section 2.3.2), without what cannot be a
// keyword because it is empty or holds blanks or controls.
func normalKeywords(list []string) []string {
	var out []string
	for _, k := range list {
		if k == "" || strings.ContainsFunc(k, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			continue
		}
		if !hasKeyword(out, k) {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, func(a, b string) int {
		return cmp.Or(strings.Compare(strings.ToLower(a), strings.ToLower(b)), strings.Compare(a, b))
	})
	return out
}

// touch notes that clients have changed those keywords which are only in one of the lists.
func (m *messageRow) touch(before, after []string) {
	list := strings.Fields(m.touched)
	for _, side := range [2][2][]string{{before, after}, {after, before}} {
		for _, k := range side[0] {
			if !hasKeyword(side[1], k) {
				list = append(list, k)
			}
		}
	}
	m.PendingKeywords, m.touched = true, strings.Join(normalKeywords(list), " ")
}

func hasKeyword(list []string, keyword string) bool {
	return slices.ContainsFunc(list, func(k string) bool { return strings.EqualFold(k, keyword) })
}

func (m *messageRow) setKeywords(list []string) {
	m.Keywords = normalKeywords(list)
	m.keywords = strings.Join(m.Keywords, " ")
}
