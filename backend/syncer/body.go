package syncer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend/graph"
	"postern/backend/message"
	"postern/backend/store"
)

// flight is a fetch under way that several may wait for.
type flight struct {
	done chan struct{}
	err  error
}

// FetchBody reads a message's MIME text from Graph into the store, once for all who ask at the same time. Exchange
// builds the text anew on each call (Graph: outlook-get-mime-message), so it is asked for only when nothing is kept.
func (s *Syncer) FetchBody(ctx context.Context, m store.Message) error {
	for {
		s.mu.Lock()
		fl := s.bodies[m.ID]
		if fl == nil {
			fl = &flight{done: make(chan struct{})}
			s.bodies[m.ID] = fl
			s.mu.Unlock()
			fl.err = s.fetchBody(ctx, m)
			s.mu.Lock()
			delete(s.bodies, m.ID)
			s.mu.Unlock()
			close(fl.done)
			return fl.err
		}
		s.mu.Unlock()
		select {
		case <-fl.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if fl.err == nil {
			return nil
		}
		if !temporary(fl.err) {
			return fl.err
		}
		// It may have ended because the one who did it went away. Try oneself.
	}
}

// fetchTries is how often a text is begun anew when it breaks off on the way.
const fetchTries = 3

func (s *Syncer) fetchBody(ctx context.Context, m store.Message) error {
	err := s.tryBody(ctx, m)
	if ctx.Err() != nil || !s.failsAlone(m.ID, err) || !s.othersRead(ctx, m) {
		return err
	}
	s.log.Warn("Exchange fails to give a message's text, again and again, and gives that of others", "uid", m.UID, "err", err)
	w, err := s.o.Store.NewBody()
	if err != nil {
		return err
	}
	defer w.Abort()
	if err := s.writeStandIn(ctx, m, w, "the attempt fails each time"); err != nil {
		return err
	}
	return s.keepBody(ctx, m, w)
}

// A text that Graph fails to give is asked for so often, over so long, before that is taken for lasting: programs that read one
// message after the other do not get past it until then.
const (
	aloneTries = 3
	aloneAfter = 10 * time.Minute
)

// textFault is what is known of a message whose text Graph fails to give.
type textFault struct {
	since time.Time
	fails int
}

// failsAlone notes how an attempt to read a message's text ended, and reports whether it has failed for long.
func (s *Syncer) failsAlone(id store.MessageID, err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		delete(s.textFaults, id)
		return false
	}
	if !graph.IsTemporary(err) || graph.IsThrottled(err) || graph.IsNoMailbox(err) || graph.StatusOf(err) == http.StatusUnauthorized {
		return false
	}
	f := s.textFaults[id]
	if f == nil {
		if s.textFaults == nil || len(s.textFaults) > 1000 {
			s.textFaults = make(map[store.MessageID]*textFault)
		}
		f = &textFault{since: time.Now()}
		s.textFaults[id] = f
	}
	f.fails++
	return f.fails >= aloneTries && time.Since(f.since) >= aloneAfter
}

// othersRead reports whether Graph gives the text of one of the message's neighbours now.
func (s *Syncer) othersRead(ctx context.Context, m store.Message) bool {
	var uids []imap.UID
	for d := imap.UID(1); d <= 10; d++ {
		uids = append(uids, m.UID+d)
		if m.UID > d {
			uids = append(uids, m.UID-d)
		}
	}
	others, err := s.o.Store.MessagesByUID(ctx, m.Folder, uids)
	if err != nil {
		return false
	}
	for _, o := range others[:min(3, len(others))] {
		if _, err := s.o.Graph.MIME(ctx, string(o.GraphID), io.Discard); err == nil {
			return true
		}
	}
	return false
}

// tryBody reads the text, a few times if it has to.
func (s *Syncer) tryBody(ctx context.Context, m store.Message) error {
	for try := 1; ; try++ {
		err := s.fetchBodyOnce(ctx, m)
		if graph.IsNotFound(err) {
			err = s.whyNotFound(ctx, m, err)
		}
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errStillThere) && try < foundTries:
		case try >= fetchTries || !graph.IsTemporary(err) || graph.IsThrottled(err):
			return err
		}
		s.log.Debug("message is read again", "uid", m.UID, "err", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(try) * 200 * time.Millisecond):
		}
	}
}

