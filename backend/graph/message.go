package graph

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"
)

// Recipient is a name with a mail address.
type Recipient struct {
	Name    string
	Address string
}

type emailAddress struct {
	Name    string `json:"name,omitempty"`
	Address string `json:"address,omitempty"`
}

type recipientJSON struct {
	EmailAddress emailAddress `json:"emailAddress"`
}

// MarshalJSON writes Graph's nested form.
func (r Recipient) MarshalJSON() ([]byte, error) {
	return json.Marshal(recipientJSON{emailAddress(r)})
}

// UnmarshalJSON reads Graph's nested form.
func (r *Recipient) UnmarshalJSON(b []byte) error {
	var j recipientJSON
	if err := decode(b, &j); err != nil {
		return err
	}
	*r = Recipient(j.EmailAddress)
	return nil
}

// Values of a message's flag. Graph: followupFlag.
const (
	FlagNone     = "notFlagged"
	FlagFlagged  = "flagged"
	FlagComplete = "complete"
)

// Message is one row of a list or delta answer, or one message. Rows may be partial: a nil field was not in this row and
// says nothing about the message. Merge such rows, never replace by them.
type Message struct {
	ID        string
	ChangeKey string
	ETag      string
	// Removed is the reason ("deleted" or "changed") in a delta row that says the message left the folder. Such rows may
	// come for unknown ids.
	Removed string
	// ODataType is set for derived types, such as "#microsoft.graph.eventMessage".
	ODataType string

	ParentFolderID    *string
	ConversationID    *string
	IsRead, IsDraft   *bool
	Flag              *string // FlagNone, FlagFlagged, FlagComplete
	Categories        *[]string
	Received, Sent    *time.Time
	Created, Modified *time.Time
	InternetMessageID *string // with angle brackets
	Subject           *string
	BodyPreview       *string
	HasAttachments    *bool // false when all are inline
	Importance        *string
	From, Sender      *Recipient
	To, Cc, Bcc       *[]Recipient
	ReplyTo           *[]Recipient

	extended map[PropertyID]string // by folded id; Property reads it
}

type messageJSON struct {
	ID        string `json:"id"`
	ChangeKey string `json:"changeKey"`
	ETag      string `json:"@odata.etag"`
	ODataType string `json:"@odata.type"`
	Removed   *struct {
		Reason string `json:"reason"`
	} `json:"@removed"`
	ParentFolderID *string `json:"parentFolderId"`
	ConversationID *string `json:"conversationId"`
	IsRead         *bool   `json:"isRead"`
	IsDraft        *bool   `json:"isDraft"`
	Flag           *struct {
		FlagStatus *string `json:"flagStatus"`
	} `json:"flag"`
	Categories        *[]string          `json:"categories"`
	Received          date               `json:"receivedDateTime"`
	Sent              date               `json:"sentDateTime"`
	Created           date               `json:"createdDateTime"`
	Modified          date               `json:"lastModifiedDateTime"`
	InternetMessageID *string            `json:"internetMessageId"`
	Subject           *string            `json:"subject"`
	BodyPreview       *string            `json:"bodyPreview"`
	HasAttachments    *bool              `json:"hasAttachments"`
	Importance        *string            `json:"importance"`
	From              *Recipient         `json:"from"`
	Sender            *Recipient         `json:"sender"`
	To                *[]Recipient       `json:"toRecipients"`
	Cc                *[]Recipient       `json:"ccRecipients"`
	Bcc               *[]Recipient       `json:"bccRecipients"`
	ReplyTo           *[]Recipient       `json:"replyTo"`
	Extended          []extendedProperty `json:"singleValueExtendedProperties"`
}

type extendedProperty struct {
	ID    string `json:"id"`
	Value string `json:"value"`
}

// date is a DateTimeOffset; nil where there is none, or none that can be read.
type date struct{ t *time.Time }

// UnmarshalJSON reads Graph's form, 2026-01-01T00:00:00Z. One without a zone is taken for UTC, in which all of them are.
func (d *date) UnmarshalJSON(b []byte) error {
	d.t = nil
	s := strings.Trim(string(b), `"`)
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t, err = time.Parse("2006-01-02T15:04:05", s) // a fraction may follow
	}
	if err == nil {
		d.t = &t
	}
	return nil
}

// UnmarshalJSON reads a row as Graph writes it.
func (m *Message) UnmarshalJSON(b []byte) error {
	var j messageJSON
	if err := decode(b, &j); err != nil {
		return err
	}
	*m = j.message()
	return nil
}

