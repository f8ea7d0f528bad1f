package graph

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

type bodyJSON struct {
	ContentType string `json:"contentType"`
	Content     string `json:"content"`
}

func newBody(content string, html bool) *bodyJSON {
	if html {
		return &bodyJSON{"html", content}
	}
	return &bodyJSON{"text", content}
}

type flagJSON struct {
	FlagStatus string `json:"flagStatus"`
}

func extendedList(m map[PropertyID]string) []extendedProperty {
	if len(m) == 0 {
		return nil
	}
	list := make([]extendedProperty, 0, len(m))
	for id, v := range m {
		list = append(list, extendedProperty{id.String(), v})
	}
	slices.SortFunc(list, func(a, b extendedProperty) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// MarshalJSON writes the message as Graph reads it.
func (m NewMessage) MarshalJSON() ([]byte, error) {
	j := map[string]any{"subject": m.Subject, "body": newBody(m.Body, m.BodyHTML)}
	put(j, "from", m.From, m.From != nil)
	put(j, "sender", m.Sender, m.Sender != nil)
	put(j, "toRecipients", m.To, len(m.To) > 0)
	put(j, "ccRecipients", m.Cc, len(m.Cc) > 0)
	put(j, "bccRecipients", m.Bcc, len(m.Bcc) > 0)
	put(j, "replyTo", m.ReplyTo, len(m.ReplyTo) > 0)
	put(j, "internetMessageId", m.InternetMessageID, m.InternetMessageID != "")
	put(j, "internetMessageHeaders", m.Headers, len(m.Headers) > 0)
	put(j, "importance", m.Importance, m.Importance != "")
	put(j, "isRead", m.IsRead, m.IsRead != nil)
	put(j, "flag", flagJSON{m.Flag}, m.Flag != "")
	put(j, "categories", m.Categories, len(m.Categories) > 0)
	put(j, "isReadReceiptRequested", true, m.ReadReceipt)
	put(j, "isDeliveryReceiptRequested", true, m.DeliveryReceipt)
	put(j, "singleValueExtendedProperties", extendedList(m.Extended), len(m.Extended) > 0)
	put(j, "attachments", m.Attachments, len(m.Attachments) > 0)
	return json.Marshal(j)
}

// TooLarge reports whether creating the message would take a request of more than MaxRequest.
func (m NewMessage) TooLarge() (bool, error) {
	p, err := jsonPayload(m)
	return err == nil && p.size > MaxRequest, err
}

// MarshalJSON writes only what is to change.
func (u Update) MarshalJSON() ([]byte, error) {
	j := map[string]any{}
	put(j, "isRead", u.IsRead, u.IsRead != nil)
	if u.Flag != nil {
		j["flag"] = flagJSON{*u.Flag}
	}
	if u.Categories != nil {
		j["categories"] = append([]string{}, *u.Categories...) // [] clears them, null is refused
	}
	put(j, "importance", u.Importance, u.Importance != nil)
	put(j, "singleValueExtendedProperties", extendedList(u.Extended), len(u.Extended) > 0)
	put(j, "subject", u.Subject, u.Subject != nil)
	if u.Body != nil {
		j["body"] = newBody(*u.Body, u.BodyHTML)
	}
	put(j, "internetMessageId", u.InternetMessageID, u.InternetMessageID != nil)
	put(j, "from", u.From, u.From != nil)
	put(j, "sender", u.Sender, u.Sender != nil)
	for name, list := range map[string]*[]Recipient{"toRecipients": u.To, "ccRecipients": u.Cc, "bccRecipients": u.Bcc, "replyTo": u.ReplyTo} {
		if list != nil {
			j[name] = append([]Recipient{}, *list...)
		}
	}
	return json.Marshal(j)
}

func put(j map[string]any, name string, v any, is bool) {
	if is {
		j[name] = v
	}
}

// Create makes a message from JSON in a folder, in Drafts when folderID is empty. What it cannot keep is told at
// NewMessage and Header.
func (c *Client) Create(ctx context.Context, folderID string, m NewMessage) (*Message, error) {
	const op = "create message"
	path, err := messagesPath(folderID)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	return c.messageChange(ctx, op, http.MethodPost, path, m, nil, repeatRefused)
}

// Update changes a message and returns it. isDraft and PropFlags cannot be changed: Graph answers 200 and does nothing.
func (c *Client) Update(ctx context.Context, id string, u Update) (*Message, error) {
	const op = "update message"
	path, err := itemPath("messages", id, "")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	return c.messageChange(ctx, op, http.MethodPatch, path, u, u.headers(), repeatAlways)
}

func (u Update) headers() map[string]string {
	if u.IfMatch == "" {
		return nil
	}
	return map[string]string{"If-Match": u.IfMatch}
}

// Move puts a message into another folder, by id or well-known name. With immutable ids its id stays. After an unclear
// end the message is in one of the two folders, whole.
func (c *Client) Move(ctx context.Context, id, dest string) (*Message, error) {
	return c.transfer(ctx, "move message", id, "/move", dest)
}

// Copy makes a copy in a folder and returns it. After an unclear end there may be one.
func (c *Client) Copy(ctx context.Context, id, dest string) (*Message, error) {
	return c.transfer(ctx, "copy message", id, "/copy", dest)
}

func (c *Client) transfer(ctx context.Context, op, id, action, dest string) (*Message, error) {
	path, err := itemPath("messages", id, action)
	if err == nil && dest == "" {
		err = errNoID
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	return c.messageChange(ctx, op, http.MethodPost, path, destination{dest}, nil, repeatRefused)
}

func (c *Client) messageChange(ctx context.Context, op, method, path string, body any, header map[string]string, repeat repeatable) (*Message, error) {
	p, err := jsonPayload(body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	return c.messageCall(ctx, call{op: op, kind: "change", method: method, url: c.address(path), body: p,
		header: maps.Clone(header), repeat: repeat, changes: true})
}

// Delete moves a message to Deleted Items, and one that is there already to Recoverable Items. Because of that second
// meaning it is not repeated after an unclear end.
func (c *Client) Delete(ctx context.Context, id string) error {
	const op = "delete message"
	path, err := itemPath("messages", id, "")
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return c.do(ctx, call{op: op, kind: "change", method: http.MethodDelete, url: c.address(path), repeat: repeatRefused, changes: true}, nil)
}

// PermanentDelete removes a message for good. Worldwide cloud only. A message that is gone already is a success only
// when an earlier attempt of the same call may have removed it. Graph: message-permanentdelete.
func (c *Client) PermanentDelete(ctx context.Context, id string) error {
	const op = "remove message"
	path, err := itemPath("messages", id, "/permanentDelete")
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	r := call{op: op, kind: "change", method: http.MethodPost, url: c.address(path), repeat: repeatRefused, changes: true}
	err = c.do(ctx, r, nil)
	if !Unclear(err) || ctx.Err() != nil {
		return err
	}
	if err = c.do(ctx, r, nil); IsNotFound(err) {
		return nil
	}
	return err
}

// Send submits a draft. Nil means that Exchange has taken it (202), not that it was delivered; what fails later comes as
// a non-delivery report. After an unclear end it may have been sent: look for its Message-ID in Sent Items.
// Graph: message-send.
func (c *Client) Send(ctx context.Context, id string) error {
	const op = "send draft"
	path, err := itemPath("messages", id, "/send")
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return c.do(ctx, call{op: op, kind: "send", method: http.MethodPost, url: c.address(path), status: http.StatusAccepted,
		repeat: repeatUnsent, changes: true, sends: 1}, answered(ctx))
}
