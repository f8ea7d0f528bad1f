package syncer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"postern/backend/graph"
	"postern/backend/store"
)

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

// rowVersions returns the versions that the rows of a page name, of several for one message the last.
func rowVersions(page []graph.Message) map[store.GraphID]string {
	versions := make(map[store.GraphID]string, len(page))
	for i := range page {
		if v, exact := version(&page[i]); exact {
			versions[store.GraphID(page[i].ID)] = v
		}
	}
	return versions
}

// delta runs one delta round from the folder's link.
func (s *Syncer) delta(ctx context.Context, f *folder, row *store.Folder) (changed bool, err error) {
	postponed, kept := false, row.DeltaLink
	read := reading{since: s.mark()}
	link, err := s.o.Graph.MessageDelta(ctx, string(row.GraphID), deltaOptions, row.DeltaLink, func(page []graph.Message, next string) error {
		pageChanged, late, err := s.deltaPage(ctx, f, row, page, read)
		read.since = s.mark() // the next page has not been asked for
		changed = changed || pageChanged
		if err != nil {
			return err
		}
		postponed = postponed || late
		if next != "" && !postponed {
			// A round may be long. It goes on from here if it is interrupted.
			kept = next
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
		// The same round is asked for again, soon.
		s.mu.Lock()
		f.late = true
		s.mu.Unlock()
		return changed, nil
	}
	if !changed && now.Sub(row.SyncedAt) < time.Minute && link != "" && kept == row.DeltaLink {
		// The link of before only repeats an empty round: spare the disk. One from the midst of a round would never tell
		// of anything new.
		return false, nil
	}
	return changed, s.o.Store.SetSync(ctx, f.id, u)
}

// deltaPage applies one page. late reports that something was left out because a client is at work on it: the page must
// be asked for again.
func (s *Syncer) deltaPage(ctx context.Context, f *folder, row *store.Folder, page []graph.Message, read reading) (changed, late bool, err error) {
	if len(page) == 0 {
		return false, false, nil
	}
	rows, gone := deltaRows(page)
	// What is being moved out by a client goes with flags, header and text when the move is recorded. Taking it away
	// before would lose those. A row of one that is there may mean that it has come back already: the move, when it is
	// recorded, takes it away all the same, and the row must come again after that.
	s.mu.Lock()
	gone = slices.DeleteFunc(gone, func(id store.GraphID) bool { return s.moving[id] > 0 })
	leaving := slices.ContainsFunc(page, func(m graph.Message) bool { return s.moving[store.GraphID(m.ID)] > 0 })
	// Looked at before the rows are applied: whoever has made a message that they tell of is at work now, and may record
	// it at any time.
	writers := f.creating > 0
	s.mu.Unlock()
	read.versions = rowVersions(page)
	ch, err := s.applyRead(ctx, f.id, read, rows, gone, nil)
	if err != nil {
		return false, false, err
	}
	changed = !ch.Empty() || len(ch.Unknown) > 0
	creating := writers && len(ch.Unknown) > 0
	// A removal of a message that is not known may be that of one just being made here, which is recorded afterwards.
	late = leaving || creating || writers && len(gone) > len(ch.Removed)
	known := s.foreign(f.id, page, ch.Unknown)
	for _, id := range ch.Doubted {
		if !slices.Contains(known, id) {
			known = append(known, id)
		}
	}
	unknown := ch.Unknown
	if creating {
		unknown = nil
	}
	if len(known)+len(unknown) > 0 {
		flagged := make(map[store.GraphID]bool, len(ch.Updated))
		for i := range ch.Updated {
			flagged[ch.Updated[i].GraphID] = true
		}
		more, doubt, err := s.readChanged(ctx, f, row, known, unknown, flagged)
		changed, late = changed || more, late || doubt
		if err != nil {
			return changed, late, err
		}
	}
	// Before the place in the round is noted: what is left out here is not told again.
	more, err := s.recheck(ctx, f, row)
	return changed || more, late, err
}

// readChanged reads messages whole and applies them: known ones that somebody else has changed, and those that are not in
// the replica yet. flagged are those of the known ones whose flags have turned out to be what was changed. late reports
// that Graph did not find some of them, which need not last.
func (s *Syncer) readChanged(ctx context.Context, f *folder, row *store.Folder, known, unknown []store.GraphID, flagged map[store.GraphID]bool) (changed, late bool, err error) {
	read := reading{since: s.mark()}
	msgs, missing, late, err := s.reread(ctx, row, append(slices.Clip(known), unknown...))
	if err != nil {
		return false, late, err
	}
	if err := s.uniteArriving(ctx, row, msgs); err != nil {
		return false, late, err
	}
	edited, err := s.editedDrafts(ctx, row, msgs, known, flagged)
	if err != nil {
		return false, late, err
	}
	s.mu.Lock()
	missing = slices.DeleteFunc(missing, func(id store.GraphID) bool { return s.moving[id] > 0 }) // the move takes it away
	s.mu.Unlock()
	for id := range edited {
		// Taken out and put in again by one transaction: it comes back under a new UID.
		missing = append(missing, id)
	}
	full := remotes(msgs)
	if len(full) == 0 && len(missing) == 0 {
		return false, late, nil
	}
	ch, err := s.applyRead(ctx, f.id, read, full, missing, nil)
	s.suspect(f.id, ch.Doubted)
	return !ch.Empty(), late, err
}

// recheckTries is how often one run reads messages again that clients keep changing meanwhile.
const recheckTries = 3

// recheck reads the folder's suspects, and those that come of that.
func (s *Syncer) recheck(ctx context.Context, f *folder, row *store.Folder) (changed bool, err error) {
	for range recheckTries {
		ids := s.takeSuspects(f)
		if len(ids) == 0 {
			break
		}
		// Should Graph not find one, the row that tells of its removal is still to come.
		ch, _, err := s.readChanged(ctx, f, row, ids, nil, nil)
		changed = changed || ch
		if err != nil {
			s.suspect(f.id, ids)
			return changed, err
		}
	}
	return changed, nil
}

// editedDrafts returns those of the changed messages whose text somebody has changed: drafts whose flags are what they
// were. To IMAP a message never changes (RFC 9051 section 2.3.1.1), so such a draft becomes another message.
func (s *Syncer) editedDrafts(ctx context.Context, row *store.Folder, msgs []*graph.Message, known []store.GraphID, flagged map[store.GraphID]bool) (map[store.GraphID]bool, error) {
	candidate := make(map[store.GraphID]bool, len(known))
	for _, id := range known {
		candidate[id] = !flagged[id]
	}
	var edited map[store.GraphID]bool
	for _, m := range msgs {
		id := store.GraphID(m.ID)
		if m.IsDraft == nil || !*m.IsDraft || !s.newDraftVersion(row, m) || !candidate[id] {
			continue
		}
		have, err := s.inFolder(ctx, row.ID, id)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return nil, err
		}
		if err != nil || flagsDiffer(have, m) {
			continue
		}
		if edited == nil {
			edited = make(map[store.GraphID]bool)
		}
		edited[id] = true
	}
	return edited, nil
}

// newDraftVersion notes the version of a draft, and reports whether it is one that was not there before and that no change
// of ours has made.
func (s *Syncer) newDraftVersion(row *store.Folder, m *graph.Message) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := store.GraphID(m.ID)
	v, _ := version(m)
	before, seen := s.drafts[id]
	s.noteDraftLocked(id, v)
	if s.edited[id] {
		delete(s.edited, id)
		return true
	}
	if w := s.own[id]; w != nil && time.Since(w.at) <= ownWriteLife && w.explains(m) {
		return false
	}
	// Rows repeat, and in an earlier life this one may have been seen.
	old := m.Modified != nil && m.Modified.Before(row.SyncedAt.Add(-time.Minute))
	return seen && before != v || !seen && !old
}

