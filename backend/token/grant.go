package token

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// A grant asks the sign-in service for a token, once, with whatever proves the app's identity. It keeps nothing between
// calls, so that an assertion (of a certificate, or read from a token file) is made afresh each time.
type grant interface {
	fetch(ctx context.Context, clients clients) (*oauth2.Token, error)
}

// clients are the ways out. A managed identity is asked for on this machine: a proxy would be somebody else's machine.
type clients struct{ usual, direct *http.Client }

func newGrant(c Credential) grant {
	switch c.Kind() {
	case ClientCert:
		return assertionGrant{c, func() (string, error) {
			return c.Certificate.assertion(c.Endpoint(), c.ClientID, time.Now())
		}}
	case FederatedToken:
		return assertionGrant{c, func() (string, error) { return readTokenFile(c.FederatedTokenFile) }}
	case ManagedIdentity:
		return identityGrant{c}
	case DeviceCode:
		return refreshGrant{c}
	}
	return secretGrant{c}
}

// secretGrant is the client credentials grant with a shared secret. RFC 6749 section 4.4.
type secretGrant struct{ cred Credential }

func (g secretGrant) fetch(ctx context.Context, clients clients) (*oauth2.Token, error) {
	conf := clientcredentials.Config{
		ClientID:     g.cred.ClientID,
		ClientSecret: g.cred.ClientSecret,
		TokenURL:     g.cred.Endpoint(),
		Scopes:       []string{g.cred.Scope()},
		// Left to itself the library tries HTTP Basic first, which doubles every failing request.
		AuthStyle: oauth2.AuthStyleInParams,
	}
	return conf.Token(context.WithValue(ctx, oauth2.HTTPClient, clients.usual))
}

// assertionGrant is the client credentials grant with a signed statement in place of a secret. RFC 7523 section 2.2.
type assertionGrant struct {
	cred Credential
	make func() (string, error)
}

func (g assertionGrant) fetch(ctx context.Context, clients clients) (*oauth2.Token, error) {
	assertion, err := g.make()
	if err != nil {
		return nil, err
	}
	conf := clientcredentials.Config{
		ClientID: g.cred.ClientID,
		TokenURL: g.cred.Endpoint(),
		Scopes:   []string{g.cred.Scope()},
		EndpointParams: url.Values{
			"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
			"client_assertion":      {assertion},
		},
		AuthStyle: oauth2.AuthStyleInParams,
	}
	return conf.Token(context.WithValue(ctx, oauth2.HTTPClient, clients.usual))
}

// maxTokenFile bounds a federated token file; real ones have a few kilobytes.
const maxTokenFile = 64 << 10

// errTokenFile is the cause of a federated token file that cannot be used.
var errTokenFile = errors.New("federated token file")

func readTokenFile(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("%w: %w", errTokenFile, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxTokenFile+1))
	if err != nil {
		return "", fmt.Errorf("%w: %w", errTokenFile, err)
	}
	s := strings.TrimSpace(string(b))
	if s == "" || len(b) > maxTokenFile {
		return "", fmt.Errorf("%w: %s is empty or too long", errTokenFile, name)
	}
	return s, nil
}
