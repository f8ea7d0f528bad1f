// Package graph is a thin client for the Microsoft Graph mail calls that Postern uses, for one mailbox per Client.
//
// It keeps three promises. Every request passes the mailbox's one Budget, so that all users of a mailbox together stay
// below what Graph allows. A request is repeated only where a repeat is harmless, and an end that leaves open whether the
// request had its effect is reported as such (Unclear). And what is handed out is whole: a cut-off answer is an error.
package graph

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"
)

// DefaultBaseURL is the worldwide service's address. Graph: deployments.
const DefaultBaseURL = "https://graph.microsoft.com"

// DefaultTimeout is how long a request may go without progress: no byte sent, no header or byte received.
const DefaultTimeout = 60 * time.Second

// A TokenSource hands out the access token for the mailbox. *token.Source is one.
type TokenSource interface {
	Token(ctx context.Context) (*oauth2.Token, error)
	// Invalidate says that Graph answered 401 to this token.
	Invalidate(accessToken string)
}

// Options says whose mailbox a Client is for and what it uses.
type Options struct {
	BaseURL    string       // such as https://graph.microsoft.com, no version; empty means DefaultBaseURL
	User       string       // user principal name or id; required
	Tokens     TokenSource  // required
	HTTPClient *http.Client // nil means NewHTTPClient(); redirects are never followed
	Logger     *slog.Logger // nil discards
	Budget     *Budget      // shared by all clients of the mailbox; nil means an own one with DefaultLimits

	// Timeout bounds the time without progress, not the whole of a transfer. Zero means DefaultTimeout. Calls that
	// change something get twice that, because giving up on them leaves their outcome open.
	Timeout time.Duration

	// OnRequest is told of each HTTP request: its kind (a short fixed word such as "delta"), its status (0 when no
	// answer came) and how long it took, body included. It must be quick and safe for concurrent use. May be nil.
	OnRequest func(kind string, status int, d time.Duration)
	// OnItem is told of the answer to each item of a batch, under the same rules; Graph counts and throttles each by
	// itself. May be nil.
	OnItem func(status int)
}

// Client makes Graph calls for one mailbox. It is safe for concurrent use.
type Client struct {
	endpoint  atomic.Pointer[endpoint]
	user      string // "/users/{u}", encoded
	tokens    TokenSource
	http      *http.Client
	log       *slog.Logger
	budget    *Budget
	timeout   time.Duration
	onRequest func(kind string, status int, d time.Duration)
	onItem    func(status int)
	err       error // what is wrong with the options; each call answers it
}

// endpoint is where Graph is.
type endpoint struct {
	base *url.URL
	root string // base as text, without a slash at the end
	err  error  // what is wrong with it
}

func newEndpoint(baseURL string) *endpoint {
	if baseURL == "" {
		baseURL = DefaultBaseURL
	}
	e := &endpoint{root: strings.TrimRight(baseURL, "/")}
	base, err := url.Parse(e.root)
	switch {
	case err != nil:
		base, e.err = &url.URL{}, fmt.Errorf("graph address: %w", err)
	case base.Host == "" || (base.Scheme != "https" && base.Scheme != "http"):
		e.err = fmt.Errorf("graph address %q is not an http address", baseURL)
	}
	e.base = base
	return e
}

// New returns a client for one mailbox. It opens no connection. Options that cannot work are reported by each call.
func New(o Options) *Client {
	c := &Client{
		tokens:    o.Tokens,
		log:       o.Logger,
		budget:    o.Budget,
		timeout:   o.Timeout,
		onRequest: o.OnRequest,
		onItem:    o.OnItem,
		user:      "/users/" + escape(o.User),
	}
	c.SetBaseURL(o.BaseURL)
	switch {
	case o.User == "":
		c.err = errors.New("graph client without a user")
	case o.Tokens == nil:
		c.err = errors.New("graph client without a token source")
	}
	h := o.HTTPClient
	if h == nil {
		h = NewHTTPClient()
	}
	own := *h
	// A redirect would carry a mail body, or the token, to an address nobody configured.
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	own.Jar = nil
	c.http = &own
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.budget == nil {
		c.budget = NewBudget(DefaultLimits())
	}
	if c.timeout <= 0 {
		c.timeout = DefaultTimeout
	}
	return c
}

// SetBaseURL makes all further requests go to another address of Graph, as Options.BaseURL. Links of the old one are void
// then (ResyncRequired).
func (c *Client) SetBaseURL(baseURL string) { c.endpoint.Store(newEndpoint(baseURL)) }

// fault returns what is wrong with the options.
func (c *Client) fault() error {
	if c.err != nil {
		return c.err
	}
	return c.endpoint.Load().err
}

// Budget returns the mailbox's budget, for its Usage and Delay.
func (c *Client) Budget() *Budget { return c.budget }

// NewHTTPClient returns a client fit for Graph: HTTP/2, proxies from the environment, connections kept open. It has no
// overall timeout, because Client watches for progress instead. One may serve all mailboxes.
func NewHTTPClient() *http.Client {
	dialer := &net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}
	return &http.Client{Transport: &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		OnProxyConnectResponse: checkProxy,
		DialContext:            dialer.DialContext,
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           200,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        90 * time.Second,
		TLSHandshakeTimeout:    15 * time.Second,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: 1 << 20,
	}}
}

// escape encodes a path segment: everything but RFC 3986's unreserved characters, because ids hold "=" and some
// gateways read more into a path than they should.
func escape(segment string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	b.Grow(len(segment) + 8)
	for i := range len(segment) {
		ch := segment[i]
		if 'a' <= ch && ch <= 'z' || 'A' <= ch && ch <= 'Z' || '0' <= ch && ch <= '9' ||
			ch == '-' || ch == '_' || ch == '.' || ch == '~' {
			b.WriteByte(ch)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(hex[ch>>4])
		b.WriteByte(hex[ch&15])
	}
	return b.String()
}

// errNoID refuses a call whose id is empty: its path would name the collection instead.
var errNoID = errors.New("empty id")

// itemPath returns "/{collection}/{id}{rest}", or an error for an id that would name something else.
func itemPath(collection, id, rest string) (string, error) {
	if id == "" || id == "." || id == ".." {
		return "", errNoID
	}
	return "/" + collection + "/" + escape(id) + rest, nil
}
