package backend

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Logins may stand in the state folder as well as in the configuration: those made by a command act at once, without
// anybody touching a file that belongs to a person. A small JSON file holds them, so that commands can change them beside
// a running server; a second one tells commands what the server knows (last use, lock-outs).
const (
	stateLoginsFile = "logins.json"
	loginUseFile    = "login-use.json"
)

// stateLogins is the content of stateLoginsFile.
type stateLogins struct {
	Version int          `json:"version"`
	Logins  []stateLogin `json:"logins"`
	Unlocks []unlock     `json:"unlocks,omitempty"`
}

// stateLogin is a LoginConfig as it is stored.
type stateLogin struct {
	Username     string         `json:"username"`
	PasswordHash string         `json:"password_hash"`
	Mailbox      string         `json:"mailbox"`
	Shared       []string       `json:"shared,omitempty"`
	SMTP         bool           `json:"smtp"`
	IMAP         bool           `json:"imap"`
	Admin        bool           `json:"admin,omitempty"`
	ReadOnly     bool           `json:"read_only,omitempty"`
	SendAs       []string       `json:"send_as,omitempty"`
	RewriteFrom  bool           `json:"rewrite_from,omitempty"`
	Networks     []netip.Prefix `json:"networks,omitempty"`
}

// unlock asks the server to forget wrong passwords.
type unlock struct {
	Who string    `json:"who"` // a user name or an address; "" for all
	At  time.Time `json:"at"`
}

// keepUnlocks is how long a request to unlock is kept for the server to see; lock-outs themselves last shorter.
const keepUnlocks = time.Hour

// StateLogins returns the logins kept in the state folder.
func StateLogins(state string) ([]LoginConfig, error) {
	s, err := readStateLogins(state)
	if err != nil {
		return nil, err
	}
	return s.configs(), nil
}

func (s stateLogins) configs() []LoginConfig {
	out := make([]LoginConfig, len(s.Logins))
	for i, l := range s.Logins {
		out[i] = LoginConfig{Username: l.Username, PasswordHash: l.PasswordHash, Mailbox: l.Mailbox, Shared: l.Shared, SMTP: l.SMTP, IMAP: l.IMAP, Admin: l.Admin,
			ReadOnly: l.ReadOnly, SendAs: l.SendAs, RewriteFrom: l.RewriteFrom, Networks: l.Networks}
	}
	return out
}

