package backend

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"postern/backend/graph"
	"postern/backend/store"
	"postern/backend/syncer"
	"postern/backend/token"
)

// Backend holds the accounts and what they share.
type Backend struct {
	cfg      Config
	log      *slog.Logger
	store    *store.Store
	tokens   *token.Manager
	accounts []*Account
	byName   map[string]*Account // lower-case address or alias
	logins   *logins
	expiries expiries
	check    check
	submission
}

// New opens the store and builds accounts and token sources. It makes no
// network call, so it succeeds while Microsoft 365 is out of reach.
func New(cfg Config) (_ *Backend, err error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.HTTPClient == nil {
		cfg.HTTPClient = graph.NewHTTPClient()
	}
	if cfg.Delete == "" {
		cfg.Delete = DeleteRecoverable
	}
	if cfg.Size == "" {
		cfg.Size = SizeAuto
	}
	if cfg.Append == "" {
		cfg.Append = AppendJSON
	}
	st, err := store.Open(context.Background(), store.Options{Dir: cfg.State, BodyBudget: cfg.CacheBodies, Logger: cfg.Logger})
	if err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	b := &Backend{cfg: cfg, log: cfg.Logger, store: st, byName: make(map[string]*Account)}
	b.tokens = token.NewManager(cfg.HTTPClient, cfg.Logger)
	defer func() {
		if err != nil {
			_ = b.Close()
		}
	}()
	for _, m := range cfg.Mailboxes {
		if err := b.addAccount(m); err != nil {
			return nil, fmt.Errorf("mailbox %s: %w", m.Address, err)
		}
	}
	if b.logins, err = newLogins(cfg.Logins, cfg.State, b.Account, b.log); err != nil {
		return nil, err
	}
	if err := b.initSubmission(); err != nil {
		return nil, err
	}
	return b, nil
}

func (b *Backend) addAccount(m MailboxConfig) error {
	cred, ok := b.cfg.Credentials[m.Credential]
	if !ok {
		return fmt.Errorf("credential %q is not configured", m.Credential)
	}
	id, err := b.store.Account(context.Background(), m.Address)
	if err != nil {
		return err
	}
	a := newAccount(b, m, id)
	limits := graph.DefaultLimits()
	if n := b.cfg.RequestLimit; n > 0 {
		limits.Requests, limits.Background, limits.Patient = n, n, n
		limits.UploadBytes = int64(n) << 20
	}
	a.budget = graph.NewBudget(limits)
	a.graph = graph.New(graph.Options{
		BaseURL: cred.Graph(), User: m.Address, Tokens: b.tokens.Source(cred),
		HTTPClient: b.cfg.HTTPClient, Logger: a.log, Budget: a.budget,
	})
	a.syncer = syncer.New(syncer.Options{
		Address: m.Address, Account: id, Graph: a.graph, Store: b.store, Logger: b.log,
		Poll: b.cfg.Poll, Delete: syncer.DeletePolicy(b.cfg.Delete), ImportMIME: b.cfg.Append == AppendImportMIME,
		Changed: a.changed, Gone: a.folderGone, HeadersKept: a.headersKept,
		Sending: func(messageID string) bool { return b.submissionQueued(m.Address, messageID) },
	})
	for _, name := range append([]string{m.Address}, m.Aliases...) {
		key := strings.ToLower(name)
		if b.byName[key] != nil {
			return fmt.Errorf("address %s is configured twice", name)
		}
		b.byName[key] = a
	}
	b.accounts = append(b.accounts, a)
	return nil
}

// Run keeps every account in step with Graph and sends queued mail. It returns
// when ctx has ended and all of its goroutines have stopped. An account that
// fails does so alone; see Account.State.
//
// Stopping has two phases: first nothing new is sent, and what is being sent comes to
// an end that the outbox knows; then the accounts stop.
func (b *Backend) Run(ctx context.Context) error {
	syncing, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var wg sync.WaitGroup
	for _, a := range b.accounts {
		wg.Go(func() {
			if err := a.syncer.Run(syncing); err != nil {
				a.log.Error("account has stopped", "err", err)
			}
		})
	}
	wg.Go(func() { b.prune(syncing) })
	wg.Go(func() { b.watchExpiry(syncing) })
	wg.Go(func() { b.logins.keepActivity(syncing) })
	err := b.runSubmission(ctx)
	if ctx.Err() == nil {
		// Reading goes on without the way out.
		b.log.Error("sending has stopped", "err", err)
		<-ctx.Done()
	}
	stop()
	wg.Wait()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return err
}

// keepRemovals is how long the journal knows which messages were removed. A client that was away for longer learns it from
// the list of all that are there.
const keepRemovals = 60 * 24 * time.Hour

// prune shortens the journal once a day.
func (b *Backend) prune(ctx context.Context) {
	timer := time.NewTicker(24 * time.Hour)
	defer timer.Stop()
	for {
		if err := b.store.PruneRemoved(ctx, time.Now().Add(-keepRemovals)); err != nil && ctx.Err() == nil {
			b.log.Warn("journal was not pruned", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
	}
}

// Close closes the store. Call it after Run has returned.
func (b *Backend) Close() error {
	b.tokens.Close()
	for _, a := range b.accounts {
		a.forgetViews()
	}
	return b.store.Close()
}

// Account returns the mailbox configured under address or one of its aliases,
// without regard to case.
func (b *Backend) Account(address string) (*Account, bool) {
	a, ok := b.byName[strings.ToLower(address)]
	return a, ok
}

// Accounts returns all mailboxes in the order of the configuration.
func (b *Backend) Accounts() []*Account { return b.accounts }
