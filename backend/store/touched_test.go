package store

import (
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
)

// The keywords that clients have changed are known until their change is pushed, also after a move and a restart.
func TestTouchedKeywords(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	f := putFolder(t, s, "inbox")
	to := putFolder(t, s, "other")
	row := remote(2)
	row.Keywords = ptr([]string{"Red", "Blue"})
	apply(t, s, f, []Remote{row})
	folder, uid := f.ID, imap.UID(1)
	check := func(want string) {
		t.Helper()
		id := messageID(folder, uid)
		got, err := s.Touched(t.Context(), []MessageID{id, 17})
		if err != nil {
			t.Fatal(err)
		}
		if list := strings.Join(got[id], " "); list != want || len(got) > 1 {
			t.Errorf("touched %v, want %q", got, want)
		}
	}
	change := func(c FlagChange) {
		t.Helper()
		c.UID = uid
		if _, _, err := s.ChangeFlags(t.Context(), folder, []FlagChange{c}); err != nil {
			t.Fatal(err)
		}
	}
	check("")
	change(FlagChange{Set: FlagSeen})
	check("")
	change(FlagChange{AddKeywords: []string{"red", "Green"}})
	check("Green")
	change(FlagChange{ReplaceKeywords: true, AddKeywords: []string{"RED"}})
	check("Blue Green")
	change(FlagChange{AddKeywords: []string{"blue"}}) // as it was: a client has said so all the same
	check("Blue Green")
	if _, _, _, err := s.Move(t.Context(), folder, to.ID, []Moved{{UID: uid, NewGraphID: graphID(2)}}); err != nil {
		t.Fatal(err)
	}
	folder = to.ID
	check("Blue Green")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir)
	check("Blue Green")
	pending, err := s.Pending(t.Context(), f.Account, 10)
	if err != nil || len(pending) != 1 || !slices.Equal(pending[0].Keywords, []string{"blue", "RED"}) {
		t.Fatalf("pending %+v, %v", pending, err)
	}
	result := PushResult{ID: pending[0].ID, PendingSeq: pending[0].PendingSeq - 1}
	for _, want := range []string{"Blue Green", ""} { // the first is of an older change
		if _, err := s.Pushed(t.Context(), []PushResult{result}); err != nil {
			t.Fatal(err)
		}
		check(want)
		result.PendingSeq++
	}
}
