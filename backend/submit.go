package backend

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend/message"
	"postern/backend/outbox"
	"postern/backend/store"
)

// markField is our own header field. It holds the queue id, by which a message that
// may have been sent is told from others with its Message-ID: mailers give one
// message to several envelopes.
const markField = "X-Postern-Id"

// maxHeader is the most bytes a submitted message's header may have.
const maxHeader = 1 << 20

const opSubmit = "submit message"

// submission is the way out for mail.
type submission struct {
	outbox  *outbox.Queue
	rates   rates
	repeats repeats
	drop    dropping
}

// adjustOutbox lets tests shorten the queue's waits.
var adjustOutbox func(*outbox.Options)

// initSubmission opens the queue. Nothing is sent before runSubmission.
func (b *Backend) initSubmission() error {
	times := b.config().outboxTimes()
	opts := outbox.Options{
		Store:    b.store.Outbox(),
		Sender:   &sender{b},
		Lifetime: times.Lifetime,
		Warn:     times.Warn,
		Keep:     times.Keep,
		Repeat:   times.Repeat,
		Observe:  b.observer.Attempt,
		Logger:   b.log,
	}
	if adjustOutbox != nil {
		adjustOutbox(&opts)
	}
	q, err := outbox.New(opts)
	if err != nil {
		return err
	}
	b.outbox = q
	drop, err := b.openDrop(b.config().Drop, b.Account)
	b.drop.set(drop)
	return err
}

func (cfg *Config) outboxTimes() outbox.Times {
	return outbox.Times{Repeat: cfg.SendUnsure, Lifetime: cfg.QueueLifetime, Warn: cfg.QueueWarn, Keep: cfg.LogKeep}
}

// runSubmission sends what is queued until ctx ends.
func (b *Backend) runSubmission(ctx context.Context) error {
	b.drop.begin(ctx)
	err := b.outbox.Run(ctx)
	b.drop.wait()
	return err
}

// Envelope is what MAIL FROM and RCPT TO said.
type Envelope struct {
	From       string // the reversePath, "" for <>
	Recipients []Recipient
	Ret        string // RFC 3461: FULL, HDRS or ""
	EnvID      string // RFC 3461, decoded
	SMTPUTF8   bool
	Body8Bit   bool
	Remote     string // the client's address, for the log
	DropCopy   bool   // no copy in Sent Items
}

// Recipient is one RCPT TO.
type Recipient struct {
	Address string
	Notify  []string // NEVER, or any of SUCCESS, FAILURE, DELAY; empty for the default
	Orcpt   string   // "type;address", decoded; empty if not given
}

// CheckSender reports whether login may use reversePath in MAIL FROM: the empty one,
// its mailbox's addresses, and its send_as list. With RewriteFrom any will do.
func (b *Backend) CheckSender(login *Login, reversePath string) error {
	if login.ReadOnly {
		return &Error{Kind: Denied, Op: "check sender", Text: fmt.Sprintf("The login %s may only read mail", login.Username)}
	}
	if reversePath == "" || login.RewriteFrom || b.maySendAs(login, reversePath) {
		return nil
	}
	return b.senderRefused(login, reversePath)
}

func (b *Backend) senderRefused(login *Login, addr string) error {
	return &Error{Kind: Denied, Op: "check sender",
		Text: fmt.Sprintf("The login %s may not send as %s: it is no address of %s, so it must be in the login's send_as list, and %s needs the Send As right for it in Exchange",
			login.Username, addr, login.Account.Address(), login.Account.Address())}
}

func (b *Backend) maySendAs(login *Login, addr string) bool {
	if a, ok := b.accountOf(addr); ok && a == login.Account {
		return true
	}
	key := addressKey(addr)
	return key == addressKey(login.Account.Address()) ||
		slices.ContainsFunc(login.SendAs, func(s string) bool { return addressKey(s) == key }) ||
		login.Account.hasAddress(addr)
}

func (b *Backend) accountOf(addr string) (*Account, bool) {
	if a, ok := b.Account(addr); ok {
		return a, true
	}
	return b.Account(addressKey(addr))
}

