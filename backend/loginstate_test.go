package backend

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Logins of the state folder act without a restart, and go without one.
func TestStateLogins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := testLogins(t)
		dir := t.TempDir()
		l.stateFile.dir, l.stateFile.since = dir, time.Now()
		try := func(name, password string) error {
			time.Sleep(stateLook)
			_, err := l.authenticate(context.Background(), Attempt{"imap", name, password, local})
			return err
		}
		if try("printer", "beep") == nil {
			t.Error("a login that does not exist")
		}
		add := func(c ...LoginConfig) {
			t.Helper()
			if err := EditStateLogins(dir, func([]LoginConfig) ([]LoginConfig, error) { return c, nil }); err != nil {
				t.Fatal(err)
			}
		}
		printer := LoginConfig{Username: "Printer", PasswordHash: cheapHash(t, "beep"), Mailbox: "support@contoso.example", IMAP: true, ReadOnly: true}
		clash := LoginConfig{Username: "alice@contoso.example", PasswordHash: cheapHash(t, "other"), Mailbox: "support@contoso.example", IMAP: true}
		lost := LoginConfig{Username: "lost", PasswordHash: cheapHash(t, "lost"), Mailbox: "nobody@contoso.example", IMAP: true}
		add(printer, clash, lost)
		if err := try("printer", "beep"); err != nil {
			t.Error(err)
		}
		if try("alice@contoso.example", "other") == nil || try("alice@contoso.example", "wonderland") != nil {
			t.Error("the configuration's login does not count")
		}
		if try("lost", "lost") == nil {
			t.Error("a login without a mailbox")
		}
		// The configuration is read again: the state's logins stay.
		if err := l.set(nil); err != nil {
			t.Fatal(err)
		}
		if try("printer", "beep") != nil || try("alice@contoso.example", "other") != nil {
			t.Error("the state's logins are gone")
		}
		// A damaged file leaves what was known.
		if err := os.WriteFile(filepath.Join(dir, stateLoginsFile), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		if try("printer", "beep") != nil {
			t.Error("a damaged file took the logins away")
		}
		if err := EditStateLogins(dir, func(c []LoginConfig) ([]LoginConfig, error) { return c, nil }); err == nil {
			t.Error("a damaged file was overwritten")
		}
		if err := os.Remove(filepath.Join(dir, stateLoginsFile)); err != nil {
			t.Fatal(err)
		}
		if try("printer", "beep") == nil {
			t.Error("a revoked login works")
		}
	})
}

func TestUnlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := testLogins(t)
		dir := t.TempDir()
		l.stateFile.dir, l.stateFile.since = dir, time.Now()
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); l.keepActivity(ctx) }()
		try := func(password string) Kind {
			_, err := l.authenticate(context.Background(), Attempt{"imap", "alice@contoso.example", password, local})
			if err == nil {
				return -1
			}
			return KindOf(err)
		}
		for i := range maxGuesses {
			try(strings.Repeat("x", i+1))
		}
		if k := try("wonderland"); k != TooMany {
			t.Fatalf("not locked out: %v", k)
		}
		time.Sleep(2 * lockFlush)
		a, err := ReadLoginActivity(dir)
		if err != nil || len(a.Lockouts) != 1 || a.Lockouts[0].Username != "alice@contoso.example" || a.Lockouts[0].Remote != "127.0.0.1" {
			t.Errorf("%+v, %v", a, err)
		}
		for _, who := range []string{"somebody", "192.0.2.1"} {
			if err := RequestUnlock(dir, who); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * stateLook)
			if k := try("wonderland"); k != TooMany {
				t.Errorf("unlocked by %s", who)
			}
		}
		if err := RequestUnlock(dir, "Alice@Contoso.example"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * stateLook)
		if k := try("wonderland"); k != -1 {
			t.Errorf("still locked out: %v", k)
		}
		cancel()
		<-done
		a, err = ReadLoginActivity(dir)
		if err != nil || len(a.Lockouts) != 0 || len(a.Uses) != 1 || a.Uses[0].Username != "Alice@contoso.example" || a.Uses[0].Protocol != "imap" || a.Uses[0].Remote != local {
			t.Errorf("%+v, %v", a, err)
		}
		// What is written down is known after a restart, and an old request to unlock is not done again.
		next, _ := testLogins(t)
		next.stateFile.dir, next.stateFile.since = dir, time.Now()
		ctx, cancel = context.WithCancel(context.Background())
		done = make(chan struct{})
		go func() { defer close(done); next.keepActivity(ctx) }()
		if _, err := next.authenticate(context.Background(), Attempt{"smtp", "scanner", "beep", netip.MustParseAddr("192.0.2.7")}); err != nil {
			t.Error(err)
		}
		time.Sleep(usesFlush + 2*lockFlush)
		a, _ = ReadLoginActivity(dir)
		if names := slices.Collect(func(yield func(string) bool) {
			for _, u := range a.Uses {
				if !yield(u.Username) {
					return
				}
			}
		}); len(names) != 2 {
			t.Errorf("uses of %v", names)
		}
		cancel()
		<-done
	})
}

func TestExpiryWarning(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	day := 24 * time.Hour
	for _, tt := range []struct {
		left  time.Duration
		stage int
		want  string
	}{
		{31 * day, 0, ""}, {30 * day, 1, "in 30 days"}, {15 * day, 1, "in 15 days"}, {14 * day, 2, "in 14 days"}, {7 * day, 3, "in 7 days"},
		{day, 4, "in 1 day,"}, {time.Hour, 4, "within a day"}, {-time.Hour, 5, "has expired on 2026-11-23"},
	} {
		e := Expiry{"contoso", "client secret", now.Add(tt.left)}
		if got := e.Warning(now); e.stage(now) != tt.stage || !strings.Contains(got, tt.want) || (got == "") != (tt.want == "") {
			t.Errorf("%v: stage %d, %q", tt.left, e.stage(now), got)
		}
	}
	if (Expiry{}).Warning(now) != "" {
		t.Error("an unknown end warns")
	}
}
