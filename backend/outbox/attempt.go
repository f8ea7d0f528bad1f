package outbox

import (
	"context"
	"errors"
	"os"
	"time"

	"postern/backend/store"
)

// longestAttempt bounds one attempt. 150 MB through a slow line fit.
const longestAttempt = time.Hour

// attemptOnce makes one attempt for a message and returns when to come back to it;
// the zero time means never.
func (q *Queue) attemptOnce(it *item) time.Time {
	ctx, cancel := context.WithTimeout(q.attempt, longestAttempt)
	defer cancel()

	sub, err := q.claim(context.WithoutCancel(ctx), it.id)
	switch {
	case errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrNotClaimable):
		return time.Time{} // taken out or held meanwhile
	case err != nil:
		q.log.Error("message not claimed", "queue_id", it.id, "err", err)
		return time.Now().Add(q.backoff(1))
	}
	job := &Job{Submission: *sub, Path: q.path(sub.Spool), q: q, progress: readProgress(sub)}

	if _, err := os.Stat(job.Path); errors.Is(err, os.ErrNotExist) {
		return q.failed(it, job, &Error{Outcome: Permanent, Status: "5.3.0",
			Text: "The message's file is missing from the queue.", Err: err})
	}
	if sub.ClaimedFrom == store.StateUnclear {
		again, due := q.look(ctx, it, job)
		if !again {
			return due
		}
	}
	if err := q.opts.Sender.Send(ctx, job); err != nil {
		return q.failed(it, job, asError(err))
	}
	return q.sent(it, job)
}

// claim marks the row as being sent. A row that says so already is one whose outcome
// could not be written, so what became of it has to be found out.
func (q *Queue) claim(ctx context.Context, id string) (*store.Submission, error) {
	sub, err := q.store.Claim(ctx, id)
	if !errors.Is(err, store.ErrNotClaimable) {
		return sub, err
	}
	cur, gerr := q.store.Get(ctx, id)
	if gerr != nil || cur.State != store.StateSending {
		return nil, err
	}
	if _, err := q.update(ctx, id, func(s *store.Submission) { s.State = store.StateUnclear }); err != nil {
		return nil, err
	}
	return q.store.Claim(ctx, id)
}

// look finds out what became of an attempt that ended unclearly. It returns whether
// the message may be sent (again) now; if not, when to look again.
func (q *Queue) look(ctx context.Context, it *item, job *Job) (again bool, due time.Time) {
	job.progress.EverUnclear = true
	found, err := q.opts.Sender.Find(ctx, job)
	switch {
	case err != nil:
		// Not knowing is no ground for sending twice, nor for giving up before we know.
		e := asError(err)
		job.progress.LookErrs++
		wait := max(q.backoff(job.progress.LookErrs), e.RetryAfter)
		if time.Now().After(job.Expires.Add(q.opts.Lifetime)) {
			e.Outcome, e.Status = Permanent, "4.4.7"
			e.Text = "It could not be found out whether the message was sent: the mailbox did not answer for too long."
			return false, q.failed(it, job, e)
		}
		return false, q.put(job, store.StateUnclear, wait, e, false)
	case found:
		q.log.Info("message found sent", "queue_id", job.ID, "mailbox", job.Mailbox)
		job.progress.Looks = 0
		return true, time.Time{} // Send finds nothing left, or sends the next part
	}
	job.progress.Looks++
	if n := job.progress.Looks; n < len(q.opts.Looks) {
		return false, q.put(job, store.StateUnclear, q.opts.Looks[n], nil, false)
	}
	q.log.Info("message not found sent", "queue_id", job.ID, "mailbox", job.Mailbox, "looks", job.progress.Looks)
	return true, time.Time{}
}

// put writes a waiting state and returns when it ends. Only what went to Exchange
// counts as an attempt.
func (q *Queue) put(job *Job, state store.State, wait time.Duration, e *Error, counted bool) time.Time {
	due := time.Now().Add(wait)
	_, err := q.update(q.attempt, job.ID, func(s *store.Submission) {
		s.State, s.NextAttempt = state, due
		job.progress.keep(s)
		if e != nil {
			s.LastError, s.GraphRequestID = e.Error(), e.RequestID
		}
		if !counted && s.Attempts > 0 {
			s.Attempts--
		}
	})
	if err != nil {
		// The row still says "sending"; the next start takes that for unclear, and so do we.
		q.log.Error("outbox row not written", "queue_id", job.ID, "err", err)
	}
	return due
}

// sent settles a message that Exchange has taken.
func (q *Queue) sent(it *item, job *Job) time.Time {
	owed := wanted(job.Recipients, "SUCCESS")
	now := time.Now()
	due := time.Time{}
	job.progress = progress{}
	if len(owed) > 0 && job.EnvelopeFrom != "" {
		due = now
		job.progress.NoticeKind = Relayed
		job.progress.Status = "2.0.0"
	}
	_, err := q.update(q.attempt, job.ID, func(s *store.Submission) {
		s.State, s.NextAttempt, s.LastError = store.StateSent, due, ""
		job.progress.keep(s)
	})
	if err != nil {
		q.log.Error("outbox row not written", "queue_id", job.ID, "err", err)
		return now.Add(q.backoff(1))
	}
	q.log.Info("message sent", "queue_id", job.ID, "mailbox", job.Mailbox, "size", job.Size,
		"recipients", len(job.Recipients), "attempts", job.Attempts, "delay", now.Sub(job.Created).Round(time.Millisecond))
	return q.settled(it, job, due)
}

