package backend

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend/graph"
	"postern/backend/graphsim"
)

// Another program changes the categories of a message after the last round of changes, and then a client's own change of keywords
// is pushed. Graph takes the list only whole; both changes must be in it, and be seen.
func TestKeywordsOfOthersStay(t *testing.T) {
	categories := func(list ...string) graphsim.Change { return graphsim.Change{Categories: &list} }
	for _, tt := range []struct {
		name   string
		before []string // known to both
		theirs graphsim.Change
		ours   func(q *quietInbox)
		want   string // in Graph
		flags  string // to the client
	}{
		{"both add", nil, categories("Travel plans"), func(q *quietInbox) { q.store(StoreAdd, "$Label1") },
			"Travel plans,$Label1", `$Label1 Travel_plans`},
		{"both remove", []string{"Red", "Blue"}, categories("Blue"), func(q *quietInbox) { q.store(StoreRemove, "Blue") }, "", ``},
		{"they remove, the client adds", []string{"Red"}, categories(), func(q *quietInbox) { q.store(StoreAdd, "Blue") }, "Blue", `Blue`},
		{"both add the same", nil, categories("red"), func(q *quietInbox) { q.store(StoreAdd, "Red") }, "red", `red`},
		{"the client replaces what it knows", []string{"Red"}, categories("Red", "größer"), func(q *quietInbox) { q.store(StoreReplace, "Blue") },
			"größer,Blue", `Blue gr=C3=B6=C3=9Fer`},
		{"the client adds and takes back", nil, categories("Green"), func(q *quietInbox) {
			q.store(StoreAdd, "Red")
			q.store(StoreRemove, "Red")
		}, "Green", `Green`},
		{"the client takes back what they add too", nil, categories("Red", "Green"), func(q *quietInbox) {
			q.store(StoreAdd, "Red")
			q.store(StoreRemove, "Red")
		}, "Green", `Green`},
		{"they change something else", []string{"Red"}, graphsim.Change{IsRead: new(true)}, func(q *quietInbox) { q.store(StoreAdd, "Blue") },
			"Red,Blue", `\Seen Blue Red`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := newQuietInbox(t)
			q.sim.UpdateMessage(alice, q.id, categories(tt.before...))
			q.refresh()
			q.sim.UpdateMessage(alice, q.id, tt.theirs)
			tt.ours(q)
			q.awaitPush()
			q.refresh()
			if got := strings.Join(q.sim.Messages(alice, "inbox")[0].Categories, ","); got != tt.want {
				t.Errorf("Graph has %q, want %q", got, tt.want)
			}
			eventually(t, q.inbox, "the client is shown "+tt.flags, func() bool { return flagsOf(q.inbox, 1) == tt.flags })
		})
	}
}

// The same when the other program comes between the look and the writing.
func TestKeywordsOfOthersAtTheLastMoment(t *testing.T) {
	q := newQuietInbox(t)
	q.wire.arm(isBatchOf(http.MethodGet), func(*httptest.ResponseRecorder) {
		q.sim.UpdateMessage(alice, q.id, graphsim.Change{Categories: &[]string{"Travel plans"}})
	})
	q.store(StoreAdd, "$Label1")
	q.awaitPush()
	q.refresh()
	if got := q.sim.Messages(alice, "inbox")[0].Categories; !slices.Equal(got, []string{"Travel plans", "$Label1"}) {
		t.Errorf("Graph has %q", got)
	}
	eventually(t, q.inbox, "both", func() bool { return flagsOf(q.inbox, 1) == `$Label1 Travel_plans` })
}

// A push whose answer was lost may have arrived. What the client takes back meanwhile is not taken for the work of others.
func TestKeywordTakenBackAfterLostAnswer(t *testing.T) {
	q := newQuietInbox(t)
	begun, release := q.wire.hold(t, isBatchOf(http.MethodPatch))
	q.store(StoreAdd, "Red", "Blue")
	<-begun
	q.store(StoreRemove, "Red")
	inject(t, q.sim, graphsim.Fault{Path: `\$batch$`, DropBefore: true, Times: 1})
	release()
	q.awaitPush()
	q.refresh()
	if got := q.sim.Messages(alice, "inbox")[0].Categories; !slices.Equal(got, []string{"Blue"}) {
		t.Errorf("Graph has %q", got)
	}
	if got := flagsOf(q.inbox, 1); got != `Blue` {
		t.Errorf("flags = %q", got)
	}
}

