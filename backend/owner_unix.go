//go:build unix

package backend

import (
	"os"
	"path/filepath"
	"syscall"
)

// ownAsFolder gives f the owner of the folder it lies in, where this process may.
func ownAsFolder(f *os.File) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(filepath.Dir(f.Name()))
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 {
		return f.Chown(int(st.Uid), int(st.Gid))
	}
	return nil
}
