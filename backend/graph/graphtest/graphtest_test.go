package graphtest

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
)

// request builds one that has everything the documents ask for.
func request(method, target, contentType, body string) *http.Request {
	var r *http.Request
	if body == "" {
		r, _ = http.NewRequest(method, "https://graph.microsoft.com"+target, nil)
	} else {
		r, _ = http.NewRequest(method, "https://graph.microsoft.com"+target, strings.NewReader(body))
		r.Header.Set("Content-Type", contentType)
	}
	r.Header.Set("Authorization", "Bearer x")
	r.Header.Set("Prefer", `IdType="ImmutableId"`)
	r.Header.Set("client-request-id", "1")
	return r
}

func TestCheck(t *testing.T) {
	d, err := load()
	if err != nil {
		t.Fatal(err)
	}
	if d == nil {
		t.Skipf("%s is not here", File)
	}
	mime := base64.StdEncoding.EncodeToString([]byte("A: b\r\n\r\n"))
	bare := base64.StdEncoding.EncodeToString([]byte("A: b\n"))
	const js, txt = "application/json", "text/plain"
	for _, tt := range []struct {
		method, target, contentType, body string
		want                              string // a part of the complaint; empty for none
	}{
		{"GET", "/v1.0/users/u/mailFolders/inbox", "", "", ""},
		{"GET", "/v1.0/users/u/mailFolders/inbox/messages?$select=isRead,flag&$expand=x", "", "", ""},
		{"GET", "/v1.0/users/u/mailFolders/inbox/messages?$select=isred", "", "", "unknown isred"},
		{"GET", "/v1.0/users/u/mailFolders/inbox/messages?select=id", "", "", "unknown option"},
		{"GET", "/v1.0/users/u/mailFolders?$select=wellKnownName", "", "", "unknown wellKnownName"},
		{"GET", "/v1.0/users('u')/mailfolders('x=')/messages/delta()?$skiptoken=1", "", "", ""},
		{"GET", "/v1.0/users/u/mailFolders/inbox/messages/delta?$expand=x", "", "", "no $expand"},
		{"GET", "/v1.0/users/u/mailbox", "", "", "no such path"},
		{"GET", "/v1.0/users/u/messages//x", "", "", "empty"},
		{"PUT", "/v1.0/users/u/messages", js, "{}", "no method"},
		{"GET", "/v1.0/users/u/messages/m/$value", "", "", ""},
		{"GET", "/beta/users/u/messages/m", "", "", "beta"},
		{"POST", "/beta/users/u/mailFolders/f/importMime", txt, mime, ""},
		{"POST", "/v1.0/users/u/messages/m/move", js, `{"destinationId":"x"}`, ""},
		{"POST", "/v1.0/users/u/messages/m/move", js, `{"DestinationId":"x"}`, ""},
		{"POST", "/v1.0/users/u/messages/m/move", js, `{"destination":"x"}`, "no property"},
		{"POST", "/v1.0/users/u/messages/m/move", "", "", "needs a body"},
		{"POST", "/v1.0/users/u/messages/m/send", "", "", ""},
		{"POST", "/v1.0/users/u/messages/m/send", js, "{}", "takes no body"},
		{"PATCH", "/v1.0/users/u/messages/m", js, `{"isRead":true,"flag":{"flagStatus":"flagged"},"categories":["x"]}`, ""},
		{"PATCH", "/v1.0/users/u/messages/m", js, `{"isRead":"true"}`, "must be a boolean"},
		{"PATCH", "/v1.0/users/u/messages/m", js, `{"flag":{"flagStatus":"red"}}`, "one of"},
		{"PATCH", "/v1.0/users/u/messages/m", js, `{"IsRead":true}`, "no property"},
		{"PATCH", "/v1.0/users/u/messages/m", js, `{"categories":null}`, "null"},
		{"PATCH", "/v1.0/users/u/messages/m", txt, `x`, "MIME is taken"},
		{"POST", "/v1.0/users/u/messages", js, `{"singleValueExtendedProperties":[{"id":"Integer 0x0E07","value":"4"}]}`, ""},
		{"POST", "/v1.0/users/u/messages", js, `{"singleValueExtendedProperties":[{"id":"Integer 0x0E07","value":4}]}`, "must be a string"},
		{"POST", "/v1.0/users/u/messages", js, `{"attachments":[{"@odata.type":"#microsoft.graph.fileAttachment","name":"x","contentBytes":"aGk="}]}`, ""},
		{"POST", "/v1.0/users/u/messages", js, `{"attachments":[{"@odata.type":"#microsoft.graph.fileAttachment","file":"x"}]}`, "no property file"},
		{"POST", "/v1.0/users/u/messages", txt, mime, ""},
		{"POST", "/v1.0/users/u/mailFolders/f/messages", txt, mime, "MIME is taken"},
		{"POST", "/v1.0/users/u/sendMail", txt, mime, ""},
		{"POST", "/v1.0/users/u/sendMail", txt, bare, "bare LF"},
		{"POST", "/v1.0/users/u/sendMail", txt, "A: b", "not base64"},
		{"POST", "/v1.0/$batch", js, `{"requests":[{"id":"1","method":"GET","url":"/users/u/messages/m","headers":{"Prefer":"IdType=\"ImmutableId\""}}]}`, ""},
		{"POST", "/v1.0/$batch", js, `{"requests":[{"id":"1","method":"GET","url":"/users/u/messages/m"}]}`, "immutable"},
		{"POST", "/v1.0/$batch", js, `{"requests":[]}`, "batch of 0"},
	} {
		r := request(tt.method, tt.target, tt.contentType, tt.body)
		got := strings.Join(Check(r, []byte(tt.body)), "; ")
		if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
			t.Errorf("%s %s %s: %q, want %q", tt.method, tt.target, tt.body, got, tt.want)
		}
	}
}

func TestCheckHeaders(t *testing.T) {
	for _, name := range []string{"Authorization", "Prefer", "client-request-id"} {
		r := request("GET", "/v1.0/users/u/messages", "", "")
		r.Header.Del(name)
		if len(Check(r, nil)) != 1 {
			t.Errorf("%s is not missed", name)
		}
	}
	r := request("PUT", "/api/v2.0/Users('u')/AttachmentSessions('x')?authtoken=y", "application/octet-stream", "x")
	if got := Check(r, []byte("x")); len(got) != 2 {
		t.Errorf("upload session: %v", got)
	}
}
