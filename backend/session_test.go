package backend

import (
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
)

// A session ends when its login would no longer give it what it has, and goes on through every other change.
func TestSessionsOfChangedLogins(t *testing.T) {
	imapLogin := Attempt{"imap", "alice@contoso.example", "wonderland", local}
	smtpLogin := Attempt{"smtp", "alice@contoso.example", "wonderland", local}
	sharedLogin := Attempt{"imap", "alice@contoso.example/support@contoso.example", "wonderland", local}
	for _, tt := range []struct {
		name   string
		at     Attempt
		change func(c *LoginConfig) // nil takes the login out
		ends   bool
	}{
		{"taken out", imapLogin, nil, true},
		{"nothing", imapLogin, func(*LoginConfig) {}, false},
		{"another password", imapLogin, func(c *LoginConfig) { c.PasswordHash = cheapHash(t, "looking-glass") }, true},
		{"imap forbidden", imapLogin, func(c *LoginConfig) { c.IMAP = false }, true},
		{"imap forbidden, smtp goes on", smtpLogin, func(c *LoginConfig) { c.IMAP = false }, false},
		{"smtp forbidden", smtpLogin, func(c *LoginConfig) { c.SMTP = false }, true},
		{"read only", imapLogin, func(c *LoginConfig) { c.ReadOnly = true }, true},
		{"another mailbox", imapLogin, func(c *LoginConfig) { c.Mailbox = "info@contoso.example" }, true},
		{"one shared less", imapLogin, func(c *LoginConfig) { c.Shared = c.Shared[1:] }, true},
		{"the shared one it has", sharedLogin, func(c *LoginConfig) { c.Shared = c.Shared[1:] }, true},
		{"the shared one it does not have", sharedLogin, func(c *LoginConfig) { c.Shared = c.Shared[:1] }, false},
		{"send_as less", smtpLogin, func(c *LoginConfig) { c.SendAs = nil }, true},
		{"send_as less, imap", imapLogin, func(c *LoginConfig) { c.SendAs = nil }, false},
		{"send_as more", smtpLogin, func(c *LoginConfig) { c.SendAs = append(slices.Clone(c.SendAs), "info@contoso.example") }, false},
		{"its network is left", imapLogin, func(c *LoginConfig) { c.Networks = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }, false},
		{"its network is taken", imapLogin, func(c *LoginConfig) { c.Networks = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} }, true},
		{"a rate", smtpLogin, func(c *LoginConfig) { c.Rate = 1 }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, _ := testLogins(t)
				b := &Backend{logins: l, log: slog.New(slog.DiscardHandler)}
				login, err := b.Authenticate(t.Context(), tt.at)
				if err != nil {
					t.Fatal(err)
				}
				ended := make(chan struct{})
				s, err := b.Enter(login, 0, func() { close(ended) })
				if err != nil {
					t.Fatal(err)
				}
				cfg := slices.Clone(l.fromConfig)
				if tt.change == nil {
					cfg = cfg[1:]
				} else {
					cfg[0].Shared, cfg[0].SendAs = slices.Clone(cfg[0].Shared), slices.Clone(cfg[0].SendAs)
					tt.change(&cfg[0])
				}
				for range 2 { // the second time nobody is told again
					if err := b.SetLogins(cfg); err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
				}
				select {
				case <-ended:
					if !tt.ends {
						t.Error("the session was ended")
					}
				default:
					if tt.ends {
						t.Error("the session goes on")
					}
				}
				// The same login does not let anybody in afterwards, if a change came between password and entry.
				if other, err := b.Enter(login, 0, func() {}); (err != nil) != tt.ends {
					t.Errorf("entering afterwards: %v", err)
				} else {
					other.Leave()
				}
				s.Leave()
				s.Leave()
				if len(l.sessions) != 0 {
					t.Errorf("%d sessions are still known", len(l.sessions))
				}
			})
		})
	}
}

// So many connections of one login and no more; the next one finds a place when one has left.
func TestConnectionsPerLogin(t *testing.T) {
	l, _ := testLogins(t)
	b := &Backend{logins: l, log: slog.New(slog.DiscardHandler)}
	enter := func(protocol, username string, limit int) (*Session, error) {
		t.Helper()
		login, err := b.Authenticate(t.Context(), Attempt{protocol, username, "wonderland", local})
		if err != nil {
			t.Fatal(err)
		}
		return b.Enter(login, limit, func() {})
	}
	var open []*Session
	for range 3 {
		s, err := enter("imap", "alice@contoso.example", 3)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, s)
	}
	for _, name := range []string{"ALICE@contoso.example", "alice@contoso.example/support@contoso.example"} {
		if _, err := enter("imap", name, 3); KindOf(err) != TooMany {
			t.Errorf("a fourth connection, as %s: %v", name, err)
		}
	}
	if s, err := enter("smtp", "alice@contoso.example", 3); err != nil {
		t.Errorf("another protocol: %v", err)
	} else {
		s.Leave()
	}
	open[0].Leave()
	if _, err := enter("imap", "alice@contoso.example", 3); err != nil {
		t.Errorf("after one has left: %v", err)
	}
	// A login that needs no password is not counted.
	fixed := &Login{}
	for range 5 {
		if _, err := b.Enter(fixed, 1, func() {}); err != nil {
			t.Error(err)
		}
	}
}
