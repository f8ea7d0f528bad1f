package outbox

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"postern/backend/store"
)

// texts returns what the database keeps of messages, by the names of their files.
func (r *rig) texts() map[string]string {
	r.t.Helper()
	got := make(map[string]string)
	if err := r.st.Outbox().Texts(r.t.Context(), func(spool string, text []byte) error {
		got[spool] = string(text)
		return nil
	}); err != nil {
		r.t.Fatal(err)
	}
	return got
}

// A power cut takes what was never synced. What a file system may leave of a small message's file is written anew before anything
// looks at it.
func TestPowerCut(t *testing.T) {
	const text = "Subject: x\r\n\r\nbody\r\n"
	cuts := map[string]func(name string) error{
		"whole":   func(string) error { return nil },
		"missing": os.Remove,
		"empty":   func(name string) error { return os.WriteFile(name, nil, 0o600) },
		"zeros":   func(name string) error { return os.WriteFile(name, make([]byte, len(text)), 0o600) },
		"half":    func(name string) error { return os.WriteFile(name, []byte(text[:5]), 0o600) },
		"blocks":  func(name string) error { return os.WriteFile(name, make([]byte, 4096), 0o600) },
	}
	for what, cut := range cuts {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				r := openRig(t, dir, newExchange(step{err: temporary}), Options{})
				id, err := r.submit(10 * time.Second)
				if err != nil {
					t.Fatal(err)
				}
				r.stop()
				name := filepath.Join(dir, "spool", id+spoolSuffix)
				if err := os.Chmod(name, 0o600); err != nil {
					t.Fatal(err)
				}
				if err := cut(name); err != nil {
					t.Fatal(err)
				}

				x := newExchange()
				r = openRig(t, dir, x, Options{})
				defer r.stop()
				if b, err := os.ReadFile(name); err != nil || string(b) != text {
					t.Errorf("the file holds %q, %v", b, err)
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				if s := r.row(id); s.State != store.StateSent || x.total() != 1 {
					t.Errorf("%+v, sent %d", s, x.total())
				}
				if left := r.texts(); len(left) != 0 || len(r.files()) != 0 {
					t.Errorf("left: texts %q, files %v", left, r.files())
				}
			})
		})
	}
}

// The database keeps what is small, for as long as something is left to do for it.
func TestTextIsKept(t *testing.T) {
	x := newExchange()
	bubble(t, x, Options{}, func(r *rig) {
		x.mu.Lock()
		x.delay = time.Minute
		x.mu.Unlock()
		for _, size := range []int{rowText - 1, rowText, rowText + 1, spoolBuffer, 3 * spoolBuffer} {
			s, err := r.q.NewSpool()
			if err != nil {
				t.Fatal(err)
			}
			text := bytes.Repeat([]byte{'x'}, size)
			if _, err := s.Write(text); err != nil {
				t.Fatal(err)
			}
			sub := store.Submission{Mailbox: "a@x", EnvelopeFrom: "a@x", Recipients: []store.Recipient{{Address: "b@y"}}}
			id, err := r.q.Submit(r.t.Context(), s, sub, 0)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := os.ReadFile(r.q.path(id + spoolSuffix)); err != nil || !bytes.Equal(b, text) {
				t.Errorf("%d bytes: the file has %d, %v", size, len(b), err)
			}
			if got, kept := r.texts()[id+spoolSuffix]; kept != (size <= rowText) || kept && got != string(text) {
				t.Errorf("%d bytes: kept %v, %d bytes", size, kept, len(got))
			}
		}

		// One with a notice to come, one taken out, one in the way of forgetting.
		owed, err := r.submit(0, func(s *store.Submission) { s.Recipients[0].Notify = []string{"SUCCESS"} })
		if err != nil {
			t.Fatal(err)
		}
		purged, err := r.submit(0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Ask(r.t.Context(), r.st.Outbox(), purged, Purge, ""); err != nil {
			t.Fatal(err)
		}
		if left := r.texts(); left[purged+spoolSuffix] != "" || left[owed+spoolSuffix] == "" {
			t.Errorf("texts: %d", len(left))
		}
		x.mu.Lock()
		x.delay, x.noteErrs = 0, 1
		x.mu.Unlock()
		for r.row(owed).State != store.StateSent {
			time.Sleep(time.Second)
			synctest.Wait()
		}
		if left := r.texts(); len(left) != 1 || left[owed+spoolSuffix] == "" {
			t.Errorf("%d texts are kept for one notice", len(left))
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if left := r.texts(); len(left) != 0 || len(r.files()) != 0 {
			t.Errorf("left: %d texts, files %v", len(left), r.files())
		}
	})
}

// However a message comes, its file has it as it came.
func TestSpoolWrite(t *testing.T) {
	r := prepareRig(t, t.TempDir(), newExchange(), Options{})
	defer r.stop()
	for _, pieces := range [][]int{{}, {0}, {1}, {rowText, 1}, {spoolBuffer, 1}, {spoolBuffer - 1, 2}, {spoolBuffer + 1}, {1, 2 * spoolBuffer, 1}, {700, 70_000, 700, 65_536, 5}} {
		s, err := r.q.NewSpool()
		if err != nil {
			t.Fatal(err)
		}
		var want []byte
		for i, n := range pieces {
			p := bytes.Repeat([]byte{byte('a' + i)}, n)
			want = append(want, p...)
			if k, err := s.Write(p); k != n || err != nil {
				t.Fatalf("%v: wrote %d, %v", pieces, k, err)
			}
			clear(p) // it is the caller's again
		}
		if s.Size() != int64(len(want)) {
			t.Errorf("%v: size %d", pieces, s.Size())
		}
		if err := s.commit(&r.q.sync); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(r.q.path(s.ID() + spoolSuffix)); err != nil || !bytes.Equal(b, want) {
			t.Errorf("%v: the file has %d bytes, %v", pieces, len(b), err)
		}
	}
}

// BenchmarkStart opens a queue in which many small messages wait, as after an hour without Microsoft 365.
func BenchmarkStart(b *testing.B) {
	for _, n := range []int{1_000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			st, err := store.Open(b.Context(), store.Options{Dir: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			defer st.Close()
			q, err := New(Options{Store: st.Outbox(), Sender: newExchange()})
			if err != nil {
				b.Fatal(err)
			}
			text := bytes.Repeat([]byte{'x'}, 4<<10)
			jobs := make(chan int)
			done := make(chan error)
			for range 64 {
				go func() {
					for range jobs {
						s, err := q.NewSpool()
						if err == nil {
							s.Write(text)
							_, err = q.Submit(context.Background(), s, store.Submission{Mailbox: "a@x"}, 0)
						}
						done <- err
					}
				}()
			}
			go func() {
				for i := range n {
					jobs <- i
				}
				close(jobs)
			}()
			for range n {
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				if _, err := New(Options{Store: st.Outbox(), Sender: newExchange()}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
