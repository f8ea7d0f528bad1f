package token

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

// Identity is the managed identity of the machine or the app service Postern runs on.
type Identity struct {
	Endpoint string // App Service's IDENTITY_ENDPOINT; empty asks the virtual machine's metadata service
	Header   string // App Service's IDENTITY_HEADER
	ClientID string // picks a user-assigned identity; empty for the system-assigned one
}

// imds is the metadata service's address, the same on every virtual machine. Entra: how-to-use-vm-token.
const imds = "http://169.254.169.254"

// identityGrant asks the machine itself. It needs no secret.
type identityGrant struct{ cred Credential }

// Waits between tries of one fetch: the service restarts for up to 70 seconds, but callers do not wait that long.
var identityWaits = []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second}

func (g identityGrant) fetch(ctx context.Context, clients clients) (*oauth2.Token, error) {
	for try := 0; ; try++ {
		tok, again, err := g.ask(ctx, clients.direct)
		if err == nil || !again || try >= len(identityWaits) {
			return tok, err
		}
		select {
		case <-time.After(identityWaits[try]):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// request makes the request of either form.
func (g identityGrant) request(ctx context.Context) (*http.Request, error) {
	id := g.cred.Identity
	// A resource and not a scope.
	q := url.Values{"resource": {strings.TrimSuffix(g.cred.Scope(), ".default")}}
	if id.ClientID != "" {
		q.Set("client_id", id.ClientID)
	}
	address, name, value := imds, "Metadata", "true"
	if g.cred.LoginURL != "" {
		address = strings.TrimRight(g.cred.LoginURL, "/")
	}
	address += "/metadata/identity/oauth2/token"
	q.Set("api-version", "2018-02-01")
	if id.Endpoint != "" {
		address, name, value = id.Endpoint, "X-IDENTITY-HEADER", id.Header
		q.Set("api-version", "2019-08-01")
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("managed identity: %w", err)
	}
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("managed identity: %w", err)
	}
	req.Header.Set(name, value)
	return req, nil
}

// ask makes one request; again says that another may help.
func (g identityGrant) ask(ctx context.Context, client *http.Client) (tok *oauth2.Token, again bool, err error) {
	req, err := g.request(ctx)
	if err != nil {
		return nil, false, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, false, fmt.Errorf("managed identity: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, false, fmt.Errorf("managed identity: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		var e struct {
			Error string `json:"error"`
		}
		_ = json.Unmarshal(body, &e) // another form leaves the status to say it all
		again = resp.StatusCode == 404 || resp.StatusCode == 410 || resp.StatusCode == 429 || resp.StatusCode >= 500
		return nil, again, &oauth2.RetrieveError{Response: resp, Body: body, ErrorCode: e.Error}
	}
	// Every value is a string.
	var a struct {
		AccessToken string `json:"access_token"`
		TokenType   string `json:"token_type"`
		ExpiresIn   string `json:"expires_in"`
		ExpiresOn   string `json:"expires_on"`
	}
	if err := json.Unmarshal(body, &a); err != nil || a.AccessToken == "" {
		return nil, false, fmt.Errorf("managed identity: the answer holds no token")
	}
	tok = &oauth2.Token{AccessToken: a.AccessToken, TokenType: a.TokenType}
	if seconds, err := strconv.ParseInt(a.ExpiresIn, 10, 32); err == nil && seconds > 0 {
		tok.Expiry = time.Now().Add(time.Duration(seconds) * time.Second)
	} else if at, err := strconv.ParseInt(a.ExpiresOn, 10, 64); err == nil && at > 0 {
		tok.Expiry = time.Unix(at, 0) // App Service gives this one alone
	}
	return tok, false, nil
}
