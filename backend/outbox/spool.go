package outbox

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"postern/backend/store"
)

const (
	spoolSuffix = ".eml"
	tempSuffix  = ".tmp" // of earlier versions
)

// rowText is the size up to which a message is kept in its row as well: that row is all that is waited for.
const rowText = 16 << 10

// spoolBuffer is how much of a message is held before it is written to its file.
const spoolBuffer = 64 << 10

// Spool is a message file being written.
type Spool struct {
	id   string
	dir  string
	f    *os.File
	buf  []byte // not written yet; all there is of a message up to rowText
	size int64
	done bool
}

// newID returns a queue id: short enough to be read out, sorting by time, never used twice.
func newID(now time.Time) string {
	var b [10]byte
	binary.BigEndian.PutUint64(b[:], uint64(now.UnixMilli())<<16)
	rand.Read(b[6:])
	return strings.ToLower(base32.HexEncoding.EncodeToString(b[:]))
}

// NewSpool begins a message file.
func (q *Queue) NewSpool() (*Spool, error) { return q.newSpool(newID(time.Now())) }

// NewSpoolAs is NewSpool for a message whose queue id was given elsewhere, by NewID. A file that is there
// already is that of an earlier try, which has come to nothing if there is no row.
func (q *Queue) NewSpoolAs(id string) (*Spool, error) {
	if !validID(id) {
		return nil, fmt.Errorf("create spool file: %q is no queue id", id)
	}
	if _, err := q.store.Get(context.Background(), id); err == nil {
		return nil, fmt.Errorf("create spool file: %s %w", id, store.ErrExists)
	} else if !errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("create spool file: %w", err)
	}
	if err := os.Remove(filepath.Join(q.dir, id+spoolSuffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("create spool file: %w", err)
	}
	return q.newSpool(id)
}

// NewID returns a queue id.
func NewID() string { return newID(time.Now()) }

func validID(id string) bool {
	return len(id) == 16 && !strings.ContainsFunc(id, func(r rune) bool { return !(r >= '0' && r <= '9' || r >= 'a' && r <= 'v') })
}

// A file has its final name from the start: without a row it counts for nothing, and is removed when the queue is
// opened again.
func (q *Queue) newSpool(id string) (*Spool, error) {
	f, err := os.OpenFile(filepath.Join(q.dir, id+spoolSuffix), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create spool file: %w", err)
	}
	return &Spool{id: id, dir: q.dir, f: f}, nil
}

// ID is the queue id the message will have.
func (s *Spool) ID() string { return s.id }

// Size is the number of bytes written.
func (s *Spool) Size() int64 { return s.size }

// Write adds to the file.
func (s *Spool) Write(p []byte) (int, error) {
	s.size += int64(len(p))
	if len(s.buf)+len(p) <= spoolBuffer {
		s.buf = append(s.buf, p...)
		return len(p), nil
	}
	if err := s.flush(); err != nil {
		return 0, err
	}
	if len(p) < spoolBuffer {
		s.buf = append(s.buf, p...)
		return len(p), nil
	}
	return s.f.Write(p)
}

func (s *Spool) flush() error {
	_, err := s.f.Write(s.buf)
	s.buf = s.buf[:0]
	return err
}

// text returns the message if it is small enough to be kept in its row, else nil.
func (s *Spool) text() []byte {
	if s.size > rowText {
		return nil
	}
	return s.buf
}

// commit completes the file. It is durable then, but for a message whose row has its text.
func (s *Spool) commit(shared *sharedSync) error {
	if s.done {
		return errors.New("spool file is closed")
	}
	s.done = true
	kept := s.text() != nil
	err := s.flush()
	if err == nil && !kept {
		// Both at once: the name has been there since the file was made, and the disk is waited for once.
		named := make(chan error, 1)
		go func() { named <- shared.syncDir(s.dir) }()
		err = s.f.Sync()
		if derr := <-named; err == nil {
			err = derr
		}
	}
	if cerr := s.f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(s.f.Name())
		return fmt.Errorf("write spool file: %w", err)
	}
	return nil
}

