//go:build unix

package backend

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// openDropped opens a file that somebody else has put there: no link is followed, and a
// pipe does not make us wait.
func openDropped(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
}

// ownerOf says in the log who has dropped a message.
func ownerOf(info fs.FileInfo) string {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return fmt.Sprintf("uid %d", st.Uid)
	}
	return "local"
}
