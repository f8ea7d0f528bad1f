package backup

import (
	"archive/tar"
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"postern/backend/store"
)

// archive packs entries as a backup begins: the manifest first.
func archive(t *testing.T, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	for _, h := range append([]tar.Header{{Name: store.ManifestFile, Typeflag: tar.TypeReg}}, entries...) {
		h.Mode = 0o777
		if h.Typeflag == tar.TypeReg {
			h.Size = 4
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write([]byte("evil")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A file that is called a backup writes nothing outside the folder it is unpacked in, whatever its entries are called.
func TestUnpackStaysInside(t *testing.T) {
	for _, tt := range []struct {
		name    string
		entries []tar.Header
	}{
		{"parent", []tar.Header{{Name: "../outside", Typeflag: tar.TypeReg}}},
		{"parent further in", []tar.Header{{Name: "spool/../../outside", Typeflag: tar.TypeReg}}},
		{"absolute", []tar.Header{{Name: "/tmp/postern-outside", Typeflag: tar.TypeReg}}},
		{"symbolic link", []tar.Header{{Name: "spool", Typeflag: tar.TypeSymlink, Linkname: ".."}, {Name: "spool/outside", Typeflag: tar.TypeReg}}},
		{"hard link", []tar.Header{{Name: "x", Typeflag: tar.TypeLink, Linkname: "../outside"}}},
		{"device", []tar.Header{{Name: "x", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 5}}},
		{"pipe", []tar.Header{{Name: "x", Typeflag: tar.TypeFifo}}},
		{"the same twice", []tar.Header{{Name: "x", Typeflag: tar.TypeReg}, {Name: "x", Typeflag: tar.TypeReg}}},
		{"a file for a folder", []tar.Header{{Name: "x", Typeflag: tar.TypeReg}, {Name: "x/y", Typeflag: tar.TypeReg}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			outer := t.TempDir()
			dir := filepath.Join(outer, "state")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := unpack(bytes.NewReader(archive(t, tt.entries...)), dir, func(string, int64) {}); err == nil {
				t.Error("it was unpacked")
			}
			err := filepath.WalkDir(outer, func(path string, d fs.DirEntry, err error) error {
				if err == nil && path != outer && !strings.HasPrefix(path, dir) {
					t.Errorf("%s was written", path)
				}
				if err == nil && !d.IsDir() && !d.Type().IsRegular() {
					t.Errorf("%s was made, %v", path, d.Type())
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Lstat("/tmp/postern-outside"); err == nil {
				t.Error("an absolute name was written")
			}
		})
	}
}
