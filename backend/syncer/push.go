package syncer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend/graph"
	"postern/backend/store"
)

const (
	gather = 100 * time.Millisecond // clients often change flags one message at a time
	// gatherMany is how long is waited while a client goes through a folder, message by message: a pause of it is not its end,
	// and what is taken to Graph then makes a batch of its own. gatherMost is the longest that any change waits.
	gatherMany = 500 * time.Millisecond
	gatherMost = time.Second
	manyPushed = 20  // messages from which on a client counts as going through a folder: a batch
	pushBatch  = 200 // pending messages read from the journal at once; ten batches
	batchSize  = 20  // requests that Graph takes in one
	conflicts  = 5   // tries of a change that others keep colliding with

	gatherScarce = 40 * time.Second // how long when nothing is left of the mailbox's budget: the same message often changes again
	pushPatience = 30 * time.Second // for the budget
)

// ChangeFlags commits flag changes to the replica and has them pushed. modified are those left alone because they
// had changed since.
func (s *Syncer) ChangeFlags(ctx context.Context, id store.FolderID, changes []store.FlagChange) (modified []imap.UID, err error) {
	err = s.Commit(func() ([]store.Changes, error) {
		ch, mod, err := s.o.Store.ChangeFlags(ctx, id, changes)
		modified = mod
		return []store.Changes{ch}, err
	})
	ring(s.push)
	return modified, err
}

// gathering decides how long changes wait for others that make a batch with them.
type gathering struct {
	first  time.Time // the oldest change that waits; zero: none
	last   time.Time // end of the last push
	recent int       // messages pushed by it, and by those shortly before
}

// changed returns how long to wait for more, now that something has changed.
func (g *gathering) changed(now time.Time) time.Duration {
	if g.first.IsZero() {
		g.first = now
	}
	quiet := gather
	if g.recent >= manyPushed && now.Sub(g.last) < gatherMost {
		quiet = gatherMany
	}
	return max(0, min(quiet, gatherMost-now.Sub(g.first)))
}

// pushed notes that n messages were pushed.
func (g *gathering) pushed(now time.Time, n int) {
	if now.Sub(g.last) > 2*gatherMost {
		g.recent = 0
	} else if g.recent > manyPushed {
		g.recent = manyPushed / 2
	}
	g.recent += n
	g.first, g.last = time.Time{}, now
}

// pushLoop takes pending changes to Graph until ctx ends.
func (s *Syncer) pushLoop(ctx context.Context) {
	timer := time.NewTimer(0) // what an earlier life left
	defer timer.Stop()
	fails := 0
	var g gathering
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.push:
			if fails > 0 {
				continue // the timer runs
			}
			now := time.Now()
			wait := g.changed(now)
			timer.Reset(max(wait, s.scarcity()-now.Sub(g.first)))
			continue
		case <-timer.C:
		}
		// A client has its answer already, but other programs of the same user wait to see the change. What clients wait for
		// comes first when little is left of the budget.
		n, err := s.pushPending(graph.WithPatience(graph.WithLane(ctx, graph.Sending), pushPatience))
		g.pushed(time.Now(), n)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			fails = 0
			continue
		}
		s.record(err, "write flags")
		fails++
		timer.Reset(backoff(fails, err))
	}
}

// scarcity is how long changes are gathered for the sake of the mailbox's budget: the longer, the more of it is used up.
func (s *Syncer) scarcity() time.Duration {
	u := s.o.Graph.Budget().Usage()
	if u.RequestLimit <= 0 {
		return 0
	}
	used := float64(u.Requests) / float64(u.RequestLimit)
	return time.Duration(used * used * used * float64(gatherScarce))
}

// pushPending pushes what is pending, and returns of how many messages. What comes meanwhile is gathered again. Changes that are
// refused for good are undone.
func (s *Syncer) pushPending(ctx context.Context) (pushed int, err error) {
	tries := 0
	for {
		retry, n, err := s.pushNext(ctx, tries == 0)
		pushed += n
		if err != nil || n == 0 {
			return pushed, err
		}
		if len(retry) == 0 {
			tries = 0
			if n < pushBatch && len(s.push) > 0 {
				return pushed, nil
			}
			continue
		}
		if tries++; tries >= conflicts {
			return pushed, fmt.Errorf("write flags of %d messages: %w", len(retry), errConflict)
		}
		select {
		case <-ctx.Done():
			return pushed, ctx.Err()
		case <-time.After(time.Duration(tries) * 200 * time.Millisecond):
		}
	}
}

