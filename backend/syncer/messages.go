package syncer

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/emersion/go-imap/v2"

	"postern/backend/graph"
	"postern/backend/store"
)

// chunk is how many messages one step of a long MOVE, COPY or EXPUNGE takes to Graph before the replica and other
// sessions are told: ten batches.
const chunk = 200

// Pair is a message's UID before and after it was moved or copied.
type Pair struct{ Source, Dest imap.UID }

// Move moves messages between folders: in Graph, then in the replica. On an error the pairs are what was moved.
// Messages that are gone already are left out.
func (s *Syncer) Move(ctx context.Context, from, to store.FolderID, msgs []store.Message) ([]Pair, error) {
	return s.transfer(ctx, from, to, msgs, true)
}

// Copy is Move with the originals left where they are.
func (s *Syncer) Copy(ctx context.Context, from, to store.FolderID, msgs []store.Message) ([]Pair, error) {
	return s.transfer(ctx, from, to, msgs, false)
}

// Renumber gives messages new UIDs in the folder where they are. Graph has nothing to do with it.
func (s *Syncer) Renumber(ctx context.Context, id store.FolderID, msgs []store.Message) ([]Pair, error) {
	moved := make([]store.Moved, len(msgs))
	for i := range msgs {
		moved[i] = store.Moved{UID: msgs[i].UID, NewGraphID: msgs[i].GraphID}
	}
	var uids map[imap.UID]imap.UID
	err := s.Commit(func() ([]store.Changes, error) {
		ch, _, got, err := s.o.Store.Move(ctx, id, id, moved)
		uids = got
		return []store.Changes{ch}, err
	})
	if err != nil {
		return nil, err
	}
	ring(s.push) // pending changes are found under the new UIDs
	pairs := make([]Pair, 0, len(moved))
	for _, m := range moved {
		if uid, ok := uids[m.UID]; ok {
			pairs = append(pairs, Pair{Source: m.UID, Dest: uid})
		}
	}
	return pairs, nil
}

func (s *Syncer) transfer(ctx context.Context, from, to store.FolderID, msgs []store.Message, move bool) ([]Pair, error) {
	ctx = graph.WithLane(ctx, graph.Interactive)
	src, err := s.o.Store.Folder(ctx, from)
	if err != nil {
		return nil, err
	}
	dst, err := s.o.Store.Folder(ctx, to)
	if err != nil {
		return nil, err
	}
	defer s.hold(to)()
	var pairs []Pair
	for len(msgs) > 0 {
		n := min(chunk, len(msgs))
		done, err := s.transferChunk(ctx, src, dst, msgs[:n], move)
		pairs = append(pairs, done...)
		if err != nil {
			return pairs, err
		}
		msgs = msgs[n:]
	}
	return pairs, nil
}

func (s *Syncer) transferChunk(ctx context.Context, src, dst *store.Folder, msgs []store.Message, move bool) ([]Pair, error) {
	if move {
		release, err := s.leaveNow(ctx, src.ID, &msgs)
		if err != nil {
			return nil, err
		}
		defer release()
	}
	ids := make([]string, len(msgs))
	for i := range msgs {
		ids[i] = string(msgs[i].GraphID)
	}
	var results []graph.MoveResult
	if move {
		results = s.moveMany(ctx, ids, src, dst)
	} else {
		// Graph copies what it has, so what it has must be what the client has seen.
		if err := s.settle(ctx, msgs); err != nil {
			return nil, err
		}
		results = s.copyMany(ctx, msgs, ids, dst)
	}
	var done []store.Moved
	var lost []string
	var gone []store.GraphID
	var failed error
	for i, res := range results {
		switch {
		case res.Err == nil:
			id := ids[i]
			if res.Message != nil && res.Message.ID != "" {
				id = res.Message.ID
			} else if !move {
				failed = errors.New("graph did not say which message it made")
				continue
			}
			done = append(done, store.Moved{UID: msgs[i].UID, NewGraphID: store.GraphID(id)})
			s.writing(id)
			s.written(id, res.Message, properties{})
		case graph.IsNotFound(res.Err):
			lost = append(lost, ids[i])
		default:
			failed = res.Err
		}
	}
	// "Not found" is said of the message and of the destination alike.
	for i, err := range s.stillIn(ctx, src, lost) {
		switch {
		case err == nil:
			gone = append(gone, store.GraphID(lost[i]))
		case failed == nil:
			failed = err
		}
	}
	// The work is done in Graph: it must reach the replica even when the client has just gone away.
	cctx := context.WithoutCancel(ctx)
	var uids map[imap.UID]imap.UID
	var unknown []store.GraphID
	err := s.Commit(func() ([]store.Changes, error) {
		var fromCh, toCh, goneCh store.Changes
		var err error
		if move {
			fromCh, toCh, uids, err = s.o.Store.Move(cctx, src.ID, dst.ID, done)
		} else {
			toCh, uids, err = s.o.Store.Copy(cctx, src.ID, dst.ID, done)
		}
		unknown = toCh.Unknown
		if err == nil && len(gone) > 0 {
			goneCh, err = s.o.Store.Apply(cctx, src.ID, nil, gone, nil)
		}
		return []store.Changes{toCh, fromCh, goneCh}, err
	})
	if err != nil {
		return nil, fmt.Errorf("record what was moved: %w", err)
	}
	if len(unknown) > 0 {
		// Another program removed them here, and then the move found them all the same.
		read := reading{since: s.mark()}
		full, _, _, err := s.reread(cctx, dst, unknown)
		if err != nil {
			return nil, err
		}
		ch, err := s.applyRead(cctx, dst.ID, read, remotes(full), nil, nil)
		if err != nil {
			return nil, err
		}
		s.suspect(dst.ID, ch.Doubted)
	}
	pairs := make([]Pair, 0, len(done))
	for _, d := range done {
		uid := uids[d.UID]
		if uid == 0 {
			if m, err := s.inFolder(cctx, dst.ID, d.NewGraphID); err == nil {
				uid = m.UID
			}
		}
		if uid != 0 {
			pairs = append(pairs, Pair{d.UID, uid})
		}
	}
	return pairs, failed
}

