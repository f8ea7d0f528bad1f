package store

import (
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
)

// TestQueryPlans makes sure that no frequent query goes through a whole table.
func TestQueryPlans(t *testing.T) {
	s, _ := newFolder(t)
	for _, tt := range []struct {
		query string
		args  int
		want  string
	}{
		{"SELECT " + messageColumns + " FROM messages WHERE id BETWEEN ? AND ? ORDER BY id", 2, "USING INTEGER PRIMARY KEY"},
		{"SELECT " + messageColumns + " FROM messages WHERE folder = ? AND graph_id IN (?,?)", 3, "messages_graph_id"},
		{"SELECT " + messageColumns + " FROM messages WHERE message_id_hash = ? AND message_id_hash <> 0 AND message_id = ?", 2, "messages_message_id"},
		{"SELECT " + messageColumns + ` FROM messages WHERE pending_seq <> 0
			AND folder IN (SELECT f.id FROM folders f WHERE f.account = ?) ORDER BY pending_seq, id LIMIT ?`, 2, "messages_pending"},
		{"SELECT " + messageColumns + " FROM messages WHERE header = 0 AND id BETWEEN ? AND ? ORDER BY id DESC LIMIT ?", 3, "messages_no_header"},
		{"SELECT id FROM messages WHERE header = 0 AND id BETWEEN ? AND ? LIMIT 1", 2, "messages_no_header"},
		{"SELECT graph_id, id, header FROM messages WHERE folder = ? AND graph_id IN (?,?)", 3, "messages_graph_id"},
		{"SELECT DISTINCT body FROM messages WHERE body IN (?,?)", 2, "messages_body"},
		{"UPDATE messages SET body = NULL WHERE body IN (?,?)", 2, "messages_body"},
		{"SELECT uid, modseq FROM removed WHERE folder = ? AND modseq > ? ORDER BY uid", 2, "PRIMARY KEY"},
		{"SELECT id, stored FROM bodies ORDER BY from_client, accessed, id", 0, "bodies_age"},
	} {
		checkPlan(t, s.db, tt.query, tt.args, tt.want)
	}
	checkPlan(t, s.outbox.db, "SELECT id FROM submissions WHERE state IN ('queued', 'unclear') AND next_attempt <= ? ORDER BY next_attempt, id LIMIT ?", 2, "submissions_due")
}

func checkPlan(t *testing.T, d *database, query string, args int, want string) {
	t.Helper()
	rows, err := d.r.Query("EXPLAIN QUERY PLAN "+query, make([]any, args)...)
	if err != nil {
		t.Fatal(query, err)
	}
	defer rows.Close()
	var plan []string
	for rows.Next() {
		var id, parent, unused int
		var detail string
		if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
			t.Fatal(err)
		}
		plan = append(plan, detail)
	}
	if text := strings.Join(plan, "; "); !strings.Contains(text, want) {
		t.Errorf("%s\nplan %q does not use %q", query, text, want)
	}
}

func TestLackingHeaders(t *testing.T) {
	ctx := t.Context()
	s, f := newFolder(t)
	other := putFolder(t, s, "Other")
	rows := []Remote{remote(1), remote(2), remote(3)}
	for i := range rows {
		rows[i].Header = nil
	}
	apply(t, s, f, rows)
	first, second, third := messageID(f.ID, 1), messageID(f.ID, 2), messageID(f.ID, 3)
	check := func(folder FolderID, want ...MessageID) {
		t.Helper()
		got, err := s.LackingHeaders(ctx, folder, []string{string(graphID(1)), string(graphID(2)), string(graphID(3)), string(graphID(4))})
		if err != nil || len(got) != len(want) {
			t.Errorf("lacking %v, want %v (%v)", got, want, err)
		}
		for _, id := range want {
			if got[string(graphID(int(id.UID())))] != id {
				t.Errorf("lacking %v, want %v", got, want)
			}
		}
		if lacks, err := s.LacksHeaders(ctx, folder); err != nil || lacks != (len(want) > 0) {
			t.Errorf("lacks: %v %v, want %v", lacks, err, want)
		}
	}
	check(other.ID)
	check(f.ID, first, second, third)
	if err := s.AddHeaders(ctx, []HeaderRow{{ID: first, Header: []byte("a")}, {ID: second}}); err != nil { // Graph has none of the second
		t.Fatal(err)
	}
	check(f.ID, second, third)
	if err := s.AddHeaders(ctx, []HeaderRow{{ID: third, Header: []byte("c")}}); err != nil {
		t.Fatal(err)
	}
	check(f.ID, second)
	if err := s.AddHeaders(ctx, []HeaderRow{{ID: second, Header: []byte("b")}}); err != nil {
		t.Fatal(err)
	}
	check(f.ID)
}

