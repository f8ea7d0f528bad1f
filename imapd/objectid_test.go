package imapd

import (
	"regexp"
	"strings"
	"testing"
)

// Ids are the same wherever they are told, find their message, and stay when mailboxes are renamed and messages moved.
func TestObjectIDs(t *testing.T) {
	w := newWorld(t, Limits{})
	c := w.login("alice")
	id := func(prefix, s string) string {
		t.Helper()
		m := regexp.MustCompile(`\((` + prefix + `[A-Za-z0-9_-]{1,254})\)`).FindStringSubmatch(s)
		if m == nil {
			t.Fatalf("no id in %q", s)
		}
		return m[1]
	}
	status := func(name string) string {
		t.Helper()
		return id("F", c.ok("STATUS " + name + " (MAILBOXID)")[0])
	}
	_, tagged := c.do("CREATE Box")
	box := id("F", tagged)
	if got := status("Box"); got != box {
		t.Errorf("STATUS says %s, CREATE %s", got, box)
	}
	c.ok("RENAME Box Case")
	if got := id("F", strings.Join(c.ok("SELECT Case"), " ")); got != box {
		t.Errorf("SELECT says %s, CREATE %s", got, box)
	}
	if got := status("INBOX"); got == box {
		t.Error("two mailboxes have one id")
	}
	c.ok("APPEND Case {40+}\r\nSubject: one\r\nMessage-ID: <1@a.example>\r\n")
	c.ok("APPEND Case {40+}\r\nSubject: two\r\nMessage-ID: <2@a.example>\r\n")
	fetched := c.ok("FETCH 1:2 EMAILID")
	var ids []string
	for _, line := range fetched {
		if strings.Contains(line, "EMAILID") {
			ids = append(ids, id("M", line))
		}
	}
	if len(ids) != 2 || ids[0] == ids[1] {
		t.Fatalf("messages are %q", fetched)
	}
	if got := c.ok("SEARCH EMAILID " + ids[1]); got[0] != "* SEARCH 2" {
		t.Errorf("search by id: %q", got)
	}
	c.ok("MOVE 2 Archive")
	c.ok("SELECT Archive")
	if got := id("M", c.ok("FETCH 1 EMAILID")[0]); got != ids[1] {
		t.Errorf("after the move the id is %s, was %s", got, ids[1])
	}
}
