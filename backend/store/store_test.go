package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
)

func openStore(t testing.TB, dir string, opts ...func(*Options)) *Store {
	t.Helper()
	o := Options{Dir: dir}
	for _, f := range opts {
		f(&o)
	}
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// newFolder makes a store with one account and one folder.
func newFolder(t testing.TB, opts ...func(*Options)) (*Store, *Folder) {
	t.Helper()
	s := openStore(t, filepath.Join(t.TempDir(), "state"), opts...)
	return s, putFolder(t, s, "INBOX")
}

func putFolder(t testing.TB, s *Store, name string) *Folder {
	t.Helper()
	a, err := s.Account(t.Context(), "alice@contoso.example")
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.PutFolder(t.Context(), Folder{Account: a, GraphID: GraphID("id-" + name), DisplayName: name, Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func ptr[T any](v T) *T { return &v }

var day = time.Date(2026, 5, 4, 10, 20, 30, 0, time.UTC)

// remote is a whole row.
func remote(n int) Remote {
	return Remote{
		GraphID: graphID(n), Flags: FlagSeen * Flags(n%2), FlagsMask: FlagsAll, Keywords: ptr([]string{}),
		Received: ptr(day.Add(time.Duration(n) * time.Minute)), Sent: ptr(day), SizeEstimate: ptr(int64(1000 + n)),
		InternetMessageID: ptr(fmt.Sprintf("<%d@contoso.example>", n)), ThreadID: ptr(fmt.Sprintf("AAQkAGI2THVSAAA-%d", n/3)),
	}
}

func graphID(n int) GraphID {
	return GraphID(fmt.Sprintf("AAkALgAAAAAAHYQDEapmEc2byACqAC-EWg0AjQ2ZyDwVPESxRzIGl4Rv7wACbAe0EwAAjQ2ZyDwVPESxRzIGl4Rv7wACbAe0EwAA%08d", n))
}

func apply(t testing.TB, s *Store, f *Folder, upserts []Remote, removes ...GraphID) Changes {
	t.Helper()
	ch, err := s.Apply(t.Context(), f.ID, upserts, removes, nil)
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

func messages(t testing.TB, s *Store, f FolderID) []Message {
	t.Helper()
	list, err := s.Messages(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestUIDValidityGrows(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	now := time.Unix(1_800_000_000, 0)
	clock := func(o *Options) { o.Now = func() time.Time { return now } }
	s := openStore(t, dir, clock)
	var last uint32
	next := func(s *Store, name string) {
		t.Helper()
		f := putFolder(t, s, name)
		if f.UIDValidity <= last {
			t.Errorf("uidvalidity of %s is %d after %d", name, f.UIDValidity, last)
		}
		last = f.UIDValidity
		if err := s.DeleteFolder(t.Context(), f.ID); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 20 { // runs ahead of the clock
		next(s, fmt.Sprint(i))
	}
	s.Close()
	now = now.Add(-time.Hour) // the clock went back
	s = openStore(t, dir, clock)
	next(s, "after restart")
	s.Close()
	for _, name := range []string{"replica.db", "replica.db-wal", "replica.db-shm"} {
		os.Remove(filepath.Join(dir, name))
	}
	s = openStore(t, dir, clock)
	next(s, "after the replica was lost")
}

func TestFolders(t *testing.T) {
	ctx := t.Context()
	s, inbox := newFolder(t)
	if inbox.UIDNext != 1 || inbox.HighestModSeq != 1 || inbox.FirstRecent != 1 || !inbox.Subscribed || !inbox.SyncedAt.IsZero() {
		t.Errorf("new folder: %+v", inbox)
	}
	a := putFolder(t, s, "A")
	b := putFolder(t, s, "A/B")
	if again, err := s.Account(ctx, "Alice@Contoso.Example"); err != nil || again != inbox.Account {
		t.Errorf("account by another case: %v %v", again, err)
	}
	if _, err := s.PutFolder(ctx, Folder{Account: a.Account, GraphID: "other", Name: "A"}); !errors.Is(err, ErrNameTaken) {
		t.Errorf("second folder with a name: %v", err)
	}
	got, err := s.PutFolder(ctx, Folder{Account: a.Account, GraphID: a.GraphID, Name: "Sent", DisplayName: "Sent Items", Role: imap.MailboxAttrSent, Hidden: true, ParentGraphID: "root"})
	if err != nil || got.ID != a.ID || got.UIDValidity != a.UIDValidity || got.Name != "Sent" || got.Role != imap.MailboxAttrSent || !got.Hidden || got.ParentGraphID != "root" {
		t.Errorf("updated: %+v %v", got, err)
	}
	// They trade names.
	if err := s.RenameFolders(ctx, a.Account, map[FolderID]string{a.ID: "A/B", b.ID: "Sent"}); err != nil {
		t.Error(err)
	}
	if err := s.RenameFolders(ctx, a.Account, map[FolderID]string{a.ID: "X", b.ID: "INBOX"}); !errors.Is(err, ErrNameTaken) {
		t.Errorf("rename onto another: %v", err)
	}
	if err := s.RenameFolders(ctx, a.Account, map[FolderID]string{99: "X"}); !errors.Is(err, ErrNotFound) {
		t.Errorf("rename of nothing: %v", err)
	}
	list, err := s.Folders(ctx, a.Account)
	var names []string
	for _, f := range list {
		names = append(names, f.Name)
	}
	if want := []string{"A/B", "INBOX", "Sent"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("names %v, want %v (%v)", names, want, err)
	}
	synced := day
	if err := s.SetSync(ctx, b.ID, SyncUpdate{DeltaLink: ptr("d"), Fill: ptr(FillListing), FillLink: ptr("f"), HeadersLink: ptr("h"), HeadersDone: ptr(true), SyncedAt: &synced}); err != nil {
		t.Error(err)
	}
	if err := s.SetSync(ctx, b.ID, SyncUpdate{FillLink: ptr("")}); err != nil {
		t.Error(err)
	}
	f, err := s.Folder(ctx, b.ID)
	if err != nil || f.DeltaLink != "d" || f.Fill != FillListing || f.FillLink != "" || f.HeadersLink != "h" || !f.HeadersDone || !f.SyncedAt.Equal(day) {
		t.Errorf("sync state: %+v %v", f, err)
	}
	if err := s.DeleteFolder(ctx, b.ID); err != nil {
		t.Error(err)
	}
	if _, err := s.Folder(ctx, b.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("deleted folder: %v", err)
	}
	if _, err := s.Apply(ctx, b.ID, []Remote{remote(1)}, nil, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("apply to a deleted folder: %v", err)
	}
}

func TestSubscriptions(t *testing.T) {
	ctx := t.Context()
	s, inbox := newFolder(t)
	putFolder(t, s, "A")
	for name, on := range map[string]bool{"gone": true, "A": false, "never": false} {
		if err := s.SetSubscribed(ctx, inbox.Account, name, on); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Subscriptions(ctx, inbox.Account)
	if want := []string{"INBOX", "gone"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("subscriptions %v, want %v (%v)", got, want, err)
	}
	list, _ := s.Folders(ctx, inbox.Account)
	for _, f := range list {
		if f.Subscribed != (f.Name == "INBOX") {
			t.Errorf("%s subscribed: %v", f.Name, f.Subscribed)
		}
	}
}

func TestAccountState(t *testing.T) {
	ctx := t.Context()
	s, inbox := newFolder(t)
	for _, want := range []string{"", "one", "two"} {
		if want != "" {
			if err := s.SetAccountState(ctx, inbox.Account, "tree", want); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := s.AccountState(ctx, inbox.Account, "tree"); err != nil || got != want {
			t.Errorf("state %q, want %q (%v)", got, want, err)
		}
	}
}

func TestClaimRecent(t *testing.T) {
	s, f := newFolder(t)
	apply(t, s, f, []Remote{remote(1), remote(2), remote(3)})
	for _, tt := range []struct{ before, want imap.UID }{{3, 1}, {2, 3}, {3, 3}, {4, 3}, {4, 4}} {
		if got, err := s.ClaimRecent(t.Context(), f.ID, tt.before); err != nil || got != tt.want {
			t.Errorf("first recent %d, want %d (%v)", got, tt.want, err)
		}
	}
}

// TestFolderNamedIsCurrent changes a folder in each way and asks for it by name before and after.
func TestFolderNamedIsCurrent(t *testing.T) {
	ctx := t.Context()
	s, f := newFolder(t)
	name := f.Name
	for _, change := range []func() error{
		func() error { apply(t, s, f, []Remote{remote(1), remote(2)}); return nil },
		func() error { _, err := s.ClaimRecent(ctx, f.ID, 3); return err },
		func() error { return s.SetSync(ctx, f.ID, SyncUpdate{DeltaLink: ptr("new")}) },
		func() error {
			_, _, err := s.ChangeFlags(ctx, f.ID, []FlagChange{{UID: 1, Set: FlagDeleted}})
			return err
		},
		func() error { apply(t, s, f, nil, graphID(1)); return nil },
		func() error {
			row, name2 := *f, name+"2"
			row.Name, name = name2, name2
			_, err := s.PutFolder(ctx, row)
			return err
		},
	} {
		before := name
		for range 2 { // the second may be kept
			if _, err := s.FolderNamed(ctx, f.Account, name); err != nil {
				t.Fatal(err)
			}
		}
		if err := change(); err != nil {
			t.Fatal(err)
		}
		want, err := s.Folder(ctx, f.ID)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if got, err := s.FolderNamed(ctx, f.Account, name); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%+v %v\nwant %+v", got, err, want)
			}
		}
		if _, err := s.FolderNamed(ctx, f.Account, before); before != name && !errors.Is(err, ErrNotFound) {
			t.Errorf("under its old name: %v", err)
		}
		if got, err := s.ClaimRecent(ctx, f.ID, 1); err != nil || got != want.FirstRecent {
			t.Errorf("first recent %d, want %d (%v)", got, want.FirstRecent, err)
		}
	}
	if err := s.DeleteFolder(ctx, f.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.FolderNamed(ctx, f.Account, name); !errors.Is(err, ErrNotFound) {
		t.Errorf("deleted: %v", err)
	}
}

// Rows whose flags may be of before a change of our own change nothing of them, and are named where they say something else.
func TestDoubtedRows(t *testing.T) {
	s, f := newFolder(t)
	first := remote(2) // not \Seen
	first.Doubt, first.DoubtKeywords = FlagSeen, true
	if ch := apply(t, s, f, []Remote{first}); !slices.Equal(ch.Doubted, []GraphID{graphID(2)}) {
		t.Errorf("new message: doubted %v", ch.Doubted)
	}
	pushes := func() {
		t.Helper()
		list, err := s.Pending(t.Context(), f.Account, 10)
		if err != nil || len(list) != 1 {
			t.Fatalf("%d pending (%v)", len(list), err)
		}
		if _, err := s.Pushed(t.Context(), []PushResult{{ID: list[0].ID, PendingSeq: list[0].PendingSeq}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := s.ChangeFlags(t.Context(), f.ID, []FlagChange{{UID: 1, Set: FlagSeen, AddKeywords: []string{"Red"}}}); err != nil {
		t.Fatal(err)
	}
	row := Remote{GraphID: graphID(2), Flags: FlagFlagged, FlagsMask: FlagSeen | FlagFlagged, Keywords: ptr([]string{}), Doubt: FlagSeen, DoubtKeywords: true}
	for _, tt := range []struct {
		name    string
		change  func()
		doubted bool
	}{
		{"pending", func() {}, false}, // what is to be pushed wins anyway
		{"flag and keywords", pushes, true},
		{"keywords", func() { row.Flags |= FlagSeen }, true},
		{"nothing", func() { row.Keywords = ptr([]string{"red"}) }, false},
		{"flag", func() { row.Flags &^= FlagSeen }, true},
		{"not in the row", func() { row.FlagsMask, row.Keywords = FlagFlagged, nil }, false},
	} {
		tt.change()
		ch := apply(t, s, f, []Remote{row})
		m := messages(t, s, f.ID)[0]
		if m.Flags != FlagSeen|FlagFlagged || !slices.Equal(m.Keywords, []string{"Red"}) {
			t.Errorf("%s: flags %v %v", tt.name, m.Flags, m.Keywords)
		}
		if (len(ch.Doubted) != 0) != tt.doubted {
			t.Errorf("%s: doubted %v", tt.name, ch.Doubted)
		}
	}
}

func TestFileModes(t *testing.T) {
	s, f := newFolder(t)
	apply(t, s, f, []Remote{remote(1)})
	commitBody(t, s, messageID(f.ID, 1), []byte("x"), false)
	err := filepath.WalkDir(s.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestLock(t *testing.T) {
	s, _ := newFolder(t)
	_, err := Open(t.Context(), Options{Dir: s.dir})
	if err == nil || !strings.Contains(err.Error(), s.dir) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("second Open: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	openStore(t, s.dir)
}

func TestForeignFiles(t *testing.T) {
	foreign := filepath.Join(t.TempDir(), "foreign.db")
	d, err := newDatabase(foreign, replicaKind, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.w.Exec("CREATE TABLE users (name TEXT)"); err != nil {
		t.Fatal(err)
	}
	d.close()
	foreignBytes, err := os.ReadFile(foreign)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, file string
		content    []byte
		want       []string
	}{
		{"text", "replica.db", []byte(strings.Repeat("this is no database\n", 500)), []string{"replica.db", "damaged", "read anew"}},
		{"text for outbox", "outbox.db", []byte(strings.Repeat("this is no database\n", 500)), []string{"outbox.db", "damaged", "unsent"}},
		{"other program's", "replica.db", foreignBytes, []string{"replica.db", "another program"}},
		{"other program's for outbox", "outbox.db", foreignBytes, []string{"outbox.db", "another program"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, tt.file), tt.content, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Open(t.Context(), Options{Dir: dir})
			if err == nil {
				t.Fatal("opened")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
		})
	}
}

func TestNewerTables(t *testing.T) {
	s, _ := newFolder(t)
	if _, err := s.db.w.Exec("INSERT INTO " + migrationTable + " (version_id, is_applied) VALUES (9999, 1)"); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := Open(t.Context(), Options{Dir: s.dir}); err == nil || !strings.Contains(err.Error(), "newer Postern") {
		t.Errorf("open: %v", err)
	}
}

func TestCancelledWrite(t *testing.T) {
	s, f := newFolder(t)
	ctx, cancel := context.WithCancel(t.Context())
	err := s.db.write(ctx, "test", func(tx *tx) error {
		if _, err := tx.exec("UPDATE folders SET uidnext = 99 WHERE id = ?", int64(f.ID)); err != nil {
			return err
		}
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("write: %v", err)
	}
	if got, err := s.Folder(t.Context(), f.ID); err != nil || got.UIDNext != 1 {
		t.Errorf("half a transaction: %+v %v", got, err)
	}
	s.Close()
	if _, err := s.Account(t.Context(), "x@y.example"); err == nil {
		t.Error("write after Close")
	}
}

func TestOddFolderName(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a b?c=1&d#e%41 ü")
	s := openStore(t, dir)
	f := putFolder(t, s, "INBOX")
	apply(t, s, f, []Remote{remote(1)})
	s.Close()
	for _, name := range []string{"replica.db", "outbox.db"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	if got := messages(t, openStore(t, dir), f.ID); len(got) != 1 {
		t.Errorf("%d messages after reopening", len(got))
	}
}
