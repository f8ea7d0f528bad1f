package graphsim

import (
	"slices"
	"strings"
)

// Permissions of the mail calls. Graph: permissions-reference.
var (
	mayRead  = []string{"Mail.ReadWrite", "Mail.Read"}
	mayWrite = []string{"Mail.ReadWrite"}
	maySend  = []string{"Mail.Send"}
)

// authenticateLocked finds the token of a Graph call.
func (s *Sim) authenticateLocked(c *call) *apiError {
	header := c.header.Get("Authorization")
	scheme, raw, _ := strings.Cut(header, " ")
	if header == "" {
		return unauthorized("Access token is empty.")
	}
	if !strings.EqualFold(scheme, "Bearer") {
		return unauthorized("Access token validation failure. Invalid authorization scheme.")
	}
	tok := s.tokens[strings.TrimSpace(raw)]
	switch {
	case tok == nil && strings.Count(raw, ".") != 2:
		return unauthorized("IDX14100: JWT is not well formed, there are no dots (.).")
	case tok == nil:
		return unauthorized("Access token validation failure. Invalid audience.")
	case !s.now().Before(tok.expires):
		return unauthorized("Lifetime validation failed, the token is expired. Access token has expired or is not yet valid.")
	}
	c.token = tok
	return nil
}

func unauthorized(message string) *apiError {
	return fail(401, "InvalidAuthenticationToken", "%s", message).with("WWW-Authenticate",
		`Bearer realm="", authorization_uri="https://login.microsoftonline.com/common/oauth2/authorize", client_id="00000003-0000-0000-c000-000000000000"`)
}

// openMailbox finds the mailbox of {u} and checks that the app may use it for one of the roles.
func (c *call) openMailbox(user string, roles []string) *apiError {
	s := c.sim
	t := c.token.app.tenant
	b := t.users[strings.ToLower(user)]
	if b != nil && !s.opts.AliasLookup && !strings.EqualFold(user, b.user.ID) && !strings.EqualFold(user, b.user.UPN) {
		b = nil
	}
	if b == nil {
		if !c.token.any(roles) && len(c.token.app.grants) == 0 {
			return errAccessDenied()
		}
		if s.opts.UnknownUserCode == "ResourceNotFound" {
			return fail(404, "ResourceNotFound", "Resource could not be discovered.")
		}
		return fail(404, s.opts.UnknownUserCode, "The requested user '%s' is invalid.", user)
	}
	c.user = user
	c.mailboxID = b.user.UPN
	key := strings.ToLower(b.user.ID)
	if c.token.app.blocked[key] {
		return fail(403, "ErrorAccessDenied", "Access to OData is disabled.")
	}
	if u := c.token.user; u != nil {
		if !c.token.opensFor(b, roles) {
			return errAccessDenied()
		}
	} else if !c.token.any(roles) && !anyOf(c.token.app.grants[key], roles) {
		return errAccessDenied()
	}
	if b.user.NoMailbox {
		if s.opts.NoMailboxCode == "ResourceNotFound" {
			return fail(404, "ResourceNotFound", "Resource could not be discovered.")
		}
		return fail(404, s.opts.NoMailboxCode, "The mailbox is either inactive, soft-deleted, or is hosted on-premise.")
	}
	c.box = b
	return nil
}

func (t *accessToken) any(roles []string) bool { return anyOf(t.roles, roles) }

func anyOf(have, want []string) bool {
	for _, w := range want {
		if slices.Contains(have, w) {
			return true
		}
	}
	return false
}
