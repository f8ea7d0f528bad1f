package graphsim

import (
	"log/slog"
	"slices"
	"strings"
	"time"
)

// maxRequestLog bounds the log of requests; the oldest go first.
const maxRequestLog = 200_000

// Request is one request as it was answered.
type Request struct {
	Method   string        `json:"method"`
	Template string        `json:"template"` // the path with ids replaced: /v1.0/users/{u}/messages/{m}/$value
	Path     string        `json:"path"`
	Query    string        `json:"query"`
	Mailbox  string        `json:"mailbox"` // UPN where known
	Prefer   string        `json:"prefer"`
	Status   int           `json:"status"` // 0: the connection was closed instead
	Bytes    int           `json:"bytes"`  // of the body
	InBatch  bool          `json:"inBatch"`
	Time     time.Time     `json:"time"`
	Took     time.Duration `json:"took"`
}

// record keeps a request in the log.
func (s *Sim) record(c *call, status int) {
	r := Request{
		Method: c.method, Template: c.template, Path: c.path, Query: c.rawQuery, Mailbox: c.mailboxID,
		Prefer: strings.Join(c.header.Values("Prefer"), ", "), Status: status, Bytes: len(c.body), InBatch: c.inBatch,
		Time: c.start, Took: s.now().Sub(c.start),
	}
	s.mu.Lock()
	if len(s.requests) >= maxRequestLog {
		s.requests = slices.Delete(s.requests, 0, maxRequestLog/2)
	}
	s.requests = append(s.requests, r)
	s.mu.Unlock()
	s.log.Debug("request", slog.String("method", r.Method), slog.String("path", r.Template), slog.Int("status", status),
		slog.String("mailbox", r.Mailbox), slog.Duration("took", r.Took), slog.String("request_id", c.requestID))
}

// Requests lists the requests since the last reset, batch items after their own order of completion.
func (s *Sim) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// ResetRequests empties the log.
func (s *Sim) ResetRequests() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = nil
}

// CountRequests counts the requests for which keep is true; nil counts all.
func (s *Sim) CountRequests(keep func(Request) bool) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, r := range s.requests {
		if keep == nil || keep(r) {
			n++
		}
	}
	return n
}
