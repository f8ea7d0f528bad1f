package outbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"postern/backend/store"
)

// Action is what a person may do to a message in the queue.
type Action string

// The actions.
const (
	Retry   Action = "retry"   // try at once
	Hold    Action = "hold"    // leave it alone until it is released
	Release Action = "release" // go on with what was held
	Bounce  Action = "bounce"  // give it up and tell its sender
	Purge   Action = "purge"   // give it up and tell nobody
)

// ErrNotPossible is returned for an action that makes no sense in the message's state.
// The error's text says why.
var ErrNotPossible = errors.New("not possible")

// releasedLeast is how long a message is tried that was held unsure and released.
const releasedLeast = time.Hour

// Ask carries out an action on the message with the given id. It works on the table
// alone, so that a command can use it whether or not a server runs; a running one
// takes notice by itself. While the message is being sent, hold, bounce and purge are noted
// and happen when the attempt has failed: later tells of that. reason is for the log, and for the sender with Bounce.
func Ask(ctx context.Context, o *store.Outbox, id string, a Action, reason string) (later bool, err error) {
	row, err := o.Update(ctx, id, func(s *store.Submission) error {
		if err := possible(s, a); err != nil {
			return err
		}
		s.Events = append(s.Events, store.Event{What: asked[a], Text: reason})
		if s.State == store.StateSending {
			s.Wish = map[Action]store.Wish{Hold: store.WishHold, Bounce: store.WishBounce, Purge: store.WishPurge}[a]
			s.HoldReason = reason
			return nil
		}
		apply(s, a, reason)
		return nil
	})
	if err != nil {
		return false, err
	}
	if row.State == store.StatePurged && row.NextAttempt.IsZero() {
		os.Remove(filepath.Join(o.SpoolDir(), filepath.Base(row.Spool)))
	}
	return row.Wish != store.WishNone, nil
}

var asked = map[Action]string{
	Retry: "asked to retry", Hold: "asked to hold", Release: "released", Bounce: "asked to bounce", Purge: "asked to purge",
}

func possible(s *store.Submission, a Action) error {
	no := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrNotPossible, fmt.Sprintf(format, args...))
	}
	switch {
	case s.State.Settled():
		return no("it is %s already", s.State)
	case a == Retry && s.State == store.StateSending:
		return no("it is being sent now")
	case a == Retry && s.State == store.StateHeld:
		return no("it is held: release it")
	case a == Hold && s.State == store.StateHeld:
		return no("it is held already")
	case a == Release && s.State != store.StateHeld && s.Wish != store.WishHold:
		return no("it is not held")
	}
	return nil
}

// apply changes a message that nobody is sending.
func apply(s *store.Submission, a Action, reason string) {
	now := time.Now()
	p := readProgress(s)
	s.Wish = store.WishNone
	switch a {
	case Retry:
		s.NextAttempt = now
	case Hold:
		if s.State == store.StateUnclear {
			p.EverUnclear = true // also after a crash, of which the row alone does not tell
			p.keep(s)
		}
		s.State, s.HoldReason, s.NextAttempt = store.StateHeld, reason, time.Time{}
	case Release:
		s.State = store.StateQueued
		if p.EverUnclear || s.ClaimedFrom == store.StateUnclear {
			s.State = store.StateUnclear // to be looked for first, as ever
			p.Unseen = p.Blind != 0      // and where that cannot be, a person has decided
			p.Looks, p.Longer = 0, 0
			p.keep(s)
		}
		// The time it was held is not counted against it.
		if held := now.Sub(s.Updated); held > 0 {
			s.Expires = s.Expires.Add(held)
		}
		if least := now.Add(releasedLeast); p.Unseen && s.Expires.Before(least) {
			s.Expires = least // it was held because its time was up
		}
		s.HoldReason, s.NextAttempt = "", now
	case Bounce:
		if reason == "" {
			reason = "An administrator took the message out of the queue."
		}
		p = progress{Drafts: p.mayLeaveDrafts()}
		s.State, s.NextAttempt, s.LastError = store.StateBounced, time.Time{}, reason
		if p.Drafts {
			s.NextAttempt = now
		}
		if len(wanted(s.Recipients, "FAILURE")) > 0 && s.EnvelopeFrom != "" {
			s.NextAttempt = now
			p.NoticeKind, p.Status, p.Text = Failed, "5.7.0", reason
		}
		p.keep(s)
	case Purge:
		p = progress{Drafts: p.mayLeaveDrafts()}
		s.State, s.NextAttempt = store.StatePurged, time.Time{}
		if p.Drafts {
			s.NextAttempt = now
		}
		p.keep(s)
	}
}

// grant does what a person asked for while the message was being sent.
func grant(s *store.Submission) {
	switch s.Wish {
	case store.WishHold:
		apply(s, Hold, s.HoldReason)
	case store.WishBounce:
		apply(s, Bounce, s.HoldReason)
	case store.WishPurge:
		apply(s, Purge, "")
	}
}
