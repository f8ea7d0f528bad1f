package backend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"postern/backend/graph"
	"postern/backend/message"
	"postern/backend/outbox"
	"postern/backend/store"
	"postern/backend/token"
)

const (
	// minSplit is the encoded size from which an attachment may be uploaded by itself. The largest go first, so small ones
	// do only where a message consists of them.
	minSplit = 1 << 10
	// doubtfulMIME is the size from which sendMail has been seen to answer 200 and
	// send nothing (observed, not documented). After an unclear end such a message
	// goes by way of a draft.
	doubtfulMIME = 2_200_000
	// uploadPatience is how long a piece of an attachment waits for Graph's limit of 150 MB in 5 minutes. Giving up
	// would throw away what is there already, which counts.
	uploadPatience = 10 * time.Minute
	// waitForLarge is when to come back to a large message while another one of the mailbox is under way: two that share
	// the limit would both end in its middle.
	waitForLarge = 15 * time.Second
)

// sender is the outbox's way to Exchange.
type sender struct{ b *Backend }

// Delay says how long a message of the mailbox would wait for its pace and budget.
func (s *sender) Delay(mailbox string) time.Duration {
	a, ok := s.b.Account(mailbox)
	if !ok {
		return 0
	}
	return a.budget.Delay(graph.Sending)
}

func (s *sender) account(mailbox string) (*Account, error) {
	a, ok := s.b.Account(mailbox)
	if !ok {
		return nil, &outbox.Error{Outcome: outbox.Temporary, Status: "4.3.5",
			Text: "The mailbox is no longer configured.", Err: fmt.Errorf("mailbox %s is not configured", mailbox)}
	}
	return a, nil
}

