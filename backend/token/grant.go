package token

import (
	"context"
	"net/http"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// A grant asks the sign-in service for a token, once, with whatever proves the app's identity. It keeps nothing between
// calls, so that an assertion (of a certificate, or read from a token file) is made afresh each time.
type grant interface {
	fetch(ctx context.Context, client *http.Client) (*oauth2.Token, error)
}

func newGrant(c Credential) grant { return secretGrant{c} }

// secretGrant is the client credentials grant with a shared secret. RFC 6749 section 4.4.
type secretGrant struct{ cred Credential }

func (g secretGrant) fetch(ctx context.Context, client *http.Client) (*oauth2.Token, error) {
	conf := clientcredentials.Config{
		ClientID:     g.cred.ClientID,
		ClientSecret: g.cred.ClientSecret,
		TokenURL:     g.cred.Endpoint(),
		Scopes:       []string{g.cred.Scope()},
		// Left to itself the library tries HTTP Basic first, which doubles every failing request.
		AuthStyle: oauth2.AuthStyleInParams,
	}
	return conf.Token(context.WithValue(ctx, oauth2.HTTPClient, client))
}