// Submission is one message on its way into the queue: write its bytes as received,
// then Submit, and in any case Discard.
type Submission struct {
	b     *Backend
	login *Login
	env   Envelope
	spool *outbox.Spool
	lines crlfWriter
	sum   hash.Hash // of what was received
	size  int64     // of that
	room  int64     // the size at which the disk is looked at again

	header  []byte // until it is complete
	ownID   bool   // the client gave the Message-ID
	subject string
	inBody  bool
	mailbox *Account
	id      string // Message-ID
	err     error  // what the header is refused for; the rest is read and dropped

	queueOnly bool // nobody waits for the first attempt
}

// NewSubmission begins a message from login to env's recipients.
func (b *Backend) NewSubmission(login *Login, env Envelope) (*Submission, error) {
	if len(env.Recipients) == 0 {
		return nil, &Error{Kind: Refused, Op: opSubmit, Text: "The message has no recipients"}
	}
	if a, ok := b.Account(login.Account.Address()); !ok || a != login.Account {
		// A client that needs no log-in is still connected.
		return nil, &Error{Kind: Denied, Op: opSubmit, Text: fmt.Sprintf("The mailbox %s is no longer configured", login.Account.Address())}
	}
	if err := b.checkRate(login, true); err != nil {
		return nil, err
	}
	if err := b.checkSpace(0); err != nil {
		return nil, err
	}
	spool, err := b.outbox.NewSpool()
	if err != nil {
		return nil, storeError(err)
	}
	return b.newSubmission(login, env, spool), nil
}

func (b *Backend) newSubmission(login *Login, env Envelope, spool *outbox.Spool) *Submission {
	return &Submission{b: b, login: login, env: env, spool: spool, lines: crlfWriter{w: spool}, sum: sha256.New(), room: spaceStep}
}

// Write adds bytes of the message. Line ends become CRLF: Graph refuses others.
func (s *Submission) Write(p []byte) (int, error) {
	if s.err != nil {
		return len(p), nil // told by Submit: the client is to hear it as DATA's answer
	}
	s.sum.Write(p)
	if s.size += int64(len(p)); s.size >= s.room {
		if err := s.b.checkSpace(0); err != nil {
			return 0, err
		}
		s.room = s.size + spaceStep
	}
	body := p
	if !s.inBody {
		// The end may have begun in an earlier piece.
		from := max(0, len(s.header)-3)
		s.header = append(s.header, p...)
		end := headerEnd(s.header, from)
		if end > maxHeader || end < 0 && len(s.header) > maxHeader {
			s.err = &Error{Kind: Refused, Op: opSubmit, Text: "The header of the message is larger than 1 MB"}
			s.header = nil
			return len(p), nil
		}
		if end < 0 {
			return len(p), nil
		}
		body = s.header[end:]
		if s.err = s.beginBody(s.header[:end]); s.err != nil {
			return len(p), s.spoolError()
		}
	}
	if _, err := s.lines.Write(body); err != nil {
		return 0, storeError(err)
	}
	return len(p), nil
}

// spoolError passes on what is our fault; a refusal waits for Submit.
func (s *Submission) spoolError() error {
	if k := KindOf(s.err); k == Internal || k == OverQuota {
		return s.err
	}
	return nil
}

// headerEnd finds the end of the header, behind its blank line, or -1.
func headerEnd(b []byte, from int) int {
	if from == 0 && len(b) > 0 && (b[0] == '\n' || len(b) > 1 && b[0] == '\r' && b[1] == '\n') {
		return bytes.IndexByte(b, '\n') + 1
	}
	for i := from; i < len(b); i++ {
		if b[i] != '\n' {
			continue
		}
		switch rest := b[i+1:]; {
		case len(rest) > 0 && rest[0] == '\n':
			return i + 2
		case len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n':
			return i + 3
		}
	}
	return -1
}

// beginBody writes the header as it will be kept. What is added is added once, here,
// so that every attempt sends the same message.
func (s *Submission) beginBody(raw []byte) error {
	s.inBody, s.header = true, nil
	header, err := s.prepareHeader(raw)
	if err != nil {
		return err
	}
	if _, err := s.lines.Write(header); err != nil {
		return storeError(err)
	}
	return nil
}

