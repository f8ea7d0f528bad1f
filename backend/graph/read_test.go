package graph

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"postern/internal/fuzzcorpus"
)

func TestListOptions(t *testing.T) {
	for _, tt := range []struct {
		o    ListOptions
		want string
	}{
		{ListOptions{}, ""},
		{ListOptions{PageSize: 5}, ""},
		{ListOptions{Select: []string{"id", "isRead"}}, "?$select=id%2CisRead"},
		{ListOptions{Expand: []PropertyID{PropSize, PropTransportHeaders}},
			"?$expand=singleValueExtendedProperties%28%24filter%3Did%20eq%20%27Integer%200x0E08%27%20or%20id%20eq%20%27String%200x007D%27%29"},
		{ListOptions{Filter: "subject eq " + Quote("it's +1 & more")}, "?$filter=subject%20eq%20%27it%27%27s%20%2B1%20%26%20more%27"},
		{ListOptions{Search: `say "hi" \o/`, OrderBy: "a desc"}, "?$orderby=a%20desc&$search=%22say%20%5C%22hi%5C%22%20%5C%5Co%2F%22"},
	} {
		if got := tt.o.query(); got != tt.want {
			t.Errorf("%+v gives %s, want %s", tt.o, got, tt.want)
		}
	}
}

// Pages may be empty and not the last, links are followed to the letter, and options go with the first request only.
func TestPages(t *testing.T) {
	links := []string{
		"/v1.0/users('alice%40contoso.example')/mailfolders('f=')/messages?$skip=2&$select=a%2cb&x=%7e+~'",
		"/v1.0/Users/x/Messages/delta()?%24skiptoken=aB%2Fc%3d%3D==",
		"/v1.0/a%2Fb//c?$skiptoken=caf%C3%A9|[]{}^",
	}
	c, s, _ := served(t, func(n int, w http.ResponseWriter, r *http.Request, body string) {
		p := map[string]any{"value": []any{}}
		if n > 0 {
			p["value"] = []any{map[string]any{"id": fmt.Sprint("m", n)}, map[string]any{"isRead": true}}
		}
		if n < len(links) {
			p["@odata.nextLink"] = "http://" + r.Host + links[n]
		}
		json.NewEncoder(w).Encode(p)
	})
	var rows, pages int
	err := c.ListMessages(t.Context(), "f", ListOptions{Select: []string{"isRead"}, PageSize: 7}, "", func(page []Message, next string) error {
		pages++
		rows += len(page)
		if (next == "") != (pages == len(links)+1) {
			t.Errorf("page %d has next link %q", pages, next)
		}
		return nil
	})
	if err != nil || pages != 4 || rows != 3 {
		t.Fatalf("%d pages, %d rows, %v", pages, rows, err)
	}
	for i, r := range s.seen()[1:] {
		if got := strings.TrimPrefix(r.URI, c.endpoint.Load().root); got != links[i] {
			t.Errorf("followed %s\nas       %s", links[i], got)
		}
		if !strings.Contains(r.Header.Get("Prefer"), "odata.maxpagesize=7") {
			t.Errorf("page %d without its size", i)
		}
	}
}

