// Package syncer keeps one mailbox's replica in the store equal to what Graph holds, in both directions.
//
// A Syncer's Run loop decides when folders are listed, polled and filled; each folder has at most one such job at a
// time. Sessions change things through its methods: what only changes flags is committed to the replica at once and
// pushed later, everything else is done in Graph first. Every commit is announced through Options.Changed before the
// next one can happen, so that whoever watches a folder sees one history, in order of mod-sequences.
package syncer

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"postern/backend/graph"
	"postern/backend/store"
)

// DeletePolicy says where expunged messages go.
type DeletePolicy string

// The policies.
const (
	DeleteRecoverable DeletePolicy = "recoverable"
	DeleteTrash       DeletePolicy = "trash"
	DeletePurge       DeletePolicy = "purge"
)

// Options are what a Syncer works with.
type Options struct {
	Address string // for logs
	Account store.AccountID
	Graph   *graph.Client
	Store   *store.Store
	Logger  *slog.Logger
	Poll    time.Duration // of folders somebody has open, while they change; zero means DefaultPoll
	Delete  DeletePolicy
	// ImportMIME uses the beta call importMime for what is appended, instead of JSON.
	ImportMIME bool

	// Changed is told what each commit did to a folder. It is called with commits held up: it must be quick and
	// must not call the Syncer.
	Changed func(store.Changes)
	// Gone is told of a folder that no longer exists, under the same rule.
	Gone func(store.FolderID)
	// HeadersKept is told that the store has got the headers of some messages. It must be quick. May be nil.
	HeadersKept func(store.FolderID, []store.MessageID)
	// Sending tells whether a message with this Message-ID field and content (message.Fingerprint) is on its way from the
	// mailbox, or was a moment ago.
	Sending func(ctx context.Context, messageID, content string) SendState
	// OwnCopy reports whether m, in Sent Items, is what Exchange has filed of the message that c is the client's copy of.
	// It looks for the property SentMark in m, and asks Graph where that is not there.
	OwnCopy  func(ctx context.Context, m *graph.Message, c store.SentCopy) (bool, error)
	SentMark graph.PropertyID
}

// Settings are the Options that can be changed while the Syncer runs.
type Settings struct {
	Poll       time.Duration
	Delete     DeletePolicy
	ImportMIME bool
}

// Set changes the settings. What is under way ends by the old ones.
func (s *Syncer) Set(n Settings) {
	if n.Poll <= 0 {
		n.Poll = DefaultPoll
	}
	old := s.settings.Swap(&n)
	if old == nil || old.Poll == n.Poll {
		return
	}
	s.mu.Lock()
	now := time.Now()
	for _, f := range s.folders {
		f.every = n.Poll
		if f.opens > 0 && f.fails == 0 && !f.busy {
			f.due = earlier(f.due, now.Add(n.Poll))
		}
	}
	s.mu.Unlock()
	s.poke()
}

// DefaultPoll is how often an open folder is polled while it changes.
const DefaultPoll = 5 * time.Second

// ErrStopped is answered once Run has returned.
var ErrStopped = errors.New("synchronisation has stopped")

const (
	maxJobs     = 3                      // folder jobs at once; Graph allows four requests per mailbox
	pollShare   = 250 * time.Millisecond // between two polls of quiet open folders: a quarter of Graph's 10,000 in ten minutes
	closedShare = 150 * time.Millisecond // the same for closed ones: about as much again, as each waits up to twice the time
	closedPoll  = time.Minute            // folders nobody has open: this and up to as much again, spread by folder
	idleAfter   = 30 * time.Minute
	idlePoll    = 10 * time.Minute // the same once nobody has used the account for idleAfter
	treePoll    = 30 * time.Second
	treeStart   = 5 * time.Second // after a start with a known tree: the folders somebody opens go first
	rolesPoll   = 24 * time.Hour  // how long the answer to which folders are the special ones is believed
	maxBackoff  = 5 * time.Minute
	impatience  = 2 * time.Second // a waiting client makes a failed job run again, but not more often than this
)

// Syncer keeps one mailbox in step. Its methods may be called from any goroutine.
type Syncer struct {
	o        Options
	settings atomic.Pointer[Settings]
	log      *slog.Logger

	// commit is held while the store is changed and the change is announced. No Graph call is made under it.
	commit sync.Mutex

	mu         sync.Mutex // below; never held while calling Graph or the store
	folders    map[store.FolderID]*folder
	tree       task
	running    int
	used       time.Time // when a session last asked for something
	status     Status
	stopped    bool
	roles      map[string]store.FolderID // by well-known name
	known      map[string]string         // well-known name to Graph id
	bodies     map[store.MessageID]*flight
	own        map[store.GraphID]*ownWrite
	marks      mark
	moving     map[store.GraphID]int          // by clients, right now
	doubts     map[store.GraphID]time.Time    // messages that are listed and not found, since when
	drafts     map[store.GraphID]string       // versions of drafts seen in listings and delta rounds
	edited     map[store.GraphID]bool         // drafts that were edited by others right before a change of ours
	tried      map[store.MessageID]bool       // by background reading
	textFaults map[store.MessageID]*textFault // messages whose text Graph fails to give
	totals     map[string]int                 // messages in folders by Graph id, as the last reading of the tree told
	copies     copyWork

	pushing chan struct{} // holds a token while flags are written: two pushes of one message must not overtake one another

	treeMu sync.Mutex // serialises readers and writers of the stored tree; may be held while calling Graph
	wake   chan struct{}
	push   chan struct{}
	idle   chan struct{}
	pings  chan struct{} // of Answers; not buffered
}

