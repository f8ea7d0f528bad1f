package graphsim

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"
)

type reqs []map[string]any

func (h *harness) batchDo(list reqs) (map[string]map[string]any, answer) {
	a := h.do("POST", "/$batch", map[string]any{"requests": list})
	out := map[string]map[string]any{}
	items, _ := a.body["responses"].([]any)
	for _, it := range items {
		m := it.(map[string]any)
		out[m["id"].(string)] = m
	}
	return out, a
}

func TestBatch(t *testing.T) {
	h := newHarness(t, Options{Latency: time.Millisecond})
	var ids []string
	for i := range 20 {
		ids = append(ids, h.AddMessage(alice, "inbox", mimeOf("a@x.example", alice, "m", fmt.Sprintf("<%d@x>", i)), MessageSpec{}))
	}
	var list reqs
	for i, id := range ids {
		list = append(list, map[string]any{"id": fmt.Sprint(i), "method": "PATCH", "url": u(alice, "/messages/"+id),
			"headers": map[string]string{"Content-Type": "application/json"}, "body": map[string]any{"isRead": true}})
	}
	if err := h.Inject(Fault{Method: "PATCH", Path: ids[5], Status: 429, Code: "ApplicationThrottled", RetryAfter: "2.128"}); err != nil {
		t.Fatal(err)
	}
	got, a := h.batchDo(list)
	if a.status != 200 || len(got) != 20 {
		t.Fatalf("%d with %d answers: %.300s", a.status, len(got), a.raw)
	}
	for i := range ids {
		want := 200.0
		if i == 5 {
			want = 429
		}
		if r := got[fmt.Sprint(i)]; r["status"] != want {
			t.Errorf("item %d: %v", i, r)
		}
	}
	if r := got["5"]["headers"].(map[string]any); r["Retry-After"] != "2.128" {
		t.Errorf("headers of the throttled item: %v", r)
	}
	for _, bad := range []reqs{
		append(list[:20:20], list[0]),
		{list[0], list[0]},
		{{"id": "1", "method": "GET", "url": "https://graph.microsoft.com/v1.0/users"}},
		{{"id": "1", "method": "POST", "url": "/$batch", "headers": map[string]string{"Content-Type": "application/json"}, "body": map[string]any{}}},
		{{"id": "1", "method": "PATCH", "url": u(alice, "/messages/x"), "body": map[string]any{}}},
		{{"id": "1", "method": "GET", "url": u(alice, "/messages"), "dependsOn": []string{"2"}}},
		{},
	} {
		if _, a := h.batchDo(bad); a.status != 400 {
			enc, _ := json.Marshal(bad)
			t.Errorf("%.200s: %d", enc, a.status)
		}
	}
	got, _ = h.batchDo(reqs{
		{"id": "a", "method": "GET", "url": u(alice, "/messages/nonsense")},
		{"id": "b", "method": "GET", "url": u(alice, "/messages"), "dependsOn": []string{"a"}},
		{"id": "c", "method": "GET", "url": u(alice, "/messages/"+ids[0]+"/$value"), "dependsOn": []string{"b"}},
	})
	if got["a"]["status"] != 400.0 || got["b"]["status"] != 424.0 || got["c"]["status"] != 424.0 {
		t.Errorf("dependencies: %v", got)
	}
	got, _ = h.batchDo(reqs{
		{"id": "1", "method": "POST", "url": u(alice, "/sendMail"), "headers": map[string]string{"Content-Type": "text/plain"}, "body": b64(mimeOf(alice, bob, "s", "<9@x>"))},
	})
	if got["1"]["status"] != 202.0 || len(h.Delivered()) != 1 {
		t.Errorf("MIME in a batch: %v", got)
	}
}

func TestConcurrency(t *testing.T) {
	h := newHarness(t, Options{Latency: 300 * time.Millisecond})
	results := make(chan answer, 6)
	for range 6 {
		go func() {
			a, err := h.try("GET", u(alice, "/messages"), nil)
			if err != nil {
				t.Error(err)
			}
			results <- a
		}()
	}
	refused := 0
	for range 6 {
		if a := <-results; a.status == 429 {
			refused++
			if a.code() != "ApplicationThrottled" || a.header.Get("Retry-After") != "2.128" {
				t.Errorf("throttled: %s", a.raw)
			}
		}
	}
	if refused != 2 {
		t.Errorf("%d of 6 refused, want 2", refused)
	}
}

