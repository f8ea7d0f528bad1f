package graph

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/oauth2"
)

// immutable asks for ids that survive moves. It acts on one request only, so each one carries it.
// Graph: outlook-immutable-id.
const immutable = `IdType="ImmutableId"`

// maxJSON bounds a JSON answer. A page of 1,000 messages with their headers stays well below.
const maxJSON = 64 << 20

// call is one Graph call: one HTTP request, and its repeats.
type call struct {
	op     string // for errors and logs, such as "move message"
	kind   string // for OnRequest
	method string
	url    string // whole
	prefer []string
	header map[string]string
	body   *payload
	repeat repeatable

	status  int  // the only success; 0 means any 2xx
	changes bool // its end may be unclear
	sends   int  // messages it sends
	foreign bool // an upload session: its address is its permission, so no token goes there
	items   int  // of a batch; else 0
	// fit makes the body of a batch anew for the slots it got: with fewer than it asked for it must be smaller.
	fit  func(slots int) (*payload, error)
	used *string // when set, told the access token of the last attempt
}

// payload is a request's body. It is opened for every attempt.
type payload struct {
	open        func() (io.ReadCloser, error)
	size        int64
	contentType string
}

func jsonPayload(v any) (*payload, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return bytesPayload(b, "application/json"), nil
}

func bytesPayload(b []byte, contentType string) *payload {
	return &payload{
		open:        func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil },
		size:        int64(len(b)),
		contentType: contentType,
	}
}

// localError is a failure on our side of the connection: a writer, a callback, a file. It is not repeated and handed to
// the caller as it is.
type localError struct{ err error }

func (l *localError) Error() string { return l.err.Error() }
func (l *localError) Unwrap() error { return l.err }

// do makes the call and its repeats. handle reads a successful answer while the call still holds its slots; it may be
// nil. It must mark its own failures as *localError; others count as a broken answer.
func (c *Client) do(ctx context.Context, r call, handle func(*http.Response) error) error {
	if err := c.fault(); err != nil {
		return err
	}
	lane := LaneOf(ctx)
	patience, _ := patienceOf(ctx)
	latest := time.Now().Add(patience)
	var throttled, transient int
	renewed := false
	for {
		err := c.attempt(ctx, r, lane, latest, handle)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		var e *Error
		isAnswer := errors.As(err, &e)
		if isAnswer && e.Status == http.StatusUnauthorized && !renewed && !r.foreign {
			renewed = true // attempt has given up the token
			continue
		}
		var wait time.Duration
		switch {
		case isAnswer && e.Code == CodeLocalBudget:
			e.Op = r.op
			return err
		case isAnswer && e.throttled():
			if e.Status != http.StatusTooManyRequests && r.repeat == repeatUnsent {
				return err
			}
			if throttled++; throttled >= maxThrottled {
				return err
			}
			wait = e.RetryAfter
			if wait == 0 {
				wait = backoff(throttled - 1)
			}
			c.budget.pause(wait)
		case r.mayRepeat(err, e):
			if transient++; transient >= maxTransient {
				return err
			}
			wait = backoff(transient - 1)
			if isAnswer && e.RetryAfter > 0 {
				wait = e.RetryAfter
			}
		default:
			return err
		}
		until := time.Now().Add(wait)
		if deadline, ok := ctx.Deadline(); until.After(latest) || ok && until.After(deadline) {
			return err
		}
		if sleep(ctx, wait) != nil {
			return err
		}
	}
}

// mayRepeat says whether the failure of an attempt, other than throttling, is worth another one and the repeat harmless.
func (r call) mayRepeat(err error, e *Error) bool {
	var local *localError
	var notSent *notSentError
	switch {
	case errors.As(err, &local):
		return false
	case errors.As(err, &notSent):
		return notSent.passing
	case e != nil && e.payloadUnread():
		return true
	case e != nil && (e.Status == http.StatusConflict || e.Status == http.StatusPreconditionFailed):
		// Two writers at once; and Exchange answers 412 to requests without a condition, too (observed). Nothing was done.
		return r.repeat != repeatUnsent && r.header["If-Match"] == "" && e.HasCode("ErrorIrresolvableConflict")
	case r.repeat != repeatAlways:
		return false
	case e == nil:
		var t *transportError
		return errors.As(err, &t)
	case e.Status == http.StatusUnauthorized:
		return false // renewed once already
	}
	return IsTemporary(e)
}

