package backend

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend/graph"
	"postern/backend/store"
	"postern/backend/syncer"
	"postern/backend/token"
)

// Account is one Microsoft 365 mailbox: its folders and the way to change them.
// All methods are safe for concurrent use.
type Account struct {
	address string
	id      store.AccountID
	log     *slog.Logger
	backend *Backend
	store   *store.Store
	graph   *graph.Client
	budget  *graph.Budget
	large   sync.Mutex // held while a message goes by upload sessions
	syncer  *syncer.Syncer
	learned addresses
	calls   callHistory
	tokens  tokenSource
	quota   atomic.Int64 // bytes; 0: not known
	usage   usage

	credential token.Credential // belongs to Backend.adopt

	mu    sync.Mutex // of views only; the views have their own
	views map[store.FolderID]*view
}

func newAccount(b *Backend, address string, id store.AccountID) *Account {
	return &Account{
		address: address, id: id, backend: b, store: b.store,
		log:   b.log.With("account", address),
		views: make(map[store.FolderID]*view),
	}
}

// Address returns the address the mailbox is configured under.
func (a *Account) Address() string { return a.address }

// MailboxInfo is one line of LIST.
type MailboxInfo struct {
	Name        string // UTF-8, levels separated by '/'
	ID          string // stable over renames; letters and digits (RFC 8474 MAILBOXID)
	Role        imap.MailboxAttr
	Selectable  bool
	HasChildren bool
	Subscribed  bool
}

// Status is what STATUS can say about a mailbox.
type Status struct {
	Messages, Unseen, Deleted, Recent int
	UIDNext                           imap.UID
	UIDValidity                       uint32
	Size                              int64 // bytes of all messages, some of them estimated
	HighestModSeq                     uint64
	ID                                string
}

// objectID makes an id of RFC 8474's form from one of Graph's, which may hold other characters and be long.
func objectID(prefix string, id string) string {
	sum := sha256.Sum256([]byte(id))
	return prefix + hex.EncodeToString(sum[:12])
}

// Mailboxes returns the folders, parents before children. It reads the replica and
// waits for Graph only when the folder tree was never read.
func (a *Account) Mailboxes(ctx context.Context) ([]MailboxInfo, error) {
	rows, err := a.folders(ctx)
	if err != nil {
		return nil, translate("list mailboxes", err)
	}
	slices.SortFunc(rows, func(x, y store.Folder) int {
		// '/' sorts before everything, so children follow their parent at once; INBOX first.
		return cmp.Or(boolOrder(x.Name == "INBOX", y.Name == "INBOX"),
			strings.Compare(strings.ReplaceAll(x.Name, "/", "\x00"), strings.ReplaceAll(y.Name, "/", "\x00")))
	})
	out := make([]MailboxInfo, len(rows))
	for i, r := range rows {
		out[i] = MailboxInfo{Name: r.Name, ID: objectID("F", string(r.GraphID)), Role: r.Role, Selectable: true, Subscribed: r.Subscribed}
	}
	parents := make(map[string]bool, len(out))
	for _, m := range out {
		if i := strings.LastIndexByte(m.Name, '/'); i >= 0 {
			parents[m.Name[:i]] = true
		}
	}
	for i := range out {
		out[i].HasChildren = parents[out[i].Name]
	}
	return out, nil
}

