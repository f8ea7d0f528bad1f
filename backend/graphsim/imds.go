package graphsim

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// imdsPath is where a virtual machine asks for tokens of its managed identity. Entra: how-to-use-vm-token.
const imdsPath = "/metadata/identity/oauth2/token"

// appServicePath is where an app service asks. On Azure the address is a random port of the machine.
const (
	appServicePath   = "/msi/token"
	AppServiceHeader = "simulated-identity-header" // the value of IDENTITY_HEADER
)

// AddManagedIdentity lets imdsPath give out tokens of an app. It panics when the app does not exist.
func (s *Sim) AddManagedIdentity(tenantID, clientID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.identities = append(s.identities, s.mustApp(tenantID, clientID))
}

// serveIdentity answers GET /metadata/identity/oauth2/token; all values of the answer are strings.
func (s *Sim) serveIdentity(w http.ResponseWriter, r *http.Request) {
	requestID := newGUID()
	c := &call{sim: s, ctx: r.Context(), method: r.Method, path: r.URL.Path, rawQuery: r.URL.RawQuery, header: r.Header,
		requestID: requestID, clientID: requestID, start: s.now(), template: r.URL.Path}
	p := s.withFaults(c, func() *reply { return s.identityReply(r) })
	s.record(c, p.status)
	if p.ends != nil {
		p.ends(w)
		return
	}
	p.write(w, requestID, requestID)
}

func (s *Sim) identityReply(r *http.Request) *reply {
	refuse := func(status int, name, text string) *reply {
		return jsonReply(status, object{{"error", name}, {"error_description", text}})
	}
	q := r.URL.Query()
	switch {
	case r.Method != http.MethodGet:
		return refuse(405, "bad_request", "Method not allowed.")
	case r.URL.Path == appServicePath && r.Header.Get("X-Identity-Header") != AppServiceHeader:
		return refuse(403, "invalid_request", "The identity header is missing or wrong.")
	case r.URL.Path == appServicePath && q.Get("api-version") != "2019-08-01":
		return refuse(400, "invalid_request", "The api-version is not supported.")
	case r.URL.Path == imdsPath && !strings.EqualFold(r.Header.Get("Metadata"), "true"):
		return refuse(400, "bad_request_102", "Required metadata header not specified")
	case q.Get("api-version") == "":
		return refuse(400, "invalid_request", "Required query variable 'api-version' is missing")
	case strings.TrimRight(q.Get("resource"), "/") != "https://graph.microsoft.com":
		return refuse(400, "invalid_resource", "AADSTS500011: The resource principal named "+q.Get("resource")+" was not found in the tenant.")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var found *app
	for _, a := range s.identities {
		if id := q.Get("client_id"); id == "" && len(s.identities) == 1 || strings.EqualFold(id, a.clientID) {
			found = a
		}
	}
	if found == nil {
		return refuse(400, "invalid_request", "Identity not found")
	}
	raw := s.mintLocked(found)
	now := s.now()
	if r.URL.Path == appServicePath {
		return jsonReply(200, object{
			{"access_token", raw}, {"client_id", found.clientID}, {"expires_on", strconv.FormatInt(now.Add(s.opts.TokenLifetime).Unix(), 10)},
			{"resource", q.Get("resource")}, {"token_type", "Bearer"},
		})
	}
	return jsonReply(200, object{
		{"access_token", raw}, {"client_id", found.clientID}, {"expires_in", strconv.Itoa(int(s.opts.TokenLifetime / time.Second))},
		{"expires_on", strconv.FormatInt(now.Add(s.opts.TokenLifetime).Unix(), 10)}, {"not_before", strconv.FormatInt(now.Unix(), 10)},
		{"refresh_token", ""}, {"resource", q.Get("resource")}, {"token_type", "Bearer"},
	})
}
