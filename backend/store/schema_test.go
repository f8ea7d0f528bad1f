package store

import (
	"bytes"
	"context"
	"database/sql"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
)

// testdata/schema has a database of each version that tables ever had, as text, all with the same rows as far as the version
// can say them. Whoever adds a migration adds the new version's: go test ./backend/store -run TestEarlierSchemas -update

var update = flag.Bool("update", false, "write the missing files of testdata/schema")

func schemaFile(kind *dbKind, version int64) string {
	name, _ := strings.CutSuffix(kind.file, ".db")
	return filepath.Join("testdata", "schema", fmt.Sprintf("%s-%d.sql", name, version))
}

// loadSchema makes a database from a file of testdata/schema.
func loadSchema(t *testing.T, dir string, kind *dbKind, version int64) {
	t.Helper()
	b, err := os.ReadFile(schemaFile(kind, version))
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", dsn(filepath.Join(dir, kind.file), "journal_mode(WAL)"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(string(b)); err != nil {
		t.Fatalf("%s: %v", schemaFile(kind, version), err)
	}
}

func TestEarlierSchemas(t *testing.T) {
	replicas, outboxes := newest(t, replicaKind), newest(t, outboxKind)
	for r := range replicas {
		for o := range outboxes {
			r, o := r+1, o+1
			t.Run(fmt.Sprintf("replica %d, outbox %d", r, o), func(t *testing.T) {
				dir := t.TempDir()
				loadSchema(t, dir, replicaKind, r)
				loadSchema(t, dir, outboxKind, o)
				makeSpool(t, dir)
				s, err := Open(t.Context(), Options{Dir: dir})
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				checkRows(t, s, o)
				copied := filepath.Join(dir, beforeUpdate)
				if r == replicas && o == outboxes {
					if _, err := os.Stat(copied); err == nil {
						t.Error("a copy was made although nothing was changed")
					}
					if *update {
						dumpSchema(t, s.db, r)
						dumpSchema(t, s.outbox.db, o)
					}
					return
				}
				m, err := ReadManifest(copied)
				if err != nil {
					t.Fatal(err)
				}
				if m.Replica != r || m.Outbox != o {
					t.Errorf("the copy before the update has versions %d and %d", m.Replica, m.Outbox)
				}
				// The copy can be worked on like the state itself.
				if err := os.Remove(filepath.Join(copied, ManifestFile)); err != nil {
					t.Fatal(err)
				}
				before, err := Open(t.Context(), Options{Dir: copied})
				if err != nil {
					t.Fatal(err)
				}
				defer before.Close()
				checkRows(t, before, o)
			})
		}
	}
}

func newest(t *testing.T, kind *dbKind) int64 {
	t.Helper()
	n, err := kind.newest()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(schemaFile(kind, n)); err != nil {
		if !*update {
			t.Fatalf("%v: write it with -update", err)
		}
		// From the version before, brought up to date.
		dir := t.TempDir()
		loadSchema(t, dir, kind, n-1)
		d, _, err := openDatabase(t.Context(), dir, kind)
		if err != nil {
			t.Fatal(err)
		}
		defer d.close()
		dumpSchema(t, d, n)
	}
	return n
}

