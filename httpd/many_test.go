package httpd

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"postern/backend"
	"postern/backend/graphsim"
)

// Hundreds of mailboxes and logins come page by page, those with trouble first on the overview, and can be searched.
func TestManyMailboxesAndLogins(t *testing.T) {
	w := newWorld(t, nil)
	hash := w.cfg.Logins[0].PasswordHash
	const n = 130
	for i := range n {
		address := fmt.Sprintf("User%03d@contoso.example", i)
		if i != 77 { // is not there
			w.sim.AddUser(tenant, graphsim.UserSpec{UPN: address})
		}
		w.cfg.Mailboxes = append(w.cfg.Mailboxes, backend.MailboxConfig{Address: address, Credential: "c"})
		w.cfg.Logins = append(w.cfg.Logins, backend.LoginConfig{Username: address, PasswordHash: hash, Mailbox: address, IMAP: true})
	}
	if _, err := w.b.Reconfigure(w.cfg); err != nil {
		t.Fatal(err)
	}
	w.signIn()
	w.within("the mailbox that is not there to be told", func() bool { return strings.Contains(w.page("/mailboxes?state=attention"), "1 of 132") })

	overview := w.page("/")
	rows := regexp.MustCompile(`<th scope="row" data-label="Mailbox"><a href="/mailboxes/([^"]+)"`).FindAllStringSubmatch(overview, -1)
	if len(rows) != overviewRows || rows[0][1] != "User077@contoso.example" || !strings.Contains(overview, "All 132 mailboxes") || !strings.Contains(overview, `action="/mailboxes"`) {
		t.Errorf("%d mailboxes on the overview, the first is %v", len(rows), rows[0][1])
	}

	for _, tt := range []struct {
		start, row string
		want       int
	}{
		{"/mailboxes", `data-label="Mailbox"><a href="/mailboxes/([^"]+)"`, n + 2},
		{"/mailboxes?text=USER1", `data-label="Mailbox"><a href="/mailboxes/([^"]+)"`, 30},
		{"/mailboxes?state=attention", `data-label="Mailbox"><a href="/mailboxes/([^"]+)"`, 1},
		{"/mailboxes?text=nobody", `data-label="Mailbox"><a href="/mailboxes/([^"]+)"`, 0},
		{"/logins", `data-label="User name">([^ <]+)`, n + 2},
		{"/logins?text=user0", `data-label="User name">([^ <]+)`, 100},
	} {
		t.Run(tt.start, func(t *testing.T) {
			next, row := regexp.MustCompile(`<a href="([^"]*)" rel="next"`), regexp.MustCompile(tt.row)
			var seen []string
			pages := 0
			for at := tt.start; at != ""; pages++ {
				body := w.page(at)
				found := row.FindAllStringSubmatch(body, -1)
				if len(found) > listPage || pages > 5 {
					t.Fatalf("%d rows on page %d", len(found), pages)
				}
				for _, m := range found {
					seen = append(seen, strings.ToLower(m[1]))
				}
				at = ""
				if m := next.FindStringSubmatch(body); m != nil {
					at = strings.ReplaceAll(m[1], "&amp;", "&")
				}
			}
			if len(seen) != tt.want || !slices.IsSorted(seen) || len(slices.Compact(seen)) != tt.want || pages != max(1, (tt.want+listPage-1)/listPage) {
				t.Errorf("%d rows on %d pages: %v", len(seen), pages, seen)
			}
		})
	}
	for _, bad := range []string{"/mailboxes?state=odd", "/mailboxes?text=" + strings.Repeat("x", 501), "/logins?after=" + strings.Repeat("x", 1001)} {
		if res, _ := w.get(bad); res.StatusCode != 404 {
			t.Errorf("%.40s: %d", bad, res.StatusCode)
		}
	}
	if body := w.page("/mailboxes?text=" + url.QueryEscape(`"><script>`)); strings.Contains(body, "<script>") {
		t.Error("what was searched for is part of the page")
	}
}
