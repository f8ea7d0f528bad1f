package graphsim

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestRefusals(t *testing.T) {
	h := newHarness(t, Options{})
	id := h.AddMessage(alice, "inbox", mimeOf("a@x.example", alice, "one", "<1@x>"), MessageSpec{})
	gone := h.AddMessage(alice, "inbox", mimeOf("a@x.example", alice, "gone", "<2@x>"), MessageSpec{})
	h.DeleteMessage(alice, gone, true)
	moved := h.AddMessage(alice, "inbox", mimeOf("a@x.example", alice, "moved", "<3@x>"), MessageSpec{})
	info, _ := h.Message(alice, moved)
	h.MoveMessage(alice, moved, "archive")
	h.AddUser(testTenant, UserSpec{UPN: "none@contoso.example", NoMailbox: true})
	h.AddUser(testTenant, UserSpec{UPN: "blocked@contoso.example"})
	h.BlockMailbox(testTenant, testApp, "blocked@contoso.example", true)
	h.AddFolder(alice, "", "Taken")
	h.AddSearchFolder(alice, "Found")
	mime := b64(mimeOf(alice, bob, "s", "<9@x>"))
	lf := b64([]byte("From: a@b\nTo: c@d\n\nx\n"))
	headers := func(n int, name string) map[string]any {
		var list []map[string]string
		for i := range n {
			list = append(list, map[string]string{"name": fmt.Sprint(name, i), "value": "v"})
		}
		return map[string]any{"subject": "s", "internetMessageHeaders": list}
	}
	to := []map[string]any{{"emailAddress": map[string]any{"address": bob}}}
	for _, tt := range []struct {
		method, path string
		body         any
		status       int
		code         string
		headers      []string
	}{
		{"GET", u(alice, "/messages/nonsense"), nil, 400, "ErrorInvalidIdMalformed", nil},
		{"GET", u(alice, "/messages/"+strings.ToLower(id)), nil, 400, "ErrorInvalidIdMalformed", nil},
		{"GET", u(alice, "/messages/"+gone), nil, 404, "ErrorItemNotFound", nil},
		{"GET", u(alice, "/messages/"+info.ClassicID), nil, 404, "ErrorItemNotFound", nil},
		{"GET", u(alice, "/messages/"+moved), nil, 200, "", nil},
		{"GET", u(bob, "/messages/"+id), nil, 404, "ErrorItemNotFound", nil},
		{"GET", u("nobody@contoso.example", "/messages"), nil, 404, "ErrorInvalidUser", nil},
		{"GET", u("al@contoso.example", "/messages"), nil, 404, "ErrorInvalidUser", nil},
		{"GET", u("none@contoso.example", "/messages"), nil, 404, "MailboxNotEnabledForRESTAPI", nil},
		{"GET", u("blocked@contoso.example", "/messages"), nil, 403, "ErrorAccessDenied", nil},
		{"GET", "/users/" + alice, nil, 403, "Authorization_RequestDenied", nil},
		{"GET", "/me/messages", nil, 400, "BadRequest", nil},
		{"GET", u(alice, "/mailFolders/clutter"), nil, 404, "ErrorItemNotFound", nil},
		{"GET", u(alice, "/mailFolders/whatever"), nil, 400, "ErrorInvalidIdMalformed", nil},
		{"GET", u(alice, "/mailFolders?$select=wellKnownName"), nil, 400, "RequestBroker--ParseUri", nil},
		{"GET", u(alice, "/mailFolders?$select=sizeInBytes"), nil, 400, "RequestBroker--ParseUri", nil},
		{"GET", u(alice, "/messages?$select=size"), nil, 400, "RequestBroker--ParseUri", nil},
		{"GET", u(alice, "/messages?$top=1001"), nil, 400, "RequestBroker--ParseUri", nil},
		{"GET", u(alice, "/messages?$apply=x"), nil, 400, "RequestBroker--ParseUri", nil},
		{"GET", u(alice, "/messages?$filter=isRead%20eq"), nil, 400, "RequestBroker--ParseUri", nil},
		{"GET", u(alice, "/messages?$filter=isRead%20eq%20true&$orderby=receivedDateTime"), nil, 400, "InefficientFilter", nil},
		{"GET", u(alice, "/messages?$filter=receivedDateTime%20ge%202020-01-01T00:00:00Z%20and%20isRead%20eq%20false&$orderby=receivedDateTime%20desc"), nil, 200, "", nil},
		{"GET", u(alice, "/messages?$search=%22one%22&$orderby=subject"), nil, 400, "SearchWithOrderBy", nil},
		{"GET", u(alice, "/messages?$expand=singleValueExtendedProperties"), nil, 400, "ErrorInvalidProperty", nil},
		{"POST", u(alice, "/mailFolders"), map[string]any{"displayName": "taken"}, 400, "ErrorFolderExists", nil},
		{"POST", u(alice, "/mailFolders"), map[string]any{"displayName": "Found"}, 400, "ErrorFolderExists", nil},
		{"DELETE", u(alice, "/mailFolders/inbox"), nil, 403, "ErrorDeleteDistinguishedFolder", nil},
		{"POST", u(alice, "/mailFolders/inbox/move"), map[string]any{"destinationId": "archive"}, 403, "ErrorMoveDistinguishedFolder", nil},
		{"POST", u(alice, "/mailFolders/inbox/messages"), mime, 400, "UnableToDeserializePostBody", nil},
		{"POST", u(alice, "/messages"), "!!!", 400, "ErrorMimeContentInvalidBase64String", nil},
		{"POST", u(alice, "/messages"), lf, 400, "ErrorMimeContentInvalid", nil},
		{"POST", u(alice, "/messages"), map[string]any{"subjekt": "x"}, 400, "UnableToDeserializePostBody", nil},
		{"POST", u(alice, "/messages"), map[string]any{"subject": 5}, 400, "UnableToDeserializePostBody", nil},
		{"POST", u(alice, "/messages"), `{"subject":"x"}`, 400, "BadRequest", []string{"Content-Type", ""}},
		{"POST", u(alice, "/messages"), headers(1, "Received-"), 400, "InvalidInternetMessageHeader", nil},
		{"POST", u(alice, "/messages"), headers(6, "x-a"), 400, "InvalidInternetMessageHeaderCollection", nil},
		{"POST", u(alice, "/messages"), headers(5, "X-a"), 201, "", nil},
		{"POST", u(alice, "/messages"), map[string]any{"flag": map[string]any{"flagStatus": "flagged", "dueDateTime": map[string]any{"dateTime": "2026-01-01T00:00:00", "timeZone": "UTC"}}}, 400, "ErrorInvalidRequest", nil},
		{"POST", u(alice, "/messages"), strings.Repeat("A", 4<<20+4), 413, "RequestEntityTooLarge", nil},
		{"PATCH", u(alice, "/messages/"+id), map[string]any{"subject": "x"}, 400, "ErrorInvalidPropertySet", nil},
		{"PATCH", u(alice, "/messages/"+id), map[string]any{"isRead": "yes"}, 400, "UnableToDeserializePostBody", nil},
		{"PATCH", u(alice, "/messages/"+id), map[string]any{"isRead": true}, 412, "ErrorIrresolvableConflict", []string{"If-Match", `W/"stale"`}},
		{"PATCH", u(alice, "/messages/"+id), map[string]any{"singleValueExtendedProperties": []map[string]any{{"id": "Integer 0x1081", "value": 102}}}, 400, "UnableToDeserializePostBody", nil},
		{"POST", u(alice, "/messages/"+id+"/move"), map[string]any{"destinationId": "nowhere"}, 400, "ErrorInvalidIdMalformed", nil},
		{"POST", u(alice, "/messages/"+id+"/send"), nil, 400, "ErrorInvalidOperation", nil},
		{"POST", u(alice, "/sendMail"), map[string]any{"message": map[string]any{"subject": "x"}}, 400, "ErrorInvalidRecipients", nil},
		{"POST", u(alice, "/sendMail"), map[string]any{"message": map[string]any{"toRecipients": to, "from": map[string]any{"emailAddress": map[string]any{"address": bob}}}}, 403, "ErrorSendAsDenied", nil},
		{"POST", u(alice, "/sendMail"), map[string]any{"message": map[string]any{"toRecipients": to, "from": map[string]any{"emailAddress": map[string]any{"address": "sales@contoso.example"}}}}, 202, "", nil},
		{"POST", u(alice, "/sendMail"), map[string]any{"Message": map[string]any{"toRecipients": to}, "SaveToSentItems": false}, 202, "", nil},
		{"GET", u(alice, "/messages/delta"), nil, 400, "BadRequest", nil},
		{"GET", u(alice, "/calendar"), nil, 400, "BadRequest", nil},
		{"PUT", u(alice, "/messages"), nil, 405, "Request_BadRequest", nil},
	} {
		a := h.do(tt.method, tt.path, tt.body, tt.headers...)
		if a.status != tt.status || a.code() != tt.code {
			t.Errorf("%s %.90s: %d %q, want %d %q: %.300s", tt.method, tt.path, a.status, a.code(), tt.status, tt.code, a.raw)
		}
		if a.header.Get("Request-Id") == "" || a.header.Get("Client-Request-Id") == "" {
			t.Errorf("%s %s: no request id", tt.method, tt.path)
		}
	}
	if n := len(h.Messages(alice, "sentitems")); n != 1 {
		t.Errorf("%d messages in Sent Items, want the one with saveToSentItems", n)
	}
}

