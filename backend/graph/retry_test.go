package graph

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"postern/internal/fuzzcorpus"
)

// ops are calls of each kind of repeatability.
var ops = map[string]func(ctx context.Context, c *Client) error{
	"get": func(ctx context.Context, c *Client) error { _, err := c.Message(ctx, "m", ListOptions{}); return err },
	"patch": func(ctx context.Context, c *Client) error {
		_, err := c.Update(ctx, "m", Update{IsRead: new(bool)})
		return err
	},
	"create": func(ctx context.Context, c *Client) error { _, err := c.Create(ctx, "", NewMessage{}); return err },
	"move":   func(ctx context.Context, c *Client) error { _, err := c.Move(ctx, "m", "archive"); return err },
	"delete": func(ctx context.Context, c *Client) error { return c.Delete(ctx, "m") },
	"draft": func(ctx context.Context, c *Client) error {
		_, err := c.CreateFromMIME(ctx, source("a: b\r\n"), 6)
		return err
	},
	"send":   func(ctx context.Context, c *Client) error { return c.SendMIME(ctx, source("a: b\r\n"), 6) },
	"submit": func(ctx context.Context, c *Client) error { return c.Send(ctx, "m") },
}

// done answers each of ops with success.
func done(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodDelete:
		w.WriteHeader(http.StatusNoContent)
	case strings.HasSuffix(r.URL.Path, "/send") || strings.HasSuffix(r.URL.Path, "/sendMail"):
		w.WriteHeader(http.StatusAccepted)
	default:
		reply(w, http.StatusCreated, `{"id":"m"}`)
	}
}

func TestRepeats(t *testing.T) {
	every := "get patch create move delete draft send submit"
	reads := "get patch"
	const sends = "send submit"
	for _, tt := range []struct {
		name       string
		status     int
		code       string
		retryAfter string
		repeated   string // ops that try again and succeed
		unclear    string // ops whose failure is unclear
	}{
		{"429", 429, "TooManyRequests", "2", every, ""},
		{"429 concurrency", 429, "ApplicationThrottled", "2.128", every, ""},
		{"429 without a time", 429, "activityLimitReached", "", every, ""},
		{"429 sending quota", 429, "ErrorSubmissionQuotaExceeded", "2", reads, ""},
		{"503 throttling", 503, "ThrottledRequest", "", "get patch create move delete draft", sends},
		{"503 with a time", 503, "", "3", "get patch create move delete draft", sends},
		{"503 empty", 503, "", "", reads, "create move delete draft send submit"},
		{"500", 500, "ErrorInternalServerError", "", reads, "create move delete draft send submit"},
		{"502", 502, "", "", reads, "create move delete draft send submit"},
		{"504", 504, "", "", reads, "create move delete draft send submit"},
		{"500 for good", 500, "ErrorCorruptData", "", "", ""},
		{"507", 507, "ErrorQuotaExceeded", "", "", ""},
		{"404", 404, "ErrorItemNotFound", "", "", ""},
		{"400", 400, "ErrorInvalidIdMalformed", "", "", ""},
		{"403", 403, "ErrorAccessDenied", "", "", ""},
		{"413", 413, "", "", "", ""},
		{"409 two writers", 409, "ErrorIrresolvableConflict", "", "get patch create move delete draft", ""},
		{"412 without a condition", 412, "ErrorIrresolvableConflict", "", "get patch create move delete draft", ""},
		{"401", 401, "InvalidAuthenticationToken", "", every, ""},
	} {
		for name, op := range ops {
			t.Run(tt.name+"/"+name, func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					c, s, _ := bubbled(func(n int, w http.ResponseWriter, r *http.Request, body string) {
						if n == 0 {
							if tt.retryAfter != "" {
								w.Header().Set("Retry-After", tt.retryAfter)
							}
							if tt.code == "" {
								w.WriteHeader(tt.status)
							} else {
								refuse(w, tt.status, tt.code)
							}
							return
						}
						done(w, r)
					})
					err := op(t.Context(), c)
					repeated := has(tt.repeated, name)
					if got := len(s.seen()) > 1; got != repeated || repeated != (err == nil) {
						t.Fatalf("%d requests, error %v; want repeated %v", len(s.seen()), err, repeated)
					}
					if got := Unclear(err); got != (!repeated && has(tt.unclear, name)) {
						t.Errorf("Unclear(%v) = %v", err, got)
					}
					if err != nil && StatusOf(err) != tt.status {
						t.Errorf("status of %v is %d", err, StatusOf(err))
					}
					seen := s.seen()
					if repeated && seen[0].Body != seen[1].Body {
						t.Errorf("body of the repeat is %q, was %q", seen[1].Body, seen[0].Body)
					}
					if want := parseRetryAfter(tt.retryAfter, time.Now()); repeated && tt.status != 401 && seen[1].At.Sub(seen[0].At) < max(want, 400*time.Millisecond) {
						t.Errorf("repeated after %v, want %v", seen[1].At.Sub(seen[0].At), want)
					}
				})
			})
		}
	}
}

