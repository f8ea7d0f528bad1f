package syncer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend/graph"
	"postern/backend/message"
	"postern/backend/store"
)

// Incoming is a message a client appends.
type Incoming struct {
	Body     *store.BodyWriter // written; Append takes it over when it succeeds
	Flags    store.Flags
	Keywords []string
	Date     time.Time // INTERNALDATE
}

// made returns the flags the message has when it is new: Graph takes the client's word for what is a draft.
func (in *Incoming) made() store.Flags {
	flags := in.Flags &^ store.FlagIsDraft
	if flags&store.FlagDraft != 0 {
		flags |= store.FlagIsDraft
	}
	return flags
}

// Append makes the message in Graph and in the replica, where the client's own bytes are kept as its text. The client's copy of a
// message that it sends becomes one with the copy that Exchange files (sentcopy.go).
//
// To Drafts goes the MIME text. Elsewhere a message made of MIME would stay a draft for ever (observed, not documented),
// so it is taken apart and made from JSON.
func (s *Syncer) Append(ctx context.Context, id store.FolderID, in Incoming) (imap.UID, error) {
	ctx = graph.WithLane(ctx, graph.Interactive)
	row, err := s.o.Store.Folder(ctx, id)
	if err != nil {
		return 0, err
	}
	ix, kept, err := IndexBody(in.Body)
	if err != nil {
		return 0, err
	}
	sent, err := s.sentCopy(id, ix, &in)
	if err != nil {
		return 0, err
	}
	if sent != nil {
		if uid, found, err := s.adoptSent(ctx, row, kept, &in, sent); found || err != nil {
			return uid, err
		}
	}

	uid, err := s.appendNew(ctx, row, ix, kept, &in, sent)
	if err == nil && sent != nil {
		s.settleCopy(context.WithoutCancel(ctx), row, sent)
	}
	return uid, err
}

func (s *Syncer) appendNew(ctx context.Context, row *store.Folder, ix *message.Index, kept []byte, in *Incoming, sent *store.SentCopy) (imap.UID, error) {
	defer s.hold(row.ID)()
	made, header, err := s.create(ctx, row, ix, in)
	if err != nil {
		return 0, err
	}
	remote := remoteOfIncoming(made, ix, in)
	// The message is in Graph now, so it must get into the replica even when the client hangs up.
	return s.keepIncoming(context.WithoutCancel(ctx), row.ID, remote, header, kept, in, sent)
}

// keepIncoming commits an appended message: the row, its header and the client's bytes, announced as one. sent is nil but for what
// is the client's copy of a message it sends.
func (s *Syncer) keepIncoming(ctx context.Context, id store.FolderID, remote store.Remote, header, index []byte, in *Incoming, sent *store.SentCopy) (uid imap.UID, err error) {
	body, err := s.prepareBody(ctx, in.Body, index, true)
	if err != nil {
		return 0, err
	}
	defer body.discard(ctx)
	err = s.Commit(func() ([]store.Changes, error) {
		ch, err := s.applyIncoming(ctx, id, remote, sent)
		if err != nil {
			return nil, err
		}
		m, err := s.inFolder(ctx, id, remote.GraphID)
		if err != nil {
			return []store.Changes{ch}, err
		}
		uid = m.UID
		if header != nil {
			if err := s.o.Store.SetHeaders(ctx, []store.HeaderRow{{ID: m.ID, Header: header}}); err != nil {
				return []store.Changes{ch}, err
			}
		}
		kept, err := body.attach(ctx, m.ID)
		if err != nil {
			return []store.Changes{ch}, err
		}
		// One announcement: whoever hears of the message hears of its exact size.
		for i := range ch.Added {
			for _, u := range kept.Updated {
				if u.UID == ch.Added[i].UID {
					u.HasHeader = u.HasHeader || header != nil
					ch.Added[i] = u
				}
			}
		}
		return []store.Changes{ch, kept}, nil
	})
	return uid, err
}

func (s *Syncer) applyIncoming(ctx context.Context, id store.FolderID, remote store.Remote, sent *store.SentCopy) (store.Changes, error) {
	if sent == nil {
		return s.o.Store.Apply(ctx, id, []store.Remote{remote}, nil, nil)
	}
	return s.o.Store.ApplySentCopy(ctx, id, remote, *sent)
}