func TestRoles(t *testing.T) {
	h := newHarness(t, Options{})
	h.AddApp(testTenant, "sendonly", "s", "Mail.Send")
	h.AddApp(testTenant, "none", "s")
	h.AddApp(testTenant, "rbac", "s")
	h.GrantRBAC(testTenant, "rbac", alice, "Mail.ReadWrite")
	mime := b64(mimeOf(alice, bob, "s", "<9@x>"))
	for _, tt := range []struct {
		app, method, path string
		body              any
		status            int
	}{
		{"sendonly", "POST", u(alice, "/sendMail"), mime, 202},
		{"sendonly", "GET", u(alice, "/messages"), nil, 403},
		{"none", "GET", u(alice, "/messages"), nil, 403},
		{"none", "POST", u(alice, "/sendMail"), mime, 403},
		{"rbac", "GET", u(alice, "/messages"), nil, 200},
		{"rbac", "GET", u(bob, "/messages"), nil, 403},
		{"rbac", "POST", u(alice, "/sendMail"), mime, 403},
	} {
		h.tok = h.Token(testTenant, tt.app)
		if a := h.do(tt.method, tt.path, tt.body); a.status != tt.status {
			t.Errorf("%s %s as %s: %d, want %d", tt.method, tt.path, tt.app, a.status, tt.status)
		}
	}
}

