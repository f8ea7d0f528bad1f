// Package imapd is Postern's IMAP front: sessions, their views of mailboxes, and
// one file per command. It speaks IMAP4rev1 (RFC 3501) and the extensions that
// capability.go lists. What a mailbox is, package backend says; how the bytes
// look, package wire.
//
// A session runs its commands one after another in one goroutine. Sequence
// numbers are those of the session's own view, a list of UIDs that changes only
// when the client has been told.
package imapd

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"postern/backend"
	"postern/imapd/wire"
)

// Options say how a Server works.
type Options struct {
	Backend *backend.Backend
	// TLSConfig makes STARTTLS available, or is what an implicit listener uses.
	TLSConfig *tls.Config
	// ImplicitTLS: connections start with a handshake (port 993).
	ImplicitTLS bool
	// AllowPlainAuth lets clients log in without TLS from anywhere. Otherwise only
	// those that come from this machine may.
	AllowPlainAuth bool
	Limits         Limits
	// Observe is told of each command: its name (UNKNOWN for one we do not know), how it was answered (ok, no or bad) and
	// how long it took. It must be quick and safe for concurrent use. May be nil.
	Observe func(command, outcome string, took time.Duration)
	Logger  *slog.Logger // nil logs nothing
}

// Limits bound what clients may use. A zero field has its default.
type Limits struct {
	Connections      int           // at once; 2,000
	ConnectionsPerIP int           // at once; 500
	PerLogin         int           // connections of one login at once, over all servers of a backend; 100
	LoginAttempts    int           // failed ones before the connection is closed; 5
	Handshake        time.Duration // of TLS; 30 s
	Login            time.Duration // from the start of the connection to a successful login; 60 s
	Idle             time.Duration // without a command; 31 min, RFC 3501 section 5.4 asks for 30 at least
	Transfer         time.Duration // without a byte within a command or an answer; 5 min
	KeepAlive        time.Duration // between signs of life in IDLE; 2 min
	Message          int64         // bytes of an appended message, told as APPENDLIMIT; 150 MB
	Wire             wire.Limits   // of commands after login; wire.DefaultLimits
}

func (l Limits) withDefaults() Limits {
	set := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	wait := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	set(&l.Connections, 2000)
	set(&l.ConnectionsPerIP, 500)
	set(&l.PerLogin, 100)
	set(&l.LoginAttempts, 5)
	wait(&l.Handshake, 30*time.Second)
	wait(&l.Login, time.Minute)
	wait(&l.Idle, 31*time.Minute)
	wait(&l.Transfer, 5*time.Minute)
	wait(&l.KeepAlive, 2*time.Minute)
	if l.Message <= 0 {
		l.Message = 150 << 20
	}
	if l.Wire == (wire.Limits{}) {
		l.Wire = wire.DefaultLimits
	}
	return l
}

// limitsBeforeLogin are those of clients that nobody knows yet. RFC 9051
// section 6.2.2 gives no length for a SASL response; tokens take a few KiB.
var limitsBeforeLogin = wire.Limits{
	Line:    48 << 10, // an ID command may have 30 fields of 1,024 bytes; RFC 2971 section 3.3
	Literal: 8 << 10,
	Command: 64 << 10,
	Nesting: 4,
	Set:     10,
	Drain:   256 << 10,
}

// Server serves IMAP on any number of listeners.
type Server struct {
	opts Options
	log  *slog.Logger
	keys keyCache // for SORT and THREAD

	mu        sync.Mutex
	limits    Limits
	listeners map[net.Listener]struct{}
	sessions  map[*session]struct{}
	peers     backend.Peers
	refusals  int // connections being told that there are too many
	stopping  bool
	running   sync.WaitGroup // sessions
}

// New returns a Server that serves nothing yet.
func New(opts Options) *Server {
	s := &Server{
		opts:      opts,
		limits:    opts.Limits.withDefaults(),
		log:       opts.Logger,
		listeners: make(map[net.Listener]struct{}),
		sessions:  make(map[*session]struct{}),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s
}

// SetLimits replaces the limits. Connections that are open keep those they began with.
func (s *Server) SetLimits(l Limits) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limits = l.withDefaults()
}

