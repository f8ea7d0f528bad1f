package graphsim

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
)

// maxBatch is how many requests a batch may hold; batchWidth how many of one mailbox run at once.
// Graph: json-batching; the second observed, not documented.
const (
	maxBatch   = 20
	batchWidth = 4
)

type batchItem struct {
	ID        string                     `json:"id"`
	Method    string                     `json:"method"`
	URL       string                     `json:"url"`
	Headers   map[string]json.RawMessage `json:"headers"`
	Body      json.RawMessage            `json:"body"`
	DependsOn []string                   `json:"dependsOn"`
}

func isBatch(seg []string) bool {
	return len(seg) == 2 && (seg[0] == "v1.0" || seg[0] == "beta") && strings.EqualFold(seg[1], "$batch")
}

// batch answers POST /$batch. Each item is throttled, and may be made to fail, by itself.
func (s *Sim) batch(c *call) *reply {
	items, err := s.openBatch(c)
	if err != nil {
		return c.failure(err)
	}
	done := make([]*reply, len(items))
	index := map[string]int{}
	for i, it := range items {
		index[it.ID] = i
	}
	if sequential(items) {
		for i, it := range items {
			done[i] = s.batchRun(c, it, func(id string) *reply { return done[index[id]] })
		}
	} else {
		// A mailbox gets four at a time; the others of the batch wait, they are not refused.
		var wg sync.WaitGroup
		lanes := map[string]chan struct{}{}
		finished := make([]chan struct{}, len(items))
		for i := range items {
			finished[i] = make(chan struct{})
		}
		for i, it := range items {
			lane := lanes[it.mailbox()]
			if lane == nil {
				lane = make(chan struct{}, batchWidth)
				lanes[it.mailbox()] = lane
			}
			wg.Add(1)
			go func() {
				defer wg.Done()
				defer close(finished[i])
				for _, id := range it.DependsOn {
					<-finished[index[id]]
				}
				lane <- struct{}{}
				defer func() { <-lane }()
				done[i] = s.batchRun(c, it, func(id string) *reply { return done[index[id]] })
			}()
		}
		wg.Wait()
	}
	rows := make([]object, 0, len(items))
	// Answers come in any order: the last first.
	for i := len(items) - 1; i >= 0; i-- {
		rows = append(rows, batchRow(items[i].ID, done[i]))
	}
	return jsonReply(200, object{{"responses", rows}})
}

// mailbox is the {u} of the item's URL.
func (it batchItem) mailbox() string {
	path, _, _ := strings.Cut(it.URL, "?")
	seg, err := splitPath(path)
	if err != nil || len(seg) < 2 {
		return ""
	}
	return strings.ToLower(seg[1])
}

// sequential reports whether each item depends on the one before it.
func sequential(items []batchItem) bool {
	if len(items) < 2 {
		return true
	}
	for i := 1; i < len(items); i++ {
		if len(items[i].DependsOn) != 1 || items[i].DependsOn[0] != items[i-1].ID {
			return false
		}
	}
	return true
}

func errBatch(format string, args ...any) *apiError {
	return fail(400, "BadRequest", "Invalid batch payload format. "+format, args...)
}

