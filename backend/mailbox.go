package backend

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend/store"
)

// Mailbox is one session's handle of an open mailbox. The state behind it is
// shared by all sessions that have the mailbox open. Safe for concurrent use.
type Mailbox struct {
	account  *Account
	view     *view
	name     string
	readOnly bool
	notify   chan struct{}
	seen     uint64 // guarded by view.mu: up to here Changes was asked
	close    func()
	ahead    readAhead
}

// Open opens a mailbox for one session. Until Close it is kept up to date quickly.
// It waits for Graph only for a mailbox that was never listed before.
func (a *Account) Open(ctx context.Context, name string, readOnly bool) (*Mailbox, error) {
	row, err := a.filled(ctx, name)
	if err != nil {
		return nil, translate("open mailbox", err)
	}
	m := &Mailbox{account: a, name: row.Name, readOnly: readOnly, notify: make(chan struct{}, 1)}
	if m.view, err = a.view(ctx, row.ID, m); err != nil {
		return nil, translate("open mailbox", err)
	}
	a.syncer.Opened(row.ID)
	id := row.ID // the row holds links that nobody needs as long as the mailbox is open
	m.close = sync.OnceFunc(func() {
		m.ahead.stop()
		a.syncer.Closed(id)
		m.view.leave(m)
	})
	if a.syncer.Stale(row.ID, openAge) {
		// Programs that look in every few minutes would otherwise see today what came before they looked in last.
		if err := m.Refresh(ctx); err != nil {
			m.Close()
			return nil, translate("open mailbox", err)
		}
	}
	return m, nil
}

// openAge is how old the last news of a folder may be when somebody opens it; when they are older, Open waits for some as
// Refresh does.
const openAge = 15 * time.Second

// Message is what the replica knows about a message without its content.
type Message struct {
	UID       imap.UID
	ModSeq    uint64
	Received  time.Time // INTERNALDATE
	Sent      time.Time
	Size      int64
	SizeExact bool     // false: Size is an estimate on the high side
	EmailID   ObjectID // stays when the message moves
	ThreadID  ObjectID // zero if Exchange knows no conversation
	HasHeader bool
	HasBody   bool

	flags    store.Flags
	keywords []string
}

// ObjectID is an id of RFC 8474: a letter, 'M' or 'T', and a hash. It is written out only for who asks, as most who read
// a message do not.
type ObjectID [13]byte

// String returns the id in letters and digits, "" for none.
func (id ObjectID) String() string {
	if id == (ObjectID{}) {
		return ""
	}
	return string(id[:1]) + hex.EncodeToString(id[1:])
}

// FlagTest asks many messages for one flag or keyword.
type FlagTest struct {
	flag imap.Flag
	bit  store.Flags // 0 for a keyword
}

// NewFlagTest returns a test for a flag or keyword, whose case does not matter.
func NewFlagTest(flag imap.Flag) FlagTest { return FlagTest{flag, store.FlagBit(flag)} }

// On reports whether the message has the flag.
func (t FlagTest) On(m *Message) bool {
	if t.bit != 0 {
		return m.flags&t.bit != 0
	}
	return slices.ContainsFunc(m.keywords, func(k string) bool { return strings.EqualFold(k, string(t.flag)) })
}

// newObjectID makes an id of one of Graph's.
func newObjectID(kind byte, graphID string) (id ObjectID) {
	sum := sha256.Sum256([]byte(graphID))
	id[0] = kind
	copy(id[1:], sum[:])
	return id
}

// AppendFlags appends the message's flags and keywords to dst. \Recent is not among them.
func (m *Message) AppendFlags(dst []imap.Flag) []imap.Flag {
	dst = m.flags.Append(dst)
	for _, k := range m.keywords {
		dst = append(dst, imap.Flag(k))
	}
	return dst
}

// HasFlag reports whether the message has the flag or keyword, without regard to case.
func (m *Message) HasFlag(flag imap.Flag) bool { return NewFlagTest(flag).On(m) }

// messageLocked fills in m, field by field: a search does so for every message of a folder.
func (v *view) messageLocked(r *record, m *Message) {
	m.UID, m.ModSeq = r.uid, r.modSeq
	m.Received, m.Sent = timeOf(r.received), timeOf(r.sent)
	m.Size, m.SizeExact = r.size, r.bits&bitExact != 0
	m.EmailID, m.ThreadID = r.email, r.thread
	m.HasHeader, m.HasBody = r.bits&(bitHeader|bitBody) != 0, r.bits&bitBody != 0
	m.flags, m.keywords = r.flags, v.sets.sets[r.keywords]
}

// Changes is what happened in a mailbox after some mod-sequence, merged per message. All lists ascend.
type Changes struct {
	ModSeq  uint64 // everything up to this is in here
	Added   []imap.UID
	Updated []imap.UID // flags or keywords; a size that became known is not announced
	Removed []imap.UID // none that was added after since
}

// Close ends the session's interest in the mailbox. It may be called more than once.
func (m *Mailbox) Close() { m.close() }

// Name returns the mailbox's name at the time it was opened.
func (m *Mailbox) Name() string { return m.name }

// ID returns the same as MailboxInfo.ID.
func (m *Mailbox) ID() string { return m.view.objectID }

// ReadOnly reports whether the mailbox was opened by EXAMINE or the login may only read.
func (m *Mailbox) ReadOnly() bool { return m.readOnly }

// UIDValidity returns the UIDVALIDITY, constant while the mailbox is open.
func (m *Mailbox) UIDValidity() uint32 { return m.view.uidValidity }

// UIDNext returns the UID the next message will get.
func (m *Mailbox) UIDNext() imap.UID {
	m.view.mu.RLock()
	defer m.view.mu.RUnlock()
	return m.view.uidNext
}

