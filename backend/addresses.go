package backend

import (
	"context"
	"sync"
	"time"

	"postern/backend/graph"
)

// How long what Graph says about a mailbox's addresses holds: the answer itself, a
// refusal for want of the permission to read the directory, and no answer.
const (
	addressesHold = 10 * time.Minute
	addressesDeny = time.Hour
	addressesFail = time.Minute
	addressesWait = 5 * time.Second // a client waits for it
)

// addresses are a mailbox's addresses as the directory has them, read when first a sender is not found among the
// configured ones. Many apps may not read the directory; then the configuration is all there is.
type addresses struct {
	mu    sync.Mutex // held while asking: others wait for the same answer
	known map[string]bool
	again time.Time
}

// hasAddress reports whether addr is one of the mailbox's by the directory.
func (a *Account) hasAddress(addr string) bool {
	l := &a.learned
	l.mu.Lock()
	defer l.mu.Unlock()
	key := addressKey(addr)
	if l.known[key] || time.Now().Before(l.again) {
		return l.known[key]
	}
	ctx, cancel := context.WithTimeout(graph.WithLane(context.Background(), graph.Interactive), addressesWait)
	defer cancel()
	list, err := a.graph.Addresses(ctx)
	switch {
	case err == nil:
		l.known = make(map[string]bool, len(list))
		for _, s := range list {
			l.known[addressKey(s)] = true
		}
		l.again = time.Now().Add(addressesHold)
	case graph.IsDenied(err):
		// Not a fault: the permission is optional.
		a.log.Debug("directory may not be read, aliases come from the configuration", "op", "read addresses", "err", err)
		l.again = time.Now().Add(addressesDeny)
	default:
		a.log.Info("addresses not read", "op", "read addresses", "err", err)
		l.again = time.Now().Add(addressesFail)
	}
	return l.known[key]
}
