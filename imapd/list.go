package imapd

import (
	"context"
	"strings"

	"github.com/emersion/go-imap/v2"

	"postern/backend"
	"postern/imapd/wire"
)

// maxPatterns is how many patterns one LIST may have.
const maxPatterns = 100

// listRequest is a LIST command. RFC 3501 section 6.3.8, RFC 5258, RFC 5819
// (STATUS), RFC 6154 (SPECIAL-USE).
type listRequest struct {
	extended  bool // selection or return options, or several patterns
	reference string
	raw       []string // patterns without the reference
	patterns  patterns

	selectSubscribed, selectRemote, selectSpecialUse, recursiveMatch bool
	returnSubscribed, returnChildren, returnSpecialUse               bool
	status                                                           *statusItems
}

// listEntry is one line of an answer to LIST.
type listEntry struct {
	name        string
	account     *backend.Account // nil for a name that is only a level
	inner       string
	selectable  bool
	exists      bool
	hasChildren bool
	subscribed  bool
	role        imap.MailboxAttr
	childInfo   bool // something below it is subscribed and not listed itself
}

// list is LIST.
func (s *session) list(*command) error {
	req := s.parseList()
	if err := s.dec.End(); err != nil {
		return err
	}
	if !req.extended && req.raw[0] == "" {
		// A question for the delimiter and the root of the reference.
		s.enc.Raw(`* LIST (\Noselect) "` + delimiter + `" ""`).CRLF()
		return nil
	}
	if req.status != nil && req.status.modSeq {
		s.enableCondstore()
	}
	entries, err := s.listEntries(req.selectSubscribed || req.returnSubscribed)
	if err != nil {
		return err
	}
	for i := range entries {
		e := &entries[i]
		if !req.wants(e) {
			continue
		}
		if req.recursiveMatch {
			req.noteChildren(e, entries)
		}
		if req.selectSubscribed && !e.subscribed && !e.childInfo {
			continue
		}
		s.writeListEntry(req, e)
		if req.status != nil && e.exists && e.selectable {
			if err := s.listStatus(req, e); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *session) parseList() *listRequest {
	d, req := s.dec, &listRequest{}
	d.Space()
	if d.Peek() == '(' {
		req.extended = true
		d.List(func() {
			switch opt := d.Word(); opt {
			case "SUBSCRIBED":
				req.selectSubscribed = true
			case "REMOTE":
				req.selectRemote = true
			case "SPECIAL-USE":
				req.selectSpecialUse = true
			case "RECURSIVEMATCH":
				req.recursiveMatch = true
			default:
				d.Fail(bad("Unknown LIST selection option"))
			}
		})
		// RFC 5258 section 3.1: it needs something to match.
		if req.recursiveMatch && !req.selectSubscribed && !req.selectSpecialUse {
			d.Fail(bad("RECURSIVEMATCH needs another selection option"))
		}
		d.Space()
	}
	req.reference = d.Reference()
	d.Space()
	if d.Peek() == '(' {
		req.extended = true
		d.List(func() {
			if req.raw = append(req.raw, d.MailboxPattern()); len(req.raw) > maxPatterns {
				d.Fail(&wire.LimitError{Text: "too many patterns"})
			}
		})
		if len(req.raw) == 0 {
			d.Fail(bad("LIST needs a pattern"))
		}
	} else {
		req.raw = []string{d.MailboxPattern()}
	}
	if d.TrySpace() {
		req.extended = true
		if d.Word() != "RETURN" {
			d.Fail(bad("RETURN expected"))
		}
		d.Space()
		d.List(func() {
			switch opt := d.Word(); opt {
			case "SUBSCRIBED":
				req.returnSubscribed = true
			case "CHILDREN":
				req.returnChildren = true
			case "SPECIAL-USE":
				req.returnSpecialUse = true
			case "STATUS":
				d.Space()
				req.status = s.parseStatusItems()
			default:
				d.Fail(bad("Unknown LIST return option"))
			}
		})
	}
	for _, p := range req.raw {
		req.patterns = append(req.patterns, newPattern(req.reference+p))
	}
	if req.selectSubscribed {
		req.returnSubscribed = true // RFC 5258 section 3.1
	}
	return req
}

// wants reports whether the entry is selected, subscriptions aside.
func (req *listRequest) wants(e *listEntry) bool {
	if !req.patterns.match(e.name) {
		return false
	}
	if req.selectSpecialUse && e.role == "" {
		return false
	}
	return e.exists || req.selectSubscribed
}

// noteChildren finds whether something below e is subscribed and is not listed
// by itself. RFC 5258 section 3.5.
func (req *listRequest) noteChildren(e *listEntry, entries []listEntry) {
	for i := range entries {
		c := &entries[i]
		if c.subscribed && strings.HasPrefix(c.name, e.name+delimiter) && !req.patterns.match(c.name) {
			e.childInfo = true
			return
		}
	}
}

func (s *session) writeListEntry(req *listRequest, e *listEntry) {
	s.enc.Raw("* LIST (")
	first := true
	attr := func(a imap.MailboxAttr) {
		if !first {
			s.enc.SP()
		}
		first = false
		s.enc.Raw(string(a))
	}
	switch {
	case !e.exists:
		attr(imap.MailboxAttrNonExistent) // implies \Noselect
	case !e.selectable:
		attr(imap.MailboxAttrNoSelect)
	}
	if e.exists {
		// Plain LIST says this too, as RFC 3348 has it and clients expect it.
		if e.hasChildren {
			attr(imap.MailboxAttrHasChildren)
		} else {
			attr(imap.MailboxAttrHasNoChildren)
		}
	}
	if req.returnSubscribed && e.subscribed {
		attr(imap.MailboxAttrSubscribed)
	}
	if e.role != "" {
		attr(e.role) // RFC 6154 section 2 allows it unasked, and clients rely on it
	}
	s.enc.Raw(`) "` + delimiter + `" `).Mailbox(e.name)
	if e.childInfo {
		s.enc.Raw(` ("CHILDINFO" ("SUBSCRIBED"))`)
	}
	s.enc.CRLF()
}

// listStatus answers the STATUS of RFC 5819. Where that fails LIST goes on
// without it, unless nothing works any more.
func (s *session) listStatus(req *listRequest, e *listEntry) error {
	st, err := s.mailboxStatus(e.account, e.inner, req.status)
	if err == nil {
		s.writeStatus(e.name, req.status, st)
		return nil
	}
	if s.ctx.Err() != nil {
		return err
	}
	switch backend.KindOf(err) {
	case backend.SignInNeeded, backend.Unavailable:
		return err
	}
	return nil
}

// listEntries returns everything that LIST may show: the mailboxes of the
// login's accounts, the levels above shared ones, and, if asked for,
// subscriptions that have no mailbox.
func (s *session) listEntries(subscriptions bool) ([]listEntry, error) {
	var entries []listEntry
	known := make(map[string]bool)
	for _, account := range s.accounts() {
		var boxes []backend.MailboxInfo
		var subscribed []string
		err := s.listAccount(account, subscriptions, &boxes, &subscribed)
		if err != nil {
			if account == s.login.Account || s.ctx.Err() != nil {
				return nil, err
			}
			// One shared mailbox that cannot be reached must not hide the others.
			s.log.Warn("list shared mailbox", "mailbox", account.Address(), "err", err)
			continue
		}
		if account != s.login.Account {
			if !known[sharedRoot] {
				known[sharedRoot] = true
				entries = append(entries, listEntry{name: sharedRoot, exists: true, hasChildren: true})
			}
			entries = append(entries, listEntry{name: s.nameOf(account, ""), exists: true, hasChildren: len(boxes) > 0})
		}
		for _, b := range boxes {
			name := s.nameOf(account, b.Name)
			known[name] = true
			entries = append(entries, listEntry{
				name:        name,
				account:     account,
				inner:       b.Name,
				selectable:  b.Selectable,
				exists:      true,
				hasChildren: b.HasChildren,
				subscribed:  b.Subscribed,
				role:        s.roleShown(account, b.Role),
			})
		}
		for _, inner := range subscribed {
			if name := s.nameOf(account, inner); !known[name] {
				known[name] = true
				entries = append(entries, listEntry{name: name, account: account, inner: inner, subscribed: true})
			}
		}
	}
	return entries, nil
}

// roleShown hides the roles of shared mailboxes: a client would otherwise find
// two \Sent and may take the wrong one.
func (s *session) roleShown(account *backend.Account, role imap.MailboxAttr) imap.MailboxAttr {
	if account != s.login.Account {
		return ""
	}
	return role
}

func (s *session) listAccount(account *backend.Account, subscriptions bool, boxes *[]backend.MailboxInfo, subscribed *[]string) error {
	return s.wait(func(ctx context.Context) (err error) {
		if *boxes, err = account.Mailboxes(ctx); err == nil && subscriptions {
			*subscribed, err = account.Subscriptions(ctx)
		}
		return err
	})
}