// errDestination means that the folder messages were to go to is no longer there.
var errDestination = fmt.Errorf("the destination is gone: %w", store.ErrNotFound)

// stillIn looks for messages Graph did not find when it was to take them elsewhere. The error of each is nil if it has
// left the folder, errDestination if it lies there as before, and else why that is not known.
func (s *Syncer) stillIn(ctx context.Context, src *store.Folder, ids []string) []error {
	errs := make([]error, len(ids))
	if len(ids) == 0 {
		return nil
	}
	for i, res := range s.o.Graph.GetMany(ctx, ids, graph.ListOptions{Select: []string{"id", "parentFolderId"}}) {
		switch {
		case res.Err == nil:
			if p := res.Message.ParentFolderID; p == nil || *p == string(src.GraphID) {
				errs[i] = errDestination
			}
		case !graph.IsNotFound(res.Err):
			errs[i] = res.Err
		}
	}
	if slices.Contains(errs, errDestination) {
		s.askTree()
	}
	return errs
}

// leaveNow marks messages as being moved by a client, under the ids they have now and keep until release.
func (s *Syncer) leaveNow(ctx context.Context, id store.FolderID, msgs *[]store.Message) (release func(), err error) {
	for {
		marked, err := s.current(ctx, id, *msgs)
		if err != nil {
			return nil, err
		}
		s.leave(marked, 1)
		again, err := s.current(ctx, id, marked)
		if err == nil && slices.EqualFunc(marked, again, func(a, b store.Message) bool { return a.GraphID == b.GraphID }) {
			*msgs = marked
			return func() { s.leave(marked, -1) }, nil
		}
		s.leave(marked, -1)
		if err != nil {
			return nil, err
		}
	}
}

// leave marks messages as being moved by a client, or takes the mark back.
func (s *Syncer) leave(msgs []store.Message, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range msgs {
		id := msgs[i].GraphID
		if s.moving[id] += n; s.moving[id] <= 0 {
			delete(s.moving, id)
		}
	}
}

// copyMany copies messages. After an unclear end the copy is looked for by its Message-ID among those in the
// destination that the replica does not know; a client that is told NO would copy again.
func (s *Syncer) copyMany(ctx context.Context, msgs []store.Message, ids []string, dst *store.Folder) []graph.MoveResult {
	results := s.o.Graph.CopyMany(ctx, ids, string(dst.GraphID))
	taken := make(map[string]bool)
	for _, res := range results {
		if res.Err == nil && res.Message != nil {
			taken[res.Message.ID] = true
		}
	}
	var again []string
	var at []int
	for i, res := range results {
		if !graph.Unclear(res.Err) || msgs[i].InternetMessageID == "" || ctx.Err() != nil {
			continue
		}
		found, err := s.findNew(ctx, string(dst.GraphID), messageIDFilter(msgs[i].InternetMessageID), taken)
		switch {
		case err != nil:
		case found != nil:
			taken[found.ID] = true
			results[i] = graph.MoveResult{Message: found}
		default:
			again = append(again, ids[i])
			at = append(at, i)
		}
	}
	for i, res := range s.o.Graph.CopyMany(ctx, again, string(dst.GraphID)) {
		results[at[i]] = res
	}
	return results
}

