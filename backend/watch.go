package backend

import (
	"context"
	"maps"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend/store"
)

// keepView is how long the state of a mailbox stays in memory after its last session has left it. Many clients
// come and go.
const keepView = 5 * time.Minute

// view is what all sessions share that have a mailbox open: the skeleton of its messages, about a hundred bytes each,
// and the history since it was loaded. The syncer tells of every commit, in order.
type view struct {
	account     *Account
	id          store.FolderID
	objectID    string
	uidValidity uint32

	mu      sync.RWMutex
	uidNext imap.UID
	modSeq  uint64
	recs    []record   // ascending by uid
	uids    []imap.UID // of recs, for those who want only them; nil until somebody asks
	sets    keywordSets
	events  []event // in order of modSeq
	floor   uint64  // events has everything after this
	handles map[*Mailbox]struct{}
	gone    bool
	expire  *time.Timer // runs while there are no handles
}

// record is one message.
type record struct {
	modSeq   uint64
	size     int64
	received int64 // Unix seconds; noTime for none
	sent     int64
	email    ObjectID
	thread   ObjectID // zero: none
	uid      imap.UID
	keywords uint32 // index into keywordSets
	flags    store.Flags
	bits     uint8
}

const (
	bitExact = 1 << iota
	bitHeader
	bitBody
)

const noTime = -1 << 63

// event is one thing that happened to a message.
type event struct {
	modSeq uint64
	uid    imap.UID
	kind   eventKind
}

type eventKind uint8

const (
	added eventKind = iota
	updated
	removed
)

// keywordSets keeps each set of keywords once; most messages have none or share theirs with many.
type keywordSets struct {
	sets  [][]string
	names []imap.Flag // all that are in them, sorted
	index map[string]uint32
}

func (k *keywordSets) add(set []string) uint32 {
	key := strings.Join(set, " ")
	i, ok := k.index[key]
	if !ok {
		if k.index == nil {
			k.index = make(map[string]uint32)
		}
		i = uint32(len(k.sets))
		k.index[strings.Clone(key)] = i
		k.sets = append(k.sets, set)
		for _, name := range set {
			if at, known := slices.BinarySearch(k.names, imap.Flag(name)); !known {
				k.names = slices.Insert(k.names, at, imap.Flag(name))
			}
		}
	}
	return i
}

func seconds(t time.Time) int64 {
	if t.IsZero() {
		return noTime
	}
	return t.Unix()
}

func timeOf(seconds int64) time.Time {
	if seconds == noTime {
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}

func (v *view) recordOf(m *store.Message) record {
	r := record{
		modSeq: m.ModSeq, size: m.Size, received: seconds(m.Received), sent: seconds(m.Sent),
		email: newObjectID('M', string(m.GraphID)), uid: m.UID, keywords: v.sets.add(m.Keywords), flags: m.Flags,
	}
	if m.ThreadID != "" {
		r.thread = newObjectID('T', m.ThreadID)
	}
	if m.SizeExact {
		r.bits |= bitExact
	}
	if m.HasHeader {
		r.bits |= bitHeader
	}
	if m.HasBody {
		r.bits |= bitBody
	}
	return r
}

// view returns the shared state of a folder, loading it if nobody has it open, with m registered in it.
func (a *Account) view(ctx context.Context, id store.FolderID, m *Mailbox) (*view, error) {
	a.mu.Lock()
	v := a.views[id]
	if v != nil {
		v.enter(m)
	}
	a.mu.Unlock()
	if v != nil {
		return v, nil
	}
	// No commit can happen while it is loaded, so nothing is missed between the reading and the first change.
	err := a.syncer.Locked(func() error {
		a.mu.Lock()
		if v = a.views[id]; v != nil {
			v.enter(m)
		}
		a.mu.Unlock()
		if v != nil {
			return nil
		}
		loaded, err := a.loadView(ctx, id)
		if err != nil {
			return err
		}
		v = loaded
		v.enter(m)
		a.mu.Lock()
		a.views[id] = v
		a.mu.Unlock()
		return nil
	})
	return v, err
}

func (a *Account) loadView(ctx context.Context, id store.FolderID) (*view, error) {
	row, err := a.store.Folder(ctx, id)
	if err != nil {
		return nil, err
	}
	msgs, err := a.store.Messages(ctx, id)
	if err != nil {
		return nil, err
	}
	v := &view{
		account: a, id: id, objectID: objectID("F", string(row.GraphID)), uidValidity: row.UIDValidity,
		uidNext: row.UIDNext, modSeq: row.HighestModSeq, floor: row.HighestModSeq,
		recs: make([]record, len(msgs), len(msgs)+len(msgs)/16+16), handles: make(map[*Mailbox]struct{}),
	}
	for i := range msgs {
		v.recs[i] = v.recordOf(&msgs[i])
	}
	return v, nil
}

func (v *view) enter(m *Mailbox) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.handles[m] = struct{}{}
	m.seen = v.modSeq
	if v.expire != nil {
		v.expire.Stop()
		v.expire = nil
	}
}

