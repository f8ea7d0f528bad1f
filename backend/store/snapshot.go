package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A snapshot is a folder that looks like a state folder at one moment, with a manifest. It can be made while a server
// works on the state: the databases are copied by SQLite, each as of one transaction, and the files they
// name never change while they are there.

// ManifestFile is in every snapshot, and says what it is.
const ManifestFile = "backup.json"

// SnapshotFormat is the version of the layout.
const SnapshotFormat = 1

// Manifest says what a snapshot is.
type Manifest struct {
	Format  int        `json:"format"`
	Created time.Time  `json:"created"`
	Program string     `json:"program"`        // the version that made it
	Replica int64      `json:"replica_schema"` // 0: there is no replica
	Outbox  int64      `json:"outbox_schema"`
	Bodies  BodyChoice `json:"bodies"`
}

// BodyChoice says which kept bodies a snapshot has. All can be read again from Microsoft 365, though not always to the byte.
type BodyChoice string

// The choices.
const (
	NoBodies       BodyChoice = "none"
	AppendedBodies BodyChoice = "appended" // what clients have stored themselves
	AllBodies      BodyChoice = "all"
)

// SnapshotOptions say what goes into a snapshot.
type SnapshotOptions struct {
	Program string
	Bodies  BodyChoice
	Now     func() time.Time // nil: time.Now
	// Progress is told what is being copied, with the size in bytes of a database. May be nil.
	Progress func(what string, size int64)
}

// notCopied are the names in a state folder that a snapshot leaves out: those it treats by itself, and what has a meaning
// for the running process or for one folder only.
func notCopied(name string) bool {
	for _, kind := range []*dbKind{replicaKind, outboxKind} {
		if name == kind.file || strings.HasPrefix(name, kind.file+"-") {
			return true
		}
	}
	switch name {
	case "spool", "bodies", lockFile, beforeUpdate, restoring, ManifestFile, "reload", "config-in-use.json":
		return true
	}
	return strings.HasPrefix(name, ".") || strings.HasPrefix(name, ReplacedPrefix) || strings.HasSuffix(name, ".lock")
}

