// Package smtpd is the SMTP front end: message submission (RFC 6409) for mail
// programs, over go-smtp. It holds sessions, log-in, and the replies; what a
// message is and where it goes is package backend's business.
//
// A message is answered with 250 only when the backend has it on disk. A
// connection whose input broke off inside a message is never read again:
// whatever follows is content, not commands.
package smtpd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/emersion/go-smtp"

	"postern/backend"
)

// TLSMode says how a listener's connections are encrypted.
type TLSMode string

// The values of a listener's tls key.
const (
	TLSNone     TLSMode = "none"
	TLSStart    TLSMode = "starttls" // plain at first, STARTTLS offered
	TLSImplicit TLSMode = "implicit" // TLS from the first byte
)

// Options is what a Server is told. Zero values of Limits mean its defaults.
type Options struct {
	Backend  *backend.Backend
	Hostname string // in the greeting; empty for "localhost"

	TLS       TLSMode // empty for TLSNone
	TLSConfig *tls.Config

	// AllowPlainAuth offers AUTH on unencrypted connections from anywhere. Without
	// it AUTH needs TLS, or a peer on a loopback address.
	AllowPlainAuth bool

	// Device puts right what devices get wrong in their commands; see docs/sending.md. Clients in Networks need no log-in:
	// their mail is that of Fixed.
	Device   bool
	Networks []netip.Prefix
	Fixed    *backend.Login

	RewriteFrom bool // as Login.RewriteFrom, for all logins here
	DropCopy    bool // no copies in Sent Items

	// Observe is told of each AUTH, MAIL, RCPT and message (DATA): how it was answered (ok, no for a refusal, later for a
	// temporary one) and how long it took. It must be quick and safe for concurrent use. May be nil.
	Observe func(command, outcome string, took time.Duration)

	MaxMessage int64 // bytes of one message as received; 0 for 150 MB, as much as Microsoft 365 ever takes
	Limits     Limits
	Logger     *slog.Logger
}

// Limits bounds what clients may use up.
type Limits struct {
	Connections  int // at once, all clients together; default 1,000
	PerAddress   int // at once from one address; default 100
	Recipients   int // of one message; default 1,000
	LineLength   int // bytes of any one line, in messages too; default 4 MiB, at least 1 MiB
	AuthFailures int // failed log-ins before a connection is closed; default 3

	HandshakeTimeout time.Duration // of TLS; default 30 s
	LoginTimeout     time.Duration // from connecting to a successful log-in; default 2 min
	IdleTimeout      time.Duration // between two reads, in messages too; default 5 min (RFC 5321 section 4.5.3.2.7)
	WriteTimeout     time.Duration // of one reply; default 1 min
	MessageTimeout   time.Duration // of one message from DATA to its end; default 3 h, 150 MB at 128 kbit/s
}

func (l Limits) withDefaults() Limits {
	for _, f := range []struct {
		v   *int
		def int
	}{
		{&l.Connections, 1000}, {&l.PerAddress, 100}, {&l.Recipients, 1000},
		{&l.LineLength, 4 << 20}, {&l.AuthFailures, 3},
	} {
		if *f.v <= 0 {
			*f.v = f.def
		}
	}
	// Scanners and applications write whole base64 bodies into one line, and go-smtp
	// applies the limit to messages as well as commands.
	l.LineLength = max(l.LineLength, 1<<20)
	for _, f := range []struct {
		v   *time.Duration
		def time.Duration
	}{
		{&l.HandshakeTimeout, 30 * time.Second}, {&l.LoginTimeout, 2 * time.Minute},
		{&l.IdleTimeout, 5 * time.Minute}, {&l.WriteTimeout, time.Minute},
		{&l.MessageTimeout, 3 * time.Hour},
	} {
		if *f.v <= 0 {
			*f.v = f.def
		}
	}
	return l
}

// defaultMaxMessage is the largest message an Exchange Online tenant can allow.
const defaultMaxMessage = 150 << 20

