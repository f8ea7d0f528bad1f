// Package graphsim is Microsoft Graph's mail API (v1.0, application permissions) and the Entra token endpoint as one
// http.Handler. It is as strict as the service is known to be, fails on demand, and records who was sent what. It imports
// nothing else of this module, so that a client under test cannot share a mistake with it.
//
// Invariants: every id, link and token it hands out is opaque and checked when it comes back; no reply is written while the
// state lock is held; the cost of a call does not grow with the size of the folder, filters other than internetMessageId
// and unusual sort orders excepted.
package graphsim

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Options adjusts a Sim. The zero value is a service with the real limits, no latency and the system clock.
type Options struct {
	// Clock tells the time; nil means time.Now.
	Clock func() time.Time
	// Limits are the throttling limits; zero fields mean the service's own, negative ones switch a limit off.
	Limits Limits
	// Latency is waited before each Graph request and each item of a batch is worked on.
	Latency time.Duration
	// MutableMIME makes each reading of $value differ from the one before, as a service that rebuilds MIME may.
	MutableMIME bool
	// FolderExistsStatus is the status of ErrorFolderExists, 400 (default) or 409: accounts differ.
	FolderExistsStatus int
	// OverQuotaStatus is the status of ErrorQuotaExceeded, 507 (default) or 403.
	OverQuotaStatus int
	// NoMailboxCode is the code for a user without mailbox: MailboxNotEnabledForRESTAPI (default) or ResourceNotFound.
	NoMailboxCode string
	// UnknownUserCode is the code of a mail call for a user that does not exist: ErrorInvalidUser (default) or ResourceNotFound.
	UnknownUserCode string
	// AliasLookup lets /users/{alias} find a mailbox, which the documentation does not promise.
	AliasLookup bool
	// TokenLifetime is how long access tokens work; default 3599 s.
	TokenLifetime time.Duration
	// DeltaLifetime is how long a delta or skip token works; 0 means for ever. Older ones get 410 SyncStateNotFound.
	DeltaLifetime time.Duration
	// SentItemsDelay is how long after a send the copy shows up in Sent Items; 0 means at once.
	SentItemsDelay time.Duration
	// EmptyPageEvery makes every n-th page of a delta round come empty with a nextLink; 0 means 7, negative never.
	EmptyPageEvery int
	// LargestPage is the most rows of a page, whatever the client prefers; default 1,000.
	LargestPage int
	// Bounces puts a non-delivery report into the sender's Inbox for recipients in a tenant's domains that do not exist.
	Bounces bool
	// MaxRequest is the largest request body in bytes, and the largest chunk of an upload; default 4,000,000. The documents
	// say "4 MB", and not which MB.
	MaxRequest int64
	// MinUpload is the smallest file in bytes that an upload session is made for; default 3,000,000, the documents' "3 MB".
	MinUpload int64
	// MaxMessage is the largest message that can be sent, in bytes; default 35 MiB.
	MaxMessage int64
	// Admin enables the JSON interface under /_sim/.
	Admin bool
	// Logger gets one debug line per request; nil discards them.
	Logger *slog.Logger
}

// Sim is the simulator. Its methods may be called from any goroutine.
type Sim struct {
	opts Options
	log  *slog.Logger

	mu         sync.Mutex
	tenants    []*tenant
	tokens     map[string]*accessToken
	devices    map[string]*deviceCode
	refreshes  map[string]*refreshToken
	skew       atomic.Int64        // of the clock, in nanoseconds, as SetClock says
	identities []*app              // managed identities of the machine
	boxes      map[string]*mailbox // by lower-case user id
	deliveries []Delivery
	pending    []event // things that happen later, in order of time
	uploads    map[string]*upload
	subs       map[string]*subscription
	faults     []*Fault
	requests   []Request
	limits     map[limitKey]*usage
	deltaPages int
	renderings int
	key        [16]byte // makes ids of this Sim recognisable
}

// event is something that happens at a time, or later when nobody looks before.
type event struct {
	due time.Time
	run func()
}

