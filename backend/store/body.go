package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/emersion/go-imap/v2"
)

// BodyWriter takes a message's bytes. Nothing of them is visible before Commit or
// Stage has returned. It is for one goroutine.
type BodyWriter struct {
	s      *Store
	f      *os.File // nil once placed or aborted
	frames frameWriter
	ended  bool // the seek table is written
	err    error
}

// NewBody begins a body in a temporary file. The caller ends it with Commit, Stage
// or Abort.
func (s *Store) NewBody() (*BodyWriter, error) {
	f, err := os.CreateTemp(s.bodies.tmp, "body-*")
	if err != nil {
		return nil, fmt.Errorf("new body: %w", err)
	}
	return &BodyWriter{s: s, f: f, frames: frameWriter{c: s.bodies.codec, w: f}}, nil
}

// Write implements [io.Writer].
func (w *BodyWriter) Write(p []byte) (int, error) {
	if w.err == nil && (w.ended || w.f == nil) {
		w.err = errors.New("body is ended")
	}
	if w.err != nil {
		return 0, w.err
	}
	n, err := w.frames.Write(p)
	if err != nil {
		w.err = fmt.Errorf("write body: %w", err)
	}
	return n, w.err
}

// Size returns the bytes written so far.
func (w *BodyWriter) Size() int64 { return w.frames.size }

// Open ends the writing and gives the bytes back, say for an index to hand to
// Commit. The caller closes it before Commit or Stage.
func (w *BodyWriter) Open() (*Body, error) {
	if err := w.end(); err != nil {
		return nil, err
	}
	f, err := os.Open(w.f.Name())
	if err != nil {
		return nil, fmt.Errorf("open body: %w", err)
	}
	r, err := newFrameReader(w.s.bodies.codec, f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open body: %w", err)
	}
	return &Body{s: w.s, r: r}, nil
}

func (w *BodyWriter) end() error {
	if w.err == nil && w.f == nil {
		w.err = errors.New("body is ended")
	}
	if w.err != nil || w.ended {
		return w.err
	}
	if err := w.frames.finish(); err != nil {
		w.err = fmt.Errorf("write body: %w", err)
	}
	w.ended = true
	return w.err
}

// Abort throws the body away. After Commit or Stage it does nothing.
func (w *BodyWriter) Abort() {
	if w.f == nil {
		return
	}
	w.f.Close()
	os.Remove(w.f.Name())
	w.f = nil
}

// place makes the file durable under its lasting name and returns that name,
// relative to the folder of bodies. A crash after it leaves a file without a row,
// which Open removes.
func (w *BodyWriter) place() (string, error) {
	if err := w.end(); err != nil {
		w.Abort()
		return "", err
	}
	name, err := w.move()
	if err != nil {
		w.err = fmt.Errorf("keep body: %w", err)
		w.Abort()
		return "", w.err
	}
	w.f = nil
	return name, nil
}

func (w *BodyWriter) move() (string, error) {
	if err := w.f.Sync(); err != nil {
		return "", err
	}
	if err := w.f.Close(); err != nil {
		return "", err
	}
	var random [16]byte
	rand.Read(random[:])
	name := hex.EncodeToString(random[:])
	dir := filepath.Join(w.s.bodies.dir, name[:2])
	switch err := os.Mkdir(dir, 0o700); {
	case err == nil:
		if err := syncDir(w.s.bodies.dir); err != nil {
			return "", err
		}
	case !errors.Is(err, os.ErrExist):
		return "", err
	}
	if err := os.Rename(w.f.Name(), filepath.Join(dir, name)); err != nil {
		return "", err
	}
	if err := syncDir(dir); err != nil {
		return "", errors.Join(err, os.Remove(filepath.Join(dir, name)))
	}
	return name, nil
}