// Send sends what is not sent yet of the message.
func (s *sender) Send(ctx context.Context, job *outbox.Job) error {
	a, err := s.account(job.Mailbox)
	if err != nil {
		return err
	}
	ctx = graph.WithLane(ctx, graph.Sending)
	f, err := os.Open(job.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	header, bodyOff, err := readHeader(f)
	if err != nil {
		return err
	}
	if job.Content == "" && job.Digest != "" {
		// With this a client's own copy of it is known, also when the file is gone.
		job.Content = s.b.contentOf(&job.Submission)
	}
	ctx = graph.WithAnswered(ctx, job.SetRequestID)
	parts := splitRecipients(header, addressesOf(job.Recipients), maxPartRecipients)
	for job.Part() < len(parts) {
		m := &outgoing{header: addressHeader(partHeader(header, job), parts[job.Part()]), body: f, bodyOff: bodyOff, bodySize: job.Size - bodyOff}
		if err := s.sendPart(ctx, a, job, m); err != nil {
			return classify(err, job)
		}
		if err := job.PartDone(ctx); err != nil {
			return &outbox.Error{Outcome: outbox.Unclear, Err: err} // sent, but not noted
		}
	}
	a.syncer.Sent(ctx, job.MessageID)
	return nil
}

func (s *sender) sendPart(ctx context.Context, a *Account, job *outbox.Job, m *outgoing) error {
	draft, ready := job.Draft()
	if draft != "" && ready {
		return s.sendDraft(ctx, a, job, draft)
	}
	if draft != "" {
		// An earlier attempt broke off while filling it.
		if err := s.dropDraft(ctx, a, job, draft); err != nil {
			return notSent(err)
		}
	}
	size := m.size()
	if graph.EncodedSize(size) > graph.MaxRequest || job.WasUnclear() && size > doubtfulMIME {
		return s.sendLarge(ctx, a, job, m, message.MaxSkeleton)
	}
	err := a.graph.SendMIME(ctx, m.open, size)
	if graph.StatusOf(err) != http.StatusRequestEntityTooLarge {
		return err
	}
	return s.sendTighter(ctx, a, job, m, err)
}

// sendTighter sends in smaller requests what was refused as too large for one, by Graph or a gateway on the way to it.
func (s *sender) sendTighter(ctx context.Context, a *Account, job *outbox.Job, m *outgoing, refused error) error {
	err := s.sendLarge(ctx, a, job, m, message.TightSkeleton)
	if errors.Is(err, message.ErrIndivisible) {
		return refused
	}
	return err
}

// sendDraft sends a complete draft. It can be asked for again: once Exchange has
// taken the draft, it is no longer there to be sent.
func (s *sender) sendDraft(ctx context.Context, a *Account, job *outbox.Job, draft string) error {
	err := a.graph.Send(ctx, draft)
	switch {
	case err == nil || graph.Unclear(err) || graph.IsTemporary(err):
		return err
	case graph.IsNotFound(err) && job.WasUnclear():
		// Gone between looking and sending. It is in Sent Items, or someone deleted it.
		return &outbox.Error{Outcome: outbox.Unclear, Err: err}
	case graph.IsNotFound(err):
		// Whatever was tried before was clearly refused, so it has not left: someone has emptied Drafts.
		if serr := job.SetDraft(ctx, "", false); serr != nil {
			return serr
		}
		return &outbox.Error{Outcome: outbox.Temporary, Status: "4.4.0", Err: err,
			Text: "The message was deleted from Drafts before it was sent; it is put there again."}
	}
	// Written down first: a complete draft that is not there counts as sent, also for
	// the next run should this one be killed between the two steps.
	if serr := job.SetDraft(ctx, draft, false); serr != nil {
		return serr
	}
	if derr := s.dropDraft(ctx, a, job, draft); derr != nil {
		s.b.log.Warn("draft left behind for now", "queue_id", job.ID, "mailbox", job.Mailbox, "op", "remove draft", "err", derr)
	}
	return err
}

// sendLarge makes a draft from the message without its large attachments, of at most aim bytes where that can be, uploads
// these, and sends it. The draft's id is on disk before anything depends on it.
func (s *sender) sendLarge(ctx context.Context, a *Account, job *outbox.Job, m *outgoing, aim int64) error {
	size := m.size()
	ix, err := message.Parse(m, size)
	if err != nil {
		return fmt.Errorf("read message: %w", err)
	}
	split, err := message.SplitAttachments(m, ix, minSplit, aim)
	if errors.Is(err, message.ErrIndivisible) {
		return &outbox.Error{Outcome: outbox.Permanent, Status: "5.3.4", Err: err,
			Text: fmt.Sprintf("The message has %.1f MB. Microsoft 365 takes no more than 3 MB at once, and a message that is signed, encrypted or of unusual structure cannot be handed over in pieces without damage.", float64(size)/1e6)}
	}
	if err != nil {
		return fmt.Errorf("take message apart: %w", err)
	}
	var skeleton bytes.Buffer
	skeleton.Grow(int(split.SkeletonSize))
	if err := split.Skeleton(&skeleton); err != nil {
		return fmt.Errorf("take message apart: %w", err)
	}

	if !a.large.TryLock() {
		return &outbox.Error{Outcome: outbox.Temporary, Uncounted: true, Status: "4.4.5", RetryAfter: waitForLarge,
			Text: "Another large message of the mailbox is being handed over.", Err: errors.New("another large message is under way")}
	}
	unlock := sync.OnceFunc(a.large.Unlock)
	defer unlock()
	if job.Attempts > 1 || job.WasUnclear() || job.Drafting() {
		// A draft whose creation ended unclearly is not on our records.
		if err := s.removeStrays(ctx, a, job); err != nil {
			return notSent(err)
		}
	}
	if err := job.BeginDraft(ctx); err != nil {
		return err
	}
	draft, err := a.graph.CreateFromMIME(ctx, func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(skeleton.Bytes())), nil
	}, int64(skeleton.Len()))
	if graph.StatusOf(err) == http.StatusRequestEntityTooLarge && aim > message.TightSkeleton {
		unlock()
		return s.sendTighter(ctx, a, job, m, err)
	}
	if graph.IsDenied(err) {
		return &outbox.Error{Outcome: outbox.Temporary, Status: "4.7.1", RetryAfter: max(graph.RetryAfter(err), time.Minute), Err: err,
			Text: "The application may not make drafts in this mailbox, as which large messages are sent; an administrator must allow it (Mail.ReadWrite)."}
	}
	if err != nil {
		return notSent(err)
	}
	if err := job.SetDraft(ctx, draft.ID, false); err != nil {
		return err // found by its mark
	}
	done, total := int64(skeleton.Len()), int64(skeleton.Len())
	for _, att := range split.Attachments {
		total += att.Size
	}
	for _, att := range split.Attachments {
		job.SetUploaded(done, total)
		ctx := graph.WithUploaded(ctx, func(n int64) { job.SetUploaded(done+n, total) })
		_, err := a.graph.UploadAttachment(graph.WithPatience(ctx, uploadPatience), draft.ID, graph.NewAttachment{
			Name: att.Name, ContentType: att.ContentType, ContentID: strings.Trim(att.ContentID, "<>"),
			IsInline: att.Inline, Size: att.Size,
		}, func(offset int64) (io.ReadCloser, error) { return openAt(att.Open, offset) })
		if err != nil {
			if derr := s.dropDraft(ctx, a, job, draft.ID); derr != nil {
				s.b.log.Warn("draft left behind for now", "queue_id", job.ID, "mailbox", job.Mailbox, "op", "remove draft", "err", derr)
			}
			return notSent(err)
		}
		done += att.Size
	}
	if err := job.SetDraft(ctx, draft.ID, true); err != nil {
		return err
	}
	return s.sendDraft(ctx, a, job, draft.ID)
}