// New returns an empty service: no tenant, no app, no user.
func New(opts Options) *Sim {
	if opts.Clock == nil {
		opts.Clock = time.Now
	}
	if opts.FolderExistsStatus == 0 {
		opts.FolderExistsStatus = http.StatusBadRequest
	}
	if opts.OverQuotaStatus == 0 {
		opts.OverQuotaStatus = http.StatusInsufficientStorage
	}
	if opts.NoMailboxCode == "" {
		opts.NoMailboxCode = "MailboxNotEnabledForRESTAPI"
	}
	if opts.UnknownUserCode == "" {
		opts.UnknownUserCode = "ErrorInvalidUser"
	}
	if opts.TokenLifetime == 0 {
		opts.TokenLifetime = 3599 * time.Second
	}
	if opts.EmptyPageEvery == 0 {
		opts.EmptyPageEvery = 7
	}
	if opts.LargestPage <= 0 {
		opts.LargestPage = maxPage
	}
	if opts.MaxRequest == 0 {
		opts.MaxRequest = 4_000_000 // Graph: outlook-send-mime-message
	}
	if opts.MinUpload == 0 {
		opts.MinUpload = 3_000_000 // Graph: outlook-large-attachments
	}
	if opts.MaxMessage == 0 {
		opts.MaxMessage = 35 << 20
	}
	opts.Limits = opts.Limits.withDefaults()
	s := &Sim{
		opts:      opts,
		log:       opts.Logger,
		tokens:    map[string]*accessToken{},
		devices:   map[string]*deviceCode{},
		refreshes: map[string]*refreshToken{},
		boxes:     map[string]*mailbox{},
		uploads:   map[string]*upload{},
		subs:      map[string]*subscription{},
		limits:    map[limitKey]*usage{},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	copy(s.key[:], randomBytes(16))
	return s
}

func (s *Sim) now() time.Time { return s.opts.Clock().Add(time.Duration(s.skew.Load())) }

// SetClock lets the service's clock differ from Options.Clock, so that a machine whose own clock is wrong can be tried.
func (s *Sim) SetClock(ahead time.Duration) { s.skew.Store(int64(ahead)) }

// laterLocked runs fn once the clock has reached due, at the next call that looks.
func (s *Sim) laterLocked(due time.Time, fn func()) {
	i := len(s.pending)
	for i > 0 && s.pending[i-1].due.After(due) {
		i--
	}
	s.pending = append(s.pending, event{})
	copy(s.pending[i+1:], s.pending[i:])
	s.pending[i] = event{due, fn}
}

// settleLocked lets happen what is due. Every entry point calls it first, so no timer is needed.
func (s *Sim) settleLocked() {
	now := s.now()
	for len(s.pending) > 0 && !s.pending[0].due.After(now) {
		ev := s.pending[0]
		s.pending = s.pending[1:]
		ev.run()
	}
}

// ServeHTTP answers /{tenant}/oauth2/v2.0/token, /v1.0/…, upload URLs, the managed identity endpoint and with Options.Admin /_sim/….
func (s *Sim) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.EscapedPath()
	w.Header().Set("Date", s.now().UTC().Format(http.TimeFormat))
	switch {
	case strings.HasPrefix(path, "/_sim/"):
		if !s.opts.Admin {
			http.NotFound(w, r)
			return
		}
		s.serveAdmin(w, r)
	case strings.HasSuffix(strings.ToLower(path), "/oauth2/v2.0/token"):
		s.serveToken(w, r)
	case strings.HasSuffix(strings.ToLower(path), "/oauth2/v2.0/devicecode"):
		s.serveDevice(w, r)
	case path == imdsPath || path == appServicePath:
		s.serveIdentity(w, r)
	case strings.HasPrefix(path, uploadPrefix):
		s.serveUpload(w, r)
	default:
		s.serveGraph(w, r)
	}
}

// reply is an answer before it is written: to a connection, or into a batch.
type reply struct {
	status int
	header http.Header
	body   []byte // JSON unless header says otherwise
	ends   func(http.ResponseWriter)
}

