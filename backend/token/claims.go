package token

import (
	"encoding/base64"
	"encoding/json"
	"strings"
)

// Claims is what of an access token is worth looking at. A token is opaque to everything but diagnosis: it may name no
// permission and have them all the same, as with RBAC for Applications.
type Claims struct {
	Roles  []string `json:"roles"` // application permissions
	Scopes string   `json:"scp"`   // delegated ones, between blanks
	User   string   `json:"upn"`   // who has signed in
}

// ReadClaims looks into an access token. ok is false where it cannot be looked into.
func ReadClaims(accessToken string) (c Claims, ok bool) {
	parts := strings.Split(accessToken, ".")
	if len(parts) != 3 {
		return c, false
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	return c, err == nil && json.Unmarshal(b, &c) == nil
}

// Permissions returns the permissions the token names.
func (c Claims) Permissions() []string { return append(strings.Fields(c.Scopes), c.Roles...) }
