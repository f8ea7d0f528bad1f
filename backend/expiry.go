package backend

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"postern/backend/token"
)

// Expiry is when what a credential signs in with ends.
type Expiry struct {
	Credential string
	What       string    // "client secret" or "certificate"
	At         time.Time // zero: not known, or never
}

// warnDays are how many days ahead of the end somebody is told. The first is early enough for a change that needs a form.
var warnDays = []int{30, 14, 7, 1}

// Days returns how many whole days are left at now; negative after the end.
func (e Expiry) Days(now time.Time) int {
	left := e.At.Sub(now)
	if left < 0 {
		return -1
	}
	return int(left / (24 * time.Hour))
}

// stage returns which of the warnings holds: 0 for none yet, rising as the end comes nearer.
func (e Expiry) stage(now time.Time) int {
	if e.At.IsZero() {
		return 0
	}
	left := e.At.Sub(now)
	n := 0
	for _, d := range warnDays {
		if left <= time.Duration(d)*24*time.Hour {
			n++
		}
	}
	if left <= 0 {
		n++
	}
	return n
}

// Warning returns a sentence for people from thirty days before the end on, and "" earlier.
func (e Expiry) Warning(now time.Time) string {
	if e.stage(now) == 0 {
		return ""
	}
	day := e.At.UTC().Format(time.DateOnly)
	remedy := "make a new one on the app's Certificates & secrets page and configure it"
	switch n := e.Days(now); {
	case n < 0:
		return fmt.Sprintf("The %s of credential %s has expired on %s: %s.", e.What, e.Credential, day, remedy)
	case n == 0:
		return fmt.Sprintf("The %s of credential %s expires within a day, on %s: %s.", e.What, e.Credential, day, remedy)
	case n == 1:
		return fmt.Sprintf("The %s of credential %s expires in 1 day, on %s: %s.", e.What, e.Credential, day, remedy)
	default:
		return fmt.Sprintf("The %s of credential %s expires in %d days, on %s: %s.", e.What, e.Credential, n, day, remedy)
	}
}

// expiries keeps what is known about ends.
type expiries struct {
	mu    sync.Mutex
	ends  map[string]Expiry // by credential
	again chan struct{}     // capacity 1: look now, the configuration has changed
}

// changed forgets what was learned of credentials that sign in another way now, and asks for a look at once.
func (e *expiries) changed(old, now *Config) {
	e.mu.Lock()
	for name := range e.ends {
		if cred, ok := now.Credentials[name]; !ok || !cred.Same(old.Credentials[name]) {
			delete(e.ends, name)
		}
	}
	e.mu.Unlock()
	select {
	case e.again <- struct{}{}:
	default:
	}
}

// knownExpiry returns what the configuration tells about a credential's end.
func (cfg *Config) knownExpiry(name string) Expiry {
	cred := cfg.Credentials[name]
	switch cred.Kind() {
	case token.ClientCert:
		return Expiry{name, "certificate", cred.Certificate.NotAfter()}
	case token.ClientSecret:
		return Expiry{name, "client secret", cred.SecretEnds}
	}
	return Expiry{Credential: name}
}

