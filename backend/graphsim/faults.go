package graphsim

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// Fault makes matching requests go wrong. It matches on requests to Graph, upload URLs, the token endpoint, and on each item
// of a batch by itself. The zero Match fields match everything; the zero action is 503 without a body.
type Fault struct {
	// Method must be equal, unless empty.
	Method string
	// Path is a regular expression over the path with its query, such as "/sendMail$" or "messages/delta"; case does not matter.
	Path string
	// Mailbox is the {u} of the path or the UPN it belongs to.
	Mailbox string

	// Skip lets the first matching requests pass; then Times requests go wrong, 0 meaning all of them.
	Skip, Times int
	// Every makes only each n-th matching request (after Skip) go wrong.
	Every int
	// Probability, between 0 and 1, makes it a matter of chance, repeatable by Seed. 0 means always.
	Probability float64
	Seed        uint64

	// Delay is waited before anything else.
	Delay time.Duration
	// Status, Code and Message make the answer; the request has no effect unless AfterEffect. With Delay and no Status
	// nothing else goes wrong.
	Status        int
	Code, Message string
	// RetryAfter is the value of the header, "" for none.
	RetryAfter string
	// EmptyBody leaves the error object out.
	EmptyBody bool
	// AfterEffect lets the request have its effect before Status or Drop hide it.
	AfterEffect bool
	// StatusInstead changes the status of a successful answer, such as 200 for 202; the request has its effect. The same
	// without effect is Status 200 with EmptyBody.
	StatusInstead int
	// DropBefore closes the connection before any effect; DropAfter resets it afterwards.
	DropBefore, DropAfter bool
	// TruncateBody sends half of the body of the answer, then closes.
	TruncateBody bool
	// ResetDelta answers 410 SyncStateNotFound with Location.
	ResetDelta bool
	// TokenExpired answers 401 as to an expired token.
	TokenExpired bool

	re    *regexp.Regexp
	seen  int
	fired int
	rnd   *rand.Rand
}

// Inject adds a fault; of several that match, the first one injected acts. The error is that of the regular expression.
func (s *Sim) Inject(f Fault) error {
	if f.Path != "" {
		re, err := regexp.Compile("(?i)" + f.Path)
		if err != nil {
			return fmt.Errorf("fault path: %w", err)
		}
		f.re = re
	}
	f.rnd = rand.New(rand.NewPCG(f.Seed, f.Seed^0x9e3779b97f4a7c15))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, &f)
	return nil
}

// ClearFaults takes all faults away.
func (s *Sim) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// FaultsFired is how often faults have acted since they were injected, those still there.
func (s *Sim) FaultsFired() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, f := range s.faults {
		n += f.fired
	}
	return n
}

// matchFault finds the fault that acts on c.
func (s *Sim) matchFault(c *call) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.faults) == 0 {
		return nil
	}
	target := c.path
	if c.rawQuery != "" {
		target += "?" + c.rawQuery
	}
	for _, f := range s.faults {
		if f.Method != "" && !strings.EqualFold(f.Method, c.method) || f.re != nil && !f.re.MatchString(target) {
			continue
		}
		if f.Mailbox != "" && !s.sameMailbox(f.Mailbox, c.mailboxID) {
			continue
		}
		f.seen++
		n := f.seen - f.Skip
		if n <= 0 || f.Times > 0 && f.fired >= f.Times || f.Every > 1 && n%f.Every != 0 {
			continue
		}
		if f.Probability > 0 && f.rnd.Float64() >= f.Probability {
			continue
		}
		f.fired++
		return f
	}
	return nil
}

func (s *Sim) sameMailbox(a, b string) bool {
	if strings.EqualFold(a, b) {
		return true
	}
	x, y := s.mailboxByAddress(a), s.mailboxByAddress(b)
	for id, box := range s.boxes {
		if strings.EqualFold(id, a) {
			x = box
		}
		if strings.EqualFold(id, b) {
			y = box
		}
	}
	return x != nil && x == y
}

