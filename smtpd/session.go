package smtpd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"postern/backend"
)

// session is one client's dialogue. go-smtp calls it from the connection's goroutine,
// but for Data behind BDAT, which runs in another while Reset and Logout may come; so
// what they share is under mu, and mu is never held while waiting for anything.
type session struct {
	server *Server
	conn   *conn
	log    *slog.Logger
	ctx    context.Context // ends with the connection
	cancel context.CancelFunc

	mu       sync.Mutex
	login    *backend.Login
	leave    func()            // of login; nil without one
	env      *backend.Envelope // since MAIL; nil outside a transaction
	failures int
	chunked  int  // Data calls running behind BDAT
	broken   bool // no further transaction on this connection
}

func (s *Server) newSession(sc *smtp.Conn) (smtp.Session, error) {
	c, ok := sc.Conn().(*conn)
	if !ok {
		s.log.Error("smtp session on a foreign connection")
		return nil, status(421, 4, 3, 0, "Internal error, try again later")
	}
	ctx, cancel := context.WithCancel(s.ctx)
	ses := &session{
		server: s, conn: c, ctx: ctx, cancel: cancel,
		log: s.log.With("remote", c.remote.String()),
	}
	if s.opts.Fixed != nil && s.trusts(c.remote) {
		c.setTrusted()
		ses.login = s.adapt(s.opts.Fixed)
	}
	return ses, nil
}