func TestLookups(t *testing.T) {
	ctx := t.Context()
	s, f := newFolder(t)
	other := putFolder(t, s, "Other")
	strange := remote(3)
	strange.InternetMessageID = ptr("<a\nb\x00\xff@x>")
	apply(t, s, f, []Remote{remote(1), remote(2), strange})
	apply(t, s, other, []Remote{remote(1)})
	stranger, err := s.Account(ctx, "bob@contoso.example")
	if err != nil {
		t.Fatal(err)
	}
	uids := func(list []Message, err error) (out []imap.UID) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
		for _, m := range list {
			out = append(out, m.UID)
		}
		return out
	}
	for _, tt := range []struct {
		name string
		got  []imap.UID
		want int
	}{
		{"by uid", uids(s.MessagesByUID(ctx, f.ID, []imap.UID{2, 9, 1, 2})), 2},
		{"by no uid", uids(s.MessagesByUID(ctx, f.ID, nil)), 0},
		{"by graph id in two folders", uids(s.MessageByGraphID(ctx, f.Account, graphID(1))), 2},
		{"by graph id in another account", uids(s.MessageByGraphID(ctx, stranger, graphID(1))), 0},
		{"by message id", uids(s.ByInternetMessageID(ctx, f.Account, "<2@contoso.example>")), 1},
		{"by message id with odd bytes", uids(s.ByInternetMessageID(ctx, f.Account, *strange.InternetMessageID)), 1},
		{"by message id in another account", uids(s.ByInternetMessageID(ctx, stranger, "<2@contoso.example>")), 0},
		{"by empty message id", uids(s.ByInternetMessageID(ctx, f.Account, "")), 0},
	} {
		if len(tt.got) != tt.want {
			t.Errorf("%s: %v, want %d", tt.name, tt.got, tt.want)
		}
	}
	if got := messages(t, s, f.ID)[2].InternetMessageID; got != *strange.InternetMessageID {
		t.Errorf("message id became %q", got)
	}
}

func TestPruneRemoved(t *testing.T) {
	ctx := t.Context()
	now := day
	s, f := newFolder(t, func(o *Options) { o.Now = func() time.Time { return now } })
	apply(t, s, f, []Remote{remote(1), remote(2), remote(3)}) // modseq 2
	apply(t, s, f, nil, graphID(1))                           // 3
	now = now.Add(time.Hour)
	apply(t, s, f, nil, graphID(2)) // 4
	if err := s.PruneRemoved(ctx, now); err != nil {
		t.Fatal(err)
	}
	for since, want := range map[uint64]struct {
		n   int
		err error
	}{0: {0, ErrPruned}, 2: {0, ErrPruned}, 3: {1, nil}, 4: {0, nil}, 1 << 63: {0, nil}} {
		list, err := s.RemovedSince(ctx, f.ID, since)
		if len(list) != want.n || (err == nil) != (want.err == nil) {
			t.Errorf("since %d: %v %v", since, list, err)
		}
	}
}

func TestKeywords(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"b,a,c", "a b c"},
		{"Red,red,RED", "Red"},
		{"$x,B,a", "$x a B"},
		{"two words,,tab\t,ok", "ok"},
		{"", ""},
	} {
		if got := strings.Join(normalKeywords(strings.Split(tt.in, ",")), " "); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestFlagNames(t *testing.T) {
	for bit := Flags(1); bit <= FlagForwarded; bit <<= 1 {
		names := bit.Append(nil)
		if len(names) != 1 || FlagBit(imap.Flag(strings.ToUpper(string(names[0])))) != bit {
			t.Errorf("flag %b: %v", bit, names)
		}
	}
	if FlagBit("$Junk") != 0 || len(FlagsAll.Append(nil)) != 6 {
		t.Error("keywords are no flags")
	}
}
