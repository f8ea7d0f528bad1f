package graph

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
)

// UpdateItem is one message to change.
type UpdateItem struct {
	ID     string
	Update Update
	Whole  bool // the answer shall be the message, which tells its new version
}

// MessageResult is the outcome for one message: it, or why not.
type MessageResult struct {
	Message *Message
	Err     error
}

// MoveResult is the outcome of one move or copy.
type MoveResult = MessageResult

// DeleteMode says where deleted messages go.
type DeleteMode int

const (
	DeleteToTrash     DeleteMode = iota // to Deleted Items; those there already to Recoverable Items
	DeleteRecoverable                   // to Recoverable Items, from where an administrator can fetch them back
	DeletePermanent                     // to Purges; worldwide cloud only
)

// recoverable is the well-known name of Recoverable Items' folder for deletions.
const recoverable = "recoverableitemsdeletions"

// UpdateMany changes many messages by batches; result i belongs to item i. The message is nil where the answer does not
// hold it: Whole asks for it, and who does not know how to leave it out sends it all the same.
func (c *Client) UpdateMany(ctx context.Context, items []UpdateItem) []MessageResult {
	batch := make([]BatchItem, len(items))
	for i, item := range items {
		batch[i] = c.onMessage(http.MethodPatch, item.ID, "", item.Update)
		batch[i].Headers = make(map[string]string)
		if !item.Whole {
			// Else each answer is the whole message with its body. RFC 7240: who does not know it ignores it.
			batch[i].Headers["Prefer"] = "return=minimal"
		}
		maps.Copy(batch[i].Headers, item.Update.headers())
	}
	out := make([]MessageResult, len(items))
	for i, r := range c.many(ctx, "update messages", batch) {
		out[i].Err = r.Err
		if m := new(Message); r.Err == nil && json.Unmarshal(r.Body, m) == nil && m.ID != "" {
			out[i].Message = m
		}
	}
	return out
}

// MoveMany moves many messages by batches; result i belongs to ids[i]. See Move.
func (c *Client) MoveMany(ctx context.Context, ids []string, dest string) []MoveResult {
	return c.transferMany(ctx, "move messages", ids, "/move", dest)
}

// CopyMany copies many messages by batches; result i belongs to ids[i]. See Copy.
func (c *Client) CopyMany(ctx context.Context, ids []string, dest string) []MoveResult {
	return c.transferMany(ctx, "copy messages", ids, "/copy", dest)
}

func (c *Client) transferMany(ctx context.Context, op string, ids []string, action, dest string) []MoveResult {
	if dest == "" {
		return failed(len(ids), errNoID)
	}
	batch := make([]BatchItem, len(ids))
	for i, id := range ids {
		batch[i] = c.onMessage(http.MethodPost, id, action, destination{dest})
	}
	return messagesOf(op, call{changes: true}, c.many(ctx, op, batch))
}

// DeleteMany deletes many messages by batches; error i belongs to ids[i].
func (c *Client) DeleteMany(ctx context.Context, ids []string, how DeleteMode) []error {
	batch := make([]BatchItem, len(ids))
	for i, id := range ids {
		switch how {
		case DeletePermanent:
			batch[i] = c.onMessage(http.MethodPost, id, "/permanentDelete", nil)
		case DeleteRecoverable:
			batch[i] = c.onMessage(http.MethodPost, id, "/move", destination{recoverable})
		default:
			batch[i] = c.onMessage(http.MethodDelete, id, "", nil)
		}
	}
	return errorsOf(c.many(ctx, "delete messages", batch))
}

// GetMany reads many messages by batches, with Select and Expand of o; result i belongs to ids[i].
func (c *Client) GetMany(ctx context.Context, ids []string, o ListOptions) []MessageResult {
	query := ListOptions{Select: o.Select, Expand: o.Expand}.query()
	batch := make([]BatchItem, len(ids))
	for i, id := range ids {
		batch[i] = c.onMessage(http.MethodGet, id, query, nil)
	}
	return messagesOf("read messages", call{}, c.many(ctx, "read messages", batch))
}

func (c *Client) onMessage(method, id, rest string, body any) BatchItem {
	path, _ := itemPath("messages", id, rest) // empty ids are taken out by many
	return BatchItem{Method: method, Path: path, Body: body}
}

// many makes a batch of those items that have an id.
func (c *Client) many(ctx context.Context, op string, items []BatchItem) []BatchResult {
	results := make([]BatchResult, len(items))
	var send []BatchItem
	var at []int
	for i, item := range items {
		if item.Path == "" {
			results[i].Err = &notSentError{op: op, err: errNoID}
			continue
		}
		send, at = append(send, item), append(at, i)
	}
	answers, err := c.batch(ctx, op, send)
	for n, i := range at {
		switch {
		case answers != nil:
			results[i] = answers[n]
		default:
			results[i].Err = err
		}
	}
	return results
}

func errorsOf(results []BatchResult) []error {
	errs := make([]error, len(results))
	for i, r := range results {
		errs[i] = r.Err
	}
	return errs
}

func messagesOf(op string, changed call, results []BatchResult) []MessageResult {
	out := make([]MessageResult, len(results))
	for i, r := range results {
		if out[i].Err = r.Err; r.Err != nil {
			continue
		}
		m := new(Message)
		err := json.Unmarshal(r.Body, m)
		if err == nil && m.ID == "" {
			err = errors.New("answer holds no message")
		}
		if err != nil {
			out[i].Err = changed.unclear(&transportError{op, err})
			continue
		}
		out[i].Message = m
	}
	return out
}

func failed(n int, err error) []MessageResult {
	out := make([]MessageResult, n)
	for i := range out {
		out[i].Err = err
	}
	return out
}
