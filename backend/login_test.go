package backend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/fuzzcorpus"
)

// cheapHash is a hash that costs little, for tests that check many passwords.
func cheapHash(t testing.TB, password string) string {
	t.Helper()
	h := passwordHash{memory: 8, passes: 1, threads: 1, salt: []byte("saltsalt"), key: make([]byte, 16)}
	h.key = h.derive(password)
	return h.String()
}

// testLogins are alice, who may do everything and lists support@, and a scanner that may only send, from one network.
func testLogins(t testing.TB) (*logins, map[string]*Account) {
	t.Helper()
	accounts := map[string]*Account{"alice@contoso.example": new(Account), "support@contoso.example": new(Account), "info@contoso.example": new(Account)}
	l, err := newLogins([]LoginConfig{
		{Username: "Alice@contoso.example", PasswordHash: cheapHash(t, "wonderland"), Mailbox: "alice@contoso.example",
			Shared: []string{"support@contoso.example", "info@contoso.example"}, SMTP: true, IMAP: true, SendAs: []string{"Support@contoso.example"}},
		{Username: "scanner", PasswordHash: cheapHash(t, "beep"), Mailbox: "support@contoso.example", SMTP: true, RewriteFrom: true,
			Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}},
	}, "", func(a string) (*Account, bool) { acc, ok := accounts[strings.ToLower(a)]; return acc, ok }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return l, accounts
}

var local = netip.MustParseAddr("127.0.0.1")

func TestAuthenticate(t *testing.T) {
	for _, tt := range []struct {
		name string
		at   Attempt
		kind Kind   // when account is ""
		acct string // mailbox of the login
		n    int    // shared mailboxes
	}{
		{name: "right", at: Attempt{"imap", "alice@contoso.example", "wonderland", local}, acct: "alice@contoso.example", n: 2},
		{name: "letter case", at: Attempt{"smtp", "ALICE@Contoso.Example", "wonderland", local}, acct: "alice@contoso.example", n: 2},
		{name: "password has its case", at: Attempt{"imap", "alice@contoso.example", "Wonderland", local}, kind: AuthFailed},
		{name: "wrong", at: Attempt{"imap", "alice@contoso.example", "x", local}, kind: AuthFailed},
		{name: "empty password", at: Attempt{"imap", "alice@contoso.example", "", local}, kind: AuthFailed},
		{name: "unknown", at: Attempt{"imap", "bob@contoso.example", "wonderland", local}, kind: AuthFailed},
		{name: "empty user", at: Attempt{"imap", "", "", local}, kind: AuthFailed},
		{name: "NUL", at: Attempt{"imap", "alice@contoso.example\x00", "wonderland", local}, kind: AuthFailed},
		{name: "endless password", at: Attempt{"imap", "alice@contoso.example", strings.Repeat("w", 1<<20), local}, kind: AuthFailed},
		{name: "unknown protocol", at: Attempt{"pop3", "alice@contoso.example", "wonderland", local}, kind: AuthFailed},
		{name: "shared", at: Attempt{"imap", "alice@contoso.example/support@contoso.example", "wonderland", local}, acct: "support@contoso.example"},
		{name: "shared, letter case", at: Attempt{"imap", "alice@contoso.example/SUPPORT@contoso.example", "wonderland", local}, acct: "support@contoso.example"},
		{name: "own named", at: Attempt{"imap", "alice@contoso.example/alice@contoso.example", "wonderland", local}, acct: "alice@contoso.example"},
		{name: "shared not listed", at: Attempt{"imap", "alice@contoso.example/boss@contoso.example", "wonderland", local}, kind: AuthFailed},
		{name: "shared, send_as", at: Attempt{"smtp", "alice@contoso.example/support@contoso.example", "wonderland", local}, acct: "support@contoso.example"},
		{name: "shared, no send_as", at: Attempt{"smtp", "alice@contoso.example/info@contoso.example", "wonderland", local}, kind: AuthFailed},
		{name: "in network", at: Attempt{"smtp", "scanner", "beep", netip.MustParseAddr("192.0.2.7")}, acct: "support@contoso.example"},
		{name: "in network, mapped", at: Attempt{"smtp", "scanner", "beep", netip.MustParseAddr("::ffff:192.0.2.7")}, acct: "support@contoso.example"},
		{name: "in IPv6 network", at: Attempt{"smtp", "scanner", "beep", netip.MustParseAddr("2001:db8::1")}, acct: "support@contoso.example"},
		{name: "not in network", at: Attempt{"smtp", "scanner", "beep", local}, kind: AuthFailed},
		{name: "no address", at: Attempt{"smtp", "scanner", "beep", netip.Addr{}}, kind: AuthFailed},
		{name: "protocol not allowed", at: Attempt{"imap", "scanner", "beep", netip.MustParseAddr("192.0.2.7")}, kind: AuthFailed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, accounts := testLogins(t)
				login, err := l.authenticate(t.Context(), tt.at)
				if tt.acct == "" {
					if err == nil || KindOf(err) != tt.kind {
						t.Fatalf("got %v, want an error of kind %v", err, tt.kind)
					}
					if TextOf(err) == "" {
						t.Errorf("%v has no text for the client", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if login.Account != accounts[tt.acct] || len(login.Shared) != tt.n {
					t.Errorf("got account %p and %d shared, want %s and %d", login.Account, len(login.Shared), tt.acct, tt.n)
				}
			})
		})
	}
}