// notSentError is a failure before the request could have reached Graph.
type notSentError struct {
	op      string
	err     error
	passing bool // may go away by itself
}

func (n *notSentError) Error() string { return n.op + ": " + n.err.Error() }
func (n *notSentError) Unwrap() error { return n.err }

// attempt makes the call once.
func (c *Client) attempt(ctx context.Context, r call, lane Lane, latest time.Time, handle func(*http.Response) error) error {
	d := demand{lane: lane, requests: max(1, r.items), slots: max(1, r.items), sends: r.sends}
	_, d.patient = patienceOf(ctx)
	if r.body != nil {
		d.upload = r.body.size
	}
	if !r.foreign {
		// Asked for before and after: a sign-in that fails or takes its time must not use up the mailbox's budget, and
		// the token must be fresh after a long wait. The second time it is in a cache.
		if _, err := c.tokens.Token(ctx); err != nil {
			return fmt.Errorf("%s: %w", r.op, err)
		}
	}
	release, slots, err := c.budget.acquire(ctx, d, latest)
	if err != nil {
		return fmt.Errorf("%s: %w", r.op, err)
	}
	defer release()
	if r.fit != nil {
		if r.body, err = r.fit(slots); err != nil {
			return &notSentError{op: r.op, err: err}
		}
	}

	var tok *oauth2.Token
	if !r.foreign {
		if tok, err = c.tokens.Token(ctx); err != nil {
			return fmt.Errorf("%s: %w", r.op, err)
		}
		if r.used != nil {
			*r.used = tok.AccessToken
		}
	}
	began := time.Now()
	clientID := uuid.NewString()
	status, requestID, err := c.exchange(ctx, r, tok, clientID, handle)
	took := time.Since(began)
	if c.onRequest != nil {
		c.onRequest(r.kind, status, took)
	}
	attrs := []any{"op", r.op, "status", status, "request_id", requestID, "client_request_id", clientID, "duration", took}
	if err != nil {
		attrs = append(attrs, "err", err)
	}
	c.log.DebugContext(ctx, "graph request", attrs...)
	if status == http.StatusUnauthorized && tok != nil {
		c.tokens.Invalidate(tok.AccessToken)
	}
	return err
}

