package graphsim

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"
)

// follow reads a round to its end and returns the rows and the delta link.
func (h *harness) follow(link string, headers ...string) (rows []map[string]any, delta string, pages int) {
	h.t.Helper()
	for {
		a := h.want(h.do("GET", link, nil, headers...), 200, "")
		rows = append(rows, a.rows()...)
		pages++
		if delta = a.str("@odata.deltaLink"); delta != "" {
			return rows, delta, pages
		}
		if link = a.str("@odata.nextLink"); link == "" {
			h.t.Fatalf("neither nextLink nor deltaLink: %s", a.raw)
		}
	}
}

func TestDelta(t *testing.T) {
	h := newHarness(t, Options{EmptyPageEvery: 3})
	var ids []string
	for i := range 25 {
		ids = append(ids, h.AddMessage(alice, "inbox", mimeOf("a@x.example", alice, fmt.Sprint("m", i), fmt.Sprintf("<%d@x>", i)),
			MessageSpec{Received: time.Unix(1700000000+int64(i), 0)}))
	}
	im := []string{"Prefer", immutablePrefer + ", odata.maxpagesize=4"}
	rows, link, pages := h.follow(u(alice, "/mailFolders('inbox')/messages/delta?$select=subject,isRead,flag"), im...)
	if len(rows) != 25 || pages < 8 {
		t.Fatalf("first round: %d rows on %d pages", len(rows), pages)
	}
	if _, has := rows[0]["bodyPreview"]; has || rows[0]["subject"] != "m24" {
		t.Errorf("$select is not kept: %v", rows[0])
	}
	if !strings.Contains(link, "$deltatoken=") {
		t.Errorf("link %q", link)
	}
	rows, same, _ := h.follow(link, im...)
	if len(rows) != 0 {
		t.Errorf("quiet round has rows: %v", rows)
	}
	_ = same
	yes := true
	h.UpdateMessage(alice, ids[3], Change{IsRead: &yes})
	h.MoveMessage(alice, ids[4], "archive")
	h.DeleteMessage(alice, ids[5], false)
	h.DeleteMessage(alice, ids[6], true)
	fresh := h.DeliverMessage(alice, mimeOf("b@x.example", alice, "new", "<new@x>"))
	rows, next, _ := h.follow(link, im...)
	got := map[string]string{}
	for _, r := range rows {
		kind := "full"
		if rem, ok := r["@removed"].(map[string]any); ok {
			kind = "removed " + rem["reason"].(string)
		} else if _, ok := r["subject"]; !ok {
			kind = fmt.Sprint("partial ", r["isRead"])
		}
		got[r["id"].(string)] = kind
	}
	for i, want := range map[string]string{ids[3]: "partial true", ids[4]: "removed changed", ids[5]: "removed deleted", ids[6]: "removed deleted", fresh: "full"} {
		if got[i] != want {
			t.Errorf("row is %q, want %q", got[i], want)
		}
	}
	// Without $select a change of isRead shows id, etag, isRead and parentFolderId, and no more.
	_, whole, _ := h.follow(u(alice, "/mailFolders/inbox/messages/delta"))
	no := false
	h.UpdateMessage(alice, ids[3], Change{IsRead: &no})
	rows, _, _ = h.follow(whole)
	if len(rows) != 1 || len(rows[0]) != 5 || rows[0]["isRead"] != false || rows[0]["parentFolderId"] == nil {
		t.Errorf("partial row: %v", rows)
	}
	// The archive's own round shows the one moved in.
	rows, _, _ = h.follow(u(alice, "/mailFolders/archive/messages/delta"), im...)
	if len(rows) != 1 || rows[0]["id"] != ids[4] {
		t.Errorf("archive: %v", rows)
	}
	h.ResetDelta(alice, "inbox")
	a := h.want(h.do("GET", next, nil, im...), 410, "SyncStateNotFound")
	if loc := a.header.Get("Location"); !strings.HasSuffix(loc, "$deltatoken=") {
		t.Errorf("Location %q", loc)
	}
	if rows, _, _ := h.follow(a.header.Get("Location"), im...); len(rows) != 23 {
		t.Errorf("after Location: %d rows", len(rows))
	}
	h.want(h.do("GET", strings.Replace(next, "deltatoken=", "deltatoken=A", 1), nil), 400, "SyncStateInvalid")
	h.want(h.do("GET", u(alice, "/mailFolders/inbox/messages/delta?$expand=attachments"), nil), 400, "BadRequest")
	h.want(h.do("GET", u(alice, "/mailFolders/inbox/messages/delta?$filter=isRead%20eq%20true"), nil), 400, "BadRequest")
	rows, _, _ = h.follow(u(alice, "/mailFolders/inbox/messages/delta?$filter=receivedDateTime%20ge%20"+url.QueryEscape(time.Unix(1700000020, 0).UTC().Format(time.RFC3339))))
	if len(rows) != 6 {
		t.Errorf("filtered round: %d rows", len(rows))
	}
	h.SetOverQuota(alice, true)
	h.want(h.do("GET", u(alice, "/mailFolders/inbox/messages/delta"), nil), 507, "ErrorQuotaExceeded")
	h.want(h.do("GET", u(alice, "/mailFolders/inbox/messages"), nil), 200, "")
}