// Snapshot copies the state folder dir to the new folder dest, which should be on the same file system: files that never
// change are linked then, not copied.
func Snapshot(ctx context.Context, dir, dest string, o SnapshotOptions) (*Manifest, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Progress == nil {
		o.Progress = func(string, int64) {}
	}
	m := &Manifest{Format: SnapshotFormat, Created: o.Now().UTC().Truncate(time.Second), Program: o.Program, Bodies: o.Bodies}
	if err := os.MkdirAll(filepath.Join(dest, "spool"), 0o700); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	var err error
	// The replica first: the outbox, which minds that no UIDVALIDITY comes twice, must not be the older one.
	if m.Replica, err = copyDatabase(ctx, dir, dest, replicaKind, o.Progress); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if m.Outbox, err = copyDatabase(ctx, dir, dest, outboxKind, o.Progress); err != nil {
		return nil, err
	}
	o.Progress("spool", 0)
	if err := copySpool(ctx, dir, dest); err != nil {
		return nil, err
	}
	if m.Replica > 0 && o.Bodies != NoBodies {
		o.Progress("bodies", 0)
		if err := copyBodies(ctx, dir, dest, o.Bodies); err != nil {
			return nil, err
		}
	}
	if err := copyOthers(dir, dest); err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err == nil {
		err = os.WriteFile(filepath.Join(dest, ManifestFile), append(b, '\n'), 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	return m, nil
}

// ReadManifest returns what the snapshot in dir is, or why it is none.
func ReadManifest(dir string) (*Manifest, error) {
	b, err := os.ReadFile(filepath.Join(dir, ManifestFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is no backup of Postern, or not all of one: it has no %s", dir, ManifestFile)
	}
	if err != nil {
		return nil, err
	}
	var m Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("%s: %w", ManifestFile, err)
	}
	if m.Format != SnapshotFormat {
		return nil, fmt.Errorf("the backup has format %d, this program knows %d: use a newer Postern", m.Format, SnapshotFormat)
	}
	return &m, nil
}

// openPlain opens a database for copying, whatever the version of its tables.
func openPlain(ctx context.Context, dir string, kind *dbKind) (db *sql.DB, version int64, err error) {
	path := filepath.Join(dir, kind.file)
	if info, err := os.Stat(path); err != nil {
		return nil, 0, err
	} else if info.Size() == 0 {
		return nil, 0, fmt.Errorf("%s is empty: %w", path, fs.ErrNotExist)
	}
	if db, err = sql.Open("sqlite", dsn(path)); err != nil {
		return nil, 0, err
	}
	db.SetMaxOpenConns(1)
	var id int64
	err = db.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id)
	if err == nil && id != kind.applicationID {
		err = fmt.Errorf("%s is no database of Postern", path)
	}
	if err == nil {
		err = db.QueryRowContext(ctx, "SELECT MAX(version_id) FROM "+migrationTable).Scan(&version)
	}
	if err != nil {
		db.Close()
		return nil, 0, (&database{kind: kind, path: path}).explain("open", err)
	}
	return db, version, nil
}

// copyDatabase copies one database as of one moment.
func copyDatabase(ctx context.Context, dir, dest string, kind *dbKind, progress func(string, int64)) (version int64, err error) {
	db, version, err := openPlain(ctx, dir, kind)
	if err != nil {
		return 0, fmt.Errorf("snapshot: %w", err)
	}
	defer db.Close()
	if info, err := os.Stat(filepath.Join(dir, kind.file)); err == nil {
		progress(kind.file, info.Size())
	}
	to := filepath.Join(dest, kind.file)
	// Made by us for its mode; SQLite takes an empty file for none.
	f, err := os.OpenFile(to, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, fmt.Errorf("snapshot: %w", err)
	}
	defer f.Close()
	if _, err := db.ExecContext(ctx, "VACUUM INTO ?", to); err != nil {
		return 0, (&database{kind: kind, path: to}).explain("copy "+kind.file, err)
	}
	// Whether VACUUM INTO waits for the disk is not documented.
	if err := f.Sync(); err != nil {
		return 0, fmt.Errorf("snapshot: %w", err)
	}
	return version, nil
}

// settledStates as SQL, see Outbox.Delete.
const settledStates = "('sent', 'bounced', 'refused', 'purged')"

// copySpool gives the snapshot the files of the messages that are unfinished in it. A file that is not there any more
// belongs to a message that was finished since the outbox was copied: the snapshot then gets its row as it is now.
func copySpool(ctx context.Context, dir, dest string) error {
	db, _, err := openPlain(ctx, dest, outboxKind)
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	defer db.Close()
	rows, err := db.QueryContext(ctx, "SELECT id, spool FROM submissions WHERE state NOT IN "+settledStates+" OR next_attempt <> 0")
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	defer rows.Close()
	var finished []any
	for rows.Next() {
		var id, name string
		if err := rows.Scan(&id, &name); err != nil {
			return fmt.Errorf("snapshot: %w", err)
		}
		name = filepath.Join("spool", filepath.Base(name))
		switch err := linkOrCopy(filepath.Join(dir, name), filepath.Join(dest, name)); {
		case errors.Is(err, fs.ErrNotExist):
			finished = append(finished, id)
		case err != nil:
			return fmt.Errorf("snapshot: %w", err)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	rows.Close()
	if len(finished) == 0 {
		return nil
	}
	tables := []string{"submissions WHERE id"}
	for _, later := range []string{"events", "texts"} {
		var n int64
		if err := db.QueryRowContext(ctx, "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = ?", later).Scan(&n); err != nil {
			return fmt.Errorf("snapshot: %w", err)
		}
		if n > 0 {
			tables = append(tables, later+" WHERE submission")
		}
	}
	if _, err := db.ExecContext(ctx, "ATTACH DATABASE ? AS live", filepath.Join(dir, outboxKind.file)); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	for _, id := range finished {
		for _, table := range tables {
			if _, err := db.ExecContext(ctx, "DELETE FROM main."+table+" = ?", id); err != nil {
				return fmt.Errorf("snapshot: %w", err)
			}
			name, _, _ := strings.Cut(table, " ")
			if _, err := db.ExecContext(ctx, "INSERT OR REPLACE INTO main."+name+" SELECT * FROM live."+table+" = ?", id); err != nil {
				return fmt.Errorf("snapshot: %w", err)
			}
		}
	}
	return nil
}

// copyBodies gives the snapshot body files. One that has been evicted since is left out; its message is read anew then.
func copyBodies(ctx context.Context, dir, dest string, which BodyChoice) error {
	db, _, err := openPlain(ctx, dest, replicaKind)
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	defer db.Close()
	query := "SELECT file FROM bodies"
	if which == AppendedBodies {
		query += " WHERE from_client = 1"
	}
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return fmt.Errorf("snapshot: %w", err)
		}
		if len(name) < 2 || filepath.Base(name) != name {
			continue
		}
		name = filepath.Join("bodies", name[:2], name)
		if err := os.MkdirAll(filepath.Join(dest, filepath.Dir(name)), 0o700); err != nil {
			return fmt.Errorf("snapshot: %w", err)
		}
		if err := linkOrCopy(filepath.Join(dir, name), filepath.Join(dest, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("snapshot: %w", err)
		}
	}
	return rows.Err()
}

// copyOthers copies everything else in the state folder: logins, sign-ins, and what later versions may add.
func copyOthers(dir, dest string) error {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // small files come and go
		}
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if notCopied(d.Name()) && filepath.Dir(name) == "." || strings.HasPrefix(d.Name(), ".") {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		switch {
		case d.IsDir():
			return os.MkdirAll(filepath.Join(dest, name), 0o700)
		case !d.Type().IsRegular():
			return nil
		}
		// Copied, not linked: some of these are changed in place.
		if err := copyFile(path, filepath.Join(dest, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	return nil
}

// linkOrCopy makes to the same file as from, or where that cannot be a copy of it.
func linkOrCopy(from, to string) error {
	err := os.Link(from, to)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return copyFile(from, to)
}

func copyFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}

// beforeUpdate is the folder in the state folder for the copy made before tables are changed.
const beforeUpdate = "before-update"

// copyBeforeUpdate makes a snapshot of the state folder, in place of an earlier one, if a database in it has tables of an
// earlier version than this program makes. It must be called under the lock and before any database is opened.
func (s *Store) copyBeforeUpdate(ctx context.Context) error {
	have := make(map[*dbKind]int64)
	old := false
	for _, kind := range []*dbKind{replicaKind, outboxKind} {
		db, version, err := openPlain(ctx, s.dir, kind)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil // opening it tells, and says what to do
		}
		db.Close()
		have[kind] = version
		known, err := kind.newest()
		if err != nil {
			return err
		}
		old = old || version > 0 && version < known
	}
	if !old {
		return nil
	}
	dest := filepath.Join(s.dir, beforeUpdate)
	half := filepath.Join(s.dir, "."+beforeUpdate)
	s.log.Info("copying the state before an update changes its tables", "to", dest, "replica", have[replicaKind], "outbox", have[outboxKind])
	begun := time.Now()
	if err := os.RemoveAll(half); err != nil {
		return fmt.Errorf("copy state before update: %w", err)
	}
	_, err := Snapshot(ctx, s.dir, half, SnapshotOptions{Program: "the version before", Bodies: NoBodies, Now: s.now})
	if err != nil {
		os.RemoveAll(half)
		return fmt.Errorf("copy state before update (about %.1f MB must be free in %s): %w", float64(s.databaseSizes())/1e6, s.dir, err)
	}
	if err := os.RemoveAll(dest); err != nil {
		return fmt.Errorf("copy state before update: %w", err)
	}
	if err := errors.Join(os.Rename(half, dest), syncDir(s.dir)); err != nil {
		return fmt.Errorf("copy state before update: %w", err)
	}
	s.log.Info("state copied", "to", dest, "took", time.Since(begun).Round(time.Millisecond))
	return nil
}

func (s *Store) databaseSizes() (n int64) {
	for _, kind := range []*dbKind{replicaKind, outboxKind} {
		if info, err := os.Stat(filepath.Join(s.dir, kind.file)); err == nil {
			n += info.Size()
		}
	}
	return n
}

// newest returns the version of the tables that this program makes.
func (k *dbKind) newest() (int64, error) {
	entries, err := fs.ReadDir(migrationFiles, k.migrations)
	if err != nil {
		return 0, err
	}
	var last int64
	for _, e := range entries {
		var n int64
		if _, err := fmt.Sscanf(e.Name(), "%d_", &n); err != nil {
			return 0, fmt.Errorf("migration %s: %w", e.Name(), err)
		}
		last = max(last, n)
	}
	return last, nil
}