// prepareHeader checks From and adds what a message must have.
func (s *Submission) prepareHeader(raw []byte) ([]byte, error) {
	if !looksLikeHeader(raw) {
		// Some devices send bare text. All of it is the body then.
		head, err := s.buildHeader(nil)
		if err != nil {
			return nil, err
		}
		return append(head, raw...), nil
	}
	return s.buildHeader(message.Fields(raw))
}

func (s *Submission) buildHeader(fields []message.Field) ([]byte, error) {
	var from, date bool
	var out []byte
	for _, f := range fields {
		switch strings.ToLower(f.Name) {
		case strings.ToLower(markField):
			continue // ours to give
		case "message-id":
			if s.id != "" || f.Value == "" {
				continue
			}
			s.id, s.ownID = f.Value, true
		case "subject":
			if s.b.config().LogSubject && s.subject == "" {
				s.subject = shorten(message.DecodeWords(f.Value), maxLogSubject)
			}
		case "date":
			if f.Value == "" {
				continue
			}
			date = true
		case "from":
			if from {
				continue
			}
			from = true
			acct, rewritten, err := s.checkFrom(f)
			if err != nil {
				return nil, err
			}
			s.mailbox = acct
			if rewritten != nil {
				out = append(out, rewritten...)
				if _, has := fieldValue(fields, "Reply-To"); !has && hasAddress(f.Value) {
					out = append(out, "Reply-To"...)
					out = append(out, f.Raw[len(f.Name):]...)
				}
				continue
			}
		case "sender":
			// It would be shown as who has really sent the message.
			if !s.maySendAsAll(f.Value) {
				out = append(out, "X-Original-"...)
			}
		}
		out = appendRaw(out, f.Raw)
	}
	if !from {
		var value string
		s.mailbox, value = s.fallback()
		out = appendField(out, "From", value)
	}
	if !date {
		out = appendField(out, "Date", time.Now().Format(time.RFC1123Z))
	}
	if s.id == "" {
		s.id = "<" + s.spool.ID() + "." + messageIDDomain(s.mailbox.Address()) + ">"
		out = appendField(out, "Message-ID", s.id)
	}
	out = appendField(out, markField, s.spool.ID())
	return append(out, "\r\n"...), nil
}

// maxLogSubject is how many bytes of a subject the log keeps.
const maxLogSubject = 250

// shorten keeps s within n bytes and one line.
func shorten(s string, n int) string {
	s = singleLine(s)
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "")
	}
	return s
}

// fallback returns the address for a message that comes without a usable one, and the mailbox it goes through.
func (s *Submission) fallback() (*Account, string) {
	addr := s.login.FallbackFrom
	if addr == "" {
		return s.login.Account, headerAddress(s.login.Account.Address())
	}
	if a, ok := s.b.accountOf(addr); ok {
		return a, headerAddress(addr)
	}
	return s.login.Account, headerAddress(addr)
}

func messageIDDomain(address string) string {
	domain := address[strings.LastIndexByte(address, '@')+1:]
	if domain == "" || strings.ContainsFunc(domain, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '<' || r == '>' }) {
		domain = "postern.invalid"
	}
	return "postern@" + domain
}

func fieldValue(fields []message.Field, name string) (string, bool) {
	for _, f := range fields {
		if strings.EqualFold(f.Name, name) {
			return f.Value, true
		}
	}
	return "", false
}

// maySendAsAll reports whether the login may use all addresses of a field.
func (s *Submission) maySendAsAll(value string) bool {
	for _, a := range wholeAddresses(value) {
		if !s.b.maySendAs(s.login, a.Addr()) {
			return false
		}
	}
	return true
}

func hasAddress(value string) bool { return len(wholeAddresses(value)) > 0 }