func boolOrder(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// folders returns the visible folders.
func (a *Account) folders(ctx context.Context) ([]store.Folder, error) {
	if err := a.syncer.EnsureTree(ctx); err != nil {
		return nil, err
	}
	rows, err := a.store.Folders(ctx, a.id)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(rows, func(r store.Folder) bool { return r.Hidden }), nil
}

// folder returns the folder of that name; one that another program has just made is looked for in Graph.
func (a *Account) folder(ctx context.Context, name string) (*store.Folder, error) {
	if err := a.syncer.EnsureTree(ctx); err != nil {
		return nil, err
	}
	row, err := a.syncer.FolderByName(ctx, name)
	if !errors.Is(err, store.ErrNotFound) {
		return row, err
	}
	tctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if err := a.syncer.RefreshTree(tctx); err != nil {
		return nil, store.ErrNotFound // as far as we know
	}
	return a.syncer.FolderByName(ctx, name)
}

// filled is folder, with its skeleton in the replica.
func (a *Account) filled(ctx context.Context, name string) (*store.Folder, error) {
	row, err := a.folder(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := a.syncer.EnsureFilled(ctx, row.ID); err != nil {
		return nil, err
	}
	if row.Fill == store.FillDone {
		return row, nil
	}
	return a.store.Folder(ctx, row.ID)
}

// Subscriptions returns the subscribed names, existing or not.
func (a *Account) Subscriptions(ctx context.Context) ([]string, error) {
	if err := a.syncer.EnsureTree(ctx); err != nil {
		return nil, translate("list subscriptions", err)
	}
	names, err := a.store.Subscriptions(ctx, a.id)
	return names, translate("list subscriptions", err)
}

// Subscribe adds name to the subscriptions or takes it out.
func (a *Account) Subscribe(ctx context.Context, name string, on bool) error {
	return translate("subscribe", a.store.SetSubscribed(ctx, a.id, syncer.FoldName(name), on))
}

// Status returns a mailbox's numbers from the replica. For a mailbox that was
// never listed it waits for that listing.
func (a *Account) Status(ctx context.Context, name string) (Status, error) {
	row, err := a.filled(ctx, name)
	if err != nil {
		return Status{}, translate("get mailbox status", err)
	}
	return Status{
		Messages: row.Messages, Unseen: row.Unseen, Deleted: row.DeletedCount,
		// Exact but for messages that were removed before anybody was told of them.
		Recent:  min(int(row.UIDNext-min(row.FirstRecent, row.UIDNext)), row.Messages),
		UIDNext: row.UIDNext, UIDValidity: row.UIDValidity, Size: row.SizeSum, HighestModSeq: row.HighestModSeq,
		ID: objectID("F", string(row.GraphID)),
	}, nil
}

// Create makes a mailbox, and the missing ones above it. A role can only be asked for by the name the mailbox
// with that role has anyway: Exchange assigns roles itself.
func (a *Account) Create(ctx context.Context, name string, role imap.MailboxAttr) error {
	if err := a.syncer.EnsureTree(ctx); err != nil {
		return translate("create mailbox", err)
	}
	if role != "" {
		return &Error{Kind: Refused, Op: "create mailbox", Text: "Exchange decides itself which mailbox has a special use"}
	}
	return translate("create mailbox", a.syncer.Create(interactive(ctx), name))
}

// Delete removes a mailbox; Graph keeps its content in Deleted Items.
func (a *Account) Delete(ctx context.Context, name string) error {
	if err := a.syncer.EnsureTree(ctx); err != nil {
		return translate("delete mailbox", err)
	}
	return translate("delete mailbox", a.syncer.Delete(interactive(ctx), name))
}

// Rename renames or moves a mailbox with everything below it.
func (a *Account) Rename(ctx context.Context, oldName, newName string) error {
	if err := a.syncer.EnsureTree(ctx); err != nil {
		return translate("rename mailbox", err)
	}
	return translate("rename mailbox", a.syncer.Rename(interactive(ctx), oldName, newName))
}

// Poke asks for a delta round of the folder with a role soon; "" means INBOX. It does not wait.
func (a *Account) Poke(role imap.MailboxAttr) {
	name := "inbox"
	switch role {
	case imap.MailboxAttrSent:
		name = "sentitems"
	case imap.MailboxAttrDrafts:
		name = "drafts"
	case imap.MailboxAttrTrash:
		name = "deleteditems"
	case imap.MailboxAttrJunk:
		name = "junkemail"
	case imap.MailboxAttrArchive:
		name = "archive"
	}
	if id, ok := a.syncer.Role(name); ok {
		a.syncer.Poke(id)
	}
}

// interactive puts Graph calls that a client waits for before all others.
func interactive(ctx context.Context) context.Context {
	return graph.WithLane(ctx, graph.Interactive)
}

// maySendOnly reports whether the app's token names the right to send and none to read.
func (a *Account) maySendOnly() bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second) // it is at hand, since Graph has judged it
	defer cancel()
	tok, err := a.tokens.Token(ctx)
	if err != nil {
		return false
	}
	c, _ := token.ReadClaims(tok.AccessToken)
	have := c.Permissions()
	return slices.Contains(have, "Mail.Send") && !slices.ContainsFunc(have, func(p string) bool { return strings.HasPrefix(p, "Mail.Read") })
}

// AccountState says how an account is doing, for status pages.
type AccountState struct {
	Address   string
	Ready     bool      // the folder tree has been read at least once
	LastSync  time.Time // last successful exchange with Graph; zero if none yet
	LastError string    // of the last failed one, if none has succeeded since
	Kind      Kind      // of LastError
	Advice    string    // what an administrator can do about it; may be empty
	Since     time.Time // when LastError first occurred
	Usage     graph.Usage
	Filling   *Filling // nil when no folder that is wanted is still to be listed
	SendOnly  bool     // it cannot be read, and need not: the app may only send, and no login reads it
}

// State returns the account's state.
func (a *Account) State() AccountState {
	st := a.syncer.Status()
	out := AccountState{Address: a.address, Ready: st.Ready, LastSync: st.LastSync, Usage: a.budget.Usage(), Filling: a.filling()}
	if st.Err != nil {
		out.Kind, _ = explain(st.Err)
		out.LastError, out.Advice, out.Since = st.Op+": "+st.Err.Error(), advice(st.Err), st.Since
		out.SendOnly = out.Kind == Denied && !a.backend.logins.read(a) && a.maySendOnly()
	}
	return out
}
