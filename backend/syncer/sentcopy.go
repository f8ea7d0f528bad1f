package syncer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend/graph"
	"postern/backend/message"
	"postern/backend/store"
)

// Exchange files a copy of each message that is sent, and most mail programs store one of their own by APPEND: after sending
// (Thunderbird), before it (aerc, mutt where it is told so), or while the message still waits in the queue. There
// must be one message in the end, under the UID that APPENDUID told, with the client's bytes; in Graph it is Exchange's,
// which is what was sent, and not what could be made of the client's by JSON.
//
// Exchange's is known by the mark in its header, which is unique to one submission; that the client's copy belongs to that
// submission is known by Message-ID field and content. If Exchange's is there first, the client's is never made. Otherwise it
// is made as any other message, and remembered; when Exchange's arrives, the UID is bound to that (store.Unite), and the
// one the client's APPEND made is removed. Should the message never be sent, nothing has happened to the client's copy.

// SendState says how a submitted message is on its way.
type SendState int

// The states.
const (
	NotSending SendState = iota // there is no such message, or it was sent long ago, or never will be
	SendingNow                  // Exchange's copy is there, or will be in seconds
	SendingSometime
)

const (
	sentWait = 20 * time.Second // for the copy of a message that is just being sent
	sentPace = 500 * time.Millisecond

	// copyLife is how long a client's copy waits for its message to be sent. Clients that could not send come back within days.
	copyLife = 7 * 24 * time.Hour
	// copyDoubt is how long Graph may not find a message that was just made.
	copyDoubt = 2 * time.Minute
	// copyTrouble is how long a copy that Graph will not remove is hidden.
	copyTrouble = time.Hour
)

// copyLooks are the times after a message has left at which Sent is asked for Exchange's copy again while a client's copy of it
// stands there: both would be shown until the next round, which is a minute or two away where nobody has the folder open.
var copyLooks = [...]time.Duration{2 * time.Second, 7 * time.Second, 19 * time.Second, 49 * time.Second}

// copyWork is what is left to do about sent copies. Guarded by Syncer.mu.
type copyWork struct {
	settled bool // nothing is, but for what the next change brings
	pruned  time.Time
	awaited map[string]time.Time // Message-ID fields of messages whose copy Exchange is to file any moment: when they left
}

// Sent tells that a message has left, so that Exchange's copy of it is about to come.
func (s *Syncer) Sent(ctx context.Context, messageID string) {
	id, ok := s.Role("sentitems")
	if !ok {
		return
	}
	messageID = strings.TrimSpace(messageID)
	copies, err := s.o.Store.SentCopies(ctx, id, messageID)
	if err != nil {
		s.log.Warn("sent copies not read", "err", err)
	}
	if slices.ContainsFunc(copies, waits) {
		s.awaitCopy(messageID)
	}
	s.Poke(id)
}

func (s *Syncer) awaitCopy(messageID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.copies.awaited == nil || len(s.copies.awaited) > 1000 {
		s.copies.awaited = make(map[string]time.Time)
	}
	s.copies.awaited[messageID] = time.Now()
}

// copyLookLocked returns in how long the folder is to be asked for copies that are awaited, 0 for not at all.
func (s *Syncer) copyLookLocked(id store.FolderID, now time.Time) (wait time.Duration) {
	if role, ok := s.roles["sentitems"]; !ok || role != id {
		return 0
	}
	for messageID, left := range s.copies.awaited {
		age := now.Sub(left)
		i := slices.IndexFunc(copyLooks[:], func(at time.Duration) bool { return at > age })
		if i < 0 {
			delete(s.copies.awaited, messageID)
			continue
		}
		if d := max(copyLooks[i]-age, time.Second); wait == 0 || d < wait { // one round serves many
			wait = d
		}
	}
	return wait
}

// sentCopy describes what is appended as the client's copy of a message it sends, nil if it can be none.
func (s *Syncer) sentCopy(id store.FolderID, ix *message.Index, in *Incoming) (*store.SentCopy, error) {
	env := ix.Root.Envelope
	if role, ok := s.Role("sentitems"); !ok || role != id || env == nil || env.MessageID == "" {
		return nil, nil
	}
	body, err := in.Body.Open()
	if err != nil {
		return nil, err
	}
	defer body.Close()
	content, err := message.Fingerprint(body, ix)
	if err != nil {
		return nil, fmt.Errorf("read message: %w", err)
	}
	return &store.SentCopy{MessageID: env.MessageID, Content: content, Stored: time.Now()}, nil
}

