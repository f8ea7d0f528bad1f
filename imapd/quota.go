package imapd

import (
	"context"

	"github.com/emersion/go-imap/v2"

	"postern/backend"
)

func init() {
	commands["GETQUOTA"] = commandSpec{run: (*session).getQuota, in: inLogged}
	commands["GETQUOTAROOT"] = commandSpec{run: (*session).getQuotaRoot, in: inLogged}
	commands["SETQUOTA"] = commandSpec{run: (*session).setQuota, in: inLogged}
}

// quotaUnit is what STORAGE counts in. RFC 9208 section 5.1.
const quotaUnit = 1024

// getQuota is GETQUOTA. RFC 9208 section 4.1.1. Each account is one quota root, called by its address.
func (s *session) getQuota(*command) error {
	s.dec.Space()
	root := s.dec.AString()
	if err := s.dec.End(); err != nil {
		return err
	}
	for _, a := range s.accounts() {
		if a.Address() == root {
			return s.tellQuota(a)
		}
	}
	return no(imap.ResponseCodeNonExistent, "No such quota root")
}

// getQuotaRoot is GETQUOTAROOT. RFC 9208 section 4.1.2.
func (s *session) getQuotaRoot(*command) error {
	s.dec.Space()
	name := s.dec.Mailbox()
	if err := s.dec.End(); err != nil {
		return err
	}
	account, inner, err := s.existing(name)
	if err != nil {
		return err
	}
	var boxes []backend.MailboxInfo
	err = s.wait(func(ctx context.Context) (err error) {
		boxes, err = account.Mailboxes(ctx)
		return err
	})
	if err != nil {
		return err
	}
	for i := range boxes {
		if boxes[i].Name == inner {
			s.enc.Raw("* QUOTAROOT ").Mailbox(name).SP().String(account.Address()).CRLF()
			return s.tellQuota(account)
		}
	}
	return no(imap.ResponseCodeNonExistent, "No such mailbox")
}

// tellQuota writes the resources of an account that have a limit: storage, if it is known.
func (s *session) tellQuota(a *backend.Account) error {
	var q backend.Quota
	err := s.wait(func(ctx context.Context) (err error) {
		q, err = a.Quota(ctx)
		return err
	})
	if err != nil {
		return err
	}
	s.enc.Raw("* QUOTA ").String(a.Address()).Raw(" (")
	if q.Limit > 0 {
		s.enc.Raw("STORAGE ").Num(uint64((max(q.Used, 0) + quotaUnit - 1) / quotaUnit)).SP().Num(uint64(q.Limit / quotaUnit))
	}
	s.enc.Raw(")").CRLF()
	return nil
}

// setQuota is SETQUOTA, which nobody may: QUOTASET is not among the capabilities.
func (s *session) setQuota(*command) error {
	d := s.dec
	d.Space()
	d.AString()
	d.Space()
	d.List(func() {
		d.Word()
		d.Space()
		d.Number64()
	})
	if err := d.End(); err != nil {
		return err
	}
	return no(imap.ResponseCodeNoPerm, "Quotas are set in Microsoft 365")
}
