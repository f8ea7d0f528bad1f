package syncer

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"postern/backend/graph"
	"postern/backend/store"
)

// listPoll is how often a folder is compared with Graph's list when delta is refused. A round costs a call for each
// thousand messages.
const listPoll = time.Minute

// A folder's FillLink is the way on in one of two walks through the folder.
const (
	listMark  = "list "  // the listing with all columns, oldest first
	deltaMark = "delta " // the enumeration that begins a chain of delta rounds
)

// syncFolder does what the folder needs next: its first fill, an enumeration that gives a delta link, or a delta round.
// changed reports whether Graph had anything new.
func (s *Syncer) syncFolder(ctx context.Context, f *folder) (changed bool, err error) {
	row, err := s.o.Store.Folder(ctx, f.id)
	if err != nil {
		return false, err
	}
	s.mu.Lock()
	byList := f.byList
	s.mu.Unlock()
	switch {
	case row.Fill == store.FillDone && byList:
		changed, err = s.relistByList(ctx, f, row)
	case row.Fill == store.FillDone && row.DeltaLink != "":
		changed, err = s.delta(ctx, f, row)
		if graph.ResyncRequired(err) || s.refusedAgain(&f.task, err) {
			s.log.Info("folder is enumerated anew", "mailbox", row.Name, "err", err)
			if err := s.o.Store.SetSync(ctx, f.id, store.SyncUpdate{DeltaLink: new(""), FillLink: new("")}); err != nil {
				return false, err
			}
			row.DeltaLink, row.FillLink = "", ""
			changed, err = true, s.fill(ctx, f, row)
		}
	default:
		changed, err = true, s.fill(ctx, f, row)
	}
	switch {
	case graph.IsFolderGone(err), err != nil && graph.IsNotFound(err):
		// The tree knows more: the folder may have been deleted a moment ago.
		s.askTree()
	case err != nil && graph.IsQuota(err):
		// A mailbox over its quota refuses delta although plain lists work (observed, not documented).
		s.log.Warn("mailbox is full, delta is refused: comparing lists", "mailbox", row.Name)
		changed, err = s.goByList(ctx, f, row)
	case graph.ResyncRequired(err) && !strings.HasPrefix(row.FillLink, deltaMark):
		// Not only a link that was kept is void, but one that was given out a moment ago, or the first question of all.
		s.log.Warn("delta links are void at once: comparing lists", "mailbox", row.Name, "err", err)
		changed, err = s.goByList(ctx, f, row)
	}
	if err == nil {
		var more bool
		more, err = s.recheck(ctx, f, row)
		changed = changed || more
	}
	if err == nil && s.copiesLeft(f.id) {
		s.settleCopies(ctx, row)
	}
	return changed, err
}

// How often in a row a link is refused, without a word of its being void, or fails by a fault of Graph's own that may have
// to do with nothing but the link, before it is given up.
const (
	maxRefused = 3
	maxFaulty  = 8 // the waits between them make that some minutes
)

// refusedAgain reports that a task's kept link is refused as often as that, err being the last refusal.
func (s *Syncer) refusedAgain(t *task, err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	fails := t.fails + 1
	return fails >= maxRefused && graph.LinkRefused(err) || fails >= maxFaulty && graph.StatusOf(err) == http.StatusInternalServerError
}

// goByList compares lists from now on, until delta is tried again.
func (s *Syncer) goByList(ctx context.Context, f *folder, row *store.Folder) (changed bool, err error) {
	s.mu.Lock()
	f.byList = true
	s.mu.Unlock()
	return s.relistByList(ctx, f, row)
}

