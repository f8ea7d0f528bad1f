package imapd

import (
	"context"

	"postern/backend"
)

// statusItems are the items of a STATUS command, in the order asked for.
type statusItems struct {
	names  []string
	modSeq bool // HIGHESTMODSEQ is among them

	deletedSize bool // DELETED-STORAGE is
}

// status is STATUS. RFC 3501 section 6.3.10, RFC 8438 (SIZE), RFC 9051 (DELETED),
// RFC 7162 (HIGHESTMODSEQ), RFC 7889 (APPENDLIMIT), RFC 9208 (DELETED-STORAGE).
func (s *session) status(*command) error {
	s.dec.Space()
	name := s.dec.Mailbox()
	s.dec.Space()
	items := s.parseStatusItems()
	if err := s.dec.End(); err != nil {
		return err
	}
	if items.modSeq {
		s.enableCondstore()
	}
	account, inner, err := s.existing(name)
	if err != nil {
		return err
	}
	st, err := s.mailboxStatus(account, inner, items)
	if err != nil {
		return err
	}
	s.writeStatus(name, items, st)
	return nil
}

func (s *session) parseStatusItems() *statusItems {
	items := &statusItems{}
	d := s.dec
	d.List(func() {
		item := d.Word()
		switch item {
		case "MESSAGES", "RECENT", "UIDNEXT", "UIDVALIDITY", "UNSEEN", "DELETED", "SIZE", "APPENDLIMIT", "MAILBOXID":
		case "HIGHESTMODSEQ":
			items.modSeq = true
		case "DELETED-STORAGE":
			items.deletedSize = true
		default:
			d.Fail(bad("Unknown STATUS item"))
		}
		if items.names = append(items.names, item); len(items.names) > 50 {
			d.Fail(bad("Too many STATUS items"))
		}
	})
	if len(items.names) == 0 {
		d.Fail(bad("STATUS needs an item"))
	}
	return items
}

// mailboxStatus is what is to be told of a mailbox.
type mailboxStatus struct {
	backend.Status
	deletedSize int64 // if asked for
}

func (s *session) mailboxStatus(account *backend.Account, inner string, items *statusItems) (st mailboxStatus, err error) {
	err = s.wait(func(ctx context.Context) (err error) {
		if st.Status, err = account.Status(ctx, inner); err == nil && items.deletedSize {
			st.deletedSize, err = account.DeletedSize(ctx, inner)
		}
		return err
	})
	return st, err
}

func (s *session) writeStatus(name string, items *statusItems, st mailboxStatus) {
	e := s.enc
	e.Raw("* STATUS ").Mailbox(name).Raw(" (")
	for i, item := range items.names {
		if i > 0 {
			e.SP()
		}
		e.Raw(item).SP()
		switch item {
		case "MESSAGES":
			e.Num(uint64(st.Messages))
		case "RECENT":
			e.Num(uint64(st.Recent))
		case "UIDNEXT":
			e.Num(uint64(st.UIDNext))
		case "MAILBOXID":
			e.Byte('(').Raw(st.ID).Byte(')')
		case "UIDVALIDITY":
			e.Num(uint64(st.UIDValidity))
		case "UNSEEN":
			e.Num(uint64(st.Unseen))
		case "DELETED":
			e.Num(uint64(st.Deleted))
		case "DELETED-STORAGE":
			e.Num(uint64(max(0, st.deletedSize)))
		case "SIZE":
			e.Num(uint64(max(0, st.Size)))
		case "HIGHESTMODSEQ":
			e.Num(st.HighestModSeq)
		case "APPENDLIMIT":
			e.Num(uint64(s.limits.Message))
		}
	}
	e.Raw(")").CRLF()
}
