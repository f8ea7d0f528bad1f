// Package httpd is the HTTP front end: pages for administrators, health checks and metrics for machines, and the
// settings that mail programs ask for to configure themselves.
//
// Pages are for signed-in administrators only, shown with nothing but our own style sheet and script, and never show what
// is in a message. What others may ask for is listed in routes.
package httpd

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"postern/backend"
)

// Options say what a Server shows.
type Options struct {
	Backend   *backend.Backend
	Version   string
	TLSConfig *tls.Config // nil serves plain text
	// Listeners returns what the program listens on. It must not wait. May be nil.
	Listeners func() []Listener
	// Alive returns why the program is taken to hang, nil if it works; /healthz answers it. It must return when its
	// context ends. May be nil.
	Alive func(context.Context) error
	// Check returns why nothing here can be used, nil if it can: because the program stops, or its state cannot be written.
	// /readyz answers it. May be nil.
	Check func(context.Context) error
	// Recent returns the last warnings and errors of the log, newest first. May be nil.
	Recent func() []LogLine
	// Doctor makes the checks of postern doctor and tells each as it comes. nil where there is no configuration to check.
	Doctor func(ctx context.Context, tell func(Check))
	// RevokeConfigured takes a login out of the configuration file. nil where there is no such file.
	RevokeConfigured func(username string) error

	Metrics  *Metrics     // nil: none
	Settings Settings     // at the start; see Set
	Logger   *slog.Logger // nil logs nothing
}

// Settings are what can change while a Server runs.
type Settings struct {
	// Hosts are the names browsers may ask for, besides localhost and IP addresses.
	Hosts   []string
	Metrics MetricsAccess
	// PublicName is where mail programs find MailServers; "" for no autoconfiguration.
	PublicName  string
	MailServers []MailServer
}

// Set makes other settings hold from the next request on.
func (s *Server) Set(settings Settings) { s.settings.Store(&settings) }

// Listener is an address the program listens on.
type Listener struct {
	Protocol       string // smtp, imap or http
	Address        string
	TLS            string // none, starttls or implicit
	Profile        string // of smtp: modern or device
	Open, LoggedIn int    // connections now, and those of them that have logged in; not counted for http
}

// LogLine is one line of the log.
type LogLine struct {
	At    time.Time
	Level string
	Text  string // the message and its attributes
}

// Bounds of what clients may use.
const (
	maxForm    = 64 << 10 // bytes of a form; all of ours are small
	maxSignIns = 16       // at once: each costs memory and time
	maxStreams = 64       // event streams at once
)

// Server serves the pages. It is an http.Handler.
type Server struct {
	opts      Options
	log       *slog.Logger
	started   time.Time
	mux       *http.ServeMux
	http      http.Server
	settings  atomic.Pointer[Settings]
	sessions  sessions
	doctor    doctor
	cross     *http.CrossOriginProtection
	signIns   chan struct{}
	streams   chan struct{}
	liveEvery time.Duration
	stopping  context.Context // of event streams; ends when a shutdown begins
}

// New returns a server for opts.
func New(opts Options) *Server {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Listeners == nil {
		opts.Listeners = func() []Listener { return nil }
	}
	if opts.Recent == nil {
		opts.Recent = func() []LogLine { return nil }
	}
	s := &Server{opts: opts, log: opts.Logger, started: time.Now(), mux: http.NewServeMux(),
		cross: http.NewCrossOriginProtection(), signIns: make(chan struct{}, maxSignIns), streams: make(chan struct{}, maxStreams), liveEvery: liveEvery}
	s.Set(opts.Settings)
	s.sessions.init(opts.TLSConfig != nil)
	s.doctor.run = opts.Doctor
	s.routes()
	var stop context.CancelFunc
	s.stopping, stop = context.WithCancel(context.Background())
	s.http = http.Server{
		Handler:           s,
		TLSConfig:         opts.TLSConfig,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second, // event streams move theirs along
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(opts.Logger.Handler(), slog.LevelDebug), // mostly scanners and broken handshakes
	}
	s.http.RegisterOnShutdown(func() {
		stop()
		s.doctor.stop()
	})
	return s
}

