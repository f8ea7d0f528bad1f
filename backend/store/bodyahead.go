package store

import (
	"context"
	"database/sql"
	"slices"
	"sync"
)

// bodyRow is what opening a body needs of its row. None of it changes but accessed.
type bodyRow struct {
	id, size, stored, accessed int64
	name                       string
	index                      []byte
}

const (
	bodiesAhead    = 16      // rows read at once for who reads one message after another
	keptAhead      = 256     // rows kept at once
	maxIndexAhead  = 8 << 10 // an index over this is not kept
	messagesBehind = 64      // bodies opened last that are remembered
	stepAhead      = 4       // how far apart two messages in a row may be
)

// aheadRows keeps rows of bodies that are probably opened next: most programs read the messages of a folder one after
// another, and a question to the database takes as long as everything else about a body. All are forgotten when a message
// loses its body or gets another one.
type aheadRows struct {
	mu     sync.Mutex
	rows   map[MessageID]bodyRow
	age    int                       // grows when the rows are forgotten
	behind [messagesBehind]MessageID // a ring
	next   int
}

// take returns the row of a message if it is kept.
func (a *aheadRows) take(id MessageID) (row bodyRow, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if row, ok = a.rows[id]; ok {
		delete(a.rows, id)
		a.openedLocked(id)
	}
	return row, ok
}

// opened notes that a message's body is being opened, and reports whether the next ones will probably be, too. Rows that are
// read then can be kept at that age.
func (a *aheadRows) opened(id MessageID) (inOrder bool, age int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	inOrder = slices.ContainsFunc(a.behind[:], func(b MessageID) bool { return b < id && id-b <= stepAhead })
	a.openedLocked(id)
	return inOrder, a.age
}

func (a *aheadRows) openedLocked(id MessageID) {
	a.behind[a.next] = id
	a.next = (a.next + 1) % len(a.behind)
}

// forget is called when a change of the messages' bodies has been committed.
func (a *aheadRows) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.rows)
	a.age++
}

func (a *aheadRows) keep(id MessageID, row bodyRow, age int) {
	if len(row.index) > maxIndexAhead {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if age != a.age {
		return // the row is from before a change
	}
	if a.rows == nil || len(a.rows) >= keptAhead {
		a.rows = make(map[MessageID]bodyRow)
	}
	a.rows[id] = row
}

// bodyRow reads the row of a message's body, and those of the next ones where they will probably be wanted. [ErrNotFound]
// if it has none.
func (s *Store) bodyRow(ctx context.Context, id MessageID) (bodyRow, error) {
	const columns = "SELECT m.id, b.id, b.file, b.size, b.stored, b.accessed, b.idx FROM messages m JOIN bodies b ON b.id = m.body WHERE "
	var query string
	var args []any
	inOrder, age := s.bodies.ahead.opened(id)
	if inOrder {
		_, last := messageIDs(id.Folder())
		query, args = columns+"m.id BETWEEN ? AND ? ORDER BY m.id", []any{int64(id), min(int64(id)+bodiesAhead-1, last)}
	} else {
		query, args = columns+"m.id = ?", []any{int64(id)}
	}
	rows, err := s.db.query(ctx, query, args...)
	if err != nil {
		return bodyRow{}, err
	}
	defer rows.Close()
	found := bodyRow{}
	for rows.Next() {
		var m int64
		row, err := scanBodyRow(rows, &m)
		switch {
		case err != nil:
			return bodyRow{}, err
		case MessageID(m) == id:
			found = row
		default:
			s.bodies.ahead.keep(MessageID(m), row, age)
		}
	}
	if err := rows.Err(); err != nil {
		return bodyRow{}, err
	}
	if found.id == 0 {
		return bodyRow{}, ErrNotFound
	}
	return found, nil
}

func scanBodyRow(rows *sql.Rows, message *int64) (row bodyRow, err error) {
	err = rows.Scan(message, &row.id, &row.name, &row.size, &row.stored, &row.accessed, &row.index)
	return row, err
}
