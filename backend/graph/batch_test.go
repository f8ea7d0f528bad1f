package graph

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

type sentBatch struct {
	Requests []struct {
		ID, Method, URL string
		Headers         map[string]string
		Body            json.RawMessage
	}
}

// batches answers batches by a function per item; nil leaves the answer out. It answers in reverse order.
func batches(t *testing.T, answer func(n int, method, url string) map[string]any) func(int, http.ResponseWriter, *http.Request, string) {
	return func(n int, w http.ResponseWriter, r *http.Request, body string) {
		var b sentBatch
		if err := json.Unmarshal([]byte(body), &b); err != nil {
			t.Error(err)
		}
		var out []map[string]any
		for i := len(b.Requests) - 1; i >= 0; i-- {
			item := b.Requests[i]
			if a := answer(n, item.Method, item.URL); a != nil {
				a["id"] = item.ID
				out = append(out, a)
			}
		}
		j, _ := json.Marshal(map[string]any{"responses": out})
		reply(w, 200, string(j))
	}
}

func idOf(url string) string {
	_, rest, _ := strings.Cut(url, "/messages/")
	id, _, _ := strings.Cut(rest, "/")
	id, _, _ = strings.Cut(id, "?")
	return id
}

func failure(status int, code string) map[string]any {
	return map[string]any{"status": status, "body": map[string]any{"error": map[string]any{"code": code}}}
}

func TestBatchSplitsAndOrders(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, s, _ := bubbled(batches(t, func(n int, method, url string) map[string]any {
			return map[string]any{"status": 200, "headers": map[string]any{"x": 1}, "body": map[string]any{"id": idOf(url), "isRead": true}}
		}))
		ids := make([]string, 45)
		for i := range ids {
			ids[i] = fmt.Sprint("m", i)
		}
		for i, r := range c.GetMany(t.Context(), ids, ListOptions{Select: []string{"isRead"}, Expand: []PropertyID{PropSize}}) {
			if r.Err != nil || r.Message.ID != ids[i] || !*r.Message.IsRead {
				t.Errorf("%d: %+v %v", i, r.Message, r.Err)
			}
		}
		if len(s.seen()) != 3 {
			t.Errorf("%d batches", len(s.seen()))
		}
		if u := c.Budget().Usage(); u.Requests != 45 {
			t.Errorf("%d requests counted", u.Requests)
		}
	})
}

func TestBatchItemsOneByOne(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, s, _ := bubbled(batches(t, func(n int, method, url string) map[string]any {
			id := idOf(url)
			ok := map[string]any{"status": 201, "body": map[string]any{"id": id}}
			switch {
			case id == "slow" && n == 0:
				a := failure(429, "ApplicationThrottled")
				a["headers"] = map[string]any{"Retry-After": "7"}
				return a
			case id == "slow2" && n == 0:
				a := failure(429, "")
				a["headers"] = map[string]any{"retry-after": 2.128}
				return a
			case id == "dep" && n == 0:
				return failure(424, "")
			case id == "gone":
				return failure(404, "ErrorItemNotFound")
			case id == "broken":
				return failure(500, "ErrorInternalServerError")
			case id == "missing":
				return nil
			}
			return ok
		}))
		ids := []string{"a", "slow", "gone", "slow2", "broken", "missing", "dep", "b"}
		res := c.MoveMany(t.Context(), ids, "archive")
		for i, id := range ids {
			err := res[i].Err
			switch id {
			case "gone":
				if !IsNotFound(err) || Unclear(err) {
					t.Errorf("%s: %v", id, err)
				}
			case "broken", "missing":
				if !Unclear(err) {
					t.Errorf("%s: %v", id, err)
				}
			default:
				if err != nil || res[i].Message.ID != id {
					t.Errorf("%s: %v", id, err)
				}
			}
		}
		seen := s.seen()
		if len(seen) != 2 {
			t.Fatalf("%d batches", len(seen))
		}
		var second sentBatch
		json.Unmarshal([]byte(seen[1].Body), &second)
		if len(second.Requests) != 3 {
			t.Errorf("repeated %+v", second.Requests)
		}
		if gap := seen[1].At.Sub(seen[0].At); gap < 7*time.Second {
			t.Errorf("repeated after %v", gap)
		}
	})
}

// What a repeat does not harm is repeated when it fails in passing or gets no answer.
func TestBatchRepeatsHarmless(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, s, _ := bubbled(batches(t, func(n int, method, url string) map[string]any {
			switch {
			case n > 0 || idOf(url) == "ok":
				return map[string]any{"status": 200, "body": map[string]any{"id": idOf(url)}}
			case idOf(url) == "missing":
				return nil
			}
			return failure(503, "")
		}))
		if err := errors.Join(errorsIn(c.UpdateMany(t.Context(), []UpdateItem{{ID: "ok"}, {ID: "missing"}, {ID: "busy"}}))...); err != nil {
			t.Error(err)
		}
		if len(s.seen()) != 2 {
			t.Errorf("%d batches", len(s.seen()))
		}
	})
}

