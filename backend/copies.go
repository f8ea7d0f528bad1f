package backend

import (
	"context"
	"os"

	"postern/backend/graph"
	"postern/backend/outbox"
)

// sentItems is the well-known name of the folder Exchange files sent messages in.
const sentItems = "sentitems"

// RemoveCopy removes the message from Sent Items, all parts of it. Sending MIME always leaves a copy there. What
// is removed carries the message's own mark, is no draft, and lies in that folder: a message to oneself has the mark in the Inbox, too.
func (s *sender) RemoveCopy(ctx context.Context, job *outbox.Job) (bool, error) {
	a, err := s.account(job.Mailbox)
	if err != nil {
		return false, err
	}
	ctx = graph.WithLane(ctx, graph.Background)
	f, err := os.Open(job.Path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	header, _, err := readHeader(f)
	if err != nil {
		return false, err
	}
	parts := len(splitRecipients(header, addressesOf(job.Recipients), maxPartRecipients))
	for part := range parts {
		found, err := s.searchIn(ctx, a, sentItems, job.MessageID, partMark(job.ID, part))
		if err != nil {
			return false, classify(err, job)
		}
		for _, m := range found {
			if m.IsDraft != nil && *m.IsDraft {
				continue
			}
			err := a.graph.PermanentDelete(ctx, m.ID)
			if err != nil && !graph.IsNotFound(err) && !graph.IsTemporary(err) && !graph.Unclear(err) {
				err = a.graph.Delete(ctx, m.ID) // clouds without permanentDelete
			}
			if err != nil && !graph.IsNotFound(err) {
				return false, classify(err, job)
			}
			job.CopyRemoved()
		}
	}
	a.Poke(sentRole)
	return job.CopiesRemoved() >= parts, nil
}