func TestIDs(t *testing.T) {
	h := newHarness(t, Options{})
	h.AddMessage(alice, "inbox", mimeOf("a@x.example", alice, "one", "<1@x>"), MessageSpec{})
	classic := h.do("GET", u(alice, "/messages"), nil).rows()[0]["id"].(string)
	immutable := h.do("GET", u(alice, "/messages"), nil, "Prefer", immutablePrefer).rows()[0]["id"].(string)
	if len(immutable) != 72 || len(classic) < 140 {
		t.Errorf("lengths %d and %d", len(immutable), len(classic))
	}
	a := h.want(h.do("POST", u(alice, "/messages/"+classic+"/move"), map[string]any{"DestinationId": "archive"}), 201, "")
	if a.str("id") == classic {
		t.Error("classic id has survived the move")
	}
	h.want(h.do("GET", u(alice, "/messages/"+classic), nil), 404, "ErrorItemNotFound")
	a = h.want(h.do("GET", u(alice, "/messages/"+immutable), nil, "Prefer", immutablePrefer), 200, "")
	if a.str("id") != immutable || a.header.Get("Preference-Applied") == "" {
		t.Errorf("immutable id: %s", a.raw)
	}
	tr := h.want(h.do("POST", u(alice, "/translateExchangeIds"), map[string]any{
		"inputIds": []string{immutable, "x"}, "sourceIdType": "restImmutableEntryId", "targetIdType": "restId",
	}), 200, "")
	if id, _ := tr.rows()[0]["targetId"].(string); len(id) < 140 || tr.rows()[1]["errorDetails"] == nil {
		t.Errorf("translated: %s", tr.raw)
	}
}

