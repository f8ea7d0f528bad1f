package graphsim

import (
	"encoding/json"
	"net/http"
	"strings"
)

// respond answers reply, replyAll, forward and their create forms. Graph: message-reply, message-createreply.
func (c *call) respond(m *message, action string) (*reply, *apiError) {
	create := strings.HasPrefix(action, "create")
	kind := strings.TrimPrefix(action, "create")
	var body map[string]json.RawMessage
	if len(c.body) > 0 {
		var err *apiError
		if body, err = c.jsonBody(); err != nil {
			return nil, err
		}
	}
	var comment *string
	var msg map[string]json.RawMessage
	var to []address
	for k, v := range body {
		var err *apiError
		switch asciiLower(k) {
		case "comment":
			if json.Unmarshal(v, &comment) != nil {
				err = errBody("the parameter 'comment'.")
			}
		case "message":
			if string(v) != "null" {
				msg, err = decodeObject(v)
			}
		case "torecipients":
			if kind != "forward" {
				err = errBody("the parameter 'toRecipients'.")
				break
			}
			to, err = inputRecipients("toRecipients", v)
		default:
			err = errBody("the parameter '%s'.", k)
		}
		if err != nil {
			return nil, err
		}
	}
	if _, both := msg["body"]; both && comment != nil {
		return nil, fail(400, "ErrorInvalidRequest", "Comment and message.body cannot both be given.")
	}
	if _, both := msg["toRecipients"]; both && to != nil {
		return nil, fail(400, "ErrorInvalidRequest", "ToRecipients and message.toRecipients cannot both be given.")
	}
	d := c.answer(m, kind, comment, to)
	if msg != nil {
		if err := c.applyJSON(d, msg, true); err != nil {
			return nil, err
		}
	}
	if create {
		if err := c.box.room(); err != nil {
			return nil, err
		}
		c.box.wellKnown["drafts"].addLocked(d)
		return c.messageReply(http.StatusCreated, d, nil, nil), nil
	}
	if err := c.submit(d, true); err != nil {
		return nil, err
	}
	verb := map[string]string{"reply": "102", "replyall": "103", "forward": "104"}[kind]
	c.box.setExt(m, []extInput{{id: extID{"Integer", extTag{num: 0x1081}}, value: verb}}, false)
	c.box.touchLocked(m, 0)
	return emptyReply(http.StatusAccepted), nil
}

// answer makes the draft of a reply or forward.
func (c *call) answer(m *message, kind string, comment *string, to []address) *message {
	src := m.content()
	now := c.sim.now().Unix()
	b := &content{html: src.html}
	d := &message{body: b, received: now, sent: now, importance: m.importance, bits: bitDraft | bitRead | bitReadReceiptNo}
	own := address{c.box.user.DisplayName, c.box.user.UPN}
	b.from, b.sender = &own, &own
	prefix := "RE: "
	if kind == "forward" {
		prefix = "FW: "
		b.to = to
		for _, a := range src.attachments {
			dup := *a
			b.attach(&dup)
		}
	} else {
		b.inReplyTo = src.messageID
		b.references = strings.TrimSpace(src.references + " " + src.messageID)
		switch {
		case len(src.replyTo) > 0:
			b.to = append(b.to, src.replyTo...)
		case src.from != nil:
			b.to = append(b.to, *src.from)
		}
		if kind == "replyall" {
			for _, a := range src.to {
				if !strings.EqualFold(a.addr, own.addr) {
					b.to = append(b.to, a)
				}
			}
			b.cc = append(b.cc, src.cc...)
		}
	}
	b.subject = prefix + threadTopic(src.subject)
	text := ""
	if comment != nil {
		text = *comment
	}
	from := ""
	if src.from != nil {
		from = src.from.addr
	}
	if src.html {
		b.text = textToHTML(text) + "<hr>From: " + from + "<br>" + src.text
	} else {
		b.text = text + "\r\n\r\n________________________________\r\nFrom: " + from + "\r\nSubject: " + src.subject + "\r\n\r\n" + src.text
	}
	return d
}