// message is the row as the package hands it out. Lists decode into messageJSON and not into Message, because a value
// that decodes itself is scanned twice.
func (j *messageJSON) message() Message {
	m := Message{
		ID: j.ID, ChangeKey: j.ChangeKey, ETag: j.ETag, ODataType: j.ODataType,
		ParentFolderID: j.ParentFolderID, ConversationID: j.ConversationID,
		IsRead: j.IsRead, IsDraft: j.IsDraft, Categories: j.Categories,
		Received: j.Received.t, Sent: j.Sent.t, Created: j.Created.t, Modified: j.Modified.t,
		InternetMessageID: j.InternetMessageID, Subject: j.Subject, BodyPreview: j.BodyPreview,
		HasAttachments: j.HasAttachments, Importance: j.Importance,
		From: j.From, Sender: j.Sender, To: j.To, Cc: j.Cc, Bcc: j.Bcc, ReplyTo: j.ReplyTo,
	}
	if j.Removed != nil {
		m.Removed = j.Removed.Reason
		if m.Removed == "" {
			m.Removed = "deleted"
		}
	}
	if j.Flag != nil {
		m.Flag = j.Flag.FlagStatus
	}
	if j.Extended != nil {
		m.extended = make(map[PropertyID]string, len(j.Extended))
		for _, p := range j.Extended {
			id, err := ParsePropertyID(p.ID)
			if err != nil {
				continue // not one we could have asked for
			}
			m.extended[id.folded()] = p.Value
		}
	}
	return m
}

// Merge takes over what a later row of the same message holds and keeps the rest.
func (m *Message) Merge(row Message) {
	if row.ID != "" {
		m.ID = row.ID
	}
	m.Removed = row.Removed
	if row.ChangeKey != "" {
		m.ChangeKey = row.ChangeKey
	}
	if row.ETag != "" {
		m.ETag = row.ETag
	}
	if row.ODataType != "" {
		m.ODataType = row.ODataType
	}
	take(&m.ParentFolderID, row.ParentFolderID)
	take(&m.ConversationID, row.ConversationID)
	take(&m.IsRead, row.IsRead)
	take(&m.IsDraft, row.IsDraft)
	take(&m.Flag, row.Flag)
	take(&m.Categories, row.Categories)
	take(&m.Received, row.Received)
	take(&m.Sent, row.Sent)
	take(&m.Created, row.Created)
	take(&m.Modified, row.Modified)
	take(&m.InternetMessageID, row.InternetMessageID)
	take(&m.Subject, row.Subject)
	take(&m.BodyPreview, row.BodyPreview)
	take(&m.HasAttachments, row.HasAttachments)
	take(&m.Importance, row.Importance)
	take(&m.From, row.From)
	take(&m.Sender, row.Sender)
	take(&m.To, row.To)
	take(&m.Cc, row.Cc)
	take(&m.Bcc, row.Bcc)
	take(&m.ReplyTo, row.ReplyTo)
	if row.extended != nil {
		if m.extended == nil {
			m.extended = make(map[PropertyID]string, len(row.extended))
		}
		maps.Copy(m.extended, row.extended)
	}
}

// Property returns the value of an extended property that was asked for, "" when it is not set on the message.
func (m *Message) Property(id PropertyID) string { return m.extended[id.folded()] }

// HasProperty reports whether the answer had the extended property.
func (m *Message) HasProperty(id PropertyID) bool {
	_, ok := m.extended[id.folded()]
	return ok
}

func take[T any](dst **T, src *T) {
	if src != nil {
		*dst = src
	}
}

// Header is a header field given to Graph. Its name must begin with "x-" or "X-", and a message may have five at most;
// anything else is refused with InvalidInternetMessageHeader or InvalidInternetMessageHeaderCollection.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// NewMessage is a message to be created from JSON. Zero fields are left out. Without PropFlags it becomes a draft; with
// PropFlags "4" it is a message like any other, and stays one. Its whole size with attachments must stay under 4 MB once
// encoded. Graph: user-post-messages.
type NewMessage struct {
	Subject           string
	Body              string
	BodyHTML          bool
	From, Sender      *Recipient
	To, Cc, Bcc       []Recipient
	ReplyTo           []Recipient // no empty or broken addresses: one makes the whole call fail
	InternetMessageID string      // with angle brackets; kept as given
	Headers           []Header
	Importance        string // low, normal, high
	IsRead            *bool
	Flag              string
	Categories        []string
	ReadReceipt       bool
	DeliveryReceipt   bool
	Extended          map[PropertyID]string
	Attachments       []NewAttachment
}

// Update says what to change in a message; nil fields stay as they are. Graph: message-update.
type Update struct {
	IsRead     *bool
	Flag       *string
	Categories *[]string // replaces all
	Importance *string
	Extended   map[PropertyID]string // written one by one, others stay

	// Only while the message is a draft:
	Subject           *string
	Body              *string
	BodyHTML          bool
	InternetMessageID *string
	From, Sender      *Recipient
	To, Cc, Bcc       *[]Recipient
	ReplyTo           *[]Recipient

	IfMatch string // an ETag; empty changes whatever is there
}

// NewAttachment is a file to be attached. Content is used by Create only, Size by UploadAttachment only.
type NewAttachment struct {
	Name        string
	ContentType string
	ContentID   string // without angle brackets
	IsInline    bool
	Content     []byte
	Size        int64
}

// String keeps content out of logs.
func (a NewAttachment) String() string {
	return fmt.Sprintf("attachment of %d bytes", max(a.Size, int64(len(a.Content))))
}
