package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"postern/backend/outbox"
	"postern/backend/store"
)

// RestoreOptions say how a backup is restored.
type RestoreOptions struct {
	// Send has messages that were waiting looked for and sent, instead of held.
	Send bool
	// NewUIDs leaves the replica out: it is read anew under new UIDVALIDITYs, and clients load all mail again.
	NewUIDs bool
	// Replace puts what is in the state folder aside. Without it only an empty folder is restored into.
	Replace bool
	// Abandon leaves messages that wait in the present queue, and are not in the backup, behind in what is put aside.
	Abandon bool
	Drop    string                         // folder of postern sendmail; "" for none
	Now     func() time.Time               // nil: time.Now
	Own     func(path string) error        // gives a file the owner the server runs as; may be nil
	Notice  func(what string, bytes int64) // told what is being done; may be nil
}

// Report says what a restore has done.
type Report struct {
	Manifest store.Manifest
	outbox.RestoredReport
	Replica  bool   // the replica was restored: clients keep their copies
	Replaced string // folder with what was there before; "" for none
	Dropped  string // folder with mail of postern sendmail that waited; "" for none
	// Abandoned counts messages that waited in the queue that was replaced.
	Abandoned int
}

// ErrInUse is returned for a state folder that is not empty, without RestoreOptions.Replace.
var ErrInUse = errors.New("the state folder is not empty")

// ErrWaiting is returned when messages wait in the present queue that the backup does not have, without RestoreOptions.Abandon.
var ErrWaiting = errors.New("messages wait to be sent that are not in the backup")

// Restore puts a backup into the state folder dir: a file made by Write, or the folder that a server keeps of the state before
// an update. No server may run on it; the lock is held meanwhile. Until everything is ready the folder is not changed.
func Restore(ctx context.Context, source, dir string, o RestoreOptions) (*Report, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Notice == nil {
		o.Notice = func(string, int64) {}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	release, err := store.LockState(dir)
	if err != nil {
		return nil, err
	}
	defer release()
	if !o.Replace {
		if err := checkEmpty(dir); err != nil {
			return nil, err
		}
	}
	removeStale(dir)
	temp, err := os.MkdirTemp(dir, tempPrefix)
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	defer os.RemoveAll(temp)
	if err := fetch(ctx, source, temp, o.Notice); err != nil {
		return nil, err
	}
	report, err := prepare(ctx, temp, dir, o)
	if err != nil {
		return nil, err
	}
	if o.Own != nil {
		if err := filepath.WalkDir(temp, func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return o.Own(path)
		}); err != nil {
			return nil, fmt.Errorf("restore: %w", err)
		}
	}
	if report.Replaced, err = store.Replace(dir, temp, o.Now()); err != nil {
		return nil, err
	}
	if o.Own != nil {
		for _, path := range []string{filepath.Join(dir, "postern.lock"), report.Replaced} {
			if path != "" {
				err = errors.Join(err, o.Own(path))
			}
		}
	}
	return report, err
}

// checkEmpty refuses a folder with anything of a server in it.
func checkEmpty(dir string) error {
	for _, name := range []string{"replica.db", "outbox.db", "logins.json", "spool"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return fmt.Errorf("%w: %s has %s", ErrInUse, dir, name)
		}
	}
	return nil
}

// fetch puts the backup's files into temp.
func fetch(ctx context.Context, source, temp string, notice func(string, int64)) error {
	info, err := os.Stat(source)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if info.IsDir() {
		// A plain folder, as the server makes before an update. It stays as it is, to be used again.
		if _, err := store.ReadManifest(source); err != nil {
			return err
		}
		return os.CopyFS(temp, os.DirFS(source))
	}
	f, err := os.Open(source)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	defer f.Close()
	notice("unpack", info.Size())
	return unpack(f, temp, notice)
}

// prepare makes the unpacked backup fit for now.
func prepare(ctx context.Context, temp, dir string, o RestoreOptions) (*Report, error) {
	m, err := store.ReadManifest(temp)
	if err != nil {
		return nil, err
	}
	report := &Report{Manifest: *m}
	// What the present state knows of the backup's messages. A damaged one knows nothing.
	present, err := store.States(ctx, dir)
	if err != nil {
		o.Notice("the present queue cannot be read, what became of its messages is not known: "+err.Error(), 0)
	}
	o.Notice("databases", 0)
	now := o.Now()
	if report.Replica, err = store.Restored(ctx, temp, m, now, o.NewUIDs); err != nil {
		return nil, err
	}
	ob, _, err := store.OpenOutbox(ctx, temp)
	if err != nil {
		return nil, err
	}
	defer ob.Close()
	if report.Abandoned, err = abandoned(ctx, ob, present); err != nil {
		return nil, err
	}
	if report.Abandoned > 0 && !o.Abandon {
		return nil, fmt.Errorf("%w: %d", ErrWaiting, report.Abandoned)
	}
	if report.RestoredReport, err = outbox.Restored(ctx, ob, m.Created, now, o.Send, present); err != nil {
		return nil, err
	}
	if err := ob.Close(); err != nil {
		return nil, err
	}
	report.Dropped, err = placeDrop(filepath.Join(temp, dropFolder), dir, present, o)
	return report, err
}

// abandoned counts the messages of the present queue that still wait and are not in the backup.
func abandoned(ctx context.Context, backup *store.Outbox, present map[string]store.State) (n int, err error) {
	for id, state := range present {
		if state == store.StateSpooled || state.Settled() {
			continue
		}
		if _, err := backup.Get(ctx, id); errors.Is(err, store.ErrNotFound) {
			n++
		} else if err != nil {
			return 0, err
		}
	}
	return n, nil
}

// placeDrop deals with mail that waited for a server to take it: it may have been taken and sent since. With Send it goes where
// a server takes it from, else beside.
func placeDrop(from, dir string, present map[string]store.State, o RestoreOptions) (string, error) {
	files, _ := filepath.Glob(filepath.Join(from, "*.msg")) // fails for bad patterns only
	var waiting []string
	for _, f := range files {
		id := filepath.Base(f[:len(f)-len(".msg")])
		if _, known := present[id]; !known {
			waiting = append(waiting, f)
		}
	}
	if len(waiting) == 0 {
		return "", os.RemoveAll(from)
	}
	inState := o.Drop == "" || filepath.Clean(o.Drop) == filepath.Join(dir, dropFolder)
	if o.Send && inState {
		return filepath.Join(dir, dropFolder), nil // lies right
	}
	if !o.Send {
		return filepath.Join(dir, heldDrop), os.Rename(from, filepath.Join(filepath.Dir(from), heldDrop))
	}
	if err := os.MkdirAll(o.Drop, 0o700); err != nil {
		return "", err
	}
	for _, f := range waiting {
		b, err := os.ReadFile(f)
		if err != nil {
			return "", err
		}
		name := filepath.Join(o.Drop, filepath.Base(f))
		if err := os.WriteFile(name+".part", b, 0o600); err != nil {
			return "", err
		}
		if o.Own != nil {
			if err := o.Own(name + ".part"); err != nil {
				return "", err
			}
		}
		if err := os.Rename(name+".part", name); err != nil {
			return "", err
		}
	}
	return o.Drop, os.RemoveAll(from)
}

// heldDrop is the folder for mail of postern sendmail that was restored without being sent.
const heldDrop = "drop-held"
