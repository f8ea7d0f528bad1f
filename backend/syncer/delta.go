package syncer

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"postern/backend/graph"
	"postern/backend/store"
)

// ownWrite remembers changes that Postern itself made to a message in Graph, so that the delta rows which report them
// do not make the message be read again, nor be taken for the work of somebody else. Rows repeat, and one may be read
// from Graph before a change and arrive here after it.
type ownWrite struct {
	at       time.Time
	running  int      // changes that are under way
	versions []string // after our changes, as far as they are known; the last few
	strange  int      // changes whose version is not known: so many strange rows are taken for their reports
	inexact  string   // what rows that do not name a version say since the last change
}

// reports says whether a row with the version tells of a change of ours, and takes note of it.
func (w *ownWrite) reports(m *graph.Message) bool {
	v, exact := version(m)
	switch {
	case !exact && w.inexact == "":
		w.inexact = v
		return true
	case !exact:
		return w.inexact == v
	case slices.Contains(w.versions, v):
		return true
	case w.running > 0 || w.strange > 0:
		w.strange = max(0, w.strange-1)
		w.add(v)
		return true
	}
	return false
}

// explains says whether the message may be as it is by changes of ours.
func (w *ownWrite) explains(m *graph.Message) bool {
	v, exact := version(m)
	return w.running > 0 || w.strange > 0 || exact && slices.Contains(w.versions, v) || !exact && (w.inexact == "" || w.inexact == v)
}

// ownVersions bounds how many versions of a message are remembered.
const ownVersions = 8

func (w *ownWrite) add(version string) {
	if slices.Contains(w.versions, version) {
		return
	}
	if len(w.versions) >= ownVersions {
		w.versions = slices.Delete(w.versions, 0, 1)
	}
	w.versions = append(w.versions, version)
}

// ownWriteLife bounds how long such a row is waited for. Graph shows changes late, but rarely by more.
const ownWriteLife = 2 * time.Minute

// version identifies a state of a message. Exact is false where Graph does not name it: modification times have whole
// seconds only.
func version(m *graph.Message) (v string, exact bool) {
	switch {
	case m == nil:
	case m.ETag != "":
		return strings.Trim(strings.TrimPrefix(m.ETag, "W/"), `"`), true // the change key
	case m.ChangeKey != "":
		return m.ChangeKey, true
	case m.Modified != nil:
		return m.Modified.Format(time.RFC3339Nano), false
	}
	return "?", false
}

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
		// The same round is asked for again, soon.
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

// deltaPage applies one page. late reports that something was left out because a client is at work on it: the page must
// be asked for again.
func (s *Syncer) deltaPage(ctx context.Context, f *folder, row *store.Folder, page []graph.Message) (changed, late bool, err error) {
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
	ch, err := s.apply(ctx, f.id, rows, gone, nil)
	if err != nil {
		return false, false, err
	}
	changed = !ch.Empty() || len(ch.Unknown) > 0
	creating := writers && len(ch.Unknown) > 0
	// A removal of a message that is not known may be that of one just being made here, which is recorded afterwards.
	late = leaving || creating || writers && len(gone) > len(ch.Removed)
	known := s.foreign(page, ch.Unknown)
	read := known
	if !creating {
		read = append(slices.Clip(known), ch.Unknown...)
	}
	msgs, missing, doubt, err := s.reread(ctx, row, read)
	late = late || doubt
	if err != nil {
		return changed, late, err
	}
	edited := s.editedDrafts(row, msgs, known, &ch)
	full := remotes(msgs)
	for id := range edited {
		// Taken out and put in again by one transaction: it comes back under a new UID.
		missing = append(missing, id)
	}
	if len(full) == 0 && len(missing) == 0 {
		return changed, late, nil
	}
	ch, err = s.apply(ctx, f.id, full, missing, nil)
	return changed || !ch.Empty(), late, err
}

// editedDrafts returns those of the changed messages whose text somebody has changed: drafts whose flags are what they
// were. To IMAP a message never changes (RFC 9051 section 2.3.1.1), so such a draft becomes another message.
func (s *Syncer) editedDrafts(row *store.Folder, msgs []*graph.Message, known []store.GraphID, ch *store.Changes) map[store.GraphID]bool {
	candidate := make(map[store.GraphID]bool, len(known))
	for _, id := range known {
		candidate[id] = true
	}
	for i := range ch.Updated {
		delete(candidate, ch.Updated[i].GraphID)
	}
	var edited map[store.GraphID]bool
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range msgs {
		id := store.GraphID(m.ID)
		if m.IsDraft == nil || !*m.IsDraft {
			continue
		}
		if len(s.drafts) > 5000 {
			clear(s.drafts)
		}
		v, _ := version(m)
		if w, ok := s.own[id]; ok && time.Since(w.at) <= ownWriteLife && w.explains(m) {
			s.drafts[id] = v
			continue
		}
		before, seen := s.drafts[id]
		s.drafts[id] = v
		// Rows repeat, and in an earlier life this one may have been seen.
		old := m.Modified != nil && m.Modified.Before(row.SyncedAt.Add(-time.Minute))
		if !candidate[id] || seen && before == v || !seen && old {
			continue
		}
		if edited == nil {
			edited = make(map[store.GraphID]bool)
		}
		edited[id] = true
	}
	return edited
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

// foreign returns the ids of those known messages in a page that somebody else has changed.
func (s *Syncer) foreign(page []graph.Message, unknown []store.GraphID) []store.GraphID {
	skip := make(map[store.GraphID]bool, len(unknown))
	for _, id := range unknown {
		skip[id] = true
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []store.GraphID
	for i := range page {
		m := &page[i]
		id := store.GraphID(m.ID)
		if m.Removed != "" || skip[id] {
			continue
		}
		skip[id] = true // rows repeat within a page too
		if w, ok := s.own[id]; ok {
			switch {
			case w.running == 0 && now.Sub(w.at) > ownWriteLife:
				delete(s.own, id)
			case w.reports(m):
				s.own[id] = w
				continue
			}
		}
		ids = append(ids, id)
	}
	return ids
}

// writing notes that Postern is about to change these messages in Graph. Each must be followed by written.
func (s *Syncer) writing(ids ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if len(s.own) > 20000 {
		for id, w := range s.own {
			if w.running == 0 && now.Sub(w.at) > ownWriteLife {
				delete(s.own, id)
			}
		}
	}
	for _, id := range ids {
		w := s.own[store.GraphID(id)]
		w.at = now
		w.running++
		s.own[store.GraphID(id)] = w
	}
}

// written notes that a change has ended: the message as it is said to be since then, or nil, and how many versions there
// were besides that nobody told.
func (s *Syncer) written(id string, m *graph.Message, untold int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.own[store.GraphID(id)]
	w.at = time.Now()
	w.running = max(0, w.running-1)
	w.inexact = ""
	if v, exact := version(m); exact {
		w.add(v)
	} else {
		untold++
	}
	w.strange = max(w.strange, untold)
	s.own[store.GraphID(id)] = w
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
