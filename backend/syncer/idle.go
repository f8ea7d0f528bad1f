package syncer

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend/store"
)

// errEnough ends a walk through pages early.
var errEnough = errors.New("enough")

func isEnough(err error) bool { return errors.Is(err, errEnough) }

const (
	idleBodies  = 200     // newest messages of an open folder whose text is read ahead
	idleMaxSize = 1 << 20 // bytes of a message that is read ahead
	idlePace    = 500 * time.Millisecond
	idleRest    = time.Minute
)

// idleLoop reads what nobody waits for: headers, newest first, then the newest messages of open folders, which makes
// their sizes exact. All of it is in the lowest lane of the budget.
func (s *Syncer) idleLoop(ctx context.Context) {
	timer := time.NewTimer(idlePace)
	defer timer.Stop()
	fails := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.idle:
			if fails == 0 {
				timer.Reset(idlePace)
			}
			continue
		case <-timer.C:
		}
		more, err := s.idleStep(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			fails++
			s.log.Debug("background reading failed", "err", err)
			timer.Reset(backoff(fails, err))
		case more:
			fails = 0
			timer.Reset(idlePace / 10)
		default:
			fails = 0
			timer.Reset(idleRest)
		}
	}
}

// idleStep does one piece of background work. more reports that there may be another.
func (s *Syncer) idleStep(ctx context.Context) (more bool, err error) {
	s.mu.Lock()
	var candidates []*folder
	open := make(map[store.FolderID]bool)
	for _, f := range s.folders {
		if f.filled && f.active && f.fails == 0 {
			candidates = append(candidates, f)
			open[f.id] = f.opens > 0
		}
	}
	s.mu.Unlock()
	slices.SortFunc(candidates, func(a, b *folder) int {
		if open[a.id] != open[b.id] {
			if open[a.id] {
				return -1
			}
			return 1
		}
		return int(a.id - b.id)
	})
	for _, f := range candidates {
		row, err := s.o.Store.Folder(ctx, f.id)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return false, err
		}
		if !row.HeadersDone {
			_, err := s.headerPageBackground(ctx, row)
			return true, err
		}
		missing, err := s.o.Store.MissingHeaders(ctx, f.id, 100)
		if err != nil {
			return false, err
		}
		if len(missing) > 0 {
			if _, err := s.headersOf(ctx, missing, false); err != nil {
				return false, err
			}
			return len(missing) == 100, nil
		}
	}
	for _, f := range candidates {
		if !open[f.id] {
			continue
		}
		m, err := s.unread(ctx, f.id)
		if err != nil {
			return false, err
		}
		if m != nil {
			if err := s.FetchBody(ctx, *m); err != nil && temporary(err) {
				return false, err
			}
			return true, nil
		}
	}
	return false, nil
}

// unread returns the newest message of a folder whose text is worth reading ahead, nil if there is none.
func (s *Syncer) unread(ctx context.Context, id store.FolderID) (*store.Message, error) {
	row, err := s.o.Store.Folder(ctx, id)
	if err != nil {
		return nil, err
	}
	if row.Messages == 0 {
		return nil, nil
	}
	var uids []imap.UID
	for uid := row.UIDNext - 1; uid > 0 && len(uids) < idleBodies; uid-- {
		uids = append(uids, uid)
	}
	msgs, err := s.o.Store.MessagesByUID(ctx, id, uids)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(msgs) - 1; i >= 0; i-- {
		m := &msgs[i]
		if m.SizeExact || m.HasBody || m.Size > idleMaxSize || s.tried[m.ID] {
			continue
		}
		// A message that cannot be read is not tried again in this life.
		if s.tried == nil || len(s.tried) > 10000 {
			s.tried = make(map[store.MessageID]bool)
		}
		s.tried[m.ID] = true
		return m, nil
	}
	return nil, nil
}
