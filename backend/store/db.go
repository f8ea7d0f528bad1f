package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// database is one SQLite file with one connection that writes and a few that
// read. Readers see the last committed state and never wait for the writer.
type database struct {
	kind *dbKind
	path string
	w, r *sql.DB

	headersReplaced func([]MessageID) // Options.HeadersReplaced

	closed    chan struct{}
	closeOnce sync.Once

	migrated  bool          // when it was opened
	folderAge atomic.Uint64 // grows with each commit that may have changed a row of folders

	writing chan struct{}        // holds a token while a transaction is open
	stmtsW  map[string]*sql.Stmt // belongs to the holder of that token

	mu     sync.Mutex
	stmtsR map[string]*sql.Stmt
}

// dbKind tells the two databases apart.
type dbKind struct {
	file          string
	migrations    string // folder in the embedded file system
	applicationID int64
	advice        string // what a person can do about a damaged file
}

var replicaKind = &dbKind{
	file: "replica.db", migrations: "migrations/sqlite/replica", applicationID: 0x506f5352,
	advice: "stop postern, move the file (and its -wal and -shm) away and start again: the replica is then read anew from Microsoft 365, and mail clients load their folders again",
}

var outboxKind = &dbKind{
	file: "outbox.db", migrations: "migrations/sqlite/outbox", applicationID: 0x506f534f,
	advice: "stop postern and restore the file from a backup, or move it (and its -wal and -shm) away and start again: messages that were still queued are then put into the folder unsent of the state folder",
}

const readers = 4 // connections per database; SQLite reads are short

// openDatabase opens or creates the file and brings its tables up to date.
func openDatabase(ctx context.Context, dir string, kind *dbKind) (_ *database, created bool, err error) {
	path := filepath.Join(dir, kind.file)
	// Made by us, because SQLite would leave the mode to the umask; its -wal and
	// -shm take the mode of the database.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, false, fmt.Errorf("open %s: %w", path, err)
	}
	info, err := f.Stat()
	f.Close()
	if err != nil {
		return nil, false, fmt.Errorf("open %s: %w", path, err)
	}
	d, err := newDatabase(path, kind, false)
	if err != nil {
		return nil, false, err
	}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if err := d.checkOwner(ctx, info.Size() == 0); err != nil {
		return nil, false, err
	}
	if err := d.migrate(ctx); err != nil {
		return nil, false, err
	}
	return d, info.Size() == 0, nil
}

// newDatabase sets up the handles; nothing is opened yet.
func newDatabase(path string, kind *dbKind, readOnly bool) (*database, error) {
	d := &database{
		kind: kind, path: path, writing: make(chan struct{}, 1), closed: make(chan struct{}),
		stmtsW: map[string]*sql.Stmt{}, stmtsR: map[string]*sql.Stmt{},
	}
	var err error
	if d.r, err = sql.Open("sqlite", dsn(path, "query_only(1)", "cache_size(-16384)")); err != nil {
		return nil, d.explain("open", err)
	}
	d.r.SetMaxOpenConns(readers)
	d.r.SetMaxIdleConns(readers)
	if readOnly {
		return d, nil
	}
	// FULL: what a client or a device was told must outlive a power cut.
	if d.w, err = sql.Open("sqlite", dsn(path, "journal_mode(WAL)", "synchronous(FULL)", "wal_autocheckpoint(4000)", "cache_size(-65536)", "temp_store(MEMORY)")); err != nil {
		d.r.Close()
		return nil, d.explain("open", err)
	}
	d.w.SetMaxOpenConns(1)
	d.w.SetMaxIdleConns(1)
	return d, nil
}

func dsn(path string, pragmas ...string) string {
	name := filepath.ToSlash(path)
	if filepath.VolumeName(path) != "" {
		name = "/" + name // file:/C:/…, as SQLite wants it on Windows
	}
	q := url.Values{"_txlock": {"immediate"}, "_pragma": append([]string{"busy_timeout(10000)"}, pragmas...)}
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: name}).EscapedPath(), RawQuery: q.Encode()}).String()
}

// checkOwner refuses a database that is somebody else's before any table is made in it.
func (d *database) checkOwner(ctx context.Context, empty bool) error {
	if empty {
		return nil
	}
	var id, tables int64
	err := d.w.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id)
	if err == nil {
		err = d.w.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_master").Scan(&tables)
	}
	if err != nil {
		return d.explain("open", err)
	}
	if id == d.kind.applicationID || (id == 0 && tables == 0) {
		return nil
	}
	// A crash in the very first migration leaves goose's own table alone.
	if id == 0 {
		var foreign int64
		err := d.w.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_master WHERE tbl_name NOT IN ('"+migrationTable+"', 'sqlite_sequence')").Scan(&foreign)
		if err != nil {
			return d.explain("open", err)
		}
		if foreign == 0 {
			return nil
		}
	}
	return fmt.Errorf("open %s: this is an SQLite database of another program (application id %#x, want %#x): move it away or choose another state folder", d.path, id, d.kind.applicationID)
}

func (d *database) close() error {
	d.closeOnce.Do(func() { close(d.closed) })
	d.writing <- struct{}{} // waits for a transaction under way, and lets none begin
	defer func() { <-d.writing }()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, m := range []map[string]*sql.Stmt{d.stmtsW, d.stmtsR} {
		for q, st := range m {
			st.Close()
			delete(m, q)
		}
	}
	err := d.r.Close()
	if d.w != nil {
		// Last, so that this connection checkpoints and removes the -wal.
		err = errors.Join(err, d.w.Close())
	}
	return err
}

