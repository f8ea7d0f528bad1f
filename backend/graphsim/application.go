package graphsim

import (
	"strings"
	"time"
)

// application answers GET /applications(appId='{id}'): when the app's secrets and certificates end. Graph: application-get.
func (c *call) application(seg []string) (*reply, *apiError) {
	if !c.token.any([]string{"Application.Read.All", "Application.ReadWrite.All"}) {
		return nil, fail(403, "Authorization_RequestDenied", "Insufficient privileges to complete the operation.")
	}
	if c.method != "GET" {
		return nil, errMethod()
	}
	if len(seg) != 1 {
		return nil, errBadRequest("Resource not found for the segment '%s'.", seg[len(seg)-1])
	}
	id := strings.TrimSuffix(strings.TrimPrefix(seg[0], "applications(appId='"), "')")
	a := c.token.app.tenant.apps[strings.ToLower(id)]
	if a == nil {
		return nil, fail(404, "Request_ResourceNotFound", "Resource '%s' does not exist or one of its queried reference-property objects are not present.", id)
	}
	passwords, keys := []object{}, []object{}
	for _, s := range a.secrets {
		row := object{{"keyId", newGUID()}, {"hint", s.value[:min(3, len(s.value))]}, {"secretText", nil}}
		if !s.expires.IsZero() {
			row = append(row, property{"endDateTime", s.expires.UTC().Format(time.RFC3339)})
		}
		passwords = append(passwords, row)
	}
	return jsonReply(200, object{{"appId", a.clientID}, {"passwordCredentials", passwords}, {"keyCredentials", keys}}), nil
}
