package token

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

// Error says why no token could be had. Its text holds nothing secret; the service's own description, which names
// identifiers, is left out.
type Error struct {
	OAuth         string        // invalid_client and so on; empty when no answer of that form came
	Codes         []int         // AADSTS numbers
	Advice        string        // a sentence for the administrator; may be empty
	Status        int           // HTTP status, 0 when no answer came
	CorrelationID string        // what Microsoft's support asks for
	RetryAfter    time.Duration // until the next request will be made; nothing is asked before
	Permanent     bool          // nothing but a change of configuration, here or in Entra, will help
	Err           error         // the cause where no answer came
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("sign in to Microsoft: ")
	switch {
	case e.OAuth != "":
		b.WriteString(e.OAuth)
	case e.Status != 0:
		fmt.Fprintf(&b, "status %d", e.Status)
	case e.Err != nil:
		b.WriteString(e.Err.Error())
	default:
		b.WriteString("no token")
	}
	for _, code := range e.Codes {
		fmt.Fprintf(&b, " AADSTS%d", code)
	}
	if e.Advice != "" {
		b.WriteString(": ")
		b.WriteString(e.Advice)
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// permanent holds the OAuth errors that no repeat will mend. Entra: reference-error-codes.
var permanent = map[string]bool{
	"invalid_client": true, "unauthorized_client": true, "invalid_scope": true, "invalid_resource": true,
	"invalid_request": true, "unsupported_grant_type": true, "invalid_grant": true,
}

// newError describes a failed request. It drops the library's error where an answer came, because that one's text
// repeats the whole body.
func newError(err error, now time.Time) *Error {
	var r *oauth2.RetrieveError
	if !errors.As(err, &r) {
		e := &Error{Err: err}
		switch {
		case errors.Is(err, ErrNotSignedIn):
			e.Permanent, e.Advice = true, "Let the user sign in: postern signin CREDENTIAL --config FILE."
		case errors.Is(err, errTokenFile):
			e.Advice = "Check federated_token_file: the file must be there, readable for Postern, and renewed by whoever issues it."
		}
		return e
	}
	e := &Error{OAuth: clean(r.ErrorCode)}
	if r.Response != nil {
		e.Status = r.Response.StatusCode
		e.RetryAfter = parseRetryAfter(r.Response.Header.Get("Retry-After"), now)
	}
	var body struct {
		Error         string `json:"error"`
		Codes         []int  `json:"error_codes"`
		CorrelationID string `json:"correlation_id"`
	}
	// A body of another form (a proxy's page) leaves what the status says. A field of a wrong type must not hide others.
	_ = json.Unmarshal(r.Body, &body)
	if e.OAuth == "" {
		e.OAuth = clean(body.Error)
	}
	e.Codes = body.Codes[:min(len(body.Codes), 8)]
	if len(e.Codes) == 0 {
		if code, ok := aadsts(string(r.Body)); ok {
			e.Codes = []int{code}
		}
	}
	e.CorrelationID = clean(body.CorrelationID)
	for _, code := range e.Codes {
		if e.Advice = Advice(code); e.Advice != "" {
			break
		}
	}
	if e.Advice == "" {
		e.Advice = byOAuth[e.OAuth]
	}
	// A 5xx or 429 is never for good, whatever the body holds.
	e.Permanent = permanent[e.OAuth] && e.Status >= 400 && e.Status < 500 && e.Status != http.StatusTooManyRequests
	return e
}

// aadsts finds the number in a description that comes without error_codes.
func aadsts(s string) (int, bool) {
	_, rest, ok := strings.Cut(s, "AADSTS")
	if !ok {
		return 0, false
	}
	end := 0
	for end < len(rest) && end < 9 && '0' <= rest[end] && rest[end] <= '9' {
		end++
	}
	n, err := strconv.Atoi(rest[:end])
	return n, err == nil
}

// clean keeps a word from outside fit for a log line.
func clean(s string) string {
	if len(s) > 64 {
		s = s[:64]
	}
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '_'
		}
		return r
	}, s)
}

// maxRetryAfter bounds what the service may ask for, so that one odd answer cannot stop a mailbox for days.
const maxRetryAfter = time.Hour

// parseRetryAfter reads seconds, whole or with a fraction, or an HTTP date. RFC 9110 section 10.2.3.
func parseRetryAfter(s string, now time.Time) time.Duration {
	s = strings.TrimSpace(s)
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		if math.IsNaN(f) || f <= 0 {
			return 0
		}
		return time.Duration(min(f, maxRetryAfter.Seconds()) * float64(time.Second))
	}
	if t, err := http.ParseTime(s); err == nil {
		return max(0, min(t.Sub(now), maxRetryAfter))
	}
	return 0
}
