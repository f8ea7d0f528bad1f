package token

import (
	"crypto/sha256"
	"encoding/json"
	"log/slog"
	"net/url"
	"strings"
	"time"
)

// Kind says by what an app proves who it is.
type Kind string

// The ways to sign in. All but DeviceCode sign in the app itself; DeviceCode signs in a user.
const (
	ClientSecret    Kind = "client_secret"
	ClientCert      Kind = "certificate"
	FederatedToken  Kind = "federated_token"
	ManagedIdentity Kind = "managed_identity"
	DeviceCode      Kind = "device_code"
)

// Credential is an Entra app registration and what proves its identity: one of ClientSecret, Certificate,
// FederatedTokenFile, Identity and Delegated.
type Credential struct {
	Name     string // as in the configuration, for logs and advice
	Tenant   string // directory id, or one of its domain names; "common" does not work for apps
	ClientID string
	Cloud    Cloud
	LoginURL string // overrides the sign-in host, such as http://127.0.0.1:9700; never the scope
	GraphURL string // overrides Graph's host, without /v1.0; never the scope

	ClientSecret string
	SecretEnds   time.Time // for warnings; zero: not known
	AskSecretEnd bool      // learn it by Manager.SecretEnd, which needs the permission Application.Read.All

	Certificate        *Certificate
	FederatedTokenFile string // read anew for each request: whoever projects it replaces it before it ends
	Identity           *Identity
	Delegated          *Delegated
}

// Kind says by what the credential signs in.
func (c Credential) Kind() Kind {
	switch {
	case c.Certificate != nil:
		return ClientCert
	case c.FederatedTokenFile != "":
		return FederatedToken
	case c.Identity != nil:
		return ManagedIdentity
	case c.Delegated != nil:
		return DeviceCode
	}
	return ClientSecret
}

// Endpoint returns the token URL. Entra: v2-oauth2-client-creds-grant-flow.
func (c Credential) Endpoint() string { return c.authority() + "/oauth2/v2.0/token" }

// authority is the address of the tenant at the sign-in service.
func (c Credential) authority() string { return c.Login() + "/" + url.PathEscape(c.Tenant) }

// Login returns the sign-in service's address, such as https://login.microsoftonline.com.
func (c Credential) Login() string {
	if c.LoginURL != "" {
		return strings.TrimRight(c.LoginURL, "/")
	}
	return c.Cloud.hosts().login
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

// Same reports whether other signs in alike, to the same place: what was learned of the one holds for the other.
func (c Credential) Same(other Credential) bool {
	return c.key() == other.key() && c.Graph() == other.Graph()
}

// key tells credentials apart that must not share a token. What proves the identity is part of it, as a digest: a
// rotated secret is a new start, also where the old one was refused for good.
type key struct {
	endpoint, clientID, scope string
	proof                     [sha256.Size]byte
}

func (c Credential) key() key {
	var proof []any
	switch c.Kind() {
	case ClientCert:
		proof = []any{c.Certificate.thumbprint256, c.Certificate.algorithm}
	case FederatedToken:
		proof = []any{c.FederatedTokenFile}
	case ManagedIdentity:
		proof = []any{*c.Identity}
	case DeviceCode:
		proof = []any{c.Delegated.User, c.Delegated.Store.Name()}
	default:
		proof = []any{c.ClientSecret}
	}
	b, err := json.Marshal(append(proof, c.Kind()))
	if err != nil {
		panic("encode a credential's key: " + err.Error()) // plain strings always encode
	}
	return key{c.Endpoint(), c.ClientID, c.Scope(), sha256.Sum256(b)}
}