// Discard removes the file unless it was submitted. It may be called more than once.
func (s *Spool) Discard() {
	if s.done {
		return
	}
	s.done = true
	s.f.Close()
	os.Remove(s.f.Name())
}

// syncDir makes renames in dir durable. Systems that cannot sync a folder do without.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, fs.ErrInvalid) {
		return err
	}
	return nil
}

// path is where a submission's file lies.
func (q *Queue) path(name string) string { return filepath.Join(q.dir, filepath.Base(name)) }

// files returns the ids of the messages in the spool folder.
func (q *Queue) files() ([]string, error) {
	entries, err := os.ReadDir(q.dir)
	if err != nil {
		return nil, fmt.Errorf("read spool folder: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), spoolSuffix); ok && !e.IsDir() {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// acceptedMode is that of the files of accepted messages, so that a start without their rows can tell them from what was being
// written when the process died. It is not synced: after a power cut the rows alone count.
const acceptedMode = 0o400

// unsentDir is where files go that were accepted and that the database knows nothing of.
const unsentDir = "unsent"

// finished reports whether nothing but a notice can be left to do for a message.
func finished(r *store.Submission) bool {
	return r.State.Settled()
}

// rewrite makes the files of small messages anew that a power cut has taken, wholly or in part.
func (q *Queue) rewrite() error {
	lost := 0
	err := q.store.Texts(context.Background(), func(spool string, text []byte) error {
		name := q.path(spool)
		have, err := os.ReadFile(name)
		if err == nil && bytes.Equal(have, text) {
			return nil
		}
		lost++
		if err := ignoreMissing(os.Remove(name)); err != nil { // it may not be writable
			return err
		}
		return os.WriteFile(name, text, acceptedMode)
	})
	if err != nil {
		return fmt.Errorf("write spool file: %w", err)
	}
	if lost > 0 {
		q.log.Info("files of waiting messages written anew from the queue: the system went down before they were on the disk", "count", lost)
	}
	return nil
}

// sweep removes files that belong to no unfinished row: what was being written when
// the process died, and what was sent just before. What was accepted, and has lost its row with a database that
// was damaged or came from a backup, is put aside: who was to get it is not known any more.
func (q *Queue) sweep() error {
	half, err := filepath.Glob(filepath.Join(q.dir, "*"+tempSuffix))
	if err != nil {
		return fmt.Errorf("read spool folder: %w", err)
	}
	stale := half
	ids, err := q.files()
	if err != nil {
		return err
	}
	var lost []string
	for _, id := range ids {
		r, err := q.store.Get(context.Background(), id)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("read outbox: %w", err)
		}
		name := q.path(id + spoolSuffix)
		switch {
		case err != nil && accepted(name):
			lost = append(lost, name)
		case err != nil || finished(r) && r.NextAttempt.IsZero():
			stale = append(stale, name)
		}
	}
	if err := q.putAside(lost); err != nil {
		return err
	}
	for _, name := range stale {
		if err := os.Remove(name); err != nil {
			q.log.Warn("spool file not removed", "file", filepath.Base(name), "err", err)
		}
	}
	return nil
}

func accepted(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode().Perm() == acceptedMode
}

// putAside moves files out of the spool folder to where a person finds them.
func (q *Queue) putAside(files []string) error {
	if len(files) == 0 {
		return nil
	}
	dir := filepath.Join(filepath.Dir(q.dir), unsentDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("put unsent mail aside: %w", err)
	}
	for _, name := range files {
		if err := os.Rename(name, filepath.Join(dir, filepath.Base(name))); err != nil {
			return fmt.Errorf("put unsent mail aside: %w", err)
		}
	}
	q.log.Error("mail that waits is not in the queue: was its database replaced? The files are put aside, look whom they are for and send them again",
		"count", len(files), "folder", dir)
	return nil
}
