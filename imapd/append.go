package imapd

import (
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend"
	"postern/imapd/wire"
)

// append is APPEND. RFC 3501 section 6.3.11, RFC 4315 section 3 (APPENDUID), RFC
// 7889 (APPENDLIMIT). A message is taken only once the mailbox is known to exist
// and the size is right; one that comes unasked all the same is read past.
func (s *session) append(c *command) error {
	d := s.dec
	d.Space()
	name := d.Mailbox()
	d.Space()
	var flags []imap.Flag
	if d.Peek() == '(' {
		flags = d.FlagList()
		d.Space()
	}
	var date time.Time
	if d.Peek() == '"' {
		date = d.DateTime()
		d.Space()
	}
	lit := d.Literal()
	if err := d.Err(); err != nil {
		return err
	}
	if lit.Binary {
		return bad("Binary literals are not supported")
	}
	for i := 0; i < len(flags); i++ {
		if strings.HasPrefix(string(flags[i]), `\`) && !isSystemFlag(flags[i]) {
			return bad("Not a flag that can be set")
		}
	}
	if err := s.mayWrite(); err != nil {
		return err
	}
	account, inner := s.locate(name)
	if err := s.canAppend(account, inner, lit.Size); err != nil {
		return err
	}

	msg, err := account.NewMessage()
	if err != nil {
		return err
	}
	defer msg.Discard()
	if err := receive(lit, msg); err != nil {
		return err
	}
	if err := lit.Close(); err != nil {
		return err
	}
	if d.TrySpace() {
		return bad("One message at a time")
	}
	if err := d.End(); err != nil {
		return err
	}
	var validity uint32
	var uid imap.UID
	err = s.wait(func(ctx context.Context) (err error) {
		validity, uid, err = account.Append(ctx, inner, flags, date, msg)
		return err
	})
	if err != nil {
		return tryCreate(err)
	}
	if uid != 0 {
		c.done("APPENDUID "+strconv.FormatUint(uint64(validity), 10)+" "+strconv.FormatUint(uint64(uid), 10), "APPEND completed")
	}
	return nil
}

// canAppend refuses what need not be received at all.
func (s *session) canAppend(account *backend.Account, inner string, size int64) error {
	if size > s.limits.Message {
		return no(imap.ResponseCodeTooBig, "Message is larger than "+strconv.FormatInt(s.limits.Message, 10)+" bytes")
	}
	if size == 0 {
		return no(imap.ResponseCodeCannot, "Message is empty")
	}
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