// foundTries is how often the text of a message is asked for that Graph says it does not find, while it lists it.
const foundTries = 5

// errStillThere means that Graph does not find the text of a message that is there. It is a temporary failure: a program
// that is told that a message is gone never asks for it again.
var errStillThere = &graph.Error{Status: http.StatusServiceUnavailable, Message: "the message is listed, but not found"}

// whyNotFound finds out what it means that Graph did not find a message: its error is err, and the replica knows, when
// the message has left its folder, and errStillThere while that is not certain.
func (s *Syncer) whyNotFound(ctx context.Context, m store.Message, err error) error {
	row, ferr := s.o.Store.Folder(ctx, m.Folder)
	if ferr != nil {
		return err
	}
	res := s.o.Graph.GetMany(ctx, []string{string(m.GraphID)}, graph.ListOptions{Select: []string{"id", "parentFolderId"}})[0]
	switch {
	case res.Err == nil && (res.Message.ParentFolderID == nil || *res.Message.ParentFolderID == string(row.GraphID)):
		return errStillThere
	case res.Err != nil && !graph.IsNotFound(res.Err):
		return fmt.Errorf("look for message: %w", res.Err)
	case res.Err != nil && s.doubtful(m.GraphID):
		// Graph may not find for a moment what it has listed already.
		s.Poke(m.Folder)
		if _, rerr := s.inFolder(ctx, m.Folder, m.GraphID); errors.Is(rerr, store.ErrNotFound) {
			return err
		}
		return errStillThere
	}
	// It is told as removed, so that it is told as new should it come back.
	if _, aerr := s.apply(context.WithoutCancel(ctx), m.Folder, nil, []store.GraphID{m.GraphID}, nil); aerr != nil {
		return aerr
	}
	return err
}

func (s *Syncer) fetchBodyOnce(ctx context.Context, m store.Message) error {
	w := s.o.Store.NewText()
	defer func() { w.Abort() }()
	if _, err := s.o.Graph.MIME(ctx, string(m.GraphID), w); err != nil {
		if !unreadable(err) {
			return fmt.Errorf("read message: %w", err)
		}
		s.log.Warn("Exchange cannot give a message's text", "uid", m.UID, "err", err)
		w.Abort()
		w = s.o.Store.NewText()
		if err := s.writeStandIn(ctx, m, w, "its data is damaged"); err != nil {
			return err
		}
	}
	return s.keepBody(ctx, m, w)
}

// keepBody makes what was written to w the text of a message.
func (s *Syncer) keepBody(ctx context.Context, m store.Message, w *store.BodyWriter) error {
	ctx = context.WithoutCancel(ctx)
	ix, index, err := IndexBody(w)
	if err != nil {
		return err
	}
	header, err := headerFrom(w, ix)
	if err != nil {
		return err
	}
	var kept *keptBody
	if w.Size() >= stageFrom {
		if header, index, err = s.keepTold(ctx, m.ID, header, ix, index); err != nil {
			return err
		}
		if kept, err = s.prepareBody(ctx, w, index, false); err != nil {
			return err
		}
		defer kept.discard(ctx)
	}
	known := false
	err = s.Commit(func() ([]store.Changes, error) {
		// A client that is just appending the message may have been quicker: its bytes stay.
		if b, err := s.o.Store.Body(ctx, m.ID); err == nil {
			known = true
			return nil, b.Close()
		}
		if kept == nil {
			ch, err := w.CommitText(ctx, m.ID, func(told []byte) ([]byte, []byte, error) {
				var err error
				header, index, err = withTold(told, header, ix, index)
				return header, index, err
			})
			return []store.Changes{ch}, err
		}
		ch, err := kept.attach(ctx, m.ID)
		if err == nil {
			err = s.o.Store.SetHeaders(ctx, []store.HeaderRow{{ID: m.ID, Header: header}})
		}
		return []store.Changes{ch}, err
	})
	if err == nil && !known {
		s.announceHeaders([]store.HeaderRow{{ID: m.ID, Header: header}}, m.Folder)
	}
	return err
}