// openAt opens an attachment's content and skips to offset.
func openAt(open func() (io.Reader, error), offset int64) (io.ReadCloser, error) {
	r, err := open()
	if err != nil {
		return nil, err
	}
	if _, err := io.CopyN(io.Discard, r, offset); err != nil {
		return nil, fmt.Errorf("skip to %d: %w", offset, err)
	}
	return io.NopCloser(r), nil
}

// notSent marks an error of a step before sending: however it ended, nothing has left.
func notSent(err error) error {
	if graph.Unclear(err) {
		return &outbox.Error{Outcome: outbox.Temporary, Status: "4.4.0", RetryAfter: graph.RetryAfter(err), Err: err}
	}
	return err
}

// dropDraft deletes the draft of the job's part and notes that. What cannot be deleted stays noted, for the next attempt
// or for RemoveDrafts.
func (s *sender) dropDraft(ctx context.Context, a *Account, job *outbox.Job, id string) error {
	if err := s.removeDraft(ctx, a, id); err != nil {
		return err
	}
	return job.SetDraft(ctx, "", false)
}

// removeDraft deletes a draft nobody needs. It works after ctx has ended, too.
func (s *sender) removeDraft(ctx context.Context, a *Account, id string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	err := a.graph.PermanentDelete(ctx, id)
	if graph.StatusOf(err) == http.StatusNotFound {
		// Of the draft, or in clouds without permanentDelete of the call.
		if _, gerr := a.graph.Message(ctx, id, graph.ListOptions{Select: []string{"id"}}); graph.IsNotFound(gerr) {
			return nil
		}
	}
	if err != nil {
		err = a.graph.Delete(ctx, id) // clouds without permanentDelete
	}
	if err != nil && !graph.IsNotFound(err) {
		return fmt.Errorf("remove draft: %w", err)
	}
	return nil
}

