package backend

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/text/unicode/norm"
)

// Limits of what a client may send as user name and password, in bytes. Both are hashed, so neither may be long.
const (
	maxUsername = 512
	maxPassword = 1024
)

// Right passwords are remembered for a while: a desktop client opens five
// connections at once and a monitoring script one a minute, and each check of a hash costs tens of milliseconds.
const (
	rememberRight = 5 * time.Minute
	maxRemembered = 4096
)

const opLogin = "log in"

// protocolAdmin is the protocol of the pages.
const protocolAdmin = "admin"

// Attempt is one try to log in.
type Attempt struct {
	Protocol string // "smtp", "imap" or "admin", the pages
	Username string
	Password string
	Remote   netip.Addr // where the client is; the zero Addr counts as one client of its own and is in no network
}

// Login is what a successful log-in may do.
type Login struct {
	Username    string     // as configured, whatever letter case the client used
	Account     *Account   // the mailbox; with a user name "login/address" the shared mailbox it names; nil with protocol "admin"
	Shared      []*Account // mailboxes shown beside it; none with "login/address"
	ReadOnly    bool
	SendAs      []string // addresses it may send as besides those of Account
	RewriteFrom bool
	sending
	grant
}

// sending is how a login's messages are treated.
type sending struct {
	FallbackFrom string        // stands in for a sender that must be replaced; "" for the mailbox's address
	DropCopy     bool          // no copy in Sent Items
	Rate         int           // messages a minute; 0 for the general limit
	Gather       time.Duration // how long the same message waits for further recipients; 0 not at all
}

// user is one configured login, ready for checking.
type user struct {
	LoginConfig
	hash    passwordHash
	account *Account
	shared  []*Account
}

// logins checks user names and passwords. Its methods may be called from any goroutine.
type logins struct {
	log     *slog.Logger
	account func(address string) (*Account, bool)
	now     func() time.Time
	secret  [32]byte            // keys the MACs under which passwords are remembered
	hashing *semaphore.Weighted // bounds memory and CPU: each check takes its hash's memory
	lockout lockout

	stateFile stateFile
	activity  activity

	mu         sync.Mutex
	fromConfig []LoginConfig
	fromState  []LoginConfig
	users      map[string]*user // by folded user name
	decoys     []passwordHash   // one like each user's, never empty; see decoy
	generation uint64           // of users; part of each MAC, so that nothing known of older ones holds
	right      map[[32]byte]time.Time
	sessions   map[*Session]struct{}
}

// newLogins prepares the configured logins and those of the state folder, which may be empty. It fails on configured ones
// that could never work.
func newLogins(cfg []LoginConfig, state string, account func(address string) (*Account, bool), log *slog.Logger) (*logins, error) {
	l := &logins{
		log:     log,
		account: account,
		now:     time.Now,
		hashing: semaphore.NewWeighted(int64(max(1, runtime.GOMAXPROCS(0)))),
		right:   make(map[[32]byte]time.Time),
	}
	rand.Read(l.secret[:])
	if err := l.set(cfg); err != nil {
		return nil, err
	}
	l.stateFile.dir, l.stateFile.since = state, time.Now()
	l.refresh()
	return l, nil
}

// set replaces the configured logins. On an error the old ones stay.
func (l *logins) set(cfg []LoginConfig) error {
	if _, err := buildLogins(cfg, l.account); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fromConfig = cfg
	l.buildLocked()
	return nil
}

// buildLogins prepares logins, each by its folded name. It fails on those that could never work.
func buildLogins(cfg []LoginConfig, account func(address string) (*Account, bool)) (map[string]*user, error) {
	users := make(map[string]*user, len(cfg))
	var errs []error
	for _, c := range cfg {
		u, err := newUser(c, account)
		if err != nil {
			errs = append(errs, err)
		}
		name := foldUser(c.Username)
		if users[name] != nil {
			errs = append(errs, fmt.Errorf("login %s is there twice", c.Username))
		}
		users[name] = u
	}
	return users, errors.Join(errs...)
}