// explain adds the operation, and what to do if the file itself is at fault.
func (d *database) explain(op string, err error) error {
	if err == nil {
		return nil
	}
	var se *sqlite.Error
	if errors.As(err, &se) {
		switch se.Code() & 0xff {
		case sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT:
			return fmt.Errorf("%s: %s %w: %s: %w", op, d.path, ErrDamaged, d.kind.advice, err)
		case sqlite3.SQLITE_FULL:
			return fmt.Errorf("%s: %w for %s: %w", op, ErrNoSpace, d.path, err)
		}
	}
	return fmt.Errorf("%s: %w", op, err)
}

// reader returns a cached prepared statement for reading.
func (d *database) reader(query string) (*sql.Stmt, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if st := d.stmtsR[query]; st != nil {
		return st, nil
	}
	// Not the caller's context: the statement stays for others.
	st, err := d.r.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, err
	}
	d.stmtsR[query] = st
	return st, nil
}

// query reads outside a transaction.
func (d *database) query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	st, err := d.reader(query)
	if err != nil {
		return nil, err
	}
	return st.QueryContext(ctx, args...)
}

// row reads one row outside a transaction; no row is [ErrNotFound].
func (d *database) row(ctx context.Context, dest []any, query string, args ...any) error {
	st, err := d.reader(query)
	if err != nil {
		return err
	}
	return notFound(st.QueryRowContext(ctx, args...).Scan(dest...))
}

func notFound(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	return err
}

// tx is one writing transaction. Its statements do not follow the caller's
// context: once begun it takes milliseconds, and a watcher per statement costs
// more than it could save.
type tx struct {
	d       *database
	tx      *sql.Tx
	stmts   map[string]*sql.Stmt
	folders bool     // a statement was about folders
	fresh   []string // queries in stmts that are not in the database's cache yet
	after   []func() // to do once it is committed
}

// write runs fn in a transaction and commits it, or leaves everything as it was.
func (d *database) write(ctx context.Context, op string, fn func(*tx) error) error {
	select {
	case d.writing <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", op, ctx.Err())
	case <-d.closed:
		return fmt.Errorf("%s: %w", op, ErrClosed)
	}
	after, err := d.writeLocked(ctx, fn)
	<-d.writing
	if err != nil {
		return d.explain(op, err)
	}
	for _, f := range after {
		f()
	}
	return nil
}

func (d *database) writeLocked(ctx context.Context, fn func(*tx) error) ([]func(), error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	sqlTx, err := d.w.BeginTx(context.Background(), nil)
	if err != nil {
		return nil, err
	}
	t := &tx{d: d, tx: sqlTx, stmts: map[string]*sql.Stmt{}}
	committed := false
	defer func() {
		if !committed {
			sqlTx.Rollback()
		}
	}()
	if err := fn(t); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := sqlTx.Commit(); err != nil {
		return nil, err
	}
	committed = true
	if t.folders {
		d.folderAge.Add(1)
	}
	for _, query := range t.fresh {
		if st, err := d.w.PrepareContext(context.Background(), query); err == nil {
			d.stmtsW[query] = st // an error is met again, and reported, by the next user
		}
	}
	return t.after, nil
}

func (t *tx) stmt(query string) (*sql.Stmt, error) {
	t.folders = t.folders || !strings.HasPrefix(query, "SELECT") && strings.Contains(query, "folders")
	if st := t.stmts[query]; st != nil {
		return st, nil
	}
	var st *sql.Stmt
	if kept := t.d.stmtsW[query]; kept != nil {
		st = t.tx.StmtContext(context.Background(), kept)
	} else {
		// The one connection is taken by this transaction, so the statement is
		// the transaction's; writeLocked then prepares it for those to come.
		var err error
		st, err = t.tx.PrepareContext(context.Background(), query)
		if err != nil {
			return nil, err
		}
		t.fresh = append(t.fresh, query)
	}
	t.stmts[query] = st
	return st, nil
}

func (t *tx) exec(query string, args ...any) (sql.Result, error) {
	st, err := t.stmt(query)
	if err != nil {
		return nil, err
	}
	return st.ExecContext(context.Background(), args...)
}

func (t *tx) query(query string, args ...any) (*sql.Rows, error) {
	st, err := t.stmt(query)
	if err != nil {
		return nil, err
	}
	return st.QueryContext(context.Background(), args...)
}

func (t *tx) row(dest []any, query string, args ...any) error {
	st, err := t.stmt(query)
	if err != nil {
		return err
	}
	return notFound(st.QueryRowContext(context.Background(), args...).Scan(dest...))
}

// inSizes are the lengths of the lists in IN (…); few, so that the statements can be cached.
var inSizes = [...]int{1, 8, 64, 256}

// inList calls fn for slices of values with the placeholders and arguments for
// an IN list. The list is filled up by repeating its last value.
func inList[T any](values []T, before []any, fn func(placeholders string, args []any) error) error {
	for len(values) > 0 {
		size := inSizes[len(inSizes)-1]
		for _, s := range inSizes {
			if s >= len(values) {
				size = s
				break
			}
		}
		n := min(size, len(values))
		args := make([]any, 0, len(before)+size)
		args = append(args, before...)
		for i := range size {
			args = append(args, any(values[min(i, n-1)]))
		}
		if err := fn("?"+strings.Repeat(",?", size-1), args); err != nil {
			return err
		}
		values = values[n:]
	}
	return nil
}
