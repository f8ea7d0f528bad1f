package store

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A message that is sent while the snapshot is being made is in it as sent, not as one whose file is missing.
func TestSnapshotWhileSending(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(t.Context(), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, id := range []string{"waits", "leaves"} {
		if err := os.WriteFile(filepath.Join(dir, "spool", id+".eml"), []byte(id), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Outbox().Insert(t.Context(), Submission{ID: id, Spool: id + ".eml", NextAttempt: time.Now(), Text: []byte(id), Events: []Event{{What: "accepted"}}}); err != nil {
			t.Fatal(err)
		}
	}
	dest := filepath.Join(dir, ".copy")
	m, err := Snapshot(t.Context(), dir, dest, SnapshotOptions{Bodies: AllBodies, Progress: func(what string, _ int64) {
		if what != "spool" {
			return
		}
		// The outbox is copied, the files are not.
		_, err := s.Outbox().Update(t.Context(), "leaves", func(r *Submission) error {
			r.State, r.NextAttempt, r.Events = StateSent, time.Time{}, []Event{{What: "sent"}}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		if err := os.Remove(filepath.Join(dir, "spool", "leaves.eml")); err != nil {
			t.Error(err)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if m.Replica == 0 || m.Outbox == 0 {
		t.Errorf("the manifest is %+v", m)
	}
	copied, err := Open(t.Context(), Options{Dir: dest})
	if err != nil {
		t.Fatal(err)
	}
	defer copied.Close()
	for id, want := range map[string]State{"waits": StateQueued, "leaves": StateSent} {
		r, err := copied.Outbox().Get(t.Context(), id)
		if err != nil || r.State != want {
			t.Errorf("%s is %+v, %v; want %s", id, r, err, want)
		}
	}
	if events, err := copied.Outbox().Events(t.Context(), "leaves"); err != nil || len(events) != 2 {
		t.Errorf("the log of the message that left is %+v, %v", events, err)
	}
	if texts := keptTexts(t, copied.Outbox()); len(texts) != 1 || texts["waits.eml"] != "waits" {
		t.Errorf("the texts kept with the rows are %q", texts)
	}
	if b, err := os.ReadFile(filepath.Join(dest, "spool", "waits.eml")); err != nil || string(b) != "waits" {
		t.Errorf("the file of the message that waits: %q, %v", b, err)
	}
}

// A restore that was broken off half way is not taken for a new, empty state.
func TestBrokenOffRestore(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, restoring), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(t.Context(), Options{Dir: dir}); err == nil {
		s.Close()
		t.Error("the folder is opened")
	}
	from := filepath.Join(dir, ".from")
	if err := os.MkdirAll(filepath.Join(from, "spool"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Replace(dir, from, time.Now()); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}
