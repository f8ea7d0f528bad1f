package backend

import (
	"context"
	"errors"
	"slices"

	"github.com/emersion/go-imap/v2"

	"postern/backend/graph"
	"postern/backend/store"
)

const (
	fewPreviews  = 40   // up to here single reads, by batches, are cheaper than pages
	previewPage  = 1000 // Graph: user-list-messages, the most a page holds
	previewBatch = 100
)

// errFound ends a list early.
var errFound = errors.New("all found")

// Previews returns the beginning of the text of messages as Graph has it, up to 255 characters (Graph: message,
// bodyPreview), without reading the messages. Those that are gone are not among them.
func (m *Mailbox) Previews(ctx context.Context, uids []imap.UID) (map[imap.UID]string, error) {
	ctx = interactive(ctx)
	found := make(map[imap.UID]string, len(uids))
	wanted := make(map[store.GraphID]imap.UID, len(uids))
	for part := range slices.Chunk(uids, headerChunk) {
		rows, err := m.rows(ctx, part)
		if err != nil {
			return nil, translate("read previews", err)
		}
		for _, r := range rows {
			wanted[r.GraphID] = r.UID
		}
	}
	take := func(msg *graph.Message) {
		id := store.GraphID(msg.ID)
		if uid, ok := wanted[id]; ok {
			if msg.BodyPreview != nil {
				found[uid] = *msg.BodyPreview
			}
			delete(wanted, id)
		}
	}
	opts := graph.ListOptions{Select: []string{"id", "bodyPreview"}, PageSize: previewPage}
	if len(wanted) > fewPreviews && len(m.UIDs())/previewPage < len(wanted)/4 {
		row, err := m.account.store.Folder(ctx, m.view.id)
		if err != nil {
			return nil, translate("read previews", err)
		}
		err = m.account.graph.ListMessages(ctx, string(row.GraphID), opts, "", func(page []graph.Message, _ string) error {
			for i := range page {
				take(&page[i])
			}
			if len(wanted) == 0 {
				return errFound
			}
			return nil
		})
		if err != nil && !errors.Is(err, errFound) {
			return nil, translate("read previews", err)
		}
	}
	// Also what the list has missed because the folder changed meanwhile.
	ids := make([]string, 0, len(wanted))
	for id := range wanted {
		ids = append(ids, string(id))
	}
	for part := range slices.Chunk(ids, previewBatch) {
		for i, r := range m.account.graph.GetMany(ctx, part, opts) {
			switch {
			case r.Err == nil && r.Message != nil:
				r.Message.ID = part[i]
				take(r.Message)
			case r.Err != nil && !graph.IsNotFound(r.Err):
				return nil, translate("read previews", r.Err)
			}
		}
	}
	return found, nil
}
