package syncer

import (
	"context"
	"fmt"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend/graph"
	"postern/backend/message"
	"postern/backend/store"
)

// making is one of several messages that are appended together.
type making struct {
	in     *Incoming
	index  *message.Index
	kept   []byte // index, as it is stored
	made   *graph.Message
	header []byte
	sent   *store.SentCopy // nil unless it is the client's copy of a message it sends
	uid    imap.UID
	placed bool // uid is known, nothing is left to do
}

// AppendMany is Append for several messages, all or none (RFC 3502). They are first all made in Graph and then
// shown in the replica; if one cannot be made, those made before it are removed again. Other programs that look
// at the mailbox in between see them for a moment: Graph cannot hide them.
func (s *Syncer) AppendMany(ctx context.Context, id store.FolderID, ins []Incoming) (uids []imap.UID, err error) {
	ctx = graph.WithLane(ctx, graph.Interactive)
	row, err := s.o.Store.Folder(ctx, id)
	if err != nil {
		return nil, err
	}
	list := make([]making, len(ins))
	for i := range ins {
		list[i].in = &ins[i]
		if list[i].index, list[i].kept, err = IndexBody(ins[i].Body); err != nil {
			return nil, err
		}
	}

	release := s.hold(id)
	defer release()
	defer func() {
		if err != nil {
			s.unmake(ctx, row, list)
		}
	}()
	for i := range list {
		m := &list[i]
		if m.sent, err = s.sentCopy(id, m.index, m.in); err != nil {
			return nil, err
		}
		if m.sent != nil {
			uid, found, err := s.adoptSent(ctx, row, m.kept, m.in, m.sent)
			if err != nil {
				return nil, err
			}
			if found {
				m.uid, m.placed = uid, true
				continue
			}
		}
		if m.made, m.header, err = s.create(ctx, row, m.index, m.in); err != nil {
			return nil, fmt.Errorf("message %d of %d: %w", i+1, len(list), err)
		}
	}
	for i := range list {
		m := &list[i]
		if !m.placed {
			remote := remoteOfIncoming(m.made, m.index, m.in)
			// They are in Graph now, so they must get into the replica even when the client hangs up.
			if m.uid, err = s.keepIncoming(context.WithoutCancel(ctx), id, remote, m.header, m.kept, m.in, m.sent); err != nil {
				return nil, err
			}
		}
		uids = append(uids, m.uid)
	}
	release()
	for i := range list {
		if c := list[i].sent; c != nil && !list[i].placed {
			s.settleCopy(context.WithoutCancel(ctx), row, c)
		}
	}
	return uids, nil
}

// unmake removes the messages that were made. Those that are in the replica already leave it with the next delta round.
func (s *Syncer) unmake(ctx context.Context, row *store.Folder, list []making) {
	// The client's context may be what has ended.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	for i := range list {
		if list[i].made == nil {
			continue
		}
		if err := s.discard(ctx, list[i].made.ID); err != nil && !graph.IsNotFound(err) {
			s.log.Error("message of an append that failed stays in the mailbox", "mailbox", row.Name, "err", err)
		}
	}
	s.Poke(row.ID)
}