func TestLimits(t *testing.T) {
	now := time.Unix(1800000000, 0)
	h := newHarness(t, Options{Clock: func() time.Time { return now }, Limits: Limits{Requests: 5, UploadBytes: 1000, SendsPerMinute: 2}, TokenLifetime: 24 * time.Hour})
	for range 5 {
		h.want(h.do("GET", u(alice, "/messages"), nil), 200, "")
	}
	a := h.want(h.do("GET", u(alice, "/messages"), nil), 429, "ApplicationThrottled")
	if a.header.Get("Retry-After") != "601" {
		t.Errorf("Retry-After %q", a.header.Get("Retry-After"))
	}
	h.want(h.do("GET", u(bob, "/messages"), nil), 200, "")
	now = now.Add(11 * time.Minute)
	mime := b64(mimeOf(alice, "x@y.example", "s", "<9@x>"))
	for range 3 {
		h.want(h.do("POST", u(alice, "/sendMail"), mime), 202, "")
	}
	if n := len(h.Delivered()); n != 2 {
		t.Errorf("%d delivered at once, want 2: the third is delayed", n)
	}
	h.want(h.do("POST", u(alice, "/sendMail"), mime), 429, "ApplicationThrottled")
	now = now.Add(time.Minute)
	if n := len(h.Delivered()); n != 3 {
		t.Errorf("%d delivered after a minute", n)
	}
}

func TestFaults(t *testing.T) {
	h := newHarness(t, Options{})
	mime := b64(mimeOf(alice, "x@y.example", "s", "<9@x>"))
	inject := func(f Fault) {
		t.Helper()
		h.ClearFaults()
		if err := h.Inject(f); err != nil {
			t.Fatal(err)
		}
	}
	inject(Fault{Path: "/sendMail$", Mailbox: alice, Times: 2, Skip: 1, Status: 503, EmptyBody: true, RetryAfter: "1"})
	for i, want := range []int{202, 503, 503, 202} {
		if a := h.do("POST", u(alice, "/sendMail"), mime); a.status != want || want == 503 && (len(a.raw) > 0 || a.header.Get("Retry-After") != "1") {
			t.Errorf("request %d: %d %s", i, a.status, a.raw)
		}
	}
	before := len(h.Delivered())
	inject(Fault{Path: "sendmail", DropBefore: true, Times: 1})
	if _, err := h.try("POST", u(alice, "/sendMail"), mime); err == nil || len(h.Delivered()) != before {
		t.Errorf("DropBefore: %v", err)
	}
	inject(Fault{Path: "sendmail", DropAfter: true, Times: 1})
	if _, err := h.try("POST", u(alice, "/sendMail"), mime); err == nil || len(h.Delivered()) != before+1 {
		t.Errorf("DropAfter: %v", err)
	}
	inject(Fault{Path: "sendmail", StatusInstead: 200, Times: 1})
	h.want(h.do("POST", u(alice, "/sendMail"), mime), 200, "")
	inject(Fault{Path: "sendmail", Status: 504, Code: "GatewayTimeout", AfterEffect: true, Times: 1})
	h.want(h.do("POST", u(alice, "/sendMail"), mime), 504, "GatewayTimeout")
	if len(h.Delivered()) != before+3 {
		t.Errorf("%d delivered", len(h.Delivered())-before)
	}
	inject(Fault{Method: "GET", TruncateBody: true, Times: 1})
	if _, err := h.try("GET", u(alice, "/mailFolders"), nil); err == nil {
		t.Error("a truncated body reads without error")
	}
	inject(Fault{Path: "delta", ResetDelta: true, Times: 1})
	h.want(h.do("GET", u(alice, "/mailFolders/inbox/messages/delta"), nil), 410, "SyncStateNotFound")
	inject(Fault{TokenExpired: true, Every: 2})
	h.want(h.do("GET", u(alice, "/mailFolders"), nil), 200, "")
	h.want(h.do("GET", u(alice, "/mailFolders"), nil), 401, "InvalidAuthenticationToken")
	if err := h.Inject(Fault{Path: "("}); err == nil {
		t.Error("a bad expression is taken")
	}
	h.ClearFaults()
	h.ResetRequests()
	h.do("GET", u(alice, "/mailFolders/Inbox/Messages?$top=1"), nil)
	if got := h.Requests(); len(got) != 1 || got[0].Template != "/v1.0/users/{u}/mailFolders/{f}/messages" || got[0].Status != 200 || got[0].Mailbox != alice {
		t.Errorf("log: %+v", got)
	}
}