// openBatch reads a batch and refuses what is not well-formed as a whole.
func (s *Sim) openBatch(c *call) ([]batchItem, *apiError) {
	s.mu.Lock()
	err := s.authenticateLocked(c)
	s.mu.Unlock()
	switch {
	case err != nil:
		return nil, err
	case c.method != http.MethodPost:
		return nil, errMethod()
	case c.tooLarge:
		return nil, fail(413, "RequestEntityTooLarge", "The request body is too large.")
	case c.noLength:
		return nil, fail(411, "LengthRequired", "A message body or Content-Length header is required.")
	}
	body, err := c.jsonBody()
	if err != nil {
		return nil, err
	}
	var items []batchItem
	if json.Unmarshal(body["requests"], &items) != nil || len(items) == 0 {
		return nil, errBatch("The 'requests' array is missing or empty.")
	}
	if len(items) > maxBatch {
		return nil, fail(400, "MaximumValueExceeded", "Number of batch request steps exceeds the maximum value of %d.", maxBatch)
	}
	seen := map[string]bool{}
	for _, it := range items {
		if it.ID == "" || seen[it.ID] {
			return nil, errBatch("Request ids must be there and unique: '%s'.", it.ID)
		}
		for _, d := range it.DependsOn {
			if !seen[d] { // only earlier ones, so there is no cycle
				return nil, errBatch("The request '%s' depends on '%s', which is not an earlier one.", it.ID, d)
			}
		}
		seen[it.ID] = true
		if it.Method == "" || it.URL == "" {
			return nil, errBatch("The request '%s' has no method or url.", it.ID)
		}
		if strings.Contains(it.URL, "://") {
			return nil, errBatch("The url of request '%s' must be relative.", it.ID)
		}
		if strings.HasPrefix(strings.ToLower(strings.TrimPrefix(it.URL, "/")), "$batch") {
			return nil, errBatch("The request '%s' is a batch itself.", it.ID)
		}
		if len(it.Body) > 0 && string(it.Body) != "null" && it.header("Content-Type") == "" {
			return nil, errBatch("The request '%s' has a body but no Content-Type header.", it.ID)
		}
	}
	return items, dependsShape(items)
}

// dependsShape allows all in sequence, none, or all on the same one.
func dependsShape(items []batchItem) *apiError {
	if sequential(items) {
		return nil
	}
	same := ""
	for _, it := range items {
		if len(it.DependsOn) == 0 {
			continue
		}
		if len(it.DependsOn) > 1 || same != "" && it.DependsOn[0] != same {
			return errBatch("Only dependencies in sequence, or all on the same request, are supported.")
		}
		same = it.DependsOn[0]
	}
	return nil
}

func (it batchItem) header(name string) string {
	for k, v := range it.Headers {
		if strings.EqualFold(k, name) {
			var s string
			if json.Unmarshal(v, &s) == nil {
				return s
			}
			return string(v)
		}
	}
	return ""
}

// batchRun runs one item as a call of its own.
func (s *Sim) batchRun(outer *call, it batchItem, result func(id string) *reply) *reply {
	c := &call{
		sim: s, ctx: outer.ctx, method: strings.ToUpper(it.Method), base: outer.base, header: http.Header{},
		requestID: outer.requestID, clientID: outer.clientID, start: s.now(), inBatch: true,
	}
	version := outer.segments[0]
	path, rawQuery, _ := strings.Cut(it.URL, "?")
	c.path = "/" + version + "/" + strings.TrimPrefix(path, "/")
	c.rawQuery = rawQuery
	for k := range it.Headers {
		c.header.Set(k, it.header(k))
	}
	c.header.Set("Authorization", outer.header.Get("Authorization"))
	for _, d := range it.DependsOn {
		if p := result(d); p == nil || p.status >= 400 {
			return c.failure(fail(http.StatusFailedDependency, "FailedDependency", "A request this one depends on has failed."))
		}
	}
	if len(it.Body) > 0 && string(it.Body) != "null" {
		var text string
		switch {
		case it.Body[0] == '"' && json.Unmarshal(it.Body, &text) == nil:
			// A body that is not JSON is base64 in a string. For MIME the body already is base64.
			c.body = []byte(text)
			if raw, err := base64.StdEncoding.DecodeString(text); err == nil && !c.isMIME() {
				c.body = raw
			}
		default:
			c.body = it.Body
		}
	}
	return s.handle(c)
}

// batchRow shows the answer of one item.
func batchRow(id string, p *reply) object {
	headers := object{}
	for k, v := range p.header {
		headers = append(headers, property{k, v[0]})
	}
	row := object{{"id", id}, {"status", p.status}, {"headers", headers}}
	if len(p.body) == 0 {
		return row
	}
	if bytes.HasPrefix([]byte(p.header.Get("Content-Type")), []byte("application/json")) && json.Valid(p.body) {
		return append(row, property{"body", json.RawMessage(p.body)})
	}
	return append(row, property{"body", base64.StdEncoding.EncodeToString(p.body)})
}
