package graphsim

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// A user signs in by device code, and the refresh token goes on serving his mailbox and the shared ones he may open.
func TestDeviceCode(t *testing.T) {
	now := time.Now()
	s := New(Options{Clock: func() time.Time { return now }})
	s.AddTenant("t", "contoso.example")
	s.AddApp("t", "app", "")
	s.AddUser("t", UserSpec{UPN: "alice@contoso.example", FullAccess: []string{"support@contoso.example"}})
	s.AddUser("t", UserSpec{UPN: "support@contoso.example"})
	s.AddUser("t", UserSpec{UPN: "bob@contoso.example"})
	post := func(path string, form url.Values) (int, map[string]any) {
		t.Helper()
		r := httptest.NewRequest("POST", path, strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		out := map[string]any{}
		if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
			t.Fatal(err)
		}
		return w.Code, out
	}
	scope := "offline_access https://graph.microsoft.com/Mail.ReadWrite https://graph.microsoft.com/Mail.ReadWrite.Shared"
	_, d := post("/t/oauth2/v2.0/devicecode", url.Values{"client_id": {"app"}, "scope": {scope}})
	poll := url.Values{"grant_type": {deviceGrant}, "client_id": {"app"}, "device_code": {d["device_code"].(string)}}
	for _, step := range []struct {
		before func()
		want   string
	}{
		{func() {}, "invalid_client"},
		{func() { s.AllowPublicClient("t", "app") }, "authorization_pending"},
		{func() {}, "slow_down"},
		{func() {
			now = now.Add(time.Minute)
			if !s.ApproveDevice(d["user_code"].(string), "alice@contoso.example") {
				t.Error("not approved")
			}
		}, "invalid_grant"}, // no consent
	} {
		step.before()
		if code, out := post("/t/oauth2/v2.0/token", poll); code < 400 || out["error"] != step.want {
			t.Errorf("%d %v, want %s", code, out, step.want)
		}
	}
	s.ConsentDelegated("t", "app", "Mail.ReadWrite", "Mail.ReadWrite.Shared")
	_, d = post("/t/oauth2/v2.0/devicecode", url.Values{"client_id": {"app"}, "scope": {scope}})
	s.ApproveDevice(d["user_code"].(string), "alice@contoso.example")
	poll.Set("device_code", d["device_code"].(string))
	code, out := post("/t/oauth2/v2.0/token", poll)
	if code != 200 || out["refresh_token"] == nil {
		t.Fatal(code, out)
	}
	code, out = post("/t/oauth2/v2.0/token", url.Values{"grant_type": {"refresh_token"}, "client_id": {"app"}, "refresh_token": {out["refresh_token"].(string)}})
	if code != 200 || out["refresh_token"] == nil {
		t.Fatal(code, out)
	}
	for user, want := range map[string]int{"alice": 200, "support": 200, "bob": 403} {
		r := httptest.NewRequest("GET", "/v1.0/users/"+user+"@contoso.example/mailFolders/inbox", nil)
		r.Header.Set("Authorization", "Bearer "+out["access_token"].(string))
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%s: %d, want %d", user, w.Code, want)
		}
	}
	s.RevokeRefresh()
	code, out = post("/t/oauth2/v2.0/token", url.Values{"grant_type": {"refresh_token"}, "client_id": {"app"}, "refresh_token": {out["refresh_token"].(string)}})
	if code != 400 || out["error"] != "invalid_grant" {
		t.Error(code, out)
	}
}

func TestAppServiceIdentity(t *testing.T) {
	s := New(Options{})
	s.AddTenant("t")
	s.AddApp("t", "app", "", "Mail.ReadWrite")
	s.AddManagedIdentity("t", "app")
	for header, want := range map[string]int{"": http.StatusForbidden, AppServiceHeader: http.StatusOK} {
		r := httptest.NewRequest("GET", appServicePath+"?api-version=2019-08-01&resource=https%3A%2F%2Fgraph.microsoft.com%2F", nil)
		r.Header.Set("X-IDENTITY-HEADER", header)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%q: %d %s", header, w.Code, w.Body)
		}
	}
}
