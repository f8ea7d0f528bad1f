package outbox

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"postern/backend/store"
)

// progress is what a row keeps for the queue and its Sender alone, as JSON.
type progress struct {
	Part        int    `json:"part,omitempty"`
	Draft       string `json:"draft,omitempty"`
	Ready       bool   `json:"ready,omitempty"`    // the draft is complete; sending it may have been tried
	Drafting    bool   `json:"drafting,omitempty"` // a draft may have been made that Draft does not name
	Looks       int    `json:"looks,omitempty"`    // since the last unclear end
	Since       int64  `json:"since,omitempty"`    // of the last unclear end, in Unix seconds
	Unlikely    bool   `json:"unlikely,omitempty"` // that the last unclear end was one of a message sent
	Longer      int    `json:"longer,omitempty"`   // looks more, because nothing tells that it was not sent
	Behind      int    `json:"behind,omitempty"`   // looks more, because copies of other messages come late
	Caught      bool   `json:"caught,omitempty"`   // these copies have come
	Blind       int64  `json:"blind,omitempty"`    // since when we may not look, in Unix seconds
	Unseen      bool   `json:"unseen,omitempty"`   // a person wants it sent although we may not look
	Rested      bool   `json:"rested,omitempty"`   // the wait behind the looks is over
	LookErrs    int    `json:"lookErrs,omitempty"` // looks that failed
	EverUnclear bool   `json:"unclear,omitempty"`
	Why         string `json:"why,omitempty"` // the last unclear end, for people
	// NoticeKind, Status and Text say which notice is owed to the sender.
	NoticeKind NoticeKind `json:"notice,omitempty"`
	Status     string     `json:"status,omitempty"`
	Text       string     `json:"text,omitempty"`
	Tries      int        `json:"tries,omitempty"`  // of the notice
	Drafts     bool       `json:"drafts,omitempty"` // drafts are to be removed
	DraftTries int        `json:"draftTries,omitempty"`
	Copy       bool       `json:"copy,omitempty"` // the copy in Sent Items is to be removed
	CopyLooks  int        `json:"copyLooks,omitempty"`
	CopiesGone int        `json:"copiesGone,omitempty"`
}

func readProgress(sub *store.Submission) progress {
	var p progress
	// What cannot be read is as good as nothing known: the search for the message covers it.
	_ = json.Unmarshal([]byte(sub.Progress), &p)
	return p
}

// keep puts p into the row.
func (p progress) keep(sub *store.Submission) {
	b, err := json.Marshal(p)
	if err != nil || string(b) == "{}" {
		b = nil
	}
	sub.Progress = string(b)
}

// mayLeaveDrafts reports whether drafts of the message may lie in the mailbox.
func (p progress) mayLeaveDrafts() bool { return p.Draft != "" || p.Drafting || p.Drafts }

// ended notes an attempt that ended unclearly.
func (p *progress) ended(e *Error, now time.Time) {
	p.EverUnclear, p.Why = true, e.say()
	p.Looks, p.Longer, p.Behind = 0, 0, 0
	p.Rested, p.Caught, p.Unseen, p.Unlikely = false, false, false, e.Unlikely
	p.Since, p.Blind = now.Unix(), 0
}

// save writes the progress down. sends is how many messages it says were handed to Exchange.
func (j *Job) save(ctx context.Context, step string, sends int) error {
	if j.q == nil {
		return nil
	}
	_, err := j.q.update(ctx, step, j.ID, func(s *store.Submission) {
		j.progress.keep(s)
		s.Sends = sends
	})
	if err != nil {
		return fmt.Errorf("record progress of message: %w", err)
	}
	return nil
}
