package backend

import "golang.org/x/sys/windows"

var errDiskQuota error = windows.ERROR_DISK_QUOTA_EXCEEDED

// freeSpace returns the bytes that this user can still write to the disk of dir.
func freeSpace(dir string) (int64, error) {
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, err
	}
	var free uint64
	if err := windows.GetDiskFreeSpaceEx(name, &free, nil, nil); err != nil {
		return 0, err
	}
	return int64(free), nil
}
