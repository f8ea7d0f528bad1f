package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"postern/backend/graph"
	"postern/backend/token"
)

// A finding is what one check has found. The remedy is a sentence that says what to do, empty where nothing is.
type finding struct {
	Check  string  `json:"check"`
	Status verdict `json:"status"`
	Detail string  `json:"detail"`
	Remedy string  `json:"remedy,omitempty"`
}

// verdict is how a check came out.
type verdict string

const (
	fine    verdict = "ok"
	warning verdict = "warning"
	failed  verdict = "failed"
)

// prober looks at Microsoft's side. It changes nothing there but by sendTest.
type prober struct {
	client *http.Client
	tokens *token.Manager

	mu        sync.Mutex
	latencies []time.Duration // of Graph calls that worked
	throttled int             // answers 429 or 503 with a wait
}

func newProber() *prober {
	client := graph.NewHTTPClient()
	return &prober{client: client, tokens: token.NewManager(client, nil)}
}

func (p *prober) close() { p.tokens.Close() }

// probeTimeout bounds each single look.
const probeTimeout = 20 * time.Second

// host asks a host anything at all: an answer of any status shows that name, network, proxy and TLS work, and what time
// it is there.
func (p *prober) host(ctx context.Context, address string) (at time.Time, took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return at, 0, err
	}
	client := *p.client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	begun := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		return at, 0, err
	}
	resp.Body.Close()
	took = time.Since(begun)
	at, _ = http.ParseTime(resp.Header.Get("Date")) // zero: nothing to compare
	return at, took, nil
}

// explainNetwork says in one sentence what is wrong with the way to a host, and in another what to do.
func explainNetwork(err error) (detail, remedy string) {
	detail, remedy, ok := graph.ExplainNetwork(err)
	if !ok {
		return err.Error(), "Try again; if it stays, look at the network and the proxy."
	}
	return detail, remedy
}

// proxyFor returns the proxy the environment names for an address, "" if none.
func proxyFor(address string) string {
	u, err := http.ProxyFromEnvironment(&http.Request{URL: mustURL(address)})
	if err != nil || u == nil {
		return ""
	}
	return u.Host
}

// mustURL is url.Parse for addresses that have been checked; a bad one is an empty URL.
func mustURL(s string) *url.URL {
	if u, err := url.Parse(s); err == nil {
		return u
	}
	return &url.URL{}
}

// maxSkew is how far the clock may be off. Entra refuses assertions beyond five minutes.
const (
	warnSkew = time.Minute
	maxSkew  = 5 * time.Minute
)

// clockFinding compares this machine's clock with Microsoft's.
func clockFinding(theirs, ours time.Time) finding {
	if theirs.IsZero() {
		return finding{"clock", warning, "Microsoft's answer told no time to compare with", ""}
	}
	skew := ours.Sub(theirs)
	word := "ahead of"
	if skew < 0 {
		skew, word = -skew, "behind"
	}
	precise := time.Second // as the hosts tell the time
	if skew > maxSkew {
		precise = time.Minute
	}
	detail := fmt.Sprintf("this machine's clock is %s %s Microsoft's", shortDuration(skew.Round(precise)), word)
	remedy := "Set the clock: timedatectl set-ntp true, or the like. Sign-in by certificate, tokens and dates of mail go wrong with it."
	switch {
	case skew > maxSkew:
		return finding{"clock", failed, detail, remedy}
	case skew > warnSkew:
		return finding{"clock", warning, detail, remedy}
	}
	return finding{"clock", fine, "agrees with Microsoft's", ""}
}

// signIn gets a token.
func (p *prober) signIn(ctx context.Context, cred token.Credential) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	tok, err := p.tokens.Source(cred).Token(ctx)
	if err != nil {
		return "", err
	}
	return tok.AccessToken, nil
}

// explainSignIn says what is wrong with a sign-in, and what to do.
func explainSignIn(err error, cred token.Credential) (detail, remedy string) {
	t, ok := errors.AsType[*token.Error](err)
	if !ok {
		return explainNetwork(err)
	}
	if _, _, ok := graph.ExplainNetwork(t.Err); ok && cred.Kind() != token.ManagedIdentity {
		return explainNetwork(t.Err)
	}
	remedy = t.Advice
	if cred.Kind() == token.ManagedIdentity && remedy == "" {
		remedy = "Give this machine a managed identity in Azure, or use another way to sign in."
	}
	t2 := *t
	t2.Advice = ""
	detail = strings.TrimPrefix(t2.Error(), "sign in to Microsoft: ")
	if cred.Kind() == token.DeviceCode && errors.Is(err, token.ErrNotSignedIn) {
		remedy = fmt.Sprintf("Let the user sign in: postern signin %s --config FILE.", cred.Name)
	}
	return detail, remedy
}

