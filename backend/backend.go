package backend

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"postern/backend/graph"
	"postern/backend/store"
	"postern/backend/token"
)

// Backend holds the accounts and what they share.
type Backend struct {
	cfg      atomic.Pointer[Config] // replaced by Reconfigure
	log      *slog.Logger
	observer Observer
	store    *store.Store
	tokens   *token.Manager
	logins   *logins
	expiries expiries
	check    check
	texts    textCache
	submission

	changing sync.Mutex                   // one Reconfigure at a time
	known    map[store.AccountID]*Account // also those that are no longer configured; belongs to changing's holder

	mu       sync.RWMutex
	accounts []*Account
	byName   map[string]*Account // lower-case address or alias

	syncing syncing
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
	cfg.Observer.fill()
	cfg.setDefaults()
	b := &Backend{log: cfg.Logger, observer: cfg.Observer, known: make(map[store.AccountID]*Account)}
	b.store, err = store.Open(context.Background(), store.Options{Dir: cfg.State, BodyBudget: cfg.CacheBodies, HeadersReplaced: b.texts.forget,
		Logger: cfg.Logger})
	if err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	b.expiries.again = make(chan struct{}, 1)
	b.cfg.Store(&cfg)
	b.tokens = token.NewManager(cfg.HTTPClient, cfg.Logger)
	defer func() {
		if err != nil {
			_ = b.Close()
		}
	}()
	p, err := b.plan(&cfg)
	if err != nil {
		return nil, err
	}
	b.adopt(p)
	if b.logins, err = newLogins(cfg.Logins, cfg.State, b.Account, b.log); err != nil {
		return nil, err
	}
	if err := b.initSubmission(); err != nil {
		return nil, err
	}
	return b, nil
}

// config returns the configuration that holds now. Nobody changes it: Reconfigure puts another in its place.
func (b *Backend) config() *Config { return b.cfg.Load() }

func (cfg *Config) setDefaults() {
	if cfg.Delete == "" {
		cfg.Delete = DeleteRecoverable
	}
	if cfg.Size == "" {
		cfg.Size = SizeAuto
	}
	if cfg.Append == "" {
		cfg.Append = AppendJSON
	}
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
	b.syncing.begin(syncing, b.Accounts)
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
	b.syncing.wait()
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
	b.flushAnswers()
	for _, a := range b.known {
		a.forgetViews()
	}
	b.texts.close()
	return b.store.Close()
}

// Account returns the mailbox configured under address or one of its aliases,
// without regard to case.
func (b *Backend) Account(address string) (*Account, bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	a, ok := b.byName[strings.ToLower(address)]
	return a, ok
}

// Accounts returns all mailboxes in the order of the configuration.
func (b *Backend) Accounts() []*Account {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.accounts
}
