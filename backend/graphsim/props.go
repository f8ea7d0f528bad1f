package graphsim

import (
	"encoding/hex"
	"net/url"
	"strings"
)

// propSet is a set of message properties, one bit each, in the order of messageProps.
type propSet uint64

// messageProp is a property of message in v1.0. Graph: message resource type.
type messageProp struct {
	name  string
	asked bool // only by $select
	get   func(c *call, m *message, body *content) any
}

// deepProps need the content of a message, which for a synthetic one has to be made first.
var deepProps propSet

var messageProps []messageProp

var (
	propIsRead, propFlag, propCategories, propBody, propAttachments propSet
)

// propByName finds a property without regard to case.
var propByName = map[string]int{}

func init() {
	messageProps = []messageProp{
		{"id", false, func(c *call, m *message, _ *content) any { return m.id(c.immutable) }},
		{"createdDateTime", false, func(_ *call, m *message, _ *content) any { return stamp(m.created) }},
		{"lastModifiedDateTime", false, func(_ *call, m *message, _ *content) any { return stamp(m.modified) }},
		{"changeKey", false, func(_ *call, m *message, _ *content) any { return m.changeKey() }},
		{"categories", false, func(_ *call, m *message, _ *content) any {
			if m.categories == nil {
				return []string{}
			}
			return m.categories
		}},
		{"receivedDateTime", false, func(_ *call, m *message, _ *content) any { return stamp(m.received) }},
		{"sentDateTime", false, func(_ *call, m *message, _ *content) any {
			if m.sent == 0 {
				return stamp(m.created)
			}
			return stamp(m.sent)
		}},
		{"hasAttachments", false, func(_ *call, _ *message, b *content) any { return b.hasAttachments() }},
		{"internetMessageId", false, func(_ *call, _ *message, b *content) any { return b.messageID }},
		{"subject", false, func(_ *call, _ *message, b *content) any { return b.subject }},
		{"bodyPreview", false, func(_ *call, _ *message, b *content) any { return b.preview() }},
		{"importance", false, func(_ *call, m *message, _ *content) any { return importances[m.importance] }},
		{"parentFolderId", false, func(_ *call, m *message, _ *content) any { return m.folder.id() }},
		{"conversationId", false, func(_ *call, m *message, b *content) any {
			return "AAQk" + encodeURL(hash16(b.conversation()+hex.EncodeToString(m.folder.box.guid[:])), hash16(b.conversation())) + "="
		}},
		{"conversationIndex", false, func(_ *call, m *message, b *content) any {
			if b.convIndex != "" {
				return b.convIndex
			}
			return conversationIndex(b.conversation(), m.created)
		}},
		{"isDeliveryReceiptRequested", false, func(_ *call, m *message, _ *content) any {
			return triState(m.is(bitDelivReceipt), m.is(bitDelivReceiptNo))
		}},
		{"isReadReceiptRequested", false, func(_ *call, m *message, _ *content) any {
			return triState(m.is(bitReadReceipt), m.is(bitReadReceiptNo) || m.is(bitDraft))
		}},
		{"isRead", false, func(_ *call, m *message, _ *content) any { return m.is(bitRead) }},
		{"isDraft", false, func(_ *call, m *message, _ *content) any { return m.is(bitDraft) }},
		{"webLink", false, func(c *call, m *message, _ *content) any {
			return "https://outlook.office365.com/owa/?ItemID=" + url.QueryEscape(m.id(c.immutable)) + "&exvsurl=1&viewmodel=ReadMessageItem"
		}},
		{"inferenceClassification", false, func(_ *call, m *message, _ *content) any {
			if m.is(bitOther) {
				return "other"
			}
			return "focused"
		}},
		{"body", false, func(c *call, _ *message, b *content) any { return c.itemBody(b) }},
		{"sender", false, func(_ *call, _ *message, b *content) any { return optionalRecipient(b.sender) }},
		{"from", false, func(_ *call, _ *message, b *content) any { return optionalRecipient(b.from) }},
		{"toRecipients", false, func(_ *call, _ *message, b *content) any { return recipients(b.to) }},
		{"ccRecipients", false, func(_ *call, _ *message, b *content) any { return recipients(b.cc) }},
		{"bccRecipients", false, func(_ *call, _ *message, b *content) any { return recipients(b.bcc) }},
		{"replyTo", false, func(_ *call, _ *message, b *content) any { return recipients(b.replyTo) }},
		{"flag", false, func(_ *call, m *message, _ *content) any { return m.flagObject() }},
		{"uniqueBody", true, func(c *call, _ *message, b *content) any { return c.itemBody(b) }},
		{"internetMessageHeaders", true, func(_ *call, m *message, b *content) any {
			list := []object{}
			for _, f := range b.headers {
				if b.transport != "" || len(f.name) > 2 && strings.EqualFold(f.name[:2], "x-") {
					list = append(list, object{{"name", f.name}, {"value", decodeWords(f.value)}})
				}
			}
			if len(list) == 0 {
				return nil
			}
			return list
		}},
	}
	for i, p := range messageProps {
		propByName[strings.ToLower(p.name)] = i
	}
	bit := func(names ...string) (s propSet) {
		for _, n := range names {
			s |= 1 << propByName[strings.ToLower(n)]
		}
		return s
	}
	propIsRead, propFlag, propCategories = bit("isRead"), bit("flag"), bit("categories")
	propBody = bit("body", "bodyPreview")
	deepProps = bit("hasAttachments", "internetMessageId", "subject", "bodyPreview", "conversationId", "conversationIndex", "body",
		"sender", "from", "toRecipients", "ccRecipients", "bccRecipients", "replyTo", "uniqueBody", "internetMessageHeaders")
	propAttachments = bit("hasAttachments")
}

