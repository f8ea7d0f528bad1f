package graphsim

import (
	"encoding/base64"
	"encoding/json"
	"mime"
	"net/http"
	"strings"
)

// jsonBody reads the body of a request as an object.
func (c *call) jsonBody() (map[string]json.RawMessage, *apiError) {
	media, _, err := mime.ParseMediaType(c.header.Get("Content-Type"))
	if err != nil || media != "application/json" {
		return nil, errBadRequest("Entity only allows writes with a JSON Content-Type header.")
	}
	return decodeObject(c.body)
}

func decodeObject(raw []byte) (map[string]json.RawMessage, *apiError) {
	var body map[string]json.RawMessage
	if err := json.Unmarshal(raw, &body); err != nil || body == nil {
		return nil, fail(400, "BadRequest", "Unable to read JSON request payload. Please ensure Content-Type header is set and payload is of valid JSON format.")
	}
	return body, nil
}

// isMIME reports whether the body is a message in base64. Graph: outlook-send-mime-message.
func (c *call) isMIME() bool {
	media, _, err := mime.ParseMediaType(c.header.Get("Content-Type"))
	return err == nil && media == "text/plain"
}

// mimeBody decodes a MIME request.
func (c *call) mimeBody() ([]byte, *apiError) {
	if len(c.body) == 0 {
		return nil, errBody("the MIME content: it is empty.")
	}
	clean := strings.Map(func(r rune) rune {
		if r == '\r' || r == '\n' {
			return -1
		}
		return r
	}, string(c.body))
	raw, err := base64.StdEncoding.DecodeString(clean)
	if err != nil {
		return nil, fail(400, "ErrorMimeContentInvalidBase64String", "Invalid base64 string for MIME content.")
	}
	if len(raw) == 0 {
		return nil, errBody("the MIME content: it is empty.")
	}
	for i, ch := range raw {
		if ch == '\n' && (i == 0 || raw[i-1] != '\r') {
			return nil, fail(400, "ErrorMimeContentInvalid", "Invalid MIME content: a line does not end in CRLF.")
		}
	}
	return raw, nil
}

type dateTimeZone struct {
	DateTime string `json:"dateTime"`
	TimeZone string `json:"timeZone"`
}

// ifMatch checks the If-Match header against the change key.
func (c *call) ifMatch(changeKey string) *apiError {
	want := c.header.Get("If-Match")
	if want == "" || want == "*" {
		return nil
	}
	if strings.Trim(strings.TrimPrefix(want, "W/"), `"`) != changeKey {
		return fail(412, "ErrorIrresolvableConflict",
			"The send or update operation could not be performed because the change key passed in the request does not match the current change key for the item.")
	}
	return nil
}

// createMessage answers POST .../messages: JSON anywhere, MIME only without a folder.
func (c *call) createMessage(f *folder) (*reply, *apiError) {
	if err := c.box.room(); err != nil {
		return nil, err
	}
	if c.isMIME() {
		if f != nil {
			return nil, errBody("the post body: MIME content is not accepted here.")
		}
		raw, err := c.mimeBody()
		if err != nil {
			return nil, err
		}
		m := c.sim.draftFromMIME(c.box, raw)
		c.box.wellKnown["drafts"].addLocked(m)
		return c.messageReply(201, m, nil, nil), nil
	}
	body, err := c.jsonBody()
	if err != nil {
		return nil, err
	}
	if f == nil {
		f = c.box.wellKnown["drafts"]
	}
	if f.known == "searchfolders" || f.search {
		return nil, fail(403, "ErrorCreateItemAccessDenied", "Items cannot be created in a search folder.")
	}
	m, err := c.messageFromJSON(body)
	if err != nil {
		return nil, err
	}
	f.addLocked(m)
	return c.messageReply(201, m, nil, nil), nil
}

// room refuses to store in a mailbox that is full.
func (b *mailbox) room() *apiError {
	if b.overQuota {
		return errQuota(b.sim.opts.OverQuotaStatus)
	}
	return nil
}

func errQuota(status int) *apiError {
	return fail(status, "ErrorQuotaExceeded", "The mailbox has exceeded its quota., Cannot save changes made to an item to store.")
}

// draftFromMIME makes an unsaved draft. Its sentDateTime comes from Date, its receivedDateTime is now.
func (s *Sim) draftFromMIME(b *mailbox, raw []byte) *message {
	now := s.now().Unix()
	m := messageFromMIME(raw, now)
	m.received = now
	m.bits |= bitDraft | bitRead | bitMIME
	return m
}

