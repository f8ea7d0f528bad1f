package imapd

import (
	"context"
	"log/slog"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend"
)

// mayLogIn reports whether a password may be sent over this connection: over
// TLS, or where it does not leave the machine.
func (s *session) mayLogIn() bool {
	return s.secure || s.srv.opts.AllowPlainAuth || s.remote.IsLoopback()
}

func (s *session) requirePrivacy() error {
	if s.mayLogIn() {
		return nil
	}
	return no(imap.ResponseCodePrivacyRequired, "Logging in needs TLS")
}

// loginCommand is LOGIN. RFC 3501 section 6.2.3.
func (s *session) loginCommand(c *command) error {
	d := s.dec
	// Before the arguments: a literal must not even be asked for.
	if err := s.requirePrivacy(); err != nil {
		return err
	}
	d.Space()
	user := d.AString()
	d.Space()
	password := d.AString()
	if err := d.End(); err != nil {
		return err
	}
	return s.logIn(c, user, password)
}

// logIn checks the password and enters the authenticated state.
func (s *session) logIn(c *command, user, password string) error {
	ctx, cancel := context.WithDeadline(s.ctx, s.loginBy.Add(5*time.Second))
	defer cancel()
	login, err := s.srv.opts.Backend.Authenticate(ctx, backend.Attempt{
		Protocol: "imap",
		Username: user,
		Password: password,
		Remote:   s.remote,
	})
	if err == nil {
		s.member, err = s.srv.opts.Backend.Enter(login, s.limits.PerLogin, s.revoke)
	}
	if err != nil {
		if kind := backend.KindOf(err); kind != backend.AuthFailed && kind != backend.TooMany {
			return err
		}
		if s.failedLogins++; s.failedLogins >= s.limits.LoginAttempts {
			st := reply(err)
			s.enc.Raw(c.tag).Raw(" NO [").Raw(st.code).Raw("] ").Text(st.text).CRLF()
			return bye("Too many failed logins")
		}
		return err
	}
	s.login = login
	s.loggedIn.Store(true)
	s.state = imap.ConnStateAuthenticated
	s.loginBy = time.Time{}
	s.dec.SetLimits(s.limits.Wire)
	s.log = s.log.With("account", login.Account.Address())
	s.log.LogAttrs(s.ctx, slog.LevelDebug, "logged in", slog.String("op", c.name), slog.Bool("tls", s.secure))
	c.done("CAPABILITY "+s.capabilities(), "Logged in")
	return nil
}

// mayWrite refuses changes to logins that may only read.
func (s *session) mayWrite() error {
	if s.login.ReadOnly {
		return no(imap.ResponseCodeNoPerm, "This login may only read")
	}
	return nil
}
