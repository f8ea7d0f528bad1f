package backend

import (
	"net/netip"
	"sync"
	"time"
)

// Guessing is made slow and then stopped. The limits leave room for people who
// mistype, and for a program with an old password: the same wrong password again
// is no new guess.
const (
	maxGuesses        = 20               // different wrong passwords of one user from one address
	maxAddressGuesses = 100              // the same over all users of one address
	guessMemory       = 15 * time.Minute // without a wrong password for so long, the count starts again
	lockTime          = 5 * time.Minute  // how long a lock-out lasts, counted from the last wrong password
	firstDelay        = 100 * time.Millisecond
	maxDelay          = 3 * time.Second
	maxGuessers       = 20_000 // entries remembered; each is about 200 bytes
)

// guesser is whose wrong passwords are counted together. An empty user stands for the whole address.
type guesser struct {
	addr netip.Prefix
	user string
}

// guesses are the wrong passwords of one guesser.
type guesses struct {
	count int
	last  time.Time
	mac   [32]byte // of the last wrong password, so that a program repeating it is not counted again
}

// lockout counts wrong passwords.
type lockout struct {
	mu   sync.Mutex
	seen map[guesser]*guesses
}

// locked returns how long user is still locked out at addr; 0 if not at all.
func (l *lockout) locked(addr netip.Addr, user string, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	src := sourceOf(addr)
	left := l.leftLocked(guesser{src, user}, maxGuesses, now)
	return max(left, l.leftLocked(guesser{src, ""}, maxAddressGuesses, now))
}

func (l *lockout) leftLocked(g guesser, limit int, now time.Time) time.Duration {
	e := l.seen[g]
	if e == nil || e.count < limit {
		return 0
	}
	if left := e.last.Add(lockTime).Sub(now); left > 0 {
		return left
	}
	delete(l.seen, g)
	return 0
}

// repeated reports whether mac is the password that was wrong the last time.
func (l *lockout) repeated(addr netip.Addr, user string, mac [32]byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.seen[guesser{sourceOf(addr), user}]
	return e != nil && e.count > 0 && e.mac == mac
}

// wrong notes a wrong password and returns how long the answer should wait.
func (l *lockout) wrong(addr netip.Addr, user string, mac [32]byte, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen == nil {
		l.seen = make(map[guesser]*guesses)
	}
	if len(l.seen) >= maxGuessers {
		l.pruneLocked(now)
	}
	src := sourceOf(addr)
	own := l.entryLocked(guesser{src, user}, now)
	all := l.entryLocked(guesser{src, ""}, now)
	if own.count == 0 || own.mac != mac {
		own.count++
		all.count++
	}
	own.mac = mac
	own.last, all.last = now, now
	return min(firstDelay<<min(own.count-1, 10), maxDelay)
}

func (l *lockout) entryLocked(g guesser, now time.Time) *guesses {
	e := l.seen[g]
	if e == nil || now.Sub(e.last) > guessMemory {
		e = &guesses{last: now}
		l.seen[g] = e
	}
	return e
}

// right forgets the wrong passwords of user at addr. What the address tried with other users still counts.
func (l *lockout) right(addr netip.Addr, user string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.seen, guesser{sourceOf(addr), user})
}

// unlock forgets the wrong passwords of a user name at any address, or of an address with any user name; "" forgets all.
func (l *lockout) unlock(who string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var src netip.Prefix
	if a, err := netip.ParseAddr(who); err == nil {
		src = sourceOf(a)
	} else if p, err := netip.ParsePrefix(who); err == nil {
		src = sourceOf(p.Addr())
	}
	name := foldUser(who)
	for g, e := range l.seen {
		switch {
		case who == "", src.IsValid() && g.addr == src:
			delete(l.seen, g)
		case !src.IsValid() && g.user == name:
			// What the user's wrong passwords added to the address is taken off it again.
			if all := l.seen[guesser{g.addr, ""}]; all != nil {
				all.count = max(0, all.count-e.count)
			}
			delete(l.seen, g)
		}
	}
}

// list returns who is locked out.
func (l *lockout) list(now time.Time) []Lockout {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := []Lockout{}
	for g, e := range l.seen {
		limit := maxGuesses
		if g.user == "" {
			limit = maxAddressGuesses
		}
		until := e.last.Add(lockTime)
		if e.count < limit || !until.After(now) {
			continue
		}
		remote := g.addr.String()
		if g.addr.IsSingleIP() {
			remote = g.addr.Addr().String()
		}
		out = append(out, Lockout{Username: g.user, Remote: remote, Until: until.UTC().Truncate(time.Second)})
	}
	return out
}

// pruneLocked makes room: what is old goes, and if that is not enough, half of the rest.
func (l *lockout) pruneLocked(now time.Time) {
	for g, e := range l.seen {
		if now.Sub(e.last) > guessMemory {
			delete(l.seen, g)
		}
	}
	for g := range l.seen {
		if len(l.seen) <= maxGuessers/2 {
			break
		}
		delete(l.seen, g)
	}
}
