package imapd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend"
	"postern/imapd/wire"
)

const (
	// halfClosed is how long a command may still run after the client has closed
	// its side in good order: scripts that pipe commands in do so and read on.
	halfClosed = 5 * time.Second
	// lastWords is how long the client has to read the last response.
	lastWords = time.Second

	maxBadCommands           = 20  // in a row
	maxBadBeforeLogin        = 5   // in a row
	maxCommandsBeforeLogin   = 100 // altogether
	commandKeepAlive         = 8 * time.Second
	commandKeepAliveResponse = "* OK Still working"
)

// session is one connection. All fields but the atomic ones belong to the
// goroutine that runs serve.
type session struct {
	srv    *Server
	limits Limits
	log    *slog.Logger
	pump   *pump
	conn   net.Conn // the pump, or TLS over it, or COMPRESS over either
	dec    *wire.Decoder
	enc    *wire.Encoder
	remote netip.Addr
	secure bool // TLS is on

	compressed bool // COMPRESS is on

	ctx    context.Context // ends with the connection
	cancel context.CancelFunc

	state    imap.ConnState
	login    *backend.Login
	member   *backend.Session // nil before login
	loggedIn atomic.Bool
	revoked  atomic.Bool // the login no longer holds
	view     *view       // of the selected mailbox, else nil
	ahead    readAhead   // texts for commands that are not their turn yet
	enabled  enabled

	idling       bool          // IDLE is reading a line in a goroutine of its own
	readTimeout  time.Duration // from one byte to the next
	loginBy      time.Time     // zero after login
	commands     int
	badCommands  int // in a row
	failedLogins int
}

// enabled is what the client has switched on for this connection, by ENABLE or
// otherwise.
type enabled struct {
	utf8 bool // UTF8=ACCEPT or IMAP4rev2: names and strings are UTF-8
	rev2 bool // IMAP4rev2 (RFC 9051): among others, SEARCH is answered with ESEARCH

	condstore bool // MODSEQ in untagged FETCH responses
	qresync   bool // VANISHED instead of EXPUNGE
}

func newSession(srv *Server, conn net.Conn, remote netip.Addr) *session {
	s := &session{
		srv:     srv,
		limits:  srv.limits,
		log:     srv.log.With("remote", remote.String()),
		remote:  remote,
		state:   imap.ConnStateNotAuthenticated,
		loginBy: time.Now().Add(srv.limits.Login),
	}
	s.readTimeout = s.limits.Login
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.pump = newPump(conn, s.inputEnded)
	s.conn = s.pump
	s.enc = wire.NewEncoder(writer{s})
	s.dec = wire.NewDecoder(reader{s}, limitsBeforeLogin, s.beforeRead, func() error {
		return s.enc.Raw("+ Go ahead").CRLF().Flush()
	})
	return s
}

// beforeRead runs before each read that may block: the client gets all that is
// ready when there is nothing else to do.
func (s *session) beforeRead() error {
	if s.idling {
		return nil // the encoder belongs to the other goroutine
	}
	return s.enc.Flush()
}

// reader reads the connection under a deadline that starts anew with each read,
// so that a slow transfer may take as long as it goes on.
type reader struct{ s *session }

func (r reader) Read(p []byte) (int, error) {
	deadline := time.Now().Add(r.s.readTimeout)
	if by := r.s.loginBy; !by.IsZero() && by.Before(deadline) {
		deadline = by
	}
	r.s.conn.SetReadDeadline(deadline)
	return r.s.conn.Read(p)
}

// writer is the like for writing.
type writer struct{ s *session }

func (w writer) Write(p []byte) (int, error) {
	w.s.conn.SetWriteDeadline(time.Now().Add(w.s.limits.Transfer))
	return w.s.conn.Write(p)
}

// bye ends the connection with the words.
type bye string

func (b bye) Error() string { return string(b) }

// revoke ends the session whatever it does, because its login no longer holds. It may be called from any goroutine.
func (s *session) revoke() {
	s.revoked.Store(true)
	s.cancel()
	s.pump.interrupt()
}

// errRevoked ends the connection without an answer to the command it was at: a client that is told NO may take what it
// did not get for gone.
var errRevoked = bye("Your login was changed or revoked, log in again")

// errLoggedOut ends the connection after its BYE has been said.
var errLoggedOut = errors.New("logged out")

// serve runs the connection to its end.
func (s *session) serve() {
	err := s.talk()
	s.end(err)
}

// inputEnded is called when nothing more will come from the client.
func (s *session) inputEnded(err error) {
	if isEOF(err) {
		timer := time.AfterFunc(halfClosed, s.cancel)
		context.AfterFunc(s.ctx, func() { timer.Stop() })
		return
	}
	s.cancel()
}

// abort cancels the command that runs, and closes the connection soon after.
func (s *session) abort() {
	s.cancel()
	time.AfterFunc(lastWords, func() { s.pump.Close() })
}

