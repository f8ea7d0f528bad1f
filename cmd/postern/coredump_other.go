//go:build !unix

package main

// refuseCoreDumps has nothing to do where programs do not dump their memory unless somebody arranges for it.
func refuseCoreDumps() error { return nil }
