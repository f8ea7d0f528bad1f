package graph

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Error is an answer by which Graph refused a request. Graph: errors.
type Error struct {
	Status          int    // HTTP status, of the item where it was one of a batch
	Code            string // as sent; empty when the body had none, as some 503 and 404 do. Compare by HasCode
	Message         string // as sent, shortened
	RequestID       string // what Microsoft's support asks for
	ClientRequestID string
	RetryAfter      time.Duration // zero when not said
	Op              string        // what was being done, such as "move message"

	innerCode string // what innerError says more exactly than Code, where it does
}

// CodeLocalBudget is the Code of an error that no server sent: the mailbox's own budget, or an earlier Retry-After,
// would have made the call wait longer than its lane or its deadline allows. Status is 429 and RetryAfter says how long.
const CodeLocalBudget = "PosternBudget"

func (e *Error) Error() string {
	var b strings.Builder
	if e.Op != "" {
		b.WriteString(e.Op)
		b.WriteString(": ")
	}
	if e.Code == CodeLocalBudget {
		fmt.Fprintf(&b, "throttled: next call in %s", e.RetryAfter.Round(time.Millisecond))
		return b.String()
	}
	fmt.Fprintf(&b, "graph answered %d", e.Status)
	if e.Code != "" {
		b.WriteByte(' ')
		b.WriteString(e.Code)
	}
	if e.Message != "" {
		b.WriteString(": ")
		b.WriteString(e.Message)
	}
	if e.RequestID != "" {
		fmt.Fprintf(&b, " (request-id %s)", e.RequestID)
	}
	return b.String()
}

// HasCode reports whether the error has the code, without regard to case and to a leading "Error": Graph's layers write
// ErrorItemNotFound, itemNotFound and ItemNotFound for the same thing.
func (e *Error) HasCode(code string) bool {
	return e.Code != "" && bareCode(e.Code) == bareCode(code)
}

func bareCode(code string) string {
	code = strings.ToLower(code)
	if bare, ok := strings.CutPrefix(code, "error"); ok && bare != "" {
		return bare
	}
	return code
}

// IsCode reports whether err is a Graph answer with one of the codes, compared as by HasCode.
func IsCode(err error, codes ...string) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	for _, code := range codes {
		if e.HasCode(code) {
			return true
		}
	}
	return false
}

// StatusOf returns the HTTP status of the Graph answer in err, 0 if there is none.
func StatusOf(err error) int {
	var e *Error
	if errors.As(err, &e) {
		return e.Status
	}
	return 0
}

// RetryAfter returns how long Graph (or the budget) asked to wait, 0 if it did not say.
func RetryAfter(err error) time.Duration {
	var e *Error
	if errors.As(err, &e) {
		return e.RetryAfter
	}
	return 0
}

// IsNotFound reports that the folder or message is not there. A missing mailbox is not this but IsNoMailbox.
func IsNotFound(err error) bool {
	if IsNoMailbox(err) {
		return false
	}
	return IsCode(err, "ErrorItemNotFound", "ErrorFolderNotFound", "ErrorSyncFolderNotFound") || StatusOf(err) == http.StatusNotFound
}

// IsNoMailbox reports that the user has no mailbox that Graph reaches, or does not exist. The codes change between
// moments and data centres.
func IsNoMailbox(err error) bool {
	return IsCode(err, "MailboxNotEnabledForRESTAPI", "MailboxNotHostedInExchangeOnline", "ErrorInvalidUser",
		"ResourceNotFound", "Request_ResourceNotFound", "ErrorNonExistentMailbox", "ErrorMailboxNotFound")
}

// IsThrottled reports that Graph, or the mailbox's own budget, asks for fewer requests.
func IsThrottled(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.throttled()
}

func (e *Error) throttled() bool {
	if e.Status == http.StatusTooManyRequests {
		return !e.sendingQuota()
	}
	if e.Status == 509 {
		return true
	}
	return e.Status == http.StatusServiceUnavailable && (e.RetryAfter > 0 || e.HasCode("ThrottledRequest") ||
		e.HasCode("ApplicationThrottled") || e.HasCode("TooManyRequests") || e.HasCode("activityLimitReached") ||
		e.HasCode("ErrorServerBusy"))
}

