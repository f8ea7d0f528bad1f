package backend

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/backend/graphsim"
	"postern/backend/token"
)

func signIns(sim *graphsim.Sim) int {
	return sim.CountRequests(func(r graphsim.Request) bool { return strings.HasSuffix(r.Path, "/oauth2/v2.0/token") })
}

// When Graph refuses a token that all mailboxes share, one new one is asked for, whoever meets the refusal first.
func TestOneSignInForAllMailboxes(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	b, _ := start(t, testConfig(t, url, t.TempDir()))
	boxes := []*Account{accountOf(t, b, alice), accountOf(t, b, bob)}
	for _, a := range boxes {
		open(t, a, "INBOX")
	}
	if n := signIns(sim); n != 1 {
		t.Errorf("%d sign-ins to begin with", n)
	}
	sim.ResetRequests()
	sim.RevokeTokens()
	var wg sync.WaitGroup
	for range 5 {
		for _, a := range boxes {
			wg.Go(func() {
				if err := a.syncer.RefreshTree(context.Background()); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	if n := signIns(sim); n != 1 {
		t.Errorf("%d sign-ins after Graph has refused the token", n)
	}
}

// A wrong secret is asked about rarely, however many mailboxes and clients would like to have it.
func TestWrongSecretMakesNoStorm(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	cfg := testConfig(t, url, t.TempDir())
	wrong := cfg.Credentials["contoso"]
	wrong.ClientSecret = "wrong"
	cfg.Credentials = map[string]token.Credential{"contoso": wrong}
	b, _ := start(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	tries := 0
	for _, a := range b.Accounts() {
		wg.Go(func() {
			for ctx.Err() == nil {
				if _, err := a.Open(ctx, "INBOX", false); KindOf(err) != SignInNeeded && ctx.Err() == nil {
					t.Errorf("opened: %v", err)
				}
			}
		})
	}
	wg.Go(func() {
		for ctx.Err() == nil {
			if _, err := submit(t, b, loginOf(t, b, alice), envelope(bob), "Subject: x\r\n\r\nx\r\n"); err != nil {
				t.Error(err)
				return
			}
			tries++
		}
	})
	wg.Wait()
	if n := signIns(sim); n != 1 || tries == 0 {
		t.Errorf("%d sign-ins, %d submissions", n, tries)
	}
	for _, a := range b.Accounts() {
		if st := a.State(); st.Kind != SignInNeeded || !strings.Contains(st.Advice, "secret's value") {
			t.Errorf("state: %+v", st)
		}
	}
}
