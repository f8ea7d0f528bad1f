package outbox

import (
	"context"
	"errors"
	"time"

	"postern/backend/store"
)

// longestNotice is how long behind a message's end its notice is tried.
const longestNotice = 5 * 24 * time.Hour

// copyWaits is the default of Options.Copies.
var copyWaits = []time.Duration{
	2 * time.Second, 5 * time.Second, 15 * time.Second, time.Minute, 5 * time.Minute, 30 * time.Minute,
}

// afterwards does what is owed for a settled message, and returns when to come back.
func (q *Queue) afterwards(it *item) time.Time {
	ctx, cancel := context.WithTimeout(q.attempt, longestAttempt)
	defer cancel()
	sub, err := q.store.Get(context.WithoutCancel(ctx), it.id)
	if errors.Is(err, store.ErrNotFound) {
		return time.Time{}
	}
	if err != nil {
		q.log.Error("outbox row not read", "queue_id", it.id, "err", err)
		return time.Now().Add(q.backoff(1))
	}
	job := &Job{Submission: *sub, Path: q.path(sub.Spool), q: q, progress: readProgress(sub)}
	due := time.Time{}
	var event *store.Event
	if job.progress.NoticeKind != "" {
		due, event = q.notify(ctx, job)
	}
	if due.IsZero() && job.progress.Drafts {
		due = q.removeDrafts(ctx, job)
	}
	if due.IsZero() && job.progress.Copy {
		var gone *store.Event
		due, gone = q.removeCopy(ctx, job)
		if event == nil {
			event = gone
		}
	}
	if due.IsZero() {
		job.progress = progress{}
	}
	_, err = q.update(ctx, "afterwards", it.id, func(s *store.Submission) {
		s.NextAttempt = due
		job.progress.keep(s)
		if event != nil {
			s.Events = append(s.Events, *event)
		}
	})
	if err != nil {
		q.log.Error("outbox row not written", "queue_id", it.id, "err", err)
		return time.Now().Add(q.backoff(1))
	}
	if due.IsZero() {
		q.remove(job.Path)
	}
	return due
}

// removeDrafts takes what a message that is settled may have left in Drafts out of there. The zero time means that it is done with.
func (q *Queue) removeDrafts(ctx context.Context, job *Job) time.Time {
	p := &job.progress
	err := q.opts.Sender.RemoveDrafts(ctx, job)
	if err == nil {
		p.Drafts, p.DraftTries = false, 0
		return time.Time{}
	}
	e := asError(err)
	p.DraftTries++
	log := q.log.With("queue_id", job.ID, "mailbox", job.Mailbox, "tries", p.DraftTries, "err", e.Error(), "request_id", e.RequestID)
	if e.Outcome != Permanent && time.Now().Before(job.Expires.Add(longestNotice)) {
		log.Warn("drafts not removed, will try again")
		return time.Now().Add(max(q.backoff(p.DraftTries), e.RetryAfter))
	}
	log.Error("drafts not removed")
	p.Drafts = false
	return time.Time{}
}

// notify delivers the notice a message owes its sender. The zero time means that it is
// done with.
func (q *Queue) notify(ctx context.Context, job *Job) (time.Time, *store.Event) {
	p := &job.progress
	kind := p.NoticeKind
	word := map[NoticeKind]string{Failed: "FAILURE", Relayed: "SUCCESS"}[kind]
	n := Notice{Kind: kind, Recipients: wanted(job.Recipients, word), Status: p.Status, Text: p.Text}
	if word == "" || len(n.Recipients) == 0 {
		p.NoticeKind = ""
		return time.Time{}, nil
	}
	err := q.opts.Sender.Notify(ctx, job, n)
	if err == nil {
		p.NoticeKind = ""
		return time.Time{}, &store.Event{What: "notified", Text: "A notice (" + string(kind) + ") was put into the sender's Inbox."}
	}
	e := asError(err)
	p.Tries++
	log := q.log.With("queue_id", job.ID, "mailbox", job.Mailbox, "tries", p.Tries, "err", e.Error(), "request_id", e.RequestID)
	if e.Outcome != Permanent && time.Now().Before(job.Expires.Add(longestNotice)) {
		log.Warn("notice not delivered, will try again")
		return time.Now().Add(max(q.backoff(p.Tries), e.RetryAfter)), nil
	}
	log.Error("notice given up")
	p.NoticeKind = ""
	return time.Time{}, &store.Event{What: "not notified", Status: e.Status, Text: "The notice for the sender could not be delivered.", RequestID: e.RequestID}
}

// removeCopy takes a sent message out of Sent Items where its copy is not wanted.
func (q *Queue) removeCopy(ctx context.Context, job *Job) (time.Time, *store.Event) {
	p := &job.progress
	gone, err := q.opts.Sender.RemoveCopy(ctx, job)
	if err == nil && gone {
		p.Copy = false
		return time.Time{}, &store.Event{What: "copy removed", Text: "Its copy in Sent Items was removed."}
	}
	p.CopyLooks++
	if p.CopyLooks < len(q.opts.Copies) {
		wait := q.opts.Copies[p.CopyLooks]
		if err != nil {
			wait = max(wait, asError(err).RetryAfter)
		}
		return time.Now().Add(wait), nil
	}
	p.Copy = false
	attrs := []any{"queue_id", job.ID, "mailbox", job.Mailbox}
	if err != nil {
		attrs = append(attrs, "err", err)
	}
	q.log.Warn("copy in sent items not found", attrs...)
	return time.Time{}, &store.Event{What: "copy kept", Text: "Its copy in Sent Items was not found in time, and is not looked for any more."}
}

// tellDelay delivers the notice of a delay, once, to those who asked for it: RFC 3461
// section 4.1 leaves it to us for others, and nobody wants more mail while things are slow.
func (q *Queue) tellDelay(job *Job, e *Error) {
	if !job.DelayNotified.IsZero() || job.EnvelopeFrom == "" || time.Since(job.Created) < q.times.Load().Warn {
		return
	}
	rcpts := wanted(job.Recipients, "DELAY")
	if len(rcpts) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(q.attempt, time.Minute)
	defer cancel()
	status := e.Status
	if status == "" {
		status = "4.4.1"
	}
	if err := q.opts.Sender.Notify(ctx, job, Notice{Kind: Delayed, Recipients: rcpts, Status: status, Text: e.say()}); err != nil {
		q.log.Warn("notice of delay not delivered", "queue_id", job.ID, "mailbox", job.Mailbox, "err", err)
		return // with the next failure again
	}
	job.DelayNotified = time.Now()
}