func TestAuthenticateIsNotTooStrict(t *testing.T) {
	l, _ := testLogins(t)
	for range 200 {
		if _, err := l.authenticate(t.Context(), Attempt{"imap", "alice@contoso.example", "wonderland", local}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLockout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := testLogins(t)
		try := func(user, password, addr string) error {
			_, err := l.authenticate(t.Context(), Attempt{"imap", user, password, netip.MustParseAddr(addr)})
			return err
		}
		start := time.Now()
		for i := range maxGuesses {
			if err := try("alice@contoso.example", fmt.Sprint("guess", i), "203.0.113.5"); KindOf(err) != AuthFailed {
				t.Fatalf("guess %d: %v", i, err)
			}
		}
		if slow := time.Since(start); slow < 10*time.Second {
			t.Errorf("%d wrong passwords took only %v", maxGuesses, slow)
		}
		if err := try("ALICE@contoso.example", "wonderland", "203.0.113.5"); KindOf(err) != TooMany {
			t.Errorf("after %d guesses the right password is answered %v", maxGuesses, err)
		}
		if err := try("alice@contoso.example/support@contoso.example", "wonderland", "203.0.113.5"); KindOf(err) != TooMany {
			t.Errorf("naming a shared mailbox goes round the lock-out: %v", err)
		}
		if err := try("alice@contoso.example", "wonderland", "203.0.113.6"); err != nil {
			t.Errorf("another address is locked out too: %v", err)
		}
		time.Sleep(lockTime) // virtual
		if err := try("alice@contoso.example", "wonderland", "203.0.113.5"); err != nil {
			t.Errorf("after the lock-out: %v", err)
		}
	})
}

// A program that goes on with an old password must not lock out the others behind the same address.
func TestSameWrongPasswordIsOneGuess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := testLogins(t)
		for range 5 * maxGuesses {
			if _, err := l.authenticate(t.Context(), Attempt{"imap", "alice@contoso.example", "old", local}); KindOf(err) != AuthFailed {
				t.Fatal(err)
			}
		}
		if _, err := l.authenticate(t.Context(), Attempt{"imap", "alice@contoso.example", "wonderland", local}); err != nil {
			t.Error(err)
		}
	})
}

func TestAddressLockout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := testLogins(t)
		var wg sync.WaitGroup
		for i := range maxAddressGuesses {
			wg.Go(func() {
				// Addresses of one /64 count as one.
				addr := netip.MustParseAddr(fmt.Sprintf("2001:db8:1:2::%x", i+1))
				l.authenticate(t.Context(), Attempt{"imap", fmt.Sprintf("user%d", i), "x", addr})
			})
		}
		wg.Wait()
		if _, err := l.authenticate(t.Context(), Attempt{"imap", "alice@contoso.example", "wonderland", netip.MustParseAddr("2001:db8:1:2::ffff")}); KindOf(err) != TooMany {
			t.Errorf("an address that tried %d users is answered %v", maxAddressGuesses, err)
		}
	})
}