// inFolder returns the message with a Graph id in one folder.
func (s *Syncer) inFolder(ctx context.Context, id store.FolderID, graphID store.GraphID) (*store.Message, error) {
	msgs, err := s.o.Store.MessageByGraphID(ctx, s.o.Account, graphID)
	if err != nil {
		return nil, err
	}
	for i := range msgs {
		if msgs[i].Folder == id {
			return &msgs[i], nil
		}
	}
	return nil, store.ErrNotFound
}

func remoteOfIncoming(made *graph.Message, ix *message.Index, in *Incoming) store.Remote {
	keywords := in.Keywords
	if keywords == nil {
		keywords = []string{}
	}
	r := store.Remote{
		GraphID: store.GraphID(made.ID), Flags: in.Flags, FlagsMask: store.FlagsAll | store.FlagIsDraft, Keywords: &keywords,
		Received: &in.Date, SizeEstimate: &ix.Size, ThreadID: made.ConversationID, InternetMessageID: made.InternetMessageID,
	}
	if made.IsDraft != nil {
		r.Flags &^= store.FlagDraft
		if *made.IsDraft {
			r.Flags |= store.FlagDraft | store.FlagIsDraft
		}
	}
	r.Sent = made.Sent
	if env := ix.Root.Envelope; env != nil {
		if t, ok := message.ParseDate(env.Date); ok {
			r.Sent = &t
		}
		if r.InternetMessageID == nil && env.MessageID != "" {
			r.InternetMessageID = &env.MessageID
		}
	}
	return r
}

// create makes the message in Graph, all of it or nothing. It returns its header block too.
func (s *Syncer) create(ctx context.Context, row *store.Folder, ix *message.Index, in *Incoming) (made *graph.Message, header []byte, err error) {
	body, err := in.Body.Open()
	if err != nil {
		return nil, nil, err
	}
	defer body.Close()
	if header, err = message.HeaderBytes(body, ix); err != nil {
		return nil, nil, err
	}
	for try := 1; ; try++ {
		var gone bool
		made, gone, err = s.createWhole(ctx, row, body, ix, header, in)
		// An answer that was lost on the way does not tell whether an attachment is there. What was made is gone, so
		// nothing is there twice if it is made again.
		if err == nil || !gone || !graph.Unclear(err) || try == createTries || ctx.Err() != nil {
			return made, header, err
		}
		s.log.Info("message is appended anew", "mailbox", row.Name, "err", err)
	}
}

// createWhole makes the message once. gone says that one was made in part and is not there any more.
func (s *Syncer) createWhole(ctx context.Context, row *store.Folder, body *store.Body, ix *message.Index, header []byte, in *Incoming) (made *graph.Message, gone bool, err error) {
	drafts, _ := s.Role("drafts")
	var rest []upload
	asMIME := true // flags are set afterwards
	switch {
	case row.ID == drafts:
		made, rest, err = s.createDraft(ctx, body, ix)
	case s.settings.Load().ImportMIME:
		if made, err = s.importMIME(ctx, row, body); !graph.IsTooLarge(err) {
			break
		}
		fallthrough // in pieces
	default:
		asMIME = false
		made, rest, err = s.createJSON(ctx, row, body, ix, header, in)
	}
	if err != nil {
		return nil, false, fmt.Errorf("append message: %w", err)
	}
	s.writing(made.ID)
	s.wrote(made.ID, made, properties{})
	defer s.endWriting(made.ID, len(rest)) // each attachment that is added makes another version
	if err = s.finish(ctx, made, rest, asMIME, in); err == nil {
		return made, false, nil
	}
	// Half a message must not stay. The client's context may be what has ended.
	cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	derr := s.discard(cctx, made.ID)
	if gone = derr == nil || graph.IsNotFound(derr); !gone {
		s.log.Error("half-made message stays in the mailbox", "mailbox", row.Name, "err", derr)
	}
	return nil, gone, fmt.Errorf("append message: %w", err)
}

