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
	case errors.Is(err, store.ErrNotFound):
		return time.Time{}
	case errors.Is(err, store.ErrNotClaimable):
		// Held or settled by a person meanwhile, who may want a notice for it.
		if cur, err := q.store.Get(context.WithoutCancel(ctx), it.id); err == nil && finished(cur) && !cur.NextAttempt.IsZero() {
			it.notice = true
			return cur.NextAttempt
		}
		return time.Time{}
	case err != nil:
		q.log.Error("message not claimed", "queue_id", it.id, "err", err)
		return time.Now().Add(q.backoff(1))
	}
	job := &Job{Submission: *sub, Path: q.path(sub.Spool), q: q, progress: readProgress(sub)}
	job.Expires = it.expires(sub.Expires)

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
	it.tried = true
	err = q.opts.Sender.Send(ctx, job)
	q.uploadEnded(job.ID)
	if err != nil {
		return q.failed(it, job, asError(err))
	}
	return q.sent(it, job)
}

// claim marks the row as being sent. A row that says so already is one whose outcome
// could not be written, so what became of it has to be found out.
func (q *Queue) claim(ctx context.Context, id string) (*store.Submission, error) {
	if err := q.step("claim"); err != nil {
		return nil, err
	}
	sub, err := q.store.Claim(ctx, id)
	if !errors.Is(err, store.ErrNotClaimable) {
		return sub, err
	}
	cur, gerr := q.store.Get(ctx, id)
	if gerr != nil || cur.State != store.StateSending {
		return nil, err
	}
	if _, err := q.update(ctx, "unclear", id, func(s *store.Submission) { s.State = store.StateUnclear }); err != nil {
		return nil, err
	}
	return q.store.Claim(ctx, id)
}

// look finds out what became of an attempt that ended unclearly. It returns whether
// the message may be sent (again) now; if not, when to look again.
func (q *Queue) look(ctx context.Context, it *item, job *Job) (again bool, due time.Time) {
	job.progress.EverUnclear = true
	if job.progress.Since == 0 {
		job.progress.Since = time.Now().Unix() // a process has died; when exactly matters little
	}
	found, err := q.opts.Sender.Find(ctx, job)
	blind := err != nil && asError(err).Blind
	if err == nil {
		job.progress.Blind = 0
	}
	switch {
	case blind && (q.times.Load().Repeat || job.progress.Unseen):
		// As if it had not been found, which was asked for.
	case err != nil:
		// Not knowing is no ground for sending twice, nor for giving up before we know.
		e := asError(err)
		job.progress.LookErrs++
		wait := max(q.backoff(job.progress.LookErrs), e.RetryAfter)
		late := time.Now().After(job.Expires.Add(q.times.Load().Lifetime))
		if blind && job.progress.Blind == 0 {
			job.progress.Blind = time.Now().Unix()
		}
		if blind && (late || time.Since(time.Unix(job.progress.Blind, 0)) >= blindPatience) {
			return false, q.holdUnsure(it, job, e)
		}
		if late {
			e.Outcome, e.Status = Permanent, "4.4.7"
			e.Text = "It could not be found out whether the message was sent: the mailbox did not answer for too long."
			return false, q.failed(it, job, e)
		}
		return false, q.put(it, job, store.StateUnclear, wait, e, false)
	case found:
		q.log.Info("message found sent", "queue_id", job.ID, "mailbox", job.Mailbox)
		job.progress.Looks = 0
		return true, time.Time{} // Send finds nothing left, or sends the next part
	}
	job.progress.Looks++
	if n := job.progress.Looks; n < len(q.opts.Looks) {
		return false, q.put(it, job, store.StateUnclear, q.opts.Looks[n], nil, false)
	}
	if blind {
		q.log.Warn("message is sent again without knowing whether it was sent: the app may not read the mailbox", "queue_id", job.ID, "mailbox", job.Mailbox)
		if _, err := q.update(ctx, "unseen", job.ID, func(s *store.Submission) {
			s.Events = append(s.Events, store.Event{What: "sent unseen", Text: "It is sent again without knowing whether it was sent before: the app may not read the mailbox."})
		}); err != nil {
			q.log.Error("outbox row not written", "queue_id", job.ID, "err", err)
		}
	} else if wait, why := q.patience(ctx, job); wait > 0 {
		q.log.Info("message not found sent yet: "+why, "queue_id", job.ID, "mailbox", job.Mailbox, "wait", wait.Round(time.Second))
		return false, q.put(it, job, store.StateUnclear, wait, nil, false)
	}
	q.log.Info("message not found sent", "queue_id", job.ID, "mailbox", job.Mailbox, "looks", job.progress.Looks)
	if !time.Now().Before(job.Expires) && it.tried { // one try for what has outlived its time while the server was down
		return false, q.failed(it, job, &Error{Outcome: Temporary, Status: "4.4.0", Text: job.progress.Why})
	}
	// The first repeat comes behind the looks, later ones after waits that grow as everywhere; then one more look.
	// Attempts counts this look for now.
	if n := job.Attempts - 2; n > 0 && !job.progress.Rested {
		job.progress.Rested = true
		return false, q.put(it, job, store.StateUnclear, q.backoff(n), nil, false)
	}
	return true, time.Time{}
}