// noteDraft notes the version of a draft that is in the replica as it is in Graph.
func (s *Syncer) noteDraft(id store.GraphID, m *graph.Message) {
	v, exact := version(m)
	s.mu.Lock()
	defer s.mu.Unlock()
	if exact {
		s.noteDraftLocked(id, v)
	}
}

func (s *Syncer) noteDraftLocked(id store.GraphID, version string) {
	if len(s.drafts) > 5000 {
		clear(s.drafts)
	}
	s.drafts[id] = version
}

// flagsDiffer reports whether a message that was read whole has other flags or keywords than the replica, apart from those
// that are still to be pushed.
func flagsDiffer(have *store.Message, m *graph.Message) bool {
	r := remoteOf(m, true)
	if (have.Flags^r.Flags)&r.FlagsMask&^have.Pending != 0 {
		return true
	}
	return r.Keywords != nil && !have.PendingKeywords && !slices.Equal(*r.Keywords, have.Keywords)
}

// remotes translates messages that were read whole, in the order in which they should get their UIDs.
func remotes(msgs []*graph.Message) []store.Remote {
	rows := make([]store.Remote, len(msgs))
	for i, m := range msgs {
		rows[i] = remoteOf(m, true)
	}
	byReceived(rows)
	return rows
}

// manyChanged is the number of messages from which pages are cheaper than single reads: in a batch too, each counts as a
// request. Programs that mark a whole folder as read change thousands at once.
const manyChanged = 100

