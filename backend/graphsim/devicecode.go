package graphsim

import (
	"encoding/base32"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// deviceGrant is the grant type of RFC 8628 section 3.4.
const deviceGrant = "urn:ietf:params:oauth:grant-type:device_code"

// deviceCode is a sign-in that somebody has begun.
type deviceCode struct {
	app      *app
	user     *mailbox // who has approved it
	declined bool
	userCode string
	scopes   []string
	expires  time.Time
	polled   time.Time
}

// refreshToken is what a user's sign-in leaves behind.
type refreshToken struct {
	app     *app
	user    *mailbox
	scopes  []string
	revoked bool
}

// deviceInterval is how long a client has to wait between two polls.
const deviceInterval = 5 * time.Second

// AllowPublicClient lets an app sign users in without a secret, as "Allow public client flows" does.
func (s *Sim) AllowPublicClient(tenantID, clientID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mustApp(tenantID, clientID).public = true
}

// ConsentDelegated grants delegated permissions, such as Mail.ReadWrite.Shared, for all users.
func (s *Sim) ConsentDelegated(tenantID, clientID string, scopes ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mustApp(tenantID, clientID).delegated = slices.Clone(scopes)
}

// ApproveDevice is a user entering the code on another device; false when there is no such code.
func (s *Sim) ApproveDevice(userCode, user string) bool { return s.answerDevice(userCode, user, false) }

// DeclineDevice is a user refusing it.
func (s *Sim) DeclineDevice(userCode string) bool { return s.answerDevice(userCode, "", true) }

func (s *Sim) answerDevice(userCode, user string, declined bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.devices {
		if d.userCode != userCode || !s.now().Before(d.expires) {
			continue
		}
		if d.declined = declined; !declined {
			d.user = s.findBox(user)
		}
		return declined || d.user != nil
	}
	return false
}

// RevokeRefresh ends every refresh token, as a new password of the user does: AADSTS50173.
func (s *Sim) RevokeRefresh() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.refreshes {
		r.revoked = true
	}
}

// serveDevice answers POST /{tenant}/oauth2/v2.0/devicecode. Entra: v2-oauth2-device-code.
func (s *Sim) serveDevice(w http.ResponseWriter, r *http.Request) {
	requestID := newGUID()
	c := &call{sim: s, ctx: r.Context(), method: r.Method, path: r.URL.EscapedPath(), header: r.Header,
		requestID: requestID, clientID: requestID, start: s.now(), template: "/{tenant}/oauth2/v2.0/devicecode"}
	body, _, err := readBody(r, 1<<20)
	if err != nil {
		body = nil
	}
	c.body = body
	p := s.withFaults(c, func() *reply { return s.deviceReply(c, r) })
	s.record(c, p.status)
	if p.ends != nil {
		p.ends(w)
		return
	}
	p.write(w, requestID, requestID)
}

func (s *Sim) deviceReply(c *call, r *http.Request) *reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	form, err := url.ParseQuery(string(c.body))
	if err != nil || r.Method != http.MethodPost || form.Get("client_id") == "" {
		return c.entraFailure(entraFail(400, "invalid_request", 900144, "The request body must contain the following parameter: 'client_id'."))
	}
	a, fail := s.findApp(r, form)
	if fail != nil {
		return c.entraFailure(fail)
	}
	scopes := strings.Fields(form.Get("scope"))
	if len(scopes) == 0 {
		return c.entraFailure(entraFail(400, "invalid_request", 900144, "The request body must contain the following parameter: 'scope'."))
	}
	enc := base32.StdEncoding.WithPadding(base32.NoPadding)
	code, userCode := enc.EncodeToString(randomBytes(20)), enc.EncodeToString(randomBytes(6))[:9]
	s.devices[code] = &deviceCode{app: a, userCode: userCode, scopes: scopes, expires: s.now().Add(15 * time.Minute)}
	url := baseURL(r) + "/devicelogin"
	return jsonReply(200, object{
		{"user_code", userCode}, {"device_code", code}, {"verification_uri", url}, {"expires_in", 900}, {"interval", int(deviceInterval / time.Second)},
		{"message", fmt.Sprintf("To sign in, use a web browser to open the page %s and enter the code %s to authenticate.", url, userCode)},
	})
}

// findApp finds the app that a request of a user's sign-in names.
func (s *Sim) findApp(r *http.Request, form url.Values) (*app, *entraError) {
	name, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	t := s.findTenant(name)
	if t == nil {
		return nil, entraFail(400, "invalid_request", 90002, "Tenant '%s' not found.", name)
	}
	a := t.apps[strings.ToLower(form.Get("client_id"))]
	if a == nil {
		return nil, entraFail(400, "unauthorized_client", 700016, "Application with identifier '%s' was not found in the directory '%s'.", form.Get("client_id"), t.id)
	}
	return a, nil
}