// checkFrom decides which mailbox the message goes through: that of the From address
// if it is one of ours, else the login's. A From that the login may not use is
// refused, or with RewriteFrom replaced; then the field to write comes back.
func (s *Submission) checkFrom(f message.Field) (acct *Account, rewritten []byte, err error) {
	var addrs []string
	name := ""
	for _, a := range wholeAddresses(f.Value) {
		addrs = append(addrs, a.Addr())
		if name == "" {
			name = a.Name
		}
	}
	refused := ""
	for _, addr := range addrs {
		if !s.b.maySendAs(s.login, addr) {
			refused = addr
			break
		}
	}
	own := s.login.Account
	switch {
	case len(addrs) > 0 && refused == "":
		// Sending as a shared mailbox through that mailbox needs no right in Exchange
		// and leaves the copy where its users look.
		if a, ok := s.b.accountOf(addrs[0]); ok {
			return a, nil, nil
		}
		return own, nil, nil
	case len(addrs) > 0 && !s.login.RewriteFrom:
		return nil, nil, s.b.senderRefused(s.login, refused)
	}
	// No address at all, or one to be replaced.
	acct, value := s.fallback()
	if name != "" {
		value = quotePhrase(name) + " <" + value + ">"
	}
	return acct, appendField(nil, "From", value), nil
}