func has(list, word string) bool {
	for _, w := range strings.Fields(list) {
		if w == word {
			return true
		}
	}
	return false
}

// broken is a transport that fails in a way.
type broken struct {
	read bool // the request's body to its end first
	err  error
	n    int
}

func (b *broken) RoundTrip(r *http.Request) (*http.Response, error) {
	b.n++
	if r.Body != nil {
		if b.read {
			io.Copy(io.Discard, r.Body)
		}
		r.Body.Close()
	}
	return nil, b.err
}

func TestTransportFailures(t *testing.T) {
	dial := &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	reset := &net.OpError{Op: "read", Err: errors.New("connection reset by peer")}
	for _, tt := range []struct {
		name     string
		read     bool
		err      error
		op       string
		requests int
		unclear  bool
	}{
		{"no connection", false, dial, "send", maxTransient, false},
		{"no connection", false, dial, "submit", maxTransient, false},
		{"no connection", false, dial, "get", maxTransient, false},
		{"reset before the body's end", false, reset, "send", maxTransient, false},
		{"reset after the body", true, reset, "send", 1, true},
		{"reset, no body", true, reset, "submit", 1, true},
		{"reset after the body", true, reset, "create", 1, true},
		{"reset after the body", true, reset, "patch", maxTransient, true},
		{"reset", true, reset, "get", maxTransient, false},
	} {
		t.Run(tt.name+"/"+tt.op, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				b := &broken{read: tt.read, err: tt.err}
				c := New(Options{BaseURL: testHost, User: "u", Tokens: new(tokens), HTTPClient: &http.Client{Transport: b}})
				err := ops[tt.op](t.Context(), c)
				if err == nil || b.n != tt.requests || Unclear(err) != tt.unclear || !IsTemporary(err) {
					t.Errorf("%d requests, unclear %v, temporary %v, %v; want %d, %v", b.n, Unclear(err), IsTemporary(err), err, tt.requests, tt.unclear)
				}
			})
		})
	}
}

// hang answers nothing until the request is given up.
type hang struct{ n int }

func (h *hang) RoundTrip(r *http.Request) (*http.Response, error) {
	h.n++
	if r.Body != nil {
		io.Copy(io.Discard, r.Body)
		r.Body.Close()
	}
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func TestNoAnswer(t *testing.T) {
	for _, tt := range []struct {
		op       string
		requests int
		took     time.Duration
		unclear  bool
	}{
		{"send", 1, 2 * DefaultTimeout, true},
		{"create", 1, 2 * DefaultTimeout, true},
		{"get", maxTransient, maxTransient * DefaultTimeout, false},
	} {
		t.Run(tt.op, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				h := new(hang)
				c := New(Options{BaseURL: testHost, User: "u", Tokens: new(tokens), HTTPClient: &http.Client{Transport: h}})
				began := time.Now()
				err := ops[tt.op](t.Context(), c)
				if !errors.Is(err, context.DeadlineExceeded) || Unclear(err) != tt.unclear || h.n != tt.requests || !IsTemporary(err) {
					t.Errorf("%d requests, unclear %v, error %v", h.n, Unclear(err), err)
				}
				if took := time.Since(began); took < tt.took || took > tt.took+20*time.Second {
					t.Errorf("took %v, want about %v", took, tt.took)
				}
			})
		})
	}
}

func TestCallerGivesUp(t *testing.T) {
	for _, op := range []string{"get", "send"} {
		bubble(t, func(t *testing.T) {
			c := New(Options{BaseURL: testHost, User: "u", Tokens: new(tokens), HTTPClient: &http.Client{Transport: new(hang)}})
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			began := time.Now()
			err := ops[op](ctx, c)
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 5*time.Second || Unclear(err) != (op == "send") {
				t.Errorf("%s: after %v: %v", op, time.Since(began), err)
			}
		})
	}
}

