package graphsim

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// tenant is a directory.
type tenant struct {
	id      string
	domains []string
	apps    map[string]*app
	users   map[string]*mailbox // by lower-case id, UPN and alias
}

// app is an app registration.
type app struct {
	tenant   *tenant
	clientID string
	secrets  []appSecret
	certs    []appCert
	issuers  []FederatedIssuer
	roles    []string
	// delegated permissions with consent for all users, and whether users may sign in without the app's secret.
	delegated []string
	public    bool
	// grants are roles from RBAC for Applications by lower-case mailbox id; the token does not show them.
	grants map[string][]string
	// blocked mailboxes by an application access policy, by lower-case id.
	blocked map[string]bool
}

type appSecret struct {
	value   string
	expires time.Time // zero: never
}

// accessToken is a token this Sim has issued.
type accessToken struct {
	app     *app
	user    *mailbox // who has signed in; nil for the app itself
	roles   []string // for a user: delegated permissions
	expires time.Time
}

// entraError is a refusal of the token endpoint. Entra: reference-error-codes.
type entraError struct {
	status int
	name   string
	code   int
	text   string
}

func entraFail(status int, name string, code int, format string, args ...any) *entraError {
	return &entraError{status, name, code, fmt.Sprintf(format, args...)}
}

// serveToken answers POST /{tenant}/oauth2/v2.0/token.
func (s *Sim) serveToken(w http.ResponseWriter, r *http.Request) {
	clientID := r.Header.Get("client-request-id")
	requestID := newGUID()
	if clientID == "" {
		clientID = requestID
	}
	c := &call{sim: s, ctx: r.Context(), method: r.Method, path: r.URL.EscapedPath(), header: r.Header,
		requestID: requestID, clientID: clientID, start: s.now(), template: "/{tenant}/oauth2/v2.0/token"}
	body, tooLarge, err := readBody(r, 1<<20)
	if err != nil || tooLarge {
		body = nil
	}
	c.body = body
	p := s.withFaults(c, func() *reply { return s.tokenReply(c, r) })
	s.record(c, p.status)
	if p.ends != nil {
		p.ends(w)
		return
	}
	p.write(w, requestID, clientID)
}

func (s *Sim) tokenReply(c *call, r *http.Request) *reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settleLocked()
	if form, err := url.ParseQuery(string(c.body)); err == nil && r.Method == http.MethodPost {
		if grant := form.Get("grant_type"); grant == deviceGrant || grant == "refresh_token" {
			return s.delegatedReply(c, r, form)
		}
	}
	raw, fail := s.issueLocked(c, r)
	if fail != nil {
		return c.entraFailure(fail)
	}
	life := int(s.opts.TokenLifetime / time.Second)
	p := jsonReply(200, object{{"token_type", "Bearer"}, {"expires_in", life}, {"ext_expires_in", life}, {"access_token", raw}})
	p.header.Set("Content-Type", "application/json; charset=utf-8")
	p.header.Set("Cache-Control", "no-store, no-cache")
	return p
}

func (c *call) entraFailure(e *entraError) *reply {
	now := c.sim.now().UTC()
	trace, at := newGUID(), now.Format("2006-01-02 15:04:05Z")
	o := object{
		{"error", e.name},
		{"error_description", fmt.Sprintf("AADSTS%d: %s Trace ID: %s Correlation ID: %s Timestamp: %s", e.code, e.text, trace, c.clientID, at)},
		{"error_codes", json.RawMessage(fmt.Sprintf("[%d]", e.code))},
		{"timestamp", at},
		{"trace_id", trace},
		{"correlation_id", c.clientID},
	}
	if e.code != 90002 {
		o = append(o, property{"error_uri", fmt.Sprintf("https://login.microsoftonline.com/error?code=%d", e.code)})
	}
	p := jsonReply(e.status, o)
	p.header.Set("Content-Type", "application/json; charset=utf-8")
	return p
}

