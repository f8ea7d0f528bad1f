package backend

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend/graph"
	"postern/backend/graphsim"
)

// TestEditedDraft changes a draft in Outlook. IMAP messages never change, so it must become another one, while a change
// of its flags must not.
func TestEditedDraft(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	b, _ := start(t, testConfig(t, url, t.TempDir()))
	a := accountOf(t, b, alice)
	m := open(t, a, "Drafts")
	uid, err := appendMail(t, a, "Drafts", mail(1), time.Time{}, imap.FlagDraft)
	if err != nil {
		t.Fatal(err)
	}
	id := sim.Messages(alice, "drafts")[0].ID
	for range 3 {
		if err := a.syncer.RefreshNow(t.Context(), m.view.id); err != nil {
			t.Fatal(err)
		}
	}
	yes := true
	sim.UpdateMessage(alice, id, graphsim.Change{Flagged: &yes})
	if err := a.syncer.RefreshNow(t.Context(), m.view.id); err != nil {
		t.Fatal(err)
	}
	if got := flagsOf(m, uid); got != `\Flagged \Draft` {
		t.Fatalf("flags = %q", got)
	}
	subject := "edited elsewhere"
	if _, err := a.graph.Update(t.Context(), id, graph.Update{Subject: &subject}); err != nil {
		t.Fatal(err)
	}
	if err := a.syncer.RefreshNow(t.Context(), m.view.id); err != nil {
		t.Fatal(err)
	}
	if uids := m.UIDs(); !slices.Equal(uids, []imap.UID{uid + 1}) {
		t.Fatalf("UIDs after the edit = %v", uids)
	}
	if text := readBody(t, m, uid+1); !strings.Contains(text, "Subject: edited elsewhere") {
		t.Errorf("text = %q", text)
	}
	if err := a.syncer.RefreshNow(t.Context(), m.view.id); err != nil {
		t.Fatal(err)
	}
	if uids := m.UIDs(); !slices.Equal(uids, []imap.UID{uid + 1}) {
		t.Errorf("UIDs later = %v", uids)
	}
}

// Right after a client has written to a message, somebody else does. Both show in one row of changes, which must not pass for
// the client's own.
func TestChangedRightAfterOwnWrite(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	sim.AddMessage(alice, "inbox", mail(1), graphsim.MessageSpec{})
	cfg := testConfig(t, url, t.TempDir())
	cfg.Poll = time.Hour // rounds come when they are asked for
	b, _ := start(t, cfg)
	a := accountOf(t, b, alice)
	inbox, drafts := open(t, a, "INBOX"), open(t, a, "Drafts")
	refresh := func(m *Mailbox) {
		t.Helper()
		if err := a.syncer.RefreshNow(t.Context(), m.view.id); err != nil {
			t.Fatal(err)
		}
	}
	refresh(inbox)
	refresh(drafts)

	uid, err := appendMail(t, a, "Drafts", mail(2), time.Time{}, imap.FlagDraft, imap.FlagSeen)
	if err != nil {
		t.Fatal(err)
	}
	subject := "edited elsewhere"
	if _, err := a.graph.Update(t.Context(), sim.Messages(alice, "drafts")[0].ID, graph.Update{Subject: &subject}); err != nil {
		t.Fatal(err)
	}
	refresh(drafts)
	if uids := drafts.UIDs(); !slices.Equal(uids, []imap.UID{uid + 1}) {
		t.Fatalf("UIDs after the edit = %v", uids)
	}
	if text := readBody(t, drafts, uid+1); !strings.Contains(text, "Subject: edited elsewhere") {
		t.Errorf("text = %q", text)
	}

	if _, err := inbox.Store(t.Context(), []imap.UID{1}, StoreAdd, []imap.Flag{imap.FlagSeen}, 0); err != nil {
		t.Fatal(err)
	}
	id := sim.Messages(alice, "inbox")[0].ID
	eventually(t, nil, "push", func() bool { return sim.Messages(alice, "inbox")[0].IsRead })
	sim.UpdateMessage(alice, id, graphsim.Change{Extended: map[string]string{"Integer 0x1081": "102"}})
	refresh(inbox)
	if got := flagsOf(inbox, 1); got != `\Seen \Answered` {
		t.Errorf("flags = %q", got)
	}
	// What is only our own is not read again.
	if _, err := inbox.Store(t.Context(), []imap.UID{1}, StoreAdd, []imap.Flag{imap.FlagFlagged}, 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, nil, "push", func() bool {
		pending, err := b.store.Pending(t.Context(), a.id, 1)
		return err == nil && len(pending) == 0
	})
	sim.ResetRequests()
	refresh(inbox)
	for _, r := range sim.Requests() {
		if strings.Contains(r.Path, "/messages/") && !strings.Contains(r.Path, "delta") {
			t.Errorf("asked for %s", r.Path)
		}
	}
}

