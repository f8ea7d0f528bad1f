package imapd

import (
	"strings"

	"github.com/emersion/go-imap/v2"

	"postern/backend"
	"postern/imapd/wire"
)

// delimiter separates the levels of a name.
const delimiter = "/"

// sharedRoot is where the mailboxes of other accounts are shown, each below its
// address: Shared/info@contoso.example/INBOX.
const sharedRoot = "Shared"

// locate returns the account that a mailbox name belongs to, and its name there,
// which is "" for the level above an account's mailboxes.
func (s *session) locate(name string) (*backend.Account, string) {
	if rest, ok := strings.CutPrefix(name, sharedRoot+delimiter); ok {
		address, inner, _ := strings.Cut(rest, delimiter)
		for _, a := range s.login.Shared {
			if strings.EqualFold(a.Address(), address) {
				return a, wire.CanonicalName(inner)
			}
		}
	}
	return s.login.Account, name
}

// nameOf is the inverse of locate.
func (s *session) nameOf(a *backend.Account, inner string) string {
	if a == s.login.Account {
		return inner
	}
	name := sharedRoot + delimiter + a.Address()
	if inner != "" {
		name += delimiter + inner
	}
	return name
}

// existing is locate for a name that must be one of a mailbox.
func (s *session) existing(name string) (*backend.Account, string, error) {
	account, inner := s.locate(name)
	if inner == "" {
		return nil, "", no(imap.ResponseCodeNonExistent, "No such mailbox")
	}
	return account, inner, nil
}

// creatable is locate for a name that is to be given to a mailbox.
func (s *session) creatable(name string) (*backend.Account, string, error) {
	account, inner := s.locate(name)
	if inner == "" || strings.HasPrefix(inner, delimiter) || strings.HasSuffix(inner, delimiter) ||
		strings.Contains(inner, delimiter+delimiter) {
		return nil, "", no(imap.ResponseCodeCannot, "Not a possible mailbox name")
	}
	if account == s.login.Account && len(s.login.Shared) > 0 &&
		(name == sharedRoot || strings.HasPrefix(name, sharedRoot+delimiter)) {
		return nil, "", no(imap.ResponseCodeCannot, "Only shared mailboxes are below "+sharedRoot)
	}
	return account, inner, nil
}

// accounts returns the login's own account and the shared ones.
func (s *session) accounts() []*backend.Account {
	return append([]*backend.Account{s.login.Account}, s.login.Shared...)
}
