package backend

import (
	"context"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend/message"
	"postern/backend/syncer"
)

// AppendItem is one message of several that are appended together.
type AppendItem struct {
	Flags   []imap.Flag
	Date    time.Time // INTERNALDATE; zero: now
	Message *NewMessage
}

// AppendMany appends messages to the mailbox called name, all or none. Everything else is as with Append; the UIDs
// are in the order of items, which need not be ascending where one of them was in the mailbox already.
func (a *Account) AppendMany(ctx context.Context, name string, items []AppendItem) (uidValidity uint32, uids []imap.UID, err error) {
	const op = "append messages"
	for _, it := range items {
		if err := it.Message.appendable(op); err != nil {
			return 0, nil, err
		}
	}
	row, err := a.filled(ctx, name)
	if err != nil {
		return 0, nil, translate(op, err)
	}
	now := time.Now()
	ins := make([]syncer.Incoming, len(items))
	for i, it := range items {
		it.Message.used = true
		date := it.Date
		if date.IsZero() {
			date = now
		}
		bits, keywords := splitFlags(it.Flags, nil)
		ins[i] = syncer.Incoming{Body: it.Message.w, Flags: bits, Keywords: keywords, Date: date.UTC().Truncate(time.Second)}
	}
	uids, err = a.syncer.AppendMany(ctx, row.ID, ins)
	if err != nil {
		return 0, nil, translate(op, err)
	}
	return row.UIDValidity, uids, nil
}

// EncodeBinary makes the message one that can be stored: parts with Content-Transfer-Encoding binary, which a
// literal8 may hold (RFC 3516 section 4.4), are encoded in base64. Kind Refused if a NUL is left elsewhere. m is to be
// used as before, with another size.
func (m *NewMessage) EncodeBinary() error {
	const op = "append message"
	if m.err != nil {
		return m.err
	}
	body, err := m.w.Open()
	if err != nil {
		return translate(op, err)
	}
	defer body.Close()
	ix, err := message.Parse(body, body.Size())
	if err != nil {
		return translate(op, err)
	}
	w, err := m.newWriter()
	if err != nil {
		return translate(op, err)
	}
	out := &NewMessage{w: w, max: m.max, newWriter: m.newWriter}
	err = message.EncodeBinary(out, body, ix)
	if err == message.ErrNUL {
		err = &Error{Kind: Refused, Op: op, Err: err, Text: "the message holds a NUL outside of a binary part"}
	}
	if err != nil {
		w.Abort()
		return translate(op, err)
	}
	m.w.Abort()
	m.w, m.size, m.err = out.w, out.size, out.err
	return nil
}
