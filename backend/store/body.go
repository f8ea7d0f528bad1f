package store

import (
	"bytes"
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
	file   spill
	frames frameWriter
	ended  bool // the seek table is written
	over   bool // placed or aborted
	err    error
}

// NewBody begins a body in a temporary file, so that a disk that is full is noticed while the bytes come. The caller ends
// it with Commit, Stage or Abort.
func (s *Store) NewBody() (*BodyWriter, error) {
	w := s.NewText()
	if err := w.file.toDisk(); err != nil {
		return nil, fmt.Errorf("new body: %w", err)
	}
	return w, nil
}

// NewText begins a body of bytes that can be read again, in memory while it is small. The caller ends it with CommitText,
// Stage or Abort.
func (s *Store) NewText() *BodyWriter {
	w := &BodyWriter{s: s, file: spill{dir: s.bodies.tmp}}
	w.frames = frameWriter{c: s.bodies.codec, w: &w.file}
	return w
}

// spill is a body file that is being written: up to smallFile bytes in memory, more in a temporary file.
type spill struct {
	dir string
	mem []byte
	f   *os.File // nil while all is in mem
}

func (s *spill) Write(p []byte) (int, error) {
	if s.f == nil {
		if len(s.mem)+len(p) <= smallFile {
			s.mem = append(s.mem, p...)
			return len(p), nil
		}
		if err := s.toDisk(); err != nil {
			return 0, err
		}
	}
	return s.f.Write(p)
}

// toDisk goes on in a temporary file.
func (s *spill) toDisk() (err error) {
	if s.f, err = os.CreateTemp(s.dir, "body-*"); err == nil && len(s.mem) > 0 {
		_, err = s.f.Write(s.mem)
	}
	s.mem = nil
	return err
}

