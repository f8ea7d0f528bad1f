package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// ReplacedPrefix begins the names of folders with what a restore has replaced.
const ReplacedPrefix = "replaced-"

// restoring marks a state folder in which a restore has begun to put things into place.
const restoring = "restoring"

// What clients were told after a backup was made is not in it. After a restore no UID and no mod-sequence given
// then may come again, so all go on far above: by a million, more than a folder of Exchange may hold, and twenty for each second
// since the backup, more than a mailbox receives (Exchange Online takes 3,600 messages an hour) or a client can make
// for long within Graph's budget.
const (
	restoreStep      = 1 << 20
	restorePerSecond = 20
	// maxRestoredUID is the UID from which on a replica is rather read anew, with new UIDVALIDITYs, than counted up further.
	maxRestoredUID = math.MaxUint32 - 1<<28
)

// Restored makes an unpacked snapshot in dir fit to be worked on as if no time had passed that clients could notice: tables of
// earlier versions are brought up to date, UIDs and mod-sequences go on above all that may have been given since, and every
// client that asks for changes is told all flags and all removals. With newUIDs, or where too few UIDs are left,
// the replica is left out; it is then read anew, under new UIDVALIDITYs. It reports whether the replica was kept.
func Restored(ctx context.Context, dir string, m *Manifest, now time.Time, newUIDs bool) (kept bool, err error) {
	if err := restoredCounters(ctx, dir, now); err != nil {
		return false, err
	}
	if m.Replica == 0 || newUIDs {
		return false, removeReplica(dir)
	}
	d, _, err := openDatabase(ctx, dir, replicaKind)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	step := int64(restoreStep) + restorePerSecond*max(0, int64(now.Sub(m.Created)/time.Second))
	var highest int64
	if err := d.row(ctx, []any{&highest}, "SELECT COALESCE(MAX(uidnext), 0) FROM folders"); err != nil {
		return false, d.explain("restore", err)
	}
	if highest+step > maxRestoredUID {
		return false, errors.Join(d.close(), removeReplica(dir))
	}
	err = d.write(ctx, "restore", func(t *tx) error {
		if _, err := t.exec("UPDATE folders SET uidnext = uidnext + ?, first_recent = uidnext + ?, modseq = modseq + ?, pruned = modseq + ?", step, step, step, step); err != nil {
			return err
		}
		// What was removed before is told together with what was removed since: every UID that is not there.
		if _, err := t.exec("DELETE FROM removed"); err != nil {
			return err
		}
		// Flags that a client was told of after the backup may have changed back: each message counts as changed.
		if _, err := t.exec("UPDATE messages SET modseq = (SELECT modseq FROM folders WHERE folders.id = messages.folder)"); err != nil {
			return err
		}
		return t.setCounter(uidValidityCounter, restoredUIDValidity(now))
	})
	return err == nil, err
}

// restoredUIDValidity is more than any UIDVALIDITY given before: these follow the clock, and ran ahead of it by as many
// folders as were made in one second.
func restoredUIDValidity(now time.Time) int64 { return now.Add(24 * time.Hour).Unix() }

// restoredCounters brings the outbox's tables up to date and its ceiling of UIDVALIDITYs above all that were given.
func restoredCounters(ctx context.Context, dir string, now time.Time) (err error) {
	d, _, err := openDatabase(ctx, dir, outboxKind)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	return d.write(ctx, "restore", func(t *tx) error {
		ceiling, err := t.counter(uidValidityCeiling)
		if err != nil {
			return err
		}
		return t.setCounter(uidValidityCeiling, max(ceiling, restoredUIDValidity(now)))
	})
}

func removeReplica(dir string) error {
	var errs []error
	for _, name := range []string{replicaKind.file, replicaKind.file + "-wal", replicaKind.file + "-shm", "bodies"} {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, name)))
	}
	return errors.Join(errs...)
}

// LockState takes the lock of a state folder, as a server does, so that none can start before release.
func LockState(dir string) (release func() error, err error) {
	f, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	return f.Close, nil
}

// States returns the states of all submissions of a state folder, by id, whatever the version of its tables; none
// where there is no outbox.
func States(ctx context.Context, dir string) (map[string]State, error) {
	db, _, err := openPlain(ctx, dir, outboxKind)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer db.Close()
	rows, err := db.QueryContext(ctx, "SELECT id, state FROM submissions")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := make(map[string]State)
	for rows.Next() {
		var id, state string
		if err := rows.Scan(&id, &state); err != nil {
			return nil, err
		}
		out[id] = State(state)
	}
	return out, rows.Err()
}

// Replace puts the content of the prepared folder from, which lies in the state folder dir, into its place. What was there goes into a
// folder of its own, whose name it returns, "" if there was nothing. The caller holds the lock. Until it is done no
// server starts on the folder; when it was broken off it can be called again.
func Replace(dir, from string, now time.Time) (replaced string, err error) {
	mark := filepath.Join(dir, restoring)
	if err := os.WriteFile(mark, []byte(filepath.Base(from)+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("restore: %w", err)
	}
	if err := syncDir(dir); err != nil {
		return "", fmt.Errorf("restore: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("restore: %w", err)
	}
	old := filepath.Join(dir, ReplacedPrefix+now.UTC().Format("20060102T150405Z"))
	for _, e := range entries {
		name := e.Name()
		if name == lockFile || name == restoring || name == beforeUpdate || strings.HasPrefix(name, ".") || strings.HasPrefix(name, ReplacedPrefix) {
			continue
		}
		if replaced == "" {
			replaced = old
			if err := os.MkdirAll(old, 0o700); err != nil {
				return "", fmt.Errorf("restore: %w", err)
			}
		}
		if err := os.Rename(filepath.Join(dir, name), filepath.Join(old, name)); err != nil {
			return "", fmt.Errorf("restore: %w", err)
		}
	}
	entries, err = os.ReadDir(from)
	if err != nil {
		return "", fmt.Errorf("restore: %w", err)
	}
	for _, e := range entries {
		if name := e.Name(); name != lockFile && name != ManifestFile {
			if err := os.Rename(filepath.Join(from, name), filepath.Join(dir, name)); err != nil {
				return "", fmt.Errorf("restore: %w", err)
			}
		}
	}
	err = errors.Join(syncDir(dir), os.Remove(mark), os.RemoveAll(from), syncDir(dir))
	if err != nil {
		return "", fmt.Errorf("restore: %w", err)
	}
	return replaced, nil
}

// checkRestored refuses a folder in which a restore was broken off: an empty state begun there would look like one that has
// nothing to send.
func checkRestored(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, restoring)); err == nil {
		return fmt.Errorf("a restore into %s was broken off: run postern restore once more; what was there before is in %s%s*", dir, dir, string(filepath.Separator)+ReplacedPrefix)
	}
	return nil
}