// keepTold makes header and structure of a message that has just been read say what clients may have been told before, from
// a header that was read without the text: Exchange puts the two together anew each time, and not alike.
func (s *Syncer) keepTold(ctx context.Context, id store.MessageID, own []byte, ix *message.Index, index []byte) (header, newIndex []byte, err error) {
	// Nobody can put another header in place of one that is there.
	if err := s.o.Store.AddHeaders(ctx, []store.HeaderRow{{ID: id, Header: own}}); err != nil {
		return nil, nil, err
	}
	headers, err := s.o.Store.Headers(ctx, []store.MessageID{id})
	if err != nil {
		return nil, nil, err
	}
	return withTold(headers[id], own, ix, index)
}

// withTold is what keepTold does with the header that clients were told, nil for none.
func withTold(told, own []byte, ix *message.Index, index []byte) (header, newIndex []byte, err error) {
	if len(told) == 0 || bytes.Equal(told, own) {
		return own, index, nil
	}
	header = message.CompleteHeader(told, own)
	ix.Root.Envelope = message.ParseEnvelope(header)
	newIndex, err = ix.MarshalBinary()
	return header, newIndex, err
}

// stageFrom is the size from which a body is made durable before commits are held up for it.
const stageFrom = 1 << 20

// keptBody is a body on its way into the store.
type keptBody struct {
	s          *Syncer
	w          *store.BodyWriter
	index      []byte
	fromClient bool
	staged     store.BodyID // 0: not staged
}

func (s *Syncer) prepareBody(ctx context.Context, w *store.BodyWriter, index []byte, fromClient bool) (*keptBody, error) {
	k := &keptBody{s: s, w: w, index: index, fromClient: fromClient}
	if w.Size() < stageFrom {
		return k, nil
	}
	var err error
	k.staged, err = w.Stage(ctx, index, fromClient)
	return k, err
}

// attach makes the body that of a message.
func (k *keptBody) attach(ctx context.Context, id store.MessageID) (store.Changes, error) {
	if k.staged == 0 {
		return k.w.Commit(ctx, id, k.index, k.fromClient)
	}
	ch, err := k.s.o.Store.AttachBody(ctx, id, k.staged)
	if err == nil {
		k.staged = 0
	}
	return ch, err
}

// discard drops the body if it was not attached.
func (k *keptBody) discard(ctx context.Context) {
	if k.staged == 0 {
		return
	}
	if err := k.s.o.Store.DiscardBody(ctx, k.staged); err != nil {
		k.s.log.Warn("staged message text was not discarded", "err", err)
	}
}

// unreadable reports a message whose text Exchange will never be able to build (observed, not documented).
func unreadable(err error) bool {
	return graph.IsCode(err, "ErrorCorruptData", "ErrorInvalidRecipients", "ErrorCannotOpenFileAttachment")
}

// writeStandIn writes a message that says why the real one cannot be shown. Without it a mail program would ask again and
// again, and some never get past it to the next message.
func (s *Syncer) writeStandIn(ctx context.Context, m store.Message, w *store.BodyWriter, why string) error {
	known := &graph.Message{}
	if res := s.o.Graph.GetMany(ctx, []string{string(m.GraphID)}, headerOptions); len(res) == 1 && res[0].Err == nil && res[0].Message != nil {
		known = res[0].Message
	}
	header := bytes.TrimSuffix(madeHeader(known), []byte("\r\n"))
	_, err := fmt.Fprintf(w, "%sX-Postern-Unreadable: yes\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n"+
		"Microsoft 365 cannot deliver the content of this message: %s.\r\n"+
		"Outlook may still be able to show a part of it.\r\n", header, why)
	return err
}

// headerFrom returns the header block of what was written to w.
func headerFrom(w *store.BodyWriter, ix *message.Index) ([]byte, error) {
	b, err := w.Open()
	if err != nil {
		return nil, err
	}
	defer b.Close()
	return message.HeaderBytes(b, ix)
}

// IndexBody reads back what was written to w and returns its structure, in memory and as it is kept.
func IndexBody(w *store.BodyWriter) (*message.Index, []byte, error) {
	b, err := w.Open()
	if err != nil {
		return nil, nil, err
	}
	defer b.Close()
	ix, err := message.Parse(b, b.Size())
	if err != nil {
		return nil, nil, fmt.Errorf("read message's structure: %w", err)
	}
	kept, err := ix.MarshalBinary()
	if err != nil {
		return nil, nil, err
	}
	return ix, kept, nil
}