// No host but the configured one gets the token, whatever a link says. Behind a gateway Graph's own links name another host:
// those are followed on the gateway, as they stand.
func TestForeignLinks(t *testing.T) {
	nothing := func([]Message, string) error { return nil }
	client := func(link string) (*Client, *service) {
		c, s, _ := bubbled(func(n int, w http.ResponseWriter, r *http.Request, body string) {
			j, _ := json.Marshal(map[string]any{"value": []any{}, "@odata.nextLink": link})
			if n > 0 {
				j, _ = json.Marshal(map[string]any{"value": []any{}, "@odata.deltaLink": link})
			}
			reply(w, 200, string(j))
		})
		return c, s
	}
	for _, link := range []string{"http://evil.test/x", "https://graph.test/x", "http://graph.test:8080/x", "http://graph.test@evil.test/v1.0/x", "//graph.test/v1.0/x", "/v1.0/x", "http://user:pw@graph.test/", "ftp://graph.test/v1.0/x", "http://evil.test", "::"} {
		c, s := client(link)
		if err := c.ListMessages(t.Context(), "f", ListOptions{}, "", nothing); err == nil || ResyncRequired(err) || len(s.seen()) != 1 {
			t.Errorf("%s: %v, %d requests", link, err, len(s.seen()))
		}
	}
	const rest = "/v1.0/users('a%40b')/mailfolders('x%3D')/messages/delta?%24skiptoken=a%2Fb='(="
	for _, host := range []string{"https://graph.microsoft.com", "HTTP://localhost:8080", "https://graph.test", "http://GRAPH.test:80"} {
		c, s := client(host + rest)
		link, err := c.MessageDelta(t.Context(), "f", ListOptions{}, "", nothing)
		if seen := s.seen(); err != nil || len(seen) != 2 || seen[1].URI != rest {
			t.Fatalf("%s: %v, requests %+v", host, err, seen)
		}
		if _, err := c.MessageDelta(t.Context(), "f", ListOptions{}, link, nothing); err != nil || s.seen()[2].URI != rest {
			t.Errorf("%s: %v, asked for %q", host, err, s.seen()[2].URI)
		}
		if err := c.ListMessages(t.Context(), "f", ListOptions{}, "", nothing); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	// One that was kept is void: the address of Graph in the configuration has changed.
	for _, link := range []string{"http://evil.test" + rest, "https://graph.test" + rest, "http://graph.test:8080" + rest, "::"} {
		c, s := client(link)
		if _, err := c.MessageDelta(t.Context(), "f", ListOptions{}, link, nothing); err == nil || !ResyncRequired(err) || len(s.seen()) != 0 {
			t.Errorf("%s: %v, %d requests", link, err, len(s.seen()))
		}
		if err := c.ListMessages(t.Context(), "f", ListOptions{}, link, nothing); err == nil || !ResyncRequired(err) || len(s.seen()) != 0 {
			t.Errorf("%s: %v, %d requests", link, err, len(s.seen()))
		}
	}
	c := New(Options{BaseURL: "https://Graph.test", User: "u", Tokens: new(tokens)})
	if _, err := c.link("HTTPS://graph.TEST:443/x"); err != nil {
		t.Errorf("the same host: %v", err)
	}
}

// An answer that is no list must not look like an empty folder.
func TestNoList(t *testing.T) {
	for _, body := range []string{`{}`, `{"value":null}`, `null`, `[]`, `"x"`, ``, `{"value":[`, `<html>`, `{"value":[],"@odata.nextLink":"http://graph.test/v1.0/users/alice%40contoso.example/messages"}`} {
		bubble(t, func(t *testing.T) {
			c, _, _ := bubbled(func(n int, w http.ResponseWriter, r *http.Request, _ string) { reply(w, 200, body) })
			if err := c.ListMessages(t.Context(), "", ListOptions{}, "", func([]Message, string) error { return nil }); err == nil || !IsTemporary(err) || Unclear(err) {
				t.Errorf("%s: %v", body, err)
			}
		})
	}
}

func TestYieldEnds(t *testing.T) {
	stop := errors.New("enough")
	c, s, _ := bubbled(func(n int, w http.ResponseWriter, r *http.Request, _ string) {
		reply(w, 200, `{"value":[],"@odata.nextLink":"http://graph.test/v1.0/next`+fmt.Sprint(n)+`"}`)
	})
	if err := c.ListMessages(t.Context(), "", ListOptions{}, "", func([]Message, string) error { return stop }); err != stop || len(s.seen()) != 1 {
		t.Errorf("%v", err)
	}
	if _, err := c.MessageDelta(t.Context(), "f", ListOptions{}, "", func([]Message, string) error { return stop }); err != stop || len(s.seen()) != 2 {
		t.Errorf("%v", err)
	}
}

func TestDelta(t *testing.T) {
	const root = "http://graph.test/v1.0/users('u')/mailFolders('f')/messages/delta"
	c, s, _ := bubbled(func(n int, w http.ResponseWriter, r *http.Request, _ string) {
		switch n {
		case 0:
			reply(w, 200, `{"value":[],"@odata.nextLink":"`+root+`?$skiptoken=1"}`)
		case 1:
			reply(w, 200, `{"value":[{"@odata.etag":"W/\"x\"","id":"a","isRead":true},{"id":"b","@removed":{"reason":"changed"}},
				{"id":"c","@removed":{}},{"id":"a","flag":{"flagStatus":"flagged"},"categories":[]}],"@odata.deltaLink":"`+root+`?$deltatoken=2"}`)
		}
	})
	var rows []Message
	link, err := c.MessageDelta(t.Context(), "f", ListOptions{Select: []string{"isRead", "flag"}}, "", func(page []Message, next string) error {
		rows = append(rows, page...)
		return nil
	})
	if err != nil || link != root+"?$deltatoken=2" || len(rows) != 4 {
		t.Fatalf("%q %v %v", link, rows, err)
	}
	if rows[1].Removed != "changed" || rows[2].Removed != "deleted" || rows[0].Removed != "" || rows[0].Flag != nil || rows[0].ETag == "" {
		t.Errorf("rows %+v", rows)
	}
	m := rows[0]
	m.Merge(rows[3])
	if !*m.IsRead || *m.Flag != FlagFlagged || m.Categories == nil || len(*m.Categories) != 0 {
		t.Errorf("merged %+v", m)
	}
	if got := s.seen()[0].URI; got != "/v1.0/users/alice%40contoso.example/mailFolders/f/messages/delta?$select=isRead%2Cflag" {
		t.Errorf("first request %s", got)
	}
	if got := s.seen()[1].URI; got != "/v1.0/users('u')/mailFolders('f')/messages/delta?$skiptoken=1" {
		t.Errorf("second request %s", got)
	}
}

func TestDeltaRefusals(t *testing.T) {
	nothing := func([]Message, string) error { return nil }
	c, s, _ := bubbled(nil)
	if _, err := c.MessageDelta(t.Context(), "f", ListOptions{Expand: []PropertyID{PropSize}}, "", nothing); !errors.Is(err, errDeltaExpand) || len(s.seen()) != 0 {
		t.Errorf("$expand: %v", err)
	}
	for _, body := range []string{`{"value":[]}`, `{"value":[],"@odata.deltaLink":"https://evil.test/"}`} {
		bubble(t, func(t *testing.T) {
			c, _, _ := bubbled(func(n int, w http.ResponseWriter, r *http.Request, _ string) { reply(w, 200, body) })
			yielded := false
			if link, err := c.MessageDelta(t.Context(), "f", ListOptions{}, "", func([]Message, string) error { yielded = true; return nil }); err == nil || link != "" || yielded {
				t.Errorf("%s: %q %v, rows given %v", body, link, err, yielded)
			}
		})
	}
	for _, tt := range []struct {
		status              int
		code                string
		resync, gone, quota bool
	}{
		{410, "", true, false, false},
		{410, "SyncStateNotFound", true, false, false},
		{400, "syncstatenotfound", true, false, false},
		{404, "SyncStateInvalid", true, false, false},
		{400, "resyncRequired", true, false, false},
		{404, "ErrorSyncFolderNotFound", false, true, false},
		{507, "ErrorQuotaExceeded", false, false, true},
		{403, "ErrorQuotaExceeded", false, false, true},
		{404, "ErrorItemNotFound", false, false, false},
		{503, "", false, false, false},
	} {
		bubble(t, func(t *testing.T) {
			c, _, _ := bubbled(func(n int, w http.ResponseWriter, r *http.Request, _ string) { refuse(w, tt.status, tt.code) })
			_, err := c.MessageDelta(t.Context(), "f", ListOptions{}, "http://graph.test/x", nothing)
			if ResyncRequired(err) != tt.resync || IsFolderGone(err) != tt.gone || IsQuota(err) != tt.quota {
				t.Errorf("%d %s: resync %v, folder gone %v, quota %v", tt.status, tt.code, ResyncRequired(err), IsFolderGone(err), IsQuota(err))
			}
		})
	}
}

func TestMessageRow(t *testing.T) {
	var m Message
	err := json.Unmarshal([]byte(`{"@odata.type":"#microsoft.graph.eventMessage","id":"x","changeKey":"k","receivedDateTime":"2026-01-01T00:00:00Z",
		"subject":null,"from":{"emailAddress":{"name":"A","address":"a@b"}},"toRecipients":[{"emailAddress":{"address":"c@d"}}],"flag":{},
		"singleValueExtendedProperties":[{"id":"Integer 0xe08","value":"12"},{"id":"String 0x7d","value":"h"},{"id":"odd","value":"x"},
		{"id":"String {00020386-0000-0000-C000-000000000046} Name x-foo","value":"v"}]}`), &m)
	if err != nil {
		t.Fatal(err)
	}
	if m.Subject != nil || m.Flag != nil || *m.Received != time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) || *m.From != (Recipient{"A", "a@b"}) || (*m.To)[0].Address != "c@d" {
		t.Errorf("%+v", m)
	}
	// Another case than was asked for is no other property.
	for id, want := range map[PropertyID]string{PropSize: "12", PropTransportHeaders: "h", InternetHeader("X-Foo"): "v", InternetHeader("x-FOO"): "v", PropFlags: ""} {
		if got := m.Property(id); got != want || m.HasProperty(id) != (want != "") {
			t.Errorf("%s = %q, want %q", id, got, want)
		}
	}
}

