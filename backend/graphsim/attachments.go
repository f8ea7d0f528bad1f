package graphsim

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
)

// attachments routes what follows .../messages/{m}/attachments.
func (c *call) attachments(m *message, seg []string) (*reply, *apiError) {
	if len(seg) == 0 {
		switch c.method {
		case http.MethodGet:
			return c.listAttachments(m)
		case http.MethodPost:
			return c.addAttachment(m)
		}
		return nil, errMethod()
	}
	switch actionName(seg[0]) {
	case "$count":
		return (&reply{status: 200, body: []byte(strconv.Itoa(len(m.content().attachments)))}).set("Content-Type", "text/plain"), nil
	case "createuploadsession":
		if c.method != http.MethodPost || len(seg) > 1 {
			return nil, errMethod()
		}
		return c.createUploadSession(m)
	}
	ref, err := c.box.parseID(idAttachment, seg[0])
	if err != nil {
		return nil, err
	}
	var found *attachment
	for _, a := range m.content().attachments {
		if a.num == ref.attachment && ref.num == m.num {
			found = a
		}
	}
	if found == nil {
		return nil, errItemNotFound()
	}
	if len(seg) == 2 && actionName(seg[1]) == "$value" && c.method == http.MethodGet {
		p := &reply{status: 200, body: found.bytes()}
		if found.item {
			return p.set("Content-Type", "text/plain"), nil
		}
		return p.set("Content-Type", nameOr(found.contentType, "application/octet-stream")), nil
	}
	// A type cast such as /microsoft.graph.fileAttachment changes nothing here.
	if len(seg) == 2 && strings.HasPrefix(strings.ToLower(seg[1]), "microsoft.graph.") {
		seg = seg[:1]
	}
	if len(seg) > 1 {
		return nil, errSegment(seg[1])
	}
	switch c.method {
	case http.MethodGet:
		q, err := parseQuery(c.rawQuery, "$select $expand")
		if err == nil {
			err = checkAttachmentSelect(q.selects)
		}
		if err != nil {
			return nil, err
		}
		o := object{{"@odata.context", c.context("messages", nil, nil) + "('" + m.id(c.immutable) + "')/attachments/$entity"}}
		return jsonReply(200, append(o, c.attachmentRow(m, found, q.selects, true)...)), nil
	case http.MethodDelete:
		body := m.edit()
		for i, a := range body.attachments {
			if a.num == found.num {
				body.attachments = append(body.attachments[:i:i], body.attachments[i+1:]...)
				break
			}
		}
		body.root = nil
		c.box.touchLocked(m, propAttachments)
		return emptyReply(http.StatusNoContent), nil
	}
	return nil, errMethod()
}

var attachmentProps = []string{"id", "lastModifiedDateTime", "name", "contentType", "size", "isInline"}

// checkAttachmentSelect: without a type cast only the properties of the base type can be selected.
func checkAttachmentSelect(names []string) *apiError {
next:
	for _, n := range names {
		if strings.HasPrefix(strings.ToLower(n), "microsoft.graph.") {
			continue
		}
		for _, p := range attachmentProps {
			if strings.EqualFold(p, n) {
				continue next
			}
		}
		return errQuery("Could not find a property named '%s' on type 'microsoft.graph.attachment'.", n)
	}
	return nil
}

// attachmentRow shows an attachment. contentId is only there on the single item or with a cast; observed by others.
func (c *call) attachmentRow(m *message, a *attachment, selects []string, single bool) object {
	kind := "#microsoft.graph.fileAttachment"
	switch {
	case a.item:
		kind = "#microsoft.graph.itemAttachment"
	case a.reference != "":
		kind = "#microsoft.graph.referenceAttachment"
	}
	data := a.bytes()
	contentType := any(a.contentType)
	if a.item || a.contentType == "" {
		contentType = nil
	}
	all := object{
		{"id", m.attachmentID(a, c.immutable)}, {"lastModifiedDateTime", stamp(a.modified)}, {"name", a.name},
		{"contentType", contentType}, {"size", len(data) + 342}, {"isInline", a.inline},
	}
	want := map[string]bool{}
	for _, s := range selects {
		want[strings.ToLower(s)] = true
	}
	o := object{{"@odata.type", kind}}
	if kind == "#microsoft.graph.fileAttachment" {
		o = append(o, property{"@odata.mediaContentType", nameOr(a.contentType, "application/octet-stream")})
	}
	for _, p := range all {
		if len(want) == 0 || want[strings.ToLower(p.name)] || p.name == "id" {
			o = append(o, p)
		}
	}
	if kind != "#microsoft.graph.fileAttachment" {
		return o
	}
	cast := func(name string) bool { return want["microsoft.graph.fileattachment/"+strings.ToLower(name)] }
	if single && len(want) == 0 || cast("contentId") {
		o = append(o, property{"contentId", textOrNull(a.contentID)})
	}
	if single && len(want) == 0 || cast("contentLocation") {
		o = append(o, property{"contentLocation", textOrNull(a.location)})
	}
	if len(want) == 0 || cast("contentBytes") {
		o = append(o, property{"contentBytes", base64.StdEncoding.EncodeToString(data)})
	}
	return o
}

func textOrNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// listAttachments gives all of them at once: paging does not work on this list.
func (c *call) listAttachments(m *message) (*reply, *apiError) {
	q, err := parseQuery(c.rawQuery, "$select $expand $top $skip $count $filter $orderby")
	if err == nil {
		err = checkAttachmentSelect(q.selects)
	}
	if err != nil {
		return nil, err
	}
	rows := []object{}
	for _, a := range m.content().attachments {
		rows = append(rows, c.attachmentRow(m, a, q.selects, false))
	}
	return jsonReply(200, object{
		{"@odata.context", c.context("messages", nil, nil) + "('" + m.id(c.immutable) + "')/attachments"}, {"value", rows},
	}), nil
}

// addAttachment answers POST; onto a message that is no draft, too.
func (c *call) addAttachment(m *message) (*reply, *apiError) {
	body, err := c.jsonBody()
	if err != nil {
		return nil, err
	}
	if err := c.box.room(); err != nil {
		return nil, err
	}
	a, err := c.attachmentFromJSON(body)
	if err != nil {
		return nil, err
	}
	c.box.attachLocked(m, a)
	o := object{{"@odata.context", c.context("messages", nil, nil) + "('" + m.id(c.immutable) + "')/attachments/$entity"}}
	return jsonReply(http.StatusCreated, append(o, c.attachmentRow(m, a, nil, true)...)), nil
}

// attachLocked adds an attachment; the MIME is built from the properties from now on.
func (b *mailbox) attachLocked(m *message, a *attachment) {
	body := m.edit()
	body.root = nil
	body.attach(a)
	b.touchLocked(m, propAttachments)
}

// attachmentFromJSON reads one attachment of a request.
func (c *call) attachmentFromJSON(body map[string]json.RawMessage) (*attachment, *apiError) {
	a := &attachment{modified: c.sim.now().Unix()}
	var kind string
	if raw, ok := body["@odata.type"]; !ok || json.Unmarshal(raw, &kind) != nil {
		return nil, errBody("the attachment: '@odata.type' is missing.")
	}
	kind = strings.ToLower(strings.TrimPrefix(kind, "#"))
	switch kind {
	case "microsoft.graph.fileattachment", "microsoft.graph.itemattachment", "microsoft.graph.referenceattachment":
	default:
		return nil, errBody("the attachment: its '@odata.type' is unknown.")
	}
	var inline *bool
	var bytes *string
	for k, v := range body {
		if strings.HasPrefix(k, "@") || strings.Contains(k, "@odata.") {
			continue
		}
		var bad error
		switch {
		case k == "name":
			bad = unmarshalText(v, &a.name)
		case k == "contentType":
			bad = unmarshalText(v, &a.contentType)
		case k == "isInline":
			bad = json.Unmarshal(v, &inline)
		case k == "id" || k == "size" || k == "lastModifiedDateTime":
		case k == "contentId" && kind == "microsoft.graph.fileattachment":
			bad = unmarshalText(v, &a.contentID)
		case k == "contentLocation" && kind == "microsoft.graph.fileattachment":
			bad = unmarshalText(v, &a.location)
		case k == "contentBytes" && kind == "microsoft.graph.fileattachment":
			bad = json.Unmarshal(v, &bytes)
		case k == "item" && kind == "microsoft.graph.itemattachment":
			inner, err := decodeObject(v)
			if err != nil {
				return nil, err
			}
			m, err := c.messageFromJSON(inner)
			if err != nil {
				return nil, err
			}
			m.folder = c.box.root
			a.item, a.data = true, renderForDelivery(m)
		case k == "sourceUrl" && kind == "microsoft.graph.referenceattachment":
			bad = unmarshalText(v, &a.reference)
		default:
			return nil, errBody("the property '%s', which does not exist on this type of attachment.", k)
		}
		if bad != nil {
			return nil, errProperty(k)
		}
	}
	a.inline = inline != nil && *inline
	if a.name == "" {
		return nil, fail(400, "ErrorInvalidRequest", "Required property 'name' is missing on the attachment.")
	}
	switch kind {
	case "microsoft.graph.fileattachment":
		if bytes == nil {
			return nil, fail(400, "ErrorInvalidRequest", "Required property 'contentBytes' is missing on the attachment.")
		}
		data, err := base64.StdEncoding.DecodeString(*bytes)
		if err != nil {
			return nil, errProperty("contentBytes")
		}
		a.data = data
		if a.contentType == "" {
			a.contentType = "application/octet-stream"
		}
	case "microsoft.graph.itemattachment":
		if !a.item {
			return nil, fail(400, "ErrorInvalidRequest", "Required property 'item' is missing on the attachment.")
		}
	default:
		a.reference = nameOr(a.reference, "about:blank")
	}
	return a, nil
}

func unmarshalText(raw json.RawMessage, s *string) error {
	var p *string
	if err := json.Unmarshal(raw, &p); err != nil {
		return err
	}
	if p != nil {
		*s = *p
	}
	return nil
}

// inputAttachments reads attachments given with a message.
func (c *call) inputAttachments(p *patch, m *message, raw json.RawMessage) *apiError {
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) != nil {
		return errProperty("attachments")
	}
	var out []*attachment
	for _, item := range list {
		body, err := decodeObject(item)
		if err != nil {
			return err
		}
		a, err := c.attachmentFromJSON(body)
		if err != nil {
			return err
		}
		out = append(out, a)
	}
	p.do(0, func() {
		for _, a := range out {
			m.body.attach(a)
		}
	})
	return nil
}