// routes says who may ask for what.
func (s *Server) routes() {
	// Anybody who reaches the listener, under one of our names.
	s.mux.HandleFunc("GET /healthz", s.healthz)
	s.mux.HandleFunc("GET /readyz", s.readyz) // says more to this machine
	s.mux.HandleFunc("GET /assets/{name}", s.asset)
	s.mux.HandleFunc("GET /signin", s.signInPage)
	s.mux.HandleFunc("POST /signin", s.signIn)
	// This machine, listed networks, who has the token.
	s.mux.HandleFunc("GET /metrics", s.metrics)
	// Anybody, under any name; Autodiscover's path is matched in ServeHTTP, since its letter case is anybody's choice.
	s.mux.HandleFunc("GET "+mozillaPath, s.mozilla)
	s.mux.HandleFunc("GET "+mozillaWellKnown, s.mozilla)
	s.mux.HandleFunc("GET "+appleProfile, s.apple)
	s.mux.HandleFunc("GET "+clientSettings, s.clientSettings)
	// Administrators.
	for pattern, p := range pages {
		s.mux.HandleFunc("GET "+pattern, s.admin(s.page(p)))
	}
	s.mux.HandleFunc("GET /events", s.admin(s.events))
	s.mux.HandleFunc("POST /signout", s.admin(s.form(s.signOut)))
	s.mux.HandleFunc("POST /queue", s.admin(s.form(s.queueAct)))
	s.mux.HandleFunc("POST /logins", s.admin(s.form(s.loginAdd)))
	s.mux.HandleFunc("POST /logins/revoke", s.admin(s.form(s.loginRevoke)))
	s.mux.HandleFunc("POST /logins/unlock", s.admin(s.form(s.loginUnlock)))
	s.mux.HandleFunc("POST /checks", s.admin(s.form(s.doctorStart)))
}

// Serve answers requests from l until ctx ends or Shutdown is called; both give a nil error. It closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	var err error
	if s.opts.TLSConfig != nil {
		err = s.http.ServeTLS(bounded(l), "", "")
	} else {
		err = s.http.Serve(bounded(l))
	}
	if errors.Is(err, http.ErrServerClosed) || ctx.Err() != nil {
		return nil
	}
	return err
}

// Shutdown lets running requests finish; when ctx ends first, it cuts them off and returns ctx's error.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if errors.Is(err, net.ErrClosed) {
		err = nil // Serve has closed its listener already
	}
	if err != nil {
		s.http.Close() // cuts off what is left; the error to report is the first one
	}
	s.doctor.wait()
	return err
}

// policy lets a page use our own style sheet and script, talk to us, and nothing else.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	if s.opts.TLSConfig != nil {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
	switch {
	case strings.EqualFold(r.URL.Path, autodiscoverPath):
		s.autodiscover(w, r)
		return
	case r.URL.Path == mozillaPath || r.URL.Path == mozillaWellKnown || r.URL.Path == appleProfile || r.URL.Path == clientSettings:
		// Asked for under the names of the mail domains, and the same for everybody.
	case !ours(r.Host, s.settings.Load().Hosts):
		// A web page somewhere else can make a browser on this machine ask for ours under a name of its own.
		http.Error(w, "ask for localhost, an IP address, or a name listed under http.public_name or http.hosts", http.StatusMisdirectedRequest)
		return
	}
	if err := s.cross.Check(r); err != nil {
		s.log.Warn("form from another site refused", "remote", remote(r), "op", r.URL.Path, "err", err)
		http.Error(w, "this form was sent by a page of another site", http.StatusForbidden)
		return
	}
	s.mux.ServeHTTP(w, r)
}

// ours reports whether a Host field is an IP address or localhost, which no foreign name server can point here, or one
// of the names that were configured.
func ours(hostport string, names []string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.Trim(host, "[]"), ".")
	if strings.EqualFold(host, "localhost") || slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(strings.TrimSuffix(n, "."), host) }) {
		return true
	}
	_, err := netip.ParseAddr(host)
	return err == nil
}

// remote returns the client's address, the zero Addr where there is none.
func remote(r *http.Request) netip.Addr {
	a, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr().Unmap().WithZone("")
}

// fromHere reports whether a request was made on this machine. One that a proxy here has passed on was not.
func fromHere(r *http.Request) bool {
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Real-Ip", "Via"} {
		if r.Header.Get(name) != "" {
			return false
		}
	}
	return remote(r).IsLoopback()
}
