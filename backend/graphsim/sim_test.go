package graphsim

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

const (
	testTenant = "6d5f3f6e-0000-0000-0000-000000000001"
	testApp    = "2c9b0c44-0000-0000-0000-000000000001"
	testSecret = "s3cr~et+/="
	alice      = "alice@contoso.example"
	bob        = "bob@contoso.example"
)

// harness is a Sim behind a real server, with a token.
type harness struct {
	*Sim
	t   *testing.T
	srv *httptest.Server
	tok string
}

func newHarness(t *testing.T, opts Options) *harness {
	t.Helper()
	s := New(opts)
	s.AddTenant(testTenant, "contoso.example")
	s.AddApp(testTenant, testApp, testSecret, "Mail.ReadWrite", "Mail.Send")
	s.AddUser(testTenant, UserSpec{UPN: alice, Aliases: []string{"al@contoso.example"}, DisplayName: "Alice", SendAs: []string{"sales@contoso.example"}})
	s.AddUser(testTenant, UserSpec{UPN: bob, DisplayName: "Bob"})
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	return &harness{s, t, srv, s.Token(testTenant, testApp)}
}

type answer struct {
	status int
	header http.Header
	raw    []byte
	body   map[string]any
}

func (a answer) code() string {
	e, _ := a.body["error"].(map[string]any)
	s, _ := e["code"].(string)
	return s
}

func (a answer) str(name string) string { s, _ := a.body[name].(string); return s }

func (a answer) rows() []map[string]any {
	list, _ := a.body["value"].([]any)
	var out []map[string]any
	for _, v := range list {
		out = append(out, v.(map[string]any))
	}
	return out
}

const immutablePrefer = `IdType="ImmutableId"`

// do sends a request; path may be a whole link, body a string or something for JSON, and headers name, value, ….
func (h *harness) do(method, path string, body any, headers ...string) answer {
	h.t.Helper()
	a, err := h.try(method, path, body, headers...)
	if err != nil {
		h.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

func (h *harness) try(method, path string, body any, headers ...string) (answer, error) {
	if !strings.HasPrefix(path, "http") {
		path = h.srv.URL + "/v1.0" + path
	}
	var r io.Reader
	kind := ""
	switch b := body.(type) {
	case nil:
		if method == "POST" {
			r = http.NoBody
		}
	case string:
		r, kind = strings.NewReader(b), "text/plain"
		if strings.HasPrefix(b, "{") {
			kind = "application/json"
		}
	default:
		enc, err := json.Marshal(b)
		if err != nil {
			h.t.Fatal(err)
		}
		r, kind = strings.NewReader(string(enc)), "application/json"
	}
	req, err := http.NewRequest(method, path, r)
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+h.tok)
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
		if headers[i+1] == "" {
			req.Header.Del(headers[i])
		}
	}
	res, err := h.srv.Client().Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	a := answer{status: res.StatusCode, header: res.Header, raw: raw}
	_ = json.Unmarshal(raw, &a.body)
	return a, err
}

func (h *harness) want(a answer, status int, code string) answer {
	h.t.Helper()
	if a.status != status || a.code() != code {
		h.t.Fatalf("got %d %q, want %d %q: %.400s", a.status, a.code(), status, code, a.raw)
	}
	return a
}

func u(user, rest string) string { return "/users/" + user + rest }

