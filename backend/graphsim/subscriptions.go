package graphsim

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// maxSubscription is what the service says; the documentation has other numbers.
const maxSubscription = 10070 * time.Minute

// subscription is kept, but nothing is ever sent: a local simulator has no way to reach an HTTPS address.
type subscription struct {
	id, app, resource, changeType, url, lifecycle, state string
	expires                                              time.Time
}

func (u *subscription) row() object {
	return object{
		{"id", u.id}, {"resource", u.resource}, {"applicationId", u.app}, {"changeType", u.changeType},
		{"clientState", textOrNull(u.state)}, {"notificationUrl", u.url}, {"lifecycleNotificationUrl", textOrNull(u.lifecycle)},
		{"expirationDateTime", u.expires.UTC().Format(time.RFC3339)},
	}
}

// subscriptions answers /subscriptions. Graph: subscription-post-subscriptions; no handshake and no notifications here.
func (c *call) subscriptions(seg []string) (*reply, *apiError) {
	s := c.sim
	if len(seg) == 0 {
		switch c.method {
		case http.MethodGet:
			rows := []object{}
			for _, u := range s.subs {
				if u.app == c.token.app.clientID {
					rows = append(rows, u.row())
				}
			}
			return jsonReply(200, object{{"@odata.context", c.base + "/v1.0/$metadata#subscriptions"}, {"value", rows}}), nil
		case http.MethodPost:
			return c.subscribe()
		}
		return nil, errMethod()
	}
	u := s.subs[seg[0]]
	if u == nil || u.app != c.token.app.clientID {
		return nil, fail(404, "ResourceNotFound", "The object was not found.")
	}
	switch {
	case len(seg) == 2 && strings.EqualFold(seg[1], "reauthorize") && c.method == http.MethodPost:
		return emptyReply(http.StatusAccepted), nil
	case len(seg) > 1:
		return nil, errSegment(seg[1])
	case c.method == http.MethodGet:
		return jsonReply(200, u.row()), nil
	case c.method == http.MethodDelete:
		delete(s.subs, u.id)
		return emptyReply(http.StatusNoContent), nil
	case c.method == http.MethodPatch:
		body, err := c.jsonBody()
		if err != nil {
			return nil, err
		}
		at, err := s.expiration(body["expirationDateTime"])
		if err != nil {
			return nil, err
		}
		u.expires = at
		return jsonReply(200, u.row()), nil
	}
	return nil, errMethod()
}

func (s *Sim) expiration(raw json.RawMessage) (time.Time, *apiError) {
	var at time.Time
	if json.Unmarshal(raw, &at) != nil || !at.After(s.now()) {
		return at, fail(400, "InvalidRequest", "Subscription expiration is missing or in the past.")
	}
	if at.Sub(s.now()) > maxSubscription {
		return at, fail(400, "ExtensionError", "Subscription expiration can only be 10070 minutes in the future.")
	}
	return at, nil
}

func (c *call) subscribe() (*reply, *apiError) {
	body, err := c.jsonBody()
	if err != nil {
		return nil, err
	}
	u := &subscription{id: newGUID(), app: c.token.app.clientID}
	for k, v := range map[string]*string{
		"resource": &u.resource, "changeType": &u.changeType, "notificationUrl": &u.url,
		"lifecycleNotificationUrl": &u.lifecycle, "clientState": &u.state,
	} {
		if raw, ok := body[k]; ok && unmarshalText(raw, v) != nil {
			return nil, fail(400, "InvalidRequest", "The property '%s' is not valid.", k)
		}
	}
	if at, err := url.Parse(u.url); err != nil || at.Scheme != "https" || at.Host == "" {
		return nil, fail(400, "InvalidRequest", "notificationUrl must be an HTTPS address.")
	}
	if u.resource == "" || u.changeType == "" || len(u.state) > 128 {
		return nil, fail(400, "InvalidRequest", "resource and changeType are needed; clientState has at most 128 characters.")
	}
	if u.expires, err = c.sim.expiration(body["expirationDateTime"]); err != nil {
		return nil, err
	}
	seg, err := splitPath(u.resource)
	if err != nil || len(seg) < 3 || !strings.EqualFold(seg[0], "users") {
		return nil, fail(400, "ExtensionError", "The resource is not one that can be subscribed to.")
	}
	if err := c.openMailbox(seg[1], mayRead); err != nil {
		if err.status == 403 {
			return nil, fail(403, "ExtensionError", "Operation: Create; Exception: [Status Code: Forbidden; Reason: %s]", err.message)
		}
		return nil, err
	}
	for _, other := range c.sim.subs {
		if other.app == u.app && other.resource == u.resource && other.changeType == u.changeType {
			return nil, fail(409, "InvalidRequest", "A subscription for this resource and change type exists already.")
		}
	}
	c.sim.subs[u.id] = u
	return jsonReply(http.StatusCreated, append(object{{"@odata.context", c.base + "/v1.0/$metadata#subscriptions/$entity"}}, u.row()...)), nil
}