// doubtLife is how long Graph may say that it does not find a message which it lists, before that is believed.
const doubtLife = 30 * time.Second

// doubtful reports whether it is not certain yet that a message which Graph has listed, and does not find, is gone.
func (s *Syncer) doubtful(id store.GraphID) bool {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	since, ok := s.doubts[id]
	if !ok {
		if len(s.doubts) > 5000 {
			clear(s.doubts)
		}
		s.doubts[id] = now
		return true
	}
	return now.Sub(since) < doubtLife
}

// reread reads messages whole. missing are those that are not in the folder any more; doubt says that there are some of
// which that is not certain.
func (s *Syncer) reread(ctx context.Context, row *store.Folder, ids []store.GraphID) (full []*graph.Message, missing []store.GraphID, doubt bool, err error) {
	if len(ids) == 0 {
		return nil, nil, false, nil
	}
	if len(ids) >= manyChanged && !row.SyncedAt.IsZero() {
		// What changed did so since the last round. The clocks need not agree.
		if full, ids, err = s.rereadPages(ctx, row, ids, row.SyncedAt.Add(-10*time.Minute)); err != nil {
			return nil, nil, false, err
		}
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
			full = append(full, res.Message)
		case graph.IsNotFound(res.Err) && s.doubtful(ids[i]):
			doubt = true
		case res.Err == nil || graph.IsNotFound(res.Err):
			missing = append(missing, ids[i])
		case ctx.Err() != nil:
			return nil, nil, false, ctx.Err()
		case graph.IsTemporary(res.Err) || graph.IsDenied(res.Err):
			return nil, nil, false, fmt.Errorf("read changed messages: %w", res.Err)
		default:
			// Some messages fail for ever (observed: ErrorCorruptData). They must not stop the others.
			s.log.Warn("message cannot be read and stays as it was", "mailbox", row.Name, "err", res.Err)
		}
	}
	return full, missing, doubt, nil
}

// rereadPages finds messages among those modified since a time, and returns the ids it did not meet.
func (s *Syncer) rereadPages(ctx context.Context, row *store.Folder, ids []store.GraphID, since time.Time) (full []*graph.Message, rest []store.GraphID, err error) {
	want := make(map[store.GraphID]bool, len(ids))
	for _, id := range ids {
		want[id] = true
	}
	o := fullOptions
	o.Filter = "lastModifiedDateTime ge " + since.UTC().Format(time.RFC3339)
	o.OrderBy = "lastModifiedDateTime asc"
	o.PageSize = pageSize
	pages := 0
	err = s.o.Graph.ListMessages(ctx, string(row.GraphID), o, "", func(page []graph.Message, _ string) error {
		found := 0
		for i := range page {
			if id := store.GraphID(page[i].ID); want[id] {
				delete(want, id)
				full = append(full, &page[i])
				found++
			}
		}
		if pages++; len(want) == 0 || pages > 1 && found < manyChanged/2 {
			return errEnough
		}
		return nil
	})
	if err != nil && !isEnough(err) {
		if temporary(err) {
			return nil, nil, fmt.Errorf("read changed messages: %w", err)
		}
		// The mailbox is too large for this question (ErrorRestrictionTooComplex): one by one, then.
		s.log.Debug("changed messages are read one by one", "mailbox", row.Name, "err", err)
	}
	for _, id := range ids {
		if want[id] {
			rest = append(rest, id)
		}
	}
	return full, rest, nil
}