// Expiries returns when the credentials end, the next first; those not known are left out.
func (b *Backend) Expiries() []Expiry {
	b.expiries.mu.Lock()
	defer b.expiries.mu.Unlock()
	var out []Expiry
	cfg := b.config()
	for name := range cfg.Credentials {
		e, ok := b.expiries.ends[name]
		if !ok {
			e = cfg.knownExpiry(name)
		}
		if !e.At.IsZero() {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(x, y Expiry) int { return cmp.Or(x.At.Compare(y.At), cmp.Compare(x.Credential, y.Credential)) })
	return out
}

// expiryLook is the time between two looks; each warning comes within it.
const expiryLook = time.Hour

// watchExpiry warns of credentials that end soon, once at the start and at each step nearer, until ctx ends.
func (b *Backend) watchExpiry(ctx context.Context) {
	told := make(map[string]int)
	mailed := b.mailedBefore()
	var asked time.Time
	tick := time.NewTicker(expiryLook)
	defer tick.Stop()
	for {
		if time.Since(asked) > 24*time.Hour {
			asked = time.Now()
			b.askEnds(ctx)
		}
		for _, e := range b.Expiries() {
			now := time.Now()
			stage := e.stage(now)
			if stage > mailed[e.Credential] && b.mailExpiry(ctx, e, now) {
				mailed[e.Credential] = stage
				b.rememberMailed(mailed)
			}
			if stage > told[e.Credential] {
				b.log.Warn("credential expires", "credential", e.Credential, "what", e.What, "at", e.At.UTC(), "days", e.Days(now), "advice", e.Warning(now))
			}
			told[e.Credential] = stage // falls when a new end has become known
			if stage < mailed[e.Credential] {
				mailed[e.Credential] = stage
				b.rememberMailed(mailed)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-b.expiries.again:
			asked = time.Time{}
		}
	}
}

// expiryMailFile remembers which warnings were mailed, so that a restart does not repeat them.
const expiryMailFile = "expiry-mailed.json"

func (b *Backend) mailedBefore() map[string]int {
	out := make(map[string]int)
	if b.config().ExpiryMail == "" {
		return out
	}
	if data, err := os.ReadFile(filepath.Join(b.config().State, expiryMailFile)); err == nil {
		_ = json.Unmarshal(data, &out) // damaged: one mail more
	}
	return out
}

func (b *Backend) rememberMailed(mailed map[string]int) {
	if b.config().ExpiryMail == "" {
		return
	}
	if err := writeState(filepath.Join(b.config().State, expiryMailFile), mailed); err != nil {
		b.log.Warn("mailed warnings not remembered", "err", err)
	}
}

// mailExpiry puts a warning into the Inbox of the mailbox meant for it, where it is created and not sent. It reports
// whether that is done; after the end of the credential that serves the mailbox it cannot be.
func (b *Backend) mailExpiry(ctx context.Context, e Expiry, now time.Time) bool {
	if b.config().ExpiryMail == "" {
		return false
	}
	a, ok := b.Account(b.config().ExpiryMail)
	if !ok {
		return false // the configuration's check has said so
	}
	text := e.Warning(now)
	subject := fmt.Sprintf("Postern: the %s of credential %s ends on %s", e.What, mime.QEncoding.Encode("utf-8", e.Credential), e.At.UTC().Format(time.DateOnly))
	msg := fmt.Sprintf("From: Postern <%s>\r\nTo: %s\r\nSubject: %s\r\nDate: %s\r\nMessage-ID: <expiry.%d.%d@postern.invalid>\r\nAuto-Submitted: auto-generated\r\n"+
		"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n%s\r\n",
		a.Address(), a.Address(), subject, now.Format(time.RFC1123Z), e.At.Unix(), e.stage(now), text)
	_, err := a.Deliver(ctx, "INBOX", nil, now, func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(msg)), nil }, int64(len(msg)))
	if err != nil && ctx.Err() == nil {
		b.log.Warn("warning of a credential's end not mailed, will be tried again", "mailbox", a.Address(), "err", err)
	}
	return err == nil
}

// askEnds reads the application objects of those credentials that ask for it.
func (b *Backend) askEnds(ctx context.Context) {
	credentials := b.config().Credentials
	for _, name := range slices.Sorted(maps.Keys(credentials)) {
		cred := credentials[name]
		if !cred.AskSecretEnd || cred.Kind() != token.ClientSecret {
			continue
		}
		end, err := b.tokens.SecretEnd(ctx, cred)
		switch {
		case errors.Is(err, token.ErrMayNotAsk):
			b.log.Warn("when the secret ends cannot be asked", "credential", name, "advice",
				"Grant the application permission Application.Read.All, or write the date under secret_expires.")
			continue
		case err != nil:
			b.log.Warn("when the secret ends cannot be asked", "credential", name, "err", err)
			continue
		}
		b.expiries.mu.Lock()
		if b.expiries.ends == nil {
			b.expiries.ends = make(map[string]Expiry)
		}
		b.expiries.ends[name] = Expiry{name, "client secret", end}
		b.expiries.mu.Unlock()
	}
}
