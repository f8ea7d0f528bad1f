//go:build unix

package main

import (
	"os"
	"syscall"
)

// refuseCoreDumps keeps the kernel from writing this process's memory to a file when it dies: keys, tokens, passwords and mail are
// in it. Whoever looks for a fault and wants one sets GOTRACEBACK=crash, which is what makes Go die that way at all.
func refuseCoreDumps() error {
	if os.Getenv("GOTRACEBACK") == "crash" {
		return nil
	}
	return syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
}
