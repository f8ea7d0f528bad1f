package graph

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// Folder is a mail folder. Its id is constant over rename and move. Names are in the mailbox's language, may hold "/",
// and may occur twice under one parent. Graph: mailfolder.
type Folder struct {
	ID               string
	DisplayName      string
	ParentFolderID   string
	ChildFolderCount int // direct children
	TotalItemCount   int
	UnreadItemCount  int
	IsHidden         bool
	ODataType        string
	Removed          string // the reason, in a delta row that says the folder is gone; then only ID is set
	Partial          bool   // a delta row without a name: fields that are zero may just not have been in it
}

// Search reports whether this is a search folder, whose messages live elsewhere.
func (f Folder) Search() bool {
	return strings.EqualFold(strings.TrimPrefix(f.ODataType, "#"), "microsoft.graph.mailSearchFolder")
}

// UnmarshalJSON reads a folder as Graph writes it.
func (f *Folder) UnmarshalJSON(b []byte) error {
	var j struct {
		ID               string  `json:"id"`
		DisplayName      *string `json:"displayName"`
		ParentFolderID   string  `json:"parentFolderId"`
		ChildFolderCount int     `json:"childFolderCount"`
		TotalItemCount   int     `json:"totalItemCount"`
		UnreadItemCount  int     `json:"unreadItemCount"`
		IsHidden         bool    `json:"isHidden"`
		ODataType        string  `json:"@odata.type"`
		Removed          *struct {
			Reason string `json:"reason"`
		} `json:"@removed"`
	}
	if err := decode(b, &j); err != nil {
		return err
	}
	*f = Folder{ID: j.ID, ParentFolderID: j.ParentFolderID, ChildFolderCount: j.ChildFolderCount, TotalItemCount: j.TotalItemCount,
		UnreadItemCount: j.UnreadItemCount, IsHidden: j.IsHidden, ODataType: j.ODataType}
	if j.DisplayName != nil {
		f.DisplayName = *j.DisplayName
	}
	if j.Removed != nil {
		f.Removed = j.Removed.Reason
		if f.Removed == "" {
			f.Removed = "deleted"
		}
	}
	f.Partial = j.DisplayName == nil && f.Removed == ""
	return nil
}

// Folder reads one folder, by id or well-known name such as "inbox".
func (c *Client) Folder(ctx context.Context, idOrWellKnown string) (*Folder, error) {
	const op = "read folder"
	path, err := itemPath("mailFolders", idOrWellKnown, "")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	return c.folderCall(ctx, call{op: op, kind: "folder", method: http.MethodGet, url: c.address(path), repeat: repeatAlways})
}

