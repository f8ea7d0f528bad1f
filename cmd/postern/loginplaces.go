package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"postern/backend"
)

// A login stands in one of two places. Commands find it wherever it is, and tell a running server.

const stateName = "the state folder"

// toState and fromState translate between the two places' forms.
func toState(l loginConfig) backend.LoginConfig {
	return backend.LoginConfig{Username: l.Username, PasswordHash: l.PasswordHash, Mailbox: l.Mailbox, Shared: l.Shared,
		SMTP: slices.Contains(l.Allow, "smtp"), IMAP: slices.Contains(l.Allow, "imap"), Admin: slices.Contains(l.Allow, "admin"), ReadOnly: l.ReadOnly, SendAs: l.SendAs,
		RewriteFrom: l.RewriteFrom, Networks: l.Networks}
}

func fromState(l backend.LoginConfig) loginConfig {
	out := loginConfig{Username: l.Username, PasswordHash: l.PasswordHash, Mailbox: l.Mailbox, Shared: l.Shared, ReadOnly: l.ReadOnly,
		SendAs: l.SendAs, RewriteFrom: l.RewriteFrom, Networks: l.Networks}
	if l.SMTP {
		out.Allow = append(out.Allow, "smtp")
	}
	if l.IMAP {
		out.Allow = append(out.Allow, "imap")
	}
	if l.Admin {
		out.Allow = append(out.Allow, "admin")
	}
	return out
}

// loginPlaces is what commands about logins need to know.
type loginPlaces struct {
	path   string
	conf   *configFile
	stored []backend.LoginConfig // of the state folder
}

// openLogins reads both places. Faults elsewhere in the configuration do not hide who may log in.
func openLogins(path string) (*loginPlaces, error) {
	c, err := readConfig(path, os.LookupEnv)
	if c == nil {
		return nil, err
	}
	stored, err := backend.StateLogins(c.folder())
	if err != nil {
		return nil, err
	}
	return &loginPlaces{path, c, stored}, nil
}

func sameUser(a, b string) bool { return strings.EqualFold(a, b) }

// inConfig returns the number of a login in the configuration, -1 if it is not there; inState reports the other place.
func (p *loginPlaces) inConfig(name string) int {
	return slices.IndexFunc(p.conf.Logins, func(l loginConfig) bool { return sameUser(l.Username, name) })
}

func (p *loginPlaces) inState(name string) int {
	return slices.IndexFunc(p.stored, func(l backend.LoginConfig) bool { return sameUser(l.Username, name) })
}

// addLogin puts a login into one of the places, and returns which.
func addLogin(path string, l loginConfig, inState bool) (string, error) {
	p, err := openLogins(path)
	if err != nil {
		return "", err
	}
	if p.inConfig(l.Username) >= 0 {
		return "", fmt.Errorf("%s has a login %s already: revoke it first", path, l.Username)
	}
	if p.inState(l.Username) >= 0 {
		return "", fmt.Errorf("%s has a login %s already: revoke it first", stateName, l.Username)
	}
	if !inState {
		err := editLogins(path, func(src []byte, _ *configFile) ([]byte, error) { return insertLogin(src, l) })
		if errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("%w: run this as the file's owner, or keep the login in the state folder with --state", err)
		}
		if err == nil {
			err = requestReload(p.conf, "")
		}
		return path, err
	}
	if err := p.checkState(l); err != nil {
		return "", err
	}
	return stateName, backend.EditStateLogins(p.conf.folder(), func(all []backend.LoginConfig) ([]backend.LoginConfig, error) {
		return append(all, toState(l)), nil
	})
}

// checkState refuses what the configuration's checks would refuse in the file.
func (p *loginPlaces) checkState(l loginConfig) error {
	if len(p.conf.errors) > 0 {
		return p.conf.err()
	}
	known := func(address string) bool {
		return slices.ContainsFunc(p.conf.Mailboxes, func(m mailboxConfig) bool {
			return sameUser(m.Address, address) || slices.ContainsFunc(m.Aliases, func(a string) bool { return sameUser(a, address) })
		})
	}
	for _, m := range append([]string{l.Mailbox}, l.Shared...) {
		if !known(m) && !(m == "" && l.onlyAdmin()) {
			return fmt.Errorf("%s is not among mailboxes: add it there, with its credential", m)
		}
	}
	for _, a := range l.Allow {
		if !slices.Contains(allowed, a) {
			return fmt.Errorf("--allow %q is unknown: write %s", a, strings.Join(allowed, ", "))
		}
	}
	for _, a := range l.SendAs {
		if !strings.Contains(a, "@") {
			return fmt.Errorf("--send-as %q is no address", a)
		}
	}
	return nil
}

// changeLogin changes a login where it stands; a nil result of edit takes it out. It returns the place.
func changeLogin(path, name string, edit func(*loginConfig) (*loginConfig, error)) (string, error) {
	p, err := openLogins(path)
	if err != nil {
		return "", err
	}
	if i := p.inConfig(name); i >= 0 {
		err := editLogins(path, func(src []byte, c *configFile) ([]byte, error) {
			old := c.Logins[i]
			if old.PasswordHashFile != "" {
				old.PasswordHash = "" // stays in its file
			}
			l, err := edit(&old)
			if err != nil {
				return nil, err
			}
			if l == nil {
				return removeLogin(src, i)
			}
			return changeLoginLines(src, i, c.Logins[i], *l)
		})
		if err == nil {
			err = requestReload(p.conf, "")
		}
		return path, err
	}
	if p.inState(name) < 0 {
		return "", fmt.Errorf("%s has no login %s", path, name)
	}
	return stateName, backend.EditStateLogins(p.conf.folder(), func(all []backend.LoginConfig) ([]backend.LoginConfig, error) {
		i := slices.IndexFunc(all, func(l backend.LoginConfig) bool { return sameUser(l.Username, name) })
		if i < 0 {
			return nil, fmt.Errorf("there is no login %s any more", name)
		}
		old := fromState(all[i])
		l, err := edit(&old)
		if err != nil {
			return nil, err
		}
		if l == nil {
			return slices.Delete(all, i, i+1), nil
		}
		all[i] = toState(*l)
		return all, nil
	})
}

// reloadFile is touched to ask a running server to read its configuration again.
const reloadFile = "reload"

// requestReload asks a running server to take the file over. Where no server has run yet there is nobody to ask. With a
// nonce the server answers; see awaitReload.
func requestReload(c *configFile, nonce string) error {
	dir := c.folder()
	if _, err := os.Stat(dir); err != nil {
		return nil
	}
	name := filepath.Join(dir, reloadFile)
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("the file is written, but the running server could not be told: %w; use kill -HUP PID", err)
	}
	if info, err := os.Stat(dir); err == nil {
		_ = keepOwner(f, info) // the server reads who waits for an answer; without that nobody is answered
	}
	now := time.Now()
	_, err = f.WriteString(nonce)
	return errors.Join(err, f.Truncate(int64(len(nonce))), f.Close(), os.Chtimes(name, now, now))
}
