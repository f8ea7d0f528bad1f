package graphsim

import (
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestRecoverableItems: DELETE twice puts a message where lists over the mailbox do not look, and a move brings it back.
func TestRecoverableItems(t *testing.T) {
	h := newHarness(t, Options{})
	id := h.AddMessage(alice, "inbox", mimeOf("a@x.example", alice, "one", "<1@x>"), MessageSpec{})
	all := func() int { return len(h.want(h.do("GET", u(alice, "/messages"), nil), 200, "").rows()) }
	h.want(h.do("DELETE", u(alice, "/messages/"+id), nil), 204, "")
	if all() != 1 || len(h.Messages(alice, "deleteditems")) != 1 {
		t.Error("DELETE must move to Deleted Items")
	}
	h.want(h.do("DELETE", u(alice, "/messages/"+id), nil), 204, "")
	if all() != 0 || len(h.Messages(alice, "recoverableitemsdeletions")) != 1 {
		t.Error("DELETE in Deleted Items must move to Recoverable Items")
	}
	by := h.do("GET", u(alice, "/messages?$filter="+url.QueryEscape("internetMessageId eq '<1@x>'")), nil)
	if len(by.rows()) != 0 {
		t.Errorf("found in Recoverable Items: %s", by.raw)
	}
	h.want(h.do("POST", u(alice, "/messages/"+id+"/move"), map[string]any{"destinationId": "inbox"}), 201, "")
	if all() != 1 {
		t.Error("not back")
	}
	h.want(h.do("POST", u(alice, "/messages/"+id+"/permanentDelete"), nil), 204, "")
	h.want(h.do("GET", u(alice, "/messages/"+id), nil), 404, "ErrorItemNotFound")
}

// TestClassicDelta: to a client with classic ids a message that left and came back is another one.
func TestClassicDelta(t *testing.T) {
	h := newHarness(t, Options{EmptyPageEvery: -1})
	id := h.AddMessage(alice, "inbox", mimeOf("a@x.example", alice, "one", "<1@x>"), MessageSpec{})
	rows, link, _ := h.follow(u(alice, "/mailFolders/inbox/messages/delta"))
	before := rows[0]["id"]
	h.MoveMessage(alice, id, "archive")
	h.MoveMessage(alice, id, "inbox")
	rows, _, _ = h.follow(link)
	if len(rows) != 2 || rows[0]["id"] != before || rows[0]["@removed"] == nil || rows[1]["id"] == before {
		t.Errorf("rows: %v", rows)
	}
	h.AddUser(testTenant, UserSpec{UPN: "carol@contoso.example"})
	h.want(h.do("GET", strings.Replace(link, alice, "carol@contoso.example", 1), nil), 400, "SyncStateInvalid")
}

func TestDelays(t *testing.T) {
	now := time.Unix(1800000000, 0)
	h := newHarness(t, Options{Clock: func() time.Time { return now }, SentItemsDelay: time.Minute, DeltaLifetime: time.Hour})
	h.want(h.do("POST", u(alice, "/sendMail"), b64(mimeOf(alice, bob, "s", "<9@x>"))), 202, "")
	if len(h.Messages(alice, "sentitems")) != 0 || len(h.Delivered()) != 1 {
		t.Error("the copy must not be in Sent Items yet")
	}
	_, link, _ := h.follow(u(alice, "/mailFolders/sentitems/messages/delta"))
	now = now.Add(time.Minute)
	if rows, _, _ := h.follow(link); len(rows) != 1 {
		t.Errorf("Sent Items: %v", rows)
	}
	h.tok = h.Token(testTenant, testApp)
	now = now.Add(59*time.Minute + 30*time.Second)
	h.want(h.do("GET", link, nil), 410, "SyncStateNotFound")
	now = now.Add(time.Hour)
	h.want(h.do("GET", link, nil), 401, "InvalidAuthenticationToken")
}

func TestImportMIME(t *testing.T) {
	h := newHarness(t, Options{})
	beta := h.srv.URL + "/beta" + u(alice, "/mailFolders/archive/importMime")
	raw := b64(mimeOf("x@y.example", alice, "old", "<o@x>", "X-Blanks: a  b\r\n"))
	h.want(h.do("POST", beta, raw), 403, "ErrorAccessDenied")
	h.AddApp(testTenant, testApp, "", "Mail.ReadWrite", "Mail-Advanced.ReadWrite.All")
	h.tok = h.Token(testTenant, testApp)
	a := h.want(h.do("POST", beta, raw), 201, "")
	if a.body["isDraft"] != false || a.str("receivedDateTime") != "2026-01-05T09:00:00Z" {
		t.Errorf("imported: %s", a.raw)
	}
	if v := h.do("GET", u(alice, "/messages/"+a.str("id")+"/$value"), nil); !strings.Contains(string(v.raw), "X-Blanks: a  b\r\n") {
		t.Errorf("$value: %s", v.raw)
	}
	h.want(h.do("POST", u(alice, "/mailFolders/archive/importMime"), raw), 400, "BadRequest")
}

func TestLanguageAndLookup(t *testing.T) {
	h := newHarness(t, Options{AliasLookup: true})
	h.AddUser(testTenant, UserSpec{ID: "0a0a0a0a-0000-0000-0000-000000000000", UPN: "erika@contoso.example", Aliases: []string{"e@contoso.example"}, Language: "de"})
	for _, name := range []string{"ERIKA@contoso.example", "e@contoso.example", "0A0A0A0A-0000-0000-0000-000000000000"} {
		if a := h.want(h.do("GET", u(name, "/MailFolders('Inbox')"), nil), 200, ""); a.str("displayName") != "Posteingang" {
			t.Errorf("%s: %s", name, a.raw)
		}
	}
}

// TestMemory: what nobody has looked at costs little.
func TestMemory(t *testing.T) {
	h := newHarness(t, Options{})
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	const n = 20_000
	h.AddSynthetic(alice, "inbox", n, Synthetic{Seed: 1})
	each := (heap() - before) / n
	t.Logf("%d bytes per message", each)
	if each > 600 {
		t.Errorf("%d bytes per message", each)
	}
	runtime.KeepAlive(h)
}