func TestPropertyIDs(t *testing.T) {
	for in, want := range map[string]string{
		"Integer 0x0E08": "Integer 0x0E08", "Integer 0xe08": "Integer 0x0E08", "integer 3592": "Integer 0x0E08", "Integer 0x36": "Integer 0x0036",
		" SystemTime  0x0E06 ": "SystemTime 0x0E06", "StringArray 0x1": "StringArray 0x0001",
		"Integer {00062008-0000-0000-C000-000000000046} Id 0x8570":     "Integer {00062008-0000-0000-c000-000000000046} Id 0x8570",
		"Integer 00062008-0000-0000-C000-000000000046 ID 34160":        "Integer {00062008-0000-0000-c000-000000000046} Id 0x8570",
		"String {00020386-0000-0000-C000-000000000046} Name x-MS Name": "String {00020386-0000-0000-c000-000000000046} Name x-MS Name",
		"":                      "",
		"Integer":               "",
		"Integer x":             "",
		"Number 0x1":            "",
		"Integer 0x100000000":   "",
		"Integer {1} Id 0x8570": "",
		"Integer {00062008-0000-0000-C000-000000000046} Id":     "",
		"Integer {00062008-0000-0000-C000-000000000046} Tag 1":  "",
		"Integer {00062008-0000-0000-C000-00000000004g} Id 0x1": "",
	} {
		got, err := ParsePropertyID(in)
		if (err != nil) != (want == "") || err == nil && got.String() != want {
			t.Errorf("ParsePropertyID(%q) = %v, %v, want %q", in, got, err, want)
		}
	}
}