func (s *session) talk() (err error) {
	defer func() {
		if v := recover(); v != nil {
			s.log.Error("panic", "op", "imap session", "err", fmt.Sprint(v), "stack", string(debug.Stack()))
			if err = bye("Internal error"); !s.enc.DropPartial() {
				err = wire.ErrBroken
			}
		}
	}()
	if s.srv.opts.ImplicitTLS {
		if err := s.startTLS(); err != nil {
			return err
		}
	}
	if err := s.greet(); err != nil {
		return err
	}
	for {
		if err := s.command(); err != nil {
			return err
		}
	}
}

func (s *session) greet() error {
	s.enc.Raw("* OK [CAPABILITY ").Raw(s.capabilities()).Raw("] Postern ready").CRLF()
	return s.enc.Flush()
}

// startTLS makes the handshake over the connection. Input that came before it
// is not used after it.
func (s *session) startTLS() error {
	conn := tls.Server(s.pump, s.srv.opts.TLSConfig)
	ctx, cancel := context.WithTimeout(s.ctx, s.limits.Handshake)
	defer cancel()
	s.pump.SetDeadline(time.Now().Add(s.limits.Handshake))
	if err := conn.HandshakeContext(ctx); err != nil {
		return &handshakeError{err}
	}
	s.pump.SetDeadline(time.Time{})
	s.conn, s.secure = conn, true
	s.dec.Reset(reader{s})
	return nil
}

// handshakeError is the end of a connection on which nothing can be said.
type handshakeError struct{ err error }

func (e *handshakeError) Error() string { return "TLS handshake: " + e.err.Error() }
func (e *handshakeError) Unwrap() error { return e.err }

// end says the last words that err calls for, and closes everything.
func (s *session) end(err error) {
	s.member.Leave() // before the client knows: it may connect again at once
	words := ""
	if b, ok := errors.AsType[bye](err); ok {
		words = string(b)
	} else if _, ok := errors.AsType[*handshakeError](err); !ok && !errors.Is(err, wire.ErrBroken) {
		switch {
		case errors.Is(err, errStopping):
			words = "Server is shutting down"
		case errors.Is(err, os.ErrDeadlineExceeded) && s.state == imap.ConnStateNotAuthenticated:
			words = "Not logged in in time"
		case errors.Is(err, os.ErrDeadlineExceeded):
			words = "Idle for too long"
		case errors.Is(err, wire.ErrLost):
			words = "Too much refused input"
		}
	}
	if s.enc.Err() == nil && (words != "" || errors.Is(err, errLoggedOut)) {
		if words != "" {
			s.enc.Raw("* BYE ").Text(words).CRLF()
		}
		if s.enc.Flush() == nil {
			if c, ok := s.conn.(interface{ CloseWrite() error }); ok && s.secure {
				c.CloseWrite()
			}
			s.pump.linger(lastWords)
		}
	}
	if !errors.Is(err, errLoggedOut) && !errors.Is(err, io.EOF) {
		s.log.Debug("connection ended", "err", err)
	}
	s.cancel()
	s.ahead.drop()
	s.closeView()
	s.pump.Close()
	s.pump.wait()
}

// command reads and runs one command and answers it. An error ends the connection.
func (s *session) command() error {
	if s.pump.isStopping() {
		return errStopping
	}
	if s.revoked.Load() {
		return errRevoked
	}
	s.readTimeout = s.limits.Idle
	s.pump.idle.Store(true)
	tag, name, err := s.dec.ReadCommand()
	s.pump.idle.Store(false)
	s.readTimeout = s.limits.Transfer
	if err != nil && !wire.Recoverable(err) {
		if s.revoked.Load() {
			return errRevoked
		}
		return err
	}

	c := &command{tag: tag, name: name}
	begun := time.Now()
	if err != nil || name != "FETCH" && name != "UID" {
		s.ahead.drop()
	}
	if err == nil {
		err = s.run(c)
	}
	s.observe(c, err, time.Since(begun))
	if err != nil && s.revoked.Load() {
		return errRevoked
	}
	// What is left of the command is read past before anything else is done, so
	// that the content of a refused literal is never taken for a command.
	lost := s.dec.Finish()
	if s.enc.Err() != nil {
		return s.enc.Err()
	}
	if lost != nil && !errors.Is(lost, wire.ErrLost) {
		return lost
	}
	if b, ok := errors.AsType[bye](err); ok {
		return b
	}
	if _, ok := errors.AsType[*handshakeError](err); ok || err == errLoggedOut {
		return err
	}
	if err := s.answer(c, err); err != nil {
		return err
	}
	return lost
}