// holdUnsure leaves to a person what we can neither find out nor decide.
func (q *Queue) holdUnsure(it *item, job *Job, e *Error) time.Time {
	const why = "It was perhaps sent, and the app may not read the mailbox to find out. Release sends it again, bounce and purge give it up; with the permission Mail.ReadWrite a release looks first."
	q.log.Warn("message held: it was perhaps sent, and the app may not read the mailbox", "queue_id", job.ID, "mailbox", job.Mailbox, "err", e.Error(), "request_id", e.RequestID)
	row, err := q.update(q.attempt, "held", job.ID, func(s *store.Submission) {
		wish := s.Wish
		job.progress.keep(s)
		s.State = store.StateUnclear
		apply(s, Hold, why)
		if wish != store.WishHold {
			s.Wish = wish
			grant(s)
		}
		s.LastError, s.GraphRequestID = e.Error(), e.RequestID
		s.Events = append(s.Events, store.Event{What: "held", Text: why, RequestID: e.RequestID})
		if s.Attempts > 0 {
			s.Attempts-- // a look is none
		}
	})
	if err != nil {
		q.log.Error("outbox row not written", "queue_id", job.ID, "err", err)
		return time.Now().Add(q.backoff(1))
	}
	if row.State != store.StateHeld {
		return q.settled(it, job, row.NextAttempt)
	}
	return time.Time{}
}

// patience says how much longer a message that is not to be found should be looked for before it is sent again, and why. How long
// Exchange takes to file a copy is documented nowhere; what it did with other messages of the mailbox tells most.
func (q *Queue) patience(ctx context.Context, job *Job) (wait time.Duration, why string) {
	p := &job.progress
	if p.Draft != "" || p.Caught { // a draft that is still there is unsent
		return 0, ""
	}
	other, err := q.lastSent(ctx, job.Mailbox)
	if err != nil {
		q.log.Warn("outbox not read", "err", err)
	}
	since := time.Unix(p.Since, 0)
	if other != nil && p.Behind < maxBehind {
		filed, err := q.opts.Sender.Filed(ctx, other)
		switch {
		case err != nil:
			p.Behind++
			return q.opts.Looks[len(q.opts.Looks)-1], "whether copies are late cannot be told, " + err.Error()
		case !filed:
			p.Behind++
			return behindWait, "copies of others are late, too"
		case p.Behind > 0:
			// It took the other one until now; this one is given as long.
			p.Caught = true
			return min(since.Sub(other.Updated), maxBehind*behindWait), "copies were late"
		case other.Updated.After(since.Add(time.Second)):
			return 0, "" // the copy of what was taken later is there
		}
	}
	all := total(q.opts.Looks) + total(q.opts.Longer)
	if p.Unlikely || p.Longer >= len(q.opts.Longer) || time.Since(since) >= all {
		return 0, ""
	}
	p.Longer++
	return q.opts.Longer[p.Longer-1], "nothing tells that it was not sent"
}

func total(waits []time.Duration) (sum time.Duration) {
	for _, w := range waits {
		sum += w
	}
	return sum
}

// lastSent returns the latest message that Exchange has taken from the mailbox and whose copy should be there by now, nil
// if there is none.
func (q *Queue) lastSent(ctx context.Context, mailbox string) (last *store.Submission, err error) {
	rows, err := q.store.List(ctx, store.Filter{Mailbox: mailbox, States: []store.State{store.StateSent}, Newest: true, Limit: 20})
	for i := range rows {
		r := &rows[i]
		age := time.Since(r.Updated)
		if !r.DropCopy && age >= filedWithin && age <= filedEver && (last == nil || r.Updated.After(last.Updated)) {
			last = r
		}
	}
	return last, err
}

// put writes a waiting state and returns when it ends. Only what went to Exchange
// counts as an attempt. What a person asked for meanwhile happens instead.
func (q *Queue) put(it *item, job *Job, state store.State, wait time.Duration, e *Error, counted bool) time.Time {
	due := time.Now().Add(wait)
	row, err := q.update(q.attempt, string(state), job.ID, func(s *store.Submission) {
		s.State, s.NextAttempt = state, due
		if counted {
			s.Sends = 1
		}
		s.DelayNotified = job.DelayNotified
		job.progress.keep(s)
		if e != nil {
			s.LastError, s.GraphRequestID = e.Error(), e.RequestID
			s.Events = append(s.Events, store.Event{What: what(state, e), Status: e.Status, Text: e.say(), RequestID: e.RequestID})
		}
		if !counted && s.Attempts > 0 {
			s.Attempts--
		}
		grant(s)
	})
	if err != nil {
		// The row still says "sending"; the next start takes that for unclear, and so do we.
		q.log.Error("outbox row not written", "queue_id", job.ID, "err", err)
		return due
	}
	if e != nil {
		q.opts.Observe(job.Mailbox, what(state, e))
	}
	switch row.State {
	case store.StateHeld:
		return time.Time{}
	case store.StateBounced, store.StatePurged:
		return q.settled(it, job, row.NextAttempt)
	}
	return due
}