// makeSpool makes the files that the rows name.
func makeSpool(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "spool"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"0000000000queued", "000000000unclear", "00000000000hold0"} {
		if err := os.WriteFile(filepath.Join(dir, "spool", id+".eml"), []byte("Subject: "+id+"\r\n\r\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// checkRows looks for what every file of testdata/schema says. version is the outbox's as it was.
func checkRows(t *testing.T, s *Store, version int64) {
	t.Helper()
	ctx := t.Context()
	account, err := s.Account(ctx, "alice@contoso.example")
	if err != nil {
		t.Fatal(err)
	}
	folders, err := s.Folders(ctx, account)
	if err != nil {
		t.Fatal(err)
	}
	if len(folders) != 2 || folders[1].Name != "INBOX" || folders[0].Name != "Archive/2026" {
		t.Fatalf("folders are %+v", folders)
	}
	inbox := folders[1]
	if inbox.UIDValidity != 1760000002 || inbox.UIDNext != 12 || inbox.HighestModSeq != 30 || inbox.Messages != 2 || inbox.Unseen != 1 ||
		inbox.DeltaLink != "https://graph.example/delta" || inbox.Fill != FillDone || inbox.Subscribed {
		t.Errorf("INBOX is %+v", inbox)
	}
	msgs, err := s.Messages(ctx, inbox.ID)
	if err != nil {
		t.Fatal(err)
	}
	if len(msgs) != 2 || msgs[0].UID != 7 || msgs[0].GraphID != "AAMk7" || msgs[0].Flags != FlagSeen|FlagFlagged || msgs[0].InternetMessageID != "<seven@contoso.example>" ||
		!slices.Equal(msgs[0].Keywords, []string{"$Label1", "Work"}) || msgs[0].Size != 700 || !msgs[0].SizeExact || msgs[0].ModSeq != 21 || msgs[0].PendingSeq != 5 {
		t.Errorf("messages are %+v", msgs)
	}
	if removed, err := s.RemovedSince(ctx, inbox.ID, 10); err != nil || len(removed) != 1 || removed[0].UID != 3 {
		t.Errorf("removed are %+v, %v", removed, err)
	}
	rows, err := s.Outbox().List(ctx, Filter{})
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]State)
	for _, r := range rows {
		got[r.ID] = r.State
	}
	want := map[string]State{"00000000000hold0": StateHeld, "00000000000sent0": StateSent, "0000000000queued": StateQueued, "000000000unclear": StateUnclear}
	for id, state := range want {
		if got[id] != state {
			t.Errorf("%s is %q, want %q", id, got[id], state)
		}
	}
	if len(got) != len(want) {
		t.Errorf("submissions are %v", got)
	}
	unclear, err := s.Outbox().Get(ctx, "000000000unclear")
	if err != nil {
		t.Fatal(err)
	}
	if unclear.Progress != `{"part":1,"unclear":true}` || unclear.Content != "" || unclear.Attempts != 3 || len(unclear.Recipients) != 2 ||
		unclear.Recipients[1].Notify[0] != "NEVER" || unclear.EnvelopeFrom != "alice@contoso.example" || unclear.Spool != "000000000unclear.eml" {
		t.Errorf("the unclear message is %+v", unclear)
	}
	if events, err := s.Outbox().Events(ctx, "00000000000sent0"); err != nil || version >= 2 && (len(events) != 2 || events[1].What != "sent") {
		t.Errorf("the log of the sent message is %+v, %v", events, err)
	}
	// And it goes on from there.
	next, err := s.PutFolder(ctx, Folder{Account: account, GraphID: "new", Name: "New"})
	if err != nil || next.UIDValidity <= 1760000002 {
		t.Errorf("a new folder gets %+v, %v", next, err)
	}
	ch, err := s.Apply(ctx, inbox.ID, []Remote{{GraphID: "AAMk99", Received: &inbox.SyncedAt}}, nil, nil)
	if err != nil || len(ch.Added) != 1 || ch.Added[0].UID != imap.UID(12) || ch.HighestModSeq <= 30 {
		t.Errorf("a new message gets %+v, %v", ch.Added, err)
	}
}

// dumpSchema writes a database as text.
func dumpSchema(t *testing.T, d *database, version int64) {
	t.Helper()
	name := schemaFile(d.kind, version)
	if _, err := os.Stat(name); err == nil {
		return
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "-- %s with tables of version %d. Earlier versions stay as they are: they are what people have on their disks.\n", d.kind.file, version)
	fmt.Fprintf(&b, "PRAGMA application_id = %d;\n", d.kind.applicationID)
	for _, row := range queryAll(t, d, "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY type DESC, name") {
		fmt.Fprintf(&b, "\n%s;\n", row[2])
		if row[0] != "table" {
			continue
		}
		var columns []string
		for _, c := range queryAll(t, d, "SELECT name FROM pragma_table_info('"+row[1]+"')") {
			columns = append(columns, c[0])
		}
		quoted := "quote(" + strings.Join(columns, ") || ', ' || quote(") + ")"
		for _, r := range queryAll(t, d, "SELECT "+quoted+" FROM "+row[1]+" ORDER BY 1") {
			fmt.Fprintf(&b, "INSERT INTO %s (%s) VALUES (%s);\n", row[1], strings.Join(columns, ", "), r[0])
		}
	}
	if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func queryAll(t *testing.T, d *database, query string) [][]string {
	t.Helper()
	rows, err := d.r.QueryContext(context.Background(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	var out [][]string
	for rows.Next() {
		row := make([]string, len(columns))
		dest := make([]any, len(columns))
		for i := range row {
			dest[i] = &row[i]
		}
		if err := rows.Scan(dest...); err != nil {
			t.Fatal(err)
		}
		out = append(out, row)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// A state that a newer program has changed is refused, and left alone.
func TestNewerSchema(t *testing.T) {
	for _, kind := range []*dbKind{replicaKind, outboxKind} {
		dir := t.TempDir()
		loadSchema(t, dir, replicaKind, newest(t, replicaKind))
		loadSchema(t, dir, outboxKind, newest(t, outboxKind))
		db, err := sql.Open("sqlite", dsn(filepath.Join(dir, kind.file)))
		if err != nil {
			t.Fatal(err)
		}
		_, err = db.Exec("INSERT INTO "+migrationTable+" (version_id, is_applied) VALUES (?, 1)", newest(t, kind)+1)
		db.Close()
		if err != nil {
			t.Fatal(err)
		}
		s, err := Open(t.Context(), Options{Dir: dir})
		if err == nil {
			s.Close()
			t.Fatalf("a newer %s is taken", kind.file)
		}
		for _, want := range []string{"written by a newer Postern", fmt.Sprintf("version %d", newest(t, kind)+1), "use that version"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want it to say %q", kind.file, err, want)
			}
		}
	}
}