// sendingQuota tells a limit on sending from one on requests: no waiting of seconds helps, and reading goes on.
func (e *Error) sendingQuota() bool {
	return e.HasCode("ErrorSubmissionQuotaExceeded") || e.HasCode("ErrorExceededMessageLimit") || e.HasCode("ErrorMessageSubmissionBlocked")
}

// IsSendingQuota reports that the mailbox has sent as much as it may for now; reading still works.
func IsSendingQuota(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.sendingQuota()
}

// staleLink is the cause when a link that was kept leads elsewhere than Graph is now: its address in the configuration
// has changed.
type staleLink struct{ err error }

func (e *staleLink) Error() string { return e.err.Error() }

func (e *staleLink) Unwrap() error { return e.err }

// keptLink marks what is wrong with a link that the caller had kept. One that Graph has just given is no such thing:
// to begin anew would only bring another of its kind.
func keptLink(kept bool, err error) error {
	if kept {
		return &staleLink{err}
	}
	return err
}

// ResyncRequired reports that a link that was kept is void and the folder must be read anew. A deleted folder is not
// this but IsFolderGone. Graph: delta-query-overview; observed: codes in any case, on any 4xx.
func ResyncRequired(err error) bool {
	if _, ok := errors.AsType[*staleLink](err); ok {
		return true
	}
	var e *Error
	if !errors.As(err, &e) || IsFolderGone(err) {
		return false
	}
	if e.Status == http.StatusGone {
		return true
	}
	if e.Status < 400 || e.Status > 499 {
		return false
	}
	for _, code := range []string{e.Code, e.innerCode} {
		switch bareCode(code) {
		case "syncstatenotfound", "syncstateinvalid", "resyncrequired", "invalidsyncstatedata":
			return true
		}
	}
	return false
}

// LinkRefused reports a refusal that says neither who we are nor that we are too fast. Where a link that was kept is refused
// so again and again, the link is the likeliest cause, although no code says it: which codes a void one gets is not documented in full.
func LinkRefused(err error) bool {
	switch status := StatusOf(err); status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusRequestTimeout, http.StatusLocked, http.StatusTooManyRequests:
		return false
	default:
		return status >= 400 && status <= 499 && !IsNoMailbox(err) && !IsFolderGone(err)
	}
}

// IsFolderGone reports a delta round over a folder that no longer exists.
func IsFolderGone(err error) bool { return IsCode(err, "ErrorSyncFolderNotFound") }

// IsDenied reports that the app may not do this in this mailbox. It may hold for up to two hours after an administrator
// allowed it (RBAC for Applications).
func IsDenied(err error) bool {
	if IsQuota(err) || IsSendingQuota(err) {
		return false
	}
	return StatusOf(err) == http.StatusForbidden || IsCode(err, "ErrorAccessDenied")
}

// IsQuota reports a full mailbox. It comes as 507 or 403, also from delta rounds.
func IsQuota(err error) bool {
	return IsCode(err, "ErrorQuotaExceeded") || StatusOf(err) == http.StatusInsufficientStorage
}

// IsFolderExists reports that the folder's name is taken: 400 mostly, 409 in some accounts.
func IsFolderExists(err error) bool { return IsCode(err, "ErrorFolderExists") }

// IsTooLarge reports that the request or the message is larger than allowed.
func IsTooLarge(err error) bool {
	return StatusOf(err) == http.StatusRequestEntityTooLarge ||
		IsCode(err, "ErrorMessageSizeExceeded", "RequestEntityTooLarge")
}

// IsTemporary reports that the same call may work later: throttling, server faults, a network that failed, no progress
// in time. It says nothing about whether a repeat is harmless; for that see Unclear.
func IsTemporary(err error) bool {
	var e *Error
	if errors.As(err, &e) {
		if lasting(e) {
			return false
		}
		switch e.Status {
		case http.StatusRequestTimeout, http.StatusLocked, http.StatusTooManyRequests, 509:
			return true
		case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported, http.StatusInsufficientStorage:
			return false
		case http.StatusConflict, http.StatusPreconditionFailed, http.StatusFailedDependency:
			return true
		case http.StatusUnauthorized:
			return true // the token was renewed once already; Entra and Graph may disagree for a while
		}
		return e.Status >= 500
	}
	var t *transportError
	var n *notSentError
	return errors.As(err, &t) || errors.As(err, &n) && n.passing
}

