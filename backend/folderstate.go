package backend

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend/syncer"
)

// FolderPhase says how far a folder's copy is.
type FolderPhase string

// The phases.
const (
	FolderUnread  FolderPhase = "not read"  // nobody has asked for it yet; it is listed when somebody does
	FolderWaiting FolderPhase = "waiting"   // it will be listed when others are done
	FolderListing FolderPhase = "listing"   // for the first time: clients wait for it
	FolderCompare FolderPhase = "comparing" // it is read anew, and can be used meanwhile
	FolderInStep  FolderPhase = "in step"
	FolderFailing FolderPhase = "failing" // the last attempt failed; another one follows
)

// FolderState is how the copy of one folder is doing.
type FolderState struct {
	Name             string
	Role             imap.MailboxAttr
	Messages, Unseen int   // in the copy
	Size             int64 // bytes of them, some estimated
	Phase            FolderPhase
	Done, Total      int           // while listing or comparing: messages; Total is 0 when Graph has not told it
	Remaining        time.Duration // 0: not known
	HeadersDone      bool          // all headers have been read ahead
	Open             int           // clients that have it open
	LastSync         time.Time
	Problem, Advice  string // why it is failing
}

// Folders returns the state of each folder, in the order of Mailboxes. It asks nothing of Graph.
func (a *Account) Folders(ctx context.Context) ([]FolderState, error) {
	rows, err := a.store.Folders(ctx, a.id)
	if err != nil {
		return nil, translate("list folders", err)
	}
	states := a.syncer.FolderStates()
	var out []FolderState
	for _, r := range rows {
		if r.Hidden {
			continue
		}
		st := states[r.ID]
		f := FolderState{Name: r.Name, Role: r.Role, Messages: r.Messages, Unseen: r.Unseen, Size: r.SizeSum, Phase: phaseOf(st),
			Done: st.Done, Total: st.Total, Remaining: st.Remaining, HeadersDone: r.HeadersDone, Open: st.Open, LastSync: st.LastSync}
		if r.SyncedAt.After(f.LastSync) {
			f.LastSync = r.SyncedAt // before the last start
		}
		if st.Err != nil && f.Phase == FolderFailing {
			f.Problem, f.Advice = st.Err.Error(), advice(st.Err)
		}
		out = append(out, f)
	}
	slices.SortStableFunc(out, func(x, y FolderState) int {
		if o := boolOrder(x.Name == "INBOX", y.Name == "INBOX"); o != 0 {
			return o
		}
		return strings.Compare(strings.ReplaceAll(x.Name, "/", "\x00"), strings.ReplaceAll(y.Name, "/", "\x00"))
	})
	return out, nil
}

func phaseOf(st syncer.FolderState) FolderPhase {
	switch {
	case st.Listing && !st.Filled:
		return FolderListing
	case st.Err != nil:
		return FolderFailing
	case st.Listing:
		return FolderCompare
	case st.Filled:
		return FolderInStep
	case st.Asked || st.Busy:
		return FolderWaiting
	}
	return FolderUnread
}

// Filling is how far the first listing of those folders has come that somebody wants and that are not complete.
type Filling struct {
	Folders     int
	Done, Total int           // messages; Total counts what Graph has told
	Remaining   time.Duration // 0: not known
}

func (a *Account) filling() *Filling {
	var f Filling
	pace := 0.0 // messages a second
	for _, st := range a.syncer.FolderStates() {
		if st.Filled || !st.Asked && !st.Busy {
			continue
		}
		f.Folders++
		f.Done += st.Done
		f.Total += st.Total
		if st.Remaining > 0 {
			pace += float64(st.Total-st.Done) / st.Remaining.Seconds()
		}
	}
	if f.Folders == 0 {
		return nil
	}
	if pace > 0 {
		f.Remaining = time.Duration(float64(f.Total-f.Done) / pace * float64(time.Second))
	}
	return &f
}
