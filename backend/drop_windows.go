package backend

import (
	"io/fs"
	"os"
)

func openDropped(path string) (*os.File, error) { return os.Open(path) }

func ownerOf(fs.FileInfo) string { return "local" }
