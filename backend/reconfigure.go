package backend

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"

	"postern/backend/graph"
	"postern/backend/store"
	"postern/backend/syncer"
	"postern/backend/token"
)

// Changed says what a Reconfigure has done.
type Changed struct {
	Added, Removed []string // mailboxes
	SignIn         []string // mailboxes that sign in another way, or elsewhere
}

// Reconfigure makes another configuration hold, while the backend runs. Sessions go on, but for those whose login
// has lost a right. All is looked at first: on an error the old configuration stays whole. The state folder, the logger
// and the HTTP client are New's for good.
func (b *Backend) Reconfigure(cfg Config) (Changed, error) {
	b.changing.Lock()
	defer b.changing.Unlock()
	old := b.config()
	if cfg.State != old.State {
		return Changed{}, errors.New("another state folder needs a restart")
	}
	cfg.Logger, cfg.HTTPClient, cfg.RequestLimit = old.Logger, old.HTTPClient, old.RequestLimit
	cfg.setDefaults()
	p, err := b.plan(&cfg)
	if err != nil {
		return Changed{}, err
	}
	lookup := func(address string) (*Account, bool) {
		a, ok := p.byName[strings.ToLower(address)]
		return a, ok
	}
	if _, err := buildLogins(cfg.Logins, lookup); err != nil {
		return Changed{}, err
	}
	drop := b.drop.folder
	if !reflect.DeepEqual(old.Drop, cfg.Drop) {
		if drop, err = b.openDrop(cfg.Drop, lookup); err != nil {
			return Changed{}, err
		}
	}

	b.cfg.Store(&cfg)
	ch, gone := b.adopt(p)
	for _, a := range gone {
		b.syncing.stop(a)
		a.allGone()
	}
	for _, a := range b.Accounts() {
		b.syncing.start(a)
	}
	if err := b.logins.set(cfg.Logins); err != nil {
		return ch, err // cannot be: they have just been looked at
	}
	b.drop.set(drop)
	b.outbox.SetTimes(cfg.outboxTimes())
	b.store.SetBodyBudget(context.Background(), cfg.CacheBodies)
	b.tokens.Retire(allCredentials(&cfg))
	b.expiries.changed(old, &cfg)
	// What has failed may work now, and nobody should have to wait for the next try.
	for _, address := range slices.Concat(ch.Added, ch.SignIn) {
		if a, ok := b.Account(address); ok {
			a.syncer.Hurry()
			if err := b.outbox.Hurry(context.Background(), address); err != nil {
				b.log.Warn("waiting mail is not tried at once", "mailbox", address, "err", err)
			}
		}
	}
	return ch, nil
}

func allCredentials(cfg *Config) []token.Credential {
	var out []token.Credential
	for _, c := range cfg.Credentials {
		out = append(out, c)
	}
	return out
}

// plan is the set of accounts that a configuration asks for.
type plan struct {
	cfg      *Config
	accounts []*Account
	boxes    []MailboxConfig // of each
	byName   map[string]*Account
}

// plan makes the accounts that are not there yet. Nothing else is changed.
func (b *Backend) plan(cfg *Config) (*plan, error) {
	p := &plan{cfg: cfg, byName: make(map[string]*Account)}
	for _, m := range cfg.Mailboxes {
		if err := b.planAccount(p, m); err != nil {
			return nil, fmt.Errorf("mailbox %s: %w", m.Address, err)
		}
	}
	return p, nil
}

func (b *Backend) planAccount(p *plan, m MailboxConfig) error {
	if _, ok := p.cfg.Credentials[m.Credential]; !ok {
		return fmt.Errorf("credential %q is not configured", m.Credential)
	}
	id, err := b.store.Account(context.Background(), m.Address)
	if err != nil {
		return err
	}
	a := b.known[id]
	if a == nil {
		a = b.newAccount(p.cfg, m.Address, id)
	}
	for _, name := range append([]string{m.Address}, m.Aliases...) {
		key := strings.ToLower(name)
		if p.byName[key] != nil {
			return fmt.Errorf("address %s is configured twice", name)
		}
		p.byName[key] = a
	}
	p.accounts, p.boxes = append(p.accounts, a), append(p.boxes, m)
	return nil
}

