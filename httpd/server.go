// Package httpd is the HTTP front end: health checks for machines and a status
// page for people. It only reads, shows no secret and no mail, and is meant for
// loopback; whoever reaches it learns the addresses of the mailboxes.
package httpd

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"postern/backend"
)

//go:embed status.html
var files embed.FS

var statusPage = template.Must(template.New("status.html").Funcs(template.FuncMap{"ago": ago}).ParseFS(files, "status.html"))

// Options say what a Server shows.
type Options struct {
	// Accounts returns the state of each mailbox. It is called for every request and must not wait.
	Accounts func() []backend.AccountState
	// Warnings returns sentences for the status page about what will need a person soon; it must not wait. May be nil.
	Warnings func() []string
	// Alive returns why the program is taken to hang, nil if it works; /healthz answers it. It must return when its
	// context ends. May be nil.
	Alive func(context.Context) error
	// Check returns why nothing here can be used, nil if it can: because the program stops, or its state cannot be written.
	// /readyz answers it. May be nil.
	Check   func(context.Context) error
	Version string
	Logger  *slog.Logger // nil logs nothing
}

// Server serves the pages. It is an http.Handler.
type Server struct {
	opts    Options
	started time.Time
	mux     *http.ServeMux
	http    http.Server
}

// New returns a server for opts.
func New(opts Options) *Server {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{opts: opts, started: time.Now(), mux: http.NewServeMux()}
	s.mux.HandleFunc("GET /{$}", s.status)
	s.mux.HandleFunc("GET /healthz", s.healthz)
	s.mux.HandleFunc("GET /readyz", s.readyz)
	s.http = http.Server{
		Handler:           s,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(opts.Logger.Handler(), slog.LevelWarn),
	}
	return s
}

// Serve answers requests from l until ctx ends or Shutdown is called; both give a nil error. It closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	err := s.http.Serve(l)
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
	return err
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// A web page somewhere else can make a browser on this machine ask for ours under a name of its own.
	if !localHost(r.Host) {
		http.Error(w, "ask for localhost or an IP address", http.StatusMisdirectedRequest)
		return
	}
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	s.mux.ServeHTTP(w, r)
}

// localHost reports whether a Host field is an IP address or localhost, which no foreign name server can point here.
func localHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return true
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil
}

// aliveTime is how long /healthz waits for the program to come round.
const aliveTime = 10 * time.Second

// healthz says that the program works. A failing check here means: start it anew.
func (s *Server) healthz(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if s.opts.Alive != nil {
		ctx, cancel := context.WithTimeout(r.Context(), aliveTime)
		defer cancel()
		if err := s.opts.Alive(ctx); err != nil && r.Context().Err() == nil {
			s.opts.Logger.Error("health check failed", "err", err)
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = fmt.Fprintf(w, "hangs: %v\n", err) // nobody to tell
			return
		}
	}
	_, _ = w.Write([]byte("ok\n")) // nobody to tell
}

// readiness is the answer of /readyz.
type readiness struct {
	Ready    bool            `json:"ready"`
	Problem  string          `json:"problem,omitempty"` // of the program itself: starting, stopping, or its state
	Accounts []accountStatus `json:"accounts"`
}

// accountStatus is one mailbox in it.
type accountStatus struct {
	Address  string     `json:"address"`
	Ready    bool       `json:"ready"`
	LastSync *time.Time `json:"last_sync"` // null: none yet
	Problem  string     `json:"problem,omitempty"`
	Advice   string     `json:"advice,omitempty"`
	Since    *time.Time `json:"since,omitempty"`
}

// readyz says whether clients should be sent here: 200, or 503 while the program starts or stops, its state folder
// cannot be written, or a mailbox was never read or needs a person. What passes by itself, such as a busy Graph, does not
// count: the copy on disk goes on serving.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	answer := readiness{Ready: true, Accounts: []accountStatus{}}
	if s.opts.Check != nil {
		ctx, cancel := context.WithTimeout(r.Context(), aliveTime)
		defer cancel()
		if err := s.opts.Check(ctx); err != nil {
			answer.Ready, answer.Problem = false, err.Error()
		}
	}
	for _, a := range s.accounts() {
		st := accountStatus{Address: a.Address, Ready: usable(a), LastSync: known(a.LastSync), Problem: a.LastError, Advice: a.Advice}
		if a.LastError != "" {
			st.Since = known(a.Since)
		}
		answer.Ready = answer.Ready && st.Ready
		answer.Accounts = append(answer.Accounts, st)
	}
	w.Header().Set("Content-Type", "application/json")
	if !answer.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(answer) // nobody to tell
}

// accounts returns the states, each problem without the advice that many errors end with: it is shown beside it.
func (s *Server) accounts() []backend.AccountState {
	list := s.opts.Accounts()
	for i, a := range list {
		if a.Advice != "" {
			list[i].LastError = strings.TrimSuffix(a.LastError, ": "+a.Advice)
		}
	}
	return list
}

func usable(a backend.AccountState) bool {
	return a.Ready && !(a.LastError != "" && (a.Kind == backend.SignInNeeded || a.Kind == backend.Denied))
}

func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	type row struct {
		backend.AccountState
		Usable bool
	}
	data := struct {
		Version  string
		Started  time.Time
		Warnings []string
		Accounts []row
	}{Version: s.opts.Version, Started: s.started}
	if s.opts.Warnings != nil {
		data.Warnings = s.opts.Warnings()
	}
	for _, a := range s.accounts() {
		data.Accounts = append(data.Accounts, row{a, usable(a)})
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if err := statusPage.Execute(w, data); err != nil {
		s.opts.Logger.Debug("status page", "err", err) // the browser has gone
	}
}

// ago writes how long ago t was, in words.
func ago(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	d := time.Since(t)
	switch {
	case d < 2*time.Second:
		return "just now"
	case d < 2*time.Minute:
		return d.Truncate(time.Second).String() + " ago"
	case d < 48*time.Hour:
		return strings.TrimSuffix(d.Truncate(time.Minute).String(), "0s") + " ago"
	}
	return "since " + t.Format("2006-01-02 15:04")
}
