//go:build unix

package main

import "golang.org/x/sys/unix"

// mayWrite reports whether this process may make files in dir. It asks, and makes none.
func mayWrite(dir string) bool { return unix.Access(dir, unix.W_OK|unix.X_OK) == nil }