// removeStrays deletes drafts that carry the message's mark.
func (s *sender) removeStrays(ctx context.Context, a *Account, job *outbox.Job) error {
	found, err := s.search(ctx, a, job)
	if err != nil {
		return err
	}
	for _, m := range found {
		if m.IsDraft != nil && *m.IsDraft {
			if err := s.removeDraft(ctx, a, m.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// RemoveDrafts removes what a message that was given up, or was found sent after all, may have left in Drafts.
func (s *sender) RemoveDrafts(ctx context.Context, job *outbox.Job) error {
	a, err := s.account(job.Mailbox)
	if err != nil {
		return err
	}
	ctx = graph.WithLane(ctx, graph.Background)
	parts := 1 + len(job.Recipients)/maxPartRecipients
	for part := range parts {
		found, err := s.searchIn(ctx, a, "", job.MessageID, partMark(job.ID, part))
		if err != nil {
			return classify(err, job)
		}
		for _, m := range found {
			if m.IsDraft == nil || !*m.IsDraft {
				continue
			}
			if err := s.removeDraft(ctx, a, m.ID); err != nil {
				return classify(err, job)
			}
		}
	}
	return nil
}

// Find looks for the part that was being sent when an attempt ended unclearly.
func (s *sender) Find(ctx context.Context, job *outbox.Job) (bool, error) {
	a, err := s.account(job.Mailbox)
	if err != nil {
		return false, err
	}
	ctx = graph.WithLane(ctx, graph.Sending)
	done := func() (bool, error) {
		if err := job.PartDone(ctx); err != nil {
			return false, err
		}
		a.syncer.Sent(ctx, job.MessageID)
		return true, nil
	}

	draft, ready := job.Draft()
	if draft != "" {
		m, err := a.graph.Message(ctx, draft, graph.ListOptions{Select: []string{"id", "isDraft"}})
		switch {
		case err == nil && m.IsDraft != nil && !*m.IsDraft:
			return done()
		case err == nil:
			return false, nil // there it lies, unsent
		case !graph.IsNotFound(err):
			return false, notSeen(err, job)
		case ready:
			// A draft is gone once Exchange has taken it for sending; its copy in Sent
			// Items has the same id but comes later.
			return done()
		}
		return false, job.SetDraft(ctx, "", false) // never complete, and gone
	}

	found, err := s.search(ctx, a, job)
	if err != nil {
		return false, notSeen(err, job)
	}
	stray := ""
	for _, m := range found {
		if m.IsDraft == nil || !*m.IsDraft {
			return done()
		}
		stray = m.ID
	}
	if stray != "" && !job.Drafting() {
		// sendMail's own draft, whole but not sent. It is sent instead of a second one. One that we were about to make lacks
		// its attachments, and is removed by the next attempt.
		return false, job.SetDraft(ctx, stray, true)
	}
	return false, nil
}

// notSeen says what a failed look means.
func notSeen(err error, job *outbox.Job) error {
	denied := graph.IsDenied(err)
	err = classify(err, job)
	if e, ok := errors.AsType[*outbox.Error](err); ok && denied {
		e.Blind = true
		e.Text = "The message was perhaps sent, and the application may not read the mailbox to find out; an administrator can allow it (Mail.ReadWrite)."
	}
	return err
}

// Filed reports whether a message that Exchange has taken can be found in the mailbox.
func (s *sender) Filed(ctx context.Context, sub *store.Submission) (bool, error) {
	a, err := s.account(sub.Mailbox)
	if err != nil {
		return false, err
	}
	found, err := s.searchIn(graph.WithLane(ctx, graph.Sending), a, "", sub.MessageID, partMark(sub.ID, 0))
	return len(found) > 0, err
}

// search returns the messages anywhere in the mailbox, drafts too, that carry the
// Message-ID and the mark of the job's current part. Message-ID alone proves nothing:
// a mailer may submit one message to several envelopes, and a client may have filed
// its own copy in Sent Items.
func (s *sender) search(ctx context.Context, a *Account, job *outbox.Job) ([]graph.Message, error) {
	return s.searchIn(ctx, a, "", job.MessageID, partMark(job.ID, job.Part()))
}

// searchIn looks in one folder, by id or well-known name, or with "" everywhere.
func (s *sender) searchIn(ctx context.Context, a *Account, folder, messageID, want string) ([]graph.Message, error) {
	mark := graph.InternetHeader(markField)
	o := graph.ListOptions{
		Select: []string{"id", "isDraft", "internetMessageId"},
		Expand: []graph.PropertyID{mark},
		Filter: "internetMessageId eq '" + strings.ReplaceAll(messageID, "'", "''") + "'",
	}
	if !plainMessageID(messageID) {
		// Nobody says what Exchange makes of such a one. Searching by the mark is slower.
		o.Filter = "singleValueExtendedProperties/Any(ep: ep/id eq '" + mark.String() + "' and ep/value eq '" + want + "')"
	}
	var candidates []graph.Message
	collect := func(page []graph.Message, _ string) error {
		candidates = append(candidates, page...)
		return nil
	}
	err := a.graph.ListMessages(ctx, folder, o, "", collect)
	if graph.StatusOf(err) == http.StatusBadRequest {
		// Some tenants refuse the property; the mark is then read from the messages.
		candidates, o.Expand = nil, nil
		err = a.graph.ListMessages(ctx, folder, o, "", collect)
	}
	if err != nil {
		return nil, fmt.Errorf("look for message: %w", err)
	}
	var found []graph.Message
	for _, m := range candidates {
		got := strings.TrimSpace(m.Property(mark))
		if got == "" {
			if got, err = s.readMark(ctx, a, m.ID); err != nil {
				return nil, fmt.Errorf("look for message: %w", err)
			}
		}
		if got == want {
			found = append(found, m)
		}
	}
	return found, nil
}

// plainMessageID reports whether id is of the form every program leaves as it is.
func plainMessageID(id string) bool {
	inner, ok := strings.CutPrefix(id, "<")
	inner, end := strings.CutSuffix(inner, ">")
	return ok && end && len(id) < 900 && strings.Count(inner, "@") == 1 &&
		!strings.ContainsFunc(inner, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '<' || r == '>' || r == '"' })
}

// errHeaderRead ends the reading of a message behind its header.
var errHeaderRead = errors.New("header has been read")

// headerWriter keeps what it is given until the header is complete.
type headerWriter struct{ buf []byte }

func (h *headerWriter) Write(p []byte) (int, error) {
	from := max(0, len(h.buf)-3)
	h.buf = append(h.buf, p...)
	if end := headerEnd(h.buf, from); end >= 0 {
		h.buf = h.buf[:end]
		return 0, errHeaderRead
	}
	if len(h.buf) > 2*maxHeader {
		return 0, errHeaderRead
	}
	return len(p), nil
}

const readTries = 3

func (s *sender) readMark(ctx context.Context, a *Account, id string) (string, error) {
	var h headerWriter
	for try := 1; ; try++ {
		h.buf = h.buf[:0]
		_, err := a.graph.MIME(ctx, id, &h)
		switch {
		case err == nil || errors.Is(err, errHeaderRead):
		case graph.IsNotFound(err):
			return "", nil // moved on meanwhile; the next look sees it
		case graph.IsTemporary(err) && try < readTries && ctx.Err() == nil:
			continue // an answer that breaks off is not repeated below, for what has been written is out
		default:
			return "", err
		}
		break
	}
	v, _ := message.FieldValue(h.buf, markField)
	return strings.TrimSpace(v), nil
}

// partMark is what the mark field of a part, counted from 0, holds. Parts share their Message-ID.
func partMark(id string, part int) string {
	if part == 0 {
		return id
	}
	return fmt.Sprintf("%s-%d", id, part+1)
}

// partHeader gives the header of a later part its own mark.
func partHeader(header []byte, job *outbox.Job) []byte {
	if job.Part() == 0 {
		return header
	}
	return bytes.Replace(header,
		[]byte(markField+": "+job.ID+"\r\n"), []byte(markField+": "+partMark(job.ID, job.Part())+"\r\n"), 1)
}

func addressesOf(rcpts []store.Recipient) []string {
	out := make([]string, len(rcpts))
	for i, r := range rcpts {
		out[i] = r.Address
	}
	return out
}

// classify says what a failed attempt means. What an administrator may put right, or
// Exchange may forget, is temporary: the message waits for it as long as it may.
func classify(err error, job *outbox.Job) error {
	if e, ok := errors.AsType[*outbox.Error](err); ok {
		return e
	}
	e := &outbox.Error{Outcome: outbox.Temporary, Status: "4.4.0", RetryAfter: graph.RetryAfter(err), Err: err,
		Text: "Microsoft 365 did not take the message."}
	if g, ok := errors.AsType[*graph.Error](err); ok {
		e.RequestID = g.RequestID
		e.Uncounted = g.HasCode(graph.CodeLocalBudget)
	}
	permanent := func(status, text string) error {
		e.Outcome, e.Status, e.Text, e.RetryAfter = outbox.Permanent, status, text, 0
		return e
	}
	switch {
	case graph.Unclear(err):
		e.Outcome, e.Text = outbox.Unclear, "" // said by the queue
		// 503 is said by what stands before Exchange; a 200 was seen where nothing is sent (observed, see doubtfulMIME).
		// Of no answer, a 504 or another 5xx nothing is known.
		status := graph.StatusOf(err)
		e.Unlikely = status == http.StatusServiceUnavailable || status == http.StatusOK
	case isTokenError(err):
		e.Status, e.Text = "4.7.0", "Microsoft 365 refuses the sign-in; an administrator must look at it."
	case graph.IsSendingQuota(err):
		e.Status, e.Text = "4.5.3", "The mailbox has reached its sending limit in Microsoft 365."
		e.RetryAfter = max(e.RetryAfter, 15*time.Minute)
	case graph.IsThrottled(err):
		e.Status, e.Text = "4.4.5", "Microsoft 365 asks for fewer messages at a time."
	case graph.IsCode(err, "ErrorSendAsDenied"):
		return permanent("5.7.1", fmt.Sprintf("Microsoft 365 does not allow %s to send with this From address: the Send As right is missing. An administrator can give it to %[1]s in Exchange.", job.Mailbox))
	case graph.IsTooLarge(err):
		return permanent("5.3.4", "The message is larger than Microsoft 365 allows for this mailbox.")
	case graph.IsCode(err, "ErrorInvalidRecipients", "ErrorRecipientLimitExceeded", "ErrorInvalidSmtpAddress"):
		return permanent("5.1.3", "Microsoft 365 refuses a recipient's address.")
	case graph.IsQuota(err):
		e.Status, e.Text = "4.2.2", "The mailbox is full."
	case graph.IsNoMailbox(err):
		e.Status, e.Text = "4.2.1", fmt.Sprintf("Microsoft 365 has no mailbox %s that can be reached.", job.Mailbox)
	case graph.IsDenied(err):
		e.Status, e.Text = "4.7.1", "The application may not send from this mailbox; an administrator must allow it."
		e.RetryAfter = max(e.RetryAfter, time.Minute)
	case graph.IsTemporary(err), graph.IsNotFound(err):
	case graph.StatusOf(err) >= 400 && graph.StatusOf(err) < 500:
		return permanent("5.6.0", "Microsoft 365 refuses the content of the message.")
	}
	return e
}

func isTokenError(err error) bool {
	_, ok := errors.AsType[*token.Error](err)
	return ok
}

// readHeader reads the header of a spool file and says where the body begins.
func readHeader(f *os.File) (header []byte, bodyOff int64, err error) {
	var h headerWriter
	_, err = io.Copy(struct{ io.Writer }{&h}, io.NewSectionReader(f, 0, 2*maxHeader))
	if err != nil && !errors.Is(err, errHeaderRead) {
		return nil, 0, fmt.Errorf("read spool file: %w", err)
	}
	return h.buf, int64(len(h.buf)), nil
}

// outgoing is a message as Graph gets it: its own header, the body from the spool file.
type outgoing struct {
	header   []byte
	body     io.ReaderAt
	bodyOff  int64
	bodySize int64
}

func (m *outgoing) size() int64 { return int64(len(m.header)) + m.bodySize }

func (m *outgoing) open() (io.ReadCloser, error) {
	return io.NopCloser(io.NewSectionReader(m, 0, m.size())), nil
}

// ReadAt reads from the message as a whole.
func (m *outgoing) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errors.New("read before the start of a message")
	}
	if off >= m.size() {
		return 0, io.EOF
	}
	if off < int64(len(m.header)) {
		n = copy(p, m.header[off:])
		off += int64(n)
	}
	if n < len(p) {
		rest := p[n:]
		at := off - int64(len(m.header))
		if left := m.bodySize - at; int64(len(rest)) > left {
			rest = rest[:left]
		}
		k, rerr := m.body.ReadAt(rest, m.bodyOff+at)
		n += k
		if k < len(rest) {
			if rerr == nil || rerr == io.EOF {
				rerr = io.ErrUnexpectedEOF
			}
			return n, rerr
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
