package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"testing/iotest"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/internal/fuzzcorpus"
)

func commitBody(t testing.TB, s *Store, id MessageID, data []byte, fromClient bool) Changes {
	t.Helper()
	w := newBody(t, s, data)
	defer w.Abort()
	ch, err := w.Commit(t.Context(), id, []byte("index"), fromClient)
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// commitText keeps what was read from Graph.
func commitText(t testing.TB, s *Store, id MessageID, data []byte) Changes {
	t.Helper()
	w := s.NewText()
	defer w.Abort()
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	ch, err := w.CommitText(t.Context(), id, func([]byte) (header, index []byte, err error) { return []byte("header"), []byte("index"), nil })
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// TestCommitText keeps texts of all sizes, and the header that goes with them.
func TestCommitText(t *testing.T) {
	ctx := t.Context()
	s, f := newFolder(t)
	apply(t, s, f, []Remote{remote(1), remote(2)})
	id := messageID(f.ID, 1)
	var told []byte
	for i, size := range []int{0, 1, 5000, smallFile, 2 * smallFile, frameSize + 1, 5 * frameSize} {
		w := s.NewText()
		data := randomBytes(size)
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		b, err := w.Open()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size())); err != nil || !bytes.Equal(got, data) {
			t.Errorf("read back %d bytes: %v", len(got), err)
		}
		b.Close()
		header := fmt.Appendf(nil, "header %d", i/2)
		ch, err := w.CommitText(ctx, id, func(is []byte) ([]byte, []byte, error) {
			if !bytes.Equal(is, told) {
				t.Errorf("told %q, want %q", is, told)
			}
			return header, []byte("index"), nil
		})
		if err != nil || len(ch.Updated) != 1 || ch.Updated[0].Size != int64(size) || !ch.Updated[0].SizeExact || !ch.Updated[0].HasHeader || !ch.Updated[0].HasBody {
			t.Errorf("%d bytes: %+v %v", size, ch, err)
		}
		told = header
		if b, err = s.Body(ctx, id); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size())); err != nil || !bytes.Equal(got, data) || string(b.Index()) != "index" {
			t.Errorf("got %d bytes of %d: %v", len(got), size, err)
		}
		b.Close()
		if headers, err := s.Headers(ctx, []MessageID{id}); err != nil || !bytes.Equal(headers[id], header) {
			t.Errorf("header %q %v", headers[id], err)
		}
		checkBodies(t, s)
	}
	failed := errors.New("failed")
	for _, err := range []error{failed, ErrNotFound} {
		id, w := id, s.NewText()
		if err == ErrNotFound {
			id = messageID(f.ID, 9)
		}
		_, got := w.CommitText(ctx, id, func([]byte) (header, index []byte, e error) {
			if err == failed {
				e = err
			}
			return []byte("x"), nil, e
		})
		if !errors.Is(got, err) {
			t.Errorf("got %v, want %v", got, err)
		}
		checkBodies(t, s)
	}
}

func newBody(t testing.TB, s *Store, data []byte) *BodyWriter {
	t.Helper()
	w, err := s.NewBody()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	return w
}