// New returns a Syncer. It does nothing before Run.
func New(o Options) *Syncer {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Changed == nil {
		o.Changed = func(store.Changes) {}
	}
	if o.Gone == nil {
		o.Gone = func(store.FolderID) {}
	}
	if o.Sending == nil {
		o.Sending = func(context.Context, string, string) SendState { return NotSending }
	}
	if o.OwnCopy == nil {
		o.OwnCopy = func(context.Context, *graph.Message, store.SentCopy) (bool, error) { return false, nil }
	}
	s := &Syncer{
		o:       o,
		log:     o.Logger.With("account", o.Address),
		folders: make(map[store.FolderID]*folder),
		roles:   make(map[string]store.FolderID),
		known:   make(map[string]string),
		bodies:  make(map[store.MessageID]*flight),
		own:     make(map[store.GraphID]*ownWrite),
		moving:  make(map[store.GraphID]int),
		doubts:  make(map[store.GraphID]time.Time),
		drafts:  make(map[store.GraphID]string),
		edited:  make(map[store.GraphID]bool),
		pushing: make(chan struct{}, 1),
		wake:    make(chan struct{}, 1),
		push:    make(chan struct{}, 1),
		idle:    make(chan struct{}, 1),
		pings:   make(chan struct{}),
	}
	s.Set(Settings{Poll: o.Poll, Delete: o.Delete, ImportMIME: o.ImportMIME})
	return s
}

// Run keeps the mailbox in step until ctx ends, and returns when everything it started has stopped.
func (s *Syncer) Run(ctx context.Context) error {
	defer s.stop()
	if err := s.load(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() { s.pushLoop(ctx) })
	wg.Go(func() { s.idleLoop(ctx) })
	defer wg.Wait()

	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.pings:
			continue
		case <-s.wake:
		case <-timer.C:
		}
		next := s.startDue(ctx, &wg)
		timer.Reset(max(time.Until(next), 0))
	}
}

// load takes over what the store knows about the mailbox's folders.
func (s *Syncer) load(ctx context.Context) error {
	rows, err := s.o.Store.Folders(ctx, s.o.Account)
	if err != nil {
		return err
	}
	l, _, err := s.loadTree(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.adoptLocked(rows, l.wellKnown)
	now := time.Now()
	filled := 0
	for _, f := range s.folders {
		if f.filled {
			filled++
		}
	}
	for _, f := range s.folders {
		if f.filled {
			f.active = true
			f.due = now.Add(spread(f.id, closedEvery(false, filled)))
			if f.opens > 0 {
				f.due = now
			}
		}
	}
	s.tree.due = now
	if len(rows) > 0 {
		s.tree.runs++
		s.tree.ended = now
		s.tree.due = now.Add(treeStart)
		s.tree.wakeLocked(nil)
	}
	s.used = now
	s.stopped = false
	return nil
}

// adoptLocked makes the folder states those of rows.
func (s *Syncer) adoptLocked(rows []store.Folder, wellKnown map[string]string) {
	byGraph := make(map[string]store.FolderID, len(rows))
	present := make(map[store.FolderID]bool, len(rows))
	for _, r := range rows {
		byGraph[string(r.GraphID)] = r.ID
		present[r.ID] = true
		f := s.folders[r.ID]
		if f == nil {
			f = &folder{id: r.ID, graphID: string(r.GraphID), every: s.settings.Load().Poll, total: s.totals[string(r.GraphID)]}
			s.folders[r.ID] = f
		}
		if r.Fill == store.FillDone {
			f.filled = true
		}
	}
	for id, f := range s.folders {
		if !present[id] {
			f.wakeLocked(store.ErrNotFound)
			delete(s.folders, id)
		}
	}
	clear(s.roles)
	s.known = wellKnown
	if s.known == nil {
		s.known = make(map[string]string)
	}
	for w, id := range wellKnown {
		if row, ok := byGraph[id]; ok {
			s.roles[w] = row
		}
	}
}

func (s *Syncer) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	s.tree.wakeLocked(ErrStopped)
	for _, f := range s.folders {
		f.wakeLocked(ErrStopped)
	}
}
