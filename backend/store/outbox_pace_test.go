package store

import (
	"errors"
	"path/filepath"
	"testing"
	"time"
)

// What the pace and the waits of a mailbox depend on is there when the store is opened again.
func TestPaceSurvives(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	now := day
	clock := func(o *Options) { o.Now = func() time.Time { return now } }
	s := openStore(t, dir, clock)
	o := s.Outbox()
	sub := insert(t, o, Submission{Mailbox: "a@x", Digest: "d", Unanswered: true})
	other := insert(t, o, Submission{Mailbox: "b@x", Unanswered: true})
	old := now
	for range 2 {
		if _, err := o.Update(t.Context(), sub.ID, func(s *Submission) error { s.Sends = 1; return nil }); err != nil {
			t.Fatal(err)
		}
		now = now.Add(3 * time.Minute)
	}
	refused := errors.New("no")
	if _, err := o.Update(t.Context(), sub.ID, func(s *Submission) error { s.Sends = 1; return refused }); !errors.Is(err, refused) {
		t.Fatal(err)
	}
	if _, err := o.Claim(t.Context(), other.ID); err != nil {
		t.Fatal(err)
	}
	until := now.Add(time.Hour)
	for _, u := range []time.Time{now, until} {
		if err := o.SetPause(t.Context(), "a@x", u); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.Answered(t.Context(), []string{other.ID, "gone"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	o = openStore(t, dir, clock).Outbox()
	if _, err := o.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if sends, err := o.RecentSends(t.Context(), "a@x", now.Add(-4*time.Minute)); err != nil || len(sends) != 1 || !sends[0].Equal(old.Add(3*time.Minute)) {
		t.Errorf("sends of a: %v, %v", sends, err)
	}
	if sends, err := o.RecentSends(t.Context(), "b@x", now.Add(-4*time.Minute)); err != nil || len(sends) != 1 || !sends[0].Equal(now) {
		t.Errorf("what was being sent when the program ended does not count: %v, %v", sends, err)
	}
	for mailbox, want := range map[string]time.Time{"a@x": until, "b@x": {}} {
		if got, err := o.Paused(t.Context(), mailbox); err != nil || !got.Equal(want) {
			t.Errorf("%s is paused until %v, %v", mailbox, got, err)
		}
	}
	for id, want := range map[string]bool{sub.ID: true, other.ID: false} {
		if row, err := o.Get(t.Context(), id); err != nil || row.Unanswered != want || row.Sends != 0 {
			t.Errorf("row %+v, %v", row, err)
		}
	}
}
