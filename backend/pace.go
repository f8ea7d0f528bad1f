package backend

import (
	"context"
	"time"
)

// shortPause is the wait from which one that Graph asks for is written down: shorter ones end before a new process
// has read its configuration.
const shortPause = 2 * time.Second

// restorePace gives a new account's budget what an earlier process left: what it sent in the last minutes, and until when
// Graph wanted to be left alone. A server that is started again must not send thirty more messages in the same minute.
func (b *Backend) restorePace(a *Account) {
	ctx, box, address := context.Background(), b.store.Outbox(), a.Address()
	sends, err := box.RecentSends(ctx, address, time.Now().Add(-5*time.Minute))
	if err != nil {
		a.log.Warn("pace of sending not read, it begins anew", "op", "restore pace", "err", err)
	}
	paused, err := box.Paused(ctx, address)
	if err != nil {
		a.log.Warn("wait not read, Microsoft 365 will tell it again", "op", "restore pace", "err", err)
	}
	a.budget.Restore(sends, paused)
	a.budget.OnPause(func(until time.Time) {
		if time.Until(until) < shortPause {
			return
		}
		if err := box.SetPause(ctx, address, until); err != nil {
			a.log.Warn("wait not written down", "op", "remember pause", "err", err)
		}
	})
}
