package backend

import (
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend/graphsim"
)

// sizesRead counts the readings of folder sizes.
func sizesRead(sim *graphsim.Sim) int {
	return sim.CountRequests(func(q graphsim.Request) bool {
		return strings.HasSuffix(q.Template, "/mailFolders/{f}") && strings.Contains(strings.ToLower(q.Query), "0x0e08")
	})
}

// Usage is what Graph says of all folders, and reading it often costs little.
func TestUsage(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	for i := range 10 {
		sim.AddMessage(alice, []string{"inbox", "archive", "deleteditems"}[i%3], mail(i), graphsim.MessageSpec{})
	}
	cfg := testConfig(t, url, t.TempDir())
	cfg.Mailboxes[0].Quota = 50e9
	b, _ := start(t, cfg)
	a := accountOf(t, b, alice)
	used := func() (n int64) {
		for _, folder := range []string{"inbox", "archive", "deleteditems"} {
			for _, m := range sim.Messages(alice, folder) {
				n += int64(m.Size)
			}
		}
		return n
	}
	quota := func() Quota {
		t.Helper()
		q, err := a.Quota(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return q
	}
	before := used()
	if q := quota(); q != (Quota{50e9, before}) {
		t.Errorf("quota is %+v, %d bytes are in the folders", q, before)
	}
	once := sizesRead(sim)
	if once == 0 {
		t.Fatal("Graph was not asked")
	}
	inbox := open(t, a, "INBOX")
	for range 50 {
		quota()
	}
	if n := sizesRead(sim); n != once {
		t.Errorf("%d readings of a folder's size, %d after the first question", n, once)
	}
	// A client that makes room sees it soon: usage read before that is not believed for long.
	if _, err := inbox.Store(t.Context(), inbox.UIDs(), StoreAdd, []imap.Flag{imap.FlagDeleted}, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := inbox.Expunge(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	a.usage.mu.Lock()
	a.usage.at, a.usage.every = time.Now().Add(-usageChanged), 0
	a.usage.mu.Unlock()
	if q := quota(); q.Used != used() || q.Used >= before {
		t.Errorf("%d bytes used after expunging, want %d", q.Used, used())
	}
	// Where no limit is known Graph is not even asked.
	sim.ResetRequests()
	if q, err := accountOf(t, b, bob).Quota(t.Context()); err != nil || q != (Quota{}) {
		t.Errorf("quota without a limit is %+v: %v", q, err)
	}
	if n := sizesRead(sim); n != 0 {
		t.Errorf("%d readings for a mailbox without a limit", n)
	}
}

// Where Graph does not tell the sizes, those of the replica stand in, and what was told before is kept.
func TestUsageWithoutGraph(t *testing.T) {
	const sizes = `mailFolders/[^/]*\?.*0x0E08`
	for _, fault := range []graphsim.Fault{
		{Path: sizes, Status: 400, Code: "RequestBroker--ParseUri", Message: "Could not find a property named 'singleValueExtendedProperties'."},
		{Path: sizes, Status: 503},
		{Path: sizes, Status: 200, EmptyBody: true},
	} {
		sim, url := newSim(t, graphsim.Options{})
		for i := range 5 {
			sim.AddMessage(alice, "inbox", mail(i), graphsim.MessageSpec{})
		}
		cfg := testConfig(t, url, t.TempDir())
		cfg.Mailboxes[0].Quota = 50e9
		b, _ := start(t, cfg)
		a := accountOf(t, b, alice)
		open(t, a, "INBOX")
		st, err := a.Status(t.Context(), "INBOX")
		if err != nil || st.Size == 0 {
			t.Fatal(st, err)
		}
		inject(t, sim, fault)
		q, err := a.Quota(t.Context())
		if err != nil || q.Used < st.Size/2 || q.Used > 2*st.Size {
			t.Errorf("with %d %s: %+v, %v; the replica has %d bytes", fault.Status, fault.Code, q, err, st.Size)
		}
		if sim.FaultsFired() == 0 {
			t.Error("Graph was not asked")
		}
	}
}
