package imapd

import (
	"context"
	"errors"
	"slices"

	"github.com/emersion/go-imap/v2"

	"postern/backend"
)

func init() {
	commands["FETCH"] = commandSpec{run: (*session).fetch, in: inSelected, uid: true, keepsNumbers: true}
}

// fetchChunk is how many messages are taken from the replica at once. Nothing of the mailbox is held while
// they are written to the client, which may be slow.
const fetchChunk = 256

// fetch is FETCH and UID FETCH.
func (s *session) fetch(c *command) error {
	req := parseFetch(s.dec, c.uid)
	if err := s.dec.End(); err != nil {
		return err
	}
	if req.vanished && !s.enabled.qresync {
		return bad("ENABLE QRESYNC first")
	}
	sel, err := s.selected(req.set)
	if err != nil {
		return err
	}
	if req.has(fetchModSeq) {
		s.enableCondstore()
	}
	if req.vanished {
		if err := s.tellVanished(req.changedSince, req.set.(imap.UIDSet), 0); err != nil {
			return err
		}
	}
	if len(sel) == 0 {
		return s.enc.Err()
	}
	f := newFetcher(s, req)
	if err := f.sizes(sel); err != nil {
		return err
	}
	if err := f.readPreviews(sel); err != nil {
		return err
	}
	if f.tellsFlags || f.setsSeen {
		s.tellKeywords()
	}
	err = f.run(sel)
	if err != nil && f.s.ctx.Err() == nil && s.enc.Err() == nil && stopsFetch(err) {
		// A client that is told NO takes the messages it did not get for gone: mbsync never asks for them again. One
		// that is cut off comes back and does.
		s.logError(c, err)
		_ = f.markSeen() // it is told when the client is back
		return bye(reply(err).text)
	}
	if seenErr := f.markSeen(); err == nil || s.enc.Err() != nil {
		err = seenErr
	}
	if err == nil {
		err = f.failed
	}
	if err == nil && f.gone {
		c.done("EXPUNGEISSUED", "Some messages are gone")
	}
	return err
}

// fetcher runs one FETCH.
type fetcher struct {
	s   *session
	req *fetchRequest

	needsHeader, needsBody, tellsHeader bool
	tellsFlags                          bool // asked for
	setsSeen                            bool
	gone                                bool // some messages do not exist any more

	texts []backend.HeaderText // that the items are answered from where the bytes are not needed
	found [][]byte             // of the rows, one after another; reused
	buf   []byte               // of found

	preview  *fetchItem          // if asked for
	previews map[imap.UID]string // of messages whose bytes are not kept

	seen   []imap.UID  // told as \Seen, to be stored
	failed error       // the first failure that concerned one message only
	rows   []fetchRow  // reused
	flags  []imap.Flag // reused
}

func newFetcher(s *session, req *fetchRequest) *fetcher {
	f := &fetcher{s: s, req: req, tellsFlags: req.has(fetchFlags)}
	for i := range req.items {
		it := &req.items[i]
		f.needsHeader = f.needsHeader || it.needsHeader()
		f.needsBody = f.needsBody || it.needsBody()
		f.tellsHeader = f.tellsHeader || it.tellsHeader()
		f.setsSeen = f.setsSeen || it.seen
		if it.kind == fetchPreview {
			f.preview = it
		}
	}
	f.setsSeen = f.setsSeen && !s.view.mbox.ReadOnly()
	if f.needsHeader && !f.needsBody {
		f.texts = headerTexts(req.items, s.enc.UTF8())
	}
	return f
}

// headerTexts returns what items, which need the header only, are answered from, and notes with each item which it is.
func headerTexts(items []fetchItem, utf8 bool) (texts []backend.HeaderText) {
	for i := range items {
		it := &items[i]
		var text backend.HeaderText
		switch {
		case it.kind == fetchEnvelope:
			text = envelopeText(utf8)
		case it.needsHeader():
			text = fieldsText(it.section.fields)
		default:
			continue
		}
		it.text = slices.IndexFunc(texts, func(t backend.HeaderText) bool { return t.Name == text.Name })
		if it.text < 0 {
			it.text = len(texts)
			texts = append(texts, text)
		}
	}
	return texts
}

// sizes has sizes that are not known exactly read, as far as the policy goes, where RFC822.SIZE is asked for and
// the bytes are not.
func (f *fetcher) sizes(sel selection) error {
	if f.needsBody || !f.req.has(fetchSize) {
		return nil
	}
	var unknown []imap.UID
	f.s.view.messages(sel, func(_ uint32, msg *backend.Message) bool {
		if !msg.SizeExact && msg.ModSeq > f.req.changedSince {
			unknown = append(unknown, msg.UID)
		}
		return true
	})
	if len(unknown) == 0 {
		return nil
	}
	return f.s.wait(func(ctx context.Context) error { return f.s.view.mbox.ExactSizes(ctx, unknown) })
}

// run writes the responses. An error ends the command.
func (f *fetcher) run(sel selection) error {
	for _, sp := range sel {
		for lo, hi := sp.lo, 0; lo < sp.hi; lo = hi {
			hi = min(lo+fetchChunk, sp.hi)
			if f.texts != nil {
				hi = min(hi, lo+backend.TextsTogether(f.s.view.uids[lo:hi]))
			}
			if err := f.chunk(lo, hi); err != nil {
				return err
			}
		}
	}
	return nil
}

