//go:build !unix

package main

// mayWrite cannot be told here without writing.
func mayWrite(string) bool { return true }
