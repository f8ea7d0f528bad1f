package imapd

import (
	"context"
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/emersion/go-imap/v2"

	"postern/backend"
	"postern/imapd/wire"
)

// maxAppended bounds the messages of one APPEND. Each is a file until all are there.
const maxAppended = 100

// append is APPEND. RFC 3501 section 6.3.11, RFC 3502 (several messages), RFC 4315
// section 3 (APPENDUID), RFC 7889 (APPENDLIMIT), RFC 3516 section 4.4 (literal8), RFC
// 6855 section 4 (UTF8). A message is taken only once the mailbox is known to exist
// and the size is right; one that comes unasked all the same is read past.
func (s *session) append(c *command) error {
	d := s.dec
	d.Space()
	a := &appending{name: d.Mailbox()}
	defer a.discard()
	d.Space()
	for {
		if err := s.receiveOne(a); err != nil {
			return err
		}
		if !d.TrySpace() {
			break
		}
	}
	if err := d.End(); err != nil {
		return err
	}
	var validity uint32
	var uids []imap.UID
	err := s.wait(func(ctx context.Context) (err error) {
		if len(a.items) > 1 {
			validity, uids, err = a.account.AppendMany(ctx, a.inner, a.items)
			return err
		}
		it := &a.items[0]
		uids = make([]imap.UID, 1)
		validity, uids[0], err = a.account.Append(ctx, a.inner, it.Flags, it.Date, it.Message)
		return err
	})
	if err != nil {
		return tryCreate(err)
	}
	for _, uid := range uids {
		if uid == 0 {
			return nil // a message that is still on its way: there is no UID to tell yet
		}
	}
	code := append([]byte("APPENDUID "), decimal(validity)...)
	c.done(string(appendUIDs(append(code, ' '), uids)), "APPEND completed")
	return nil
}

// appending is an APPEND with what has come of it.
type appending struct {
	name    string
	account *backend.Account
	inner   string
	items   []backend.AppendItem
	size    int64 // of all
}

func (a *appending) discard() {
	for i := range a.items {
		a.items[i].Message.Discard()
	}
}

// receiveOne reads one message with what is said of it.
func (s *session) receiveOne(a *appending) error {
	d := s.dec
	var item backend.AppendItem
	if d.Peek() == '(' {
		item.Flags = d.FlagList()
		d.Space()
	}
	if d.Peek() == '"' {
		item.Date = d.DateTime()
		d.Space()
	}
	utf8 := d.Peek() == 'U' || d.Peek() == 'u'
	if utf8 {
		if d.Word() != "UTF8" {
			d.Fail(bad("Message expected"))
		}
		d.Space()
		d.Expect('(')
	}
	lit := d.Literal()
	if err := d.Err(); err != nil {
		return err
	}
	for _, f := range item.Flags {
		if strings.HasPrefix(string(f), `\`) && !isSystemFlag(f) {
			return bad("Not a flag that can be set")
		}
	}
	if len(a.items) >= maxAppended {
		return no(imap.ResponseCodeLimit, "Too many messages at once")
	}
	if a.account == nil {
		if err := s.mayWrite(); err != nil {
			return err
		}
		a.account, a.inner = s.locate(a.name)
		if err := s.canAppend(a.account, a.inner); err != nil {
			return err
		}
	}
	switch limit := s.limits.Message; {
	case lit.Size > limit:
		return no(imap.ResponseCodeTooBig, "Message is larger than "+strconv.FormatInt(limit, 10)+" bytes")
	case a.size+lit.Size > 2*limit:
		return no(imap.ResponseCodeTooBig, "Too many bytes at once")
	case lit.Size == 0:
		return no(imap.ResponseCodeCannot, "Message is empty")
	}
	a.size += lit.Size

	msg, err := a.account.NewMessage()
	if err != nil {
		return err
	}
	item.Message = msg
	a.items = append(a.items, item)
	if err := receive(lit, msg); err != nil {
		return err
	}
	if err := lit.Close(); err != nil {
		return err
	}
	if utf8 {
		d.Expect(')')
		return d.Err()
	}
	if lit.Binary {
		if err := msg.EncodeBinary(); err != nil {
			if backend.KindOf(err) == backend.Refused {
				return no("UNKNOWN-CTE", sentence(backend.TextOf(err)))
			}
			return err
		}
	}
	return nil
}

// canAppend refuses what need not be received at all.
func (s *session) canAppend(account *backend.Account, inner string) error {
	if inner == "" {
		return no(imap.ResponseCodeCannot, "Not a mailbox that holds messages")
	}
	return s.wait(func(ctx context.Context) error {
		boxes, err := account.Mailboxes(ctx)
		if err != nil {
			return err
		}
		for i := range boxes {
			if boxes[i].Name == inner {
				if !boxes[i].Selectable {
					return no(imap.ResponseCodeCannot, "Not a mailbox that holds messages")
				}
				return nil
			}
		}
		return no(imap.ResponseCodeTryCreate, "No such mailbox")
	})
}

// receive spools the literal. If the spool fails the literal is still read to
// its end.
func receive(lit *wire.Literal, msg *backend.NewMessage) error {
	r, err := lit.Accept()
	if err != nil {
		return err
	}
	w := &spool{w: msg}
	if _, err := io.CopyBuffer(w, onlyReader{r}, make([]byte, 32<<10)); err != nil && w.err == nil {
		return err // the connection has failed
	}
	if w.err != nil {
		if err := lit.Discard(); err != nil {
			return err
		}
		if _, ok := errors.AsType[*backend.Error](w.err); ok {
			return w.err
		}
		return &backend.Error{Kind: backend.Internal, Op: "spool message", Err: w.err}
	}
	return nil
}

// spool remembers an error of writing, to tell it from one of reading.
type spool struct {
	w   io.Writer
	err error
}

func (s *spool) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.err = err
	return n, err
}

// onlyReader hides other methods from io.CopyBuffer, so that it uses its buffer.
type onlyReader struct{ io.Reader }