// chunk writes the responses for the messages with indices lo to hi-1 of the view.
func (f *fetcher) chunk(lo, hi int) error {
	f.rows = f.rows[:0]
	all := f.s.view.messages(selection{{lo, hi}}, func(seq uint32, msg *backend.Message) bool {
		if msg.ModSeq > f.req.changedSince {
			f.rows = append(f.rows, fetchRow{seq: seq, msg: *msg})
		}
		return true
	})
	f.gone = f.gone || !all
	if len(f.rows) == 0 {
		return f.s.enc.Err()
	}
	if f.needsBody {
		if f.tellsHeader {
			if err := f.keptHeaders(); err != nil {
				return err
			}
		}
		return f.bodies()
	}
	if f.needsHeader {
		if err := f.headers(); err != nil {
			return err
		}
	}
	for i := range f.rows {
		if err := f.write(&f.rows[i]); err != nil {
			return err
		}
	}
	return nil
}

// headers gives the rows what is made of their headers. Those without one are gone.
func (f *fetcher) headers() error {
	uids := make([]imap.UID, len(f.rows))
	known := true
	for i := range f.rows {
		uids[i] = f.rows[i].msg.UID
		known = known && f.rows[i].msg.HasHeader
	}
	n := len(f.texts)
	f.found = slices.Grow(f.found[:0], n*len(f.rows))[:n*len(f.rows)]
	f.buf = f.buf[:0]
	read := func(ctx context.Context) error {
		return f.s.view.mbox.HeaderTexts(ctx, uids, f.texts, func(i int, texts [][]byte) error {
			row := &f.rows[i]
			row.texts = f.found[n*i : n*i+n]
			for k, text := range texts {
				from := len(f.buf)
				f.buf = append(f.buf, text...)
				row.texts[k] = f.buf[from:]
			}
			return nil
		})
	}
	var err error
	if known {
		err = read(f.s.ctx)
	} else {
		if err = f.s.enc.Flush(); err == nil {
			err = f.s.wait(read)
		}
	}
	if err != nil {
		return err
	}
	f.rows = slices.DeleteFunc(f.rows, func(row fetchRow) bool {
		f.gone = f.gone || row.texts == nil
		return row.texts == nil
	})
	return nil
}

// keptHeaders gives the rows those of their headers that are in the replica.
func (f *fetcher) keptHeaders() error {
	uids := make([]imap.UID, len(f.rows))
	for i := range f.rows {
		uids[i] = f.rows[i].msg.UID
	}
	got, err := f.s.view.mbox.KeptHeaders(f.s.ctx, uids)
	if err != nil {
		return err
	}
	for i := range f.rows {
		f.rows[i].header = got[f.rows[i].msg.UID]
	}
	return nil
}

// bodies writes the responses of rows that need the bytes of their messages.
func (f *fetcher) bodies() error {
	if len(f.rows) == 1 && !f.s.commandWaits() {
		// What commands that have come already ask for is known, and read ahead by bodyQueue.
		f.s.view.mbox.ReadOn(f.s.ctx, f.rows[0].msg.UID)
	}
	q := newBodyQueue(f.s, f.rows)
	defer q.close()
	for i := range f.rows {
		body, err := q.next()
		switch {
		case f.s.ctx.Err() != nil || f.s.enc.Err() != nil:
			if body != nil {
				body.Close()
			}
			return errors.Join(f.s.ctx.Err(), f.s.enc.Err())
		case backend.KindOf(err) == backend.NotFound && err != nil:
			f.gone = true
			continue
		case err != nil:
			if stopsFetch(err) {
				return err
			}
			f.note(err)
			continue
		}
		row := &f.rows[i]
		row.body = body
		err = f.write(row)
		row.body = nil
		body.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// stopsFetch reports whether an error with one message will meet the next one too.
func stopsFetch(err error) bool {
	switch backend.KindOf(err) {
	case backend.Unavailable, backend.SignInNeeded:
		return true
	}
	return errors.Is(err, context.Canceled)
}

// note keeps the first failure for the tagged response; the other messages are still served.
func (f *fetcher) note(err error) {
	if f.failed == nil {
		f.failed = err
	}
}

// write writes one response. An error ends the command.
func (f *fetcher) write(row *fetchRow) error {
	newlySeen := f.setsSeen && !row.msg.HasFlag(imap.FlagSeen)
	if f.tellsFlags || newlySeen {
		f.flags = f.s.flagsToTell(f.flags[:0], &row.msg)
		if newlySeen {
			f.flags = append(f.flags, imap.FlagSeen)
		}
		row.flags = f.flags
	}
	if f.preview != nil {
		if err := f.setPreview(row); err != nil {
			if stopsFetch(err) {
				return err
			}
			f.note(err)
			return nil
		}
	}
	if err := writeFetch(f.s.enc, f.req.items, row, newlySeen && !f.tellsFlags); err != nil {
		if f.s.enc.Err() != nil {
			return f.s.enc.Err()
		}
		f.note(err)
		return nil // what the client did not get is not \Seen
	}
	if newlySeen {
		f.seen = append(f.seen, row.msg.UID)
	}
	return f.s.enc.Err()
}

// markSeen stores \Seen for what was told as seen. What others have changed meanwhile is told before, so that
// keeping silent about our own change hides nothing. If it cannot be stored the flags are told as they are.
func (f *fetcher) markSeen() error {
	if len(f.seen) == 0 || f.s.enc.Err() != nil {
		return f.s.enc.Err()
	}
	if err := f.s.tellChanges(false); err != nil {
		return err
	}
	before := f.s.view.modSeq
	err := f.s.wait(func(ctx context.Context) error {
		_, err := f.s.view.mbox.Store(ctx, f.seen, backend.StoreAdd, []imap.Flag{imap.FlagSeen}, 0)
		return err
	})
	if err != nil {
		f.s.tellFlags(f.seen)
		return err
	}
	if err := f.s.tellChangesBut(false, f.seen); err != nil {
		return err
	}
	f.s.tellModSeqs(f.seen, before)
	return f.s.enc.Err()
}