// adoptSent makes Exchange's copy of the message the appended one, with the client's bytes as its text, if Exchange has
// filed it or is about to. found is false if the client's own must be made.
func (s *Syncer) adoptSent(ctx context.Context, row *store.Folder, index []byte, in *Incoming, c *store.SentCopy) (uid imap.UID, found bool, err error) {
	deadline := time.Now().Add(sentWait)
	for s.o.Sending(ctx, c.MessageID, c.Content) == SendingNow {
		m, err := s.findSent(ctx, row, c)
		if err != nil {
			return 0, false, err
		}
		if m != nil {
			uid, err := s.adopt(ctx, row, m, index, in, c)
			return uid, true, err
		}
		if time.Now().After(deadline) {
			break
		}
		select {
		case <-ctx.Done():
			return 0, false, ctx.Err()
		case <-time.After(sentPace):
		}
	}
	return 0, false, nil
}

// findSent looks for Exchange's copy.
func (s *Syncer) findSent(ctx context.Context, row *store.Folder, c *store.SentCopy) (*graph.Message, error) {
	o := fullOptions
	o.Filter = messageIDFilter(c.MessageID)
	o.PageSize = 10
	if s.o.SentMark != (graph.PropertyID{}) {
		o.Expand = append(slices.Clone(o.Expand), s.o.SentMark)
	}
	var candidates []*graph.Message
	list := func() error {
		candidates = nil
		return s.o.Graph.ListMessages(ctx, string(row.GraphID), o, "", func(page []graph.Message, _ string) error {
			for i := range page {
				candidates = append(candidates, &page[i])
			}
			return nil
		})
	}
	err := list()
	if graph.StatusOf(err) == 400 {
		o.Expand = fullOptions.Expand // some tenants refuse the property
		err = list()
	}
	if err != nil {
		return nil, fmt.Errorf("look for the sent copy: %w", err)
	}
	for _, m := range candidates {
		own, err := s.o.OwnCopy(ctx, m, *c)
		if err != nil {
			return nil, fmt.Errorf("look for the sent copy: %w", err)
		}
		if own {
			return m, nil
		}
	}
	return nil, nil
}

func (s *Syncer) adopt(ctx context.Context, row *store.Folder, m *graph.Message, index []byte, in *Incoming, c *store.SentCopy) (imap.UID, error) {
	remote := remoteOf(m, true)
	have, err := s.inFolder(ctx, row.ID, remote.GraphID)
	known := err == nil
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return 0, err
	}
	if in.Flags&store.FlagSeen != 0 && remote.Flags&store.FlagSeen == 0 {
		s.writing(m.ID)
		read, err := s.o.Graph.Update(ctx, m.ID, graph.Update{IsRead: new(true)})
		s.written(m.ID, read, properties{flags: store.FlagSeen})
		if err != nil {
			return 0, err
		}
		remote.Flags |= store.FlagSeen
	}
	if known {
		// Clients may have changed its flags since it was read.
		remote.FlagsMask &= in.Flags & store.FlagSeen
		remote.Keywords = nil
	}
	ctx = context.WithoutCancel(ctx)
	sent := *c
	sent.United = true
	if known && have.HasBody {
		// Its text was read by somebody already: those bytes stay.
		err := s.Commit(func() ([]store.Changes, error) {
			ch, err := s.applyIncoming(ctx, row.ID, remote, &sent)
			return []store.Changes{ch}, err
		})
		return have.UID, err
	}
	return s.keepIncoming(ctx, row.ID, remote, nil, index, in, &sent)
}