func FuzzPropertyID(f *testing.F) {
	f.Add("Integer 0x0E08")
	f.Add("String {00020386-0000-0000-C000-000000000046} Name X")
	f.Add("integer {00062008-0000-0000-c000-000000000046} id 0x8570")
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParsePropertyID(s)
		if err != nil {
			return
		}
		if again, err := ParsePropertyID(id.String()); err != nil || again != id {
			t.Errorf("%q is %+v, then %+v, %v", s, id, again, err)
		}
	})
}

func FuzzDeltaPage(f *testing.F) {
	f.Add(`{"value":[{"id":"a","@removed":{"reason":"deleted"}}],"@odata.deltaLink":"http://graph.test/d"}`)
	f.Add(`{"value":[{"id":"a","singleValueExtendedProperties":[{"id":"Integer 0xe08","value":"1"}],"flag":null}],"@odata.nextLink":"x"}`)
	f.Add(`{"value":[1,null,{}]}`)
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, body string) {
		c, _, _ := bubbled(func(n int, w http.ResponseWriter, r *http.Request, _ string) {
			if n > 0 {
				refuse(w, 400, "enough")
				return
			}
			reply(w, 200, body)
		})
		c.err = nil
		link, err := c.delta1(t, func(rows []Message) {
			for i, m := range rows {
				if m.ID == "" {
					t.Error("row without id")
				}
				rows[0].Merge(rows[i])
			}
		})
		if (link == "") == (err == nil) {
			t.Errorf("link %q, %v", link, err)
		}
		if u, perr := url.Parse(link); err == nil && (perr != nil || !strings.EqualFold(u.Host, "graph.test")) {
			t.Errorf("link %q", link)
		}
	})
}