// quotePhrase writes a display name as found in a header: encoded words and plain
// words stay, anything else is quoted.
func quotePhrase(name string) string {
	name = strings.Trim(strings.TrimSpace(name), `"`)
	plain := !strings.ContainsFunc(name, func(r rune) bool {
		return strings.ContainsRune(`()<>[]:;@\,."`, r) || r < ' '
	})
	if plain || strings.HasPrefix(name, "=?") {
		return name
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range name {
		if r == '"' || r == '\\' {
			b.WriteByte('\\')
		}
		if r >= ' ' {
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// looksLikeHeader reports whether the first line is a header field, an mbox
// separator, or the blank line of an empty header.
func looksLikeHeader(b []byte) bool {
	if len(b) == 0 || b[0] == '\r' || b[0] == '\n' || bytes.HasPrefix(b, []byte("From ")) || bytes.HasPrefix(b, []byte(">From ")) {
		return true
	}
	colon := bytes.IndexByte(b, ':')
	if colon < 1 {
		return false
	}
	for _, c := range bytes.TrimRight(b[:colon], " \t") {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}

// Submit makes the message durable and tries to send it at once. A nil error means
// that it is accepted and will be sent, or its sender told why not. An error means
// that nothing was kept.
func (s *Submission) Submit(ctx context.Context) (queueID string, err error) {
	if !s.inBody && s.err == nil {
		raw := s.header
		if n := len(raw); n > 0 && looksLikeHeader(raw) && raw[n-1] != '\n' {
			raw = append(raw, "\r\n"...)
		}
		s.err = s.beginBody(raw)
	}
	if s.err == nil {
		if err := s.lines.Close(); err != nil {
			s.err = storeError(err)
		}
	}
	if s.err != nil {
		return "", s.err
	}
	if err := ctx.Err(); err != nil {
		return "", &Error{Kind: Unavailable, Op: opSubmit, Text: "The server is shutting down, try again later", Err: err}
	}
	rcpts := make([]store.Recipient, len(s.env.Recipients))
	for i, r := range s.env.Recipients {
		rcpts[i] = store.Recipient{Address: r.Address, Notify: r.Notify, Orcpt: r.Orcpt}
	}
	row := store.Submission{
		Mailbox:      s.mailbox.Address(),
		Login:        s.login.Username,
		RemoteAddr:   s.env.Remote,
		EnvelopeFrom: s.env.From,
		Recipients:   rcpts,
		DSN:          store.DSN{Ret: s.env.Ret, EnvID: s.env.EnvID},
		MessageID:    s.id,
		Subject:      s.subject,
		DropCopy:     s.env.DropCopy || s.login.DropCopy,
	}
	if s.ownID {
		row.Digest = hex.EncodeToString(s.sum.Sum(nil))
		if id := s.b.repeated(ctx, &row); id != "" {
			s.b.log.Info("message was taken before", "queue_id", id, "mailbox", row.Mailbox)
			return id, nil
		}
		if gather := cmp.Or(s.login.Gather, s.b.config().Gather); gather > 0 {
			row.GatherUntil = time.Now().Add(gather)
		}
	}
	wait := s.b.config().SendWait
	if s.queueOnly {
		wait = 0
	}
	if row.Unanswered = s.ownID && !s.queueOnly; row.Unanswered {
		s.b.repeats.present(s.spool.ID(), true)
	}
	id, err := s.b.outbox.Submit(ctx, s.spool, row, wait)
	if err != nil || id != s.spool.ID() {
		s.b.repeats.present(s.spool.ID(), false) // not taken, or as part of another
	}
	if err == nil {
		return id, nil
	}
	if e, ok := errors.AsType[*outbox.Error](err); ok {
		return "", &Error{Kind: kindOfStatus(e.Status), Op: opSubmit, Text: e.Text, Err: e}
	}
	return "", storeError(err)
}

// Discard drops the message unless it was accepted. It may be called more than once.
func (s *Submission) Discard() { s.spool.Discard() }

// kindOfStatus translates an enhanced status code of a message that will never be taken.
func kindOfStatus(status string) Kind {
	switch {
	case status == "5.3.4":
		return TooLarge
	case strings.HasPrefix(status, "5.7."):
		return Denied
	case strings.HasPrefix(status, "5.3."):
		return Internal
	}
	return Refused
}

// StatusOf returns the enhanced status code (RFC 3463) that goes with err, if one is known.
func StatusOf(err error) (class, subject, detail int, ok bool) {
	e, found := errors.AsType[*outbox.Error](err)
	if !found {
		return 0, 0, 0, false
	}
	parts := strings.Split(e.Status, ".")
	if len(parts) != 3 {
		return 0, 0, 0, false
	}
	var n [3]int
	for i, p := range parts {
		v, err := strconv.Atoi(p)
		if err != nil || v < 0 || v > 999 {
			return 0, 0, 0, false
		}
		n[i] = v
	}
	return n[0], n[1], n[2], true
}

// sentRole is the folder a sent message turns up in.
const sentRole = imap.MailboxAttrSent

// crlfWriter turns every line end, bare LF and bare CR too, into CRLF, and ends the last line.
type crlfWriter struct {
	w interface {
		Write(p []byte) (int, error)
	}
	cr   bool // the last byte was a CR, already written as CRLF
	open bool // the last line has no end yet
	buf  []byte
}

func (c *crlfWriter) Write(p []byte) (int, error) {
	n := len(p)
	if c.cr && n > 0 {
		c.cr = false
		if p[0] == '\n' {
			p = p[1:] // the LF of a CRLF whose CR has become one
		}
	}
	c.buf = c.buf[:0]
	for len(p) > 0 {
		// Whole lines that end as they should are most of what comes.
		end := bytes.IndexByte(p, '\n')
		line := p
		if end >= 0 {
			line = p[:end+1]
		}
		p = p[len(line):]
		if cr := bytes.IndexByte(line, '\r'); cr < 0 || cr == len(line)-2 && end >= 0 {
			if cr < 0 && end >= 0 {
				c.buf = append(append(c.buf, line[:end]...), '\r', '\n')
			} else {
				c.buf = append(c.buf, line...)
			}
			continue
		}
		for i, b := range line {
			switch {
			case b == '\r':
				c.buf = append(c.buf, '\r', '\n')
			case b == '\n' && i > 0 && line[i-1] == '\r':
			case b == '\n':
				c.buf = append(c.buf, '\r', '\n')
			default:
				c.buf = append(c.buf, b)
			}
		}
		c.cr = len(p) == 0 && line[len(line)-1] == '\r'
	}
	if k := len(c.buf); k > 0 {
		c.open = c.buf[k-1] != '\n'
		if _, err := c.w.Write(c.buf); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// Close ends the last line.
func (c *crlfWriter) Close() error {
	if !c.open {
		return nil
	}
	c.open = false
	_, err := c.w.Write([]byte("\r\n"))
	return err
}
