package store

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

// Writers that share a transaction each get their own result, and a failed one takes nobody else's change along.
func TestSharedCommits(t *testing.T) {
	s := openStore(t, t.TempDir())
	o := s.Outbox()
	if _, err := o.Insert(t.Context(), Submission{ID: "taken"}); err != nil {
		t.Fatal(err)
	}
	refuse := errors.New("no")
	o.db.writing <- struct{}{} // so that all of them wait together
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			id := fmt.Sprintf("s%02d", i)
			switch i % 4 {
			case 0:
				if _, err := o.Insert(t.Context(), Submission{ID: "taken"}); !errors.Is(err, ErrExists) {
					t.Errorf("insert twice: %v", err)
				}
			case 1:
				_, err := o.Update(t.Context(), "taken", func(sub *Submission) error {
					sub.LastError = "must not stay"
					return refuse
				})
				if !errors.Is(err, refuse) {
					t.Errorf("refused update: %v", err)
				}
			default:
				if _, err := o.Insert(t.Context(), Submission{ID: id, Events: []Event{{What: "accepted"}}}); err != nil {
					t.Errorf("insert: %v", err)
				}
			}
		})
	}
	for waiting := 0; waiting < 40; {
		o.mu.Lock()
		waiting = len(o.waiting)
		o.mu.Unlock()
	}
	<-o.db.writing
	wg.Wait()
	rows, err := o.List(t.Context(), Filter{})
	if err != nil || len(rows) != 21 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	for _, r := range rows {
		if r.LastError != "" {
			t.Errorf("%s keeps a refused change", r.ID)
		}
		if ev, err := o.Events(t.Context(), r.ID); err != nil || r.ID != "taken" && (len(ev) != 1 || ev[0].What != "accepted" || ev[0].At.IsZero()) {
			t.Errorf("%s: events %v, %v", r.ID, ev, err)
		}
	}
}

// Another process's changes are noticed, our own are not.
func TestChangedElsewhere(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	o := s.Outbox()
	changed := func() bool {
		t.Helper()
		c, err := o.ChangedElsewhere(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	changed()
	if _, err := o.Insert(t.Context(), Submission{ID: "a"}); err != nil {
		t.Fatal(err)
	}
	if changed() {
		t.Error("own change reported")
	}
	other, running, err := OpenOutbox(t.Context(), dir)
	if err != nil || !running {
		t.Fatalf("running %v, %v", running, err)
	}
	if changed() {
		t.Error("opening reported")
	}
	if _, err := other.Update(t.Context(), "a", func(sub *Submission) error { sub.State = StateHeld; return nil }); err != nil {
		t.Fatal(err)
	}
	if !changed() || changed() {
		t.Error("change of another not reported once")
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
}

// Without a server the outbox is held for the command, and what was being sent when the server died is put right.
func TestOpenOutboxAlone(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(t.Context(), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Outbox().Insert(t.Context(), Submission{ID: "a", State: StateSending}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	o, running, err := OpenOutbox(t.Context(), dir)
	if err != nil || running {
		t.Fatalf("running %v, %v", running, err)
	}
	if r, err := o.Get(t.Context(), "a"); err != nil || r.State != StateUnclear {
		t.Errorf("row %+v, %v", r, err)
	}
	if _, err := Open(t.Context(), Options{Dir: dir}); err == nil {
		t.Error("a server starts beside the command")
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	s, err = Open(t.Context(), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
}

// The log goes with the rows it is about.
func TestDeleteEvents(t *testing.T) {
	s := openStore(t, t.TempDir())
	o := s.Outbox()
	for _, st := range []State{StateSent, StateBounced, StateRefused, StatePurged, StateQueued} {
		if _, err := o.Insert(t.Context(), Submission{ID: string(st), State: st, Events: []Event{{What: "accepted"}}}); err != nil {
			t.Fatal(err)
		}
	}
	gone, err := o.Delete(t.Context(), time.Now().Add(time.Hour))
	if err != nil || len(gone) != 4 {
		t.Fatalf("%d gone, %v", len(gone), err)
	}
	var n int
	if err := o.db.r.QueryRow("SELECT COUNT(*) FROM events").Scan(&n); err != nil || n != 1 {
		t.Errorf("%d events left, %v", n, err)
	}
	if err := o.Remove(t.Context(), "queued"); err != nil {
		t.Fatal(err)
	}
	if err := o.db.r.QueryRow("SELECT COUNT(*) FROM events").Scan(&n); err != nil || n != 0 {
		t.Errorf("%d events left, %v", n, err)
	}
}

// TestAddWaitsForTheFile checks that no row is there before its file is, nor when the file cannot be written.
func TestAddWaitsForTheFile(t *testing.T) {
	o, _ := newOutbox(t)
	lost := errors.New("disk on fire")
	for _, size := range []int64{1, earlyRow + 1} {
		for _, others := range []bool{false, true} {
			id := fmt.Sprint(size, others)
			if others {
				o.db.writing <- struct{}{}
			}
			file, asked := make(chan error), make(chan struct{})
			added := make(chan error, 1)
			var once sync.Once
			durable := sync.OnceValue(func() error { return <-file })
			go func() {
				added <- o.Add(t.Context(), Submission{ID: id, Size: size}, func() error {
					once.Do(func() { close(asked) })
					return durable()
				})
			}()
			<-asked
			if _, err := o.Get(t.Context(), id); !errors.Is(err, ErrNotFound) {
				t.Errorf("%s: row before its file: %v", id, err)
			}
			file <- nil
			if others {
				<-o.db.writing
			}
			if err := <-added; err != nil {
				t.Errorf("%s: %v", id, err)
			}
			if _, err := o.Get(t.Context(), id); err != nil {
				t.Errorf("%s: %v", id, err)
			}
			if err := o.Add(t.Context(), Submission{ID: id + "lost", Size: size}, func() error { return lost }); !errors.Is(err, lost) {
				t.Errorf("%s: %v", id, err)
			}
			if _, err := o.Get(t.Context(), id+"lost"); !errors.Is(err, ErrNotFound) {
				t.Errorf("%s: row without a file: %v", id, err)
			}
		}
	}
}