// Write implements [io.Writer].
func (w *BodyWriter) Write(p []byte) (int, error) {
	if w.err == nil && (w.ended || w.over) {
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
	var r *frameReader
	var err error
	if w.file.f == nil {
		r, err = newFrameReader(w.s.bodies.codec, nil, w.file.mem, w.frames.stored)
	} else {
		r, err = openFrames(w.s.bodies.codec, w.file.f.Name(), w.frames.stored)
	}
	if err != nil {
		return nil, fmt.Errorf("open body: %w", err)
	}
	return &Body{s: w.s, r: r}, nil
}

func (w *BodyWriter) end() error {
	if w.err == nil && w.over {
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
	if w.over {
		return
	}
	w.over = true
	w.file.mem = nil
	if w.file.f != nil {
		w.file.f.Close()
		os.Remove(w.file.f.Name())
	}
}

// place makes the file under its lasting name and returns that name, relative to the folder of bodies. A crash after it
// leaves a file without a row, which Open removes.
//
// A file that is not durable is not waited for: after a power cut it may be missing, or short, or zeros. That is found when
// it is opened, for small files have a checksum, and then it is as if it had been evicted. Larger files are always durable:
// they are not read as a whole when they are opened.
func (w *BodyWriter) place(durable bool) (string, error) {
	if err := w.end(); err != nil {
		w.Abort()
		return "", err
	}
	name, err := w.move(durable)
	if err != nil {
		w.err = fmt.Errorf("keep body: %w", err)
		w.Abort()
		return "", w.err
	}
	w.over = true
	return name, nil
}

func (w *BodyWriter) move(durable bool) (string, error) {
	var random [16]byte
	rand.Read(random[:])
	name := hex.EncodeToString(random[:])
	path := w.s.bodies.path(name)
	put := func() error { return writeFile(path, w.file.mem, durable) }
	if f := w.file.f; f != nil {
		durable = true
		if err := f.Sync(); err != nil {
			return "", err
		}
		if err := f.Close(); err != nil {
			return "", err
		}
		put = func() error { return os.Rename(f.Name(), path) }
	}
	err := put()
	if errors.Is(err, os.ErrNotExist) {
		switch err := os.Mkdir(filepath.Dir(path), 0o700); {
		case err == nil:
			if err := syncDir(w.s.bodies.dir); err != nil {
				return "", err
			}
		case !errors.Is(err, os.ErrExist):
			return "", err
		}
		err = put()
	}
	if err != nil {
		return "", err
	}
	if durable {
		if err := syncDir(filepath.Dir(path)); err != nil {
			return "", errors.Join(err, os.Remove(path))
		}
	}
	return name, nil
}

// writeFile makes a new file, which is on the disk afterwards if it is durable. Its folder is not synced.
func writeFile(path string, data []byte, durable bool) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil && durable {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// Commit keeps the bytes as the body of a message, in place of an earlier one. The
// message's size becomes exactly theirs. index is the caller's, returned by
// Body.Index. fromClient marks bytes a client has appended: they are evicted after
// all others. [ErrNotFound] if the message is gone.
func (w *BodyWriter) Commit(ctx context.Context, id MessageID, index []byte, fromClient bool) (Changes, error) {
	return w.commit(ctx, id, fromClient, true, func(*folderTx) ([]byte, error) { return index, nil })
}

// CommitText is Commit for bytes that were read from Graph and can be read again: the row is durable, but not the file.
// merge is given the raw header that is kept of the message, nil if there is none, and says which one shall be, and the
// index. It runs within the transaction, so that nobody changes the header between.
func (w *BodyWriter) CommitText(ctx context.Context, id MessageID, merge func(told []byte) (header, index []byte, err error)) (Changes, error) {
	return w.commit(ctx, id, false, false, func(ft *folderTx) ([]byte, error) {
		told, err := ft.header(id)
		if err != nil {
			return nil, err
		}
		header, index, err := merge(told)
		if err != nil || told != nil && bytes.Equal(told, header) {
			return index, err
		}
		return index, ft.replaceHeader(id, header)
	})
}

func (w *BodyWriter) commit(ctx context.Context, id MessageID, fromClient, durable bool, index func(*folderTx) ([]byte, error)) (Changes, error) {
	name, err := w.place(durable)
	if err != nil {
		return Changes{}, err
	}
	s := w.s
	var body BodyID
	ch, err := s.inFolder(ctx, "keep body", id.Folder(), func(ft *folderTx) error {
		index, err := index(ft)
		if err != nil {
			return err
		}
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
	name, err := w.place(true)
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

// message returns a message, or [ErrNotFound].
func (ft *folderTx) message(id MessageID) (*entry, error) {
	if e := ft.known[id]; e != nil {
		return e, nil
	}
	list, err := loadEntries(ft, "id", nil, []int64{int64(id)})
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, ErrNotFound
	}
	return list[0], nil
}

// attach sets a message's body.
func (ft *folderTx) attach(id MessageID, body BodyID, size int64) error {
	e, err := ft.message(id)
	if err != nil {
		return err
	}
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
	err := s.db.row(ctx, []any{&row.id, &row.name, &row.size, &row.stored, &row.accessed, &row.index},
		"SELECT b.id, b.file, b.size, b.stored, b.accessed, b.idx FROM bodies b WHERE b.id = ?", int64(id))
	return s.openBody(ctx, row, err)
}

// openFile opens the file of a body.
func (s *Store) openFile(ctx context.Context, row bodyRow) (*Body, error) {
	b := &Body{s: s, id: BodyID(row.id), index: row.index}
	s.bodies.acquire(b.id)
	var err error
	if b.r, err = openFrames(s.bodies.codec, s.bodies.path(row.name), row.stored); err == nil && b.r.size != row.size {
		b.r.close()
		err = errDamaged
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
	err := b.r.close()
	if b.id != 0 {
		b.s.bodies.unacquire(b.id)
		if damaged {
			err = errors.Join(err, b.s.bodies.drop(context.Background(), b.id, errDamaged))
		}
	}
	return err
}