func TestDrafts(t *testing.T) {
	h := newHarness(t, Options{})
	mime := h.want(h.do("POST", u(alice, "/messages"), b64(mimeOf(alice, bob, "s", "<9@x>"))), 201, "")
	if mime.body["isDraft"] != true || mime.body["isRead"] != true || !strings.HasPrefix(mime.str("sentDateTime"), "2026-01-05T09:00:00") {
		t.Errorf("draft from MIME: %s", mime.raw)
	}
	ext := func(id, v string) map[string]any {
		return map[string]any{"singleValueExtendedProperties": []map[string]string{{"id": id, "value": v}}}
	}
	for _, body := range []map[string]any{{"isDraft": false}, ext("Integer 0x0E07", "1")} {
		if a := h.want(h.do("PATCH", u(alice, "/messages/"+mime.str("id")), body), 200, ""); a.body["isDraft"] != true {
			t.Error("a draft from MIME is one for ever")
		}
	}
	a := h.want(h.do("POST", u(alice, "/messages/"+mime.str("id")+"/copy"), map[string]any{"destinationId": "archive"}), 201, "")
	if a.body["isDraft"] != true {
		t.Error("the copy of a draft from MIME is a draft")
	}
	body := map[string]any{
		"subject": "old", "isRead": false, "internetMessageId": "<old@x>",
		"body":         map[string]any{"contentType": "html", "content": "<p>Hi &amp; bye</p>"},
		"toRecipients": []map[string]any{{"emailAddress": map[string]any{"address": bob, "name": "Bob B."}}},
		"singleValueExtendedProperties": []map[string]string{
			{"id": "Integer 0x0E07", "value": "4"}, {"id": "SystemTime 0x0E06", "value": "2020-01-02T03:04:05Z"},
			{"id": "SystemTime 0x0039", "value": "2020-01-01T00:00:00Z"}, {"id": "String 0x1042", "value": "<p@x>"},
			{"id": "String {00020386-0000-0000-C000-000000000046} Name X-Foo", "value": "bar"},
			{"id": "Integer {00062008-0000-0000-c000-000000000046} Id 0x8570", "value": "1"},
		},
	}
	a = h.want(h.do("POST", u(alice, "/mailFolders/inbox/messages"), body), 201, "")
	if a.body["isDraft"] != false || a.body["isRead"] != false || a.str("receivedDateTime") != "2020-01-02T03:04:05Z" || a.str("sentDateTime") != "2020-01-01T00:00:00Z" {
		t.Errorf("finished message: %s", a.raw)
	}
	q := url.QueryEscape("singleValueExtendedProperties($filter=id eq 'String 0x1042' or id eq 'Integer {00062008-0000-0000-C000-000000000046} Id 0x8570' or id eq 'Integer 0x0E07' or id eq 'Integer 0x1081' or id eq 'String 0x007D')")
	got := h.want(h.do("GET", u(alice, "/messages/"+a.str("id")+"?$select=subject&$expand="+q), nil), 200, "")
	list := fmt.Sprint(got.body["singleValueExtendedProperties"])
	for _, want := range []string{"String 0x1042 value:<p@x>", "Id 0x8570 value:1", "Integer 0xe07 value:4"} {
		if !strings.Contains(list, want) {
			t.Errorf("%q not in %s", want, list)
		}
	}
	if strings.Contains(list, "0x1081") || strings.Contains(list, "0x7d") {
		t.Errorf("unset properties are returned: %s", list)
	}
	filter := url.QueryEscape("singleValueExtendedProperties/Any(ep: ep/id eq 'Integer {00062008-0000-0000-c000-000000000046} Id 0x8570' and cast(ep/value, Edm.Int32) eq 1)")
	if found := h.want(h.do("GET", u(alice, "/messages?$filter="+filter), nil), 200, ""); len(found.rows()) != 1 {
		t.Errorf("filter by property: %s", found.raw)
	}
	v := string(h.do("GET", u(alice, "/messages/"+a.str("id")+"/$value"), nil).raw)
	for _, want := range []string{"multipart/alternative", "Hi & bye", "<p>Hi &amp; bye</p>", "Message-ID: <old@x>", "In-Reply-To: <p@x>", "Date: Wed, 1 Jan 2020 00:00:00 +0000", `"Bob B." <` + bob + ">"} {
		if !strings.Contains(v, want) {
			t.Errorf("$value lacks %q:\n%s", want, v)
		}
	}
	// Attachments can be added to a finished message.
	h.want(h.do("POST", u(alice, "/messages/"+a.str("id")+"/attachments"), map[string]any{
		"@odata.type": "#microsoft.graph.fileAttachment", "name": "a.txt", "contentBytes": "aGVsbG8="}), 201, "")
	if v := string(h.do("GET", u(alice, "/messages/"+a.str("id")+"/$value"), nil).raw); !strings.Contains(v, "aGVsbG8=") || !strings.Contains(v, "multipart/mixed") {
		t.Errorf("$value lacks the attachment:\n%s", v)
	}
}