// exchange sends the request and reads the answer.
func (c *Client) exchange(ctx context.Context, r call, tok *oauth2.Token, clientID string, handle func(*http.Response) error) (status int, requestID string, err error) {
	rctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timeout := c.timeout
	if r.changes {
		timeout *= 2
	}
	dog := &watchdog{timeout: timeout, timer: time.AfterFunc(timeout, func() { cancel(errNoProgress) })}
	defer dog.stop()

	// An attempt that never had a connection never reached Graph.
	var wanted, had bool
	tctx := httptrace.WithClientTrace(rctx, &httptrace.ClientTrace{
		GetConn: func(string) { wanted = true },
		GotConn: func(httptrace.GotConnInfo) { had = true },
	})
	req, body, err := c.newRequest(tctx, r, tok, clientID, dog)
	if err != nil {
		return 0, "", &notSentError{op: r.op, err: err}
	}
	resp, err := c.http.Do(req)
	dog.stop()
	if err != nil {
		if body.err() != nil {
			return 0, "", &localError{fmt.Errorf("%s: read body: %w", r.op, body.err())}
		}
		err = withoutURL(err)
		if ctx.Err() == nil && context.Cause(rctx) != nil {
			err = &wayError{req.URL, context.Cause(rctx)}
		}
		if wanted && !had || isDial(err) || body != nil && !body.whole() {
			return 0, "", &notSentError{op: r.op, err: err, passing: ctx.Err() == nil}
		}
		return 0, "", r.unclear(&transportError{op: r.op, err: err})
	}
	resp.Body = &watchedBody{ReadCloser: resp.Body, dog: dog, ctx: rctx, parent: ctx}
	defer resp.Body.Close()
	requestID = resp.Header.Get("request-id")

	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		e := decodeError(r.op, resp)
		if e.ClientRequestID == "" {
			e.ClientRequestID = clientID
		}
		return resp.StatusCode, e.RequestID, r.judge(e)
	}
	if r.status != 0 && resp.StatusCode != r.status {
		e := &Error{Op: r.op, Status: resp.StatusCode, RequestID: requestID, ClientRequestID: clientID,
			Message: fmt.Sprintf("%d was to be expected", r.status)}
		return resp.StatusCode, requestID, r.unclear(e)
	}
	if t, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); t == "text/html" {
		// A gateway's page, where Graph would have answered otherwise.
		return resp.StatusCode, requestID, r.unclear(&transportError{r.op, errors.New("answer is a web page")})
	}
	if handle != nil {
		if err := handle(resp); err != nil {
			var local *localError
			if errors.As(err, &local) {
				return resp.StatusCode, requestID, err
			}
			return resp.StatusCode, requestID, r.unclear(&transportError{op: r.op, err: err})
		}
		return resp.StatusCode, requestID, nil
	}
	// Read to the end, so that the connection can serve again. What cannot be read does not matter here.
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 256<<10))
	return resp.StatusCode, requestID, nil
}

// unclear marks the error of a call whose effect may have taken place.
func (r call) unclear(err error) error {
	if r.changes {
		return &unclearError{err}
	}
	return err
}

// judge marks those refusals that leave open whether the call was carried out.
func (r call) judge(e *Error) error {
	switch {
	case e.Status < 500 && e.Status != http.StatusRequestTimeout:
	case e.Status == http.StatusNotImplemented || e.Status == http.StatusHTTPVersionNotSupported || e.Status == 507 || e.Status == 509:
	case lasting(e) || e.payloadUnread():
	case e.throttled() && r.repeat != repeatUnsent:
	default:
		return r.unclear(e)
	}
	return e
}

func (c *Client) newRequest(ctx context.Context, r call, tok *oauth2.Token, clientID string, dog *watchdog) (*http.Request, *watchedPayload, error) {
	req, err := http.NewRequestWithContext(ctx, r.method, r.url, nil)
	if err != nil {
		return nil, nil, withoutURL(err)
	}
	keepVerbatim(req.URL, r.url)
	var body *watchedPayload
	if r.body != nil && r.body.size > 0 {
		if body, err = openPayload(r.body, dog); err != nil {
			return nil, nil, &localError{err}
		}
		req.Body, req.ContentLength = body, r.body.size
		// For the transport's own repeats, on connections that turned out closed before anything was written.
		req.GetBody = func() (io.ReadCloser, error) { return body.again() }
	} else if r.method != http.MethodGet && r.method != http.MethodDelete {
		req.Body = http.NoBody // sends Content-Length: 0, without which Graph answers 411
	}
	for name, value := range r.header {
		req.Header.Set(name, value)
	}
	if r.body != nil {
		req.Header.Set("Content-Type", r.body.contentType)
	}
	req.Header.Set("User-Agent", "Postern")
	if r.foreign {
		return req, body, nil
	}
	tok.SetAuthHeader(req)
	if req.Header.Get("Accept") == "" {
		req.Header.Set("Accept", "application/json")
	}
	req.Header.Set("Prefer", strings.Join(append([]string{immutable}, r.prefer...), ", "))
	req.Header.Set("client-request-id", clientID)
	req.Header.Set("return-client-request-id", "true")
	return req, body, nil
}