// uniteArriving binds clients' copies to those of Exchange among msgs, before these get UIDs of their own.
func (s *Syncer) uniteArriving(ctx context.Context, row *store.Folder, msgs []*graph.Message) error {
	if role, ok := s.Role("sentitems"); !ok || role != row.ID || len(msgs) == 0 {
		return nil
	}
	waiting, err := s.o.Store.HasWaitingCopies(ctx, row.ID)
	if err != nil || !waiting {
		return err
	}
	for _, m := range msgs {
		if m.InternetMessageID == nil {
			continue
		}
		copies, err := s.o.Store.SentCopies(ctx, row.ID, strings.TrimSpace(*m.InternetMessageID))
		if err != nil {
			return err
		}
		done := false
		for i := 0; i < len(copies) && !done; i++ {
			if !waits(copies[i]) {
				continue
			}
			done, err = s.uniteIfOwn(ctx, copies, &copies[i], m, remoteOf(m, true))
			if temporary(err) {
				return err // the round is asked for again
			}
			if err != nil {
				s.log.Warn("sent copy not compared", "mailbox", row.Name, "err", err)
			}
		}
	}
	return nil
}

func waits(c store.SentCopy) bool { return !c.United && time.Since(c.Stored) < copyLife }

// copiesLeft reports whether a folder has copies that must be looked at although nothing has changed.
func (s *Syncer) copiesLeft(id store.FolderID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	role, ok := s.roles["sentitems"]
	return ok && role == id && !s.copies.settled
}

// settleCopies unites copies that are both in the replica, and removes those whose place was taken from Graph. What cannot be
// done now is tried again with the next round of the folder.
func (s *Syncer) settleCopies(ctx context.Context, row *store.Folder) {
	s.mu.Lock()
	s.copies.settled = true // before looking, so that what comes meanwhile is not missed
	prune := time.Since(s.copies.pruned) > time.Hour
	if prune {
		s.copies.pruned = time.Now()
	}
	s.mu.Unlock()
	copies, err := s.o.Store.SentCopiesBeside(ctx, row.ID)
	for i := 0; i < len(copies) && err == nil; i++ {
		err = s.uniteKnown(ctx, row, copies[i].MessageID)
	}
	if err == nil {
		err = s.removeDismissed(ctx)
	}
	if err == nil && prune {
		err = s.o.Store.PruneSentCopies(ctx, time.Now().Add(-copyLife))
	}
	if err != nil {
		s.log.Debug("sent copies are not settled yet", "mailbox", row.Name, "err", err)
		s.unsettleCopies()
	}
}

// settleCopy does the same for what a client has just stored.
func (s *Syncer) settleCopy(ctx context.Context, row *store.Folder, c *store.SentCopy) {
	if s.o.Sending(ctx, c.MessageID, c.Content) == SendingNow {
		s.awaitCopy(c.MessageID) // it is later than the APPEND could wait for
		defer s.Poke(row.ID)
	}
	err := s.uniteKnown(ctx, row, c.MessageID)
	if err == nil && s.copiesLeft(row.ID) {
		err = s.removeDismissed(ctx)
	}
	if err != nil {
		s.log.Debug("sent copy is not settled yet", "mailbox", row.Name, "err", err)
		s.unsettleCopies()
	}
}

// unsettleCopies lets the next round of Sent look at all copies: after a listing, which unites none, and where something is left.
func (s *Syncer) unsettleCopies() {
	s.mu.Lock()
	s.copies.settled = false
	s.mu.Unlock()
}

// uniteKnown unites copies with those of Exchange that have got a UID of their own: they were quicker, or came by a listing.
func (s *Syncer) uniteKnown(ctx context.Context, row *store.Folder, messageID string) error {
	copies, err := s.o.Store.SentCopies(ctx, row.ID, messageID)
	if err != nil || !slices.ContainsFunc(copies, waits) {
		return err
	}
	same, err := s.o.Store.ByInternetMessageID(ctx, s.o.Account, messageID)
	if err != nil {
		return err
	}
	for i := range copies {
		c := &copies[i]
		for j := 0; j < len(same) && waits(*c); j++ {
			m := &same[j]
			if m.Folder != row.ID || m.ID == c.ID {
				continue
			}
			theirs := store.Remote{GraphID: m.GraphID} // its flags are those in the replica
			if c.United, err = s.uniteIfOwn(ctx, copies, c, &graph.Message{ID: string(m.GraphID)}, theirs); err != nil {
				return err
			}
		}
	}
	return nil
}