func TestSendDraft(t *testing.T) {
	h := newHarness(t, Options{})
	d := h.want(h.do("POST", u(alice, "/messages"), b64(mimeOf("al@contoso.example", bob, "s", "<9@x>", "Bcc: x@y.example\r\n")), "Prefer", immutablePrefer), 201, "")
	if fmt.Sprint(d.body["bccRecipients"]) == "[]" {
		t.Errorf("Bcc of the draft is lost: %s", d.raw)
	}
	a := h.want(h.do("POST", u(alice, "/messages/"+d.str("id")+"/send"), nil), 202, "")
	if len(a.raw) != 0 {
		t.Errorf("202 with %q", a.raw)
	}
	sent, ok := h.Message(alice, d.str("id"))
	if !ok || sent.IsDraft || sent.From != alice || sent.Folder != h.Messages(alice, "sentitems")[0].Folder {
		t.Errorf("an alias goes out from the primary address, the id stays: %+v", sent)
	}
	if n := len(h.Messages(alice, "drafts")); n != 0 {
		t.Errorf("%d drafts left", n)
	}
	if len(h.Messages(bob, "inbox")) != 1 {
		t.Error("not delivered")
	}
}

func TestFilters(t *testing.T) {
	h := newHarness(t, Options{})
	h.AddMessage(alice, "inbox", mimeOf("Ann O'Hara <ann@x.example>", alice, "It's one", "<1@x>"), MessageSpec{Received: time.Unix(1e9, 0), IsRead: true, Categories: []string{"Red"}})
	h.AddMessage(alice, "inbox", mimeOf("b@x.example", alice, "two", "<2@x>"), MessageSpec{Received: time.Unix(1e9+10, 0), Flagged: true})
	h.AddMessage(alice, "archive", mimeOf("c@x.example", alice, "three", "<3@x>"), MessageSpec{Received: time.Unix(1e9+20, 0)})
	archive := h.Messages(alice, "archive")[0].Folder
	for filter, want := range map[string]string{
		"subject eq 'It''s one'":                           "It's one",
		"startswith(subject,'t')":                          "three,two",
		"contains(subject,'WO')":                           "two",
		"isRead eq false and flag/flagStatus eq 'flagged'": "two",
		"isRead eq true or subject eq 'three'":             "three,It's one",
		"not (isRead eq true)":                             "three,two",
		"categories/any(c:c eq 'Red')":                     "It's one",
		"from/emailAddress/address eq 'ann@x.example'":     "It's one",
		"parentFolderId eq '" + archive + "'":              "three",
		"internetMessageId eq '<2@x>'":                     "two",
		"internetMessageId eq '<2@x>' and isRead eq true":  "",
		"receivedDateTime gt 2001-09-09T01:46:50Z":         "three",
		"receivedDateTime ge 2001-09-09T01:46:50Z":         "three,two",
		"singleValueExtendedProperties/Any(ep: ep/id eq 'Integer 0x1081' and ep/value eq null)":           "three,two,It's one",
		"singleValueExtendedProperties/Any(ep: ep/id eq 'String 0x007D' and contains(ep/value, '<2@x>'))": "two",
	} {
		a := h.want(h.do("GET", u(alice, "/messages?$select=subject&$filter="+url.QueryEscape(filter)), nil), 200, "")
		var got []string
		for _, r := range a.rows() {
			got = append(got, r["subject"].(string))
		}
		if strings.Join(got, ",") != want {
			t.Errorf("%s: %q, want %q", filter, got, want)
		}
	}
	a := h.want(h.do("GET", u(alice, "/messages?$search=%22subject:two%22"), nil), 200, "")
	if len(a.rows()) != 1 {
		t.Errorf("search: %s", a.raw)
	}
	a = h.want(h.do("GET", u(alice, "/messages?$orderby=subject&$count=true&$top=2"), nil), 200, "")
	if a.rows()[0]["subject"] != "It's one" || a.body["@odata.count"] != 3.0 || a.str("@odata.nextLink") == "" {
		t.Errorf("ordered: %s", a.raw)
	}
	if n := h.do("GET", u(alice, "/messages/$count"), nil); string(n.raw) != "3" {
		t.Errorf("$count: %s", n.raw)
	}
}