// fill walks through the whole folder twice at the same time. One walk lists all columns, oldest first so that UIDs
// follow the dates; it is needed once and can be resumed page by page. The other is the first delta round, which leads to
// the link for all later ones. What it says is applied after the list, and it is the one that tells which messages
// are still there. Should the two disagree about a message that changed between them, the next delta round settles it.
//
// Clients are let in when the list is complete.
func (s *Syncer) fill(ctx context.Context, f *folder, row *store.Folder) error {
	s.unsettleCopies()
	defer s.walk(f)()
	// The listing begins in the store before Graph is asked, or before clients are let in: what they append from then on
	// is not in the pages that have come already, and must not be taken for something that is gone.
	var r *store.Relist
	var err error
	if row.Fill == store.FillDone {
		if r, err = s.o.Store.Relist(ctx, f.id); err != nil {
			return err
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	type enumerated struct {
		read reading
		rows []store.Remote
		next string
	}
	pages := make(chan enumerated, 4096)
	var deltaLink string
	var deltaErr error
	g.Go(func() error {
		defer close(pages)
		link, resumed := strings.CutPrefix(row.FillLink, deltaMark)
		if !resumed {
			link = ""
		}
		since := s.mark()
		deltaLink, deltaErr = s.o.Graph.MessageDelta(gctx, string(row.GraphID), deltaOptions, link, func(page []graph.Message, next string) error {
			rows, _ := deltaRows(page)
			read := reading{since, rowVersions(page)}
			since = s.mark()
			select {
			case pages <- enumerated{read, rows, next}:
				return nil
			case <-gctx.Done():
				return gctx.Err()
			}
		})
		return nil // the list is worth finishing even if delta is refused
	})
	if row.Fill != store.FillDone {
		err = s.list(gctx, f, row)
		if err == nil {
			r, err = s.o.Store.Relist(ctx, f.id)
		}
		if err == nil {
			s.markFilled(f)
		}
	}
	if err == nil {
		if row.Fill == store.FillDone {
			s.beginWalk(f, 0) // the folder is compared; after a first listing that is a formality
			defer s.endWalk(f)
		}
		for p := range pages {
			s.walked(f, row.Name, len(p.rows))
			var sync *store.SyncUpdate
			if p.next != "" {
				sync = &store.SyncUpdate{FillLink: new(deltaMark + p.next)}
			}
			if err = s.relistPage(ctx, f, row, r, p.read, p.rows, sync); err != nil {
				break
			}
		}
	}
	if err != nil {
		g.Go(func() error { return err }) // ends the other walk
		_ = g.Wait()
		return err
	}
	_ = g.Wait()
	if deltaErr != nil {
		if graph.ResyncRequired(deltaErr) || row.FillLink != "" && s.refusedAgain(&f.task, deltaErr) {
			_ = s.o.Store.SetSync(ctx, f.id, store.SyncUpdate{FillLink: new("")})
		}
		return fmt.Errorf("enumerate folder: %w", deltaErr)
	}
	now := time.Now()
	err = s.Commit(func() ([]store.Changes, error) {
		ch, err := r.Finish(ctx, store.SyncUpdate{DeltaLink: &deltaLink, FillLink: new(""), SyncedAt: &now})
		return []store.Changes{ch}, err
	})
	if err != nil {
		return err
	}
	row, err = s.o.Store.Folder(ctx, f.id)
	if err != nil {
		return err
	}
	_, err = s.delta(ctx, f, row)
	return err
}

// walk marks a run that walks through the whole folder, until what it returns is called.
func (s *Syncer) walk(f *folder) func() {
	set := func(on bool) {
		s.mu.Lock()
		f.walking = on
		s.mu.Unlock()
	}
	set(true)
	return func() { set(false) }
}

// list stores the folder's skeleton, oldest first.
func (s *Syncer) list(ctx context.Context, f *folder, row *store.Folder) error {
	link, resumed := strings.CutPrefix(row.FillLink, listMark)
	if !resumed {
		link = ""
	}
	o := fullOptions
	o.OrderBy = "receivedDateTime asc"
	o.PageSize = pageSize
	there := 0
	if link != "" {
		there = row.Messages
		s.askTotal(ctx, f)
	}
	s.beginWalk(f, there)
	defer s.endWalk(f)
	type listed struct {
		rows []store.Remote
		next string
		read reading
	}
	err := ahead(ctx, func(ctx context.Context, yield func(listed) error) error {
		read := reading{since: s.mark()}
		return s.o.Graph.ListMessages(ctx, string(row.GraphID), o, link, func(page []graph.Message, next string) error {
			s.walked(f, row.Name, len(page))
			rows := make([]store.Remote, 0, len(page))
			for i := range page {
				rows = append(rows, remoteOf(&page[i], true))
				if d := page[i].IsDraft; d != nil && *d {
					s.noteDraft(store.GraphID(page[i].ID), &page[i])
				}
			}
			p := listed{rows, next, read}
			read.since = s.mark() // before the next page is asked for
			return yield(p)
		})
	}, func(p listed) error {
		u := store.SyncUpdate{Fill: new(store.FillListing), FillLink: new(listMark + p.next)}
		if p.next == "" {
			u = store.SyncUpdate{Fill: new(store.FillDone), FillLink: new("")}
		}
		ch, err := s.applyRead(ctx, f.id, p.read, p.rows, nil, &u)
		s.suspect(f.id, ch.Doubted)
		return err
	})
	if err != nil {
		if link != "" && (graph.ResyncRequired(err) || graph.StatusOf(err) >= 400 && graph.StatusOf(err) < 500 && !graph.IsThrottled(err)) {
			// The place to resume from is void. What is stored stays; the list begins again.
			_ = s.o.Store.SetSync(ctx, f.id, store.SyncUpdate{FillLink: new("")})
		}
		return fmt.Errorf("list folder: %w", err)
	}
	// A folder that answers with no page at all is complete too.
	return s.o.Store.SetSync(ctx, f.id, store.SyncUpdate{Fill: new(store.FillDone), FillLink: new("")})
}

// markFilled lets those in who wait for the skeleton.
func (s *Syncer) markFilled(f *folder) {
	s.mu.Lock()
	f.filled = true
	f.wakeLocked(nil)
	s.mu.Unlock()
	s.record(nil, "")
	s.pokeIdle()
}

// relistPage stores one page of an enumeration and reads what it holds that is new.
func (s *Syncer) relistPage(ctx context.Context, f *folder, row *store.Folder, r *store.Relist, read reading, rows []store.Remote, sync *store.SyncUpdate) error {
	var ch store.Changes
	page := func(read reading, rows []store.Remote, sync *store.SyncUpdate) (err error) {
		ch, err = s.commitRead(read, rows, func() (store.Changes, error) { return r.Page(ctx, rows, sync) })
		s.suspect(f.id, ch.Doubted)
		return err
	}
	if err := page(read, rows, nil); err != nil {
		return err
	}
	if len(ch.Unknown) > 0 {
		s.awaitWriters(ctx, f)
	}
	read = reading{since: s.mark()}
	msgs, _, doubt, err := s.reread(ctx, row, ch.Unknown)
	if err != nil {
		return err
	}
	if doubt {
		// What an enumeration leaves out would be seen by nobody before the next one.
		return errStillThere
	}
	if len(msgs) == 0 && sync == nil {
		return nil
	}
	return page(read, remotes(msgs), sync)
}

// maxWriters bounds the wait for clients that make messages in a folder while it is enumerated.
const maxWriters = 2 * time.Minute

// awaitWriters waits until nobody makes a message in the folder: one of those would be taken for somebody else's. Unlike
// a page of changes, a page of an enumeration does not come again.
func (s *Syncer) awaitWriters(ctx context.Context, f *folder) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(maxWriters); time.Now().Before(deadline); {
		s.mu.Lock()
		busy := f.creating > 0
		s.mu.Unlock()
		if !busy {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// relistByList compares the folder with Graph's plain list.
func (s *Syncer) relistByList(ctx context.Context, f *folder, row *store.Folder) (changed bool, err error) {
	s.unsettleCopies()
	defer s.walk(f)()
	if _, ok := strings.CutPrefix(row.FillLink, deltaMark); ok {
		if err := s.o.Store.SetSync(ctx, f.id, store.SyncUpdate{FillLink: new("")}); err != nil {
			return false, err
		}
		row.FillLink = ""
	}
	if row.Fill != store.FillDone {
		if err := s.list(ctx, f, row); err != nil {
			return false, err
		}
		s.markFilled(f)
		row.FillLink = ""
	}
	r, err := s.o.Store.Relist(ctx, f.id)
	if err != nil {
		return false, err
	}
	link, _ := strings.CutPrefix(row.FillLink, listMark)
	o := fullOptions
	o.OrderBy = "receivedDateTime asc"
	o.PageSize = pageSize
	pages := 0
	walk := func() error {
		read := reading{since: s.mark()}
		err := s.o.Graph.ListMessages(ctx, string(row.GraphID), o, link, func(page []graph.Message, next string) error {
			pages++
			rows := make([]store.Remote, 0, len(page))
			for i := range page {
				rows = append(rows, remoteOf(&page[i], true))
			}
			var sync *store.SyncUpdate
			if next != "" {
				sync = &store.SyncUpdate{FillLink: new(listMark + next)}
			}
			ch, err := s.commitRead(read, rows, func() (store.Changes, error) { return r.Page(ctx, rows, sync) })
			changed = changed || !ch.Empty()
			s.suspect(f.id, ch.Doubted)
			read.since = s.mark()
			return err
		})
		if err != nil {
			return fmt.Errorf("list folder: %w", err)
		}
		return nil
	}
	if err := walk(); err != nil {
		return changed, err
	}
	// Pages count rows from the start: when somebody deletes messages meanwhile, as one does in a full mailbox, as many are
	// in no page. What one walk has not met is looked for by another before it counts as gone.
	missed, err := r.Missed(ctx)
	if err != nil {
		return changed, err
	}
	if missed > 0 && (pages > 1 || link != "") {
		link = ""
		if err := walk(); err != nil {
			return changed, err
		}
	}
	now := time.Now()
	err = s.Commit(func() ([]store.Changes, error) {
		// The delta link is kept: it may work again once there is room in the mailbox.
		ch, err := r.Finish(ctx, store.SyncUpdate{FillLink: new(""), SyncedAt: &now})
		changed = changed || !ch.Empty()
		return []store.Changes{ch}, err
	})
	if err != nil {
		return changed, err
	}
	s.mu.Lock()
	if f.runs%10 == 9 {
		f.byList = false // try delta again now and then
	}
	s.mu.Unlock()
	return changed, nil
}
