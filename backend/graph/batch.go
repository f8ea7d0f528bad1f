package graph

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// BatchItem is one request of a batch. Graph: json-batching.
type BatchItem struct {
	Method  string
	Path    string            // below the user, encoded, such as "/messages/{id}"
	Headers map[string]string // besides Content-Type and Prefer, which are set
	Body    any               // encoded as JSON; nil for none
}

// BatchResult is the answer to one item.
type BatchResult struct {
	Status int             // 0 when no answer came
	Body   json.RawMessage // JSON, or a JSON string with base64 where the answer is something else; may be nil
	Err    error           // a *Error for a refusal; Unclear where the item may have had its effect
}

const (
	maxBatch      = 20
	maxBatchBytes = 3_500_000 // MaxRequest less a margin
)

// Batch makes any number of requests, 20 at a time, and returns their results in the order of items. Graph runs at most
// four at once and in no order. Each item is judged by itself; those that were throttled, or failed in passing where a
// repeat is harmless, are sent again without the others. The error is that of a whole batch that failed; items
// it hit, and all after them, have an Err too.
func (c *Client) Batch(ctx context.Context, items []BatchItem) ([]BatchResult, error) {
	return c.batch(ctx, "batch", items)
}

// errThrottled is why an item was not sent: others of its batch failed too often.
var errThrottled = errors.New("not sent: the batch was throttled or failed")

// batchRequest is one item as it goes over the wire.
type batchRequest struct {
	ID      string            `json:"id"`
	Method  string            `json:"method"`
	URL     string            `json:"url"`
	Headers map[string]string `json:"headers"`
	Body    json.RawMessage   `json:"body,omitempty"`
}

type batchResponse struct {
	ID      string                     `json:"id"`
	Status  int                        `json:"status"`
	Headers map[string]json.RawMessage `json:"headers"` // numbers, too
	Body    json.RawMessage            `json:"body"`
}

func (c *Client) batch(ctx context.Context, op string, items []BatchItem) ([]BatchResult, error) {
	results := make([]BatchResult, len(items))
	requests := make([]batchRequest, len(items))
	for i, item := range items {
		r := batchRequest{ID: strconv.Itoa(i + 1), Method: strings.ToUpper(item.Method), URL: c.user + item.Path,
			Headers: map[string]string{"Prefer": immutable}}
		for name, value := range item.Headers {
			if strings.EqualFold(name, "Prefer") {
				name, value = "Prefer", immutable+", "+value
			}
			r.Headers[name] = value
		}
		if item.Body != nil {
			body, err := json.Marshal(item.Body)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", op, err)
			}
			r.Headers["Content-Type"], r.Body = "application/json", body
		}
		requests[i] = r
	}
	for next := 0; next < len(requests); {
		size, end := 0, next
		for end < len(requests) && end-next < maxBatch {
			size += len(requests[end].Body) + len(requests[end].URL) + 300
			if size > maxBatchBytes && end > next {
				break
			}
			end++
		}
		if err := c.batchPart(ctx, op, requests[next:end], results[next:end]); err != nil {
			for i := end; i < len(results); i++ {
				results[i].Err = &notSentError{op: op, err: certain(err), passing: true}
			}
			return results, err
		}
		next = end
	}
	return results, nil
}

// batchPart makes up to 20 requests and repeats those that should be.
func (c *Client) batchPart(ctx context.Context, op string, requests []batchRequest, results []BatchResult) error {
	pending := make([]int, len(requests))
	for i := range pending {
		pending[i] = i
	}
	patience, _ := patienceOf(ctx)
	latest := time.Now().Add(patience)
	var throttled, transient int
	renewed := false
	// stop ends the batch with what there is; what was never sent says so.
	stop := func(unsent []int, err error) error {
		for _, i := range unsent {
			if results[i].Err == nil {
				results[i].Err = &notSentError{op: op, err: err, passing: true}
			}
		}
		return nil
	}
	for {
		sent, token, err := c.batchOnce(ctx, op, requests, pending, results)
		if err != nil {
			return err
		}
		again := append([]int(nil), pending[sent:]...)
		var wait time.Duration
		var slow, broken, expired bool
		for _, i := range pending[:sent] {
			r := itemCall(op, requests[i])
			var e *Error
			isAnswer := errors.As(results[i].Err, &e)
			switch {
			case results[i].Err == nil:
				continue
			case isAnswer && e.Status == http.StatusUnauthorized && !renewed:
				expired = true
			case isAnswer && e.throttled() && (e.Status == http.StatusTooManyRequests || r.repeat != repeatUnsent):
				slow = true
				wait = max(wait, e.RetryAfter)
			case isAnswer && e.Status == http.StatusFailedDependency:
				broken = true // not carried out
			case r.mayRepeat(results[i].Err, e):
				broken = true
				if isAnswer {
					wait = max(wait, e.RetryAfter)
				}
			default:
				continue
			}
			again = append(again, i)
		}
		if len(again) == 0 {
			return nil
		}
		if expired {
			renewed = true
			c.tokens.Invalidate(token)
		}
		unsent := pending[sent:]
		if slow {
			if throttled++; throttled >= maxThrottled {
				return stop(unsent, errThrottled)
			}
			if wait == 0 {
				wait = backoff(throttled - 1)
			}
			c.budget.pause(wait)
		} else if broken {
			if transient++; transient >= maxTransient {
				return stop(unsent, errThrottled)
			}
			wait = max(wait, backoff(transient-1))
		}
		until := time.Now().Add(wait)
		if deadline, ok := ctx.Deadline(); until.After(latest) || ok && until.After(deadline) {
			return stop(unsent, errThrottled)
		}
		if err := sleep(ctx, wait); err != nil {
			return stop(unsent, err)
		}
		pending = again
	}
}