// newUser prepares one login.
func newUser(c LoginConfig, account func(address string) (*Account, bool)) (*user, error) {
	u := &user{LoginConfig: c}
	var errs []error
	var err error
	if u.hash, err = parseHash(c.PasswordHash); err != nil {
		errs = append(errs, fmt.Errorf("login %s: %w", c.Username, err))
	}
	var ok bool
	if u.account, ok = account(c.Mailbox); !ok && !(c.Mailbox == "" && c.onlyAdmin()) {
		errs = append(errs, fmt.Errorf("login %s: mailbox %s is not configured", c.Username, c.Mailbox))
	}
	for _, s := range c.Shared {
		a, ok := account(s)
		if !ok {
			errs = append(errs, fmt.Errorf("login %s: shared mailbox %s is not configured", c.Username, s))
			continue
		}
		u.shared = append(u.shared, a)
	}
	return u, errors.Join(errs...)
}

// onlyAdmin reports whether the login is for the pages alone.
func (c *LoginConfig) onlyAdmin() bool { return c.Admin && !c.SMTP && !c.IMAP }

// buildLocked puts the logins of both places together. Where both have a name the configuration's counts.
func (l *logins) buildLocked() {
	users := make(map[string]*user, len(l.fromConfig)+len(l.fromState))
	for _, c := range l.fromConfig {
		users[foldUser(c.Username)], _ = newUser(c, l.account) // set has found it good
	}
	for _, c := range l.fromState {
		u, err := newUser(c, l.account)
		switch {
		case err != nil:
			l.log.Warn("login of the state folder left out", "err", err)
		case users[foldUser(c.Username)] != nil:
			l.log.Warn("login of the state folder left out: the configuration has one of that name", "user", c.Username)
		default:
			users[foldUser(c.Username)] = u
		}
	}
	l.users = users
	l.decoys = decoysOf(users)
	l.generation++
	clear(l.right)
	l.revokeLocked()
}

// Authenticate checks a user name and password. The error is an *Error of kind
// AuthFailed, TooMany while the address is locked out, or Unavailable when ctx
// ends first. Wrong passwords are answered late, by up to three seconds.
//
// A user name "login/address" opens the shared mailbox address in place of the login's own.
func (b *Backend) Authenticate(ctx context.Context, at Attempt) (*Login, error) {
	login, err := b.logins.authenticate(ctx, at)
	if tell := b.observer.Login; tell != nil {
		switch {
		case err == nil:
			tell(at.Protocol, "ok")
		case KindOf(err) == AuthFailed:
			tell(at.Protocol, "wrong")
		case KindOf(err) == TooMany:
			tell(at.Protocol, "locked")
		}
	}
	return login, err
}

// SetLogins replaces the logins alone; all else stays as it is. Sessions already logged in stay, but for those that have
// more than their login now gives; see Enter. It fails, and changes nothing, if a login names a mailbox the backend does
// not have.
func (b *Backend) SetLogins(cfg []LoginConfig) error { return b.logins.set(cfg) }

// foldUser brings a user name to the form it is compared in.
func foldUser(name string) string { return strings.ToLower(norm.NFC.String(name)) }