// issueLocked checks a token request and makes the token.
func (s *Sim) issueLocked(c *call, r *http.Request) (string, *entraError) {
	if r.Method != http.MethodPost {
		return "", entraFail(400, "invalid_request", 900561, "The endpoint only accepts POST requests. Received a %s request.", r.Method)
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/x-www-form-urlencoded" {
		return "", entraFail(400, "invalid_request", 900144, "The request body must contain the following parameter: 'grant_type'.")
	}
	form, err := url.ParseQuery(string(c.body))
	if err != nil {
		return "", entraFail(400, "invalid_request", 900144, "The request body must contain the following parameter: 'grant_type'.")
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	grant := form.Get("grant_type")
	if grant == "" {
		return "", entraFail(400, "invalid_request", 900144, "The request body must contain the following parameter: 'grant_type'.")
	}
	if grant != "client_credentials" {
		return "", entraFail(400, "unsupported_grant_type", 70003, "The app requested an unsupported grant type '%s'.", grant)
	}
	switch strings.ToLower(name) {
	case "common", "consumers", "organizations":
		return "", entraFail(400, "invalid_request", 9001023, "The grant type is not supported over the /common or /consumers endpoints. Please use the /organizations or tenant-specific endpoint.")
	}
	id, secret := form.Get("client_id"), form.Get("client_secret")
	if user, pass, ok := r.BasicAuth(); ok {
		// RFC 6749 section 2.3.1: both are form-encoded first.
		if u, err := url.QueryUnescape(user); err == nil {
			user = u
		}
		if p, err := url.QueryUnescape(pass); err == nil {
			pass = p
		}
		if id == "" {
			id = user
		}
		if secret == "" {
			secret = pass
		}
	}
	if id == "" {
		return "", entraFail(400, "invalid_request", 900144, "The request body must contain the following parameter: 'client_id'.")
	}
	t := s.findTenant(name)
	if t == nil {
		return "", entraFail(400, "invalid_request", 90002, "Tenant '%s' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud.", name)
	}
	if fail := checkScope(form); fail != nil {
		return "", fail
	}
	a := t.apps[strings.ToLower(id)]
	if a == nil {
		return "", entraFail(400, "unauthorized_client", 700016, "Application with identifier '%s' was not found in the directory '%s'.", id, t.id)
	}
	switch {
	case form.Has("client_assertion"):
		if fail := s.checkAssertion(a, name, form, baseURL(r)); fail != nil {
			return "", fail
		}
	case secret == "":
		return "", entraFail(401, "invalid_client", 7000218, "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.")
	default:
		if fail := a.checkSecret(secret, s.now()); fail != nil {
			return "", fail
		}
	}
	return s.mintLocked(a), nil
}

func checkScope(form url.Values) *entraError {
	if !form.Has("scope") || strings.TrimSpace(form.Get("scope")) == "" {
		return entraFail(400, "invalid_request", 900144, "The request body must contain the following parameter: 'scope'.")
	}
	scopes := strings.Fields(form.Get("scope"))
	if len(scopes) != 1 || !strings.HasSuffix(scopes[0], "/.default") {
		code := 1002012
		if !strings.Contains(scopes[0], "/") {
			code = 70011
		}
		return entraFail(400, "invalid_scope", code, "The provided value for scope %s is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI).", form.Get("scope"))
	}
	switch resource := strings.TrimRight(strings.TrimSuffix(scopes[0], ".default"), "/"); resource {
	case "https://graph.microsoft.com", "https://graph.microsoft.us", "https://dod-graph.microsoft.us",
		"https://microsoftgraph.chinacloudapi.cn", "00000003-0000-0000-c000-000000000000":
		return nil
	default:
		return entraFail(400, "invalid_resource", 500011, "The resource principal named %s was not found in the tenant.", resource)
	}
}

// checkSecret tells a wrong secret from an expired one, as Entra does.
func (a *app) checkSecret(secret string, now time.Time) *entraError {
	for _, known := range a.secrets {
		if hmac.Equal([]byte(known.value), []byte(secret)) {
			if !known.expires.IsZero() && !now.Before(known.expires) {
				return entraFail(401, "invalid_client", 7000222, "The provided client secret keys for app '%s' are expired.", a.clientID)
			}
			return nil
		}
	}
	return entraFail(401, "invalid_client", 7000215, "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '%s'.", a.clientID)
}

// mintLocked makes a token. It looks like a JWT, for programs that show its roles, and is only good here.
func (s *Sim) mintLocked(a *app) string { return s.mintUserLocked(a, nil, a.roles) }

// mintUserLocked makes a token of an app, or of a user who has signed in to it.
func (s *Sim) mintUserLocked(a *app, user *mailbox, permissions []string) string {
	now := s.now()
	if len(s.tokens) > 10000 {
		for raw, t := range s.tokens {
			if now.After(t.expires) {
				delete(s.tokens, raw)
			}
		}
	}
	tok := &accessToken{app: a, user: user, roles: append([]string(nil), permissions...), expires: now.Add(s.opts.TokenLifetime)}
	claims := object{
		{"aud", "https://graph.microsoft.com"}, {"iss", "https://sts.windows.net/" + a.tenant.id + "/"},
		{"iat", now.Unix()}, {"nbf", now.Unix()}, {"exp", tok.expires.Unix()},
		{"appid", a.clientID}, {"tid", a.tenant.id}, {"uti", newGUID()}, {"ver", "1.0"},
	}
	if user != nil {
		claims = append(claims, property{"idtyp", "user"}, property{"upn", user.user.UPN}, property{"scp", strings.Join(tok.roles, " ")})
	} else {
		claims = append(claims, property{"idtyp", "app"})
	}
	if user == nil && len(tok.roles) > 0 {
		claims = append(claims, property{"roles", tok.roles})
	}
	enc := base64.RawURLEncoding
	signed := enc.EncodeToString([]byte(`{"typ":"JWT","alg":"RS256","kid":"simulated"}`)) + "." + enc.EncodeToString(claims.appendJSON(nil))
	mac := hmac.New(sha256.New, s.key[:])
	mac.Write([]byte(signed))
	raw := signed + "." + enc.EncodeToString(mac.Sum(nil))
	s.tokens[raw] = tok
	return raw
}

// Token makes an access token without the token endpoint, for tests of single calls.
// It panics when the tenant or the app does not exist.
func (s *Sim) Token(tenantID, clientID string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mintLocked(s.mustApp(tenantID, clientID))
}

// RevokeTokens makes every token issued so far expired.
func (s *Sim) RevokeTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tokens {
		t.expires = s.now().Add(-time.Second)
	}
}

func (s *Sim) findTenant(name string) *tenant {
	for _, t := range s.tenants {
		if strings.EqualFold(t.id, name) {
			return t
		}
		for _, d := range t.domains {
			if strings.EqualFold(d, name) {
				return t
			}
		}
	}
	return nil
}
