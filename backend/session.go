package backend

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Session is one connection of a mail program that has logged in. It ends early when its login is taken out, gets
// another password, or loses a right the connection has been given.
type Session struct {
	logins  *logins
	login   *Login
	revoked func() // nil once it has been called, or the session was left
}

// Enter notes that a connection uses login from now on, until the Session's Leave. With a limit over 0 it fails with kind
// TooMany when so many connections use that login already, over the same protocol.
//
// revoked is called, once and in a goroutine of its own, when login no longer holds: whoever asked for a connection now
// would not get what this one has.
func (b *Backend) Enter(login *Login, limit int, revoked func()) (*Session, error) {
	l := b.logins
	s := &Session{logins: l, login: login, revoked: revoked}
	if login.origin == nil {
		return s, nil // a FixedLogin
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	// The logins may have changed since the password was checked.
	if !login.holdsLocked(l) {
		return nil, refused(login.Username, "login was changed while logging in", "Wrong user name or password")
	}
	if limit > 0 {
		n := 0
		for other := range l.sessions {
			if other.login.name() == login.name() && other.login.protocol == login.protocol {
				n++
			}
		}
		if n >= limit {
			return nil, &Error{Kind: TooMany, Op: opLogin, Text: fmt.Sprintf("Too many connections of this login, %d are open", n),
				Err: fmt.Errorf("user %q: %w", login.Username, errManySessions)}
		}
	}
	if l.sessions == nil {
		l.sessions = make(map[*Session]struct{})
	}
	l.sessions[s] = struct{}{}
	return s, nil
}

var errManySessions = errors.New("too many connections")

// Leave says that the connection has ended. It may be called more than once, and on nil.
func (s *Session) Leave() {
	if s == nil {
		return
	}
	s.logins.mu.Lock()
	defer s.logins.mu.Unlock()
	delete(s.logins.sessions, s)
	s.revoked = nil
}

// revokeLocked ends the sessions whose login no longer holds.
func (l *logins) revokeLocked() {
	for s := range l.sessions {
		if s.login.holdsLocked(l) {
			continue
		}
		delete(l.sessions, s)
		if end := s.revoked; end != nil {
			s.revoked = nil
			l.log.Info("session is ended: its login was taken out, changed, or has lost a right", "user", s.login.Username,
				"protocol", s.login.protocol, "remote", s.login.remote)
			go end()
		}
	}
}

// grant is where a Login comes from.
type grant struct {
	origin   *user // as it was when the password was checked; nil for a FixedLogin
	protocol string
	remote   netip.Addr
}

func (g *grant) name() string { return foldUser(g.origin.Username) }

// holdsLocked reports whether the logins as they are now would give as much as login has.
func (login *Login) holdsLocked(l *logins) bool {
	u := l.users[login.name()]
	if u == login.origin {
		return true
	}
	if u == nil || u.PasswordHash != login.origin.PasswordHash || !u.mayUse(login.protocol) || !u.inNetworks(login.remote) {
		return false
	}
	if u.ReadOnly && !login.ReadOnly {
		return false
	}
	if u.account != login.Account && !slices.Contains(u.shared, login.Account) {
		return false
	}
	if u.account != login.origin.account && login.Account == login.origin.account {
		return false // its own mailbox has become somebody else's to open
	}
	if slices.ContainsFunc(login.Shared, func(a *Account) bool { return !slices.Contains(u.shared, a) }) {
		return false
	}
	return login.protocol != "smtp" || !slices.ContainsFunc(login.origin.SendAs, func(address string) bool {
		return !slices.ContainsFunc(u.SendAs, func(s string) bool { return foldUser(s) == foldUser(address) })
	})
}

// mayUse reports whether the login may use the protocol, "smtp", "imap" or "admin".
func (u *user) mayUse(protocol string) bool {
	switch protocol {
	case "smtp":
		return u.SMTP
	case "imap":
		return u.IMAP
	case protocolAdmin:
		return u.Admin
	}
	return false
}
