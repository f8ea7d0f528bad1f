package syncer

import (
	"context"
	"fmt"
	"slices"
	"time"

	"postern/backend/graph"
	"postern/backend/store"
)

// ownWrite remembers a change that Postern itself made in Graph, so that the delta row which reports it does not make
// the message be read again.
type ownWrite struct {
	at time.Time
}

// ownWriteLife bounds how long such a row is waited for. Graph shows changes late, but rarely by more.
const ownWriteLife = 2 * time.Minute

// deltaRows translates a page and separates the removed ids. Where an id has several rows, later ones count.
func deltaRows(page []graph.Message) (rows []store.Remote, gone []store.GraphID) {
	merged := make(map[string]*graph.Message, len(page))
	order := make([]string, 0, len(page))
	for i := range page {
		m := &page[i]
		if have := merged[m.ID]; have != nil {
			have.Merge(*m)
			continue
		}
		merged[m.ID] = m
		order = append(order, m.ID)
	}
	for _, id := range order {
		if m := merged[id]; m.Removed != "" {
			gone = append(gone, store.GraphID(id))
		} else {
			rows = append(rows, remoteOf(m, false))
		}
	}
	return rows, gone
}

// delta runs one delta round from the folder's link.
func (s *Syncer) delta(ctx context.Context, f *folder, row *store.Folder) (changed bool, err error) {
	postponed := false
	link, err := s.o.Graph.MessageDelta(ctx, string(row.GraphID), deltaOptions, row.DeltaLink, func(page []graph.Message, next string) error {
		pageChanged, late, err := s.deltaPage(ctx, f, row, page)
		changed = changed || pageChanged
		if err != nil {
			return err
		}
		postponed = postponed || late
		if next != "" && !postponed {
			// A round may be long. It goes on from here if it is interrupted.
			return s.o.Store.SetSync(ctx, f.id, store.SyncUpdate{DeltaLink: &next})
		}
		return nil
	})
	if err != nil {
		return changed, fmt.Errorf("read folder's changes: %w", err)
	}
	now := time.Now()
	u := store.SyncUpdate{DeltaLink: &link, SyncedAt: &now}
	if postponed {
		// Messages were left out that may be half made. The same round is asked for again.
		s.mu.Lock()
		f.late = true
		s.mu.Unlock()
		return changed, nil
	}
	if link == row.DeltaLink && !changed && now.Sub(row.SyncedAt) < time.Minute {
		return false, nil
	}
	if !changed && now.Sub(row.SyncedAt) < time.Minute && link != "" {
		// An older link only repeats an empty round: spare the disk.
		return false, nil
	}
	return changed, s.o.Store.SetSync(ctx, f.id, u)
}

// deltaPage applies one page. late reports that new messages were left out because one is being made in the folder.
func (s *Syncer) deltaPage(ctx context.Context, f *folder, row *store.Folder, page []graph.Message) (changed, late bool, err error) {
	if len(page) == 0 {
		return false, false, nil
	}
	rows, gone := deltaRows(page)
	ch, err := s.apply(ctx, f.id, rows, gone, nil)
	if err != nil {
		return false, false, err
	}
	changed = !ch.Empty() || len(ch.Unknown) > 0
	s.mu.Lock()
	late = f.creating > 0 && len(ch.Unknown) > 0
	s.mu.Unlock()
	known := s.foreign(rows, ch.Unknown)
	read := known
	if !late {
		read = append(slices.Clip(known), ch.Unknown...)
	}
	full, missing, err := s.reread(ctx, row, read)
	if err != nil {
		return changed, late, err
	}
	keepDates(full, known)
	if len(full) == 0 && len(missing) == 0 {
		return changed, late, nil
	}
	ch, err = s.apply(ctx, f.id, full, missing, nil)
	return changed || !ch.Empty(), late, err
}

// keepDates takes the date of arrival out of rows about messages the replica has: INTERNALDATE never changes, and an
// appended draft has one that Graph does not know.
func keepDates(rows []store.Remote, known []store.GraphID) {
	have := make(map[store.GraphID]bool, len(known))
	for _, id := range known {
		have[id] = true
	}
	for i := range rows {
		if have[rows[i].GraphID] {
			rows[i].Received = nil
		}
	}
}

// foreign returns the ids of those known rows that somebody else has changed.
func (s *Syncer) foreign(rows []store.Remote, unknown []store.GraphID) []store.GraphID {
	skip := make(map[store.GraphID]bool, len(unknown))
	for _, id := range unknown {
		skip[id] = true
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []store.GraphID
	for _, r := range rows {
		if skip[r.GraphID] {
			continue
		}
		if w, ok := s.own[r.GraphID]; ok {
			delete(s.own, r.GraphID)
			if now.Sub(w.at) < ownWriteLife {
				continue
			}
		}
		ids = append(ids, r.GraphID)
	}
	return ids
}

// wrote remembers that Postern has just changed these messages in Graph.
func (s *Syncer) wrote(ids ...string) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.own) > 20000 {
		for id, w := range s.own {
			if now.Sub(w.at) > ownWriteLife {
				delete(s.own, id)
			}
		}
	}
	for _, id := range ids {
		s.own[store.GraphID(id)] = ownWrite{now}
	}
}

// reread reads messages whole. missing are those that are not in the folder any more.
func (s *Syncer) reread(ctx context.Context, row *store.Folder, ids []store.GraphID) (full []store.Remote, missing []store.GraphID, err error) {
	if len(ids) == 0 {
		return nil, nil, nil
	}
	plain := make([]string, len(ids))
	for i, id := range ids {
		plain[i] = string(id)
	}
	for i, res := range s.o.Graph.GetMany(ctx, plain, fullOptions) {
		switch {
		case res.Err == nil && res.Message != nil:
			if p := res.Message.ParentFolderID; p != nil && *p != string(row.GraphID) {
				missing = append(missing, ids[i]) // moved on since; its removal here comes or came by itself
				continue
			}
			full = append(full, remoteOf(res.Message, true))
		case res.Err == nil || graph.IsNotFound(res.Err):
			missing = append(missing, ids[i])
		case ctx.Err() != nil:
			return nil, nil, ctx.Err()
		case graph.IsTemporary(res.Err) || graph.IsDenied(res.Err):
			return nil, nil, fmt.Errorf("read changed messages: %w", res.Err)
		default:
			// Some messages fail for ever (observed: ErrorCorruptData). They must not stop the others.
			s.log.Warn("message cannot be read and stays as it was", "mailbox", row.Name, "err", res.Err)
		}
	}
	byReceived(full)
	return full, missing, nil
}