// delta1 runs a round without the waits of repeats.
func (c *Client) delta1(t *testing.T, rows func([]Message)) (string, error) {
	r := call{op: "read changes", method: http.MethodGet, url: c.address("/mailFolders/f/messages/delta"), repeat: repeatRefused}
	return delta(t.Context(), c, r, "", func(page []messageJSON, _ string) error { rows(messages(page)); return nil })
}

func TestErrors(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		status     int
		want       Error
	}{
		{"usual", `{"error":{"code":"ErrorItemNotFound","message":"gone","innerError":{"request-id":"r","client-request-id":"c"}}}`, 404,
			Error{Status: 404, Code: "ErrorItemNotFound", Message: "gone", RequestID: "r", ClientRequestID: "c"}},
		{"other spelling", `{"error":{"code":"itemNotFound","message":"","innererror":{"request-id":"r"}}}`, 404, Error{Status: 404, Code: "itemNotFound", RequestID: "r"}},
		{"empty", ``, 503, Error{Status: 503}},
		{"html", `<html>`, 502, Error{Status: 502}},
		{"text", `{"error":"invalid_request"}`, 400, Error{Status: 400, Code: "invalid_request"}},
		{"array", `[1]`, 400, Error{Status: 400}},
		{"numbers", `{"error":{"code":5}}`, 400, Error{Status: 400}},
		{"control characters", `{"error":{"code":"x","message":"a\r\nb"}}`, 400, Error{Status: 400, Code: "x", Message: "a  b"}},
	} {
		got := newError("", tt.status, http.Header{}, []byte(tt.body))
		if *got != tt.want {
			t.Errorf("%s: %+v", tt.name, *got)
		}
	}
	e := &Error{Status: 404, Code: "itemNotFound"}
	for code, want := range map[string]bool{"ErrorItemNotFound": true, "ITEMNOTFOUND": true, "ItemNotFound": true, "Error": false, "": false, "ErrorFolderNotFound": false} {
		if e.HasCode(code) != want {
			t.Errorf("HasCode(%q) = %v", code, !want)
		}
	}
	if (&Error{}).HasCode("") {
		t.Error("an error without a code has one")
	}
}

func TestErrorKinds(t *testing.T) {
	for _, tt := range []struct {
		status int
		code   string
		is     func(error) bool
		want   bool
	}{
		{404, "ErrorItemNotFound", IsNotFound, true}, {404, "", IsNotFound, true}, {404, "itemNotFound", IsNotFound, true},
		{404, "MailboxNotEnabledForRESTAPI", IsNotFound, false}, {404, "MailboxNotEnabledForRESTAPI", IsNoMailbox, true},
		{404, "ResourceNotFound", IsNoMailbox, true}, {404, "ErrorInvalidUser", IsNoMailbox, true}, {404, "Request_ResourceNotFound", IsNoMailbox, true},
		{403, "ErrorAccessDenied", IsDenied, true}, {403, "ErrorQuotaExceeded", IsDenied, false}, {403, "ErrorSendAsDenied", IsDenied, true},
		{400, "ErrorFolderExists", IsFolderExists, true}, {409, "FolderExists", IsFolderExists, true},
		{413, "", IsTooLarge, true}, {400, "ErrorMessageSizeExceeded", IsTooLarge, true},
		{429, "", IsThrottled, true}, {509, "", IsThrottled, true}, {429, "ErrorSubmissionQuotaExceeded", IsThrottled, false},
		{429, "ErrorSubmissionQuotaExceeded", IsSendingQuota, true}, {500, "ErrorCorruptData", IsTemporary, false},
		{500, "", IsTemporary, true}, {501, "", IsTemporary, false}, {400, "", IsTemporary, false},
	} {
		if got := tt.is(fmt.Errorf("x: %w", &Error{Status: tt.status, Code: tt.code})); got != tt.want {
			t.Errorf("%d %s: %v", tt.status, tt.code, got)
		}
	}
	for _, is := range []func(error) bool{IsNotFound, IsNoMailbox, IsDenied, IsFolderExists, IsTooLarge, IsThrottled, IsTemporary, Unclear, ResyncRequired, IsQuota} {
		if is(nil) || is(io.EOF) {
			t.Error("a foreign error has a kind")
		}
	}
}

