package graphsim

import "strings"

// directory answers GET /users and /users/{x}: not mail calls, with their own permission.
func (c *call) directory(seg []string) (*reply, *apiError) {
	if !c.token.any([]string{"User.Read.All", "User.ReadWrite.All", "Directory.Read.All"}) {
		return nil, fail(403, "Authorization_RequestDenied", "Insufficient privileges to complete the operation.")
	}
	if c.method != "GET" {
		return nil, errMethod()
	}
	row := func(b *mailbox) object {
		return object{
			{"businessPhones", []string{}}, {"displayName", b.user.DisplayName}, {"mail", b.user.UPN},
			{"userPrincipalName", b.user.UPN}, {"id", b.user.ID},
		}
	}
	t := c.token.app.tenant
	if len(seg) == 1 {
		b := t.users[strings.ToLower(seg[0])]
		if b == nil || !strings.EqualFold(seg[0], b.user.ID) && !strings.EqualFold(seg[0], b.user.UPN) {
			return nil, fail(404, "Request_ResourceNotFound", "Resource '%s' does not exist or one of its queried reference-property objects are not present.", seg[0])
		}
		return jsonReply(200, append(object{{"@odata.context", c.base + "/v1.0/$metadata#users/$entity"}}, row(b)...)), nil
	}
	rows := []object{}
	for _, b := range c.sim.boxes {
		if b.tenant == t {
			rows = append(rows, row(b))
		}
	}
	return jsonReply(200, object{{"@odata.context", c.base + "/v1.0/$metadata#users"}, {"value", rows}}), nil
}
