package graph

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// errDeltaExpand refuses what the service refuses, with a clearer word.
var errDeltaExpand = errors.New("delta takes no $expand")

// MessageDelta reads what changed in a folder. An empty link starts a round over everything; a deltaLink asks for the
// changes since the round that gave it; a nextLink continues one. yield gets each page, which may be empty, with the
// link to the next, empty on the last. The deltaLink for the next round is returned after the last page.
//
// Rows hold at least the changed properties, repeat within and between rounds, and may speak of removed messages nobody
// heard of. A void link is ResyncRequired, a deleted folder IsFolderGone, a full mailbox IsQuota. The options of the
// first request stay with the links; only PageSize acts afterwards. Graph: message-delta.
func (c *Client) MessageDelta(ctx context.Context, folderID string, o ListOptions, link string, yield func(page []Message, nextLink string) error) (deltaLink string, err error) {
	const op = "read changes"
	if len(o.Expand) > 0 {
		return "", fmt.Errorf("%s: %w", op, errDeltaExpand)
	}
	path, err := itemPath("mailFolders", folderID, "/messages/delta"+o.query())
	if err != nil && link == "" {
		return "", fmt.Errorf("%s: %w", op, err)
	}
	return delta(ctx, c, call{op: op, kind: "delta", method: http.MethodGet, url: c.address(path), prefer: o.prefer(), repeat: repeatAlways}, link,
		func(rows []messageJSON, next string) error { return yield(messages(rows), next) })
}

// LatestDelta returns a link whose round will hold what changes from now on. Graph has no short way to it for messages:
// it walks a whole round and drops the rows, one request for each PageSize messages. The options are those that the
// later rounds will have.
func (c *Client) LatestDelta(ctx context.Context, folderID string, o ListOptions) (deltaLink string, err error) {
	if o.PageSize <= 0 {
		o.PageSize = maxPage
	}
	return c.MessageDelta(ctx, folderID, o, "", func([]Message, string) error { return nil })
}

// FolderDelta reads what changed in the folder tree, all levels in one flat list, in no order. Links are as in
// MessageDelta. Graph: mailfolder-delta.
func (c *Client) FolderDelta(ctx context.Context, link string, yield func([]Folder) error) (deltaLink string, err error) {
	r := call{op: "read folder changes", kind: "folder delta", method: http.MethodGet, url: c.address("/mailFolders/delta"),
		prefer: ListOptions{PageSize: 500}.prefer(), repeat: repeatAlways}
	return delta(ctx, c, r, link, func(rows []Folder, _ string) error {
		kept := rows[:0]
		for _, f := range rows {
			if f.ID != "" {
				kept = append(kept, f)
			}
		}
		return yield(kept)
	})
}

// delta walks a round from link, or from r's own address.
func delta[T any](ctx context.Context, c *Client, r call, link string, yield func([]T, string) error) (deltaLink string, err error) {
	circle := progress{op: r.op}
	for kept := true; ; kept = false {
		if link != "" {
			if err := circle.follow(link); err != nil {
				return "", err
			}
			if r.url, err = c.link(link); err != nil {
				return "", fmt.Errorf("%s: %w", r.op, keptLink(kept, err))
			}
		}
		p, err := readPage[T](ctx, c, r, true)
		if err != nil {
			return "", err
		}
		if err := yield(*p.Value, p.NextLink); err != nil {
			return "", err
		}
		if p.NextLink == "" {
			return p.DeltaLink, nil
		}
		link = p.NextLink
	}
}