// Unclear reports that the request may have had its effect although it failed: no answer in time, a connection broken
// after the request was written, a server fault, a cut-off answer, 200 where 202 belongs. Look before repeating it.
func Unclear(err error) bool {
	var u *unclearError
	return errors.As(err, &u)
}

// unclearError marks an error for Unclear.
type unclearError struct{ err error }

func (u *unclearError) Error() string { return u.err.Error() + " (outcome unclear)" }
func (u *unclearError) Unwrap() error { return u.err }

// certain takes the mark for Unclear away, for those parts of a failed call that cannot have had an effect.
func certain(err error) error {
	var u *unclearError
	if errors.As(err, &u) {
		return u.err
	}
	return err
}

// transportError is a request without a whole answer: no connection, a reset, no progress, a body cut off.
type transportError struct {
	op  string
	err error
}

func (t *transportError) Error() string { return t.op + ": " + t.err.Error() }
func (t *transportError) Unwrap() error { return t.err }

// errNoProgress is the cause when a request saw no byte for the client's timeout.
var errNoProgress = fmt.Errorf("no progress in time: %w", context.DeadlineExceeded)

// lasting reports faults of single items that come as 5xx but stay however often one asks (observed, not documented).
func lasting(e *Error) bool {
	for _, code := range []string{"ErrorCorruptData", "ErrorInvalidRecipients", "ErrorCannotOpenFileAttachment",
		"ErrorMessageSizeExceeded", "ErrorQuotaExceeded", "ErrorSendAsDenied", "ErrorAccessDenied", "ErrorItemNotFound",
		"ErrorFolderExists", "ErrorInvalidIdMalformed", "ErrorMimeContentInvalidBase64String", "UnableToDeserializePostBody",
		"ErrorAccountSuspend", "ErrorMessageSubmissionBlocked"} {
		if e.HasCode(code) {
			return true
		}
	}
	return false
}

// payloadUnread reports the answer by which Graph's front says that it could not read the request's body to its end. The
// request was not carried out, whatever the status (observed, not documented).
func (e *Error) payloadUnread() bool {
	return strings.Contains(e.Message, "IO error during request payload read")
}

// serverTime returns the time by the server's clock: a date in its answer is to be measured by that, not by ours.
func serverTime(h http.Header) time.Time {
	if t, err := http.ParseTime(h.Get("Date")); err == nil {
		return t
	}
	return time.Now()
}

const (
	maxErrorBody    = 256 << 10
	maxErrorMessage = 500
)

// decodeError reads the error answer in resp. It takes anything: no body, HTML, a body of another shape.
func decodeError(op string, resp *http.Response) *Error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	return newError(op, resp.StatusCode, resp.Header, body)
}

func newError(op string, status int, h http.Header, body []byte) *Error {
	e := &Error{
		Op: op, Status: status,
		RequestID:       h.Get("request-id"),
		ClientRequestID: h.Get("client-request-id"),
		RetryAfter:      parseRetryAfter(h.Get("Retry-After"), serverTime(h)),
	}
	var j struct {
		Error json.RawMessage `json:"error"`
	}
	if json.Unmarshal(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")), &j) != nil {
		return e
	}
	var detail struct {
		Code       string          `json:"code"`
		Message    string          `json:"message"`
		InnerError json.RawMessage `json:"innerError"` // innererror too: keys match without case
	}
	if json.Unmarshal(j.Error, &detail) != nil {
		// Gateways in front of Graph write {"error":"text"}.
		_ = json.Unmarshal(j.Error, &e.Code)
		e.Code = shorten(e.Code, 80)
		return e
	}
	e.Code = shorten(detail.Code, 80)
	e.Message = shorten(detail.Message, maxErrorMessage)
	var inner struct {
		Code            string `json:"code"`
		RequestID       string `json:"request-id"`
		ClientRequestID string `json:"client-request-id"`
	}
	if json.Unmarshal(detail.InnerError, &inner) == nil {
		e.innerCode = shorten(inner.Code, 80)
		if e.RequestID == "" {
			e.RequestID = shorten(inner.RequestID, 80)
		}
		if e.ClientRequestID == "" {
			e.ClientRequestID = shorten(inner.ClientRequestID, 80)
		}
	}
	return e
}

// shorten cuts s to n bytes at a character's border and makes control characters harmless in logs.
func shorten(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xC0 == 0x80 {
		n--
	}
	return s[:n] + "…"
}