// run finds the command and runs it.
func (s *session) run(c *command) error {
	s.commands++
	if s.login == nil && s.commands > maxCommandsBeforeLogin {
		return bye("Too many commands before login")
	}
	if c.name == "UID" {
		s.dec.Space()
		c.name += " " + s.dec.Word()
		if s.dec.Err() != nil {
			return bad("UID needs a command")
		}
		c.uid = true
	}
	spec, ok := commands[c.name]
	if c.uid {
		spec, ok = commands[c.name[len("UID "):]]
		ok = ok && spec.uid
	}
	if !ok {
		return bad("Unknown command")
	}
	if !spec.in.has(s.state) {
		switch s.state {
		case imap.ConnStateNotAuthenticated:
			return bad("Log in first")
		case imap.ConnStateAuthenticated:
			if spec.in == inSelected {
				return bad("Select a mailbox first")
			}
		}
		return bad("Not allowed now")
	}
	c.keepsNumbers = spec.keepsNumbers && !c.uid
	begun := time.Now()
	err := spec.run(s, c)
	if err != nil && !errors.Is(err, errLoggedOut) {
		s.logError(c, err)
	}
	if s.log.Enabled(s.ctx, slog.LevelDebug) {
		s.log.Debug("command", "op", c.name, "took", time.Since(begun))
	}
	return err
}

// observe counts a command.
func (s *session) observe(c *command, err error, took time.Duration) {
	if s.srv.opts.Observe == nil {
		return
	}
	name := c.name
	if _, ok := commands[strings.TrimPrefix(name, "UID ")]; !ok {
		name = "UNKNOWN" // clients must not make up names for those who count
	}
	outcome := "ok"
	if err != nil && !errors.Is(err, errLoggedOut) {
		outcome = strings.ToLower(string(reply(err).typ))
	}
	s.srv.opts.Observe(name, outcome, took)
}

// answer tells what has changed in the selected mailbox and then how the
// command has ended.
func (s *session) answer(c *command, err error) error {
	st := c.ok
	if err != nil {
		st = reply(err)
	} else if st == nil {
		st = &status{typ: imap.StatusResponseTypeOK}
	}
	if c.answered {
		return nil
	}
	// A client that was told BAD may be confused about its view already.
	if s.view != nil && st.typ != imap.StatusResponseTypeBad {
		if err := s.tellChanges(!c.keepsNumbers); err != nil {
			return err
		}
	}
	if c.tag == "" {
		s.enc.Byte('*')
	} else {
		s.enc.Raw(c.tag)
	}
	s.enc.SP().Raw(string(st.typ)).SP()
	if st.code != "" {
		s.enc.Byte('[').Raw(st.code).Raw("] ")
	} else if c.tellsModSeq && s.enabled.condstore && s.view != nil && st.typ == imap.StatusResponseTypeOK {
		// After the changes have been told, for it says that nothing up to it is missing.
		s.enc.Raw("[HIGHESTMODSEQ ").Num(s.view.told).Raw("] ")
	}
	if st.text == "" && st.typ == imap.StatusResponseTypeOK {
		s.enc.Raw(c.name).Raw(" completed").CRLF()
	} else {
		s.enc.Text(st.text).CRLF()
	}

	if st.typ != imap.StatusResponseTypeBad {
		s.badCommands = 0
		return nil
	}
	s.badCommands++
	if s.badCommands >= maxBadCommands || (s.login == nil && s.badCommands >= maxBadBeforeLogin) {
		return bye("Too many invalid commands")
	}
	return nil
}

func (s *session) logError(c *command, err error) {
	level := logLevel(err)
	if s.ctx.Err() != nil {
		level = slog.LevelDebug // the client has left
	}
	if !s.log.Enabled(s.ctx, level) {
		return
	}
	args := []any{"op", c.name, "err", err}
	if s.view != nil {
		args = append(args, "mailbox", s.view.mbox.Name())
	}
	s.log.Log(s.ctx, level, "command failed", args...)
}

// untagged writes an untagged OK with a response code.
func (s *session) untagged(code, text string) {
	s.enc.Raw("* OK ")
	if code != "" {
		s.enc.Byte('[').Raw(code).Raw("] ")
	}
	s.enc.Text(text).CRLF()
}

// wait runs op, which may take long, and meanwhile gives the client signs of
// life: many give up on a server that is silent for a minute or two. op must not
// use the session's encoder or decoder.
func (s *session) wait(op func(ctx context.Context) error) error {
	var mu sync.Mutex // the encoder is its holder's
	over := false
	var timer *time.Timer
	mu.Lock()
	timer = time.AfterFunc(commandKeepAlive, func() {
		mu.Lock()
		defer mu.Unlock()
		if over {
			return
		}
		s.enc.Raw(commandKeepAliveResponse).CRLF()
		if s.enc.Flush() != nil {
			s.cancel() // nobody listens any more; op must still end
		}
		timer.Reset(commandKeepAlive)
	})
	mu.Unlock()
	defer func() {
		timer.Stop()
		mu.Lock()
		over = true
		mu.Unlock()
	}()
	return op(s.ctx)
}
