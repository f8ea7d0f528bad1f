//go:build !unix

package main

import (
	"io/fs"
	"os"
)

// keepOwner does nothing: files inherit the access list of their folder here.
func keepOwner(*os.File, fs.FileInfo) error { return nil }

// ownAs has nothing to do here: files inherit the access list of their folder.
func ownAs(string) (func(path string) error, error) { return nil, nil }

// ownOrRoots trusts the access list of the folder.
func ownOrRoots(fs.FileInfo) bool { return true }

// shareWithGroup has nothing to do here.
func shareWithGroup(*os.File) error { return nil }

func sharedFolder(fs.FileInfo) bool { return false }