// Serve accepts connections of l until ctx ends or Shutdown is called; it then
// closes l and returns nil. Sessions go on: Shutdown ends them. An error is one
// of accepting that will not pass.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	s.mu.Lock()
	if s.stopping {
		s.mu.Unlock()
		return l.Close()
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer func() {
		stop()
		l.Close()
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
	}()

	var wait time.Duration
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || s.isStopping() {
				return nil
			}
			// Out of descriptors or the like: it passes when connections end.
			if t, ok := errors.AsType[net.Error](err); ok && !errors.Is(err, net.ErrClosed) && (t.Timeout() || isTemporary(err)) {
				wait = min(max(2*wait, 5*time.Millisecond), time.Second)
				s.log.Warn("accept", "err", err)
				select {
				case <-time.After(wait):
					continue
				case <-ctx.Done():
					return nil
				}
			}
			return err
		}
		wait = 0
		s.start(conn)
	}
}

func isTemporary(err error) bool {
	t, ok := err.(interface{ Temporary() bool })
	return ok && t.Temporary()
}

func (s *Server) isStopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopping
}

// start runs a session on conn, unless there are too many.
func (s *Server) start(conn net.Conn) {
	remote := backend.PeerAddr(conn)
	s.mu.Lock()
	if s.stopping {
		s.mu.Unlock()
		conn.Close()
		return
	}
	refuse := ""
	switch s.peers.Enter(remote, backend.PeerLimits{All: s.limits.Connections, Each: s.limits.ConnectionsPerIP}) {
	case backend.TooManyAll:
		refuse = "* BYE [UNAVAILABLE] Too many connections\r\n"
	case backend.TooManyEach:
		refuse = "* BYE [LIMIT] Too many connections from your address\r\n"
	}
	if refuse != "" {
		talk := s.refusals < maxRefusals
		if talk {
			s.refusals++
			s.running.Add(1)
		}
		s.mu.Unlock()
		s.log.Warn("connection refused", "remote", remote, "err", "too many connections")
		if !talk {
			conn.Close()
			return
		}
		go s.refuse(conn, refuse)
		return
	}
	sess := newSession(s, conn, remote)
	s.sessions[sess] = struct{}{}
	s.running.Add(1)
	s.mu.Unlock()

	go func() {
		defer s.running.Done()
		defer func() {
			s.mu.Lock()
			delete(s.sessions, sess)
			s.peers.Leave(remote)
			s.mu.Unlock()
		}()
		sess.serve()
	}()
}

// maxRefusals is how many clients at once are told why they are refused. More are cut off without a word, for telling
// costs a goroutine, and a handshake where TLS is implicit.
const maxRefusals = 20

// refuse tells a client why it is refused and closes the connection.
func (s *Server) refuse(conn net.Conn, words string) {
	defer s.running.Done()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	if s.opts.ImplicitTLS {
		over := tls.Server(conn, s.opts.TLSConfig)
		io.WriteString(over, words) // after the handshake, which it makes
		over.CloseWrite()
	} else {
		io.WriteString(conn, words)
	}
	// What the client has sent must be read, or closing makes TCP throw the words away.
	if c, ok := conn.(interface{ CloseWrite() error }); ok && c.CloseWrite() == nil {
		conn.SetReadDeadline(time.Now().Add(lastWords))
		io.Copy(io.Discard, io.LimitReader(conn, 64<<10))
	}
	conn.Close()
	s.mu.Lock()
	s.refusals--
	s.mu.Unlock()
}

// Shutdown stops accepting, lets every session end the command it is at, and
// says BYE. When ctx ends first the commands are cancelled and the connections
// closed. It returns when no session is left: nil, or ctx's error if some had
// to be cut off.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.stopping = true
	for l := range s.listeners {
		l.Close()
	}
	for sess := range s.sessions {
		sess.pump.stop()
	}
	s.mu.Unlock()

	done := make(chan struct{})
	go func() {
		s.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	for sess := range s.sessions {
		sess.abort()
	}
	s.mu.Unlock()
	<-done
	return ctx.Err()
}

// Sessions returns how many connections are open, and how many of them have
// logged in, for status pages.
func (s *Server) Sessions() (open, loggedIn int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for sess := range s.sessions {
		if sess.loggedIn.Load() {
			loggedIn++
		}
	}
	return len(s.sessions), loggedIn
}
