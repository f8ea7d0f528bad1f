package backend

import (
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend/graphsim"
)

// After a restart a mailbox opens from the replica, and what Graph is asked first is the changes of its folder: neither the
// special folders, whose ids are kept for a day, nor the tree, which can wait until the folder is up to date.
func TestRestartAsksLittle(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	for i := range 30 {
		sim.AddMessage(alice, "inbox", mail(i), graphsim.MessageSpec{})
	}
	cfg := testConfig(t, url, t.TempDir())
	cfg.Poll = 20 * time.Second
	b, stop := start(t, cfg)
	m := open(t, accountOf(t, b, alice), "INBOX")
	eventually(t, m, "delta link and headers", func() bool {
		row, err := b.store.Folder(t.Context(), m.view.id)
		return err == nil && row.DeltaLink != "" && row.HeadersDone
	})
	if _, err := m.Body(t.Context(), m.UIDs()[0]); err != nil {
		t.Fatal(err)
	}
	stop()
	sim.DeliverMessage(alice, mail(99))
	sim.ResetRequests()
	b, _ = start(t, cfg)
	a := accountOf(t, b, alice)
	if _, err := a.Mailboxes(t.Context()); err != nil {
		t.Fatal(err)
	}
	m = open(t, a, "INBOX")
	delta := func(r graphsim.Request) bool { return strings.HasSuffix(r.Path, "/messages/delta") }
	if n := len(m.UIDs()); n != 31 {
		t.Errorf("%d messages when it was opened, want the new one too", n)
	}
	for _, r := range sim.Requests() {
		newMessage := strings.HasSuffix(r.Template, "/messages/{m}") || strings.HasSuffix(r.Path, "/$batch")
		if !delta(r) && !newMessage && !strings.Contains(r.Path, "oauth2") && !strings.HasSuffix(r.Path, "/$value") {
			t.Errorf("asked %s %s?%s", r.Method, r.Path, r.Query)
		}
	}
	if n := sim.CountRequests(delta); n != 1 {
		t.Errorf("%d delta calls", n)
	}
}

// A folder that appears may be a special one that its owner uses for the first time.
func TestRoleAppears(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	cfg := testConfig(t, url, t.TempDir())
	b, _ := start(t, cfg)
	a := accountOf(t, b, alice)
	roles := func() (n int) {
		boxes, err := a.Mailboxes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, box := range boxes {
			if box.Role == imap.MailboxAttrArchive {
				n++
			}
		}
		return n
	}
	if roles() != 1 {
		t.Fatal("no archive")
	}
	asked := func() int {
		return sim.CountRequests(func(r graphsim.Request) bool { return strings.HasSuffix(r.Path, "/mailFolders/archive") })
	}
	before := asked()
	sim.AddFolder(alice, "", "New")
	eventually(t, nil, "the special folders are asked for again", func() bool { roles(); return asked() == before+1 })
	sim.RenameFolder(alice, "New", "Newer")
	eventually(t, nil, "the new name", func() bool {
		boxes, err := a.Mailboxes(t.Context())
		for _, box := range boxes {
			if box.Name == "Newer" {
				return true
			}
		}
		return err != nil
	})
	if n := asked(); n != before+1 {
		t.Errorf("asked %d times more", n-before)
	}
}
