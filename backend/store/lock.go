package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// lockFile is in the state folder as long as the folder is; the lock on it
// belongs to the process and goes with it, however it ends.
const lockFile = "postern.lock"

// errLocked is what lockHandle returns when another process has the lock.
var errLocked = errors.New("locked")

// Running reports whether a process works on the state folder dir. It is known for this machine only, and for users who may
// write there.
func Running(dir string) (bool, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR, 0)
	if err != nil {
		return false, err
	}
	defer f.Close() // and with it the lock, if we got it
	err = lockHandle(f)
	if errors.Is(err, errLocked) {
		return true, nil
	}
	return false, err
}

// lockDir makes sure that only one process works on the folder: two would hand
// out the same UIDs.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockFile)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock state folder: %w", err)
	}
	if err := lockHandle(f); err != nil {
		defer f.Close()
		if !errors.Is(err, errLocked) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		by := "another process"
		if b, err := io.ReadAll(io.LimitReader(f, 32)); err == nil {
			if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
				by = "process " + strconv.Itoa(pid)
			}
		}
		return nil, fmt.Errorf("state folder %s is in use by %s: only one postern may run on it; stop that one or choose another folder", dir, by)
	}
	// Only for the message above.
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return f, nil
}
