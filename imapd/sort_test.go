package imapd

import (
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"postern/imapd/wire"
	"postern/internal/fuzzcorpus"
)

func TestFoldSort(t *testing.T) {
	for _, list := range [][]string{
		{"", "1", "a", "B", "c", "[x]", "_y"},
		{"a", "Ä", "äb", "b", "Z"},
		{"straße", "STRASSEN", "stop"}, // ß is a letter of its own
		{"ǆ", "ǅa", "Ǆb"},
		{"Cafe", "café", "Cafe\u0301s"},
	} {
		folded := make([]string, len(list))
		for i, s := range list {
			folded[i] = foldSort(s)
		}
		if list[0] == "straße" {
			if folded[0] == foldSort("strasse") {
				t.Error("ß is ss")
			}
			continue
		}
		if !slices.IsSorted(folded) {
			t.Errorf("%q is not in order: %q", list, folded)
		}
	}
	if a, b := foldSort("é"), foldSort("E\u0301"); a != b {
		t.Errorf("%q and %q", a, b)
	}
}

func TestAddressKeys(t *testing.T) {
	for _, tt := range []struct{ from, mailbox, show string }{
		{"", "", ""},
		{"joe@a.example", "JOE", "JOE@A.EXAMPLE"},
		{"Joe B <joe@a.example>", "JOE", "JOE B"},
		{`" " <joe@a.example>`, "JOE", "JOE@A.EXAMPLE"},
		{"=?utf-8?q?J=C3=B6rg?= <joe@a.example>", "JOE", "JO\u0308RG"},
		{"joe@a.example (Joe)", "JOE", "JOE"},
		{"Team: joe@a.example;", "TEAM", "TEAM"},
		{"empty:;", "EMPTY", "EMPTY"},
		{"root", "ROOT", "ROOT"},
		{"<>", "", ""},
		{"b@b.example, a@a.example", "B", "B@B.EXAMPLE"},
	} {
		k := newHeaderKeys([]byte("From: " + tt.from + "\r\nTo: " + tt.from + "\r\n\r\n"))
		if k.from != tt.mailbox || k.showFrom != tt.show || k.to != tt.mailbox || k.showTo != tt.show {
			t.Errorf("%q: %q, %q, want %q, %q", tt.from, k.from, k.showFrom, tt.mailbox, tt.show)
		}
	}
}

// The cache keeps within its limit, gives way to what is used, and forgets what is gone.
func TestKeyCache(t *testing.T) {
	one := (&headerKeys{}).size()
	c := &keyCache{limit: 10 * one}
	uids := func(from, to imap.UID) (list []imap.UID) {
		for ; from <= to; from++ {
			list = append(list, from)
		}
		return list
	}
	put := func(box string, present, list []imap.UID) {
		keys := make([]*headerKeys, len(list))
		var indices []int
		for i := range list {
			keys[i] = &headerKeys{}
			indices = append(indices, i)
		}
		c.put(keyBox{box, 1}, present, list, keys, indices)
	}
	count := func(box string, validity uint32, list []imap.UID) (n int) {
		keys := make([]*headerKeys, len(list))
		c.get(keyBox{box, validity}, list, keys)
		for _, k := range keys {
			if k != nil {
				n++
			}
		}
		return n
	}
	put("a", uids(1, 4), uids(1, 4))
	put("b", uids(1, 4), uids(1, 4))
	put("b", uids(1, 4), uids(1, 4)) // twice is once
	if a, b := count("a", 1, uids(1, 4)), count("b", 1, uids(1, 4)); a != 4 || b != 4 || c.size != 8*one {
		t.Errorf("%d and %d, %d bytes", a, b, c.size)
	}
	if count("a", 2, uids(1, 4)) != 0 {
		t.Error("keys of another UIDVALIDITY")
	}
	count("a", 1, nil)
	put("c", uids(1, 4), uids(1, 4)) // b was used longest ago
	if a, b, n := count("a", 1, uids(1, 4)), count("b", 1, uids(1, 4)), count("c", 1, uids(1, 4)); a != 4 || b != 0 || n != 4 {
		t.Errorf("%d, %d and %d", a, b, n)
	}
	put("d", uids(1, 20), uids(1, 20)) // more than there is room for
	if n := count("d", 1, uids(1, 20)); n != 10 || c.size != 10*one || len(c.boxes) != 1 {
		t.Errorf("%d, %d bytes, %d mailboxes", n, c.size, len(c.boxes))
	}
	put("d", uids(9, 12), uids(11, 12)) // most of them have been removed
	if n := count("d", 1, uids(1, 20)); n != 4 || c.size != 4*one {
		t.Errorf("%d, %d bytes", n, c.size)
	}
}

// Headers are read once; what comes later is added, what goes is left out.
func TestSortKeepsUp(t *testing.T) {
	w, _ := farWorld(t, 5)
	c := w.login("alice")
	c.ok("SELECT Archive")
	want := func(command string, want ...string) {
		t.Helper()
		wantLines(t, c.ok(command), want...)
	}
	want("SORT (REVERSE SUBJECT) UTF-8 ALL", "* SORT 5 4 3 2 1")
	if err := w.sim.Inject(bodyRequests("")); err != nil {
		t.Fatal(err)
	}
	want("SORT (SUBJECT) UTF-8 ALL", "* SORT 1 2 3 4 5")
	c.ok("APPEND Archive {24+}\r\nSubject: Message 1a\r\n\r\n.")
	c.ok("NOOP")
	want("SORT (SUBJECT) UTF-8 ALL", "* SORT 1 2 6 3 4 5")
	c.ok("STORE 2 +FLAGS.SILENT (\\Deleted)")
	c.ok("EXPUNGE")
	want("UID SORT (SUBJECT) UTF-8 ALL", "* SORT 1 6 3 4 5")
	want("UID THREAD REFERENCES UTF-8 UID 3:*", "* THREAD (3)(4)(5)(6)")
	other := w.login("alice")
	other.ok("EXAMINE Archive")
	wantLines(t, other.ok("SORT (REVERSE FROM) UTF-8 ALL"), "* SORT 4 3 2 1 5")
}

func FuzzParseSort(f *testing.F) {
	for _, s := range []string{" (REVERSE DATE SUBJECT) UTF-8 ALL", " RETURN (MIN SAVE) (DISPLAYFROM) US-ASCII $", " () x"} {
		f.Add(s)
	}
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, s string) {
		d := wire.NewDecoder(strings.NewReader("a x"+s+"\r\n"), wire.DefaultLimits, nil, func() error { return nil })
		if _, _, err := d.ReadCommand(); err != nil {
			return
		}
		req := parseSort(d)
		if d.End() != nil {
			return
		}
		if len(req.keys) == 0 || req.key == nil {
			t.Fatalf("%+v", req)
		}
		row := sortRow{keys: &headerKeys{}}
		if compareRows(&row, &row, req.keys) != 0 {
			t.Fatal("a row differs from itself")
		}
	})
}
