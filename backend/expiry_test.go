package backend

import (
	"strings"
	"testing"
	"time"

	"postern/backend/graphsim"
)

// A secret that ends soon is shown, and mailed once, also over a restart.
func TestExpiryMailed(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	cfg := testConfig(t, url, t.TempDir())
	for name, cred := range cfg.Credentials {
		cred.SecretEnds = time.Now().Add(5 * 24 * time.Hour)
		cfg.Credentials[name] = cred
	}
	cfg.ExpiryMail = cfg.Mailboxes[0].Address
	mails := func() int {
		n := 0
		for _, m := range sim.Messages(cfg.ExpiryMail, "inbox") {
			if strings.Contains(m.Subject, "ends on") {
				n++
			}
		}
		return n
	}
	for range 2 {
		b, stop := start(t, cfg)
		for deadline := time.Now().Add(10 * time.Second); mails() == 0 && time.Now().Before(deadline); {
			<-time.After(10 * time.Millisecond)
		}
		if e := b.Expiries(); len(e) == 0 || e[0].Warning(time.Now()) == "" {
			t.Errorf("nothing to show: %+v", e)
		}
		stop()
	}
	if n := mails(); n != 1 {
		t.Errorf("%d mails, want 1", n)
	}
}