// rolesFinding says what a token may do, and what it can mean if that is nothing.
func rolesFinding(name, tok string, delegated bool, unsure string) finding {
	check := "permissions " + name
	c, ok := token.ReadClaims(tok)
	if !ok {
		return finding{check, fine, "the token cannot be looked into; only Graph knows what it may do", ""}
	}
	have := c.Permissions()
	want := []string{"Mail.ReadWrite", "Mail.Send"}
	if delegated {
		want = append(want, "Mail.ReadWrite.Shared", "Mail.Send.Shared")
	}
	var missing []string
	for _, w := range want {
		if !slices.Contains(have, w) {
			missing = append(missing, w)
		}
	}
	grant := "Under API permissions add the Microsoft Graph application permissions " + strings.Join(missing, " and ") + ", then choose Grant admin consent."
	if delegated {
		grant = "Under API permissions add the Microsoft Graph delegated permissions " + strings.Join(missing, ", ") + ", then let the user sign in again."
	}
	switch {
	case len(have) == 0 && !delegated:
		return finding{check, warning, "the token names none: admin consent is missing, or RBAC for Applications grants them mailbox by mailbox",
			"If you do not use RBAC for Applications: " + lowerFirst(grant)}
	case len(missing) > 0:
		detail := "missing: " + strings.Join(missing, ", ")
		if slices.Equal(missing, []string{"Mail.ReadWrite"}) {
			detail += "; nothing can be read, messages over 3 MB not be sent, and those that were perhaps sent not be looked for (queue.unsure says what becomes of them: " + unsure + ")"
		}
		return finding{check, warning, detail, grant}
	}
	detail := strings.Join(want, ", ")
	if extra := slices.DeleteFunc(slices.Clone(have), func(s string) bool { return slices.Contains(want, s) || s == "Application.Read.All" }); len(extra) > 0 && !delegated {
		return finding{check, warning, "more than needed: " + strings.Join(extra, ", "), "Take away permissions that Postern does not need."}
	}
	return finding{check, fine, detail, ""}
}

func lowerFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}

// graphFor returns a client for one mailbox whose calls are counted.
func (p *prober) graphFor(cred token.Credential, address string) *graph.Client {
	return graph.New(graph.Options{BaseURL: cred.Graph(), User: address, Tokens: p.tokens.Source(cred), HTTPClient: p.client, Timeout: probeTimeout,
		OnRequest: func(_ string, status int, d time.Duration) {
			p.mu.Lock()
			defer p.mu.Unlock()
			switch {
			case status == 429 || status == 503:
				p.throttled++
			case status >= 200 && status < 300:
				p.latencies = append(p.latencies, d)
			}
		}})
}

// open reads a mailbox's Inbox, its counts only.
func (p *prober) open(ctx context.Context, cred token.Credential, address string) (*graph.Folder, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	return p.graphFor(cred, address).Folder(ctx, "inbox")
}

// explainMailbox says what is wrong with a mailbox that could not be opened, and what to do. named are the permissions
// the token names.
func explainMailbox(err error, cred token.Credential, address string, named []string) (detail, remedy string) {
	var ge *graph.Error
	errors.As(err, &ge)
	_, signIn := errors.AsType[*token.Error](err)
	delegated := cred.Kind() == token.DeviceCode
	switch {
	case signIn:
		return explainSignIn(err, cred)
	case graph.StatusOf(err) == http.StatusUnauthorized:
		return "Graph does not accept the token", "Check that cloud and graph_url fit the tenant, and this machine's clock."
	case graph.IsDenied(err) && ge != nil && strings.Contains(ge.Message, "OData is disabled"):
		return "an application access policy keeps the app out of this mailbox",
			"Add " + address + " to the group the policy names (Get-ApplicationAccessPolicy shows it) and wait up to 30 minutes."
	case graph.IsDenied(err) && delegated:
		return "the signed-in user may not open this mailbox", "Give " + cred.Delegated.User + " Full Access to " + address + " in Exchange, and consent to Mail.ReadWrite.Shared and Mail.Send.Shared."
	case graph.IsDenied(err) && len(named) == 0:
		return "Graph refuses access and the token names no permission", "Grant the application permissions Mail.ReadWrite and Mail.Send with admin consent; or, with RBAC for Applications, put " + address + " into its scope. Either can take up to two hours to act."
	case graph.IsDenied(err) && !slices.Contains(named, "Mail.ReadWrite"):
		return "Graph refuses access: the app lacks Mail.ReadWrite", "Under API permissions add the Microsoft Graph application permission Mail.ReadWrite, then choose Grant admin consent."
	case graph.IsDenied(err):
		return "Graph refuses access to this mailbox", "Put " + address + " into the scope that limits the app in Exchange; a change takes up to two hours."
	case graph.IsNoMailbox(err):
		return "there is no Exchange Online mailbox of this address", "Check the spelling; write the user principal name (not an alias), and see that the user has a licence with Exchange Online."
	case graph.IsThrottled(err):
		return "Graph asks for fewer requests", "Wait a while and try again."
	case ge != nil:
		return ge.Error(), "Try again later; if it stays, ask Microsoft's support with the request id."
	}
	return explainNetwork(err)
}