// A caller whose deadline comes before the end of a Retry-After learns so at once, and as throttling.
func TestRetryAfterBeyondDeadline(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, s, _ := bubbled(func(n int, w http.ResponseWriter, r *http.Request, body string) {
			w.Header().Set("Retry-After", "100")
			refuse(w, 429, "TooManyRequests")
		})
		began := time.Now()
		ctx := WithLane(t.Context(), Interactive)
		err := ops["get"](ctx, c)
		if !IsThrottled(err) || RetryAfter(err) != 100*time.Second || time.Since(began) != 0 {
			t.Fatalf("after %v: %v", time.Since(began), err)
		}
		// The mailbox remembers: the next call is not even tried.
		if d := c.Budget().Delay(Sending); d != 100*time.Second {
			t.Errorf("delay %v", d)
		}
		err = ops["send"](WithLane(t.Context(), Sending), c)
		if !IsThrottled(err) || !IsCode(err, CodeLocalBudget) || RetryAfter(err) != 100*time.Second || Unclear(err) {
			t.Errorf("second call: %v", err)
		}
		if len(s.seen()) != 1 {
			t.Errorf("%d requests", len(s.seen()))
		}
	})
}

func TestTokenRenewedOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, s, tok := bubbled(func(n int, w http.ResponseWriter, r *http.Request, body string) {
			refuse(w, 401, "InvalidAuthenticationToken")
		})
		err := ops["send"](t.Context(), c)
		if StatusOf(err) != 401 || len(s.seen()) != 2 || Unclear(err) {
			t.Errorf("%d requests: %v", len(s.seen()), err)
		}
		if got := s.seen()[1].Header.Get("Authorization"); got != "Bearer secret-1" {
			t.Errorf("repeat with %q", got)
		}
		if len(tok.invalidated) != 2 || tok.invalidated[0] != "secret-0" {
			t.Errorf("invalidated %v", tok.invalidated)
		}
	})
}

func TestPayloadUnread(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, s, _ := bubbled(func(n int, w http.ResponseWriter, r *http.Request, body string) {
			if n == 0 {
				reply(w, 500, `{"error":{"code":"x","message":"IO error during request payload read."}}`)
				return
			}
			done(w, r)
		})
		if err := ops["send"](t.Context(), c); err != nil || s.seen()[1].Body != s.seen()[0].Body {
			t.Errorf("%d requests: %v", len(s.seen()), err)
		}
	})
}

func TestOtherStatusForSend(t *testing.T) {
	for _, status := range []int{200, 201, 204} {
		c, _, _ := bubbled(func(n int, w http.ResponseWriter, r *http.Request, body string) { w.WriteHeader(status) })
		if err := ops["send"](t.Context(), c); !Unclear(err) {
			t.Errorf("%d: %v is not unclear", status, err)
		}
	}
}

// A creation whose answer is cut off has happened.
func TestCutOffAnswer(t *testing.T) {
	c, s, _ := served(t, func(n int, w http.ResponseWriter, r *http.Request, body string) {
		w.Header().Set("Content-Length", "100")
		reply(w, 201, `{"id":"m",`)
	})
	if err := ops["create"](t.Context(), c); !Unclear(err) || len(s.seen()) != 1 {
		t.Errorf("%d requests: %v", len(s.seen()), err)
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"1", "2.128", "-1", "NaN", "Inf", "1e99", "Mon, 02 Jan 2006 15:04:05 GMT", "0x10", ""} {
		f.Add(s)
	}
	now := time.Date(2006, 1, 2, 15, 4, 0, 0, time.UTC)
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, s string) {
		if d := parseRetryAfter(s, now); d < 0 || d > maxRetryAfter {
			t.Errorf("parseRetryAfter(%q) = %v", s, d)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2006, 1, 2, 15, 4, 0, 0, time.UTC)
	for s, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "2.128": 2128 * time.Millisecond, " 3 ": 3 * time.Second, "-5": 0, "soon": 0, "NaN": 0,
		"999999": time.Hour, "Mon, 02 Jan 2006 15:04:05 GMT": 5 * time.Second, "Mon, 02 Jan 2006 15:03:05 GMT": 0,
	} {
		if got := parseRetryAfter(s, now); got != want {
			t.Errorf("parseRetryAfter(%q) = %v, want %v", s, got, want)
		}
	}
}

// A date is measured by the clock of the server that wrote it.
func TestRetryAfterByServerClock(t *testing.T) {
	for _, off := range []time.Duration{-3 * time.Hour, 0, 3 * time.Hour} {
		there := time.Now().Add(off)
		h := http.Header{"Date": {there.UTC().Format(http.TimeFormat)}, "Retry-After": {there.Add(20 * time.Second).UTC().Format(http.TimeFormat)}}
		if got := newError("list", 429, h, nil).RetryAfter; got != 20*time.Second {
			t.Errorf("clock %v off: wait %v, want 20s", off, got)
		}
	}
}