var importances = [...]string{"low", "normal", "high"}

var flagStates = [...]string{"notFlagged", "flagged", "complete"}

func triState(yes, no bool) any {
	switch {
	case yes:
		return true
	case no:
		return false
	}
	return nil
}

// recipientObject shows an address; the service puts the address where there is no name.
func recipientObject(a address) object {
	name := a.name
	if name == "" {
		name = a.addr
	}
	return object{{"emailAddress", object{{"name", name}, {"address", a.addr}}}}
}

func optionalRecipient(a *address) any {
	if a == nil {
		return nil
	}
	return recipientObject(*a)
}

func recipients(list []address) []object {
	out := make([]object, 0, len(list))
	for _, a := range list {
		out = append(out, recipientObject(a))
	}
	return out
}

func (m *message) flagObject() object {
	o := object{{"flagStatus", flagStates[m.flag]}}
	if d := m.flagDates; d != nil {
		for _, p := range []struct {
			name string
			t    *dateTimeZone
		}{{"startDateTime", d.start}, {"dueDateTime", d.due}, {"completedDateTime", d.completed}} {
			if p.t != nil {
				o = append(o, property{p.name, object{{"dateTime", p.t.DateTime}, {"timeZone", p.t.TimeZone}}})
			}
		}
	}
	return o
}

// itemBody is the body in the form the caller prefers.
func (c *call) itemBody(b *content) object {
	kind, text := "text", b.text
	if b.html {
		kind = "html"
	}
	switch {
	case c.bodyType == "text" && b.html:
		kind, text = "text", b.plainText()
	case c.bodyType == "html" && !b.html:
		kind, text = "html", textToHTML(b.text)
	}
	return object{{"contentType", kind}, {"content", text}}
}

// selection is a resolved $select.
type selection struct {
	props []int
	set   propSet
}

// resolveSelect finds the properties to show; unknown names, wellKnownName among them, are refused.
func resolveSelect(names []string) (*selection, *apiError) {
	if len(names) == 0 {
		return nil, nil
	}
	s := &selection{}
	id := propByName["id"]
	s.set |= 1 << id
	s.props = append(s.props, id)
	for _, n := range names {
		if n == "*" {
			return nil, nil
		}
		key := strings.ToLower(n)
		switch key {
		case "singlevalueextendedproperties", "multivalueextendedproperties", "attachments", "extensions":
			continue // navigation: shown by $expand
		}
		if strings.HasPrefix(key, "microsoft.graph.") { // a property of a derived type, which is never there
			continue
		}
		i, ok := propByName[key]
		if !ok {
			return nil, errQuery("Could not find a property named '%s' on type 'microsoft.graph.message'.", n)
		}
		if s.set&(1<<i) == 0 {
			s.set |= 1 << i
			s.props = append(s.props, i)
		}
	}
	return s, nil
}

// row shows a message: what is selected, else all that is shown without being asked for.
func (c *call) row(m *message, sel *selection) object {
	o := make(object, 0, 8)
	o = append(o, property{"@odata.etag", `W/"` + m.changeKey() + `"`})
	var body *content
	if sel == nil || sel.set&deepProps != 0 {
		body = m.content()
	}
	if sel == nil {
		for _, p := range messageProps {
			if !p.asked {
				o = append(o, property{p.name, p.get(c, m, body)})
			}
		}
		return o
	}
	for _, i := range sel.props {
		p := &messageProps[i]
		v := p.get(c, m, body)
		if p.asked && v == nil {
			continue
		}
		o = append(o, property{p.name, v})
	}
	return o
}

// expandRow adds what $expand asks for.
func (c *call) expandRow(o object, m *message, list []expansion) object {
	for _, e := range list {
		switch e.name {
		case "attachments":
			var rows []object
			for _, a := range m.content().attachments {
				rows = append(rows, c.attachmentRow(m, a, e.selects, false))
			}
			if rows == nil {
				rows = []object{}
			}
			o = append(o, property{"attachments", rows})
		case "singlevalueextendedproperties":
			if rows := expandSingle(e.ids, m.extValue); rows != nil {
				o = append(o, property{"singleValueExtendedProperties", rows})
			}
		case "multivalueextendedproperties":
			if rows := m.expandMulti(e.ids); rows != nil {
				o = append(o, property{"multiValueExtendedProperties", rows})
			}
		}
	}
	return o
}

