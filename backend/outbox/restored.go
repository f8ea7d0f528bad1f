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

// RestoredReport counts what became of the messages of a restored backup that had not been sent when it was made.
type RestoredReport struct {
	Held    int // wait for a person
	Waiting int // are looked for, and sent if they are not found
	Settled int // were sent or given up since
}

// Restored readies the outbox of a backup made at the given time: what was waiting then may have been sent since. Such
// messages are held, or with send looked for in the mailbox and sent if they are not found there; when a person releases one
// it is looked for as well. present tells what is known to have become of messages since, by id.
func Restored(ctx context.Context, o *store.Outbox, made, now time.Time, send bool, present map[string]store.State) (RestoredReport, error) {
	var report RestoredReport
	rows, err := o.List(ctx, store.Filter{States: []store.State{store.StateSpooled, store.StateQueued, store.StateSending, store.StateUnclear, store.StateHeld}})
	if err != nil {
		return report, err
	}
	for _, r := range rows {
		file := filepath.Join(o.SpoolDir(), filepath.Base(r.Spool))
		if r.State == store.StateSpooled {
			// Nobody was told that it is accepted.
			if err := errors.Join(o.Remove(ctx, r.ID), ignoreMissing(os.Remove(file))); err != nil {
				return report, err
			}
			continue
		}
		state := present[r.ID]
		if state.Settled() {
			_, err := o.Update(ctx, r.ID, func(s *store.Submission) error {
				s.State, s.NextAttempt, s.Wish = state, time.Time{}, store.WishNone
				progress{}.keep(s)
				s.Events = append(s.Events, store.Event{What: "restored", Text: fmt.Sprintf("It was %s after the backup had been made.", state)})
				return nil
			})
			if err := errors.Join(err, ignoreMissing(os.Remove(file))); err != nil {
				return report, err
			}
			report.Settled++
			continue
		}
		_, err := o.Update(ctx, r.ID, func(s *store.Submission) error {
			p := readProgress(s)
			p.EverUnclear, p.Looks, p.LookErrs = true, 0, 0
			p.Unlikely = true // what was sent since has its copy by now
			p.keep(s)
			s.Wish = store.WishNone
			// The time it spent in the backup is not counted against it.
			s.Expires = s.Expires.Add(max(0, now.Sub(made)))
			if s.State == store.StateHeld {
				report.Held++ // as it was
				return nil
			}
			text := "restored from a backup of " + made.UTC().Format("2006-01-02 15:04") + " UTC: it may have been sent since"
			s.Events = append(s.Events, store.Event{What: "restored", Text: text})
			if send {
				s.State, s.NextAttempt = store.StateUnclear, now
				report.Waiting++
				return nil
			}
			s.State, s.HoldReason, s.NextAttempt = store.StateHeld, text, time.Time{}
			report.Held++
			return nil
		})
		if err != nil {
			return report, err
		}
	}
	return report, nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