func FuzzErrorBody(f *testing.F) {
	f.Add(404, []byte(`{"error":{"code":"x","message":"y","innerError":{"request-id":"r"}}}`))
	f.Add(400, []byte(`{"error":{"innerError":[]}}`))
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		e := newError("op", status, http.Header{}, body)
		if e.Status != status || len(e.Error()) > 1000 || strings.ContainsAny(e.Error(), "\r\n") {
			t.Errorf("%q", e.Error())
		}
	})
}

func TestFolderRows(t *testing.T) {
	var f []Folder
	err := json.Unmarshal([]byte(`[{"@odata.type":"#microsoft.graph.mailSearchFolder","id":"s","displayName":"S"},
		{"id":"f","displayName":"a/b","parentFolderId":"p","childFolderCount":1,"totalItemCount":2,"unreadItemCount":3,"isHidden":true},
		{"id":"g","@removed":{"reason":"deleted"}},{"id":"h","totalItemCount":5}]`), &f)
	if err != nil || !f[0].Search() || f[1].Search() || f[2].Removed != "deleted" || f[2].Partial || !f[3].Partial || f[1].Partial {
		t.Errorf("%+v %v", f, err)
	}
	if f[1] != (Folder{ID: "f", DisplayName: "a/b", ParentFolderID: "p", ChildFolderCount: 1, TotalItemCount: 2, UnreadItemCount: 3, IsHidden: true}) {
		t.Errorf("%+v", f[1])
	}
}

const mail = "Subject: x\r\n\r\nbody\r\n"

func TestMIME(t *testing.T) {
	for _, tt := range []struct {
		name, answer string
		temporary    bool
		want         string // empty: an error
		requests     int
	}{
		{"whole", "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 20\r\n\r\n" + mail, false, mail, 1},
		{"until the end", "HTTP/1.1 200 OK\r\nContent-Type: message/rfc822\r\nConnection: close\r\n\r\n" + mail, false, mail, 1},
		{"chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n" + mail + "\r\n0\r\n\r\n", false, mail, 1},
		{"cut off", "HTTP/1.1 200 OK\r\nContent-Length: 25\r\n\r\n" + mail, true, "", 1},
		{"cut off chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n" + mail + "\r\n", true, "", 1},
		{"404", "HTTP/1.1 404 Not Found\r\nContent-Length: 41\r\n\r\n" + `{"error":{"code":"ErrorItemNotFound","m":1}}`[:41], false, "", 1},
		{"an error under 200", "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", true, "", 1},
		{"206", "HTTP/1.1 206 Partial Content\r\nContent-Length: 20\r\n\r\n" + mail, false, "", 1},
		{"204", "HTTP/1.1 204 No Content\r\n\r\n", false, "", 1},
		{"corrupt for good", "HTTP/1.1 500 X\r\nContent-Length: 37\r\n\r\n" + `{"error":{"code":"ErrorCorruptData"}}`, false, "", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := 0
			c := New(Options{BaseURL: rawServer(t, func(string) string { n++; return tt.answer }), User: "u", Tokens: new(tokens)})
			var buf bytes.Buffer
			got, err := c.MIME(t.Context(), "m", &buf)
			if tt.want != "" {
				if err != nil || buf.String() != tt.want || got != int64(len(tt.want)) {
					t.Errorf("%q, %d, %v", buf.String(), got, err)
				}
				return
			}
			if err == nil || IsTemporary(err) != tt.temporary || n != tt.requests || Unclear(err) {
				t.Errorf("%v, %d requests", err, n)
			}
			if !strings.HasPrefix(tt.name, "cut") && buf.Len() > 0 {
				t.Errorf("handed out %q", buf.String())
			}
		})
	}
}

// A failing writer is the caller's own trouble: its error comes back, and nothing is asked again.
func TestMIMEWriterFails(t *testing.T) {
	full := errors.New("disk full")
	c, s, _ := served(t, func(n int, w http.ResponseWriter, r *http.Request, _ string) { io.WriteString(w, mail) })
	_, err := c.MIME(t.Context(), "m", iotestWriter{full})
	if !errors.Is(err, full) || IsTemporary(err) || len(s.seen()) != 1 {
		t.Errorf("%v, %d requests", err, len(s.seen()))
	}
}

type iotestWriter struct{ err error }

func (w iotestWriter) Write([]byte) (int, error) { return 0, w.err }

