// Package outbox is the durable queue of submitted messages. A message is in it from
// the moment its file and its row are on disk until Exchange has it or its sender
// was told why not.
//
// Two promises hold at every point where the process may be killed: an accepted
// message is not lost, and it is not sent twice. The row says "sending" before a
// request is made; an attempt that ended without a clear answer, be it by a broken
// connection or by our own death, leaves it "unclear", and such a message is looked
// for in the mailbox, several times, before it is sent again.
package outbox

import (
	"context"
	"errors"
	"time"

	"postern/backend/store"
)

// A Sender hands one message to Exchange. Its errors are of type *Error; any other is
// taken for a temporary one that left no trace.
type Sender interface {
	// Delay says how long a message of the mailbox would have to wait now for the
	// mailbox's pace and request budget. It must not block.
	Delay(mailbox string) time.Duration

	// Send sends what is not sent yet of the message.
	Send(ctx context.Context, job *Job) error

	// Find reports whether the part of the message that was being sent when an
	// attempt ended unclearly has left after all. If so it calls job.PartDone.
	Find(ctx context.Context, job *Job) (bool, error)

	// Filed reports whether a message that Exchange has taken can be seen in its mailbox.
	Filed(ctx context.Context, sub *store.Submission) (bool, error)

	// RemoveDrafts removes drafts that a message given up may have left in the mailbox.
	RemoveDrafts(ctx context.Context, job *Job) error

	// RemoveCopy removes what Exchange filed of a sent message in Sent Items, and nothing
	// else. It reports whether all of it is gone; Exchange files copies some time after it has taken a message.
	RemoveCopy(ctx context.Context, job *Job) (gone bool, err error)

	// Notify puts a notice about the message into its sender's mailbox. It may be
	// called again for the same notice when its outcome was unclear.
	Notify(ctx context.Context, job *Job, n Notice) error
}

// Outcome says what a failed attempt means.
type Outcome int

const (
	Temporary Outcome = iota // not sent; another attempt may work
	Permanent                // not sent; none will ever work
	Unclear                  // may have been sent
)

// Error is a failed attempt.
type Error struct {
	Outcome    Outcome
	Unlikely   bool          // of Unclear: Exchange did answer, and has rarely sent what it answers so
	Blind      bool          // of Find: we may not look; an administrator may change that
	RetryAfter time.Duration // not before; zero when nobody said
	Uncounted  bool          // the attempt never reached Exchange, as when the budget forbade it
	Status     string        // enhanced status code, RFC 3463, such as "5.7.1"
	Text       string        // one sentence for the sender; holds nothing internal
	RequestID  string        // Graph's
	Err        error         // the cause, for the log
}

// Error returns the cause.
func (e *Error) Error() string {
	if e.Err != nil {
		return e.Err.Error()
	}
	return e.Text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func asError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Outcome: Temporary, Status: "4.4.0", Err: err}
}

// NoticeKind is what a notice tells, in RFC 3464's words.
type NoticeKind string

// The kinds of notices.
const (
	Failed  NoticeKind = "failed"
	Relayed NoticeKind = "relayed" // handed to Exchange, which is as far as we see
	Delayed NoticeKind = "delayed"
)

// Notice is a delivery status notification in the making.
type Notice struct {
	Kind       NoticeKind
	Recipients []store.Recipient // those it is about
	Status     string            // RFC 3463
	Text       string            // the reason; empty for Relayed
}

// Job is one message in the hands of a Sender.
type Job struct {
	store.Submission
	Path string // of the spool file: the whole message with CRLF line ends

	q         *Queue
	progress  progress
	requestID string

	uploadTold time.Time // when the log last told of its upload
}

// SetRequestID notes the Graph request that the log is to name for this attempt.
func (j *Job) SetRequestID(id string) {
	if id != "" {
		j.requestID = id
	}
}

// Part returns how many parts of a message that had to be split are known to be sent.
func (j *Job) Part() int { return j.progress.Part }

// Draft returns the id of the draft that stands for the current part, "" if there is none, and whether it is complete.
func (j *Job) Draft() (id string, ready bool) { return j.progress.Draft, j.progress.Ready }

// BeginDraft records on disk that a draft is about to be made. Until SetDraft names it, one may lie in the mailbox that
// is not the whole message.
func (j *Job) BeginDraft(ctx context.Context) error {
	j.progress.Drafting = true
	return j.save(ctx, "begin draft", 0)
}

// Drafting reports whether a draft may lie in the mailbox that nobody has named.
func (j *Job) Drafting() bool { return j.progress.Drafting }

// SetDraft records on disk the draft of the current part, before it is filled and
// again before it is sent. A later run finds it there. With "" there is none any more.
func (j *Job) SetDraft(ctx context.Context, id string, ready bool) error {
	j.progress.Draft, j.progress.Ready, j.progress.Drafting = id, ready, false
	return j.save(ctx, "set draft", 0)
}

// PartDone records on disk that the current part is sent.
func (j *Job) PartDone(ctx context.Context) error {
	j.progress.Part++
	j.progress.Draft, j.progress.Ready, j.progress.Drafting = "", false, false
	return j.save(ctx, "part done", 1)
}

// WasUnclear reports whether an earlier attempt ended without a clear answer.
func (j *Job) WasUnclear() bool { return j.progress.EverUnclear }

// CopyRemoved counts one copy more that RemoveCopy has removed, over all of its calls.
func (j *Job) CopyRemoved() { j.progress.CopiesGone++ }

// CopiesRemoved returns that count.
func (j *Job) CopiesRemoved() int { return j.progress.CopiesGone }