// moveTries is how often a move is begun anew when Graph was not able to do it or to say whether it did.
const moveTries = 3

// moveMany moves messages. The immutable id outlives a move, so after an unclear end Graph can be asked where a message
// is, and moving it again does no harm.
func (s *Syncer) moveMany(ctx context.Context, ids []string, src, dst *store.Folder) []graph.MoveResult {
	results := s.o.Graph.MoveMany(ctx, ids, string(dst.GraphID))
	for try := 1; try < moveTries; try++ {
		var rest []string
		var at []int
		for i, res := range results {
			if res.Err != nil && graph.IsTemporary(res.Err) && !graph.IsThrottled(res.Err) {
				rest = append(rest, ids[i])
				at = append(at, i)
			}
		}
		if len(rest) == 0 || ctx.Err() != nil {
			break
		}
		var again []string
		var againAt []int
		for i, res := range s.o.Graph.GetMany(ctx, rest, fullOptions) {
			switch {
			case res.Err != nil:
				if graph.IsNotFound(res.Err) {
					results[at[i]] = res
				}
			case res.Message == nil || res.Message.ParentFolderID == nil:
			case *res.Message.ParentFolderID == string(dst.GraphID):
				results[at[i]] = res
			case *res.Message.ParentFolderID == string(src.GraphID):
				again = append(again, rest[i])
				againAt = append(againAt, at[i])
			}
		}
		if len(again) == 0 {
			break
		}
		for i, res := range s.o.Graph.MoveMany(ctx, again, string(dst.GraphID)) {
			results[againAt[i]] = res
		}
	}
	return results
}

// Expunge removes messages as the delete policy says and returns the UIDs of those that are gone, also on an error.
//
// recoverable moves them to Recoverable Items, where Exchange's own IMAP puts them and Outlook's "recover deleted items"
// finds them. Where Graph does not take that folder as a destination, DELETE does the same in two steps: to Deleted
// Items, and from there on. trash stops after the first step; for messages already there it means recoverable. purge is
// permanentDelete, and recoverable in the clouds that lack it.
func (s *Syncer) Expunge(ctx context.Context, id store.FolderID, msgs []store.Message) ([]imap.UID, error) {
	ctx = graph.WithLane(ctx, graph.Interactive)
	var done []imap.UID
	for len(msgs) > 0 {
		n := min(chunk, len(msgs))
		uids, err := s.expungeChunk(ctx, id, msgs[:n])
		done = append(done, uids...)
		if err != nil {
			return done, err
		}
		msgs = msgs[n:]
	}
	return done, nil
}

func (s *Syncer) expungeChunk(ctx context.Context, id store.FolderID, msgs []store.Message) ([]imap.UID, error) {
	msgs, err := s.current(ctx, id, msgs)
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(msgs))
	for i := range msgs {
		ids[i] = string(msgs[i].GraphID)
	}
	errs, err := s.remove(ctx, id, ids)
	if err != nil {
		return nil, err
	}
	var done []imap.UID
	var gone []store.GraphID
	var failed error
	for i, err := range errs {
		if err != nil && !graph.IsNotFound(err) {
			failed = err
			continue
		}
		done = append(done, msgs[i].UID)
		gone = append(gone, msgs[i].GraphID)
	}
	if _, err := s.apply(context.WithoutCancel(ctx), id, nil, gone, nil); err != nil {
		return nil, fmt.Errorf("record what was removed: %w", err)
	}
	if s.settings.Load().Delete == DeleteTrash {
		if trash, ok := s.Role("deleteditems"); ok {
			s.Poke(trash)
		}
	}
	if failed != nil {
		failed = fmt.Errorf("remove messages: %w", failed)
	}
	return done, failed
}

// remove takes messages out of a folder in Graph; the errors belong to the ids.
func (s *Syncer) remove(ctx context.Context, from store.FolderID, ids []string) ([]error, error) {
	row, err := s.o.Store.Folder(ctx, from)
	if err != nil {
		return nil, err
	}
	src := string(row.GraphID)
	trash, _ := s.Role("deleteditems")
	switch {
	case s.settings.Load().Delete == DeleteTrash && from != trash:
		// The mark must not arrive there, or the next EXPUNGE of Trash would take the messages.
		clear := make([]graph.UpdateItem, len(ids))
		for i, id := range ids {
			clear[i] = graph.UpdateItem{ID: id, Update: graph.Update{Extended: map[graph.PropertyID]string{propIMAPFlags: "0"}}}
		}
		s.o.Graph.UpdateMany(ctx, clear)
		return s.deleteMany(ctx, src, ids, graph.DeleteToTrash), nil
	case s.settings.Load().Delete == DeletePurge:
		return s.orElse(ctx, ids, s.deleteMany(ctx, src, ids, graph.DeletePermanent), func(rest []string) []error {
			return s.recoverable(ctx, src, rest, from == trash)
		}), nil
	}
	return s.recoverable(ctx, src, ids, from == trash), nil
}