// uniteIfOwn binds the client's copy c to m if that is Exchange's copy of the same message and stands for no other one.
func (s *Syncer) uniteIfOwn(ctx context.Context, copies []store.SentCopy, c *store.SentCopy, m *graph.Message, theirs store.Remote) (bool, error) {
	have, err := s.inFolder(ctx, c.ID.Folder(), theirs.GraphID)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return false, err
	}
	if err == nil && slices.ContainsFunc(copies, func(o store.SentCopy) bool { return o.ID == have.ID }) {
		return false, nil // a UID that was told by APPENDUID stays
	}
	own, err := s.o.OwnCopy(ctx, m, *c)
	if err != nil {
		return false, err
	}
	if !own {
		return false, nil
	}
	ours, err := s.o.Store.Message(ctx, c.ID)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil // moved or deleted by a client meanwhile
	}
	if err != nil {
		return false, err
	}
	err = s.Commit(func() ([]store.Changes, error) {
		s.mu.Lock()
		busy := s.moving[ours.GraphID] > 0 || s.moving[theirs.GraphID] > 0
		s.mu.Unlock()
		if busy {
			return nil, errMoving
		}
		ch, err := s.o.Store.Unite(context.WithoutCancel(ctx), c.ID, ours.GraphID, theirs)
		return []store.Changes{ch}, err
	})
	switch {
	case errors.Is(err, store.ErrNotFound):
		return false, nil
	case errors.Is(err, errMoving):
		s.unsettleCopies()
		return false, nil
	case err != nil:
		return false, fmt.Errorf("unite sent copies: %w", err)
	}
	s.log.Debug("sent copy united with Exchange's", "uid", c.ID.UID())
	s.mu.Lock()
	delete(s.copies.awaited, c.MessageID)
	s.mu.Unlock()
	ring(s.push) // of flags
	s.unsettleCopies()
	return true, nil
}

// errMoving means that a client is just moving one of two copies.
var errMoving = errors.New("a client is moving the message")

// removeDismissed removes from Graph what clients' APPENDs had made before Exchange's copies took its place. Only what is still where
// it was made is removed. The error says that something is left.
func (s *Syncer) removeDismissed(ctx context.Context) error {
	list, err := s.o.Store.DismissedMessages(ctx, s.o.Account)
	if err != nil {
		return err
	}
	var left error
	for _, d := range list {
		row, err := s.o.Store.Folder(ctx, d.Folder)
		if err != nil {
			return err
		}
		shown := false
		err = s.removeOne(ctx, string(row.GraphID), string(d.GraphID))
		age := time.Since(d.At)
		switch {
		case err == nil:
		case graph.IsNotFound(err) && age > copyDoubt:
		case graph.IsNotFound(err), temporary(err), age < copyTrouble:
			left = err
			continue
		default:
			s.log.Error("a client's copy of a sent message stays in the mailbox beside Exchange's", "mailbox", row.Name, "err", err)
			shown = true
		}
		if err := s.o.Store.DismissedGone(ctx, d, shown); err != nil {
			return err
		}
	}
	return left
}

// removeOne removes a message if it is in the folder.
func (s *Syncer) removeOne(ctx context.Context, folder, id string) error {
	res := s.o.Graph.GetMany(ctx, []string{id}, graph.ListOptions{Select: []string{"id", "parentFolderId"}})[0]
	if res.Err != nil {
		return fmt.Errorf("look for dismissed copy: %w", res.Err)
	}
	if p := res.Message.ParentFolderID; p != nil && *p != folder {
		return nil // somebody wants it elsewhere
	}
	return s.discard(ctx, id)
}

// current returns the messages with the ids they have in Graph now, for a client's copy may have become Exchange's since they were
// read. Those that are gone stay as they were given.
func (s *Syncer) current(ctx context.Context, id store.FolderID, msgs []store.Message) ([]store.Message, error) {
	if role, ok := s.Role("sentitems"); !ok || role != id {
		return msgs, nil
	}
	uids := make([]imap.UID, len(msgs))
	for i := range msgs {
		uids[i] = msgs[i].UID
	}
	now, err := s.o.Store.MessagesByUID(ctx, id, uids)
	if err != nil {
		return nil, err
	}
	byUID := make(map[imap.UID]store.GraphID, len(now))
	for i := range now {
		byUID[now[i].UID] = now[i].GraphID
	}
	out := slices.Clone(msgs)
	for i := range out {
		if g, ok := byUID[out[i].UID]; ok {
			out[i].GraphID = g
		}
	}
	return out, nil
}