// Guesses made side by side must not all be checked before the first is counted.
func TestParallelGuesses(t *testing.T) {
	l, _ := testLogins(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	checked := 0
	for i := range 200 {
		wg.Go(func() {
			_, err := l.authenticate(ctx, Attempt{"imap", "alice@contoso.example", fmt.Sprint("guess", i), local})
			mu.Lock()
			defer mu.Unlock()
			if KindOf(err) == TooMany {
				cancel() // the others need not wait out their delays
			} else if KindOf(err) == AuthFailed {
				checked++
			}
		})
	}
	wg.Wait()
	if limit := maxGuesses + 64; checked > limit {
		t.Errorf("%d of 200 parallel guesses were checked, want at most %d", checked, limit)
	}
}

func TestSetLogins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := testLogins(t)
		alice := func(password string) error {
			_, err := l.authenticate(t.Context(), Attempt{"imap", "alice@contoso.example", password, local})
			return err
		}
		if err := alice("wonderland"); err != nil {
			t.Fatal(err)
		}
		if err := alice("looking-glass"); KindOf(err) != AuthFailed {
			t.Fatal(err)
		}
		next := []LoginConfig{{Username: "alice@contoso.example", PasswordHash: cheapHash(t, "looking-glass"), Mailbox: "alice@contoso.example", IMAP: true}}
		if err := l.set(next); err != nil {
			t.Fatal(err)
		}
		if err := alice("looking-glass"); err != nil {
			t.Errorf("new password: %v", err)
		}
		if err := alice("wonderland"); KindOf(err) != AuthFailed {
			t.Errorf("the old password is still remembered: %v", err)
		}
		// An attempt that began with the old logins and ends after the change must not make its password wrong for good.
		_, old := l.user("alice@contoso.example")
		l.lockout.wrong(local, "alice@contoso.example", l.mac(old-1, "alice@contoso.example", "looking-glass"), time.Now())
		if err := alice("looking-glass"); err != nil {
			t.Errorf("after a late failure under the old logins: %v", err)
		}
		bad := []LoginConfig{
			{Username: "a", PasswordHash: "secret", Mailbox: "alice@contoso.example"},
			{Username: "b", PasswordHash: cheapHash(t, "x"), Mailbox: "nobody@contoso.example"},
			{Username: "B", PasswordHash: cheapHash(t, "x"), Mailbox: "alice@contoso.example", Shared: []string{"no@contoso.example"}},
		}
		err := l.set(bad)
		for _, want := range []string{"login a: not a password hash", "mailbox nobody@contoso.example is not configured", "shared mailbox no@contoso.example", "login B is there twice"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("errors %v lack %q", err, want)
			}
		}
		if err := alice("looking-glass"); err != nil {
			t.Errorf("refused logins replaced the good ones: %v", err)
		}
	})
}