// set adds a header field and returns the reply for chaining.
func (p *reply) set(name, value string) *reply {
	if p.header == nil {
		p.header = http.Header{}
	}
	p.header.Set(name, value)
	return p
}

// jsonReply is a reply with an object as body.
func jsonReply(status int, o object) *reply {
	return (&reply{status: status, body: o.appendJSON(nil)}).set("Content-Type",
		"application/json;odata.metadata=minimal;odata.streaming=true;IEEE754Compatible=false;charset=utf-8")
}

// emptyReply is a reply without body, such as 202 and 204.
func emptyReply(status int) *reply { return &reply{status: status} }

// write sends p. Graph repeats the client's request id and adds its own.
func (p *reply) write(w http.ResponseWriter, requestID, clientID string) {
	h := w.Header()
	for k, v := range p.header {
		h[k] = v
	}
	if h.Get("Request-Id") == "" {
		h.Set("Request-Id", requestID)
	}
	h.Set("Client-Request-Id", clientID)
	h.Set("X-Ms-Ags-Diagnostic", `{"ServerInfo":{"DataCenter":"Simulated","Slice":"E","Ring":"0","ScaleUnit":"000","RoleInstance":"SIM"}}`)
	h.Set("Cache-Control", "private")
	if p.status != http.StatusNoContent {
		h.Set("Content-Length", strconv.Itoa(len(p.body)))
	}
	w.WriteHeader(p.status)
	_, _ = w.Write(p.body) // the client may be gone; nothing to be done about it
}

// serveGraph reads a Graph request, works on it, and writes the answer.
func (s *Sim) serveGraph(w http.ResponseWriter, r *http.Request) {
	c := &call{
		sim: s, ctx: r.Context(), method: r.Method, header: r.Header,
		path: r.URL.EscapedPath(), rawQuery: r.URL.RawQuery, base: baseURL(r),
		requestID: newGUID(), clientID: r.Header.Get("client-request-id"), start: s.now(),
	}
	if c.clientID == "" {
		c.clientID = c.requestID
	}
	body, tooLarge, err := readBody(r, s.opts.MaxRequest)
	if err != nil && !tooLarge {
		// Seen when a client gives up in the middle of a request.
		c.failure(fail(http.StatusBadRequest, "BadRequest", "IO error during request payload read")).write(w, c.requestID, c.clientID)
		return
	}
	c.body = body
	c.tooLarge = tooLarge
	c.noLength = r.Method == http.MethodPost && len(body) == 0 && !tooLarge &&
		r.Context().Value(http.ServerContextKey) != nil && r.Header.Get("Content-Length") == "" && len(r.TransferEncoding) == 0
	p := s.handle(c)
	if p.ends != nil {
		p.ends(w)
		return
	}
	p.write(w, c.requestID, c.clientID)
}

// readBody reads up to limit bytes; more sets tooLarge and the rest is read but not kept, up to a bound, so that the
// client sees the answer and not a reset connection.
func readBody(r *http.Request, limit int64) (body []byte, tooLarge bool, err error) {
	if r.Body == nil {
		return nil, false, nil
	}
	var buf bytes.Buffer
	if r.ContentLength > 0 {
		buf.Grow(int(min(r.ContentLength, limit) + bytes.MinRead))
	}
	n, err := io.Copy(&buf, io.LimitReader(r.Body, limit+1))
	if n > limit {
		_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, 64<<20))
		return nil, true, nil
	}
	return buf.Bytes(), false, err
}

// baseURL is the scheme and host the client used: all links are made from it.
func baseURL(r *http.Request) string {
	scheme := "http"
	if r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https" || r.URL.Scheme == "https" {
		scheme = "https"
	}
	host := r.Host
	if host == "" {
		host = "graph.microsoft.com"
	}
	return scheme + "://" + host
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails since Go 1.24
	return b
}

// newGUID returns a random GUID in lower case.
func newGUID() string {
	b := randomBytes(16)
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return formatGUID(b)
}

func formatGUID(b []byte) string {
	h := hex.EncodeToString(b)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:32]
}

var errGone = errors.New("no such object in the simulator")