// A text that is small on the way and endless here is given up, and not begun again.
func TestMIMEBomb(t *testing.T) {
	defer func(was int64) { maxMIME = was }(maxMIME)
	maxMIME = 10_000_000
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	for range 20 {
		z.Write(make([]byte, 1_000_000))
	}
	z.Close()
	c, s, _ := served(t, func(n int, w http.ResponseWriter, r *http.Request, _ string) {
		if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			t.Error("compression is not asked for, so this tries nothing")
		}
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Content-Type", "text/plain")
		w.Write(zipped.Bytes())
	})
	var got counter
	_, err := c.MIME(t.Context(), "m", &got)
	if err == nil || IsTemporary(err) || got > 10_000_001 || len(s.seen()) != 1 {
		t.Errorf("%v after %d bytes and %d requests", err, got, len(s.seen()))
	}
}

// counter counts what is written to it.
type counter int

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }

// An empty 200 is asked again before it is believed, and then still an error.
func TestMIMEEmpty(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, s, _ := bubbled(func(n int, w http.ResponseWriter, r *http.Request, _ string) {})
		if _, err := c.MIME(t.Context(), "m", io.Discard); err == nil || len(s.seen()) != maxTransient {
			t.Errorf("%v, %d requests", err, len(s.seen()))
		}
	})
}

// stalls sends a header and a part of the body, and then nothing.
type stalls struct{}

func (stalls) RoundTrip(r *http.Request) (*http.Response, error) {
	pr, pw := io.Pipe()
	go func() {
		io.WriteString(pw, mail)
		time.Sleep(50 * time.Second) // slow is not stalled
		io.WriteString(pw, mail)
		<-r.Context().Done()
		pw.CloseWithError(r.Context().Err())
	}()
	return &http.Response{StatusCode: 200, Header: http.Header{}, Body: pr, ContentLength: -1, Request: r}, nil
}

func TestMIMEStalls(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := New(Options{BaseURL: testHost, User: "u", Tokens: new(tokens), HTTPClient: &http.Client{Transport: stalls{}}})
		began := time.Now()
		n, err := c.MIME(t.Context(), "m", io.Discard)
		if !errors.Is(err, errNoProgress) || n != 40 || time.Since(began) != 50*time.Second+DefaultTimeout {
			t.Errorf("%d bytes after %v: %v", n, time.Since(began), err)
		}
	})
}

// A consumer that takes its time is not the network's fault.
func TestSlowReader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, _, _ := bubbled(func(n int, w http.ResponseWriter, r *http.Request, _ string) { io.WriteString(w, mail) })
		_, err := c.MIME(t.Context(), "m", slowWriter{})
		if err != nil {
			t.Error(err)
		}
	})
}

type slowWriter struct{}

func (slowWriter) Write(p []byte) (int, error) { time.Sleep(10 * time.Minute); return len(p), nil }

func TestBase64Reader(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4, 12287, 12288, 12289, 100_000} {
		data := bytes.Repeat([]byte{0, 255, 'x'}, n/3+1)[:n]
		r := newBase64Reader(io.NopCloser(iotest.HalfReader(bytes.NewReader(data))), int64(n))
		if err := iotest.TestReader(r, []byte(encoded(data))); err != nil {
			t.Errorf("%d: %v", n, err)
		}
		if EncodedSize(int64(n)) != int64(len(encoded(data))) {
			t.Errorf("EncodedSize(%d) = %d", n, EncodedSize(int64(n)))
		}
		for _, wrong := range []int64{int64(n) - 1, int64(n) + 1} {
			got, err := io.ReadAll(newBase64Reader(io.NopCloser(bytes.NewReader(data)), wrong))
			if wrong > 0 && (!errors.Is(err, errSize) || int64(len(got)) >= EncodedSize(wrong)) {
				t.Errorf("%d bytes said to be %d: %v", n, wrong, err)
			}
		}
	}
}

