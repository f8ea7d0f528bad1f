package graph

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// ListOptions says what a list, a delta round or a single read returns. Graph: query-parameters.
type ListOptions struct {
	Select  []string     // properties; id always comes
	Expand  []PropertyID // extended properties; not for delta, which refuses them
	Filter  string       // with OrderBy: its properties first, in the same order
	OrderBy string
	Search  string // KQL, without the quotes around it; not with Filter or OrderBy
	// PageSize is asked for by Prefer, not by $top, which some collections take as a total. Zero leaves Graph's 10;
	// more than 1,000 is not given. Pages may be smaller, even empty, and still not be the last.
	PageSize int
}

const maxPage = 1000

// query returns the options as a query string with its "?", empty if there are none.
func (o ListOptions) query() string {
	var parts []string
	add := func(name, value string) { parts = append(parts, name+"="+queryEscape(value)) }
	if len(o.Select) > 0 {
		add("$select", strings.Join(o.Select, ","))
	}
	if len(o.Expand) > 0 {
		var b strings.Builder
		b.WriteString("singleValueExtendedProperties($filter=")
		for i, id := range o.Expand {
			if i > 0 {
				b.WriteString(" or ")
			}
			b.WriteString("id eq " + Quote(id.String()))
		}
		b.WriteByte(')')
		add("$expand", b.String())
	}
	if o.Filter != "" {
		add("$filter", o.Filter)
	}
	if o.OrderBy != "" {
		add("$orderby", o.OrderBy)
	}
	if o.Search != "" {
		add("$search", `"`+strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(o.Search)+`"`)
	}
	if len(parts) == 0 {
		return ""
	}
	return "?" + strings.Join(parts, "&")
}

// Quote writes a string literal for Filter: a quote inside is doubled.
func Quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// queryEscape encodes blanks as %20: a "+" is a plus sign to some OData readers.
func queryEscape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

func (o ListOptions) prefer() []string {
	if o.PageSize <= 0 {
		return nil
	}
	return []string{"odata.maxpagesize=" + strconv.Itoa(min(o.PageSize, maxPage))}
}

// page is one answer of a list or delta round.
type page[T any] struct {
	Value     *[]T   `json:"value"`
	NextLink  string `json:"@odata.nextLink"`
	DeltaLink string `json:"@odata.deltaLink"`
}

// errNoList says that a 200 had no list in it. Read as an empty one it would say that a folder is empty.
var errNoList = errors.New("answer holds no list")

// readPage requests one page; its links are those to follow. delta answers must have exactly one of the two links, or the round would end nowhere.
func readPage[T any](ctx context.Context, c *Client, r call, delta bool) (*page[T], error) {
	var p page[T]
	err := c.do(ctx, r, func(resp *http.Response) error {
		p = page[T]{}
		if err := readJSON(resp, &p); err != nil {
			return err
		}
		switch {
		case p.Value == nil:
			return errNoList
		case delta && p.NextLink == "" && p.DeltaLink == "":
			return errors.New("delta answer without a link")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, link := range []*string{&p.NextLink, &p.DeltaLink} {
		if *link == "" {
			continue
		}
		// Before the rows count: a link that cannot be followed must not become a folder's state.
		if *link, err = c.here(*link); err != nil {
			return nil, fmt.Errorf("%s: %w", r.op, err)
		}
	}
	return &p, nil
}

// maxSame is how often in a row a next link may lead to the page it came from. An empty page may have one that does.
const maxSame = 10

// progress notices a list that goes round in a circle.
type progress struct {
	op, last string
	same     int
}

func (p *progress) follow(link string) error {
	if link != p.last {
		p.last, p.same = link, 0
		return nil
	}
	if p.same++; p.same > maxSame {
		return &transportError{p.op, errors.New("next link leads back to the same page")}
	}
	return nil
}

// messagesPath returns the path of a folder's messages, or of all folders' for the empty id.
func messagesPath(folderID string) (string, error) {
	if folderID == "" {
		return "/messages", nil
	}
	return itemPath("mailFolders", folderID, "/messages")
}

// ListMessages reads a folder's messages page by page, or those of all folders (Deleted Items, too) when folderID is
// empty. A link continues where an earlier page's nextLink pointed; the options are then in the link, except for
// PageSize. yield gets each page, which may be empty, with the link to the next, empty on the last; its error ends the
// list and is returned as it is. Rows may repeat when the folder changes meanwhile.
func (c *Client) ListMessages(ctx context.Context, folderID string, o ListOptions, link string, yield func(page []Message, nextLink string) error) error {
	const op = "list messages"
	r := call{op: op, kind: "list", method: http.MethodGet, prefer: o.prefer(), repeat: repeatAlways}
	if link == "" {
		path, err := messagesPath(folderID)
		if err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
		r.url = c.address(path + o.query())
	}
	circle := progress{op: op}
	for kept := true; ; kept = false {
		if link != "" {
			if err := circle.follow(link); err != nil {
				return err
			}
			var err error
			if r.url, err = c.link(link); err != nil {
				return fmt.Errorf("%s: %w", op, keptLink(kept, err))
			}
		}
		p, err := readPage[messageJSON](ctx, c, r, false)
		if err != nil {
			return err
		}
		if err := yield(messages(*p.Value), p.NextLink); err != nil {
			return err
		}
		if link = p.NextLink; link == "" {
			return nil
		}
	}
}

// messages returns the rows without those that name no message.
func messages(rows []messageJSON) []Message {
	kept := make([]Message, 0, len(rows))
	for i := range rows {
		if rows[i].ID != "" {
			kept = append(kept, rows[i].message())
		}
	}
	return kept
}

// Message reads one message.
func (c *Client) Message(ctx context.Context, id string, o ListOptions) (*Message, error) {
	const op = "read message"
	path, err := itemPath("messages", id, ListOptions{Select: o.Select, Expand: o.Expand}.query())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	return c.messageCall(ctx, call{op: op, kind: "message", method: http.MethodGet, url: c.address(path), repeat: repeatAlways})
}

// messageCall makes a call whose answer is a message.
func (c *Client) messageCall(ctx context.Context, r call) (*Message, error) {
	m := new(Message)
	err := c.do(ctx, r, func(resp *http.Response) error {
		if err := readJSON(resp, m); err != nil {
			return err
		}
		if m.ID == "" {
			return errors.New("answer holds no message")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}
