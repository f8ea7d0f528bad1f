package backend

import (
	"context"
	"sync"

	"github.com/emersion/go-imap/v2"

	"postern/backend/graph"
)

const (
	// aheadTexts is how many texts are read before a program asks for them. With the one it waits for they are the four
	// requests that a mailbox takes at once.
	aheadTexts = 3
	// aheadSize bounds them: a program that stops at a large message should not have caused another to be read. As estimated, in bytes.
	aheadSize = 8 << 20
	// aheadRun is how many texts must have been asked for in the order of their UIDs, one by one, before the next ones are
	// guessed. A person who reads one message after the other seldom gets there between two others.
	aheadRun = 3
	// aheadStep is how far apart two of them may be: programs leave out what they have.
	aheadStep = 3
)

// readAhead follows a program that takes one text after the other and waits for each, as offlineimap and getmail do. Each would
// wait for one request to Graph, where Graph takes four at once.
type readAhead struct {
	mu     sync.Mutex
	last   imap.UID // asked for last
	run    int      // how many were asked for in order, downwards if negative
	flying map[imap.UID]bool
	off    bool
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// ReadOn says that the text of one message is asked for by itself. Where that is one in a row the next texts are read ahead. It
// does not wait.
func (m *Mailbox) ReadOn(ctx context.Context, uid imap.UID) {
	r := &m.ahead
	r.mu.Lock()
	defer r.mu.Unlock()
	next := m.neighbours(uid, r)
	if len(next) == 0 || r.off {
		return
	}
	if r.ctx == nil {
		// It outlives the command, but not the mailbox.
		r.ctx, r.cancel = context.WithCancel(graph.WithPatience(interactive(context.WithoutCancel(ctx)), bodyPatience))
		r.flying = make(map[imap.UID]bool)
	}
	for _, uid := range next {
		if r.flying[uid] || len(r.flying) >= aheadTexts {
			continue
		}
		r.flying[uid] = true
		r.wg.Go(func() {
			err := m.fetchAhead(r.ctx, uid)
			r.mu.Lock()
			defer r.mu.Unlock()
			delete(r.flying, uid)
			if err != nil {
				r.run = 0 // whoever asks is told why; nobody else needs another try
			}
		})
	}
}

// neighbours notes that uid is asked for and returns those after it, in the direction of the run, that have no text yet.
func (m *Mailbox) neighbours(uid imap.UID, r *readAhead) []imap.UID {
	m.view.mu.RLock()
	defer m.view.mu.RUnlock()
	at, ok := m.view.findLocked(uid)
	if !ok || uid == r.last {
		return nil
	}
	before, ok := m.view.findLocked(r.last)
	r.last = uid
	step := 1
	switch d := at - before; {
	case ok && d > 0 && d <= aheadStep:
		r.run = max(r.run, 0) + 1
	case ok && d < 0 && d >= -aheadStep:
		r.run, step = min(r.run, 0)-1, -1
	default:
		r.run = 0
	}
	if max(r.run, -r.run) < aheadRun-1 {
		return nil
	}
	var next []imap.UID
	for i, n := at+step, 0; i >= 0 && i < len(m.view.recs) && n < aheadTexts; i, n = i+step, n+1 {
		if rec := &m.view.recs[i]; rec.bits&bitBody == 0 && rec.size <= aheadSize {
			next = append(next, rec.uid)
		}
	}
	return next
}

func (m *Mailbox) fetchAhead(ctx context.Context, uid imap.UID) error {
	rows, err := m.rows(ctx, []imap.UID{uid})
	if err != nil || len(rows) == 0 || rows[0].HasBody {
		return err
	}
	return m.account.syncer.FetchBody(ctx, rows[0])
}

// stop ends what is being read.
func (r *readAhead) stop() {
	r.mu.Lock()
	r.off = true
	if r.cancel != nil {
		r.cancel()
	}
	r.mu.Unlock()
	r.wg.Wait()
}