// messageFromMIME makes an unsaved message with the properties the MIME gives.
func messageFromMIME(raw []byte, now int64) *message {
	c, sent, hints := contentFromMIME(raw, now)
	m := &message{body: c, sent: sent, importance: 1}
	if hints.level != nil {
		m.importance = *hints.level
	}
	m.setBit(bitReadReceipt, hints.readReceipt)
	m.setBit(bitDelivReceipt, hints.deliveryReceipt)
	return m
}

// messageFromJSON makes an unsaved message: a draft, unless 0x0E07 says otherwise.
func (c *call) messageFromJSON(body map[string]json.RawMessage) (*message, *apiError) {
	now := c.sim.now().Unix()
	m := &message{
		body: &content{}, received: now, sent: now, importance: 1,
		bits: bitDraft | bitRead | bitReadReceiptNo,
	}
	if err := c.applyJSON(m, body, true); err != nil {
		return nil, err
	}
	return m, nil
}

// patch is a set of changes, applied only after the whole body has been understood.
type patch struct {
	props propSet
	apply []func()
}

func (p *patch) do(props propSet, f func()) {
	p.props |= props
	p.apply = append(p.apply, f)
}

// readOnly are properties that requests may hold and that are not taken from them.
var readOnly = map[string]bool{
	"id": true, "changeKey": true, "createdDateTime": true, "lastModifiedDateTime": true, "receivedDateTime": true,
	"sentDateTime": true, "hasAttachments": true, "bodyPreview": true, "parentFolderId": true, "conversationId": true,
	"conversationIndex": true, "isDraft": true, "webLink": true, "uniqueBody": true,
}

// applyJSON reads message properties from a request. A message that is no draft keeps its text and recipients.
func (c *call) applyJSON(m *message, body map[string]json.RawMessage, creating bool) *apiError {
	p := &patch{}
	var ext, multi []extInput
	draft := m.is(bitDraft) || creating
	for name, raw := range body {
		if strings.HasPrefix(name, "@") || strings.Contains(name, "@odata.") {
			continue
		}
		if readOnly[name] {
			if name == "isDraft" || name == "hasAttachments" {
				var v *bool
				if json.Unmarshal(raw, &v) != nil {
					return errProperty(name)
				}
			}
			continue
		}
		if !draft {
			switch name {
			case "subject", "body", "internetMessageId", "replyTo", "from", "sender", "toRecipients", "ccRecipients",
				"bccRecipients", "internetMessageHeaders":
				return fail(400, "ErrorInvalidPropertySet", "Update operation is invalid for property., Set action is invalid for property '%s'.", name)
			}
		}
		var err *apiError
		switch name {
		case "singleValueExtendedProperties":
			ext, err = parseExtInputs(raw, false)
		case "multiValueExtendedProperties":
			multi, err = parseExtInputs(raw, true)
		case "attachments", "internetMessageHeaders":
			if !creating {
				if name == "internetMessageHeaders" {
					err = fail(400, "ErrorInvalidPropertySet", "Set action is invalid for property '%s'.", name)
				} else {
					err = errBody("the property 'attachments': use the attachments of the message.")
				}
				break
			}
			if name == "attachments" {
				err = c.inputAttachments(p, m, raw)
			} else {
				err = inputHeaders(p, m, raw)
			}
		default:
			err = inputProperty(p, m, name, raw, creating)
		}
		if err != nil {
			return err
		}
	}
	// Extended properties first: an explicit isRead wins over the bit in 0x0E07.
	if len(ext)+len(multi) > 0 {
		c.box.setExt(m, ext, creating)
		c.box.setExt(m, multi, creating)
	}
	for _, f := range p.apply {
		f()
	}
	if !creating && (p.props != 0 || len(ext)+len(multi) > 0) {
		c.box.touchLocked(m, p.props)
	}
	return nil
}

func errProperty(name string) *apiError {
	return errBody("the value of the property '%s'.", name)
}

