package imapd

import (
	"context"
	"strings"

	"github.com/emersion/go-imap/v2"

	"postern/backend"
)

// selectMailbox is SELECT. RFC 3501 section 6.3.1.
func (s *session) selectMailbox(c *command) error { return s.open(c, s.login.ReadOnly) }

// examine is EXAMINE. RFC 3501 section 6.3.2.
func (s *session) examine(c *command) error { return s.open(c, true) }

func (s *session) open(c *command, readOnly bool) error {
	s.dec.Space()
	name := s.dec.Mailbox()
	var resync *resync
	if s.dec.TrySpace() {
		resync = s.parseSelectParameters()
	}
	if err := s.dec.End(); err != nil {
		return err
	}
	// The mailbox selected before is left even if the new one cannot be opened.
	if s.view != nil {
		s.closeView()
		s.untagged("CLOSED", "Previous mailbox closed")
	}
	account, inner, err := s.existing(name)
	if err != nil {
		return err
	}
	var v *view
	recent := 0
	err = s.wait(func(ctx context.Context) error {
		mbox, err := account.Open(ctx, inner, readOnly)
		if err != nil {
			return err
		}
		if v, err = newView(ctx, account, name, mbox, s.enabled.rev2); err != nil {
			mbox.Close()
			return err
		}
		if readOnly && !s.enabled.rev2 {
			st, err := account.Status(ctx, inner)
			if err != nil {
				mbox.Close()
				return err
			}
			recent = st.Recent
		}
		return nil
	})
	if err != nil {
		return err
	}
	if n := min(recent, v.len()); n > 0 {
		// What is \Recent stays so for the next who may change the mailbox.
		v.addRecent(v.uids[v.len()-n], v.uids)
	}
	s.view, s.state = v, imap.ConnStateSelected

	v.newKeywords()
	s.tellFlagNames()
	s.enc.Raw("* ").Num(uint64(v.len())).Raw(" EXISTS").CRLF()
	if s.enabled.rev2 {
		s.tellName(v.mbox.Name(), account, inner)
	} else {
		s.enc.Raw("* ").Num(uint64(v.recentCount)).Raw(" RECENT").CRLF()
		if seq := v.firstUnseen(); seq > 0 {
			s.enc.Raw("* OK [UNSEEN ").Num(uint64(seq)).Raw("] First unseen message").CRLF()
		}
	}
	s.enc.Raw("* OK [UIDVALIDITY ").Num(uint64(v.mbox.UIDValidity())).Raw("] UIDs valid").CRLF()
	s.enc.Raw("* OK [UIDNEXT ").Num(uint64(v.uidNext())).Raw("] Predicted next UID").CRLF()
	s.enc.Raw("* OK [MAILBOXID (").Raw(v.mbox.ID()).Raw(")] Stays when the mailbox is renamed").CRLF()
	s.tellHighestModSeq()
	if resync != nil && resync.uidValidity == v.mbox.UIDValidity() {
		if err := s.resync(resync); err != nil {
			return err
		}
	}
	if v.mbox.ReadOnly() {
		c.done("READ-ONLY", c.name+" completed")
	} else {
		c.done("READ-WRITE", c.name+" completed")
	}
	return nil
}

// tellName is the LIST response of IMAP4rev2's SELECT, which says under which name
// the mailbox goes if that is not the one it was asked for by. RFC 9051 section 6.3.2.
func (s *session) tellName(now string, account *backend.Account, asked string) {
	s.enc.Raw(`* LIST () "` + delimiter + `" `).Mailbox(s.nameOf(account, now))
	if now != asked {
		s.enc.Raw(` ("OLDNAME" (`).Mailbox(s.nameOf(account, asked)).Raw("))")
	}
	s.enc.CRLF()
}

// uidNext returns the next UID as of the view. A message that came since is
// announced with the next response and has a larger one.
func (v *view) uidNext() imap.UID {
	next := v.mbox.UIDNext()
	if n := len(v.uids); n > 0 {
		next = max(next, v.uids[n-1]+1)
	}
	return max(next, 1)
}

// firstUnseen returns the sequence number of the first message without \Seen, or 0.
func (v *view) firstUnseen() uint32 {
	uid, ok := v.mbox.FirstUnseen()
	if !ok {
		return 0
	}
	seq, ok := v.seq(uid)
	if !ok {
		return 0 // it has come since, and all before it are seen
	}
	return seq
}

// systemFlags are those that every mailbox has.
const systemFlags = `\Answered \Flagged \Deleted \Seen \Draft`

// tellFlagNames tells the flags in use, and which of them the client can change
// for good. RFC 3501 section 7.2.6.
func (s *session) tellFlagNames() {
	v := s.view
	var keywords strings.Builder
	for _, k := range v.keywordNames {
		keywords.WriteByte(' ')
		keywords.WriteString(string(k))
	}
	s.enc.Raw("* FLAGS (" + systemFlags).Raw(keywords.String()).Raw(")").CRLF()
	if v.mbox.ReadOnly() {
		s.enc.Raw("* OK [PERMANENTFLAGS ()] No flags can be changed").CRLF()
		return
	}
	s.enc.Raw("* OK [PERMANENTFLAGS (" + systemFlags).Raw(keywords.String()).Raw(` \*)] Flags that can be changed`).CRLF()
}