// Another program answers a message after the last round of changes, which Exchange keeps in one place with $Forwarded.
func TestAnsweredByOthersStays(t *testing.T) {
	for _, tt := range []struct {
		name  string
		flags []imap.Flag
		want  string
	}{
		{"forwarded", []imap.Flag{imap.FlagForwarded}, `\Answered $Forwarded`},
		{"keyword", []imap.Flag{"Red"}, `\Answered Red`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := newQuietInbox(t)
			q.sim.UpdateMessage(alice, q.id, graphsim.Change{Extended: map[string]string{"Integer 0x1081": "102"}})
			q.store(StoreAdd, tt.flags...)
			q.awaitPush()
			eventually(t, q.inbox, "what the other program did", func() bool { return flagsOf(q.inbox, 1) == tt.want })
			q.refresh()
			q.sim.UpdateMessage(alice, q.id, graphsim.Change{IsRead: new(true)}) // so that it is read anew
			q.refresh()
			if got := flagsOf(q.inbox, 1); got != `\Seen `+tt.want {
				t.Errorf("flags = %q, want %q too", got, tt.want)
			}
		})
	}
}

// Another program edits a draft after the last round of changes, and then a client's mark is pushed. The new version hides the edit.
func TestDraftEditedBeforePush(t *testing.T) {
	for _, old := range []bool{false, true} {
		name := map[bool]string{false: "stored by a client", true: "listed"}[old]
		t.Run(name, func(t *testing.T) {
			sim, url := newSim(t, graphsim.Options{EmptyPageEvery: -1})
			if old {
				sim.AddMessage(alice, "drafts", mail(2), graphsim.MessageSpec{IsDraft: true})
			}
			cfg := testConfig(t, url, t.TempDir())
			cfg.Poll = time.Hour
			b, _ := start(t, cfg)
			a := accountOf(t, b, alice)
			drafts := open(t, a, "Drafts")
			if !old {
				if _, err := appendMail(t, a, "Drafts", mail(2), time.Time{}, imap.FlagDraft); err != nil {
					t.Fatal(err)
				}
			}
			_ = readBody(t, drafts, 1)
			if err := a.syncer.RefreshNow(t.Context(), drafts.view.id); err != nil {
				t.Fatal(err)
			}
			if _, err := a.graph.Update(t.Context(), sim.Messages(alice, "drafts")[0].ID, graph.Update{Subject: new("edited elsewhere")}); err != nil {
				t.Fatal(err)
			}
			if _, err := drafts.Store(t.Context(), []imap.UID{1}, StoreAdd, []imap.Flag{imap.FlagFlagged}, 0); err != nil {
				t.Fatal(err)
			}
			eventually(t, drafts, "another message for the edited draft", func() bool { return slices.Equal(drafts.UIDs(), []imap.UID{2}) })
			if text := readBody(t, drafts, 2); !strings.Contains(text, "Subject: edited elsewhere") {
				t.Errorf("text = %q", text)
			}
			if got := flagsOf(drafts, 2); !strings.Contains(got, `\Flagged`) {
				t.Errorf("flags = %q", got)
			}
		})
	}
}

// Only what can take back the work of others is read before it is written.
func TestCallsOfPush(t *testing.T) {
	for _, tt := range []struct {
		name  string
		flags []imap.Flag
		http  int
	}{
		{"read, flagged, deleted", []imap.Flag{imap.FlagSeen, imap.FlagFlagged, imap.FlagDeleted}, 1},
		{"keywords", []imap.Flag{"$Label1", "Red", imap.FlagSeen}, 2},
		{"answered", []imap.Flag{imap.FlagAnswered}, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := newQuietInbox(t)
			for i := range 19 {
				q.sim.AddMessage(alice, "inbox", mail(i+2), graphsim.MessageSpec{})
			}
			q.refresh()
			q.refresh()
			eventually(t, q.inbox, "all", func() bool { return len(q.inbox.UIDs()) == 20 })
			q.sim.ResetRequests()
			if _, err := q.inbox.Store(t.Context(), q.inbox.UIDs(), StoreAdd, tt.flags, 0); err != nil {
				t.Fatal(err)
			}
			q.awaitPush()
			batches := q.sim.CountRequests(func(r graphsim.Request) bool { return strings.HasSuffix(r.Path, "/$batch") })
			if batches != tt.http {
				t.Errorf("%d requests, want %d", batches, tt.http)
			}
		})
	}
}