// property implements scope for $filter and $orderby.
func (m *message) property(path string) (value, bool) {
	str := func(s string) (value, bool) { return value{kind: litString, text: s}, true }
	at := func(n int64) (value, bool) { return value{kind: litTime, num: float64(n)}, true }
	switch strings.ToLower(path) {
	case "id":
		return str(m.id(false))
	case "receiveddatetime":
		return at(m.received)
	case "sentdatetime":
		return at(m.sent)
	case "createddatetime":
		return at(m.created)
	case "lastmodifieddatetime":
		return at(m.modified)
	case "isread":
		return truth(m.is(bitRead)), true
	case "isdraft":
		return truth(m.is(bitDraft)), true
	case "isreadreceiptrequested":
		return truth(m.is(bitReadReceipt)), true
	case "isdeliveryreceiptrequested":
		return truth(m.is(bitDelivReceipt)), true
	case "importance":
		return str(importances[m.importance])
	case "inferenceclassification":
		if m.is(bitOther) {
			return str("other")
		}
		return str("focused")
	case "parentfolderid":
		return str(m.folder.id())
	case "changekey":
		return str(m.changeKey())
	case "flag/flagstatus":
		return str(flagStates[m.flag])
	}
	body := m.content()
	switch strings.ToLower(path) {
	case "hasattachments":
		return truth(body.hasAttachments()), true
	case "subject":
		return str(body.subject)
	case "bodypreview":
		return str(body.preview())
	case "body/content":
		return str(body.text)
	case "internetmessageid":
		return str(body.messageID)
	case "conversationid":
		return str(messageProps[propByName["conversationid"]].get(nil, m, body).(string))
	case "from/emailaddress/address", "sender/emailaddress/address":
		if body.from == nil {
			return value{}, true
		}
		return str(body.from.addr)
	case "from/emailaddress/name", "sender/emailaddress/name":
		if body.from == nil {
			return value{}, true
		}
		return str(body.from.name)
	}
	return value{}, false
}

// bound is the scope inside any(): the loop variable, and around it the message.
type bound struct {
	outer    scope
	variable string
	get      func(rest string) (value, bool)
}

func (b bound) property(path string) (value, bool) {
	if rest, ok := strings.CutPrefix(path, b.variable); ok && (rest == "" || rest[0] == '/') {
		return b.get(strings.TrimPrefix(rest, "/"))
	}
	return b.outer.property(path)
}

func (b bound) collection(path, variable string, body expr) ([]scope, *apiError) {
	return b.outer.collection(path, variable, body)
}

func (m *message) collection(path, variable string, body expr) ([]scope, *apiError) {
	var out []scope
	add := func(get func(string) (value, bool)) { out = append(out, bound{m, variable, get}) }
	people := func(list []address) {
		for _, a := range list {
			add(func(rest string) (value, bool) {
				switch strings.ToLower(rest) {
				case "emailaddress/address":
					return value{kind: litString, text: a.addr}, true
				case "emailaddress/name":
					return value{kind: litString, text: a.name}, true
				}
				return value{}, false
			})
		}
	}
	switch strings.ToLower(path) {
	case "categories":
		for _, cat := range m.categories {
			add(func(rest string) (value, bool) { return value{kind: litString, text: cat}, rest == "" })
		}
	case "torecipients":
		people(m.content().to)
	case "ccrecipients":
		people(m.content().cc)
	case "singlevalueextendedproperties":
		return m.extScopes(variable, body, m.extValue)
	default:
		return nil, errQuery("Could not find a property named '%s' on type 'microsoft.graph.message'.", path)
	}
	return out, nil
}

// extScopes gives the one extended property that body asks for by id; what is not set is null.
func (m *message) extScopes(variable string, body expr, get func(extID) (string, bool)) ([]scope, *apiError) {
	text := idLiteral(body, variable)
	if text == "" {
		return nil, errFilter()
	}
	id, err := parseExtID(text)
	if err != nil {
		return nil, err
	}
	return []scope{bound{m, variable, func(rest string) (value, bool) {
		switch strings.ToLower(rest) {
		case "id":
			return value{kind: litString, text: text}, true
		case "value":
			if v, ok := get(id); ok {
				return value{kind: litString, text: v}, true
			}
			return value{}, true
		}
		return value{}, false
	}}}, nil
}

// idLiteral finds the literal that variable/id is compared with.
func idLiteral(e expr, variable string) string {
	switch e := e.(type) {
	case logical:
		if s := idLiteral(e.a, variable); s != "" {
			return s
		}
		return idLiteral(e.b, variable)
	case comparison:
		p, ok := e.left.(propExpr)
		l, ok2 := e.right.(literal)
		if ok && ok2 && e.op == "eq" && strings.EqualFold(string(p), variable+"/id") && l.kind == litString {
			return l.text
		}
	}
	return ""
}