// inputProperty reads one ordinary property.
func inputProperty(p *patch, m *message, name string, raw json.RawMessage, creating bool) *apiError {
	bit := propSet(0)
	if i, ok := propByName[strings.ToLower(name)]; ok && messageProps[i].name == name {
		bit = 1 << i
	}
	var text *string
	var flag *bool
	bad := func(v any) bool { return json.Unmarshal(raw, v) != nil }
	str := func() string {
		if text == nil {
			return ""
		}
		return *text
	}
	switch name {
	case "subject":
		if bad(&text) {
			return errProperty(name)
		}
		p.do(bit, func() { m.edit().subject = str() })
	case "internetMessageId":
		if bad(&text) {
			return errProperty(name)
		}
		if s := str(); s != "" {
			p.do(bit, func() {
				if creating {
					m.edit().messageID = s
				} else {
					m.folder.box.renameMessageID(m, s)
				}
			})
		}
	case "body":
		return inputBody(p, m, raw)
	case "from", "sender":
		a, err := inputRecipient(name, raw)
		if err != nil {
			return err
		}
		p.do(bit, func() {
			c := m.edit()
			if name == "from" {
				c.from = a
				if c.sender == nil {
					c.sender = a
				}
			} else {
				c.sender = a
			}
		})
	case "toRecipients", "ccRecipients", "bccRecipients", "replyTo":
		list, err := inputRecipients(name, raw)
		if err != nil {
			return err
		}
		p.do(bit, func() {
			c := m.edit()
			switch name {
			case "toRecipients":
				c.to = list
			case "ccRecipients":
				c.cc = list
			case "bccRecipients":
				c.bcc = list
			default:
				c.replyTo = list
			}
		})
	case "isRead":
		if bad(&flag) || flag == nil {
			return errProperty(name)
		}
		p.do(bit, func() {
			if creating {
				m.setBit(bitRead, *flag)
			} else {
				m.setReadLocked(*flag)
			}
		})
	case "isReadReceiptRequested", "isDeliveryReceiptRequested":
		if bad(&flag) {
			return errProperty(name)
		}
		yes, no := bitReadReceipt, bitReadReceiptNo
		if name == "isDeliveryReceiptRequested" {
			yes, no = bitDelivReceipt, bitDelivReceiptNo
		}
		p.do(bit, func() {
			m.setBit(yes, flag != nil && *flag)
			m.setBit(no, flag != nil && !*flag)
		})
	case "categories":
		return inputCategories(p, bit, m, raw)
	case "importance":
		return inputImportance(p, bit, m, raw)
	case "inferenceClassification":
		if bad(&text) {
			return errProperty(name)
		}
		switch strings.ToLower(str()) {
		case "focused", "other":
			p.do(bit, func() { m.setBit(bitOther, strings.EqualFold(str(), "other")) })
		default:
			return errProperty(name)
		}
	case "flag":
		return inputFlag(p, bit, m, raw)
	default:
		return errBody("the property '%s', which does not exist on type 'microsoft.graph.message'.", name)
	}
	return nil
}

func inputBody(p *patch, m *message, raw json.RawMessage) *apiError {
	var b *struct {
		ContentType *string `json:"contentType"`
		Content     *string `json:"content"`
	}
	if strictJSON(raw, &b) != nil {
		return errProperty("body")
	}
	if b == nil {
		return nil
	}
	html := false
	if b.ContentType != nil {
		switch strings.ToLower(*b.ContentType) {
		case "html":
			html = true
		case "text":
		default:
			return errProperty("body/contentType")
		}
	}
	p.do(propBody, func() {
		c := m.edit()
		c.root, c.plain, c.html, c.text = nil, "", html, ""
		if b.Content != nil {
			c.text = *b.Content
		}
	})
	return nil
}

// inputCategories drops empty ones, and those that are there already but for letter case.
func inputCategories(p *patch, bit propSet, m *message, raw json.RawMessage) *apiError {
	var list []string
	if json.Unmarshal(raw, &list) != nil {
		return errProperty("categories")
	}
	seen := map[string]bool{}
	var kept []string
	for _, s := range list {
		if key := strings.ToLower(s); s != "" && !seen[key] {
			seen[key] = true
			kept = append(kept, s)
		}
	}
	p.do(bit, func() { m.categories = kept })
	return nil
}

func inputImportance(p *patch, bit propSet, m *message, raw json.RawMessage) *apiError {
	var text string // null is none of the values, either
	if json.Unmarshal(raw, &text) != nil {
		return errProperty("importance")
	}
	for i, known := range importances {
		if strings.EqualFold(known, text) {
			p.do(bit, func() { m.importance = uint8(i) })
			return nil
		}
	}
	return errProperty("importance")
}

