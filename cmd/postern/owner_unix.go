//go:build unix

package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// keepOwner gives f the owner of the file it will replace, so that the service
// can still read a file that root has edited.
func keepOwner(f *os.File, like fs.FileInfo) error {
	st, ok := like.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 {
		return nil // nobody else may give files away
	}
	return f.Chown(int(st.Uid), int(st.Gid))
}

// ownAs returns a function that gives files the owner of a folder, where this process may: what root puts into a state folder the
// service must be able to use.
func ownAs(dir string) (func(path string) error, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 || st.Uid == 0 {
		return nil, nil
	}
	return func(path string) error { return os.Lchown(path, int(st.Uid), int(st.Gid)) }, nil
}

// ownOrRoots reports whether nobody else can have written a file: it belongs to this user or to root, and others may not change it.
func ownOrRoots(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && (int(st.Uid) == os.Geteuid() || st.Uid == 0) && info.Mode().Perm()&0o002 == 0
}

// shareWithGroup lets the group of the folder read f if the folder's setgid bit says that it is shared with a group other than root's:
// so packages set up /etc/postern, where root writes what the service must read.
func shareWithGroup(f *os.File) error {
	dir, err := os.Stat(filepath.Dir(f.Name()))
	if err != nil {
		return err
	}
	if !sharedFolder(dir) {
		return nil
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return f.Chmod(info.Mode().Perm() | 0o040)
}

func sharedFolder(dir fs.FileInfo) bool {
	st, ok := dir.Sys().(*syscall.Stat_t)
	return ok && dir.Mode()&fs.ModeSetgid != 0 && st.Gid != 0
}