// TestManyChanges marks a whole folder in Outlook. Reading each message again would use up the mailbox's budget.
func TestManyChanges(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	const n = 1200
	sim.AddSynthetic(alice, "inbox", n, graphsim.Synthetic{UnreadEvery: 1})
	b, _ := start(t, testConfig(t, url, t.TempDir()))
	a := accountOf(t, b, alice)
	m := open(t, a, "INBOX")
	if err := a.syncer.RefreshNow(t.Context(), m.view.id); err != nil {
		t.Fatal(err)
	}
	sim.ResetRequests()
	yes := true
	for i, info := range sim.Messages(alice, "inbox") {
		ch := graphsim.Change{IsRead: &yes}
		if i%10 == 0 {
			ch.Extended = map[string]string{"Integer 0x1081": "104"}
		}
		sim.UpdateMessage(alice, info.ID, ch)
	}
	eventually(t, m, "all read", func() bool {
		st, err := a.Status(t.Context(), "INBOX")
		forwarded := 0
		m.Messages(m.UIDs(), func(msg *Message) bool {
			if msg.HasFlag(imap.FlagForwarded) {
				forwarded++
			}
			return true
		})
		return err == nil && st.Unseen == 0 && forwarded == n/10
	})
	calls := sim.CountRequests(func(r graphsim.Request) bool {
		return !strings.Contains(r.Query, "0x007D") && strings.Contains(r.Template, "/messages")
	})
	t.Logf("%d calls", calls)
	if calls > 600 {
		t.Errorf("%d calls for %d changes", calls, n)
	}
	// The other direction: one client marks them all.
	sim.ResetRequests()
	if _, err := m.Store(t.Context(), m.UIDs(), StoreRemove, []imap.Flag{imap.FlagSeen}, 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, nil, "pushed", func() bool {
		pending, err := b.store.Pending(t.Context(), a.id, 1)
		return err == nil && len(pending) == 0
	})
	if slices.ContainsFunc(sim.Messages(alice, "inbox"), func(i graphsim.MessageInfo) bool { return i.IsRead }) {
		t.Error("not all are unread in Graph")
	}
	if err := a.syncer.RefreshNow(t.Context(), m.view.id); err != nil {
		t.Fatal(err)
	}
	reads := sim.CountRequests(func(r graphsim.Request) bool { return r.InBatch && r.Method == "GET" })
	if reads > 200 {
		t.Errorf("%d own changes were read again", reads)
	}
}

// TestDraftsKeepTheirUIDs changes flags of drafts while rounds of changes are read. Rows that tell of Postern's own
// changes come late and out of step; none is an edit.
func TestDraftsKeepTheirUIDs(t *testing.T) {
	virtualSim(t, graphsim.Options{Latency: 7 * time.Millisecond}, time.Second, func(t *testing.T, sim *graphsim.Sim, b *Backend, a *Account) {
		m, err := a.Open(t.Context(), "Drafts", false)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		const n = 30
		for i := range n {
			if _, err := appendMail(t, a, "Drafts", mail(i), time.Time{}, imap.FlagDraft); err != nil {
				t.Fatal(err)
			}
		}
		want := m.UIDs()
		if len(want) != n {
			t.Fatalf("%d messages", len(want))
		}
		stop := make(chan struct{})
		var reading sync.WaitGroup
		for i := range 2 {
			reading.Go(func() {
				for {
					select {
					case <-stop:
						return
					case <-time.After(time.Duration(150+37*i) * time.Millisecond): // so that rounds and pushes meet in every way
					}
					if err := a.syncer.RefreshNow(t.Context(), m.view.id); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		for i := range 25 {
			op := StoreAdd
			if i%2 == 1 {
				op = StoreRemove
			}
			if _, err := m.Store(t.Context(), want, op, []imap.Flag{imap.FlagFlagged, "$Label1"}, 0); err != nil {
				t.Fatal(err)
			}
			for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
				if pending, err := b.store.Pending(t.Context(), a.id, 1); err == nil && len(pending) == 0 {
					break
				} else if time.Since(began) > 10*time.Minute {
					t.Fatalf("not pushed: %v", err)
				}
			}
		}
		close(stop)
		reading.Wait()
		for range 3 {
			if err := a.syncer.RefreshNow(t.Context(), m.view.id); err != nil {
				t.Fatal(err)
			}
		}
		if got := m.UIDs(); !slices.Equal(got, want) {
			t.Errorf("UIDs = %v, want %v", got, want)
		}
		for _, msg := range sim.Messages(alice, "drafts") {
			if !msg.Flagged || !slices.Contains(msg.Categories, "$Label1") {
				t.Errorf("Graph has %+v", msg)
			}
		}
	})
}