// itemCall gives an item the rules that the same request has by itself.
func itemCall(op string, r batchRequest) call {
	path, _, _ := strings.Cut(r.URL, "?")
	c := call{op: op, method: r.Method, header: r.Headers, changes: r.Method != http.MethodGet, repeat: repeatRefused}
	switch r.Method {
	case http.MethodGet, http.MethodPatch, http.MethodPut:
		c.repeat = repeatAlways
	case http.MethodPost:
		switch path[strings.LastIndexByte(path, '/')+1:] {
		case "send", "sendMail", "reply", "replyAll", "forward":
			c.repeat, c.sends, c.status = repeatUnsent, 1, http.StatusAccepted
		}
	}
	return c
}

// batchOnce sends pending requests in one batch, the first sent of them, and fills in their results. An error means that
// no result is known; the results of all pending ones then say so, too. It returns the token that was used.
func (c *Client) batchOnce(ctx context.Context, op string, requests []batchRequest, pending []int, results []BatchResult) (sent int, token string, err error) {
	index := make(map[string]int, len(pending))
	r := call{op: op, kind: "batch", method: http.MethodPost, url: c.endpoint.Load().root + "/v1.0/$batch", items: len(pending), repeat: repeatAlways, used: &token}
	for _, i := range pending {
		index[requests[i].ID] = i
		// The batch may be repeated as a whole only as far as its most delicate item may.
		item := itemCall(op, requests[i])
		r.repeat = min(r.repeat, item.repeat)
		r.changes = r.changes || item.changes
		r.sends += item.sends
	}
	most := 0
	pack := func(n int) (*payload, error) {
		part := make([]batchRequest, n)
		for k := range part {
			part[k] = requests[pending[k]]
		}
		sent, most = n, max(most, n)
		return jsonPayload(map[string]any{"requests": part})
	}
	r.fit = func(slots int) (*payload, error) {
		if slots >= min(len(pending), c.budget.limits.Concurrent) {
			slots = len(pending)
		}
		return pack(slots)
	}
	var answer struct {
		Responses *[]batchResponse `json:"responses"`
	}
	if r.body, err = pack(len(pending)); err == nil { // for its size, so far
		most = 0
		err = c.do(ctx, r, func(resp *http.Response) error {
			answer.Responses = nil
			if err := readJSON(resp, &answer); err != nil {
				return err
			}
			if answer.Responses == nil {
				return errors.New("answer holds no responses")
			}
			return nil
		})
	}
	if err != nil {
		for k, i := range pending {
			results[i] = BatchResult{Err: err}
			if requests[i].Method == http.MethodGet || k >= most { // nothing to change, or never sent
				results[i].Err = certain(err)
			}
		}
		return 0, token, err
	}
	answered := make(map[int]bool, len(pending))
	for _, a := range *answer.Responses {
		i, ok := index[a.ID]
		if !ok || answered[i] {
			c.log.WarnContext(ctx, "graph batch answer without its request", "op", op, "status", a.Status)
			continue // the first answer counts
		}
		answered[i] = true
		results[i] = itemResult(itemCall(op, requests[i]), a)
		if c.onItem != nil {
			c.onItem(a.Status)
		}
	}
	for _, i := range pending[:sent] {
		if !answered[i] {
			item := itemCall(op, requests[i])
			results[i] = BatchResult{Err: item.unclear(&transportError{op, errors.New("batch answer lacks the item")})}
		}
	}
	return sent, token, nil
}

// itemResult judges one answer.
func itemResult(r call, a batchResponse) BatchResult {
	body := a.Body
	if bytes.Equal(body, []byte("null")) {
		body = nil
	}
	res := BatchResult{Status: a.Status, Body: body}
	switch {
	case a.Status < 200 || a.Status > 299:
		h := make(http.Header, len(a.Headers))
		for name, raw := range a.Headers {
			var s string
			if json.Unmarshal(raw, &s) != nil {
				s = string(raw)
			}
			h.Set(name, s)
		}
		res.Err = r.judge(newError(r.op, a.Status, h, body))
	case r.status != 0 && a.Status != r.status:
		res.Err = r.unclear(&Error{Op: r.op, Status: a.Status, Message: fmt.Sprintf("%d was to be expected", r.status)})
	}
	return res
}