func mimeOf(from, to, subject, id string, extra ...string) []byte {
	return []byte("From: " + from + "\r\nTo: " + to + "\r\nSubject: " + subject + "\r\nDate: Mon, 5 Jan 2026 10:00:00 +0100\r\nMessage-ID: " +
		id + "\r\n" + strings.Join(extra, "") + "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nHello,\r\nthis is the body.\r\n")
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func TestRoundTrip(t *testing.T) {
	h := newHarness(t, Options{})
	raw := mimeOf("Alice <"+alice+">", bob, "Grüße", "<one@contoso.example>", "Bcc: hidden@else.example\r\nX-Mine: yes\r\n")
	a := h.want(h.do("POST", u(alice, "/sendMail"), b64(raw)), 202, "")
	if len(a.raw) != 0 {
		t.Errorf("202 has a body: %q", a.raw)
	}
	d := h.Delivered()
	if len(d) != 1 || strings.Join(d[0].Recipients, ",") != bob+",hidden@else.example" || d[0].From != alice {
		t.Fatalf("deliveries: %+v", d)
	}
	if strings.Contains(string(d[0].MIME), "hidden@") {
		t.Error("receivers see Bcc")
	}
	sent := h.Messages(alice, "sentitems")
	if len(sent) != 1 || sent[0].MessageID != "<one@contoso.example>" || !sent[0].IsRead || sent[0].IsDraft {
		t.Fatalf("Sent Items: %+v", sent)
	}
	list := h.want(h.do("GET", u(bob, "/mailFolders/inbox/messages?$expand=singleValueExtendedProperties($filter=id%20eq%20'String%200x007D'%20or%20id%20eq%20'Integer%200x0E08')"), nil), 200, "")
	rows := list.rows()
	if len(rows) != 1 || rows[0]["subject"] != "Grüße" || rows[0]["isRead"] != false {
		t.Fatalf("Inbox: %s", list.raw)
	}
	ext := fmt.Sprint(rows[0]["singleValueExtendedProperties"])
	if !strings.Contains(ext, "String 0x7d") || !strings.Contains(ext, "Integer 0xe08") || !strings.Contains(ext, "X-Mine: yes") || !strings.Contains(ext, "Received:") {
		t.Errorf("extended properties: %s", ext)
	}
	v := h.want(h.do("GET", u(bob, "/messages/"+rows[0]["id"].(string)+"/$value"), nil), 200, "")
	if ct := v.header.Get("Content-Type"); ct != "text/plain" {
		t.Errorf("$value has type %q", ct)
	}
	for _, want := range []string{"X-Mine: yes", "this is the body.", "Message-ID: <one@contoso.example>", "=?utf-8?q?Gr=C3=BC=C3=9Fe?="} {
		if !strings.Contains(string(v.raw), want) {
			t.Errorf("$value lacks %q:\n%s", want, v.raw)
		}
	}
}

func TestToken(t *testing.T) {
	h := newHarness(t, Options{})
	h.AddExpiredSecret(testTenant, testApp, "old")
	ask := func(tenant, form string, basic ...string) answer {
		req, _ := http.NewRequest("POST", h.srv.URL+"/"+tenant+"/oauth2/v2.0/token", strings.NewReader(form))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if len(basic) == 2 {
			req.SetBasicAuth(url.QueryEscape(basic[0]), url.QueryEscape(basic[1]))
		}
		res, err := h.srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		raw, _ := io.ReadAll(res.Body)
		a := answer{status: res.StatusCode, raw: raw}
		_ = json.Unmarshal(raw, &a.body)
		return a
	}
	scope := "&scope=https%3A%2F%2Fgraph.microsoft.com%2F.default&grant_type=client_credentials"
	sec := "&client_secret=" + url.QueryEscape(testSecret)
	for _, tt := range []struct {
		name, tenant, form string
		status             int
		err                string
		code               float64
	}{
		{"no tenant", "nowhere.example", "client_id=" + testApp + sec + scope, 400, "invalid_request", 90002},
		{"unknown app", testTenant, "client_id=x" + sec + scope, 400, "unauthorized_client", 700016},
		{"wrong secret", testTenant, "client_id=" + testApp + "&client_secret=no" + scope, 401, "invalid_client", 7000215},
		{"expired secret", testTenant, "client_id=" + testApp + "&client_secret=old" + scope, 401, "invalid_client", 7000222},
		{"no secret", testTenant, "client_id=" + testApp + scope, 401, "invalid_client", 7000218},
		{"scope without default", testTenant, "client_id=" + testApp + sec + "&grant_type=client_credentials&scope=https%3A%2F%2Fgraph.microsoft.com%2FMail.Send", 400, "invalid_scope", 1002012},
		{"scope of no resource", testTenant, "client_id=" + testApp + sec + "&grant_type=client_credentials&scope=openid", 400, "invalid_scope", 70011},
		{"no scope", testTenant, "client_id=" + testApp + sec + "&grant_type=client_credentials", 400, "invalid_request", 900144},
		{"no grant", testTenant, "client_id=" + testApp + sec, 400, "invalid_request", 900144},
		{"common", "common", "client_id=" + testApp + sec + scope, 400, "invalid_request", 9001023},
		{"other resource", testTenant, "client_id=" + testApp + sec + "&grant_type=client_credentials&scope=https%3A%2F%2Fother.example%2F.default", 400, "invalid_resource", 500011},
	} {
		a := ask(tt.tenant, tt.form)
		codes, _ := a.body["error_codes"].([]any)
		if a.status != tt.status || a.body["error"] != tt.err || len(codes) != 1 || codes[0] != tt.code {
			t.Errorf("%s: %d %s", tt.name, a.status, a.raw)
		}
	}
	for _, a := range []answer{
		ask(testTenant, "client_id="+testApp+sec+scope), ask("contoso.example", "client_id="+testApp+sec+scope),
		ask(testTenant, scope[1:], testApp, testSecret),
	} {
		tok := a.str("access_token")
		if a.status != 200 || a.body["expires_in"] != 3599.0 || strings.Count(tok, ".") != 2 {
			t.Fatalf("token: %d %s", a.status, a.raw)
		}
		claims, _ := base64.RawURLEncoding.DecodeString(strings.Split(tok, ".")[1])
		if !strings.Contains(string(claims), `"roles":["Mail.ReadWrite","Mail.Send"]`) {
			t.Errorf("claims: %s", claims)
		}
		h.tok = tok
		h.want(h.do("GET", u(alice, "/mailFolders"), nil), 200, "")
	}
	h.RevokeTokens()
	h.want(h.do("GET", u(alice, "/mailFolders"), nil), 401, "InvalidAuthenticationToken")
	h.tok = "rubbish"
	h.want(h.do("GET", u(alice, "/mailFolders"), nil), 401, "InvalidAuthenticationToken")
}

func TestHundredThousand(t *testing.T) {
	h := newHarness(t, Options{})
	start := time.Now()
	h.AddSynthetic(alice, "inbox", 100_000, Synthetic{Seed: 7})
	seeded := time.Since(start)
	start = time.Now()
	n, pages, oldest := 0, 0, ""
	seen := map[string]bool{}
	link := u(alice, "/mailFolders/inbox/messages?$select=id,isRead,flag,receivedDateTime,categories&$top=1000&$expand=singleValueExtendedProperties($filter=id%20eq%20'Integer%200x0E08'%20or%20id%20eq%20'Integer%200x1081')")
	for link != "" {
		a := h.want(h.do("GET", link, nil, "Prefer", immutablePrefer), 200, "")
		for _, r := range a.rows() {
			oldest = r["id"].(string)
			seen[oldest] = true
			n++
		}
		pages++
		link = a.str("@odata.nextLink")
	}
	listed := time.Since(start)
	if n != 100_000 || len(seen) != n || pages != 100 {
		t.Errorf("%d rows, %d ids, %d pages", n, len(seen), pages)
	}
	start = time.Now()
	last, _ := h.Message(alice, oldest)
	h.want(h.do("GET", u(alice, "/messages/"+last.ID+"/$value"), nil), 200, "")
	a := h.want(h.do("GET", u(alice, "/messages?$filter=internetMessageId%20eq%20'"+url.QueryEscape(last.MessageID)+"'"), nil), 200, "")
	if len(a.rows()) != 1 {
		t.Errorf("by Message-ID: %s", a.raw)
	}
	t.Logf("seeded in %v, listed 100 pages in %v, single reads in %v", seeded, listed, time.Since(start))
	if seeded > 4*time.Second {
		t.Errorf("seeding took %v", seeded)
	}
}