func readStateLogins(state string) (stateLogins, error) {
	var s stateLogins
	b, err := os.ReadFile(filepath.Join(state, stateLoginsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return stateLogins{Version: 1}, nil
	}
	if err != nil {
		return s, fmt.Errorf("read logins of the state folder: %w", err)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("read logins of the state folder: %s: %w", stateLoginsFile, err)
	}
	if s.Version != 1 {
		return s, fmt.Errorf("read logins of the state folder: %s was written by a newer version", stateLoginsFile)
	}
	return s, nil
}

// EditStateLogins changes the logins of the state folder, which is made if need be. A running server acts on it at once.
func EditStateLogins(state string, edit func([]LoginConfig) ([]LoginConfig, error)) error {
	return editState(state, func(s *stateLogins) error {
		logins, err := edit(s.configs())
		if err != nil {
			return err
		}
		s.Logins = nil
		for _, l := range logins {
			s.Logins = append(s.Logins, stateLogin{Username: l.Username, PasswordHash: l.PasswordHash, Mailbox: l.Mailbox, Shared: l.Shared, SMTP: l.SMTP,
				IMAP: l.IMAP, Admin: l.Admin, ReadOnly: l.ReadOnly, SendAs: l.SendAs, RewriteFrom: l.RewriteFrom, Networks: l.Networks})
		}
		return nil
	})
}

// RequestUnlock asks a running server to forget the wrong passwords of a user name or an address; "" means all.
func RequestUnlock(state, who string) error {
	return editState(state, func(s *stateLogins) error {
		now := time.Now().UTC()
		s.Unlocks = slices.DeleteFunc(s.Unlocks, func(u unlock) bool { return now.Sub(u.At) > keepUnlocks })
		s.Unlocks = append(s.Unlocks, unlock{who, now})
		return nil
	})
}

// staleLock is after how long a lock file is taken to be left over from a command that was killed.
const staleLock = 10 * time.Second

// editState changes the file under a lock, so that two commands at once do not undo each other.
func editState(state string, edit func(*stateLogins) error) error {
	if err := os.MkdirAll(state, 0o700); err != nil {
		return err
	}
	lock := filepath.Join(state, stateLoginsFile+".lock")
	for begun := time.Now(); ; {
		f, err := os.OpenFile(lock, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err == nil {
			f.Close()
			break
		}
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		if info, err := os.Stat(lock); err == nil && time.Since(info.ModTime()) > staleLock {
			os.Remove(lock) // whoever comes second finds it gone, which is as good
			continue
		}
		if time.Since(begun) > 2*staleLock {
			return fmt.Errorf("%s stays locked by another command", filepath.Join(state, stateLoginsFile))
		}
		time.Sleep(20 * time.Millisecond)
	}
	defer os.Remove(lock)
	s, err := readStateLogins(state)
	if err != nil {
		return err
	}
	if err := edit(&s); err != nil {
		return err
	}
	return writeState(filepath.Join(state, stateLoginsFile), s)
}

// writeState replaces a small JSON file of the state folder in one step. It keeps the folder's owner, so that a command
// run by root does not shut out the service.
func writeState(name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails after the rename, as it should
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, ownAsFolder(f), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// LoginUse is the last use of a login.
type LoginUse struct {
	Username string     `json:"username"` // as configured
	Last     time.Time  `json:"last"`
	Protocol string     `json:"protocol"`
	Remote   netip.Addr `json:"remote"`
}

// Lockout is a user name, or a whole address, that is locked out.
type Lockout struct {
	Username string    `json:"username,omitempty"` // folded; empty for the whole address
	Remote   string    `json:"remote"`             // an address, or a /64 network of IPv6
	Until    time.Time `json:"until"`
}

// LoginActivity is what a running server tells commands.
type LoginActivity struct {
	Uses     []LoginUse `json:"uses"`
	Lockouts []Lockout  `json:"lockouts"`
}

// ReadLoginActivity returns what the server has written down last. A missing file is no activity.
func ReadLoginActivity(state string) (LoginActivity, error) {
	var a LoginActivity
	b, err := os.ReadFile(filepath.Join(state, loginUseFile))
	if errors.Is(err, fs.ErrNotExist) {
		return a, nil
	}
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(b, &a); err != nil {
		return a, fmt.Errorf("%s: %w", loginUseFile, err)
	}
	now := time.Now()
	a.Lockouts = slices.DeleteFunc(a.Lockouts, func(l Lockout) bool { return !now.Before(l.Until) })
	return a, nil
}

// Times between two looks at the state's logins, and between two writes of the activity.
const (
	stateLook  = time.Second
	usesFlush  = 5 * time.Second
	lockFlush  = time.Second
	keepUnused = 365 * 24 * time.Hour // then a last use is forgotten
)

// stateFile watches the logins of the state folder.
type stateFile struct {
	dir string

	mu      sync.Mutex // of what follows; taken before logins.mu
	looked  time.Time
	content []byte    // as last read
	since   time.Time // unlocks up to then have been done
}

// refresh takes over the logins of the state folder when they have changed. It costs a read of a small file a second.
func (l *logins) refresh() {
	f := &l.stateFile
	if f.dir == "" {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); now.Sub(f.looked) < stateLook {
		return
	} else {
		f.looked = now
	}
	b, err := os.ReadFile(filepath.Join(f.dir, stateLoginsFile))
	if errors.Is(err, fs.ErrNotExist) {
		b, err = nil, nil
	}
	if err != nil || bytes.Equal(b, f.content) {
		return // an unreadable file leaves what was known
	}
	s, err := readStateLogins(f.dir)
	if err != nil {
		l.log.Error("logins of the state folder not taken over", "err", err)
		f.content = b
		return
	}
	f.content = b
	l.setState(s.configs())
	for _, u := range s.Unlocks {
		if u.At.After(f.since) {
			f.since = u.At
			l.lockout.unlock(u.Who)
			l.log.Info("unlocked", "who", u.Who)
			l.activity.changed(true)
		}
	}
}

// setState replaces the logins that come from the state folder. One that cannot work is left out, and said so: its
// mailbox may have been taken out of the configuration.
func (l *logins) setState(cfg []LoginConfig) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fromState = cfg
	l.buildLocked()
}

// activity collects what commands may want to know.
type activity struct {
	mu     sync.Mutex
	uses   map[string]LoginUse // by folded name
	dirty  bool
	urgent bool
}

func (a *activity) used(name string, u LoginUse) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.uses == nil {
		a.uses = make(map[string]LoginUse)
	}
	a.uses[name] = u
	a.dirty = true
}

func (a *activity) changed(urgent bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.dirty, a.urgent = true, a.urgent || urgent
}

// keepActivity writes the activity down now and then, and looks at the state's logins, until ctx ends.
func (l *logins) keepActivity(ctx context.Context) {
	dir := l.stateFile.dir
	if dir == "" {
		return
	}
	if old, err := ReadLoginActivity(dir); err == nil {
		l.activity.mu.Lock()
		if l.activity.uses == nil {
			l.activity.uses = make(map[string]LoginUse)
		}
		for _, u := range old.Uses {
			if name := foldUser(u.Username); l.activity.uses[name].Last.Before(u.Last) && time.Since(u.Last) < keepUnused {
				l.activity.uses[name] = u
			}
		}
		l.activity.mu.Unlock()
	}
	tick := time.NewTicker(lockFlush)
	defer tick.Stop()
	flushed := time.Now()
	for {
		select {
		case <-ctx.Done():
			l.flushActivity(true)
			return
		case <-tick.C:
			l.refresh()
			if l.flushActivity(time.Since(flushed) >= usesFlush) {
				flushed = time.Now()
			}
		}
	}
}

// flushActivity writes what has changed, if due or something urgent has. It reports whether it wrote.
func (l *logins) flushActivity(due bool) bool {
	a := &l.activity
	a.mu.Lock()
	if !a.dirty || !due && !a.urgent {
		a.mu.Unlock()
		return false
	}
	out := LoginActivity{Uses: []LoginUse{}, Lockouts: l.lockout.list(l.now())}
	for _, u := range a.uses {
		out.Uses = append(out.Uses, u)
	}
	a.dirty, a.urgent = false, false
	a.mu.Unlock()
	slices.SortFunc(out.Uses, func(x, y LoginUse) int { return strings.Compare(x.Username, y.Username) })
	if err := writeState(filepath.Join(l.stateFile.dir, loginUseFile), out); err != nil {
		l.log.Warn("last use of logins not written down", "err", err)
	}
	return true
}