func (l *logins) authenticate(ctx context.Context, at Attempt) (*Login, error) {
	if len(at.Username) > maxUsername || len(at.Password) > maxPassword || strings.ContainsRune(at.Username, 0) {
		return nil, &Error{Kind: AuthFailed, Op: opLogin, Text: "Wrong user name or password"}
	}
	l.refresh()
	name, selected := foldUser(at.Username), ""
	u, generation := l.user(name)
	if u == nil {
		if i := strings.LastIndexByte(name, '/'); i >= 0 {
			if owner, g := l.user(name[:i]); owner != nil {
				u, generation = owner, g
				name, selected = name[:i], name[i+1:]
			}
		}
	}
	mac := l.mac(generation, name, at.Password)
	ok, err := l.check(ctx, u, name, at, mac)
	if err != nil {
		return nil, err
	}
	reason := "wrong password"
	switch {
	case u == nil:
		reason = "unknown user"
	case ok && !u.inNetworks(at.Remote):
		// Not told apart from a wrong password: whoever may not log in from there need not learn that the password is right.
		ok, reason = false, "address is in none of the login's networks"
	}
	if !ok {
		wait := l.lockout.wrong(at.Remote, name, mac, l.now())
		if left := l.lockout.locked(at.Remote, name, l.now()); left > 0 {
			l.activity.changed(true)
			l.log.Warn("too many wrong passwords, locked out", "user", at.Username, "remote", at.Remote, "for", left)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
		return nil, refused(at.Username, reason, "Wrong user name or password")
	}
	l.lockout.right(at.Remote, name)

	login := &Login{Username: u.Username, Account: u.account, Shared: u.shared, ReadOnly: u.ReadOnly, SendAs: u.SendAs, RewriteFrom: u.RewriteFrom, sending: u.sending(),
		grant: grant{u, at.Protocol, at.Remote}}
	if !u.mayUse(at.Protocol) || at.Protocol == protocolAdmin && selected != "" {
		text := "This login may not use " + strings.ToUpper(at.Protocol)
		if at.Protocol == protocolAdmin {
			text = "This login may not use these pages: it lacks admin under allow"
		}
		return nil, refused(at.Username, at.Protocol+" is not allowed", text)
	}
	if at.Protocol == protocolAdmin {
		login.Account, login.Shared, login.SendAs = nil, nil, nil // whoever looks after the server opens no mailbox by it
	}
	if selected != "" {
		if err := login.selectShared(u, selected, at.Protocol); err != nil {
			return nil, err
		}
	}
	l.activity.used(name, LoginUse{Username: u.Username, Last: l.now().UTC().Truncate(time.Second), Protocol: at.Protocol, Remote: at.Remote})
	return login, nil
}

// AdminHolds reports whether login, made with protocol "admin", could still log in so from addr: it is there, with the
// same password, may administer, and may come from there. Sessions of the pages ask it again and again.
func (b *Backend) AdminHolds(login *Login, addr netip.Addr) bool {
	b.logins.refresh()
	u, _ := b.logins.user(foldUser(login.Username))
	return u != nil && u.Admin && u.PasswordHash == login.origin.PasswordHash && u.inNetworks(addr)
}

// read reports whether any login may read the account's mailbox.
func (l *logins) read(a *Account) bool {
	l.refresh()
	var addresses []string
	l.mu.Lock()
	for _, u := range l.users {
		if u.IMAP {
			addresses = append(append(addresses, u.Mailbox), u.Shared...)
		}
	}
	l.mu.Unlock()
	return slices.ContainsFunc(addresses, func(address string) bool {
		other, ok := l.account(address)
		return ok && other == a
	})
}

// HasAdmin reports whether any login may use the pages.
func (b *Backend) HasAdmin() bool {
	b.logins.refresh()
	b.logins.mu.Lock()
	defer b.logins.mu.Unlock()
	for _, u := range b.logins.users {
		if u.Admin {
			return true
		}
	}
	return false
}

func (c *LoginConfig) sending() sending {
	return sending{FallbackFrom: c.FallbackFrom, DropCopy: c.DropCopy, Rate: c.Rate, Gather: c.Gather}
}

// FixedLogin returns a login that needs no password, for clients that are known by where they come from: devices in
// listed networks, programs on this machine. Of c it uses all but the password, the protocols and the networks.
func (b *Backend) FixedLogin(c LoginConfig) (*Login, error) { return fixedLogin(c, b.Account) }

func fixedLogin(c LoginConfig, account func(address string) (*Account, bool)) (*Login, error) {
	a, ok := account(c.Mailbox)
	if !ok {
		return nil, fmt.Errorf("mailbox %s is not configured", c.Mailbox)
	}
	return &Login{Username: c.Username, Account: a, SendAs: c.SendAs, RewriteFrom: c.RewriteFrom, sending: c.sending()}, nil
}

// refused returns the error of a log-in that failed: for the log with the user name and the reason, for the client with text alone.
func refused(username, reason, text string) error {
	return &Error{Kind: AuthFailed, Op: opLogin, Text: text, Err: fmt.Errorf("user %q: %s", username, reason)}
}

// selectShared makes the mailbox that was named behind the user name the login's only one.
func (login *Login) selectShared(u *user, address, protocol string) error {
	refuse := func(text string) error {
		return refused(login.Username+"/"+address, "shared mailbox not allowed", text)
	}
	if foldUser(u.Mailbox) == address {
		login.Shared = nil
		return nil
	}
	i := slices.IndexFunc(u.Shared, func(s string) bool { return foldUser(s) == address })
	if i < 0 {
		return refuse("This login does not list that shared mailbox")
	}
	// Reading somebody's mail is no right to send in their name.
	if protocol == "smtp" && !slices.ContainsFunc(u.SendAs, func(s string) bool { return foldUser(s) == address }) {
		return refuse("This login may not send as that mailbox: it is not in its send_as")
	}
	login.Account, login.Shared = u.shared[i], nil
	return nil
}

// user returns the login called name, nil if there is none, and the generation that holds for.
func (l *logins) user(name string) (*user, uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.users[name], l.generation
}

// mac is the name under which a pair of user name and password is remembered; it tells nothing without the key.
func (l *logins) mac(generation uint64, name, password string) [32]byte {
	h := hmac.New(sha256.New, l.secret[:])
	fmt.Fprintf(h, "%d:%d:%s", generation, len(name), name)
	h.Write([]byte(password))
	return [32]byte(h.Sum(nil))
}

// check reports whether the password is u's; u is nil for an unknown user, who is
// made to cost as much as a known one. The error is an *Error.
func (l *logins) check(ctx context.Context, u *user, name string, at Attempt, mac [32]byte) (bool, error) {
	if err := l.locked(name, at.Remote); err != nil {
		return false, err
	}
	if u != nil && l.remembered(mac) {
		return true, nil
	}
	if l.lockout.repeated(at.Remote, name, mac) {
		return false, nil
	}
	if err := l.hashing.Acquire(ctx, 1); err != nil {
		return false, &Error{Kind: Unavailable, Op: opLogin, Text: "Server busy, try again", Err: err}
	}
	defer l.hashing.Release(1)
	// Guesses made side by side all came past the first look.
	if err := l.locked(name, at.Remote); err != nil {
		return false, err
	}
	if u == nil {
		l.decoy(name).matches(at.Password)
		return false, nil
	}
	// A client that opens several connections at once: the first has done the work.
	if l.remembered(mac) {
		return true, nil
	}
	if !u.hash.matches(at.Password) || at.Password == "" {
		return false, nil
	}
	l.remember(name, u, mac)
	return true, nil
}

// decoysOf returns hashes that cost as much as those of users, and match nothing.
func decoysOf(users map[string]*user) []passwordHash {
	out := []passwordHash{}
	for _, name := range slices.Sorted(maps.Keys(users)) {
		out = append(out, users[name].hash)
	}
	if len(out) == 0 {
		out = append(out, passwordHash{memory: hashMemory, passes: hashPasses, threads: hashThreads, salt: make([]byte, hashSalt), key: make([]byte, hashKey)})
	}
	for i := range out {
		out[i].key = make([]byte, len(out[i].key))
		rand.Read(out[i].key)
	}
	return out
}

// decoy returns what an unknown user is checked against. It costs as much as the check of some known user, always the
// same one for a name: hashes made elsewhere have other costs than ours, and one cost for all who are unknown would tell them apart.
func (l *logins) decoy(name string) passwordHash {
	pick := l.mac(0, name, "") // keyed, so that nobody outside knows whose it is
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.decoys[binary.BigEndian.Uint64(pick[:])%uint64(len(l.decoys))]
}

// locked returns an error while name is locked out at addr.
func (l *logins) locked(name string, addr netip.Addr) error {
	left := l.lockout.locked(addr, name, l.now())
	if left <= 0 {
		return nil
	}
	minutes := int((left + time.Minute - 1) / time.Minute)
	return &Error{Kind: TooMany, Op: opLogin, Text: fmt.Sprintf("Too many wrong passwords, try again in %d min", minutes),
		Err: fmt.Errorf("user %q: locked out", name)}
}

// remembered reports whether the pair behind mac was right a while ago.
func (l *logins) remembered(mac [32]byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	until, ok := l.right[mac]
	if ok && !l.now().Before(until) {
		delete(l.right, mac)
		ok = false
	}
	return ok
}

// remember notes that the pair behind mac is right, unless the logins have changed since u was looked up.
func (l *logins) remember(name string, u *user, mac [32]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.users[name] != u {
		return
	}
	if len(l.right) >= maxRemembered {
		clear(l.right)
	}
	l.right[mac] = l.now().Add(rememberRight)
}

// inNetworks reports whether a client at addr may use u.
func (u *user) inNetworks(addr netip.Addr) bool {
	if len(u.Networks) == 0 {
		return true
	}
	addr = addr.Unmap().WithZone("")
	return slices.ContainsFunc(u.Networks, func(p netip.Prefix) bool { return p.Contains(addr) })
}