// HighestModSeq returns the mod-sequence of the last change.
func (m *Mailbox) HighestModSeq() uint64 {
	m.view.mu.RLock()
	defer m.view.mu.RUnlock()
	return m.view.modSeq
}

// UIDs returns all UIDs, ascending. The list is shared: do not change it.
func (m *Mailbox) UIDs() []imap.UID {
	m.view.mu.Lock()
	defer m.view.mu.Unlock()
	v := m.view
	if v.uids == nil {
		v.uids = make([]imap.UID, len(v.recs))
		for i := range v.recs {
			v.uids[i] = v.recs[i].uid
		}
	}
	return v.uids[:len(v.uids):len(v.uids)]
}

// FirstUnseen returns the first message without \Seen.
func (m *Mailbox) FirstUnseen() (uid imap.UID, ok bool) {
	m.view.mu.RLock()
	defer m.view.mu.RUnlock()
	for i := range m.view.recs {
		if m.view.recs[i].flags&store.FlagSeen == 0 {
			return m.view.recs[i].uid, true
		}
	}
	return 0, false
}

// Messages yields the messages with the given UIDs in that order until yield returns
// false. Those that are gone are skipped. The pointer is valid during the call only.
// No lock is held while yield runs.
func (m *Mailbox) Messages(uids []imap.UID, yield func(*Message) bool) {
	var buf [64]Message
	for len(uids) > 0 {
		n := 0
		m.view.mu.RLock()
		at := -1
		for n < len(buf) && len(uids) > 0 {
			uid := uids[0]
			uids = uids[1:]
			// Mostly the one asked for is the one after the last.
			if at+1 < len(m.view.recs) && at >= 0 && m.view.recs[at+1].uid == uid {
				at++
			} else {
				i, ok := m.view.findLocked(uid)
				if !ok {
					continue
				}
				at = i
			}
			m.view.messageLocked(&m.view.recs[at], &buf[n])
			n++
		}
		m.view.mu.RUnlock()
		for i := range n {
			if !yield(&buf[i]) {
				return
			}
		}
	}
}

// Message returns one message.
func (m *Mailbox) Message(uid imap.UID) (msg Message, ok bool) {
	m.view.mu.RLock()
	defer m.view.mu.RUnlock()
	i, ok := m.view.findLocked(uid)
	if ok {
		m.view.messageLocked(&m.view.recs[i], &msg)
	}
	return msg, ok
}

// Notify returns a channel that receives a value when something has changed since
// the last call of Changes, or when the mailbox itself is gone.
func (m *Mailbox) Notify() <-chan struct{} { return m.notify }

// Gone reports whether the mailbox has been deleted while open.
func (m *Mailbox) Gone() bool {
	m.view.mu.RLock()
	defer m.view.mu.RUnlock()
	return m.view.gone
}

// Changes returns everything that happened after since, a mod-sequence from HighestModSeq or an earlier Changes of this
// handle. For one from before the mailbox was opened only Updated is filled, with all messages changed or added since.
func (m *Mailbox) Changes(since uint64) Changes { return m.view.changes(m, since) }

// Vanished returns the UIDs removed after since, for QRESYNC, ascending. Where the journal does not reach back so far it
// returns every UID below UIDNEXT that is not there, as RFC 7162 section 3.2.5.2 allows.
func (m *Mailbox) Vanished(ctx context.Context, since uint64) ([]imap.UID, error) {
	gone, err := m.account.store.RemovedSince(ctx, m.view.id, since)
	if errors.Is(err, store.ErrPruned) {
		return m.missing(), nil
	}
	if err != nil {
		return nil, translate("read removals", err)
	}
	uids := make([]imap.UID, len(gone))
	for i, r := range gone {
		uids[i] = r.UID
	}
	slices.Sort(uids)
	return slices.Compact(uids), nil
}

// missing returns all UIDs that were given and are not there.
func (m *Mailbox) missing() []imap.UID {
	m.view.mu.RLock()
	defer m.view.mu.RUnlock()
	var out []imap.UID
	next := imap.UID(1)
	for i := range m.view.recs {
		for ; next < m.view.recs[i].uid; next++ {
			out = append(out, next)
		}
		next++
	}
	for ; next < m.view.uidNext; next++ {
		out = append(out, next)
	}
	return out
}

// refreshWait bounds what NOOP may cost a client.
const refreshWait = time.Second

// Refresh asks Graph for changes if that was not done within the poll time. It waits
// at most a second; what comes later is announced through Notify. It fails only with ctx.
func (m *Mailbox) Refresh(ctx context.Context) error {
	rctx, cancel := context.WithTimeout(ctx, refreshWait)
	defer cancel()
	if err := m.account.syncer.Refresh(rctx, m.view.id); err != nil && rctx.Err() == nil {
		m.account.log.Debug("mailbox was not refreshed", "mailbox", m.name, "err", err)
	}
	return ctx.Err()
}

// ClaimRecent returns the first UID that is \Recent for the caller, and makes that message and those up to last, which
// the caller knows of, recent for nobody else. It is higher than last if there are none. What arrives after last is left
// to whoever hears of it first.
func (m *Mailbox) ClaimRecent(ctx context.Context, last imap.UID) (imap.UID, error) {
	uid, err := m.account.store.ClaimRecent(ctx, m.view.id, last+1)
	return uid, translate("claim recent messages", err)
}

// Keywords returns the keywords that are or have been in use in the mailbox while it is watched, sorted. None is taken
// back, as with other servers: between two looks of a client one may be out of use for a moment.
func (m *Mailbox) Keywords() []imap.Flag {
	m.view.mu.RLock()
	defer m.view.mu.RUnlock()
	return slices.Clone(m.view.sets.names)
}