// Server serves one or more listeners that share a policy.
type Server struct {
	opts   Options
	limits Limits
	log    *slog.Logger
	mail   service
	smtp   *smtp.Server

	ctx    context.Context // of all sessions; ends when a shutdown runs out of time
	cancel context.CancelFunc

	mu       sync.Mutex
	conns    map[*conn]struct{}
	peers    backend.Peers
	stopping bool
}

// New returns a server for opts. It fails when encryption is asked for without a certificate.
func New(opts Options) (*Server, error) {
	if opts.Backend == nil {
		return nil, errors.New("smtpd: no backend")
	}
	return newServer(opts, liveService{opts.Backend})
}

func newServer(opts Options, mail service) (*Server, error) {
	switch opts.TLS {
	case "":
		opts.TLS = TLSNone
	case TLSNone:
	case TLSStart, TLSImplicit:
		if opts.TLSConfig == nil {
			return nil, fmt.Errorf("smtpd: tls %s without a certificate", opts.TLS)
		}
	default:
		return nil, fmt.Errorf("smtpd: tls mode %q is not known", opts.TLS)
	}
	if opts.Hostname == "" {
		opts.Hostname = "localhost"
	}
	if opts.MaxMessage <= 0 {
		opts.MaxMessage = defaultMaxMessage
	}
	if opts.Observe == nil {
		opts.Observe = func(string, string, time.Duration) {}
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		opts:   opts,
		limits: opts.Limits.withDefaults(),
		log:    opts.Logger,
		mail:   mail,
		conns:  make(map[*conn]struct{}),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())

	s.smtp = smtp.NewServer(smtp.BackendFunc(s.newSession))
	s.smtp.Domain = opts.Hostname
	s.smtp.MaxMessageBytes = opts.MaxMessage
	s.smtp.MaxRecipients = s.limits.Recipients
	s.smtp.MaxLineLength = s.limits.LineLength
	s.smtp.EnableSMTPUTF8 = true
	s.smtp.EnableDSN = true
	s.smtp.ErrorLog = errorLog{s.log}
	// Encryption and deadlines are conn's. go-smtp sees no tls.Conn and no TLSConfig,
	// so whether AUTH is allowed is decided by the session alone.
	s.smtp.AllowInsecureAuth = true
	return s, nil
}

// Serve takes connections from l until ctx ends or Shutdown is called; both give a
// nil error. It closes l. Sessions go on; Shutdown ends them.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer l.Close()
	err := s.smtp.Serve(&listener{Listener: l, server: s})
	if ctx.Err() != nil || s.isStopping() || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Shutdown takes no more connections, tells idle clients 421 and lets messages
// under way finish. When ctx ends first, it closes what is left and returns ctx's error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.stopping = true
	open := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		open = append(open, c)
	}
	s.mu.Unlock()
	for _, c := range open {
		// On its own goroutine: a client that does not read must not hold up the others.
		go c.drain()
	}

	err := s.smtp.Shutdown(ctx)
	if errors.Is(err, smtp.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		err = nil // asked twice, or Serve has closed its listener already
	}
	s.cancel()
	if ctx.Err() == nil {
		return err
	}
	s.mu.Lock()
	open = open[:0]
	for c := range s.conns {
		open = append(open, c)
	}
	s.mu.Unlock()
	for _, c := range open {
		c.abort()
	}
	return err
}

// Sessions returns how many connections are open, and how many of them have logged in or need not.
func (s *Server) Sessions() (open, loggedIn int) {
	s.mu.Lock()
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		if c.known() {
			loggedIn++
		}
	}
	return len(conns), loggedIn
}

func (s *Server) isStopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopping
}

// errorLog takes what go-smtp would print to standard error: panics, and connections that broke off.
type errorLog struct{ log *slog.Logger }

func (l errorLog) Printf(format string, v ...any) {
	l.log.Warn("smtp server", "err", fmt.Sprintf(format, v...))
}

func (l errorLog) Println(v ...any) { l.log.Warn("smtp server", "err", fmt.Sprint(v...)) }
