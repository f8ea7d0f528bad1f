package token

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

// Delegated is a user who has signed in once by device code, and whose refresh token signs Postern in from then on.
type Delegated struct {
	User  string // who is meant to sign in; for messages
	Store RefreshStore
}

// A RefreshStore keeps one refresh token. It must be safe for concurrent use.
type RefreshStore interface {
	// Load returns the token; ErrNotSignedIn if there is none.
	Load() (string, error)
	// Save replaces it.
	Save(refresh string) error
	// Name tells stores apart.
	Name() string
}

// ErrNotSignedIn is the cause when nobody has signed in by device code yet, or the stored token cannot be read.
var ErrNotSignedIn = errors.New("nobody has signed in for this credential yet")

// delegatedPermissions are what the user is asked for: the own mailbox, the shared ones he may open, and staying signed in.
var delegatedPermissions = []string{"Mail.ReadWrite", "Mail.Send", "Mail.ReadWrite.Shared", "Mail.Send.Shared"}

func (c Credential) delegatedConfig() *oauth2.Config {
	scopes := []string{"offline_access"}
	for _, p := range delegatedPermissions {
		scopes = append(scopes, c.Cloud.hosts().graph+"/"+p)
	}
	return &oauth2.Config{
		ClientID:     c.ClientID,
		ClientSecret: c.ClientSecret, // usually none: a public client
		Endpoint:     oauth2.Endpoint{TokenURL: c.Endpoint(), DeviceAuthURL: c.authority() + "/oauth2/v2.0/devicecode", AuthStyle: oauth2.AuthStyleInParams},
		Scopes:       scopes,
	}
}

// refreshGrant trades the stored refresh token for an access token. RFC 6749 section 6.
type refreshGrant struct{ cred Credential }

func (g refreshGrant) fetch(ctx context.Context, clients clients) (*oauth2.Token, error) {
	store := g.cred.Delegated.Store
	refresh, err := store.Load() // each time: somebody may have signed in again meanwhile
	if err != nil {
		return nil, err
	}
	ctx = context.WithValue(ctx, oauth2.HTTPClient, clients.usual)
	tok, err := g.cred.delegatedConfig().TokenSource(ctx, &oauth2.Token{RefreshToken: refresh}).Token()
	if err != nil {
		return nil, err
	}
	// Entra gives a new one with each answer; the old one ends some day.
	if tok.RefreshToken != "" && tok.RefreshToken != refresh {
		if err := store.Save(tok.RefreshToken); err != nil {
			return nil, fmt.Errorf("keep the new refresh token: %w", err)
		}
	}
	tok.RefreshToken = "" // callers have no business with it
	return tok, nil
}

// DevicePrompt is what a person needs to sign in on another device.
type DevicePrompt struct{ URL, Code string }

// SignInByDevice lets a user sign in: it tells show where to enter which code, waits until that is done, and stores the
// refresh token. The error is a *Error unless ctx ended. RFC 8628.
func SignInByDevice(ctx context.Context, client *http.Client, cred Credential, show func(DevicePrompt)) error {
	if client == nil {
		client = http.DefaultClient
	}
	ctx = context.WithValue(ctx, oauth2.HTTPClient, client)
	conf := cred.delegatedConfig()
	d, err := conf.DeviceAuth(ctx)
	if err != nil {
		return deviceError(ctx, err)
	}
	show(DevicePrompt{d.VerificationURI, d.UserCode})
	tok, err := conf.DeviceAccessToken(ctx, d)
	if err != nil {
		return deviceError(ctx, err)
	}
	if tok.RefreshToken == "" {
		return &Error{Err: errors.New("the answer holds no refresh token"), Permanent: true,
			Advice: "Allow offline_access: the tenant's policy may forbid apps to stay signed in."}
	}
	return cred.Delegated.Store.Save(tok.RefreshToken)
}

func deviceError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	e := newError(err, time.Now())
	switch strings.ToLower(e.OAuth) {
	case "authorization_declined", "access_denied":
		e.Permanent, e.Advice = true, "The sign-in was declined: start it again and choose Continue."
	case "expired_token", "code_expired":
		e.Permanent, e.Advice = true, "The code has expired: start again and enter the new one within 15 minutes."
	}
	return e
}