// newAccount makes an account that has no credential yet.
func (b *Backend) newAccount(cfg *Config, address string, id store.AccountID) *Account {
	a := newAccount(b, address, id)
	limits := graph.DefaultLimits()
	if n := cfg.RequestLimit; n > 0 {
		limits.Requests, limits.Background, limits.Patient = n, n, n
		limits.UploadBytes = int64(n) << 20
	}
	a.budget = graph.NewBudget(limits)
	b.restorePace(a)
	a.graph = graph.New(graph.Options{User: address, Tokens: &a.tokens, HTTPClient: cfg.HTTPClient, Logger: a.log, Budget: a.budget,
		OnRequest: func(kind string, status int, took time.Duration) {
			a.calls.add(time.Now(), status, kind == "batch")
			b.observer.GraphRequest(address, kind, status, took)
		},
		OnItem: func(status int) {
			a.calls.add(time.Now(), status, false)
			b.observer.GraphItem(address, status)
		}})
	a.syncer = syncer.New(syncer.Options{
		Address: address, Account: id, Graph: a.graph, Store: b.store, Logger: b.log,
		Changed: a.changed, Gone: a.folderGone, HeadersKept: a.headersKept,
		SentMark: graph.InternetHeader(markField),
		Sending: func(ctx context.Context, messageID, content string) syncer.SendState {
			return b.sending(ctx, address, messageID, content)
		},
		OwnCopy: func(ctx context.Context, m *graph.Message, c store.SentCopy) (bool, error) {
			return b.ownCopy(ctx, a, m, c)
		},
	})
	return a
}

// adopt makes the accounts of p those of the backend. Gone are those that were and are no longer.
func (b *Backend) adopt(p *plan) (ch Changed, gone []*Account) {
	for i, a := range p.accounts {
		cred := p.cfg.Credentials[p.boxes[i].Credential]
		added, other := b.known[a.id] == nil, !a.credential.Same(cred)
		b.known[a.id] = a
		a.credential = cred
		a.quota.Store(p.boxes[i].Quota)
		a.tokens.set(b.tokens.Source(cred))
		a.graph.SetBaseURL(cred.Graph())
		a.syncer.Set(syncer.Settings{Poll: p.cfg.Poll, Delete: syncer.DeletePolicy(p.cfg.Delete), ImportMIME: p.cfg.Append == AppendImportMIME})
		switch {
		case added || !slices.Contains(b.accounts, a):
			ch.Added = append(ch.Added, a.address)
		case other:
			ch.SignIn = append(ch.SignIn, a.address)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, a := range b.accounts {
		if !slices.Contains(p.accounts, a) {
			gone = append(gone, a)
			ch.Removed = append(ch.Removed, a.address)
		}
	}
	b.accounts, b.byName = p.accounts, p.byName
	return ch, gone
}

// tokenSource is the source of an account's tokens, which may be another one tomorrow.
type tokenSource struct{ p atomic.Pointer[token.Source] }

func (t *tokenSource) set(s *token.Source) { t.p.Store(s) }

func (t *tokenSource) Token(ctx context.Context) (*oauth2.Token, error) { return t.p.Load().Token(ctx) }

func (t *tokenSource) Invalidate(accessToken string) { t.p.Load().Invalidate(accessToken) }

// syncing is the accounts' syncers at work.
type syncing struct {
	mu   sync.Mutex
	ctx  context.Context // nil before Run
	over bool
	runs map[*Account]*run
	wg   sync.WaitGroup
}

// run is one account's.
type run struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// begin starts all accounts; start starts others later.
func (s *syncing) begin(ctx context.Context, accounts func() []*Account) {
	s.mu.Lock()
	s.ctx, s.runs, s.over = ctx, make(map[*Account]*run), false
	s.mu.Unlock()
	for _, a := range accounts() {
		s.start(a)
	}
}

// start starts an account's syncer if it does not run.
func (s *syncing) start(a *Account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx == nil || s.over || s.runs[a] != nil {
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	r := &run{cancel, make(chan struct{})}
	s.runs[a] = r
	s.wg.Go(func() {
		defer close(r.done)
		if err := a.syncer.Run(ctx); err != nil {
			a.log.Error("account has stopped", "err", err)
		}
	})
}

// stop ends an account's syncer and waits for it.
func (s *syncing) stop(a *Account) {
	s.mu.Lock()
	r := s.runs[a]
	delete(s.runs, a)
	s.mu.Unlock()
	if r != nil {
		r.cancel()
		<-r.done
	}
}

// wait returns when all have stopped, whose context has ended.
func (s *syncing) wait() {
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	s.wg.Wait()
}