func (v *view) leave(m *Mailbox) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.handles, m)
	if len(v.handles) == 0 && v.expire == nil {
		v.expire = time.AfterFunc(keepView, v.forget)
	}
	v.trimLocked()
}

// forget drops the view if still nobody uses it.
func (v *view) forget() {
	a := v.account
	a.mu.Lock()
	defer a.mu.Unlock()
	v.mu.RLock()
	defer v.mu.RUnlock()
	if len(v.handles) == 0 && a.views[v.id] == v {
		delete(a.views, v.id)
	}
}

// forgetViews stops what waits for nothing but time.
func (a *Account) forgetViews() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, v := range a.views {
		v.mu.Lock()
		if v.expire != nil {
			v.expire.Stop()
		}
		v.mu.Unlock()
		delete(a.views, id)
	}
}

// loadedView returns the view of a folder that is in memory, nil if it is not.
func (a *Account) loadedView(id store.FolderID) *view {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.views[id]
}

// changed hands a commit to those who watch the folder. The syncer calls it, in order of the commits.
func (a *Account) changed(ch store.Changes) {
	if len(ch.Added) > 0 || len(ch.Removed) > 0 {
		a.usage.changed.Store(true)
	}
	if v := a.loadedView(ch.Folder); v != nil {
		v.apply(&ch)
	}
}

// allGone ends all views: the mailbox is no longer configured.
func (a *Account) allGone() {
	a.mu.Lock()
	ids := slices.Collect(maps.Keys(a.views))
	a.mu.Unlock()
	for _, id := range ids {
		a.folderGone(id)
	}
}

// folderGone ends the view of a folder that is no longer there.
func (a *Account) folderGone(id store.FolderID) {
	a.backend.texts.forgetFolder(id)
	v := a.loadedView(id)
	if v == nil {
		return
	}
	a.mu.Lock()
	delete(a.views, id)
	a.mu.Unlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.gone = true
	v.notifyLocked()
}

func (a *Account) headersKept(id store.FolderID, ids []store.MessageID) {
	v := a.loadedView(id)
	if v == nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, id := range ids {
		if i, ok := v.findLocked(id.UID()); ok {
			v.recs[i].bits |= bitHeader
		}
	}
}

func (v *view) findLocked(uid imap.UID) (int, bool) {
	n := len(v.recs)
	// UIDs are mostly dense at the end, where most questions are.
	if n > 0 && v.recs[n-1].uid < uid {
		return n, false
	}
	i := sort.Search(n, func(i int) bool { return v.recs[i].uid >= uid })
	return i, i < n && v.recs[i].uid == uid
}