// delegatedReply answers the two grants of a user's sign-in.
func (s *Sim) delegatedReply(c *call, r *http.Request, form url.Values) *reply {
	a, fail := s.findApp(r, form)
	if fail != nil {
		return c.entraFailure(fail)
	}
	if secret := form.Get("client_secret"); secret != "" {
		fail = a.checkSecret(secret, s.now())
	} else if !a.public {
		fail = entraFail(401, "invalid_client", 7000218, "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.")
	}
	if fail != nil {
		return c.entraFailure(fail)
	}
	var user *mailbox
	var scopes []string
	if form.Get("grant_type") == deviceGrant {
		user, scopes, fail = s.redeemDevice(a, form.Get("device_code"))
	} else {
		user, scopes, fail = s.redeemRefresh(a, form)
	}
	if fail != nil {
		return c.entraFailure(fail)
	}
	granted := []string{}
	offline := false
	for _, scope := range scopes {
		offline = offline || scope == "offline_access"
		name := scope[strings.LastIndexByte(scope, '/')+1:]
		if slices.Contains(a.delegated, name) {
			granted = append(granted, name)
		}
	}
	if len(granted) == 0 {
		return c.entraFailure(entraFail(400, "invalid_grant", 65001, "The user or administrator has not consented to use the application with ID '%s'.", a.clientID))
	}
	raw := s.mintUserLocked(a, user, granted)
	life := int(s.opts.TokenLifetime / time.Second)
	o := object{{"token_type", "Bearer"}, {"scope", strings.Join(granted, " ")}, {"expires_in", life}, {"ext_expires_in", life}, {"access_token", raw}}
	if offline {
		refresh := "1." + newGUID() + newGUID()
		s.refreshes[refresh] = &refreshToken{app: a, user: user, scopes: scopes}
		o = append(o, property{"refresh_token", refresh})
	}
	p := jsonReply(200, o)
	p.header.Set("Cache-Control", "no-store, no-cache")
	return p
}

func (s *Sim) redeemDevice(a *app, code string) (*mailbox, []string, *entraError) {
	d := s.devices[code]
	now := s.now()
	switch {
	case d == nil || d.app != a:
		return nil, nil, entraFail(400, "invalid_grant", 70000, "The provided device code is not valid.")
	case d.declined:
		return nil, nil, entraFail(400, "authorization_declined", 70017, "The end user denied the authorization request.")
	case !now.Before(d.expires):
		return nil, nil, entraFail(400, "expired_token", 70020, "The code has expired.")
	case d.user == nil:
		early := !d.polled.IsZero() && now.Sub(d.polled) < deviceInterval-time.Second
		d.polled = now
		if early {
			return nil, nil, entraFail(400, "slow_down", 70018, "The client is polling too often.")
		}
		return nil, nil, entraFail(400, "authorization_pending", 70016, "OAuth 2.0 device flow error. Authorization is pending. Continue polling.")
	}
	delete(s.devices, code)
	return d.user, d.scopes, nil
}

func (s *Sim) redeemRefresh(a *app, form url.Values) (*mailbox, []string, *entraError) {
	r := s.refreshes[form.Get("refresh_token")]
	switch {
	case r == nil || r.app != a:
		return nil, nil, entraFail(400, "invalid_grant", 9002313, "Invalid request. The refresh token is malformed.")
	case r.revoked:
		return nil, nil, entraFail(400, "invalid_grant", 50173, "The provided grant has expired due to it being revoked, a fresh auth token is needed.")
	}
	scopes := r.scopes
	if asked := strings.Fields(form.Get("scope")); len(asked) > 0 {
		scopes = asked
	}
	return r.user, scopes, nil
}

// opensFor says whether a user's token opens box for one of the permissions: the own mailbox by the plain name,
// another's by the .Shared one and only with full access to it. Graph: auth, permissions-reference.
func (t *accessToken) opensFor(box *mailbox, permissions []string) bool {
	if t.user == box {
		return anyOf(t.roles, permissions)
	}
	shared := make([]string, len(permissions))
	for i, p := range permissions {
		shared[i] = p + ".Shared"
	}
	has := slices.ContainsFunc(t.user.user.FullAccess, func(name string) bool { return strings.EqualFold(name, box.user.UPN) })
	return has && anyOf(t.roles, shared)
}