// withFaults runs a call unless a fault has it otherwise.
func (s *Sim) withFaults(c *call, run func() *reply) *reply {
	f := s.matchFault(c)
	if f == nil {
		return run()
	}
	if !s.wait(c.ctx, f.Delay) {
		return c.failure(fail(504, "UnknownError", ""))
	}
	switch {
	case f.TokenExpired:
		return c.failure(unauthorized("Lifetime validation failed, the token is expired. Access token has expired or is not yet valid."))
	case f.ResetDelta:
		return c.failure(c.errResync())
	case f.DropBefore:
		if c.inBatch {
			return c.failure(fail(503, "ServiceUnavailable", "The service is unavailable."))
		}
		return &reply{status: 0, ends: abort}
	case f.DropAfter:
		p := run()
		if c.inBatch {
			return c.failure(fail(504, "GatewayTimeout", "The request timed out."))
		}
		return &reply{status: p.status, ends: reset}
	case f.TruncateBody:
		p := run()
		if c.inBatch {
			return p
		}
		return &reply{status: p.status, ends: func(w http.ResponseWriter) { p.truncated(w, c) }}
	case f.StatusInstead != 0:
		p := run()
		if p.status < 300 {
			p.status = f.StatusInstead
		}
		return p
	case f.Status == 0 && f.Delay > 0:
		return run()
	}
	if f.AfterEffect {
		run()
	}
	return f.reply(c)
}

func (f *Fault) reply(c *call) *reply {
	status, code := f.Status, f.Code
	if status == 0 {
		status = http.StatusServiceUnavailable
	}
	var p *reply
	switch {
	case f.EmptyBody || f.Status == 0 && code == "":
		p = emptyReply(status)
	case strings.HasSuffix(c.template, "/oauth2/v2.0/token"):
		if code == "" {
			code = "temporarily_unavailable"
		}
		p = c.entraFailure(&entraError{status, code, 90055, f.Message})
	default:
		if code == "" {
			code = map[int]string{
				429: "TooManyRequests", 500: "InternalServerError", 502: "BadGateway", 503: "ServiceUnavailable",
				504: "GatewayTimeout", 409: "ErrorIrresolvableConflict", 412: "ErrorIrresolvableConflict",
			}[status]
		}
		if code == "" {
			code = "UnknownError"
		}
		p = c.failure(fail(status, code, "%s", f.Message))
	}
	if f.RetryAfter != "" {
		p.set("Retry-After", f.RetryAfter)
	}
	return p
}

// abort closes the connection without an answer.
func abort(http.ResponseWriter) { panic(http.ErrAbortHandler) }

// reset sends RST where the connection can be had, and closes it where not.
func reset(w http.ResponseWriter) {
	if h, ok := w.(http.Hijacker); ok {
		if conn, _, err := h.Hijack(); err == nil {
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0) // else a plain close, which is nearly as good
			}
			_ = conn.Close()
			return
		}
	}
	panic(http.ErrAbortHandler)
}

// truncated announces the whole body, sends half, and closes.
func (p *reply) truncated(w http.ResponseWriter, c *call) {
	half := *p
	full := len(p.body)
	half.body = p.body[:full/2]
	h := w.Header()
	for k, v := range p.header {
		h[k] = v
	}
	h.Set("Content-Length", fmt.Sprint(full))
	w.WriteHeader(p.status)
	_, _ = w.Write(half.body)
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
	panic(http.ErrAbortHandler)
}

// UnmarshalJSON reads a fault with its fields by name, and durations as texts such as "150ms".
func (f *Fault) UnmarshalJSON(raw []byte) error {
	type plain Fault
	aux := struct {
		*plain
		Delay string
	}{plain: (*plain)(f)}
	if err := strictJSON(raw, &aux); err != nil {
		return err
	}
	if aux.Delay == "" {
		return nil
	}
	d, err := time.ParseDuration(aux.Delay)
	f.Delay = d
	return err
}
