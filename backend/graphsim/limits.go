package graphsim

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Limits are the throttling limits of an app in a mailbox. Zero means the service's own, negative switches one off.
type Limits struct {
	MaxConcurrent  int   // requests at once; 4
	Requests       int   // in 10 minutes; 10,000
	UploadBytes    int64 // bodies of POST, PATCH and PUT in 5 minutes; 150 MB
	SendsPerMinute int   // of a mailbox; 30; more are delayed, not refused
}

func (l Limits) withDefaults() Limits {
	if l.MaxConcurrent == 0 {
		l.MaxConcurrent = 4
	}
	if l.Requests == 0 {
		l.Requests = 10000
	}
	if l.UploadBytes == 0 {
		l.UploadBytes = 150 << 20
	}
	if l.SendsPerMinute == 0 {
		l.SendsPerMinute = 30
	}
	return l
}

const (
	requestWindow = 10 * time.Minute
	uploadWindow  = 5 * time.Minute
	retryAfter    = "2.128" // the documentation's sample: a fraction
)

type limitKey struct{ app, mailbox string }

// usage counts what an app does in a mailbox.
type usage struct {
	running  int
	requests window
	uploads  window
}

// window sums up events of a sliding time, in steps of a second.
type window struct {
	length time.Duration
	slots  []slot
	total  int64
}

type slot struct {
	second int64
	n      int64
}

func (w *window) trim(now time.Time) {
	oldest := now.Add(-w.length).Unix()
	i := 0
	for i < len(w.slots) && w.slots[i].second <= oldest {
		w.total -= w.slots[i].n
		i++
	}
	w.slots = w.slots[i:]
}

func (w *window) add(now time.Time, n int64) {
	w.total += n
	if i := len(w.slots) - 1; i >= 0 && w.slots[i].second == now.Unix() {
		w.slots[i].n += n
		return
	}
	w.slots = append(w.slots, slot{now.Unix(), n})
}

// wait is how long until the window has room again.
func (w *window) wait(now time.Time) string {
	if len(w.slots) == 0 {
		return retryAfter
	}
	d := time.Unix(w.slots[0].second, 0).Add(w.length).Sub(now)
	return strconv.Itoa(max(1, int(d/time.Second)+1))
}

func throttled(after, message string) *apiError {
	return fail(http.StatusTooManyRequests, "ApplicationThrottled", "%s", message).with("Retry-After", after)
}

// admit lets a call in, or refuses it with 429. Refused ones count too. The outer request of a batch is not counted: its
// items are.
func (s *Sim) admit(c *call) (release func(), refused *apiError) {
	if isBatch(c.segments) || c.mailboxID == "" {
		return func() {}, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	app := ""
	if tok := s.tokens[strings.TrimSpace(strings.TrimPrefix(c.header.Get("Authorization"), "Bearer "))]; tok != nil {
		app = tok.app.clientID
		if b := tok.app.tenant.users[strings.ToLower(c.mailboxID)]; b != nil {
			c.mailboxID = b.user.UPN // one mailbox, whichever way it is named
		}
	}
	return s.admitLocked(limitKey{app, strings.ToLower(c.mailboxID)}, c.method, int64(len(c.body)))
}

func (s *Sim) admitLocked(key limitKey, method string, size int64) (func(), *apiError) {
	l := s.opts.Limits
	u := s.limits[key]
	if u == nil {
		u = &usage{requests: window{length: requestWindow}, uploads: window{length: uploadWindow}}
		s.limits[key] = u
	}
	now := s.now()
	u.requests.trim(now)
	u.requests.add(now, 1)
	if l.Requests > 0 && u.requests.total > int64(l.Requests) {
		return nil, throttled(u.requests.wait(now), "Application is over its request limit.")
	}
	if l.MaxConcurrent > 0 && u.running >= l.MaxConcurrent {
		return nil, throttled(retryAfter, "Application is over its MailboxConcurrency limit.")
	}
	if size > 0 && (method == http.MethodPost || method == http.MethodPatch || method == http.MethodPut) {
		u.uploads.trim(now)
		if l.UploadBytes > 0 && u.uploads.total+size > l.UploadBytes {
			return nil, throttled(u.uploads.wait(now), "Application is over its upload limit.")
		}
		u.uploads.add(now, size)
	}
	u.running++
	return func() {
		s.mu.Lock()
		u.running--
		s.mu.Unlock()
	}, nil
}
