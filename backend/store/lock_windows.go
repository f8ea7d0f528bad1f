package store

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

func lockHandle(f *os.File) error {
	// A byte far behind the process id, which others may then still read.
	at := &windows.Overlapped{Offset: 1 << 20}
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, at)
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return errLocked
	}
	return err
}

// syncDir does nothing: NTFS journals renames, and folders cannot be flushed.
func syncDir(string) error { return nil }
