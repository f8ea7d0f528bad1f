// Package backup writes the state folder into one file while a server works on it, and restores it.
//
// A backup is a tar archive, compressed with zstd, of a snapshot as package store makes it; its last entry tells that it is whole.
// Restoring takes back nothing that was said: UIDs given after the backup do not come again, and messages that were
// waiting to be sent are held, since they may have left meanwhile.
package backup

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"postern/backend/store"
)

// endFile is the last entry of an archive.
const endFile = "END"

// tempPrefix begins the names of folders that are being worked on, in the state folder.
const tempPrefix = ".backup-"

// staleAfter is when such a folder is taken to be left over from a command that was killed.
const staleAfter = 24 * time.Hour

// Options say what goes into a backup.
type Options struct {
	Program  string // version, for the manifest
	Bodies   store.BodyChoice
	Drop     string                         // folder of postern sendmail if it lies outside the state folder; "" for none
	Progress func(what string, bytes int64) // told what is being done, with its size where that is known; may be nil
}

// Write writes a backup of the state folder dir to w.
func Write(ctx context.Context, dir string, w io.Writer, o Options) (*store.Manifest, error) {
	removeStale(dir)
	temp, err := os.MkdirTemp(dir, tempPrefix)
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	defer os.RemoveAll(temp)
	m, err := store.Snapshot(ctx, dir, temp, store.SnapshotOptions{Program: o.Program, Bodies: o.Bodies, Progress: o.Progress})
	if err != nil {
		return nil, err
	}
	if o.Drop != "" {
		if err := copyDrop(o.Drop, filepath.Join(temp, dropFolder)); err != nil {
			return nil, err
		}
	}
	if o.Progress != nil {
		o.Progress("archive", 0)
	}
	z, err := zstd.NewWriter(w, zstd.WithEncoderCRC(true), zstd.WithEncoderConcurrency(2))
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	t := tar.NewWriter(z)
	if err := addAll(ctx, t, temp, m.Created); err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	if err := errors.Join(t.Close(), z.Close()); err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	return m, nil
}

func removeStale(dir string) {
	old, _ := filepath.Glob(filepath.Join(dir, tempPrefix+"*")) // fails for bad patterns only
	for _, name := range old {
		if info, err := os.Stat(name); err == nil && time.Since(info.ModTime()) > staleAfter {
			os.RemoveAll(name)
		}
	}
}

// dropFolder is where mail of postern sendmail that no server has taken yet is kept in a backup, and by default in the state folder.
const dropFolder = "drop"

// copyDrop copies what waits in the drop folder; what has been taken meanwhile is in the queue.
func copyDrop(from, to string) error {
	entries, err := os.ReadDir(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || filepath.Ext(e.Name()) != ".msg" {
			continue
		}
		b, err := os.ReadFile(filepath.Join(from, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(to, e.Name()), b, 0o600)
		}
		if err != nil {
			return fmt.Errorf("backup: %w", err)
		}
	}
	return nil
}

// addAll writes the manifest, all other files, and the end.
func addAll(ctx context.Context, t *tar.Writer, dir string, made time.Time) error {
	names := []string{store.ManifestFile}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && !strings.HasSuffix(path, "-journal") {
			if name, rerr := filepath.Rel(dir, path); rerr != nil {
				err = rerr
			} else if name != store.ManifestFile {
				names = append(names, name)
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := addFile(t, dir, name, made); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return t.WriteHeader(&tar.Header{Name: endFile, Mode: 0o600, ModTime: made, Typeflag: tar.TypeReg, Format: tar.FormatPAX})
}

func addFile(t *tar.Writer, dir, name string, made time.Time) error {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	err = t.WriteHeader(&tar.Header{Name: filepath.ToSlash(name), Mode: 0o600, Size: info.Size(), ModTime: made, Typeflag: tar.TypeReg, Format: tar.FormatPAX})
	if err == nil {
		_, err = io.Copy(t, f)
	}
	return err
}

// unpack writes the archive's files below dir, which must be empty.
func unpack(r io.Reader, dir string, progress func(string, int64)) error {
	z, err := zstd.NewReader(bufio.NewReaderSize(r, 1<<20))
	if err != nil {
		return fmt.Errorf("read backup: %w", err)
	}
	defer z.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	t := tar.NewReader(z)
	for first := true; ; first = false {
		h, err := t.Next()
		switch {
		case errors.Is(err, io.EOF) && first, errors.Is(err, zstd.ErrMagicMismatch), errors.Is(err, tar.ErrHeader):
			return errors.New("read backup: this is no backup made by postern backup")
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return errors.New("read backup: the file breaks off: it is not the whole backup")
		case err != nil:
			return fmt.Errorf("read backup: %w", err)
		case first && h.Name != store.ManifestFile:
			return errors.New("read backup: this is no backup made by postern backup")
		case h.Name == endFile:
			return nil
		case h.Typeflag != tar.TypeReg || !filepath.IsLocal(filepath.FromSlash(h.Name)):
			return fmt.Errorf("read backup: %q does not belong into a backup", h.Name)
		}
		if strings.HasSuffix(h.Name, ".db") {
			progress(h.Name, h.Size)
		}
		if err := unpackFile(root, filepath.FromSlash(h.Name), t); err != nil {
			return fmt.Errorf("unpack backup: %w", err)
		}
	}
}

func unpackFile(root *os.Root, name string, r io.Reader) error {
	if err := root.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
