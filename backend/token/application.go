package token

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// ErrMayNotAsk is the cause when the app has no permission to read its own registration (Application.Read.All).
var ErrMayNotAsk = errors.New("the app may not read its own registration")

// SecretEnd asks Graph when the credential's client secret ends, by reading the application object; zero means never.
// The secret is known again by its first letters, which the object shows; where several begin so, the last to end counts.
// Graph: application-get.
func (m *Manager) SecretEnd(ctx context.Context, cred Credential) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	tok, err := m.Source(cred).Token(ctx)
	if err != nil {
		return time.Time{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet,
		cred.Graph()+"/v1.0/applications(appId='"+url.PathEscape(cred.ClientID)+"')?$select=passwordCredentials", nil)
	if err != nil {
		return time.Time{}, err
	}
	req.Header.Set("Authorization", "Bearer "+tok.AccessToken)
	resp, err := m.clients.usual.Do(req)
	if err != nil {
		return time.Time{}, fmt.Errorf("read application: %w", err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusForbidden:
		return time.Time{}, ErrMayNotAsk
	case resp.StatusCode != http.StatusOK:
		return time.Time{}, fmt.Errorf("read application: status %d", resp.StatusCode)
	}
	var app struct {
		Passwords []struct {
			Hint string     `json:"hint"`
			End  *time.Time `json:"endDateTime"`
		} `json:"passwordCredentials"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&app); err != nil {
		return time.Time{}, fmt.Errorf("read application: %w", err)
	}
	var end time.Time
	found := false
	for _, p := range app.Passwords {
		if p.Hint == "" || !strings.HasPrefix(cred.ClientSecret, p.Hint) {
			continue
		}
		if p.End == nil {
			return time.Time{}, nil
		}
		if found = true; p.End.After(end) {
			end = *p.End
		}
	}
	if !found {
		return time.Time{}, errors.New("read application: it lists no secret that begins like the one configured")
	}
	return end, nil
}
