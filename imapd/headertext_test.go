package imapd

import (
	"fmt"
	"strings"
	"testing"

	"postern/backend/graphsim"
)

// TestListsAreKept compares what is told from kept texts with what is made for one message alone, which is not kept.
func TestListsAreKept(t *testing.T) {
	w := newSimWorld(t, graphsim.Options{})
	names, files := mimeMessages(t)
	for _, name := range names {
		w.sim.AddMessage(alice, "inbox", files[name], graphsim.MessageSpec{})
	}
	w.serve(Limits{})
	for _, enable := range []string{"", "UTF8=ACCEPT"} {
		c := w.login("alice")
		if enable != "" {
			c.ok("ENABLE " + enable)
		}
		c.ok("SELECT INBOX")
		for _, items := range []string{
			"(UID ENVELOPE)",
			"(BODY.PEEK[HEADER.FIELDS (From To Subject)])",
			"(BODY.PEEK[HEADER.FIELDS (From To Subject)]<3.10> ENVELOPE BODY.PEEK[HEADER.FIELDS (Received Content-Type)] ENVELOPE)",
		} {
			var alone []string
			for i := range names {
				r, tagged := c.responses(fmt.Sprintf("FETCH %d %s", i+1, items))
				if len(r) != 1 || !strings.HasPrefix(tagged, "OK") {
					t.Fatalf("%s: %q, %s", items, r, tagged)
				}
				alone = append(alone, string(r[0]))
			}
			for _, round := range []string{"made", "kept"} {
				list, _ := c.responses("FETCH 1:* " + items)
				if len(list) != len(alone) {
					t.Fatalf("%s %s: %d responses, want %d", items, round, len(list), len(alone))
				}
				for i := range list {
					if string(list[i]) != alone[i] {
						t.Errorf("%s %s, %s:\n got %q\nwant %q", items, round, names[i], list[i], alone[i])
					}
				}
			}
		}
		for _, key := range []string{"FROM example", "SUBJECT a", `HEADER "x-none" ""`, `HEADER Subject ""`, "TO a NOT FROM b", "OR CC a BCC b",
			"HEADER a 1 HEADER b 1 HEADER c 1 HEADER d 1 HEADER e 1 HEADER f 1 HEADER g 1 HEADER h 1 HEADER from a"} {
			// The last of these sets is looked through in whole headers.
			var want []string
			for i := range names {
				r, _ := c.responses(fmt.Sprintf("SEARCH %d %s", i+1, key))
				if hit := strings.TrimPrefix(string(r[0]), "* SEARCH"); hit != "" {
					want = append(want, strings.TrimSpace(hit))
				}
			}
			for range 2 {
				r, _ := c.responses("SEARCH " + key)
				if got := strings.TrimSpace(strings.TrimPrefix(string(r[0]), "* SEARCH")); got != strings.Join(want, " ") {
					t.Errorf("SEARCH %s: %s, want %v", key, got, want)
				}
			}
		}
	}
}
