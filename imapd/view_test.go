package imapd

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/emersion/go-imap/v2"
)

func TestFind(t *testing.T) {
	v := &view{uids: []imap.UID{2, 3, 5, 8, 13}}
	u := func(n ...imap.UID) (s imap.UIDSet) {
		for i := 0; i < len(n); i += 2 {
			s = append(s, imap.UIDRange{Start: n[i], Stop: n[i+1]})
		}
		return s
	}
	q := func(n ...uint32) (s imap.SeqSet) {
		for i := 0; i < len(n); i += 2 {
			s = append(s, imap.SeqRange{Start: n[i], Stop: n[i+1]})
		}
		return s
	}
	for _, tt := range []struct {
		set   imap.NumSet
		want  []imap.UID
		valid bool // of sequence numbers
	}{
		{u(1, 1), nil, false},
		{u(2, 2), []imap.UID{2}, false},
		{u(1, 0), []imap.UID{2, 3, 5, 8, 13}, false},
		{u(0, 0), []imap.UID{13}, false},
		{u(100, 0), []imap.UID{13}, false}, // n:* holds the last message whatever n is
		{u(4, 7), []imap.UID{5}, false},
		{u(4, 4, 6, 7), nil, false},
		{u(2, 3, 8, 100), []imap.UID{2, 3, 8, 13}, false},
		{u(3, 3, 5, 5), []imap.UID{3, 5}, false},
		{u(14, 4294967295), nil, false},
		{q(1, 1), []imap.UID{2}, true},
		{q(1, 0), []imap.UID{2, 3, 5, 8, 13}, true},
		{q(0, 0), []imap.UID{13}, true},
		{q(6, 0), []imap.UID{13}, false},
		{q(2, 3, 5, 5), []imap.UID{3, 5, 13}, true},
		{q(2, 6), []imap.UID{3, 5, 8, 13}, false},
		{q(4294967295, 4294967295), nil, false},
	} {
		if got := v.uidsOf(v.find(tt.set)); !slices.Equal(got, tt.want) {
			t.Errorf("find(%v) = %v, want %v", tt.set, got, tt.want)
		}
		if s, ok := tt.set.(imap.SeqSet); ok && v.validSeqs(s) != tt.valid {
			t.Errorf("validSeqs(%v) = %v", s, !tt.valid)
		}
	}
	empty := &view{}
	if empty.validSeqs(q(1, 0)) || empty.validSeqs(q(0, 0)) || empty.find(u(1, 0)) != nil || empty.find(q(0, 0)) != nil {
		t.Error("an empty mailbox has messages")
	}
}

// What arrives while a session takes its view is \Recent for the session that hears of it, and for no other.
func TestRecentForOneSession(t *testing.T) {
	w := newWorld(t, Limits{})
	c := w.login("alice")
	appendOne := func() { c.ok("APPEND INBOX {22+}\r\nSubject: new\r\n\r\nHello\r\n") }
	appendOne()
	account, ok := w.backend.Account(alice)
	if !ok {
		t.Fatal("no account")
	}
	mbox, err := account.Open(t.Context(), "INBOX", false)
	if err != nil {
		t.Fatal(err)
	}
	defer mbox.Close()
	first := &view{mbox: mbox, uids: mbox.UIDs()}
	appendOne()
	if err := first.claimRecent(t.Context(), first.uids); err != nil {
		t.Fatal(err)
	}
	second, err := newView(t.Context(), account, "INBOX", mbox, false)
	if err != nil {
		t.Fatal(err)
	}
	late := first.add(mbox.UIDs())
	if err := first.claimRecent(t.Context(), late); err != nil {
		t.Fatal(err)
	}
	if len(first.uids) != 2 || len(second.uids) != 2 {
		t.Fatalf("views of %v and %v", first.uids, second.uids)
	}
	for i, uid := range second.uids {
		if first.isRecent(uid) != (i == 0) || second.isRecent(uid) != (i == 1) {
			t.Errorf("UID %d: \\Recent in the first session %v, in the second %v", uid, first.isRecent(uid), second.isRecent(uid))
		}
	}
	if first.recentCount != 1 || second.recentCount != 1 {
		t.Errorf("counts %d and %d", first.recentCount, second.recentCount)
	}
}

func TestRecent(t *testing.T) {
	v := &view{uids: []imap.UID{1, 2, 3, 7, 8}}
	v.addRecent(3, v.uids)
	v.uids = append(v.uids, 9, 10, 12)
	v.addRecent(10, []imap.UID{9, 10, 12}) // 9 went to another session
	want := map[imap.UID]bool{3: true, 7: true, 8: true, 10: true, 12: true}
	for _, uid := range v.uids {
		if v.isRecent(uid) != want[uid] {
			t.Errorf("isRecent(%d) = %v", uid, v.isRecent(uid))
		}
	}
	if v.recentCount != len(want) {
		t.Errorf("%d recent", v.recentCount)
	}
	v.addRecent(20, v.uids)
	if v.recentCount != len(want) {
		t.Errorf("%d recent", v.recentCount)
	}
}

// TestViewFollows checks the view against the plainest bookkeeping, the client's:
// a list from which EXPUNGE takes an element and to which EXISTS adds some.
func TestViewFollows(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	v := &view{}
	var told []imap.UID // what the client believes
	next := imap.UID(1)
	s := &session{view: v}
	for range 2000 {
		var removed, added []imap.UID
		for _, uid := range v.uids {
			if rng.IntN(10) == 0 {
				removed = append(removed, uid)
			}
		}
		for range rng.IntN(4) {
			added = append(added, next)
			next += imap.UID(1 + rng.IntN(3))
		}
		rng.Shuffle(len(removed), func(i, j int) { removed[i], removed[j] = removed[j], removed[i] })
		v.remove(removed)
		v.remove(removed) // told twice is no harm
		if rng.IntN(2) == 0 {
			for _, n := range expungesOf(s) {
				told = slices.Delete(told, int(n-1), int(n))
			}
		}
		told = append(told, v.add(added)...)
		v.add(added)
		if !slices.Equal(told, v.uids) {
			t.Fatalf("client has %v, view has %v", told, v.uids)
		}
	}
}

func TestUIDSetText(t *testing.T) {
	got := string(appendUIDs(nil, []imap.UID{7, 1, 2, 3, 9, 8}))
	if got != "7,1:3,9,8" {
		t.Errorf("%s", got)
	}
	if got := appendUIDs(nil, nil); !reflect.DeepEqual(got, []byte(nil)) {
		t.Errorf("%q", got)
	}
}

func BenchmarkFindAll(b *testing.B) {
	v := &view{uids: make([]imap.UID, 100_000)}
	for i := range v.uids {
		v.uids[i] = imap.UID(2 * i)
	}
	set := imap.UIDSet{{Start: 1}}
	for b.Loop() {
		if v.find(set).count() == 0 {
			b.Fatal("nothing found")
		}
	}
}