// Commit keeps the bytes as the body of a message, in place of an earlier one. The
// message's size becomes exactly theirs. index is the caller's, returned by
// Body.Index. fromClient marks bytes a client has appended: they are evicted after
// all others. [ErrNotFound] if the message is gone.
func (w *BodyWriter) Commit(ctx context.Context, id MessageID, index []byte, fromClient bool) (Changes, error) {
	name, err := w.place()
	if err != nil {
		return Changes{}, err
	}
	s := w.s
	var body BodyID
	ch, err := s.inFolder(ctx, "keep body", id.Folder(), func(ft *folderTx) error {
		var err error
		if body, err = s.bodies.insert(ft.t, w, name, index, fromClient); err != nil {
			return err
		}
		return ft.attach(id, body, w.frames.size)
	})
	if err != nil {
		os.Remove(s.bodies.path(name))
		return Changes{}, err
	}
	s.bodies.evict(ctx, body)
	return ch, nil
}

// Stage keeps the bytes before their message exists, for AttachBody. A body that
// is not attached before the store is closed is forgotten.
func (w *BodyWriter) Stage(ctx context.Context, index []byte, fromClient bool) (BodyID, error) {
	name, err := w.place()
	if err != nil {
		return 0, err
	}
	s := w.s
	var body BodyID
	err = s.db.write(ctx, "stage body", func(t *tx) error {
		var err error
		if body, err = s.bodies.insert(t, w, name, index, fromClient); err != nil {
			return err
		}
		// Already now, so that it is never up for eviction.
		s.bodies.setStaged(body, true)
		return nil
	})
	if err != nil {
		s.bodies.setStaged(body, false)
		os.Remove(s.bodies.path(name))
		return 0, err
	}
	s.bodies.evict(ctx, body)
	return body, nil
}

// AttachBody makes a staged body a message's, as Commit does. [ErrNoBody] if it is
// not staged (any more), [ErrNotFound] if the message is gone; the body then stays staged.
func (s *Store) AttachBody(ctx context.Context, id MessageID, body BodyID) (Changes, error) {
	ch, err := s.inFolder(ctx, "attach body", id.Folder(), func(ft *folderTx) error {
		var size int64
		err := ft.t.row([]any{&size}, "SELECT size FROM bodies WHERE id = ?", int64(body))
		if errors.Is(err, ErrNotFound) {
			return ErrNoBody
		}
		if err != nil {
			return err
		}
		return ft.attach(id, body, size)
	})
	if err != nil {
		return Changes{}, err
	}
	s.bodies.setStaged(body, false)
	return ch, nil
}

// DiscardBody throws a staged body away.
func (s *Store) DiscardBody(ctx context.Context, body BodyID) error {
	err := s.db.write(ctx, "discard body", func(t *tx) error { return s.bodies.release(t, []int64{int64(body)}) })
	if err == nil {
		s.bodies.setStaged(body, false)
	}
	return err
}

// attach sets a message's body.
func (ft *folderTx) attach(id MessageID, body BodyID, size int64) error {
	list, err := loadEntries(ft, "id", nil, []int64{int64(id)})
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return ErrNotFound
	}
	e := list[0]
	if e.SizeExact && e.Size != size {
		ft.s.log.Info("message has another size than it had before", "account", int64(ft.f.Account), "mailbox", ft.f.Name, "uid", uint32(e.UID), "was", e.Size, "is", size)
	}
	e.body, e.HasBody, e.Size, e.SizeExact = body, true, size, true
	return nil
}

// Body is an open body. It is an [io.ReaderAt] and safe for concurrent use; while it
// is open its bytes stay.
type Body struct {
	s     *Store
	r     *frameReader
	id    BodyID // 0 when not committed yet
	index []byte

	mu      sync.Mutex
	damaged bool
	closed  bool
}

