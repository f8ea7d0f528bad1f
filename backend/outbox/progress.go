package outbox

import (
	"context"
	"encoding/json"
	"fmt"

	"postern/backend/store"
)

// progress is what a row keeps for the queue and its Sender alone, as JSON.
type progress struct {
	Part        int    `json:"part,omitempty"`
	Draft       string `json:"draft,omitempty"`
	Ready       bool   `json:"ready,omitempty"`    // the draft is complete; sending it may have been tried
	Looks       int    `json:"looks,omitempty"`    // since the last unclear end
	LookErrs    int    `json:"lookErrs,omitempty"` // looks that failed
	EverUnclear bool   `json:"unclear,omitempty"`
	// NoticeKind, Status and Text say which notice is owed to the sender.
	NoticeKind NoticeKind `json:"notice,omitempty"`
	Status     string     `json:"status,omitempty"`
	Text       string     `json:"text,omitempty"`
	Tries      int        `json:"tries,omitempty"` // of the notice
	Copy       bool       `json:"copy,omitempty"`  // the copy in Sent Items is to be removed
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

func (j *Job) save(ctx context.Context) error {
	if j.q == nil {
		return nil
	}
	_, err := j.q.update(ctx, j.ID, func(s *store.Submission) { j.progress.keep(s) })
	if err != nil {
		return fmt.Errorf("record progress of message: %w", err)
	}
	return nil
}
