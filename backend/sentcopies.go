package backend

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"postern/backend/graph"
	"postern/backend/message"
	"postern/backend/store"
	"postern/backend/syncer"
)

// justSent is how long after sending a client's own copy may still be on its way into
// Sent Items. A later one is somebody filing an old message, which must be kept.
var justSent = time.Hour // variable for tests

// submissions returns what was submitted for the mailbox with this Message-ID field and content, in the given states. Where no copy
// in Sent Items is wanted there is nothing that a client's could be one with.
func (b *Backend) submissions(ctx context.Context, address, messageID, content string, states ...store.State) ([]store.Submission, error) {
	if messageID = strings.TrimSpace(messageID); messageID == "" || content == "" {
		return nil, nil
	}
	rows, err := b.store.Outbox().List(ctx, store.Filter{Mailbox: address, MessageID: messageID, States: states})
	if err != nil {
		return nil, err
	}
	var same []store.Submission
	for _, r := range rows {
		if r.DropCopy {
			continue
		}
		if r.Content == "" {
			if r.Content = b.contentOf(&r); r.Content == "" {
				// Its file is removed when it is sent, and then the row says it.
				if now, err := b.store.Outbox().Get(ctx, r.ID); err == nil {
					r = *now
				}
			}
		}
		if r.Content == content {
			same = append(same, r)
		}
	}
	return same, nil
}

// contentOf reads what the message says from its file; it is "" when that is gone.
func (b *Backend) contentOf(row *store.Submission) string {
	f, err := os.Open(filepath.Join(b.store.Outbox().SpoolDir(), row.Spool))
	if err != nil {
		return ""
	}
	defer f.Close()
	ix, err := message.Parse(f, row.Size)
	if err == nil {
		var content string
		if content, err = message.Fingerprint(f, ix); err == nil {
			return content
		}
	}
	b.log.Warn("queued message not read", "queue_id", row.ID, "err", err)
	return ""
}

// sending tells the syncer whether a client's own copy of a message belongs to one that is on its way.
func (b *Backend) sending(ctx context.Context, address, messageID, content string) syncer.SendState {
	rows, err := b.submissions(ctx, address, messageID, content,
		store.StateQueued, store.StateSending, store.StateUnclear, store.StateHeld, store.StateSent)
	if err != nil {
		b.log.Warn("outbox not searched", "mailbox", address, "err", err)
	}
	state := syncer.NotSending
	for _, r := range rows {
		switch {
		case r.State == store.StateSending,
			r.State == store.StateSent && time.Since(r.Updated) < justSent,
			r.State == store.StateQueued && r.Attempts == 0 && !time.Now().Before(r.NextAttempt):
			return syncer.SendingNow
		case r.State != store.StateSent:
			state = syncer.SendingSometime
		}
	}
	return state
}

// ownCopy reports whether m is what Exchange has filed of the message that c is the client's copy of: it has the mark of a
// submission with the same Message-ID and content.
func (b *Backend) ownCopy(ctx context.Context, a *Account, m *graph.Message, c store.SentCopy) (bool, error) {
	rows, err := b.submissions(ctx, a.address, c.MessageID, c.Content)
	if err != nil {
		return false, err
	}
	marks := make(map[string]bool, len(rows))
	for _, r := range rows {
		if r.State == store.StateSent && r.Updated.Before(c.Stored.Add(-justSent)) {
			continue // an old message being filed
		}
		marks[partMark(r.ID, 0)] = true
	}
	if len(marks) == 0 {
		return false, nil
	}
	mark, err := (&sender{b}).markOf(ctx, a, m)
	return err == nil && marks[mark], err
}

// markOf returns the mark of a message in Graph, "" if it has none.
func (s *sender) markOf(ctx context.Context, a *Account, m *graph.Message) (string, error) {
	mark := graph.InternetHeader(markField)
	if v := strings.TrimSpace(m.Property(mark)); v != "" {
		return v, nil
	}
	got, err := a.graph.Message(ctx, m.ID, graph.ListOptions{Select: []string{"id"}, Expand: []graph.PropertyID{mark}})
	switch {
	case err == nil && strings.TrimSpace(got.Property(mark)) != "":
		return strings.TrimSpace(got.Property(mark)), nil
	case graph.IsNotFound(err):
		return "", nil
	case err != nil && graph.StatusOf(err) != 400: // some tenants refuse the property
		return "", err
	}
	return s.readMark(ctx, a, m.ID)
}
