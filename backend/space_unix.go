//go:build unix

package backend

import "golang.org/x/sys/unix"

var errDiskQuota error = unix.EDQUOT

// freeSpace returns the bytes that this user can still write to the disk of dir.
func freeSpace(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}