// Body opens a message's kept bytes, or returns [ErrNoBody].
func (s *Store) Body(ctx context.Context, id MessageID) (*Body, error) {
	if row, ok := s.bodies.ahead.take(id); ok {
		if b, err := s.openFile(ctx, row); err == nil {
			return b, nil
		}
		// The row is out of date, or else the next one says what is wrong.
	}
	row, err := s.bodyRow(ctx, id)
	return s.openBody(ctx, row, err)
}

// BodyOf is Body for the message with a UID in a folder.
func (s *Store) BodyOf(ctx context.Context, folder FolderID, uid imap.UID) (*Body, error) {
	return s.Body(ctx, messageID(folder, uid))
}

// StagedBody opens a staged body, or returns [ErrNoBody].
func (s *Store) StagedBody(ctx context.Context, id BodyID) (*Body, error) {
	var row bodyRow
	err := s.db.row(ctx, []any{&row.id, &row.name, &row.size, &row.accessed, &row.index},
		"SELECT b.id, b.file, b.size, b.accessed, b.idx FROM bodies b WHERE b.id = ?", int64(id))
	return s.openBody(ctx, row, err)
}

// openFile opens the file of a body.
func (s *Store) openFile(ctx context.Context, row bodyRow) (*Body, error) {
	b := &Body{s: s, id: BodyID(row.id), index: row.index}
	s.bodies.acquire(b.id)
	f, err := os.Open(s.bodies.path(row.name))
	if err == nil {
		if b.r, err = newFrameReader(s.bodies.codec, f); err == nil && b.r.size != row.size {
			err = errDamaged
		}
		if err != nil {
			f.Close()
		}
	}
	if err != nil {
		s.bodies.unacquire(b.id)
		return nil, err
	}
	s.bodies.touch(ctx, b.id, row.accessed)
	return b, nil
}

// openBody opens the file of a row that was just read, with the error err.
func (s *Store) openBody(ctx context.Context, row bodyRow, err error) (*Body, error) {
	if errors.Is(err, ErrNotFound) {
		return nil, ErrNoBody
	}
	if err != nil {
		return nil, s.db.explain("open body", err)
	}
	b, err := s.openFile(ctx, row)
	if err == nil {
		return b, nil
	}
	if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, errDamaged) {
		return nil, fmt.Errorf("open body: %w", err)
	}
	// Files go after their rows. One that has gone with its row since the row was read, because the message was expunged or
	// the body evicted, is no surprise; one that has a row still is, and can be read again.
	rowErr := s.db.row(ctx, []any{new(int64)}, "SELECT id FROM bodies WHERE id = ?", row.id)
	if errors.Is(rowErr, ErrNotFound) {
		return nil, ErrNoBody
	}
	if rowErr != nil {
		return nil, s.db.explain("open body", rowErr)
	}
	if dropErr := s.bodies.drop(ctx, BodyID(row.id), err); dropErr != nil {
		return nil, dropErr
	}
	return nil, ErrNoBody
}

// ReadAt implements [io.ReaderAt]. After an error other than io.EOF the bytes are
// forgotten when the body is closed, so that they can be read from Graph again.
func (b *Body) ReadAt(p []byte, off int64) (int, error) {
	n, err := b.r.ReadAt(p, off)
	if errors.Is(err, errDamaged) {
		b.mu.Lock()
		b.damaged = true
		b.mu.Unlock()
	}
	return n, err
}

// Size returns the bytes of the message.
func (b *Body) Size() int64 { return b.r.size }

// Index returns what was given to Commit or Stage; do not change it.
func (b *Body) Index() []byte { return b.index }

// Close lets the bytes go. A second call does nothing.
func (b *Body) Close() error {
	b.mu.Lock()
	closed, damaged := b.closed, b.damaged
	b.closed = true
	b.mu.Unlock()
	if closed {
		return nil
	}
	err := b.r.f.Close()
	if b.id != 0 {
		b.s.bodies.unacquire(b.id)
		if damaged {
			err = errors.Join(err, b.s.bodies.drop(context.Background(), b.id, errDamaged))
		}
	}
	return err
}
