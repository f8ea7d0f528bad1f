package store

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"
)

func newOutbox(t testing.TB) (*Outbox, *time.Time) {
	t.Helper()
	now := day
	s := openStore(t, filepath.Join(t.TempDir(), "state"), func(o *Options) { o.Now = func() time.Time { return now } })
	return s.Outbox(), &now
}

func insert(t testing.TB, o *Outbox, sub Submission) *Submission {
	t.Helper()
	got, err := o.Insert(t.Context(), sub)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestSubmissionRoundTrip(t *testing.T) {
	o, now := newOutbox(t)
	sub := Submission{
		ID: "given", State: StateHeld, ClaimedFrom: StateUnclear, Mailbox: "alice@contoso.example", Login: "alice", RemoteAddr: "192.0.2.7:4711",
		EnvelopeFrom: "bounce@contoso.example", Recipients: []Recipient{{Address: "Bob@Fabrikam.example", Notify: []string{"SUCCESS", "DELAY"}, Orcpt: "rfc822;x"}, {Address: "carol@fabrikam.example"}},
		DSN: DSN{Ret: "HDRS", EnvID: "e1"}, MessageID: "<m@contoso.example>", Content: "mark", Size: 12345, Spool: "spool-1", Attempts: 3,
		NextAttempt: now.Add(time.Minute), Created: now.Add(-time.Minute), Expires: now.Add(time.Hour), LastError: "503", HoldReason: "policy", GraphRequestID: "req", DelayNotified: *now,
	}
	got := insert(t, o, sub)
	sub.Updated = *now
	if !reflect.DeepEqual(*got, sub) {
		t.Errorf("got  %+v\nwant %+v", *got, sub)
	}
	read, err := o.Get(t.Context(), "given")
	if err != nil || !reflect.DeepEqual(read, got) {
		t.Errorf("got  %+v\nwant %+v (%v)", read, got, err)
	}
	if _, err := o.Insert(t.Context(), sub); err == nil {
		t.Error("inserted twice")
	}
	if _, err := o.Insert(t.Context(), Submission{State: "nonsense"}); err == nil {
		t.Error("took a state that does not exist")
	}
	if _, err := o.Get(t.Context(), "nothing"); !errors.Is(err, ErrNotFound) {
		t.Errorf("get nothing: %v", err)
	}
}

func TestClaim(t *testing.T) {
	ctx := t.Context()
	o, now := newOutbox(t)
	first := insert(t, o, Submission{NextAttempt: now.Add(-time.Second)})
	later := insert(t, o, Submission{NextAttempt: now.Add(time.Minute)})
	spooled := insert(t, o, Submission{State: StateSpooled})
	ids := func(list []Submission, err error) (ids []string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range list {
			ids = append(ids, s.ID)
		}
		return ids
	}
	if got := ids(o.Due(ctx, *now, 10)); !slices.Equal(got, []string{first.ID}) {
		t.Errorf("due %v", got)
	}
	if got := ids(o.Due(ctx, now.Add(time.Hour), 10)); !slices.Equal(got, []string{first.ID, later.ID}) {
		t.Errorf("due later %v", got)
	}
	if next, err := o.NextDue(ctx); err != nil || !next.Equal(first.NextAttempt) {
		t.Errorf("next due %v %v", next, err)
	}

	// Many want it, one gets it.
	var wg sync.WaitGroup
	got := make(chan *Submission, 8)
	for range 8 {
		wg.Go(func() {
			s, err := o.Claim(ctx, first.ID)
			if err == nil {
				got <- s
			} else if !errors.Is(err, ErrNotClaimable) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	close(got)
	var claims []*Submission
	for s := range got {
		claims = append(claims, s)
	}
	if len(claims) != 1 || claims[0].State != StateSending || claims[0].ClaimedFrom != StateQueued || claims[0].Attempts != 1 {
		t.Fatalf("claims %+v", claims)
	}
	if _, err := o.Claim(ctx, spooled.ID); !errors.Is(err, ErrNotClaimable) {
		t.Errorf("claim of a spooled one: %v", err)
	}
	if _, err := o.Claim(ctx, "nothing"); !errors.Is(err, ErrNotFound) {
		t.Errorf("claim of nothing: %v", err)
	}

	// After a crash.
	*now = now.Add(time.Second)
	if got := ids(o.Recover(ctx)); !slices.Equal(got, []string{spooled.ID}) {
		t.Errorf("recovered %v", got)
	}
	if got := ids(o.Due(ctx, *now, 10)); !slices.Equal(got, []string{first.ID}) {
		t.Errorf("due after recovery %v", got)
	}
	if s, err := o.Claim(ctx, first.ID); err != nil || s.ClaimedFrom != StateUnclear || s.Attempts != 2 {
		t.Errorf("claim after recovery: %+v %v", s, err)
	}
	if counts, err := o.Counts(ctx); err != nil || counts[StateSending] != 1 || counts[StateQueued] != 1 || counts[StateSpooled] != 1 || len(counts) != 3 {
		t.Errorf("counts %v %v", counts, err)
	}
	refuse := errors.New("no")
	if _, err := o.Update(ctx, first.ID, func(s *Submission) error { s.State = StateSent; return refuse }); !errors.Is(err, refuse) {
		t.Errorf("update: %v", err)
	}
	if s, _ := o.Get(ctx, first.ID); s.State != StateSending {
		t.Errorf("refused update changed the state to %s", s.State)
	}
	for _, id := range []string{first.ID, later.ID} {
		if _, err := o.Update(ctx, id, func(s *Submission) error { s.ID, s.State = "other", StateSent; return nil }); err != nil {
			t.Error(err)
		}
	}
	if next, err := o.NextDue(ctx); err != nil || !next.IsZero() {
		t.Errorf("next due of none: %v %v", next, err)
	}
}

func TestOutboxList(t *testing.T) {
	ctx := t.Context()
	o, now := newOutbox(t)
	start := *now
	for _, s := range []Submission{
		{ID: "1", State: StateQueued, Mailbox: "Alice@contoso.example", EnvelopeFrom: "Alice@contoso.example", Recipients: []Recipient{{Address: "Bob@fabrikam.example"}}},
		{ID: "2", State: StateHeld, Mailbox: "bob@contoso.example", Login: "scanner", EnvelopeFrom: "100%@contoso.example", Recipients: []Recipient{{Address: "x@y.example"}, {Address: "under_score@y.example"}}},
		{ID: "3", State: StateSent, Mailbox: "bob@contoso.example", EnvelopeFrom: "1000@contoso.example", Recipients: []Recipient{{Address: "underXscore@y.example"}}, MessageID: "<m>"},
	} {
		insert(t, o, s)
		*now = now.Add(time.Hour)
	}
	for _, tt := range []struct {
		name string
		f    Filter
		want []string
	}{
		{"all", Filter{}, []string{"1", "2", "3"}},
		{"states", Filter{States: []State{StateQueued, StateSent}}, []string{"1", "3"}},
		{"mailbox in another case", Filter{Mailbox: "alice@CONTOSO.example"}, []string{"1"}},
		{"part of a mailbox", Filter{Mailbox: "contoso"}, nil},
		{"login", Filter{Login: "scanner"}, []string{"2"}},
		{"part of the sender", Filter{Sender: "aLICE"}, []string{"1"}},
		{"percent is a percent", Filter{Sender: "100%"}, []string{"2"}},
		{"second recipient", Filter{Recipient: "Under_score"}, []string{"2"}},
		{"recipient in another case", Filter{Recipient: "bob@FABRIKAM"}, []string{"1"}},
		{"message id", Filter{MessageID: "<m>"}, []string{"3"}},
		{"older", Filter{OlderThan: start.Add(time.Hour)}, []string{"1"}},
		{"newer", Filter{NewerThan: start.Add(time.Hour)}, []string{"2", "3"}},
		{"page", Filter{After: "1", Limit: 1}, []string{"2"}},
		{"all at once", Filter{States: []State{StateHeld}, Mailbox: "bob@contoso.example", Sender: "100", Recipient: "y.example", OlderThan: *now, NewerThan: start, Limit: 5}, []string{"2"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			list, err := o.List(ctx, tt.f)
			var got []string
			for _, s := range list {
				got = append(got, s.ID)
			}
			if err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v (%v)", got, tt.want, err)
			}
		})
	}
}

func TestOutboxDelete(t *testing.T) {
	ctx := t.Context()
	o, now := newOutbox(t)
	insert(t, o, Submission{ID: "queued"})
	insert(t, o, Submission{ID: "sent", State: StateSent, Spool: "file"})
	insert(t, o, Submission{ID: "bounced", State: StateBounced})
	*now = now.Add(time.Hour)
	insert(t, o, Submission{ID: "young", State: StateSent})
	gone, err := o.Delete(ctx, *now)
	if err != nil || len(gone) != 2 || gone[0].ID != "bounced" || gone[1].Spool != "file" {
		t.Errorf("deleted %+v %v", gone, err)
	}
	if err := errors.Join(o.Remove(ctx, "queued"), o.Remove(ctx, "nothing")); err != nil {
		t.Error(err)
	}
	if list, err := o.List(ctx, Filter{}); err != nil || len(list) != 1 || list[0].ID != "young" {
		t.Errorf("left %+v %v", list, err)
	}
}

func keptTexts(t testing.TB, o *Outbox) map[string]string {
	t.Helper()
	kept := make(map[string]string)
	if err := o.Texts(t.Context(), func(spool string, text []byte) error {
		kept[spool] = string(text)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return kept
}

// A text goes with the last that is to be done for its message, or with its row; changes in between leave it alone.
func TestTexts(t *testing.T) {
	ctx := t.Context()
	o, now := newOutbox(t)
	all := []string{"waits", "sent", "owed", "removed", "deleted"}
	for _, id := range all {
		insert(t, o, Submission{ID: id, Spool: id + ".eml", Text: []byte("\x00" + id), NextAttempt: *now})
	}
	insert(t, o, Submission{ID: "large", Spool: "large.eml"})
	set := func(id string, state State, next time.Time) {
		t.Helper()
		got, err := o.Update(ctx, id, func(s *Submission) error {
			s.State, s.NextAttempt = state, next
			return nil
		})
		if err != nil || got.Text != nil {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	want := func(ids ...string) {
		t.Helper()
		kept := keptTexts(t, o)
		for _, id := range ids {
			if kept[id+".eml"] != "\x00"+id {
				t.Errorf("%s: %q is kept", id, kept[id+".eml"])
			}
		}
		if len(kept) != len(ids) {
			t.Errorf("kept are %q, want those of %s", kept, ids)
		}
	}
	want(all...)
	if _, err := o.Claim(ctx, "waits"); err != nil {
		t.Fatal(err)
	}
	set("waits", StateUnclear, now.Add(time.Hour))
	set("removed", StateHeld, time.Time{})
	set("sent", StateSent, time.Time{})
	set("owed", StateSent, now.Add(time.Minute))
	set("deleted", StateBounced, now.Add(time.Minute))
	want("waits", "owed", "removed", "deleted")
	if err := o.Remove(ctx, "removed"); err != nil {
		t.Fatal(err)
	}
	set("owed", StateSent, time.Time{})
	*now = now.Add(time.Hour)
	if _, err := o.Delete(ctx, *now); err != nil {
		t.Fatal(err)
	}
	want("waits")
}

func TestOutboxReadOnly(t *testing.T) {
	ctx := t.Context()
	o, _ := newOutbox(t)
	if _, err := OpenOutboxReadOnly(t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("open nothing: %v", err)
	}
	look, err := OpenOutboxReadOnly(o.dir) // beside the one that has the lock
	if err != nil {
		t.Fatal(err)
	}
	defer look.Close()
	sub := insert(t, o, Submission{})
	if got, err := look.Get(ctx, sub.ID); err != nil || got.ID != sub.ID {
		t.Errorf("looked up %+v %v", got, err)
	}
	if _, err := look.Insert(ctx, Submission{}); !errors.Is(err, ErrReadOnly) {
		t.Errorf("insert: %v", err)
	}
	if _, err := look.Claim(ctx, sub.ID); !errors.Is(err, ErrReadOnly) {
		t.Errorf("claim: %v", err)
	}
	if _, err := look.db.r.Exec("DELETE FROM submissions"); err == nil {
		t.Error("the handle can write")
	}
	if o.SpoolDir() != look.SpoolDir() {
		t.Errorf("spool folders %s and %s", o.SpoolDir(), look.SpoolDir())
	}
}

// TestOutboxReadOnlyAfterStop looks at the outbox of a server that is not running.
func TestOutboxReadOnlyAfterStop(t *testing.T) {
	s, _ := newFolder(t)
	sub := insert(t, s.Outbox(), Submission{})
	s.Close()
	look, err := OpenOutboxReadOnly(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer look.Close()
	if list, err := look.List(t.Context(), Filter{}); err != nil || len(list) != 1 || list[0].ID != sub.ID {
		t.Errorf("list %+v %v", list, err)
	}
}

func TestSubmissionIDsSortByTime(t *testing.T) {
	last := ""
	for i := range 1000 {
		id := newSubmissionID(day.Add(time.Duration(i) * time.Millisecond))
		if id <= last || len(id) != 16 {
			t.Fatalf("%s after %s", id, last)
		}
		last = id
	}
}
