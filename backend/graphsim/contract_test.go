package graphsim

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// contract is Microsoft's published description, cut to mail.
type contract struct {
	t   *testing.T
	doc *openapi3.T
}

// openContract loads the description and takes back what it says of @odata.type: it marks it as required everywhere, while
// the service leaves it out at the default metadata level.
func openContract(t *testing.T) *contract {
	t.Helper()
	path := filepath.Join("..", "..", "..", "shared", "graph-openapi-mail.yaml")
	if _, err := os.Stat(path); err != nil {
		t.Skip("the published description is not here: ", path)
	}
	doc, err := openapi3.NewLoader().LoadFromFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c := &contract{t, doc}
	seen := map[*openapi3.Schema]bool{}
	var relax func(r *openapi3.SchemaRef)
	relax = func(r *openapi3.SchemaRef) {
		if r == nil || r.Value == nil || seen[r.Value] {
			return
		}
		s := r.Value
		seen[s] = true
		s.Discriminator = nil
		s.Required = slices.DeleteFunc(s.Required, func(n string) bool { return n == "@odata.type" })
		relax(s.Items)
		for _, p := range s.Properties {
			relax(p)
		}
		for _, group := range []openapi3.SchemaRefs{s.AllOf, s.AnyOf, s.OneOf} {
			for _, m := range group {
				relax(m)
			}
		}
	}
	for _, s := range doc.Components.Schemas {
		relax(s)
	}
	for _, item := range doc.Paths.Map() {
		for _, op := range item.Operations() {
			if op.RequestBody != nil {
				for _, m := range op.RequestBody.Value.Content {
					relax(m.Schema)
				}
			}
			for _, r := range op.Responses.Map() {
				for _, m := range r.Value.Content {
					relax(m.Schema)
				}
			}
		}
	}
	return c
}

// names collects the properties a schema knows.
func names(r *openapi3.SchemaRef, out map[string]*openapi3.SchemaRef) map[string]*openapi3.SchemaRef {
	if out == nil {
		out = map[string]*openapi3.SchemaRef{}
	}
	if r == nil || r.Value == nil {
		return out
	}
	for n, p := range r.Value.Properties {
		out[n] = p
	}
	for _, group := range []openapi3.SchemaRefs{r.Value.AllOf, r.Value.AnyOf, r.Value.OneOf} {
		for _, m := range group {
			names(m, out)
		}
	}
	return out
}

// unknown lists properties of a value that the schema does not have; a @odata.type chooses the derived schema.
func (c *contract) unknown(r *openapi3.SchemaRef, v any, at string) (bad []string) {
	switch v := v.(type) {
	case map[string]any:
		if kind, ok := v["@odata.type"].(string); ok {
			if derived := c.doc.Components.Schemas[strings.TrimPrefix(kind, "#")]; derived != nil {
				r = derived
			}
		}
		known := names(r, nil)
		for n, inner := range v {
			if strings.Contains(n, "@") {
				continue
			}
			p, ok := known[n]
			if !ok {
				bad = append(bad, at+"/"+n)
				continue
			}
			bad = append(bad, c.unknown(p, inner, at+"/"+n)...)
		}
	case []any:
		if r != nil && r.Value != nil {
			for i, inner := range v {
				bad = append(bad, c.unknown(r.Value.Items, inner, fmt.Sprintf("%s/%d", at, i))...)
			}
		}
	}
	return bad
}

func (c *contract) operation(method, template string) *openapi3.Operation {
	c.t.Helper()
	item := c.doc.Paths.Value(template)
	if item == nil || item.GetOperation(method) == nil {
		c.t.Fatalf("the description has no %s %s", method, template)
	}
	return item.GetOperation(method)
}