// checkBodies looks whether rows, files and the running total agree.
func checkBodies(t testing.TB, s *Store) {
	t.Helper()
	files := map[string]int64{}
	err := filepath.WalkDir(s.bodies.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			info, err := d.Info()
			if err != nil {
				return err
			}
			files[d.Name()] = info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	rows, err := s.db.query(t.Context(), "SELECT id, file, stored, (SELECT COUNT(*) FROM messages m WHERE m.body = bodies.id) FROM bodies")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var total int64
	for rows.Next() {
		var id, stored, refs int64
		var name string
		if err := rows.Scan(&id, &name, &stored, &refs); err != nil {
			t.Fatal(err)
		}
		if size, ok := files[name]; !ok || size != stored {
			t.Errorf("body %d: file has %d bytes (%v), row says %d", id, size, ok, stored)
		}
		if refs == 0 && !s.bodies.staged[BodyID(id)] {
			t.Errorf("body %d belongs to no message", id)
		}
		delete(files, name)
		total += stored
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if len(files) > 0 {
		t.Errorf("files without a row: %v", files)
	}
	if s.bodies.total != total {
		t.Errorf("total is %d, want %d", s.bodies.total, total)
	}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rnd := rand.New(rand.NewPCG(uint64(n), 1))
	for i := range b {
		b[i] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[rnd.IntN(64)]
	}
	return b
}

func TestBodyContent(t *testing.T) {
	s, f := newFolder(t)
	apply(t, s, f, []Remote{remote(1)})
	id := messageID(f.ID, 1)
	if _, err := s.Body(t.Context(), id); !errors.Is(err, ErrNoBody) {
		t.Errorf("no body: %v", err)
	}
	for _, size := range []int{0, 1, 1000, frameSize - 1, frameSize, frameSize + 1, 3 * frameSize, 6*frameSize + 12345} {
		data := randomBytes(size)
		ch := commitBody(t, s, id, data, false)
		if len(ch.Updated) != 1 || ch.Updated[0].Size != int64(size) || !ch.Updated[0].SizeExact || !ch.Updated[0].HasBody || ch.HighestModSeq != 2 {
			t.Errorf("changes %+v", ch)
		}
		b, err := s.Body(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if b.Size() != int64(size) || string(b.Index()) != "index" {
			t.Errorf("size %d index %q", b.Size(), b.Index())
		}
		if err := iotest.TestReader(io.NewSectionReader(b, 0, b.Size()), data); err != nil && size > 0 {
			t.Errorf("%d bytes: %v", size, err)
		}
		for range 30 {
			if size == 0 {
				break
			}
			off := rand.IntN(size)
			p := make([]byte, rand.IntN(2*frameSize))
			n, err := b.ReadAt(p, int64(off))
			if want := data[off:min(size, off+len(p))]; !bytes.Equal(p[:n], want) || (err == io.EOF) != (off+len(p) > size) {
				t.Errorf("%d bytes at %d of %d: got %d, %v", len(p), off, size, n, err)
			}
		}
		if n, err := b.ReadAt(make([]byte, 1), int64(size)); n != 0 || err != io.EOF {
			t.Errorf("read at the end: %d %v", n, err)
		}
		if _, err := b.ReadAt(make([]byte, 1), -1); err == nil || err == io.EOF {
			t.Errorf("read before the beginning: %v", err)
		}
		if err := errors.Join(b.Close(), b.Close()); err != nil {
			t.Error(err)
		}
		checkBodies(t, s) // the one before is gone
	}
}

// TestBodyIsPlainZstd reads a body file with the zstd program, as a person may want to.
func TestBodyIsPlainZstd(t *testing.T) {
	zstd, err := exec.LookPath("zstd")
	if err != nil {
		t.Skip("zstd is not installed")
	}
	s, f := newFolder(t)
	apply(t, s, f, []Remote{remote(1)})
	data := randomBytes(2*frameSize + 7)
	commitBody(t, s, messageID(f.ID, 1), data, false)
	files, err := filepath.Glob(filepath.Join(s.bodies.dir, "??", "*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	in, err := os.Open(files[0])
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	cmd := exec.Command(zstd, "-dc")
	cmd.Stdin = in
	if out, err := cmd.Output(); err != nil || !bytes.Equal(out, data) {
		t.Errorf("zstd gave %d bytes, want %d: %v", len(out), len(data), err)
	}
}

// TestLargeBody keeps and reads 150 MB within a few MB of memory.
func TestLargeBody(t *testing.T) {
	if testing.Short() {
		t.Skip("150 MB")
	}
	s, f := newFolder(t)
	apply(t, s, f, []Remote{remote(1)})
	chunk := randomBytes(1 << 20)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	w := newBody(t, s, nil)
	for range 150 {
		if _, err := w.Write(chunk); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Commit(t.Context(), messageID(f.ID, 1), nil, false); err != nil {
		t.Fatal(err)
	}
	b, err := s.Body(t.Context(), messageID(f.ID, 1))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	got := make([]byte, len(chunk))
	for i := int64(149); i >= 0; i -= 37 {
		if _, err := b.ReadAt(got, i<<20); err != nil || !bytes.Equal(got, chunk) {
			t.Fatalf("at %d MB: %v", i, err)
		}
	}
	runtime.ReadMemStats(&after)
	if grown := int64(after.Sys) - int64(before.Sys); grown > 40<<20 {
		t.Errorf("memory grew by %d MB", grown>>20)
	}
}

func TestBodyReadBackBeforeCommit(t *testing.T) {
	s, f := newFolder(t)
	apply(t, s, f, []Remote{remote(1)})
	data := randomBytes(400_000)
	w := newBody(t, s, data)
	b, err := w.Open()
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("read back %d bytes: %v", len(got), err)
	}
	b.Close()
	if _, err := w.Write([]byte("x")); err == nil {
		t.Error("wrote after the end")
	}
	if w.Size() != 400_000 {
		t.Errorf("size %d", w.Size())
	}
}

func TestBodyForMessageGone(t *testing.T) {
	s, f := newFolder(t)
	if _, err := newBody(t, s, []byte("x")).Commit(t.Context(), messageID(f.ID, 9), nil, false); !errors.Is(err, ErrNotFound) {
		t.Errorf("commit: %v", err)
	}
	w := newBody(t, s, []byte("y"))
	w.Abort()
	if _, err := w.Commit(t.Context(), messageID(f.ID, 9), nil, false); err == nil {
		t.Error("commit after abort")
	}
	checkBodies(t, s)
	if left, _ := os.ReadDir(s.bodies.tmp); len(left) > 0 {
		t.Errorf("temporary files are left: %v", left)
	}
}

func TestStagedBody(t *testing.T) {
	ctx := t.Context()
	s, f := newFolder(t, func(o *Options) { o.BodyBudget = 10 })
	apply(t, s, f, []Remote{remote(1), remote(2)})
	var ids []BodyID
	for _, text := range []string{"one", "two", "three"} {
		id, err := newBody(t, s, []byte(text)).Stage(ctx, []byte(text), true)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	b, err := s.StagedBody(ctx, ids[1])
	if err != nil || b.Size() != 3 || string(b.Index()) != "two" {
		t.Fatalf("staged: %v %v", b, err)
	}
	b.Close()
	if _, err := s.AttachBody(ctx, messageID(f.ID, 99), ids[0]); !errors.Is(err, ErrNotFound) {
		t.Errorf("attach to nothing: %v", err)
	}
	if ch, err := s.AttachBody(ctx, messageID(f.ID, 1), ids[0]); err != nil || len(ch.Updated) != 1 || ch.Updated[0].Size != 3 {
		t.Errorf("attach: %+v %v", ch, err)
	}
	if err := s.DiscardBody(ctx, ids[1]); err != nil {
		t.Error(err)
	}
	if _, err := s.AttachBody(ctx, messageID(f.ID, 2), ids[1]); !errors.Is(err, ErrNoBody) {
		t.Errorf("attach what was discarded: %v", err)
	}
	if err := s.DiscardBody(ctx, ids[0]); err != nil { // attached: stays
		t.Error(err)
	}
	checkBodies(t, s)
	s.Close()
	s = openStore(t, s.dir)
	if _, err := s.StagedBody(ctx, ids[2]); !errors.Is(err, ErrNoBody) {
		t.Errorf("staged, after restart: %v", err)
	}
	checkBodies(t, s)
}

func TestSharedBody(t *testing.T) {
	ctx := t.Context()
	s, f := newFolder(t)
	to := putFolder(t, s, "Other")
	apply(t, s, f, []Remote{remote(1)})
	commitBody(t, s, messageID(f.ID, 1), []byte("shared"), false)
	if _, _, err := s.Copy(ctx, f.ID, to.ID, []Moved{{1, graphID(2)}}); err != nil {
		t.Fatal(err)
	}
	read := func(id MessageID) error {
		b, err := s.Body(ctx, id)
		if err == nil {
			b.Close()
		}
		return err
	}
	apply(t, s, f, nil, graphID(1))
	if err := read(messageID(to.ID, 1)); err != nil {
		t.Errorf("the copy's body: %v", err)
	}
	checkBodies(t, s)
	b, err := s.Body(ctx, messageID(to.ID, 1))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteFolder(ctx, to.ID); err != nil {
		t.Fatal(err)
	}
	// Still open, so still readable.
	if got, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size())); err != nil || string(got) != "shared" {
		t.Errorf("open body of a deleted message: %q %v", got, err)
	}
	b.Close()
	checkBodies(t, s)
	if s.bodies.total != 0 {
		t.Errorf("%d bytes left", s.bodies.total)
	}
}

func TestEviction(t *testing.T) {
	ctx := t.Context()
	now := day
	s, f := newFolder(t, func(o *Options) {
		o.Now = func() time.Time { return now }
		o.BodyBudget = 7 * 8000
	})
	kept := func() (list []imap.UID) {
		for _, m := range messages(t, s, f.ID) {
			if m.HasBody {
				list = append(list, m.UID)
			}
		}
		return list
	}
	var rows []Remote
	for i := range 20 {
		rows = append(rows, remote(i))
	}
	apply(t, s, f, rows)
	data := func(n int) []byte { return append(randomBytes(10_000), fmt.Sprint(n)...) } // some 7,600 bytes packed
	put := func(uid imap.UID, fromClient bool) {
		t.Helper()
		now = now.Add(time.Hour)
		commitBody(t, s, messageID(f.ID, uid), data(int(uid)), fromClient)
		checkBodies(t, s)
	}
	put(1, true)
	for uid := imap.UID(2); uid <= 6; uid++ {
		put(uid, false)
	}
	held, err := s.Body(ctx, messageID(f.ID, 2))
	if err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Hour)
	touched, err := s.Body(ctx, messageID(f.ID, 3))
	if err != nil {
		t.Fatal(err)
	}
	touched.Close()
	put(7, false)
	if got, want := kept(), []imap.UID{1, 2, 3, 4, 5, 6, 7}; !slices.Equal(got, want) {
		t.Fatalf("kept %v, want %v: the test's sizes are off", got, want)
	}
	put(8, false) // 1 is the client's, 2 is open, 3 was read lately
	if got, want := kept(), []imap.UID{1, 2, 3, 5, 6, 7, 8}; !slices.Equal(got, want) {
		t.Errorf("kept %v, want %v", got, want)
	}
	if _, err := s.Body(ctx, messageID(f.ID, 4)); !errors.Is(err, ErrNoBody) {
		t.Errorf("evicted: %v", err)
	}
	held.Close()
	// The access time of 3 must have been written.
	s.Close()
	s = openStore(t, s.dir, func(o *Options) {
		o.Now = func() time.Time { return now }
		o.BodyBudget = 4 * 8000
	})
	if got, want := kept(), []imap.UID{1, 3, 7, 8}; !slices.Equal(got, want) {
		t.Errorf("kept with a smaller budget %v, want %v", got, want)
	}
	// A body that is larger than the budget stays as long as it is the newest.
	now = now.Add(time.Hour)
	commitBody(t, s, messageID(f.ID, 10), randomBytes(100_000), false)
	if got, want := kept(), []imap.UID{10}; !slices.Equal(got, want) {
		t.Errorf("kept %v, want %v", got, want)
	}
	checkBodies(t, s)
}

// TestLostAndDamagedBodies has somebody at work in the folder of bodies, or finds it as a power cut leaves files that were
// not synced: not there, empty, short, or with blocks of zeros where the bytes should be.
func TestLostAndDamagedBodies(t *testing.T) {
	ctx := t.Context()
	s, f := newFolder(t)
	id := messageID(f.ID, 1)
	apply(t, s, f, []Remote{remote(1)})
	change := func(change func(b []byte) []byte) func(path string) error {
		return func(path string) error {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(path, change(b), 0o600)
		}
	}
	zero := func(from, to int) func(path string) error { // from the end where negative
		return change(func(b []byte) []byte {
			if from < 0 {
				clear(b[len(b)+from:])
				return b
			}
			clear(b[from:to])
			return b
		})
	}
	const page = 4096
	for _, tt := range []struct {
		name string
		harm func(path string) error
	}{
		{"removed", os.Remove},
		{"empty", func(path string) error { return os.Truncate(path, 0) }},
		{"cut short", func(path string) error { return os.Truncate(path, 1000) }},
		{"cut at a page", func(path string) error { return os.Truncate(path, page) }},
		{"longer", change(func(b []byte) []byte { return append(b, 0) })},
		{"other bytes", func(path string) error { return os.WriteFile(path, randomBytes(5000), 0o600) }},
		{"zeros", change(func(b []byte) []byte { return make([]byte, len(b)) })},
		{"first page zeros", zero(0, page)},
		{"second page zeros", zero(page, 2*page)},
		{"last page zeros", zero(-page, 0)},
		{"one bit", change(func(b []byte) []byte { b[len(b)/2] ^= 4; return b })},
		{"a bit of the last", change(func(b []byte) []byte { b[len(b)-seekFooterSize-10] ^= 4; return b })},
	} {
		for _, large := range []bool{false, true} {
			t.Run(fmt.Sprint(tt.name, ", large: ", large), func(t *testing.T) {
				if large {
					commitBody(t, s, id, randomBytes(400_000), false)
				} else {
					commitText(t, s, id, randomBytes(20_000))
				}
				files, err := filepath.Glob(filepath.Join(s.bodies.dir, "??", "*"))
				if err != nil || len(files) != 1 {
					t.Fatal(files, err)
				}
				if err := tt.harm(files[0]); err != nil {
					t.Fatal(err)
				}
				b, err := s.Body(ctx, id)
				if err == nil {
					// Of a large file the table is whole, so only reading shows it; a small one may not have been synced.
					if _, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size())); !errors.Is(err, errDamaged) || !large {
						t.Errorf("read: %v", err)
					}
					b.Close()
					_, err = s.Body(ctx, id)
				}
				if !errors.Is(err, ErrNoBody) {
					t.Errorf("open: %v", err)
				}
				checkBodies(t, s)
			})
		}
	}
	commitBody(t, s, id, randomBytes(20_000), false)
	files, _ := filepath.Glob(filepath.Join(s.bodies.dir, "??", "*"))
	s.Close()
	if err := errors.Join(os.Remove(files[0]), os.WriteFile(filepath.Join(filepath.Dir(files[0]), "stray"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, s.dir)
	checkBodies(t, s)
	if m := messages(t, s, f.ID)[0]; m.HasBody || !m.SizeExact {
		t.Errorf("after the file was lost: %+v", m)
	}
}

func FuzzBodyFile(f *testing.F) {
	c, err := newCodec()
	if err != nil {
		f.Fatal(err)
	}
	for _, n := range []int{0, 10, frameSize + 5} {
		var file bytes.Buffer
		w := frameWriter{c: c, w: &file}
		if _, err := w.Write(bytes.Repeat([]byte("a"), n)); err != nil {
			f.Fatal(err)
		}
		if err := w.finish(); err != nil {
			f.Fatal(err)
		}
		f.Add(file.Bytes())
	}
	dir := f.TempDir()
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := os.CreateTemp(dir, "")
		if err != nil {
			t.Fatal(err)
		}
		defer os.Remove(file.Name())
		defer file.Close()
		if _, err := file.Write(b); err != nil {
			t.Fatal(err)
		}
		r, err := openFrames(c, file.Name(), int64(len(b)))
		if err != nil {
			return
		}
		defer r.close()
		n, err := io.Copy(io.Discard, io.LimitReader(io.NewSectionReader(r, 0, r.size), 4<<20))
		if err == nil && n != min(r.size, 4<<20) {
			t.Errorf("read %d of %d bytes without an error", n, r.size)
		}
	})
}