// pushNext pushes the oldest pending changes, and returns of how many messages.
func (s *Syncer) pushNext(ctx context.Context, guarded bool) (retry []store.Message, n int, err error) {
	end, err := s.beginPush(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer end()
	msgs, err := s.o.Store.Pending(ctx, s.o.Account, pushBatch)
	if err != nil || len(msgs) == 0 {
		return nil, 0, err
	}
	retry, err = s.pushSome(ctx, msgs, guarded)
	return retry, len(msgs), err
}

// beginPush waits for the push under way. What is pending must be read after that, or an older state of a message would
// be written over a newer one.
func (s *Syncer) beginPush(ctx context.Context) (end func(), err error) {
	select {
	case s.pushing <- struct{}{}:
		return func() { <-s.pushing }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

var errConflict = errors.New("others keep changing the same messages")

// pushSome pushes the given messages' pending changes and settles all that Graph decided. retry are the messages whose
// change collided with another.
func (s *Syncer) pushSome(ctx context.Context, msgs []store.Message, guarded bool) (retry []store.Message, err error) {
	size := len(msgs)
	if slices.ContainsFunc(msgs, func(m store.Message) bool { return needsTheirs(&m) }) {
		size = batchSize // what is read for them must not be old when they are written
	}
	var failed error
	for part := range slices.Chunk(msgs, size) {
		more, reached, err := s.pushPart(ctx, part, guarded)
		retry = append(retry, more...)
		if err != nil {
			failed = err
			if !reached {
				break // Graph is away. A single message that fails does not stop the others.
			}
		}
	}
	return retry, failed
}

// pushPart is pushSome for a few messages. reached reports whether Graph has decided about any.
func (s *Syncer) pushPart(ctx context.Context, msgs []store.Message, guarded bool) (retry []store.Message, reached bool, err error) {
	changes, err := s.prepare(ctx, msgs, guarded)
	if err != nil {
		return nil, false, err
	}
	answers := s.write(ctx, changes)
	var results []store.PushResult
	var refused []store.Message
	var failed error
	for i, m := range msgs {
		reached = reached || answers[i] == nil || graph.StatusOf(answers[i]) != 0 && !temporary(answers[i])
		switch err := answers[i]; {
		case err == nil, graph.IsNotFound(err): // gone: nothing to say any more, delta will tell
			results = append(results, store.PushResult{ID: m.ID, PendingSeq: m.PendingSeq})
		case graph.StatusOf(err) == 409, graph.StatusOf(err) == 412:
			// Observed without If-Match too. The message has been changed meanwhile; ours is only of single properties, so
			// it is said again.
			retry = append(retry, m)
		case temporary(err) || graph.StatusOf(err) == 403 || graph.StatusOf(err) == 0:
			failed = err
		default:
			s.log.Warn("flag change refused", "uid", m.UID, "err", err)
			refused = append(refused, m)
		}
	}
	undo, err := s.truth(ctx, refused)
	if err != nil && failed == nil {
		failed = err
	}
	results = append(results, undo...)
	if len(results) > 0 {
		err := s.Commit(func() ([]store.Changes, error) { return s.o.Store.Pushed(ctx, results) })
		if err != nil {
			return nil, reached, err
		}
	}
	for i := range changes {
		if changes[i].look {
			s.suspect(msgs[i].Folder, []store.GraphID{msgs[i].GraphID})
		}
	}
	return retry, reached, failed
}

// write takes changes to Graph; error i belongs to changes[i].
func (s *Syncer) write(ctx context.Context, changes []outgoing) []error {
	errs := make([]error, len(changes))
	var items []graph.UpdateItem
	var ids []string
	var at []int
	for i := range changes {
		c := &changes[i]
		if errs[i] = c.failed; c.failed != nil || c.nothing {
			continue
		}
		// Whether a draft was edited by somebody else shows in its version, so ours must be known.
		draft := c.msg.Flags&store.FlagIsDraft != 0
		ids, at = append(ids, string(c.msg.GraphID)), append(at, i)
		items = append(items, graph.UpdateItem{ID: string(c.msg.GraphID), Update: c.update, Whole: draft})
	}
	s.writing(ids...)
	for n, res := range s.o.Graph.UpdateMany(ctx, items) {
		m := changes[at[n]].msg
		errs[at[n]] = res.Err
		if res.Err != nil && !graph.Unclear(res.Err) {
			s.endWriting(ids[n], 0) // it has changed nothing
			continue
		}
		s.written(ids[n], res.Message, properties{m.Pending, m.PendingKeywords})
		if res.Message != nil && m.Flags&store.FlagIsDraft != 0 {
			s.noteDraft(m.GraphID, res.Message)
		}
	}
	return errs
}

// temporary reports failures after which the same call is worth repeating later, also those that never reached Graph.
func temporary(err error) bool {
	return graph.IsTemporary(err) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// truth reads what Graph has for messages whose change it refuses.
func (s *Syncer) truth(ctx context.Context, msgs []store.Message) ([]store.PushResult, error) {
	if len(msgs) == 0 {
		return nil, nil
	}
	ids := make([]string, len(msgs))
	for i := range msgs {
		ids[i] = string(msgs[i].GraphID)
	}
	var out []store.PushResult
	var failed error
	for i, res := range s.o.Graph.GetMany(ctx, ids, fullOptions) {
		m := msgs[i]
		switch {
		case res.Err == nil && res.Message != nil:
			undo := remoteOf(res.Message, true)
			out = append(out, store.PushResult{ID: m.ID, PendingSeq: m.PendingSeq, Undo: &undo})
		case temporary(res.Err):
			failed = res.Err
		default:
			// Not even readable: nothing to show instead, so the client's own value stands here and is not pushed again.
			out = append(out, store.PushResult{ID: m.ID, PendingSeq: m.PendingSeq})
		}
	}
	return out, failed
}

// settle pushes the pending changes among msgs now, before Graph copies them.
func (s *Syncer) settle(ctx context.Context, msgs []store.Message) error {
	end, err := s.beginPush(ctx)
	if err != nil {
		return err
	}
	defer end()
	var pending []store.Message
	for i := range msgs {
		m := &msgs[i]
		if m.PendingSeq == 0 {
			continue
		}
		if m, err = s.inFolder(ctx, m.Folder, m.GraphID); err == nil && m.PendingSeq != 0 {
			pending = append(pending, *m)
		} else if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	if len(pending) == 0 {
		return nil
	}
	_, err = s.pushSome(ctx, pending, false)
	return err
}