// strictJSON decodes and refuses members the target does not have, annotations apart.
func strictJSON(raw json.RawMessage, v any) error {
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

// inputFlag reads a followupFlag; a due date needs a start date.
func inputFlag(p *patch, bit propSet, m *message, raw json.RawMessage) *apiError {
	var f *struct {
		Type           string        `json:"@odata.type"`
		FlagStatus     *string       `json:"flagStatus"`
		Start          *dateTimeZone `json:"startDateTime"`
		Due            *dateTimeZone `json:"dueDateTime"`
		CompletedField *dateTimeZone `json:"completedDateTime"`
	}
	if strictJSON(raw, &f) != nil || f == nil {
		return errProperty("flag")
	}
	if f.Due != nil && f.Start == nil {
		return fail(400, "ErrorInvalidRequest", "A flag with a due date needs a start date.")
	}
	state := -1
	if f.FlagStatus != nil {
		for i, name := range flagStates {
			if strings.EqualFold(name, *f.FlagStatus) {
				state = i
			}
		}
		if state < 0 {
			return errProperty("flag/flagStatus")
		}
	}
	p.do(bit, func() {
		if state >= 0 {
			m.flag = uint8(state)
		}
		m.flagDates = nil
		if m.flag != 0 && (f.Start != nil || f.Due != nil || f.CompletedField != nil) {
			m.flagDates = &flagDates{f.Start, f.Due, f.CompletedField}
		}
	})
	return nil
}

type recipientInput struct {
	Type         string `json:"@odata.type"`
	EmailAddress *struct {
		Type    string  `json:"@odata.type"`
		Name    *string `json:"name"`
		Address *string `json:"address"`
	} `json:"emailAddress"`
}

func (r *recipientInput) address() address {
	var a address
	if r.EmailAddress != nil {
		if r.EmailAddress.Name != nil {
			a.name = *r.EmailAddress.Name
		}
		if r.EmailAddress.Address != nil {
			a.addr = strings.TrimSpace(*r.EmailAddress.Address)
		}
	}
	return a
}

func inputRecipient(name string, raw json.RawMessage) (*address, *apiError) {
	var r *recipientInput
	if strictJSON(raw, &r) != nil {
		return nil, errProperty(name)
	}
	if r == nil {
		return nil, nil
	}
	a := r.address()
	return &a, nil
}

func inputRecipients(name string, raw json.RawMessage) ([]address, *apiError) {
	var list []recipientInput
	if strictJSON(raw, &list) != nil {
		return nil, errProperty(name)
	}
	var out []address
	for _, r := range list {
		a := r.address()
		if name == "replyTo" && !validAddress(a.addr) {
			return nil, fail(400, "ErrorInvalidRecipients", "At least one recipient isn't valid., '%s' is no address.", a.addr)
		}
		out = append(out, a)
	}
	return out, nil
}

// maxHeaders is how many custom header fields a message from JSON may have; observed, not documented.
const maxHeaders = 5

// inputHeaders reads internetMessageHeaders: names begin with x-, five at most.
func inputHeaders(p *patch, m *message, raw json.RawMessage) *apiError {
	var list []struct {
		Type  string `json:"@odata.type"`
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	if strictJSON(raw, &list) != nil {
		return errProperty("internetMessageHeaders")
	}
	for _, h := range list {
		if len(h.Name) < 3 || !strings.EqualFold(h.Name[:2], "x-") || strings.ContainsAny(h.Name, " :\r\n\t") {
			return fail(400, "InvalidInternetMessageHeader", "The internet message header name '%s' should start with 'x-' or 'X-'.", h.Name)
		}
	}
	if len(list) > maxHeaders {
		return fail(400, "InvalidInternetMessageHeaderCollection", "Maximum number of headers in one message should be less than or equal to 5.")
	}
	p.do(0, func() {
		for _, h := range list {
			m.body.headers = append(m.body.headers, field{h.Name, h.Value})
		}
	})
	return nil
}

// updateMessage answers PATCH.
func (c *call) updateMessage(m *message) (*reply, *apiError) {
	body, err := c.jsonBody()
	if err != nil {
		return nil, err
	}
	if err := c.ifMatch(m.changeKey()); err != nil {
		return nil, err
	}
	if err := c.applyJSON(m, body, false); err != nil {
		return nil, err
	}
	return c.messageReply(200, m, nil, nil), nil
}

// importMIME is beta's way to store a finished message with its MIME. Graph beta: mailfolder-importmime.
func (c *call) importMIME(f *folder) (*reply, *apiError) {
	if !c.isMIME() {
		return nil, errBadRequest("importMime takes MIME content as text/plain.")
	}
	if err := c.box.room(); err != nil {
		return nil, err
	}
	raw, err := c.mimeBody()
	if err != nil {
		return nil, err
	}
	now := c.sim.now()
	m := messageFromMIME(raw, now.Unix())
	m.received = unixOr(m.sent, now)
	m.bits |= bitRead
	m.body.transport = headerText(m.body.root)
	f.addLocked(m)
	return c.messageReply(http.StatusCreated, m, nil, nil), nil
}