// TestContract compares requests that the simulator takes, and what it answers, with the published description: types by the
// schema, and no property that is not in it.
func TestContract(t *testing.T) {
	c := openContract(t)
	h := newHarness(t, Options{EmptyPageEvery: -1})
	id := h.AddMessage(alice, "inbox", mimeOf("Ann <a@x.example>", alice+", \"B, C\" <b@x.example>", "s", "<1@x>",
		"Cc: c@x.example\r\nReply-To: r@x.example\r\nImportance: high\r\n"), MessageSpec{Categories: []string{"Red"}, Flagged: true})
	folder := h.AddFolder(alice, "", "F")
	h.AddSearchFolder(alice, "Found")
	const inFolder = "/users/{user-id}/mailFolders/{mailFolder-id}"
	const message = "/users/{user-id}/messages/{message-id}"
	draft := map[string]any{
		"subject": "s", "body": map[string]any{"contentType": "html", "content": "<b>x</b>"}, "importance": "low",
		"toRecipients": []any{map[string]any{"emailAddress": map[string]any{"name": "Bob", "address": bob}}},
		"categories":   []any{"Blue"}, "isRead": true, "isDeliveryReceiptRequested": false,
		"internetMessageHeaders":        []any{map[string]any{"name": "x-a", "value": "1"}},
		"singleValueExtendedProperties": []any{map[string]any{"id": "Integer 0x0E07", "value": "4"}},
		"attachments":                   []any{map[string]any{"@odata.type": "#microsoft.graph.fileAttachment", "name": "a", "contentType": "text/plain", "contentBytes": "YQ=="}},
		"flag": map[string]any{"flagStatus": "flagged", "startDateTime": map[string]any{"dateTime": "2026-01-01T00:00:00.0000000", "timeZone": "UTC"},
			"dueDateTime": map[string]any{"dateTime": "2026-01-02T00:00:00.0000000", "timeZone": "UTC"}},
	}
	finished := h.want(h.do("POST", u(alice, "/messages"), draft), 201, "").str("id")
	ext := "singleValueExtendedProperties($filter=id%20eq%20'String%200x001A')"
	for _, tt := range []struct {
		method, template, path string
		body                   map[string]any
	}{
		{"GET", "/users/{user-id}/mailFolders", "/mailFolders?$top=50&includeHiddenFolders=true", nil},
		{"POST", "/users/{user-id}/mailFolders", "/mailFolders", map[string]any{"displayName": "G", "isHidden": true}},
		{"GET", inFolder, "/mailFolders/inbox?$expand=" + ext, nil},
		{"PATCH", inFolder, "/mailFolders/" + folder, map[string]any{"displayName": "H"}},
		{"GET", inFolder + "/childFolders", "/mailFolders/msgfolderroot/childFolders", nil},
		{"POST", inFolder + "/move", "/mailFolders/" + folder + "/move", map[string]any{"DestinationId": "inbox"}},
		{"POST", inFolder + "/copy", "/mailFolders/" + folder + "/copy", map[string]any{"DestinationId": "archive"}},
		{"GET", "/users/{user-id}/mailFolders/delta()", "/mailFolders/delta?$top=100", nil},
		{"GET", inFolder + "/messages", "/mailFolders/inbox/messages?$expand=attachments&$count=true", nil},
		{"GET", inFolder + "/messages/delta()", "/mailFolders/inbox/messages/delta", nil},
		{"POST", inFolder + "/messages", "/mailFolders/inbox/messages", draft},
		{"GET", "/users/{user-id}/messages", "/messages?$select=internetMessageHeaders,uniqueBody,subject&$expand=" + ext, nil},
		{"POST", "/users/{user-id}/messages", "/messages", draft},
		{"GET", message, "/messages/" + id, nil},
		{"GET", message, "/messages/" + finished, nil},
		{"PATCH", message, "/messages/" + id, map[string]any{"isRead": true, "categories": []any{"x"}, "flag": map[string]any{"flagStatus": "complete"}}},
		{"POST", message + "/copy", "/messages/" + id + "/copy", map[string]any{"DestinationId": "archive"}},
		{"POST", message + "/createReply", "/messages/" + id + "/createReply", map[string]any{"Comment": "c"}},
		{"GET", message + "/attachments", "/messages/" + finished + "/attachments", nil},
		{"POST", message + "/attachments", "/messages/" + finished + "/attachments", map[string]any{"@odata.type": "#microsoft.graph.fileAttachment", "name": "b", "contentBytes": "YQ=="}},
		{"POST", message + "/attachments/createUploadSession", "/messages/" + finished + "/attachments/createUploadSession",
			map[string]any{"AttachmentItem": map[string]any{"attachmentType": "file", "name": "f", "size": 5000000, "contentType": "text/plain", "isInline": false}}},
		{"POST", "/users/{user-id}/sendMail", "/sendMail", map[string]any{"Message": map[string]any{"subject": "x", "toRecipients": draft["toRecipients"]}, "SaveToSentItems": false}},
	} {
		op := c.operation(tt.method, tt.template)
		var body any
		if tt.body != nil {
			body = tt.body
			enc, _ := json.Marshal(tt.body)
			var v any
			_ = json.Unmarshal(enc, &v)
			schema := op.RequestBody.Value.Content.Get("application/json").Schema
			if err := schema.Value.VisitJSON(v); err != nil {
				t.Errorf("request %s %s: %.600v", tt.method, tt.path, err)
			}
			if bad := c.unknown(schema, v, ""); len(bad) > 0 {
				t.Errorf("request %s %s: not in the description: %v", tt.method, tt.path, bad)
			}
		}
		a := h.do(tt.method, u(alice, tt.path), body)
		if a.status >= 300 {
			t.Errorf("%s %s: %d %.300s", tt.method, tt.path, a.status, a.raw)
			continue
		}
		if len(a.raw) == 0 {
			continue
		}
		r := op.Responses.Value("2XX")
		if r == nil || r.Value.Content.Get("application/json") == nil {
			t.Errorf("%s %s: an answer where the description has none: %.200s", tt.method, tt.path, a.raw)
			continue
		}
		schema := r.Value.Content.Get("application/json").Schema
		if err := schema.Value.VisitJSON(map[string]any(a.body)); err != nil {
			t.Errorf("answer %s %s: %.600v", tt.method, tt.path, err)
		}
		if bad := c.unknown(schema, map[string]any(a.body), ""); len(bad) > 0 {
			t.Errorf("answer %s %s: not in the description: %v", tt.method, tt.path, bad)
		}
	}
	// An error, too; the service writes its date without a zone, whatever the description says.
	a := h.do("GET", u(alice, "/messages/x"), nil)
	inner := a.body["error"].(map[string]any)["innerError"].(map[string]any)
	inner["date"] = inner["date"].(string) + "Z"
	schema := c.doc.Components.Schemas["microsoft.graph.ODataErrors.ODataError"]
	if err := schema.Value.VisitJSON(map[string]any(a.body)); err != nil {
		t.Errorf("error: %v in %s", err, a.raw)
	}
}
