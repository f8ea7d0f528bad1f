package backend

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"postern/backend/store"
)

// Quota says how much of a mailbox's room is taken.
type Quota struct {
	Limit int64 // bytes; 0: not known
	Used  int64 // bytes, in all folders, hidden ones too; not told without a limit
}

// How long a mailbox's usage is believed: reading it costs a Graph call for each folder, so with many folders longer.
const (
	usageAge       = 5 * time.Minute
	usageChanged   = 10 * time.Second // once messages have come or gone
	usagePerFolder = time.Second
	usageWait      = 5 * time.Second // a client waits so long for Graph
)

// usage is what is known of a mailbox's usage.
type usage struct {
	changed atomic.Bool // messages have come or gone since it was read

	mu    sync.Mutex // held while it is read
	at    time.Time  // zero: never read
	every time.Duration
	bytes int64
}

// Quota returns the mailbox's limit, which is configured since Graph does not tell it, and what Graph says is used of it.
// Where Graph does not say so for a folder, the sizes of the messages count as the replica has them.
func (a *Account) Quota(ctx context.Context) (Quota, error) {
	limit := a.quota.Load()
	if limit <= 0 {
		return Quota{}, nil
	}
	const op = "read mailbox usage"
	if err := a.syncer.EnsureTree(ctx); err != nil {
		return Quota{}, translate(op, err)
	}
	u := &a.usage
	u.mu.Lock()
	defer u.mu.Unlock()
	age := usageAge
	if u.changed.Load() {
		age = usageChanged
	}
	if u.at.IsZero() || time.Since(u.at) >= max(age, u.every) {
		if err := a.readUsageLocked(ctx); err != nil {
			return Quota{}, translate(op, err)
		}
	}
	return Quota{Limit: limit, Used: u.bytes}, nil
}

func (a *Account) readUsageLocked(ctx context.Context) error {
	u := &a.usage
	folders, err := a.store.Folders(ctx, a.id)
	if err != nil {
		return err
	}
	u.changed.Store(false)
	ids := make([]string, len(folders))
	for i := range folders {
		ids[i] = string(folders[i].GraphID)
	}
	gctx, cancel := context.WithTimeout(interactive(ctx), usageWait)
	defer cancel()
	sizes, err := a.graph.FolderSizes(gctx, ids)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		a.log.Debug("usage is put together from what is known", "err", err)
	}
	if err != nil && !u.at.IsZero() {
		return nil // what Graph said before is nearer
	}
	u.bytes = 0
	for i := range folders {
		if n, ok := sizes[ids[i]]; ok {
			u.bytes += n
		} else {
			u.bytes += folders[i].SizeSum
		}
	}
	u.at, u.every = time.Now(), time.Duration(len(folders))*usagePerFolder
	return nil
}

// DeletedSize returns the bytes of the messages in a mailbox that have \Deleted.
func (a *Account) DeletedSize(ctx context.Context, name string) (int64, error) {
	const op = "get mailbox status"
	row, err := a.filled(ctx, name)
	if err != nil {
		return 0, translate(op, err)
	}
	if row.DeletedCount == 0 {
		return 0, nil
	}
	msgs, err := a.store.Messages(ctx, row.ID)
	if err != nil {
		return 0, translate(op, err)
	}
	var sum int64
	for i := range msgs {
		if msgs[i].Flags&store.FlagDeleted != 0 {
			sum += msgs[i].Size
		}
	}
	return sum, nil
}
