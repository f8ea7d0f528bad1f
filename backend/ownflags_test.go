package backend

import (
	"slices"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend/graphsim"
)

// TestDraftFlag sets and clears \Draft where Graph is of another opinion. Another replica must see the same.
func TestDraftFlag(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	sim.AddMessage(alice, "inbox", mail(0), graphsim.MessageSpec{})
	b, stop := start(t, testConfig(t, url, t.TempDir()))
	a := accountOf(t, b, alice)
	inbox, drafts := open(t, a, "INBOX"), open(t, a, "Drafts")
	uid, err := appendMail(t, a, "Drafts", mail(1), time.Time{}, imap.FlagDraft)
	if err != nil {
		t.Fatal(err)
	}
	store := func(m *Mailbox, uid imap.UID, action StoreAction, flags ...imap.Flag) {
		t.Helper()
		if _, err := m.Store(t.Context(), []imap.UID{uid}, action, flags, 0); err != nil {
			t.Fatal(err)
		}
	}
	check := func(a *Account, want ...string) {
		t.Helper()
		for i, name := range []string{"INBOX", "Drafts"} {
			m := open(t, a, name)
			if err := a.syncer.RefreshNow(t.Context(), m.view.id); err != nil {
				t.Fatal(err)
			}
			if got := flagsOf(m, m.UIDs()[0]); got != want[i] {
				t.Errorf("%s: %q, want %q", name, got, want[i])
			}
		}
	}
	check(a, ``, `\Draft`)
	store(inbox, 1, StoreReplace, imap.FlagDraft, imap.FlagFlagged)
	store(drafts, uid, StoreReplace, imap.FlagDeleted)
	check(a, `\Flagged \Draft`, `\Deleted`)
	store(inbox, 1, StoreAdd, imap.FlagSeen)
	store(drafts, uid, StoreRemove, imap.FlagDeleted)
	eventually(t, nil, "pushed", func() bool {
		pending, err := b.store.Pending(t.Context(), a.id, 1)
		return err == nil && len(pending) == 0
	})
	check(a, `\Seen \Flagged \Draft`, ``)
	yes := true
	sim.UpdateMessage(alice, sim.Messages(alice, "drafts")[0].ID, graphsim.Change{IsRead: &yes})
	check(a, `\Seen \Flagged \Draft`, `\Seen`)
	stop()

	b, _ = start(t, testConfig(t, url, t.TempDir()))
	a = accountOf(t, b, alice)
	check(a, `\Seen \Flagged \Draft`, `\Seen`)
	store(open(t, a, "INBOX"), 1, StoreRemove, imap.FlagDraft)
	store(open(t, a, "Drafts"), 1, StoreAdd, imap.FlagDraft)
	eventually(t, nil, "pushed", func() bool {
		pending, err := b.store.Pending(t.Context(), a.id, 1)
		return err == nil && len(pending) == 0
	})
	check(a, `\Seen \Flagged`, `\Seen \Draft`)
}

// TestMoveWithin moves messages to where they are: they become the last ones, with all that is known of them.
func TestMoveWithin(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	for i := range 3 {
		sim.AddMessage(alice, "inbox", mail(i), graphsim.MessageSpec{})
	}
	b, _ := start(t, testConfig(t, url, t.TempDir()))
	a := accountOf(t, b, alice)
	m := open(t, a, "INBOX")
	text := readBody(t, m, 2)
	first := m.HighestModSeq()
	if _, err := m.Store(t.Context(), []imap.UID{2}, StoreAdd, []imap.Flag{imap.FlagFlagged}, 0); err != nil {
		t.Fatal(err)
	}
	sim.ResetRequests()
	res, err := m.Move(t.Context(), []imap.UID{1, 2}, "INBOX")
	if err != nil || !slices.Equal(res.Source, []imap.UID{1, 2}) || !slices.Equal(res.Dest, []imap.UID{4, 5}) {
		t.Fatalf("move = %+v, %v", res, err)
	}
	if got := m.UIDs(); !slices.Equal(got, []imap.UID{3, 4, 5}) {
		t.Errorf("UIDs = %v", got)
	}
	if gone, err := m.Vanished(t.Context(), first); err != nil || !slices.Equal(gone, []imap.UID{1, 2}) {
		t.Errorf("vanished = %v, %v", gone, err)
	}
	if got := flagsOf(m, 5); got != `\Flagged` {
		t.Errorf("flags = %q", got)
	}
	if got := readBody(t, m, 5); got != text {
		t.Errorf("text is another: %q", got)
	}
	eventually(t, nil, "pushed", func() bool {
		return slices.ContainsFunc(sim.Messages(alice, "inbox"), func(i graphsim.MessageInfo) bool { return i.Flagged })
	})
	if err := a.syncer.RefreshNow(t.Context(), m.view.id); err != nil {
		t.Fatal(err)
	}
	if got := m.UIDs(); !slices.Equal(got, []imap.UID{3, 4, 5}) {
		t.Errorf("UIDs later = %v", got)
	}
	if n := sim.CountRequests(func(r graphsim.Request) bool { return r.Method == "GET" && r.Template != "" && r.InBatch }); n > 2 {
		t.Errorf("%d messages were read again", n)
	}
}
