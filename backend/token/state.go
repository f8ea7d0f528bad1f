package token

import (
	"slices"
	"strings"
	"time"
)

// State is how a credential's sign-in is doing.
type State struct {
	Credential string    // its name
	Kind       Kind      // how it signs in
	Expires    time.Time // of the token at hand; zero without one
	Received   uint64    // tokens since the start
	Failed     uint64    // requests that failed
	Err        *Error    // of the last request, nil after a success
	RetryAt    time.Time // no request before, while Err is set
}

// States returns the state of each credential that has a source, by name. Credentials that are equal share one entry,
// which has the name of the first.
func (m *Manager) States() []State {
	m.mu.Lock()
	entries := make([]*entry, 0, len(m.entries))
	for _, e := range m.entries {
		entries = append(entries, e)
	}
	m.mu.Unlock()
	out := make([]State, len(entries))
	for i, e := range entries {
		e.mu.Lock()
		out[i] = State{Credential: e.cred.Name, Kind: e.cred.Kind(), Received: e.received, Failed: e.failed, Err: e.failure, RetryAt: e.retryAt}
		if e.tok != nil {
			out[i].Expires = e.tok.Expiry
		}
		e.mu.Unlock()
	}
	slices.SortFunc(out, func(x, y State) int { return strings.Compare(x.Credential, y.Credential) })
	return out
}
