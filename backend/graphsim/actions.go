package graphsim

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
)

// deleteMessage moves to Deleted Items; what is there already goes to Recoverable Items.
func (c *call) deleteMessage(m *message) (*reply, *apiError) {
	if err := c.ifMatch(m.changeKey()); err != nil {
		return nil, err
	}
	c.box.softDeleteLocked(m)
	return emptyReply(http.StatusNoContent), nil
}

func (b *mailbox) softDeleteLocked(m *message) {
	switch trash := b.wellKnown["deleteditems"]; {
	case m.folder == b.wellKnown["recoverableitemsdeletions"]:
		b.purgeLocked(m)
	case m.folder.within(trash):
		b.moveLocked(m, b.wellKnown["recoverableitemsdeletions"], changeDeleted)
	default:
		b.moveLocked(m, trash, changeDeleted)
	}
}

// purgeMessage answers permanentDelete: into Purges, where no client sees it.
func (c *call) purgeMessage(m *message) (*reply, *apiError) {
	c.box.purgeLocked(m)
	return emptyReply(http.StatusNoContent), nil
}

func (c *call) moveMessage(m *message) (*reply, *apiError) {
	to, err := c.destination()
	if err != nil {
		return nil, err
	}
	if to.search || to.known == "searchfolders" {
		return nil, fail(400, "ErrorMoveCopyFailed", "The move or copy operation failed.")
	}
	if err := c.ifMatch(m.changeKey()); err != nil {
		return nil, err
	}
	c.box.moveLocked(m, to, changeMoved)
	return c.messageReply(http.StatusCreated, m, nil, nil), nil
}

func (c *call) copyMessage(m *message) (*reply, *apiError) {
	to, err := c.destination()
	if err != nil {
		return nil, err
	}
	if to.search || to.known == "searchfolders" {
		return nil, fail(400, "ErrorMoveCopyFailed", "The move or copy operation failed.")
	}
	if err := c.box.room(); err != nil {
		return nil, err
	}
	return c.messageReply(http.StatusCreated, c.box.copyLocked(m, to), nil, nil), nil
}

// copyLocked puts a copy of m into a folder.
func (b *mailbox) copyLocked(m *message, to *folder) *message {
	n := &message{
		body: m.content().clone(), received: m.received, sent: m.sent, bits: m.bits, importance: m.importance, flag: m.flag,
		flagDates: m.flagDates, categories: slices.Clone(m.categories), ext: maps.Clone(m.ext), multi: maps.Clone(m.multi),
	}
	to.addLocked(n)
	return n
}

// clone copies what may be changed; bytes are shared.
func (c *content) clone() *content {
	n := *c
	n.to, n.cc, n.bcc, n.replyTo = slices.Clone(c.to), slices.Clone(c.cc), slices.Clone(c.bcc), slices.Clone(c.replyTo)
	n.headers = slices.Clone(c.headers)
	n.attachments = nil
	for _, a := range c.attachments {
		dup := *a
		n.attachments = append(n.attachments, &dup)
	}
	return &n
}

// translateIDs answers translateExchangeIds for restId and restImmutableEntryId, up to 1,000 at a time.
func (c *call) translateIDs() (*reply, *apiError) {
	body, err := c.jsonBody()
	if err != nil {
		return nil, err
	}
	var ids []string
	var source, target string
	for k, v := range body {
		var jerr error
		switch asciiLower(k) {
		case "inputids":
			jerr = json.Unmarshal(v, &ids)
		case "sourceidtype":
			jerr = json.Unmarshal(v, &source)
		case "targetidtype":
			jerr = json.Unmarshal(v, &target)
		default:
			return nil, errBody("the parameter '%s'.", k)
		}
		if jerr != nil {
			return nil, errBody("the parameter '%s'.", k)
		}
	}
	known := func(s string) bool { s = asciiLower(s); return s == "restid" || s == "restimmutableentryid" }
	if !known(source) || !known(target) || len(ids) == 0 || len(ids) > 1000 {
		return nil, fail(400, "ErrorInvalidRequest", "The request to translate ids is not valid.")
	}
	rows := []object{}
	for _, id := range ids {
		row := object{{"sourceId", id}}
		if m, err := c.box.messageByID(id); err == nil {
			row = append(row, property{"targetId", m.id(asciiLower(target) == "restimmutableentryid")})
		} else {
			row = append(row, property{"errorDetails", object{{"code", err.code}, {"message", err.message}}})
		}
		rows = append(rows, row)
	}
	return jsonReply(200, object{
		{"@odata.context", c.base + "/v1.0/$metadata#Collection(microsoft.graph.convertIdResult)"}, {"value", rows},
	}), nil
}
