package graphsim

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Delivery is one submitted message and exactly who got it.
type Delivery struct {
	From       string    `json:"from"`   // UPN of the mailbox that submitted
	Sender     string    `json:"sender"` // address the message is from
	Recipients []string  `json:"recipients"`
	MIME       []byte    `json:"mime"`      // as receivers see it: without Bcc
	MessageID  string    `json:"messageId"` // with angle brackets
	Time       time.Time `json:"time"`
}

// maxRecipients is the tenant's default. Exchange Online limits.
const maxRecipients = 500

// sendMail answers POST /users/{u}/sendMail in JSON or MIME.
func (c *call) sendMail() (*reply, *apiError) {
	var m *message
	save := true
	if c.isMIME() {
		raw, err := c.mimeBody()
		if err != nil {
			return nil, err
		}
		m = c.sim.draftFromMIME(c.box, raw)
	} else {
		body, err := c.jsonBody()
		if err != nil {
			return nil, err
		}
		var msg map[string]json.RawMessage
		for k, v := range body {
			switch asciiLower(k) {
			case "message":
				if msg, err = decodeObject(v); err != nil {
					return nil, err
				}
			case "savetosentitems":
				var b *bool
				if json.Unmarshal(v, &b) != nil {
					return nil, errBody("the parameter 'saveToSentItems'.")
				}
				save = b == nil || *b
			default:
				return nil, errBody("the parameter '%s', which does not exist on sendMail.", k)
			}
		}
		if msg == nil {
			return nil, fail(400, "ErrorInvalidRequest", "The parameter 'message' is missing.")
		}
		if m, err = c.messageFromJSON(msg); err != nil {
			return nil, err
		}
	}
	if err := c.submit(m, save); err != nil {
		return nil, err
	}
	return emptyReply(http.StatusAccepted), nil
}

// sendDraft answers POST .../messages/{m}/send: the draft becomes the copy in Sent Items and keeps its immutable id.
func (c *call) sendDraft(m *message) (*reply, *apiError) {
	if !m.is(bitDraft) {
		return nil, fail(400, "ErrorInvalidOperation", "Only a draft can be sent.")
	}
	if err := c.submit(m, true); err != nil {
		return nil, err
	}
	return emptyReply(http.StatusAccepted), nil
}

// submit checks sender, recipients and size, and sends. m is either a draft in the mailbox or not stored yet.
func (c *call) submit(m *message, save bool) *apiError {
	s, b := c.sim, c.box
	if save {
		if err := b.room(); err != nil {
			return err
		}
	}
	body := m.edit()
	sender, err := b.sender(body)
	if err != nil {
		return err
	}
	rcpts := body.recipients()
	if len(rcpts) == 0 {
		return fail(400, "ErrorInvalidRecipients", "At least one recipient isn't valid., A message can't be sent unless it has at least one recipient.")
	}
	var to []string
	seen := map[string]bool{}
	for _, r := range rcpts {
		if !validAddress(r.addr) {
			return fail(400, "ErrorInvalidRecipients", "At least one recipient isn't valid., '%s' is no address.", r.addr)
		}
		if key := strings.ToLower(r.addr); !seen[key] {
			seen[key] = true
			to = append(to, r.addr)
		}
	}
	if len(to) > maxRecipients {
		return fail(400, "ErrorExceededMessageLimit", "The message has more than %d recipients.", maxRecipients)
	}
	if int64(body.storeSize()) > s.opts.MaxMessage {
		return fail(400, "ErrorMessageSizeExceeded", "The message exceeds the maximum supported size.")
	}
	body.from = sender
	if body.sender == nil || !strings.EqualFold(body.sender.addr, sender.addr) {
		body.sender = sender
	}
	now := s.now()
	if m.sent == 0 || !m.is(bitMIME) {
		m.sent = now.Unix()
	}
	if body.messageID == "" {
		body.messageID = "<" + strings.ToUpper(newGUID()) + "@" + b.domain() + ">"
	}
	m.setBit(bitDraft, false)
	m.setBit(bitSubmitted, true)
	m.setBit(bitMIME, false)
	d := Delivery{From: b.user.UPN, Sender: sender.addr, Recipients: to, MIME: renderForDelivery(m), MessageID: body.messageID}
	s.sendOffLocked(b, d)
	b.fileSentLocked(m, save)
	return nil
}

// fileSentLocked puts the copy into Sent Items, at once or after the delay of the options.
func (b *mailbox) fileSentLocked(m *message, save bool) {
	s := b.sim
	sentItems := b.wellKnown["sentitems"]
	m.setReadOrNew(true)
	arrive := func() {
		switch {
		case !save:
		case m.folder == nil:
			m.received = s.now().Unix()
			sentItems.addLocked(m)
		case b.messages[m.num] == m:
			b.redateLocked(m, s.now().Unix())
			b.moveLocked(m, sentItems, changeMoved)
		}
	}
	if s.opts.SentItemsDelay <= 0 {
		arrive()
		return
	}
	if m.folder != nil {
		b.moveLocked(m, b.wellKnown["outbox"], changeMoved)
	}
	s.laterLocked(s.now().Add(s.opts.SentItemsDelay), arrive)
}

func (m *message) setReadOrNew(read bool) {
	if m.folder == nil {
		m.setBit(bitRead, read)
		return
	}
	m.setReadLocked(read)
}