func TestFoldersAPI(t *testing.T) {
	h := newHarness(t, Options{FolderExistsStatus: 409})
	a := h.want(h.do("GET", u(alice, "/mailfolders"), nil), 200, "")
	if len(a.rows()) > 10 {
		t.Errorf("%d rows, the default page is 10", len(a.rows()))
	}
	p := h.want(h.do("POST", u(alice, "/mailFolders"), map[string]any{"displayName": "A/B"}), 201, "")
	c := h.want(h.do("POST", u(alice, "/mailFolders('"+p.str("id")+"')/childFolders"), map[string]any{"displayName": "child"}), 201, "")
	h.want(h.do("POST", u(alice, "/mailFolders/"+p.str("id")+"/childFolders"), map[string]any{"displayName": "child"}), 409, "ErrorFolderExists")
	h.want(h.do("POST", u(alice, "/mailFolders/"+p.str("id")+"/move"), map[string]any{"destinationId": c.str("id")}), 400, "ErrorMoveCopyFailed")
	if a := h.want(h.do("PATCH", u(alice, "/mailFolders/"+c.str("id")), map[string]any{"displayName": "kid"}), 200, ""); a.str("id") != c.str("id") || a.str("displayName") != "kid" {
		t.Errorf("renamed: %s", a.raw)
	}
	if a := h.want(h.do("GET", u(alice, "/mailFolders/"+p.str("id")+"/childFolders?$filter=displayName%20eq%20'kid'"), nil), 200, ""); len(a.rows()) != 1 {
		t.Errorf("by name: %s", a.raw)
	}
	if a := h.want(h.do("POST", u(alice, "/mailFolders/"+c.str("id")+"/move"), map[string]any{"destinationId": "inbox"}), 200, ""); a.str("id") != c.str("id") {
		t.Errorf("moved: %s", a.raw)
	}
	h.AddMessage(alice, c.str("id"), mimeOf("c@x.example", alice, "in kid", "<3@x>"), MessageSpec{})
	h.want(h.do("DELETE", u(alice, "/mailFolders/"+c.str("id")), nil), 204, "")
	if a := h.want(h.do("GET", u(alice, "/mailFolders/"+c.str("id")), nil), 200, ""); a.str("parentFolderId") != h.do("GET", u(alice, "/mailFolders/deleteditems"), nil).str("id") {
		t.Errorf("deleted folder: %s", a.raw)
	}
	h.want(h.do("POST", u(alice, "/mailFolders/"+c.str("id")+"/permanentDelete"), nil), 204, "")
	h.want(h.do("GET", u(alice, "/mailFolders/"+c.str("id")), nil), 404, "ErrorItemNotFound")
	h.want(h.do("GET", u(alice, "/mailFolders/"+c.str("id")+"/messages/delta"), nil), 404, "ErrorSyncFolderNotFound")
	if a := h.want(h.do("GET", u(alice, "/mailFolders?includeHiddenFolders=true&$top=50"), nil), 200, ""); len(a.rows()) <= 9 {
		t.Errorf("hidden folders are missing: %d", len(a.rows()))
	}
}
