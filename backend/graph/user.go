package graph

import (
	"context"
	"fmt"
	"net/http"
	"strings"
)

// Addresses returns all SMTP addresses of the mailbox, the primary one first. It needs User.Read.All, or another right to
// read the directory; an app without it is denied (IsDenied). Graph: user-get.
func (c *Client) Addresses(ctx context.Context) ([]string, error) {
	const op = "read addresses"
	var user struct {
		ProxyAddresses []string `json:"proxyAddresses"`
	}
	err := c.do(ctx, call{op: op, kind: "user", method: http.MethodGet, url: c.address("?$select=proxyAddresses"), repeat: repeatAlways},
		func(resp *http.Response) error { return readJSON(resp, &user) })
	if err != nil {
		return nil, err
	}
	var out []string
	for _, p := range user.ProxyAddresses {
		// "SMTP:" marks the primary address, "smtp:" the others; X500, SIP and so on are no mail addresses.
		scheme, addr, ok := strings.Cut(p, ":")
		if !ok || !strings.EqualFold(scheme, "smtp") || addr == "" {
			continue
		}
		if scheme == "SMTP" {
			out = append([]string{addr}, out...)
		} else {
			out = append(out, addr)
		}
	}
	if len(user.ProxyAddresses) > 0 && len(out) == 0 {
		return nil, fmt.Errorf("%s: the mailbox has no SMTP address", op)
	}
	return out, nil
}