// trusts reports whether clients at addr need no log-in.
func (s *Server) trusts(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	return slices.ContainsFunc(s.opts.Networks, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// adapt applies what the listener says about all logins.
func (s *Server) adapt(login *backend.Login) *backend.Login {
	if !s.opts.RewriteFrom || login.RewriteFrom {
		return login
	}
	l := *login
	l.RewriteFrom = true
	return &l
}

// Reset forgets the transaction. When it comes between two chunks, go-smtp's goroutine
// for the message given up may deliver its result to the next message's waiting
// client, as both use one field of the connection. So there is no next message.
func (s *session) Reset() {
	s.mu.Lock()
	s.env = nil
	between := s.chunked > 0
	s.broken = s.broken || between
	s.mu.Unlock()
	if between {
		s.conn.endNext(lineChunks)
	}
}

// Logout ends the session.
func (s *session) Logout() error {
	s.cancel()
	s.mu.Lock()
	leave := s.leave
	s.leave = nil
	s.mu.Unlock()
	if leave != nil {
		leave()
	}
	return nil
}

// AuthMechanisms lists what EHLO offers: nothing where a password would travel in the clear.
func (s *session) AuthMechanisms() []string {
	if !s.conn.mayLogIn() {
		return nil
	}
	return []string{sasl.Plain, sasl.Login}
}

// Auth begins a log-in.
func (s *session) Auth(mech string) (sasl.Server, error) {
	if !s.conn.mayLogIn() {
		return nil, errEncryptFirst
	}
	m := newMechanism(mech, s.authenticate)
	if m == nil {
		return nil, status(504, 5, 5, 4, "This way to log in is not supported, use PLAIN or LOGIN")
	}
	if s.server.opts.Device {
		return &deviceMechanism{m, s.conn}, nil
	}
	return m, nil
}

var (
	errEncryptFirst = status(538, 5, 7, 11, "Encryption is required to log in: use STARTTLS first, or the port with TLS")
	errLoginFirst   = status(530, 5, 7, 0, "Authentication required: log in first")
)

// authenticate is the end of every mechanism. A client that keeps guessing loses its connection.
func (s *session) authenticate(username, password string) (err error) {
	defer s.observe("AUTH", time.Now(), &err)
	login, err := s.server.mail.Authenticate(s.ctx, backend.Attempt{
		Protocol: "smtp", Username: username, Password: password, Remote: s.conn.remote,
	})
	var leave func()
	if err == nil {
		leave, err = s.server.mail.enter(login, s.conn.revoke)
	}
	if err == nil {
		s.mu.Lock()
		s.login, s.leave = s.server.adapt(login), leave
		s.mu.Unlock()
		s.conn.setLoggedIn()
		s.log.Info("smtp log-in", "username", login.Username)
		return nil
	}
	r := reply(err)
	s.log.Warn("smtp log-in failed", "kind", backend.KindOf(err).String(), "err", err)
	switch {
	case s.ctx.Err() != nil:
		r = status(421, 4, 3, 2, "The server is shutting down, try again later")
	case r.Code/100 == 4:
		// RFC 4954 section 6: 454 is the temporary failure of AUTH.
		r.Code = 454
	}
	s.mu.Lock()
	s.failures++
	over := s.failures >= s.server.limits.AuthFailures
	s.mu.Unlock()
	if over {
		s.conn.hangUp()
		if r.Code != 454 {
			r = status(421, 4, 7, 0, "Too many failed log-ins, closing the connection")
		}
	}
	return r
}

// observe counts a command that began at a time and ends with an answer, which for messages may be good news.
func (s *session) observe(command string, began time.Time, answer *error) {
	outcome := "ok"
	if e, ok := errors.AsType[*smtp.SMTPError](*answer); ok && e.Code >= 500 {
		outcome = "no"
	} else if ok && e.Code >= 400 || !ok && *answer != nil {
		outcome = "later"
	}
	s.server.opts.Observe(command, outcome, time.Since(began))
}

// Mail begins a transaction.
func (s *session) Mail(from string, opts *smtp.MailOptions) (err error) {
	defer s.observe("MAIL", time.Now(), &err)
	s.mu.Lock()
	login, open, broken := s.login, s.env != nil, s.broken
	s.mu.Unlock()
	switch {
	case broken:
		return status(421, 4, 5, 0, "Connect again after giving up a message between chunks")
	case login == nil && !s.conn.mayLogIn() && s.server.opts.TLS == TLSStart:
		return status(530, 5, 7, 0, "Authentication required: use STARTTLS, then log in")
	case login == nil && !s.conn.mayLogIn():
		return status(530, 5, 7, 0, "Authentication required, and this port takes no passwords: use the port with TLS")
	case login == nil:
		return errLoginFirst
	case open:
		// go-smtp would keep the recipients given so far. RFC 5321 section 4.1.4.
		return status(503, 5, 5, 1, "A sender was given already, send RSET to start over")
	case from != "" && !validAddress(from):
		return status(501, 5, 1, 7, "The sender's address is not written correctly")
	}
	if err := s.server.mail.CheckSender(login, from); err != nil {
		s.log.Warn("smtp sender refused", "username", login.Username, "err", err)
		return reply(err)
	}
	var size int64
	if opts != nil {
		size = opts.Size
	}
	if err := s.server.mail.CheckRoom(login, size); err != nil {
		s.log.Warn("smtp message put off", "username", login.Username, "err", err)
		return roomReply(err)
	}
	env := &backend.Envelope{From: from, Remote: s.conn.remote.String(), DropCopy: s.server.opts.DropCopy}
	if opts != nil {
		env.Ret = string(opts.Return)
		env.EnvID = opts.EnvelopeID
		env.SMTPUTF8 = opts.UTF8
		env.Body8Bit = opts.Body == smtp.Body8BitMIME
	}
	s.mu.Lock()
	s.env = env
	s.mu.Unlock()
	return nil
}

// Rcpt adds a recipient.
func (s *session) Rcpt(to string, opts *smtp.RcptOptions) (err error) {
	defer s.observe("RCPT", time.Now(), &err)
	if !validAddress(to) {
		return status(501, 5, 1, 3, "The recipient's address is not written correctly")
	}
	r := backend.Recipient{Address: to}
	if opts != nil {
		for _, n := range opts.Notify {
			r.Notify = append(r.Notify, string(n))
		}
		if opts.OriginalRecipient != "" {
			r.Orcpt = strings.ToLower(string(opts.OriginalRecipientType)) + ";" + opts.OriginalRecipient
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.env == nil {
		return status(503, 5, 5, 1, "Give a sender with MAIL FROM first")
	}
	s.env.Recipients = append(s.env.Recipients, r)
	return nil
}

// Data takes the message. Its result is the reply, for good news too.
func (s *session) Data(r io.Reader) (err error) {
	defer s.observe("DATA", time.Now(), &err)
	defer s.conn.enterData()()
	_, chunked := r.(*io.PipeReader)
	s.mu.Lock()
	if chunked {
		s.chunked++
		defer s.endChunked()
	}
	login, open := s.login, s.env
	s.env = nil // whatever comes of it, this transaction is over
	s.mu.Unlock()
	if login == nil || open == nil || len(open.Recipients) == 0 {
		return status(503, 5, 5, 1, "Give a sender and recipients first")
	}
	env := *open

	sub, err := s.server.mail.newSubmission(login, env)
	if err != nil {
		s.log.Error("smtp submission refused", "username", login.Username, "err", err)
		return roomReply(err)
	}
	defer sub.Discard()

	in := &input{r: r}
	if !chunked {
		if m := s.conn.message(s.server.opts.MaxMessage); m != nil {
			in.r = m
			defer m.finish()
		}
	}
	if _, err := io.CopyBuffer(onlyWriter{sub}, in, make([]byte, messageChunk)); err != nil {
		if in.err != nil {
			return s.inputFailed(in.err)
		}
		s.log.Error("smtp message not taken", "username", login.Username, "err", err)
		return reply(err)
	}
	id, err := sub.Submit(s.ctx)
	if err != nil {
		rep := reply(err)
		s.log.Warn("smtp message refused", "username", login.Username, "code", rep.Code, "err", err)
		return rep
	}
	s.log.Info("smtp message accepted", "username", login.Username, "queue_id", id,
		"size", in.n, "recipients", len(env.Recipients))
	s.conn.answering(id)
	return accepted(id)
}

// roomReply is reply for a login that sends too much: 454, as reply has it, belongs to AUTH.
func roomReply(err error) *smtp.SMTPError {
	r := reply(err)
	if r.Code == 454 {
		r.Code = 450
	}
	return r
}

func (s *session) endChunked() {
	s.mu.Lock()
	s.chunked--
	s.mu.Unlock()
}

// inputFailed answers a message that did not arrive whole. But for one that is merely
// too long, whose end go-smtp goes on to find, what the client sends next is still
// message and must never be read as commands: the connection ends.
func (s *session) inputFailed(err error) error {
	if err == smtp.ErrDataTooLarge {
		return status(552, 5, 3, 4, fmt.Sprintf("The message is larger than the limit of %d bytes", s.server.opts.MaxMessage))
	}
	if errors.Is(err, smtp.ErrDataReset) {
		// RSET or the end of the connection between two chunks; nobody reads this.
		return status(451, 4, 5, 0, "The message was given up")
	}
	s.conn.hangUp()
	s.log.Info("smtp message broke off", "err", err)
	if errors.Is(err, smtp.ErrTooLongLine) {
		return status(554, 5, 6, 0, fmt.Sprintf("A line of the message is longer than the limit of %d bytes", s.server.limits.LineLength))
	}
	return status(421, 4, 4, 2, "The message did not arrive whole, closing the connection")
}

// input counts a message's bytes and keeps apart the errors of reading and of writing.
type input struct {
	r   io.Reader
	n   int64
	err error
}

func (i *input) Read(p []byte) (int, error) {
	n, err := i.r.Read(p)
	i.n += int64(n)
	if err != nil && err != io.EOF {
		i.err = err
	}
	return n, err
}

// onlyWriter keeps io.CopyBuffer to its buffer.
type onlyWriter struct{ io.Writer }

// validAddress refuses what must not get into a header field. go-smtp unquotes local
// parts and takes nearly any byte in a domain, so a comma there would add a recipient
// and a bare CR a line. Raw UTF-8 passes without SMTPUTF8 too: clients send it.
func validAddress(addr string) bool {
	at := strings.LastIndexByte(addr, '@')
	if at < 1 || len(addr) > 320 || !utf8.ValidString(addr) {
		return false
	}
	local, domain := addr[:at], addr[at+1:]
	for _, r := range local {
		// A quoted '@' is allowed by the grammar and used by nobody; go-smtp gives the
		// same string for a domain that holds one.
		if r == '@' || r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return false
		}
	}
	if lit, ok := strings.CutPrefix(domain, "["); ok {
		lit, ok = strings.CutSuffix(lit, "]")
		return ok && lit != "" && !strings.ContainsFunc(lit, func(r rune) bool {
			return !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '.' || r == ':' || r == '-')
		})
	}
	return domain != "" && !strings.ContainsFunc(domain, func(r rune) bool {
		return !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' ||
			r == '.' || r == '-' || r == '_' || r >= 0xa0)
	})
}
