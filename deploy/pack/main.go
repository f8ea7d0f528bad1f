// Command pack writes release archives that are the same whenever they are made of the same files: sorted, owned by
// nobody, with one time for all.
//
//	pack -o postern_1.0_linux_amd64.tar.gz -prefix postern-1.0 -time 1700000000 dist/build/linux_amd64/postern README.md docs
//
// A name that ends in .zip gives a zip archive, any other a gzipped tar. Folders are packed with all that is in them; a leading
// dist/build/… is left out of the names.
package main

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

func main() {
	out := flag.String("o", "", "archive to write")
	prefix := flag.String("prefix", "", "folder in the archive")
	seconds := flag.Int64("time", 0, "time of all files, in seconds since 1970")
	flag.Parse()
	if err := pack(*out, *prefix, time.Unix(*seconds, 0).UTC(), flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

// entry is a file and its name in the archive.
type entry struct{ file, name string }

func pack(out, prefix string, t time.Time, args []string) error {
	list, err := entries(prefix, args)
	if err != nil {
		return err
	}
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	if strings.HasSuffix(out, ".zip") {
		err = writeZip(f, list, t)
	} else {
		err = writeTar(f, list, t)
	}
	return errors.Join(err, f.Close())
}

func entries(prefix string, args []string) ([]entry, error) {
	var list []entry
	for _, arg := range args {
		base := filepath.Dir(arg)
		if !strings.HasPrefix(filepath.ToSlash(arg), "dist/build/") {
			base = "." // keeps docs/ and the like
		}
		err := filepath.WalkDir(arg, func(file string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			name, err := filepath.Rel(base, file)
			list = append(list, entry{file, path.Join(prefix, filepath.ToSlash(name))})
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(list, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	return list, nil
}

// mode is 0755 for what can be run, 0644 for all else.
func mode(file string) (int64, error) {
	info, err := os.Stat(file)
	if err != nil {
		return 0, err
	}
	if info.Mode()&0o100 != 0 {
		return 0o755, nil
	}
	return 0o644, nil
}

func writeTar(w io.Writer, list []entry, t time.Time) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(z)
	for _, e := range list {
		m, err := mode(e.file)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(e.file)
		if err != nil {
			return err
		}
		h := &tar.Header{Name: e.name, Mode: m, Size: int64(len(b)), ModTime: t, Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := tw.Write(b); err != nil {
			return err
		}
	}
	return errors.Join(tw.Close(), z.Close())
}

func writeZip(w io.Writer, list []entry, t time.Time) error {
	zw := zip.NewWriter(w)
	for _, e := range list {
		m, err := mode(e.file)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(e.file)
		if err != nil {
			return err
		}
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate, Modified: t}
		h.SetMode(fs.FileMode(m))
		f, err := zw.CreateHeader(h)
		if err != nil {
			return err
		}
		if _, err := f.Write(b); err != nil {
			return err
		}
	}
	return zw.Close()
}