// sender finds who a message is from. An alias goes out from the primary address; others need the right to be used.
func (b *mailbox) sender(c *content) (*address, *apiError) {
	own := address{b.user.DisplayName, b.user.UPN}
	if c.from == nil || c.from.addr == "" {
		return &own, nil
	}
	if strings.EqualFold(c.from.addr, b.user.UPN) {
		return &address{nameOr(c.from.name, b.user.DisplayName), b.user.UPN}, nil
	}
	for _, alias := range b.user.Aliases {
		if strings.EqualFold(alias, c.from.addr) {
			return &address{nameOr(c.from.name, b.user.DisplayName), b.user.UPN}, nil
		}
	}
	for _, other := range b.user.SendAs {
		if strings.EqualFold(other, c.from.addr) {
			return c.from, nil
		}
	}
	return nil, fail(403, "ErrorSendAsDenied", "The user account which was used to submit this request does not have the right to send mail on behalf of the specified sending account., Cannot submit message.")
}

func nameOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// validAddress is a rough check: one @ with something on both sides, no blanks.
func validAddress(a string) bool {
	i := strings.LastIndexByte(a, '@')
	return i > 0 && i < len(a)-1 && !strings.ContainsAny(a, " \t\r\n<>,;")
}

// sendOffLocked delivers now, or later when the mailbox sends faster than the limit: Exchange delays and does not refuse.
func (s *Sim) sendOffLocked(b *mailbox, d Delivery) {
	now := s.now()
	due := now
	if per := s.opts.Limits.SendsPerMinute; per > 0 {
		if n := len(b.sends); n >= per {
			if earliest := time.Unix(b.sends[n-per], 0).Add(time.Minute); earliest.After(due) {
				due = earliest
			}
		}
		b.sends = append(b.sends, due.Unix())
		if len(b.sends) > 4*per {
			b.sends = append([]int64(nil), b.sends[len(b.sends)-2*per:]...)
		}
	}
	if !due.After(now) {
		s.deliverLocked(b, d)
		return
	}
	s.laterLocked(due, func() { s.deliverLocked(b, d) })
}

// deliverLocked records a delivery and puts it into the Inbox of local receivers.
func (s *Sim) deliverLocked(from *mailbox, d Delivery) {
	d.Time = s.now()
	s.deliveries = append(s.deliveries, d)
	for _, rcpt := range d.Recipients {
		b := s.mailboxByAddress(rcpt)
		switch {
		case b != nil && !b.user.NoMailbox && !b.overQuota:
			b.receiveLocked(d.MIME, "from "+from.domain()+" (2001:db8::25)", rcpt)
		case s.opts.Bounces && (b != nil || s.isLocalDomain(rcpt)):
			from.receiveLocked(bounce(from, rcpt, d), "from mail.protection.example (2001:db8::26)", from.user.UPN)
		}
	}
}

// receiveLocked puts a message into the Inbox the way transport does.
func (b *mailbox) receiveLocked(mime []byte, from, rcpt string) *message {
	now := b.sim.now()
	head := fmt.Sprintf("Received: %s\r\n by %s with Microsoft SMTP Server\r\n id %s for <%s>; %s\r\nReturn-Path: <>\r\n",
		from, b.domain(), newGUID()[:13], rcpt, now.UTC().Format("Mon, 2 Jan 2006 15:04:05 -0700"))
	raw := make([]byte, 0, len(head)+len(mime))
	raw = append(append(raw, head...), mime...)
	m := messageFromMIME(raw, now.Unix())
	m.received = now.Unix()
	m.sent = unixOr(m.sent, now)
	m.body.transport = headerText(m.body.root)
	b.wellKnown["inbox"].addLocked(m)
	return m
}

// isLocalDomain reports whether an address is of one of the tenants' domains.
func (s *Sim) isLocalDomain(addr string) bool {
	_, domain, _ := cutLast(addr, "@")
	for _, t := range s.tenants {
		for _, d := range t.domains {
			if strings.EqualFold(d, domain) {
				return true
			}
		}
	}
	return false
}

// bounce is the report on a recipient that cannot be reached: 202 was no promise. RFC 3464.
func bounce(from *mailbox, rcpt string, d Delivery) []byte {
	boundary := strings.ToUpper(newGUID())
	header, _ := splitHeader(d.MIME)
	return []byte("From: \"Microsoft Outlook\" <postmaster@" + from.domain() + ">\r\nTo: <" + from.user.UPN + ">\r\n" +
		"Subject: " + encodeWords("Undeliverable: "+decodeWords(fieldValue(header, "Subject"))) + "\r\n" +
		"Date: " + d.Time.UTC().Format("Mon, 2 Jan 2006 15:04:05 -0700") + "\r\nMessage-ID: <" + newGUID() + "@" + from.domain() + ">\r\n" +
		"In-Reply-To: " + d.MessageID + "\r\nReferences: " + d.MessageID + "\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: multipart/report; report-type=delivery-status; boundary=\"" + boundary + "\"\r\n\r\n" +
		"--" + boundary + "\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\nYour message to " + rcpt + " could not be delivered.\r\n" +
		"--" + boundary + "\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns;mail.protection.example\r\n\r\n" +
		"Final-Recipient: rfc822;" + rcpt + "\r\nAction: failed\r\nStatus: 5.1.10\r\nDiagnostic-Code: smtp;550 5.1.10 RESOLVER.ADR.RecipientNotFound\r\n" +
		"--" + boundary + "--\r\n")
}

func (s *Sim) mailboxByAddress(addr string) *mailbox {
	for _, t := range s.tenants {
		if b := t.users[strings.ToLower(addr)]; b != nil {
			return b
		}
	}
	return nil
}