// FuzzLink follows whatever is said to be a next or delta link: the token goes to our host alone, and the request line is one line.
func FuzzLink(f *testing.F) {
	for _, s := range []string{"http://graph.test/v1.0/users/x/messages?$skip=10", "http://graph.test:80/v1.0/x?$deltatoken=a%2Fb", "http://graph.test@evil.example/", "http://GRAPH.test/a b", "//graph.test/x",
		"http://graph.test\\@evil.example/", "http://graph.test/\r\nHost: evil", "http://graph.test", "http://graph.test?x y", "http://graph.test#x"} {
		f.Add(s)
	}
	c, _, _ := bubbled(func(n int, w http.ResponseWriter, r *http.Request, _ string) {})
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, s string) {
		link, err := c.link(s)
		if err != nil {
			return
		}
		u, err := url.Parse(link)
		if err != nil {
			t.Fatal(err)
		}
		keepVerbatim(u, link)
		req, err := http.NewRequestWithContext(t.Context(), "GET", link, nil)
		if err != nil {
			return
		}
		req.URL = u
		var b strings.Builder
		if err := req.Write(&b); err != nil {
			return
		}
		lines := strings.Split(b.String(), "\r\n")
		if strings.Count(lines[0], " ") != 2 || !strings.HasSuffix(lines[0], " HTTP/1.1") || !strings.EqualFold(strings.TrimSuffix(lines[1], ":80"), "Host: graph.test") {
			t.Errorf("%q becomes %q", s, lines[:2])
		}
	})
}

// One odd value in one row costs that value, not the list.
func TestOddValues(t *testing.T) {
	c, _, _ := served(t, func(_ int, w http.ResponseWriter, r *http.Request, body string) {
		reply(w, 200, `{"value":[
			{"id":"a","receivedDateTime":"1-01-01T00:00:00Z","sentDateTime":null,"isRead":true,"from":{"emailAddress":"x"},"flag":"flagged","categories":"none"},
			{"id":"b","receivedDateTime":"2026-03-04T05:06:07.1234567","isRead":"yes","from":{"emailAddress":null},"toRecipients":[{}]},
			null,
			{"id":"c","receivedDateTime":"2026-03-04T05:06:07+01:00","isRead":false,"singleValueExtendedProperties":[{"id":"Integer 0xe08","value":12},{"id":"Integer 0x1081","value":"102"}]}]}`)
	})
	var got []Message
	err := c.ListMessages(t.Context(), "f", ListOptions{}, "", func(page []Message, _ string) error {
		got = append(got, page...)
		return nil
	})
	if err != nil || len(got) != 3 {
		t.Fatalf("%d rows, %v", len(got), err)
	}
	a, b, m := got[0], got[1], got[2]
	if a.ID != "a" || a.Received != nil || a.Sent != nil || a.IsRead == nil || !*a.IsRead {
		t.Errorf("first row is %+v", a)
	}
	if b.Received == nil || !b.Received.Equal(time.Date(2026, 3, 4, 5, 6, 7, 123456700, time.UTC)) || b.To == nil || len(*b.To) != 1 {
		t.Errorf("second row is %+v", b)
	}
	if m.Received == nil || !m.Received.Equal(time.Date(2026, 3, 4, 4, 6, 7, 0, time.UTC)) || m.IsRead == nil || *m.IsRead || m.Property(PropLastVerb) != "102" {
		t.Errorf("third row is %+v", m)
	}
}

func TestVoidLinks(t *testing.T) {
	for _, tt := range []struct {
		status          int
		body            string
		resync, refused bool
	}{
		{410, ``, true, true},
		{400, `{"error":{"code":"SYNCSTATENOTFOUND"}}`, true, true},
		{404, `{"error":{"code":"ErrorSyncStateInvalid"}}`, true, true},
		{400, `{"error":{"code":"BadRequest","innerError":{"code":"resyncRequired"}}}`, true, true},
		{400, `{"error":{"code":"BadRequest","message":"Badly formed token."}}`, false, true},
		{404, `{"error":{"code":"ErrorItemNotFound"}}`, false, true},
		{404, `{"error":{"code":"ErrorSyncFolderNotFound"}}`, false, false},
		{404, `{"error":{"code":"MailboxNotEnabledForRESTAPI"}}`, false, false},
		{403, `{"error":{"code":"ErrorAccessDenied"}}`, false, false},
		{503, `{"error":{"code":"ResyncRequired"}}`, false, false},
	} {
		err := error(newError("read changes", tt.status, nil, []byte(tt.body)))
		if ResyncRequired(err) != tt.resync || LinkRefused(err) != tt.refused {
			t.Errorf("%d %s: resync %v, refused %v", tt.status, tt.body, ResyncRequired(err), LinkRefused(err))
		}
	}
}
