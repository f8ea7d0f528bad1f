package backend

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
)

// LoginState is one of Postern's own logins, with what is known of its use. It holds no hash.
type LoginState struct {
	LoginConfig        // PasswordHash is empty
	Configured  bool   // it stands in the configuration file, not in the state folder
	Left        string // why it is left out, "" if it is not
	Last        *LoginUse
	Locked      []Lockout
}

// Logins returns all logins, by user name.
func (b *Backend) Logins() []LoginState {
	l := b.logins
	l.refresh()
	l.mu.Lock()
	var out []LoginState
	seen := make(map[string]bool)
	for _, c := range l.fromConfig {
		seen[foldUser(c.Username)] = true
		out = append(out, LoginState{LoginConfig: c, Configured: true})
	}
	for _, c := range l.fromState {
		s := LoginState{LoginConfig: c}
		if seen[foldUser(c.Username)] {
			s.Left = "the configuration file has a login of this name"
		} else if l.users[foldUser(c.Username)] == nil {
			s.Left = "its mailbox is not configured"
		}
		out = append(out, s)
	}
	l.mu.Unlock()
	locks := l.lockout.list(l.now())
	l.activity.mu.Lock()
	for i := range out {
		s := &out[i]
		s.PasswordHash = ""
		if use, ok := l.activity.uses[foldUser(s.Username)]; ok && s.Left == "" {
			s.Last = &use
		}
		for _, lock := range locks {
			if lock.Username != "" && lock.Username == foldUser(s.Username) {
				s.Locked = append(s.Locked, lock)
			}
		}
	}
	l.activity.mu.Unlock()
	slices.SortFunc(out, func(x, y LoginState) int { return cmp.Compare(foldUser(x.Username), foldUser(y.Username)) })
	return out
}

// Lockouts returns who is locked out for guessing passwords, whole addresses too.
func (b *Backend) Lockouts() []Lockout { return b.logins.lockout.list(b.logins.now()) }

// Unlock forgets the wrong passwords of a user name or an address.
func (b *Backend) Unlock(who string) {
	b.logins.lockout.unlock(who)
	b.logins.activity.changed(true)
	b.logins.log.Info("unlocked", "who", who)
}

const opLogins = "change logins"

// AddLogin makes a login in the state folder, which acts at once. The error's kind is Refused or Exists, with a text that
// says what to change.
func (b *Backend) AddLogin(c LoginConfig) error {
	refuse := func(format string, args ...any) error {
		return &Error{Kind: Refused, Op: opLogins, Text: fmt.Sprintf(format, args...)}
	}
	c.Username = strings.TrimSpace(c.Username)
	switch {
	case c.Username == "":
		return refuse("The user name is missing")
	case len(c.Username) > maxUsername || strings.ContainsFunc(c.Username, unicode.IsControl):
		return refuse("The user name is too long, or holds characters that nobody can type")
	case !c.SMTP && !c.IMAP && !c.Admin:
		return refuse("The login may use nothing: allow SMTP, IMAP or administration")
	case c.Mailbox == "" && !c.onlyAdmin():
		return refuse("The mailbox is missing")
	}
	for _, a := range c.SendAs {
		if !strings.Contains(a, "@") {
			return refuse("%q is no address to send as", a)
		}
	}
	if _, err := newUser(c, b.Account); err != nil {
		return refuse("Not possible: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	exists := &Error{Kind: Exists, Op: opLogins, Text: fmt.Sprintf("There is a login %s already: revoke it first", c.Username)}
	if u, _ := b.logins.user(foldUser(c.Username)); u != nil {
		return exists
	}
	return b.editLogins(func(all []LoginConfig) ([]LoginConfig, error) {
		if slices.ContainsFunc(all, func(o LoginConfig) bool { return foldUser(o.Username) == foldUser(c.Username) }) {
			return nil, exists
		}
		return append(all, c), nil
	})
}

// RevokeLogin takes a login out of the state folder; it acts at once. The error's kind is NotFound if it is not there.
func (b *Backend) RevokeLogin(username string) error {
	return b.editLogins(func(all []LoginConfig) ([]LoginConfig, error) {
		i := slices.IndexFunc(all, func(o LoginConfig) bool { return foldUser(o.Username) == foldUser(username) })
		if i < 0 {
			return nil, &Error{Kind: NotFound, Op: opLogins, Text: fmt.Sprintf("There is no login %s in the state folder", username)}
		}
		return slices.Delete(all, i, i+1), nil
	})
}

func (b *Backend) editLogins(edit func([]LoginConfig) ([]LoginConfig, error)) error {
	f := &b.logins.stateFile
	if f.dir == "" {
		return &Error{Kind: Refused, Op: opLogins, Text: "There is no state folder to keep logins in"}
	}
	if err := EditStateLogins(f.dir, edit); err != nil {
		if e, ok := errors.AsType[*Error](err); ok {
			return e
		}
		return &Error{Kind: Internal, Op: opLogins, Err: err}
	}
	f.mu.Lock()
	f.looked = time.Time{}
	f.mu.Unlock()
	b.logins.refresh()
	return nil
}

// NewPassword returns 16 letters and digits, 80 bits of chance. Without capitals and
// signs: the keyboards of devices make them hard to type, and some cannot store them.
func NewPassword() string {
	const letters = "abcdefghijkmnpqrstuvwxyz23456789" // 32 of them; no l, o, 0, 1
	b := make([]byte, 16)
	rand.Read(b) // never fails
	for i := range b {
		b[i] = letters[b[i]%byte(len(letters))]
	}
	return string(b)
}