// TestDeltaDuringFirstRound: what comes and goes while the first round is read is made good by the next one.
func TestDeltaDuringFirstRound(t *testing.T) {
	h := newHarness(t, Options{})
	h.AddSynthetic(alice, "inbox", 100, Synthetic{Seed: 1})
	have := map[string]bool{}
	link := u(alice, "/mailFolders/inbox/messages/delta?$select=id")
	for n := 0; ; n++ {
		a := h.want(h.do("GET", link, nil, "Prefer", immutablePrefer, "Prefer", "odata.maxpagesize=10"), 200, "")
		for _, r := range a.rows() {
			if r["@removed"] != nil {
				delete(have, r["id"].(string))
			} else {
				have[r["id"].(string)] = true
			}
		}
		if n < 8 {
			list := h.Messages(alice, "inbox")
			h.DeleteMessage(alice, list[n*7].ID, true)
			h.DeliverMessage(alice, mimeOf("b@x.example", alice, "new", fmt.Sprintf("<%d@x>", n)))
		}
		if link = a.str("@odata.nextLink"); link != "" {
			continue
		}
		link = a.str("@odata.deltaLink")
		if n > 20 {
			break
		}
	}
	want := h.Messages(alice, "inbox")
	if len(have) != len(want) {
		t.Errorf("%d messages, want %d", len(have), len(want))
	}
	for _, m := range want {
		if !have[m.ID] {
			t.Errorf("%s is missing", m.Subject)
		}
	}
}

func TestFolderDelta(t *testing.T) {
	h := newHarness(t, Options{})
	projects := h.AddFolder(alice, "inbox", "Projects")
	h.AddFolder(alice, "Inbox/Projects", "2026")
	rows, link, _ := h.follow(u(alice, "/mailFolders/delta"))
	names := map[string]bool{}
	for _, r := range rows {
		names[r["displayName"].(string)] = true
	}
	if !names["Projects"] || !names["2026"] || !names["Inbox"] || names["Deletions"] {
		t.Errorf("tree: %v", names)
	}
	h.RenameFolder(alice, projects, "Old projects")
	h.DeleteFolder(alice, "Inbox/Old projects/2026")
	h.DeliverMessage(alice, mimeOf("b@x.example", alice, "new", "<n@x>"))
	rows, link, _ = h.follow(link)
	renamed, removed, counted := false, false, false
	for _, r := range rows {
		renamed = renamed || r["displayName"] == "Old projects"
		counted = counted || r["displayName"] == "Inbox" && r["unreadItemCount"] == 1.0
		removed = removed || r["@removed"] != nil
	}
	if !renamed || !removed || !counted {
		t.Errorf("changes: %v", rows)
	}
	h.DeliverMessage(alice, mimeOf("b@x.example", alice, "new", "<n2@x>"))
	if rows, _, _ = h.follow(link); len(rows) != 1 {
		t.Errorf("one folder has changed: %v", rows)
	}
}
