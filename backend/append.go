package backend

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend/store"
	"postern/backend/syncer"
)

// NewMessage is a message on its way in: write its bytes, hand it to Append, discard it.
// Not safe for concurrent use.
type NewMessage struct {
	w    *store.BodyWriter
	max  int64
	size int64
	err  error
	used bool

	newWriter func() (*store.BodyWriter, error)
}

// NewMessage returns a spool for APPEND.
func (a *Account) NewMessage() (*NewMessage, error) {
	w, err := a.store.NewBody()
	if err != nil {
		return nil, translate("append message", err)
	}
	return &NewMessage{w: w, max: a.backend.config().MaxMessage, newWriter: a.store.NewBody}, nil
}

// Write adds bytes to the message. It fails with kind TooLarge at the configured limit.
func (m *NewMessage) Write(p []byte) (int, error) {
	if m.err != nil {
		return 0, m.err
	}
	if m.max > 0 && m.size+int64(len(p)) > m.max {
		m.err = &Error{Kind: TooLarge, Op: "append message", Text: "the message is larger than this server takes"}
		return 0, m.err
	}
	n, err := m.w.Write(p)
	m.size += int64(n)
	if err != nil {
		m.err = translate("append message", err)
	}
	return n, m.err
}

// Size returns the number of bytes written.
func (m *NewMessage) Size() int64 { return m.size }

// Discard frees the spool. It may be called more than once, and must be called also after Append.
func (m *NewMessage) Discard() { m.w.Abort() }

// appendable returns why the message cannot be appended, nil if it can.
func (m *NewMessage) appendable(op string) error {
	switch {
	case m.err != nil:
		return m.err
	case m.used:
		return &Error{Kind: Internal, Op: op, Err: errors.New("the same message again")}
	case m.size == 0:
		return &Error{Kind: Refused, Op: op, Text: "the message is empty"}
	}
	return nil
}

// Append puts m into the mailbox called name, with date as INTERNALDATE (zero: now). m can be appended once and stays
// the caller's to discard.
//
// The uid is 0, without an error, for the copy of a message that Postern is still sending: Exchange itself will put that
// into Sent Items. On an error nothing has been appended.
func (a *Account) Append(ctx context.Context, name string, flags []imap.Flag, date time.Time, m *NewMessage) (uidValidity uint32, uid imap.UID, err error) {
	const op = "append message"
	if err := m.appendable(op); err != nil {
		return 0, 0, err
	}
	row, err := a.filled(ctx, name)
	if err != nil {
		return 0, 0, translate(op, err)
	}
	if date.IsZero() {
		date = time.Now()
	}
	m.used = true
	bits, keywords := splitFlags(flags, nil)
	uid, err = a.syncer.Append(ctx, row.ID, syncer.Incoming{
		Body: m.w, Flags: bits, Keywords: keywords, Date: date.UTC().Truncate(time.Second),
	})
	if err != nil {
		return 0, 0, translate(op, err)
	}
	return row.UIDValidity, uid, nil
}

// Deliver appends a message that Postern itself wrote, such as a failure notice. open is called once.
func (a *Account) Deliver(ctx context.Context, name string, flags []imap.Flag, date time.Time, open func() (io.ReadCloser, error), size int64) (imap.UID, error) {
	m, err := a.NewMessage()
	if err != nil {
		return 0, err
	}
	defer m.Discard()
	r, err := open()
	if err != nil {
		return 0, translate("deliver notice", err)
	}
	n, err := io.Copy(m, r)
	_ = r.Close()
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return 0, translate("deliver notice", err)
	}
	_, uid, err := a.Append(ctx, name, flags, date, m)
	return uid, err
}