func TestBatchAnswersTwice(t *testing.T) {
	c, _, _ := bubbled(func(n int, w http.ResponseWriter, r *http.Request, body string) {
		reply(w, 200, `{"responses":[{"id":"9","status":204},{"id":"1","status":204,"body":null},{"id":"1","status":404}]}`)
	})
	if errs := c.DeleteMany(t.Context(), []string{"m"}, DeletePermanent); errs[0] != nil {
		t.Error(errs[0])
	}
}

func TestBatchToken(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, s, tok := bubbled(batches(t, func(n int, method, url string) map[string]any {
			if n == 0 && idOf(url) == "b" {
				return failure(401, "InvalidAuthenticationToken")
			}
			return map[string]any{"status": 204}
		}))
		if err := errors.Join(c.DeleteMany(t.Context(), []string{"a", "b"}, DeleteToTrash)...); err != nil {
			t.Error(err)
		}
		if len(s.seen()) != 2 || len(tok.invalidated) != 1 || tok.invalidated[0] != "secret-0" {
			t.Errorf("%d batches, invalidated %v", len(s.seen()), tok.invalidated)
		}
	})
}

// A batch that fails as a whole: moves are unclear and not repeated, reads are.
func TestBatchFailsWhole(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, s, _ := bubbled(func(n int, w http.ResponseWriter, r *http.Request, body string) { w.WriteHeader(504) })
		ids := make([]string, 25)
		for i := range ids {
			ids[i] = fmt.Sprint("m", i)
		}
		res := c.MoveMany(t.Context(), ids, "archive")
		if !Unclear(res[0].Err) || !Unclear(res[19].Err) || res[20].Err == nil || Unclear(res[20].Err) || len(s.seen()) != 1 {
			t.Errorf("%v, %v, %d batches", res[0].Err, res[20].Err, len(s.seen()))
		}
		got := c.GetMany(t.Context(), ids[:2], ListOptions{})
		if got[0].Err == nil || Unclear(got[0].Err) || len(s.seen()) != 1+maxTransient {
			t.Errorf("%v, %d batches", got[0].Err, len(s.seen()))
		}
	})
}

// A send in a batch keeps the rules of a send.
func TestBatchSend(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, s, _ := bubbled(batches(t, func(n int, method, url string) map[string]any {
			if strings.Contains(url, "/ok/") {
				return map[string]any{"status": 202}
			}
			if strings.Contains(url, "/odd/") {
				return map[string]any{"status": 200}
			}
			a := failure(503, "ThrottledRequest")
			a["headers"] = map[string]any{"Retry-After": "1"}
			return a
		}))
		res, err := c.Batch(t.Context(), []BatchItem{
			{Method: "post", Path: "/messages/ok/send"}, {Method: "POST", Path: "/messages/odd/send"}, {Method: "POST", Path: "/messages/busy/send"}})
		if err != nil || res[0].Err != nil || !Unclear(res[1].Err) || !Unclear(res[2].Err) || len(s.seen()) != 1 {
			t.Errorf("%v %v, %d batches", res, err, len(s.seen()))
		}
		if u := c.Budget().Usage(); u.Sends != 3 {
			t.Errorf("%d sends counted", u.Sends)
		}
	})
}

func TestWellKnownFolders(t *testing.T) {
	c, _, _ := bubbled(batches(t, func(n int, method, url string) map[string]any {
		if strings.Contains(url, "archive") {
			return failure(404, "ErrorItemNotFound")
		}
		return map[string]any{"status": 200, "body": map[string]any{"id": "id of " + url[strings.LastIndexByte(url, '/')+1:]}}
	}))
	got, err := c.WellKnownFolders(t.Context(), []string{"inbox", "archive"})
	if err != nil || len(got) != 1 || !strings.HasPrefix(got["inbox"], "id of inbox") {
		t.Errorf("%v %v", got, err)
	}
	// A mailbox that is not there is no mailbox without folders.
	c, _, _ = bubbled(batches(t, func(int, string, string) map[string]any { return failure(404, "MailboxNotEnabledForRESTAPI") }))
	if _, err := c.WellKnownFolders(t.Context(), []string{"inbox"}); !IsNoMailbox(err) {
		t.Errorf("%v", err)
	}
}

func errorsIn(results []MessageResult) []error {
	errs := make([]error, len(results))
	for i, r := range results {
		errs[i] = r.Err
	}
	return errs
}