// recoverable takes messages to Recoverable Items. src is the folder they are in, empty where that is not known.
func (s *Syncer) recoverable(ctx context.Context, src string, ids []string, inTrash bool) []error {
	return s.orElse(ctx, ids, s.deleteMany(ctx, src, ids, graph.DeleteRecoverable), func(rest []string) []error {
		errs := s.deleteMany(ctx, src, rest, graph.DeleteToTrash)
		if inTrash {
			return errs
		}
		var again []string
		for i, err := range errs {
			if err == nil {
				again = append(again, rest[i]) // immutable ids survive the first step
			}
		}
		s.mu.Lock()
		trash := s.known["deleteditems"]
		s.mu.Unlock()
		for i, err := range s.deleteMany(ctx, trash, again, graph.DeleteToTrash) {
			if err != nil && !graph.IsNotFound(err) {
				s.log.Warn("expunged message stays in Deleted Items", "op", "expunge", "err", err, "n", i)
			}
		}
		return errs
	})
}

// deleteMany deletes messages of the folder src. After an unclear end Graph is asked where a message is: one that has left
// the folder is done, one that has not is deleted again. Deleting blindly once more would take it a step too far, from
// Deleted Items to Recoverable Items.
func (s *Syncer) deleteMany(ctx context.Context, src string, ids []string, how graph.DeleteMode) []error {
	errs := s.o.Graph.DeleteMany(ctx, ids, how)
	for try := 1; try < moveTries && src != "" && ctx.Err() == nil; try++ {
		var rest []string
		var at []int
		for i, err := range errs {
			if err != nil && graph.IsTemporary(err) && !graph.IsThrottled(err) {
				rest = append(rest, ids[i])
				at = append(at, i)
			}
		}
		if len(rest) == 0 {
			break
		}
		var again []string
		var againAt []int
		for i, res := range s.o.Graph.GetMany(ctx, rest, graph.ListOptions{Select: []string{"id", "parentFolderId"}}) {
			switch {
			case graph.IsNotFound(res.Err):
				errs[at[i]] = res.Err
			case res.Err != nil || res.Message.ParentFolderID == nil:
			case *res.Message.ParentFolderID != src:
				errs[at[i]] = nil
			default:
				again = append(again, rest[i])
				againAt = append(againAt, at[i])
			}
		}
		for i, err := range s.o.Graph.DeleteMany(ctx, again, how) {
			errs[againAt[i]] = err
		}
	}
	return errs
}

// orElse tries second for those ids for which the first way is not available at all. "Not found" may mean the message or
// the folder it should go to (observed: both are ErrorItemNotFound), or the call itself, with a code that elsewhere means
// the mailbox. So those are looked for: a message that is still there must not be told as removed.
func (s *Syncer) orElse(ctx context.Context, ids []string, errs []error, second func([]string) []error) []error {
	var rest, lost []string
	var at, lostAt []int
	for i, err := range errs {
		switch {
		case unavailable(err):
			rest = append(rest, ids[i])
			at = append(at, i)
		case graph.StatusOf(err) == 404:
			lost = append(lost, ids[i])
			lostAt = append(lostAt, i)
		}
	}
	if len(lost) > 0 {
		for i, res := range s.o.Graph.GetMany(ctx, lost, graph.ListOptions{Select: []string{"id"}}) {
			switch {
			case res.Err == nil:
				rest = append(rest, lost[i])
				at = append(at, lostAt[i])
			default:
				errs[lostAt[i]] = res.Err // gone, or not known: told as failed, tried again by the client
			}
		}
	}
	if len(rest) > 0 {
		for i, err := range second(rest) {
			errs[at[i]] = err
		}
	}
	return errs
}

// unavailable reports that Graph does not offer the call, as opposed to refusing it for this message.
func unavailable(err error) bool {
	switch graph.StatusOf(err) {
	case 405, 501:
		return true
	case 400:
		return !graph.IsCode(err, "ErrorInvalidIdMalformed")
	}
	return false
}