func (c *Client) folderCall(ctx context.Context, r call) (*Folder, error) {
	f := new(Folder)
	err := c.do(ctx, r, func(resp *http.Response) error {
		if err := readJSON(resp, f); err != nil {
			return err
		}
		if f.ID == "" {
			return errors.New("answer holds no folder")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// WellKnownFolders returns the ids behind well-known names such as "inbox" and "sentitems". Names that the mailbox lacks
// are left out. v1.0 has no wellKnownName property, so this is the only way from ids to roles.
func (c *Client) WellKnownFolders(ctx context.Context, names []string) (map[string]string, error) {
	items := make([]BatchItem, len(names))
	for i, name := range names {
		path, err := itemPath("mailFolders", name, "?$select=id")
		if err != nil {
			return nil, fmt.Errorf("read well-known folders: %w", err)
		}
		items[i] = BatchItem{Method: http.MethodGet, Path: path}
	}
	results, err := c.batch(ctx, "read well-known folders", items)
	if err != nil {
		return nil, err
	}
	ids := make(map[string]string, len(names))
	for i, r := range results {
		if IsNotFound(r.Err) || IsCode(r.Err, "ErrorInvalidIdMalformed") {
			continue // some names are not known everywhere
		}
		if r.Err != nil {
			return nil, r.Err
		}
		var f Folder
		if err := json.Unmarshal(r.Body, &f); err != nil || f.ID == "" {
			return nil, &transportError{"read well-known folders", errors.New("answer holds no folder")}
		}
		ids[names[i]] = f.ID
	}
	return ids, nil
}

// FolderSizes returns how many bytes the messages of each folder take in the store, folders below not counted. Folders that
// are gone, or whose answer does not tell, are left out.
func (c *Client) FolderSizes(ctx context.Context, ids []string) (map[string]int64, error) {
	const op = "read folder sizes"
	query := ListOptions{Select: []string{"id"}, Expand: []PropertyID{PropFolderSize}}.query()
	items := make([]BatchItem, len(ids))
	for i, id := range ids {
		path, err := itemPath("mailFolders", id, query)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", op, err)
		}
		items[i] = BatchItem{Method: http.MethodGet, Path: path}
	}
	results, err := c.batch(ctx, op, items)
	if err != nil {
		return nil, err
	}
	sizes := make(map[string]int64, len(ids))
	for i, r := range results {
		if r.Err != nil {
			if IsTemporary(r.Err) {
				return nil, r.Err
			}
			continue
		}
		var row Message // a folder's extended properties look the same
		if err := json.Unmarshal(r.Body, &row); err != nil {
			return nil, &transportError{op, err}
		}
		if n, err := strconv.ParseInt(row.Property(PropFolderSize), 10, 64); err == nil && n >= 0 {
			sizes[ids[i]] = n
		}
	}
	return sizes, nil
}

// ChildFolders reads the folders directly below parentID, or those at the top when that is empty, page by page. A link, the
// nextLink of a page that came by Batch, continues there; parentID and filter are in it then.
func (c *Client) ChildFolders(ctx context.Context, parentID, filter, link string, yield func([]Folder) error) error {
	const op = "list folders"
	o := ListOptions{Filter: filter, PageSize: maxPage - 1}
	r := call{op: op, kind: "folder", method: http.MethodGet, prefer: o.prefer(), repeat: repeatAlways}
	if link == "" {
		path := "/mailFolders"
		if parentID != "" {
			var err error
			if path, err = itemPath("mailFolders", parentID, "/childFolders"); err != nil {
				return fmt.Errorf("%s: %w", op, err)
			}
		}
		r.url = c.address(path + o.query())
	}
	circle := progress{op: op}
	for {
		if link != "" {
			if err := circle.follow(link); err != nil {
				return err
			}
			var err error
			if r.url, err = c.here(link); err != nil {
				return fmt.Errorf("%s: %w", op, err)
			}
		}
		p, err := readPage[Folder](ctx, c, r, false)
		if err != nil {
			return err
		}
		if err := yield(*p.Value); err != nil {
			return err
		}
		if link = p.NextLink; link == "" {
			return nil
		}
	}
}

// CreateFolder creates a folder under parentID, or at the top when that is empty. A name that is taken is
// IsFolderExists.
func (c *Client) CreateFolder(ctx context.Context, parentID, name string) (*Folder, error) {
	const op = "create folder"
	path := "/mailFolders"
	if parentID != "" {
		var err error
		if path, err = itemPath("mailFolders", parentID, "/childFolders"); err != nil {
			return nil, fmt.Errorf("%s: %w", op, err)
		}
	}
	return c.folderChange(ctx, op, http.MethodPost, path, map[string]string{"displayName": name}, repeatRefused)
}

// RenameFolder changes the name and not the place.
func (c *Client) RenameFolder(ctx context.Context, id, name string) (*Folder, error) {
	const op = "rename folder"
	path, err := itemPath("mailFolders", id, "")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	return c.folderChange(ctx, op, http.MethodPatch, path, map[string]string{"displayName": name}, repeatAlways)
}

// MoveFolder puts a folder with all it holds under another one; "msgfolderroot" is the top.
func (c *Client) MoveFolder(ctx context.Context, id, destID string) (*Folder, error) {
	const op = "move folder"
	path, err := itemPath("mailFolders", id, "/move")
	if err == nil && destID == "" {
		err = errNoID
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	return c.folderChange(ctx, op, http.MethodPost, path, destination{destID}, repeatRefused)
}

func (c *Client) folderChange(ctx context.Context, op, method, path string, body any, repeat repeatable) (*Folder, error) {
	p, err := jsonPayload(body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	return c.folderCall(ctx, call{op: op, kind: "folder", method: method, url: c.address(path), body: p, repeat: repeat, changes: true})
}

// DeleteFolder moves a folder with all it holds to Deleted Items.
func (c *Client) DeleteFolder(ctx context.Context, id string) error {
	const op = "delete folder"
	path, err := itemPath("mailFolders", id, "")
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return c.do(ctx, call{op: op, kind: "folder", method: http.MethodDelete, url: c.address(path), repeat: repeatRefused, changes: true}, nil)
}

// destination is the parameter of move and copy, in the spelling of the documents.
type destination struct {
	ID string `json:"destinationId"`
}