// discard removes a message without a trace, or at least from sight.
func (s *Syncer) discard(ctx context.Context, id string) error {
	err := s.o.Graph.PermanentDelete(ctx, id)
	if unavailable(err) || graph.StatusOf(err) == 404 { // of the message, or of the call itself
		err = errors.Join(s.recoverable(ctx, "", []string{id}, false)...)
	}
	return err
}

// finish adds the large attachments and, where creation could not say them, the flags.
func (s *Syncer) finish(ctx context.Context, made *graph.Message, rest []upload, flags bool, in *Incoming) error {
	for _, a := range rest {
		if _, err := s.o.Graph.UploadAttachment(ctx, made.ID, a.meta, a.open); err != nil {
			return fmt.Errorf("add attachment: %w", err)
		}
	}
	if !flags {
		return nil
	}
	u := graph.Update{IsRead: new(in.Flags&store.FlagSeen != 0)}
	if in.Flags&store.FlagFlagged != 0 {
		u.Flag = new(graph.FlagFlagged)
	}
	if len(in.Keywords) > 0 {
		u.Categories = new(categoriesOf(in.Keywords))
	}
	if in.Flags&(store.FlagAnswered|store.FlagForwarded|store.FlagDeleted) != 0 {
		u.Extended = extendedFlags(in.made(), in.Flags)
	}
	m, err := s.o.Graph.Update(ctx, made.ID, u)
	s.wrote(made.ID, m, properties{store.FlagsAll, true})
	return err
}

// openWire returns the body with the line ends that Graph insists on.
func openWire(body *store.Body) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) {
		return io.NopCloser(message.NormalizeCRLF(io.NewSectionReader(body, 0, body.Size()))), nil
	}
}

func wireSize(body *store.Body) (int64, error) {
	return io.Copy(io.Discard, message.NormalizeCRLF(io.NewSectionReader(body, 0, body.Size())))
}

// errRequestSize is what a request that need not be made would be answered with.
var errRequestSize = &graph.Error{Op: "append message", Status: http.StatusRequestEntityTooLarge, Code: "RequestEntityTooLarge"}

// importMIME puts the message into a folder as it is.
func (s *Syncer) importMIME(ctx context.Context, row *store.Folder, body *store.Body) (*graph.Message, error) {
	size, err := wireSize(body)
	if err != nil {
		return nil, err
	}
	if graph.EncodedSize(size) > graph.MaxRequest {
		return nil, errRequestSize
	}
	return s.o.Graph.ImportMIME(ctx, string(row.GraphID), openWire(body), size)
}

// createDraft makes a draft from MIME text, without its attachments where it is too large for one request.
func (s *Syncer) createDraft(ctx context.Context, body *store.Body, ix *message.Index) (*graph.Message, []upload, error) {
	size, err := wireSize(body)
	if err != nil {
		return nil, nil, err
	}
	refused := error(nil)
	if graph.EncodedSize(size) <= graph.MaxRequest {
		made, err := s.createDraftSurely(ctx, ix, openWire(body), size)
		if graph.StatusOf(err) != http.StatusRequestEntityTooLarge {
			return made, nil, err
		}
		refused = err
	} else {
		made, rest, err := s.createSkeleton(ctx, body, ix, message.MaxSkeleton)
		if graph.StatusOf(err) != http.StatusRequestEntityTooLarge {
			return made, rest, err
		}
		refused = err
	}
	// Graph, or a gateway on the way to it, takes less than the documents say.
	made, rest, err := s.createSkeleton(ctx, body, ix, message.TightSkeleton)
	if errors.Is(err, message.ErrIndivisible) {
		err = refused
	}
	return made, rest, err
}