// keepVerbatim makes the request line repeat the link as Graph gave it: encoded anew, a token in it may be void.
func keepVerbatim(u *url.URL, link string) {
	_, rest, ok := strings.Cut(link, "://")
	if !ok {
		return
	}
	u.RawQuery = strings.ReplaceAll(u.RawQuery, " ", "%20")
	i := strings.IndexAny(rest, "/?")
	if i < 0 || rest[i] != '/' {
		return
	}
	raw := strings.ReplaceAll(rest[i:], " ", "%20") // a blank would end the request line
	raw, _, _ = strings.Cut(raw, "#")
	if u.RequestURI() != raw {
		u.Opaque, u.RawQuery, u.ForceQuery = "//"+u.Host+raw, "", false
	}
}

// withoutURL drops the address from an error's text: an upload session's holds its permission, a link the mailbox's data.
func withoutURL(err error) error {
	var u *url.Error
	if !errors.As(err, &u) {
		return err
	}
	target, perr := url.Parse(u.URL)
	if perr != nil {
		return u.Err
	}
	return &wayError{target, u.Err}
}

// wayError is an error on the way to an address, which its text leaves out.
type wayError struct {
	target *url.URL
	err    error
}

func (e *wayError) Error() string { return e.err.Error() }

func (e *wayError) Unwrap() error { return e.err }

func isDial(err error) bool {
	var op *net.OpError
	var dns *net.DNSError
	return errors.As(err, &op) && op.Op == "dial" || errors.As(err, &dns)
}

// address returns the whole URL of a path below the user.
func (c *Client) address(path string) string { return c.endpoint.Load().root + "/v1.0" + c.user + path }

// here returns the address that a link Graph has just given leads to. Our token goes to the configured host alone: where the
// link names another one, as Graph's own do behind a gateway, its path and query are asked for there, as they stand.
func (c *Client) here(link string) (string, error) {
	same, err := c.link(link)
	if err == nil {
		return same, nil
	}
	u, perr := url.Parse(link)
	if perr != nil || u.User != nil || !strings.EqualFold(u.Scheme, "http") && !strings.EqualFold(u.Scheme, "https") || c.fault() != nil {
		return "", err
	}
	_, rest, _ := strings.Cut(link, "://")
	_, path, _ := strings.Cut(rest, "/")
	if !strings.HasPrefix(path, "v1.0/") {
		return "", err
	}
	return c.endpoint.Load().root + "/" + path, nil
}

// link checks that a next or delta link leads where our token may go, and returns it unchanged.
func (c *Client) link(link string) (string, error) {
	if err := c.fault(); err != nil {
		return "", err
	}
	u, err := url.Parse(link)
	if err != nil {
		return "", errors.New("link is no address")
	}
	base := c.endpoint.Load().base
	if !strings.EqualFold(u.Scheme, base.Scheme) || !strings.EqualFold(hostPort(u), hostPort(base)) || u.User != nil {
		return "", fmt.Errorf("link leads to another host, %s", u.Host)
	}
	return link, nil
}

func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = "443"
		if strings.EqualFold(u.Scheme, "http") {
			port = "80"
		}
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// readJSON decodes a whole answer into v. Whether that holds what it must is for the caller to look at.
func readJSON(resp *http.Response, v any) error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxJSON+1))
	if err != nil {
		return err
	}
	if len(b) > maxJSON {
		return &localError{errors.New("answer larger than 64 MB")}
	}
	if err := decode(bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")), v); err != nil {
		return fmt.Errorf("decode answer: %w", err)
	}
	return nil
}

// decode decodes b into v and leaves out members of an unexpected type: one odd value in one message must not keep a
// folder of thousands from being read.
func decode(b []byte, v any) error {
	err := json.Unmarshal(b, v)
	if _, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return nil // json has decoded the rest all the same
	}
	return err
}

// into returns a handler that decodes the answer into v.
func into(v any) func(*http.Response) error {
	return func(resp *http.Response) error { return readJSON(resp, v) }
}
