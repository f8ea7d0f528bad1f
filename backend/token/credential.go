package token

import (
	"crypto/sha256"
	"log/slog"
	"net/url"
	"strings"
)

// Kind says by what an app proves who it is.
type Kind string

// ClientSecret is the one kind there is: a secret that the app registration lists.
const ClientSecret Kind = "client_secret"

// Credential is an Entra app registration with its secret.
type Credential struct {
	Name         string // as in the configuration, for logs and advice
	Tenant       string // directory id, or one of its domain names; "common" does not work for apps
	ClientID     string
	ClientSecret string
	Cloud        Cloud
	LoginURL     string // overrides the sign-in host, such as http://127.0.0.1:9700; never the scope
	GraphURL     string // overrides Graph's host, without /v1.0; never the scope
}

// Kind says by what the credential signs in.
func (c Credential) Kind() Kind { return ClientSecret }

// Endpoint returns the token URL. Entra: v2-oauth2-client-creds-grant-flow.
func (c Credential) Endpoint() string {
	host := c.LoginURL
	if host == "" {
		host = c.Cloud.hosts().login
	}
	return strings.TrimRight(host, "/") + "/" + url.PathEscape(c.Tenant) + "/oauth2/v2.0/token"
}

// Graph returns Graph's address without a version, such as https://graph.microsoft.com.
func (c Credential) Graph() string {
	if c.GraphURL != "" {
		return strings.TrimRight(c.GraphURL, "/")
	}
	return c.Cloud.hosts().graph
}

// Scope returns the scope to ask for. It follows the cloud and not GraphURL: a gateway or simulator in front of Graph
// is not a resource that Entra knows.
func (c Credential) Scope() string { return c.Cloud.hosts().graph + "/.default" }

// LogValue keeps the secret out of logs.
func (c Credential) LogValue() slog.Value {
	return slog.GroupValue(slog.String("name", c.Name), slog.String("tenant", c.Tenant), slog.String("client_id", c.ClientID))
}

// String keeps the secret out of everything that prints a credential.
func (c Credential) String() string { return "credential " + c.Name }

// GoString does so for %#v.
func (c Credential) GoString() string { return c.String() }

// key tells credentials apart that must not share a token. The secret is part of it, as a digest: a rotated secret is a
// new start, also where the old one was refused for good.
type key struct {
	endpoint, clientID, scope string
	secret                    [sha256.Size]byte
}

func (c Credential) key() key {
	return key{c.Endpoint(), c.ClientID, c.Scope(), sha256.Sum256([]byte(c.ClientSecret))}
}