// failed settles or puts back a message after an attempt that did not work.
func (q *Queue) failed(it *item, job *Job, e *Error) time.Time {
	log := q.log.With("queue_id", job.ID, "mailbox", job.Mailbox, "attempts", job.Attempts, "err", e.Error(), "request_id", e.RequestID)
	now := time.Now()
	switch e.Outcome {
	case Unclear:
		log.Warn("message may have been sent, will look for it")
		job.progress.EverUnclear, job.progress.Looks = true, 0
		return q.put(job, store.StateUnclear, max(q.opts.Looks[0], e.RetryAfter), e, true)
	case Temporary:
		if now.Before(job.Expires) {
			state := store.StateQueued
			if job.progress.EverUnclear {
				state = store.StateUnclear // look once more before the next try
			}
			wait := e.RetryAfter
			if !e.Uncounted {
				wait = max(wait, q.backoff(job.Attempts))
			}
			wait = min(max(wait, time.Second), max(time.Until(job.Expires), time.Second))
			log.Warn("message not sent, will try again", "wait", wait.Round(time.Second))
			return q.put(job, state, wait, e, !e.Uncounted)
		}
		reason := e.Text
		if reason == "" {
			reason = "Microsoft 365 could not be reached."
		}
		e = &Error{Outcome: Permanent, Status: "4.4.7", RequestID: e.RequestID, Err: e.Err,
			Text: "The message could not be sent within the time allowed. The last reason was: " + reason}
	}

	// For good. A client that still waits hears it as DATA's answer, and keeps the message.
	if job.progress.Part == 0 && it.waiter.take() {
		if err := q.store.Remove(context.WithoutCancel(q.attempt), job.ID); err != nil {
			log.Error("outbox row not removed", "cause", err)
		}
		os.Remove(job.Path)
		it.waiter.settled <- e
		return time.Time{}
	}
	log.Warn("message given up")
	owed := wanted(job.Recipients, "FAILURE")
	due := time.Time{}
	job.progress = progress{}
	// A message without a sender is itself a notice, and gets none. RFC 5321 section 6.1.
	if len(owed) > 0 && job.EnvelopeFrom != "" {
		due = now
		job.progress.NoticeKind, job.progress.Status, job.progress.Text = Failed, e.Status, e.Text
	}
	_, err := q.update(q.attempt, job.ID, func(s *store.Submission) {
		s.State, s.NextAttempt = store.StateBounced, due
		job.progress.keep(s)
		s.LastError, s.GraphRequestID = e.Error(), e.RequestID
	})
	if err != nil {
		log.Error("outbox row not written", "cause", err)
		return now.Add(q.backoff(1))
	}
	return q.settled(it, job, due)
}

// settled ends a message's way through the queue, unless a notice is owed.
func (q *Queue) settled(it *item, job *Job, due time.Time) time.Time {
	if due.IsZero() {
		os.Remove(job.Path)
		return due
	}
	it.notice = true
	return due
}

// longestNotice is how long behind a message's end its notice is tried.
const longestNotice = 5 * 24 * time.Hour

// notify delivers the notice a message owes its sender.
func (q *Queue) notify(it *item) time.Time {
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
	p := readProgress(sub)
	job := &Job{Submission: *sub, Path: q.path(sub.Spool), q: q, progress: p}
	event := map[NoticeKind]string{Failed: "FAILURE", Relayed: "SUCCESS", Delayed: "DELAY"}[p.NoticeKind]
	n := Notice{Kind: p.NoticeKind, Recipients: wanted(sub.Recipients, event), Status: p.Status, Text: p.Text}

	if event != "" && len(n.Recipients) > 0 {
		if err := q.opts.Sender.Notify(ctx, job, n); err != nil {
			e := asError(err)
			p.Tries++
			log := q.log.With("queue_id", it.id, "mailbox", it.mailbox, "tries", p.Tries, "err", e.Error(), "request_id", e.RequestID)
			if e.Outcome != Permanent && time.Now().Before(sub.Expires.Add(longestNotice)) {
				log.Warn("notice not delivered, will try again")
				due := time.Now().Add(max(q.backoff(p.Tries), e.RetryAfter))
				if _, err := q.update(ctx, it.id, func(s *store.Submission) { s.NextAttempt = due; p.keep(s) }); err != nil {
					log.Error("outbox row not written", "cause", err)
				}
				return due
			}
			log.Error("notice given up")
		}
	}
	_, err = q.update(ctx, it.id, func(s *store.Submission) {
		s.NextAttempt = time.Time{}
		progress{}.keep(s)
	})
	if err != nil {
		q.log.Error("outbox row not written", "queue_id", it.id, "err", err)
		return time.Now().Add(q.backoff(1))
	}
	os.Remove(job.Path)
	return time.Time{}
}

// wanted returns the recipients whose NOTIFY asks for the event. Without NOTIFY it is
// failures only. RFC 3461 section 4.1.
func wanted(rcpts []store.Recipient, event string) []store.Recipient {
	var out []store.Recipient
	for _, r := range rcpts {
		if len(r.Notify) == 0 && event == "FAILURE" {
			out = append(out, r)
		}
		for _, n := range r.Notify {
			if n == event {
				out = append(out, r)
				break
			}
		}
	}
	return out
}