func TestAuthenticateEndsWithContext(t *testing.T) {
	l, _ := testLogins(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for l.hashing.TryAcquire(1) {
	}
	_, err := l.authenticate(ctx, Attempt{"imap", "alice@contoso.example", "wonderland", local})
	if KindOf(err) != Unavailable || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestHashPassword(t *testing.T) {
	a, err := HashPassword("wonderland")
	if err != nil {
		t.Fatal(err)
	}
	b, _ := HashPassword("wonderland")
	if a == b {
		t.Error("two hashes of one password are equal: no salt")
	}
	if err := CheckHash(a); err != nil {
		t.Error(err)
	}
	h, err := parseHash(a)
	if err != nil {
		t.Fatal(err)
	}
	if !h.matches("wonderland") || h.matches("wonderlan") {
		t.Error("the hash matches the wrong one")
	}
	if h.String() != a {
		t.Errorf("%s reads back as %s", a, h)
	}
	if _, err := HashPassword(""); err == nil {
		t.Error("an empty password is accepted")
	}
	nfc, _ := parseHash(cheapHash(t, "caf\u00e9"))
	if !nfc.matches("cafe\u0301") {
		t.Error("a decomposed password does not match the composed one")
	}
}

func TestParseHash(t *testing.T) {
	// Made by another implementation: the argon2 program of the reference code, "password" with salt "somesalt".
	h, err := parseHash("$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc")
	if err != nil {
		t.Fatal(err)
	}
	if !h.matches("password") {
		t.Error("does not match the reference hash")
	}
	const key = "CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	for _, bad := range []string{
		"", "$", "password", "$2b$10$abcdefghijklmnopqrstuv", "$argon2i$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$" + key,
		"$argon2id$v=16$m=65536,t=2,p=1$c29tZXNhbHQ$" + key, "$argon2id$v=19$m=65536,t=2$c29tZXNhbHQ$" + key,
		"$argon2id$v=19$m=65536,t=2,p=1,m=8$c29tZXNhbHQ$" + key, "$argon2id$v=19$m=65536,t=2,p=0$c29tZXNhbHQ$" + key,
		"$argon2id$v=19$m=4000000,t=2,p=1$c29tZXNhbHQ$" + key, "$argon2id$v=19$m=262144,t=16,p=1$c29tZXNhbHQ$" + key,
		"$argon2id$v=19$m=8,t=2,p=4$c29tZXNhbHQ$" + key, "$argon2id$v=19$m=65536,t=2,p=1$c2FsdA$" + key,
		"$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$", "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$" + key + "=",
		"$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$" + key + "$x", "$argon2id$v=19$m=x,t=2,p=1$c29tZXNhbHQ$" + key,
	} {
		if err := CheckHash(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func FuzzParseHash(f *testing.F) {
	f.Add("$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc")
	f.Add("$argon2id$v=19$m=8,t=1,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA")
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, s string) {
		h, err := parseHash(s)
		if err != nil {
			return
		}
		again, err := parseHash(h.String())
		if err != nil || again.String() != h.String() {
			t.Errorf("%q reads back as %v, %v", s, again, err)
		}
	})
}

// An administrator's login opens the pages and nothing else, and what is taken from it holds at once.
func TestAdminLogin(t *testing.T) {
	l, _ := testLogins(t)
	b := &Backend{logins: l}
	admin := LoginConfig{Username: "Admin", PasswordHash: cheapHash(t, "letmein"), Admin: true, Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	if b.HasAdmin() {
		t.Error("there is an administrator before one was made")
	}
	set := func(cfg ...LoginConfig) {
		t.Helper()
		if err := l.set(append(slices.Clone(l.fromConfig[:2]), cfg...)); err != nil {
			t.Fatal(err)
		}
	}
	set(admin)
	login, err := l.authenticate(t.Context(), Attempt{"admin", "admin", "letmein", local})
	if err != nil {
		t.Fatal(err)
	}
	if login.Account != nil || login.Username != "Admin" || !b.HasAdmin() {
		t.Errorf("login %+v, has admin %v", login, b.HasAdmin())
	}
	for _, at := range []Attempt{{"imap", "admin", "letmein", local}, {"smtp", "admin", "letmein", local}, {"admin", "admin", "no", local},
		{"admin", "alice@contoso.example", "wonderland", local}, {"admin", "alice@contoso.example/support@contoso.example", "wonderland", local},
		{"admin", "admin", "letmein", netip.MustParseAddr("192.0.2.7")}} {
		if _, err := l.authenticate(t.Context(), at); KindOf(err) != AuthFailed {
			t.Errorf("%+v: %v", at, err)
		}
	}
	if !b.AdminHolds(login, local) || b.AdminHolds(login, netip.MustParseAddr("192.0.2.7")) {
		t.Error("the session holds where it should not, or not where it should")
	}
	for name, change := range map[string]func(*LoginConfig){
		"password":  func(c *LoginConfig) { c.PasswordHash = cheapHash(t, "another") },
		"right":     func(c *LoginConfig) { c.Admin, c.SMTP, c.Mailbox = false, true, "alice@contoso.example" },
		"user name": func(c *LoginConfig) { c.Username = "root" },
	} {
		changed := admin
		change(&changed)
		set(changed)
		if b.AdminHolds(login, local) {
			t.Errorf("another %s, and the session still holds", name)
		}
	}
	// A login that also opens a mailbox keeps to that; without one it must be for the pages alone.
	if _, err := newUser(LoginConfig{Username: "x", PasswordHash: admin.PasswordHash, Admin: true, IMAP: true}, l.account); err == nil {
		t.Error("a login for IMAP without a mailbox was taken")
	}
}

// An unknown user costs as much as a known one, whatever the known ones' hashes cost, and always the same.
func TestDecoysCostLikeUsers(t *testing.T) {
	hash := func(memory, passes uint32) *user {
		return &user{hash: passwordHash{memory: memory, passes: passes, threads: 1, salt: []byte("saltsalt"), key: make([]byte, 32)}}
	}
	l := &logins{decoys: decoysOf(map[string]*user{"a": hash(8, 1), "b": hash(64, 3)})}
	costs := make(map[uint32]int)
	for i := range 100 {
		name := fmt.Sprint("nobody", i)
		d := l.decoy(name)
		costs[d.memory]++
		if again := l.decoy(name); again.memory != d.memory || again.passes != d.passes {
			t.Fatal("the same name costs another time something else")
		}
		if bytes.Equal(d.key, make([]byte, 32)) {
			t.Fatal("a decoy can be matched")
		}
	}
	if len(costs) != 2 || costs[8] < 10 || costs[64] < 10 {
		t.Errorf("costs %v", costs)
	}
	if d := decoysOf(nil); len(d) != 1 || d[0].memory != hashMemory {
		t.Errorf("without users: %+v", d)
	}
}
