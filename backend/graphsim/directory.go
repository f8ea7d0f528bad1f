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
		out := row(b)
		if strings.Contains(strings.ToLower(c.rawQuery), "proxyaddresses") {
			// Only when it is asked for. X500 and others are among them in the service, too.
			addrs := []string{"X500:/o=ExchangeLabs/ou=Exchange Administrative Group/cn=Recipients/cn=" + b.user.ID, "SMTP:" + b.user.UPN}
			for _, a := range b.user.Aliases {
				addrs = append(addrs, "smtp:"+a)
			}
			out = append(out, object{{"proxyAddresses", addrs}}...)
		}
		return jsonReply(200, append(object{{"@odata.context", c.base + "/v1.0/$metadata#users/$entity"}}, out...)), nil
	}
	rows := []object{}
	for _, b := range c.sim.boxes {
		if b.tenant == t {
			rows = append(rows, row(b))
		}
	}
	return jsonReply(200, object{{"@odata.context", c.base + "/v1.0/$metadata#users"}, {"value", rows}}), nil
}