// createSkeleton makes a draft without its largest attachments, of at most aim bytes where that can be, and returns these.
func (s *Syncer) createSkeleton(ctx context.Context, body *store.Body, ix *message.Index, aim int64) (*graph.Message, []upload, error) {
	split, err := message.SplitAttachments(body, ix, 0, aim)
	if err != nil {
		return nil, nil, err
	}
	if n := len(split.Attachments); n > maxFiles {
		return nil, nil, fmt.Errorf("%w: it has %d attachments, Exchange takes %d", message.ErrIndivisible, n, maxFiles)
	}
	var skeleton, wire strings.Builder
	if err := split.Skeleton(&skeleton); err != nil {
		return nil, nil, err
	}
	if _, err := io.Copy(&wire, message.NormalizeCRLF(strings.NewReader(skeleton.String()))); err != nil {
		return nil, nil, err
	}
	if graph.EncodedSize(int64(wire.Len())) > graph.MaxRequest {
		if aim > message.TightSkeleton { // line ends have made it longer
			return s.createSkeleton(ctx, body, ix, message.TightSkeleton)
		}
		return nil, nil, fmt.Errorf("%w: its text alone has %d bytes", message.ErrIndivisible, wire.Len())
	}
	made, err := s.createDraftSurely(ctx, ix, func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(wire.String())), nil
	}, int64(wire.Len()))
	if err != nil {
		return nil, nil, err
	}
	rest := make([]upload, 0, len(split.Attachments))
	for _, a := range split.Attachments {
		rest = append(rest, upload{
			meta: graph.NewAttachment{Name: a.Name, ContentType: a.ContentType, ContentID: a.ContentID, IsInline: a.Inline, Size: a.Size},
			open: openAt(a.Open),
		})
	}
	return made, rest, nil
}

const (
	createTries = 3
	createPause = 500 * time.Millisecond // before looking for what an unclear call may have made: it may show late
)

// surely creates a message in a folder. Where Graph's answer leaves open whether there is one now, it is looked for with
// filter: a client that is told NO would send it again and have it twice.
func (s *Syncer) surely(ctx context.Context, folder, filter string, create func() (*graph.Message, error)) (*graph.Message, error) {
	for try := 1; ; try++ {
		made, err := create()
		if err == nil || !graph.Unclear(err) || filter == "" || try == createTries {
			return made, err
		}
		if !pause(ctx) {
			return nil, err
		}
		found, ferr := s.findNew(ctx, folder, filter, nil)
		if ferr != nil {
			return nil, err
		}
		if found != nil {
			return found, nil
		}
	}
}

// findNew returns a message that matches filter and that the replica does not know yet, nil if there is none.
func (s *Syncer) findNew(ctx context.Context, folder, filter string, except map[string]bool) (found *graph.Message, err error) {
	o := fullOptions
	o.Filter = filter
	o.PageSize = 50
	err = s.o.Graph.ListMessages(ctx, folder, o, "", func(page []graph.Message, _ string) error {
		for i := range page {
			have, err := s.o.Store.MessageByGraphID(ctx, s.o.Account, store.GraphID(page[i].ID))
			if err != nil {
				return err
			}
			if len(have) == 0 && !except[page[i].ID] {
				found = &page[i]
				return errEnough
			}
		}
		return nil
	})
	if isEnough(err) {
		err = nil
	}
	return found, err
}

func (s *Syncer) createDraftSurely(ctx context.Context, ix *message.Index, open func() (io.ReadCloser, error), size int64) (*graph.Message, error) {
	filter := ""
	if env := ix.Root.Envelope; env != nil && env.MessageID != "" {
		filter = messageIDFilter(env.MessageID)
	}
	return s.surely(ctx, "drafts", filter, func() (*graph.Message, error) {
		return s.o.Graph.CreateFromMIME(ctx, open, size)
	})
}

func messageIDFilter(id string) string {
	return "internetMessageId eq '" + strings.ReplaceAll(id, "'", "''") + "'"
}

// upload is an attachment that is added to a message after its creation.
type upload struct {
	meta graph.NewAttachment // Size is that of what open reads
	open func(offset int64) (io.ReadCloser, error)
}

// openAt makes a reader that can only begin at the start begin anywhere, for uploads that are resumed.
func openAt(open func() (io.Reader, error)) func(int64) (io.ReadCloser, error) {
	return func(offset int64) (io.ReadCloser, error) {
		r, err := open()
		if err != nil {
			return nil, err
		}
		if _, err := io.CopyN(io.Discard, r, offset); err != nil {
			return nil, err
		}
		return io.NopCloser(r), nil
	}
}
