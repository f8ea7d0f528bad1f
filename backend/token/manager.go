// Package token signs apps in to Microsoft and keeps their access tokens.
//
// A Manager keeps one token per credential, however many mailboxes use it. Tokens are renewed in the background well
// before they end, one request serves all who wait, and a refusal is remembered, so that a wrong secret does not become
// a storm of sign-in requests. A token is opaque here: one without roles may work (RBAC for Applications) and is handed
// out like any other; only Graph's 403 tells.
package token

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"golang.org/x/oauth2"
)

// Manager keeps the tokens of all credentials. It is safe for concurrent use.
type Manager struct {
	clients clients
	log     *slog.Logger
	ctx     context.Context // of all requests; ends with Close
	cancel  context.CancelFunc

	mu      sync.Mutex
	entries map[key]*entry

	startMu sync.Mutex // taken last
	closed  bool
	wg      sync.WaitGroup // requests
}

// ErrClosed is the cause of errors after Close.
var ErrClosed = errors.New("token manager closed")

// requestTimeout bounds one request to the sign-in service.
const requestTimeout = 30 * time.Second

// NewManager returns a manager that uses client, nil meaning http.DefaultTransport, and logs to logger, nil meaning
// nowhere. Redirects are not followed, since they would carry the secret along.
func NewManager(client *http.Client, logger *slog.Logger) *Manager {
	own := &http.Client{}
	if client != nil {
		*own = *client
	}
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	m := &Manager{clients: clients{own, directClient(own)}, log: logger, entries: make(map[key]*entry)}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	return m
}

// directClient is client without its proxy. A transport that is not the standard one is taken as it is.
func directClient(client *http.Client) *http.Client {
	own := *client
	base := own.Transport
	if base == nil {
		base = http.DefaultTransport
	}
	if t, ok := base.(*http.Transport); ok {
		t = t.Clone()
		t.Proxy = nil
		own.Transport = t
	}
	return &own
}

// Close ends all requests and renewals and waits for them. Tokens in the cache are no longer handed out.
func (m *Manager) Close() {
	m.startMu.Lock()
	m.closed = true
	m.startMu.Unlock()
	m.mu.Lock()
	entries := m.entries
	m.entries = make(map[key]*entry)
	m.mu.Unlock()
	m.cancel()
	for _, e := range entries {
		e.stop()
	}
	m.wg.Wait()
}

// Source returns a source of tokens for one mailbox. Sources of equal credentials share one token. Asking for a source
// forgets an earlier refusal of the credential: that is how a reloaded configuration tries again.
func (m *Manager) Source(cred Credential) *Source {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := cred.key()
	e := m.entries[k]
	if e == nil {
		e = &entry{m: m, cred: cred, grant: newGrant(cred)}
		m.entries[k] = e // after Close it answers ErrClosed
	}
	e.forgive()
	return &Source{e}
}

// Retire ends the renewals of all credentials but those in keep. Who still has a source of another may go on using it.
func (m *Manager) Retire(keep []Credential) {
	kept := make(map[key]bool, len(keep))
	for _, c := range keep {
		kept[c.key()] = true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for k, e := range m.entries {
		if !kept[k] {
			e.retire()
			delete(m.entries, k)
		}
	}
}

// start runs f in a goroutine that Close waits for; false after Close.
func (m *Manager) start(f func()) bool {
	m.startMu.Lock()
	defer m.startMu.Unlock()
	if m.closed {
		return false
	}
	m.wg.Add(1)
	go func() {
		defer m.wg.Done()
		f()
	}()
	return true
}

// Source hands out the access token of one mailbox's credential. It is safe for concurrent use.
type Source struct{ e *entry }

// Token returns a token that is good for at least some seconds more. It waits for a request under way, shared with all
// others who wait, but not longer than ctx. The error is a *Error unless ctx ended.
func (s *Source) Token(ctx context.Context) (*oauth2.Token, error) { return s.e.token(ctx) }

// Invalidate says that Graph refused the token with 401. The next Token asks for another one, once: a token that was
// already given up, or that itself came in place of a refused one a moment ago, stays.
func (s *Source) Invalidate(accessToken string) { s.e.invalidate(accessToken) }
