package graphsim

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestAdmin drives a simulator from outside, as a test in another language would.
func TestAdmin(t *testing.T) {
	s := New(Options{Admin: true})
	srv := httptest.NewServer(s)
	defer srv.Close()
	do := func(method, path, body string, want int) map[string]any {
		t.Helper()
		req, err := http.NewRequest(method, srv.URL+"/_sim/"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		res, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		raw, _ := io.ReadAll(res.Body)
		if res.StatusCode != want {
			t.Fatalf("%s %s: %d %s", method, path, res.StatusCode, raw)
		}
		var out map[string]any
		_ = json.Unmarshal(raw, &out)
		return out
	}
	mime := `"From: bob@x.example\r\nTo: alice@contoso.example\r\nSubject: hi\r\nMessage-ID: <1@x>\r\n\r\nbody\r\n"`
	do("POST", "tenants", `{"id":"t1","domains":["contoso.example"]}`, 204)
	do("POST", "apps", `{"tenant":"t1","clientId":"app","secret":"s","roles":["Mail.ReadWrite","Mail.Send"]}`, 204)
	do("POST", "apps", `{"tenant":"t2","clientId":"app"}`, 404)
	do("POST", "users", `{"tenant":"t1","upn":"alice@contoso.example","aliases":["a@contoso.example"]}`, 200)
	do("POST", "users", `{"tenant":"t1","upn":"alice@contoso.example"}`, 400)
	do("POST", "folders", `{"user":"alice@contoso.example","parent":"inbox","name":"Sub"}`, 200)
	id := do("POST", "messages", `{"user":"alice@contoso.example","folder":"Inbox/Sub","mime":`+mime+`,"isRead":true}`, 200)["id"].(string)
	do("POST", "synthetic", `{"user":"alice@contoso.example","folder":"archive","count":100,"seed":1}`, 204)
	do("POST", "deliver", `{"user":"alice@contoso.example","mime":`+mime+`}`, 200)
	do("POST", "deliver", `{"user":"nobody","mime":`+mime+`}`, 404)
	do("POST", "change", `{"user":"alice@contoso.example","id":"`+id+`","isRead":false,"categories":["Red"]}`, 204)
	do("POST", "change", `{"user":"alice@contoso.example","id":"`+id+`","move":"archive"}`, 204)
	list := do("GET", "messages?user=alice@contoso.example&folder=archive", "", 200)["value"].([]any)
	if len(list) != 101 {
		t.Errorf("%d messages in the archive", len(list))
	}
	if got := do("GET", "mime?user=alice@contoso.example&id="+id, "", 200); got["mimeBase64"] == "" {
		t.Errorf("mime: %v", got)
	}
	do("POST", "faults", `{"path":"/mailFolders","times":1,"status":503,"delay":"1ms","retryAfter":"1"}`, 204)
	do("POST", "faults", `{"path":"("}`, 400)
	do("POST", "faults", `{"pth":"x"}`, 400)
	tok := s.Token("t1", "app")
	for _, want := range []int{503, 200} {
		req, _ := http.NewRequest("GET", srv.URL+"/v1.0/users/alice@contoso.example/mailFolders", nil)
		req.Header.Set("Authorization", "Bearer "+tok)
		res, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("status %d, want %d", res.StatusCode, want)
		}
	}
	counts := do("GET", "counts", "", 200)
	if counts["GET /v1.0/users/{u}/mailFolders 503"] != 1.0 {
		t.Errorf("counts: %v", counts)
	}
	do("DELETE", "requests", "", 204)
	if got := do("GET", "deliveries", "", 200)["value"].([]any); len(got) != 0 {
		t.Errorf("deliveries: %v", got)
	}
	do("GET", "nothing", "", 404)
	off := httptest.NewRecorder()
	New(Options{}).ServeHTTP(off, httptest.NewRequest("GET", "/_sim/health", nil))
	if off.Code != 404 {
		t.Errorf("the interface is there without Options.Admin: %d", off.Code)
	}
}