// what names an event of the log.
func what(state store.State, e *Error) string {
	switch {
	case state == store.StateUnclear && e.Outcome == Unclear:
		return "unclear"
	case e.Uncounted:
		return "postponed"
	}
	return "deferred"
}

// say is what the log tells of an error.
func (e *Error) say() string {
	if e.Text != "" {
		return e.Text
	}
	if e.Outcome == Unclear {
		return "Microsoft 365 gave no clear answer; the message is looked for before it is sent again."
	}
	return "Microsoft 365 could not be reached."
}

// sent settles a message that Exchange has taken.
func (q *Queue) sent(it *item, job *Job) time.Time {
	owed := wanted(job.Recipients, "SUCCESS")
	now := time.Now()
	due := time.Time{}
	drafts := job.progress.mayLeaveDrafts() // a part that was found sent after all
	job.progress = progress{Drafts: drafts}
	if drafts {
		due = now
	}
	if len(owed) > 0 && job.EnvelopeFrom != "" {
		due = now
		job.progress.NoticeKind = Relayed
		job.progress.Status = "2.0.0"
	}
	if job.DropCopy {
		job.progress.Copy = true
		if due.IsZero() {
			due = now.Add(q.opts.Copies[0])
		}
	}
	_, err := q.update(q.attempt, "sent", job.ID, func(s *store.Submission) {
		s.State, s.NextAttempt, s.LastError, s.Wish = store.StateSent, due, "", store.WishNone
		s.Content = job.Content
		if job.requestID != "" {
			s.GraphRequestID = job.requestID
		}
		s.Events = append(s.Events, store.Event{What: "sent", Status: "2.0.0", RequestID: job.requestID})
		job.progress.keep(s)
	})
	if err != nil {
		q.log.Error("outbox row not written", "queue_id", job.ID, "err", err)
		return now.Add(q.backoff(1))
	}
	q.opts.Observe(job.Mailbox, "sent")
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
		job.progress.ended(e, now)
		q.tellDelay(job, e)
		return q.put(it, job, store.StateUnclear, max(q.opts.Looks[0], e.RetryAfter), e, true)
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
			least := min(time.Second, q.opts.Retries[0])
			wait = min(max(wait, least), max(time.Until(job.Expires), least))
			log.Warn("message not sent, will try again", "wait", wait.Round(time.Second))
			q.tellDelay(job, e)
			return q.put(it, job, state, wait, e, !e.Uncounted)
		}
		reason := e.Text
		if reason == "" {
			reason = "Microsoft 365 could not be reached."
		}
		e = &Error{Outcome: Permanent, Status: "4.4.7", RequestID: e.RequestID, Err: e.Err,
			Text: "The message could not be sent within the time allowed. The last reason was: " + reason}
	}

	// For good. A client that still waits hears it as DATA's answer, and keeps the message.
	due := time.Time{}
	drafts := job.progress.mayLeaveDrafts()
	if drafts {
		due = now
	}
	if job.progress.Part == 0 && it.waiter.take() {
		job.progress = progress{Drafts: drafts}
		_, err := q.update(q.attempt, "refused", job.ID, func(s *store.Submission) {
			s.State, s.NextAttempt, s.Wish, s.Sends = store.StateRefused, due, store.WishNone, 1
			job.progress.keep(s)
			s.LastError, s.GraphRequestID = e.Error(), e.RequestID
			s.Events = append(s.Events, store.Event{What: "refused", Status: e.Status, Text: e.Text, RequestID: e.RequestID})
		})
		if err != nil {
			// The row still says "sending": the message is ours, and its sender will be told by a notice.
			log.Error("outbox row not written", "cause", err)
			it.waiter.settled <- nil
			return now.Add(q.backoff(1))
		}
		q.opts.Observe(job.Mailbox, "refused")
		due = q.settled(it, job, due)
		it.waiter.settled <- e // when the client hears it nothing is kept
		return due
	}
	log.Warn("message given up")
	q.opts.Observe(job.Mailbox, "bounced")
	owed := wanted(job.Recipients, "FAILURE")
	job.progress = progress{Drafts: drafts}
	// A message without a sender is itself a notice, and gets none. RFC 5321 section 6.1.
	if len(owed) > 0 && job.EnvelopeFrom != "" {
		due = now
		job.progress.NoticeKind, job.progress.Status, job.progress.Text = Failed, e.Status, e.Text
	}
	_, err := q.update(q.attempt, "bounced", job.ID, func(s *store.Submission) {
		s.State, s.NextAttempt, s.Wish, s.Sends = store.StateBounced, due, store.WishNone, 1
		job.progress.keep(s)
		s.LastError, s.GraphRequestID = e.Error(), e.RequestID
		s.Events = append(s.Events, store.Event{What: "bounced", Status: e.Status, Text: e.Text, RequestID: e.RequestID})
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
		q.remove(job.Path)
		return due
	}
	it.notice = true
	return due
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
