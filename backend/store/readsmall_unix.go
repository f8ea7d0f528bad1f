//go:build !windows

package store

import (
	"fmt"
	"io/fs"
	"syscall"
)

// readSmall reads a file that should have so many bytes. It goes past package os, which offers each file to the poller, in
// vain: for a small file that is a good part of what reading it takes.
func readSmall(path string, size int64) ([]byte, error) {
	fd, err := again(func() (int, error) { return syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0) })
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer syscall.Close(fd)
	buf := make([]byte, size+1) // one more, to see the end
	for n := 0; ; {
		k, err := again(func() (int, error) { return syscall.Read(fd, buf[n:]) })
		if err != nil {
			return nil, &fs.PathError{Op: "read", Path: path, Err: err}
		}
		switch n += k; {
		case int64(n) == size: // and the end, for there was room for more
			return buf[:n], nil
		case int64(n) > size || k == 0:
			return nil, fmt.Errorf("%w: it has not the length it had", errDamaged)
		}
	}
}

// again calls fn until no signal interrupts it.
func again(fn func() (int, error)) (int, error) {
	for {
		n, err := fn()
		if err != syscall.EINTR {
			return n, err
		}
	}
}