func (v *view) apply(ch *store.Changes) {
	v.mu.Lock()
	defer v.mu.Unlock()
	before := len(v.events)
	for i := range ch.Added {
		m := &ch.Added[i]
		at, ok := v.findLocked(m.UID)
		if ok {
			continue
		}
		v.recs = slices.Insert(v.recs, at, v.recordOf(m))
		v.uids = nil // others may still look at the old list
		v.events = append(v.events, event{m.ModSeq, m.UID, added})
	}
	for i := range ch.Updated {
		m := &ch.Updated[i]
		at, ok := v.findLocked(m.UID)
		if !ok {
			continue
		}
		old := &v.recs[at]
		news := m.ModSeq > old.modSeq
		hadHeader := old.bits & bitHeader
		*old = v.recordOf(m)
		old.bits |= hadHeader
		if news {
			v.events = append(v.events, event{m.ModSeq, m.UID, updated})
		}
	}
	if len(ch.Removed) > 0 {
		v.uids = nil
		drop := make(map[imap.UID]uint64, len(ch.Removed))
		for _, r := range ch.Removed {
			drop[r.UID] = r.ModSeq
		}
		v.recs = slices.DeleteFunc(v.recs, func(r record) bool {
			modSeq, ok := drop[r.uid]
			if ok {
				v.events = append(v.events, event{modSeq, r.uid, removed})
			}
			return ok
		})
	}
	v.uidNext = max(v.uidNext, ch.UIDNext)
	v.modSeq = max(v.modSeq, ch.HighestModSeq)
	if len(v.events) == before {
		return
	}
	// One transaction may give its messages mod-sequences in another order than it reports them.
	slices.SortStableFunc(v.events[before:], func(a, b event) int {
		switch {
		case a.modSeq < b.modSeq:
			return -1
		case a.modSeq > b.modSeq:
			return 1
		}
		return 0
	})
	v.trimLocked()
	v.notifyLocked()
}

// trimLocked forgets events that every session has seen.
func (v *view) trimLocked() {
	if len(v.events) < 1024 {
		return
	}
	low := v.modSeq
	for m := range v.handles {
		low = min(low, m.seen)
	}
	n := sort.Search(len(v.events), func(i int) bool { return v.events[i].modSeq > low })
	if n < len(v.events)/2 {
		return
	}
	v.events = append([]event(nil), v.events[n:]...)
	v.floor = max(v.floor, low)
}

func (v *view) notifyLocked() {
	for m := range v.handles {
		select {
		case m.notify <- struct{}{}:
		default:
		}
	}
}

// changes returns what happened after since, and marks it as seen by m.
func (v *view) changes(m *Mailbox, since uint64) Changes {
	v.mu.Lock()
	defer v.mu.Unlock()
	m.seen = max(m.seen, since)
	ch := Changes{ModSeq: v.modSeq}
	if since >= v.modSeq {
		return ch
	}
	if since < v.floor {
		// Older than what memory holds: flags only, as CONDSTORE asks for. What was removed is in the store's journal.
		for i := range v.recs {
			if v.recs[i].modSeq > since {
				ch.Updated = append(ch.Updated, v.recs[i].uid)
			}
		}
		return ch
	}
	first := sort.Search(len(v.events), func(i int) bool { return v.events[i].modSeq > since })
	window := v.events[first:]
	if len(window) == 1 {
		// By far the most frequent case.
		switch e := window[0]; e.kind {
		case added:
			ch.Added = []imap.UID{e.uid}
		case updated:
			ch.Updated = []imap.UID{e.uid}
		case removed:
			ch.Removed = []imap.UID{e.uid}
		}
		return ch
	}
	type fate struct{ added, removed bool }
	fates := make(map[imap.UID]fate, len(window))
	for _, e := range window {
		f := fates[e.uid]
		f.added = f.added || e.kind == added
		f.removed = f.removed || e.kind == removed
		fates[e.uid] = f
	}
	for uid, f := range fates {
		switch {
		case f.added && f.removed:
		case f.added:
			ch.Added = append(ch.Added, uid)
		case f.removed:
			ch.Removed = append(ch.Removed, uid)
		default:
			ch.Updated = append(ch.Updated, uid)
		}
	}
	slices.Sort(ch.Added)
	slices.Sort(ch.Updated)
	slices.Sort(ch.Removed)
	return ch
}
