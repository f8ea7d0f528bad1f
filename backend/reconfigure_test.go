package backend

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend/graphsim"
	"postern/backend/store"
	"postern/backend/token"
)

func reconfigure(t *testing.T, b *Backend, cfg Config) Changed {
	t.Helper()
	ch, err := b.Reconfigure(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// Mailboxes come and go and come again while others are open.
func TestReconfigureMailboxes(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	sim.AddUser(testTenant, graphsim.UserSpec{UPN: "carol@contoso.example", DisplayName: "Carol"})
	sim.AddMessage("carol@contoso.example", "inbox", mail(1), graphsim.MessageSpec{})
	dir := t.TempDir()
	cfg := testConfig(t, url, dir)
	b, _ := start(t, cfg)
	inbox := open(t, accountOf(t, b, alice), "INBOX")
	bobs, bobLogin := open(t, accountOf(t, b, bob), "INBOX"), loginOf(t, b, bob)

	next := testConfig(t, url, dir)
	next.Mailboxes = []MailboxConfig{{Address: "Alice@contoso.example", Credential: "contoso", Aliases: []string{"a@contoso.example"}}, {Address: "carol@contoso.example", Credential: "contoso"}}
	if ch := reconfigure(t, b, next); !reflect.DeepEqual(ch, Changed{Added: []string{"carol@contoso.example"}, Removed: []string{bob}}) {
		t.Errorf("changed: %+v", ch)
	}
	if m := open(t, accountOf(t, b, "carol@contoso.example"), "INBOX"); len(m.UIDs()) != 1 {
		t.Errorf("the new mailbox shows %d messages", len(m.UIDs()))
	}
	if _, ok := b.Account(bob); ok {
		t.Error("bob is still there")
	}
	if _, err := b.NewSubmission(bobLogin, envelope(alice)); KindOf(err) != Denied {
		t.Errorf("a message through the mailbox that is gone: %v", err)
	}
	if a, ok := b.Account("A@contoso.example"); !ok || a != accountOf(t, b, alice) {
		t.Error("no new alias")
	}
	sim.AddMessage(alice, "inbox", mail(2), graphsim.MessageSpec{})
	eventually(t, inbox, "mail in a session that was open before", func() bool { return len(inbox.UIDs()) == 1 })
	eventually(t, nil, "the end of the session of a mailbox that is gone", func() bool { return bobs.Gone() })

	// Back again: the same account, in step again.
	sim.AddMessage(bob, "inbox", mail(3), graphsim.MessageSpec{})
	if ch := reconfigure(t, b, cfg); !reflect.DeepEqual(ch, Changed{Added: []string{bob}, Removed: []string{"carol@contoso.example"}}) {
		t.Errorf("changed: %+v", ch)
	}
	again := open(t, accountOf(t, b, bob), "INBOX")
	eventually(t, again, "mail in the mailbox that is back", func() bool { return len(again.UIDs()) == 1 })
	sim.AddMessage(bob, "inbox", mail(4), graphsim.MessageSpec{})
	eventually(t, again, "more of it", func() bool { return len(again.UIDs()) == 2 })
}

// A new secret brings mailboxes and waiting mail back at once, without anybody waiting for a next try.
func TestReconfigureSecret(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	dir := t.TempDir()
	cfg := testConfig(t, url, dir)
	wrong := cfg.Credentials["contoso"]
	wrong.ClientSecret = "wrong"
	cfg.Credentials = map[string]token.Credential{"contoso": wrong}
	cfg.SendWait = 0
	b, _ := start(t, cfg)
	id, err := submit(t, b, loginOf(t, b, alice), envelope(bob), "To: bob@contoso.example\r\nSubject: waits\r\n\r\nhello\r\n")
	if err != nil {
		t.Fatal(err)
	}
	row := func() *store.Submission {
		r, err := b.store.Outbox().Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	eventually(t, nil, "a failed attempt", func() bool { r := row(); return r.Attempts > 0 && r.State == store.StateQueued })

	if ch := reconfigure(t, b, testConfig(t, url, dir)); !slices.Equal(ch.SignIn, []string{alice, bob}) {
		t.Errorf("changed: %+v", ch)
	}
	eventually(t, nil, "the mail that waited", func() bool { return row().State == store.StateSent })
	if n := len(sim.Delivered()); n != 1 {
		t.Errorf("%d messages sent", n)
	}
	open(t, accountOf(t, b, alice), "INBOX")
}

// What is refused changes nothing.
func TestReconfigureRefused(t *testing.T) {
	_, url := newSim(t, graphsim.Options{})
	dir := t.TempDir()
	cfg := testConfig(t, url, dir)
	b, _ := start(t, cfg)
	hash, err := HashPassword("pw")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Config){
		"state":       func(c *Config) { c.State = t.TempDir() },
		"credential":  func(c *Config) { c.Mailboxes[0].Credential = "none" },
		"alias twice": func(c *Config) { c.Mailboxes[0].Aliases = []string{bob} },
		"login": func(c *Config) {
			c.Logins = []LoginConfig{{Username: "x", PasswordHash: hash, Mailbox: "nobody@contoso.example"}}
		},
		"drop's mailbox": func(c *Config) {
			c.Drop = DropConfig{Dir: filepath.Join(dir, "drop"), Login: LoginConfig{Mailbox: "nobody"}}
		},
		"drop's folder": func(c *Config) {
			c.Drop = DropConfig{Dir: filepath.Join(file, "drop"), Login: LoginConfig{Mailbox: alice}}
		},
	} {
		next := testConfig(t, url, dir)
		next.Poll = time.Hour
		next.Mailboxes = append(slices.Clone(next.Mailboxes), MailboxConfig{Address: "carol@contoso.example", Credential: "contoso"})
		spoil(&next)
		if _, err := b.Reconfigure(next); err == nil {
			t.Errorf("%s: taken over", name)
		}
		if len(b.Accounts()) != 2 || b.config().Poll != cfg.Poll {
			t.Errorf("%s: half taken over", name)
		}
	}
}

// Settings hold at once, for accounts that are there.
func TestReconfigureSettings(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	dir := t.TempDir()
	cfg := testConfig(t, url, dir)
	cfg.Poll = time.Hour
	b, _ := start(t, cfg)
	a := accountOf(t, b, alice)
	m := open(t, a, "INBOX")
	for i := range 3 {
		sim.AddMessage(alice, "inbox", mail(i), graphsim.MessageSpec{})
	}

	next := testConfig(t, url, dir)
	next.Delete, next.MaxMessage, next.QueueLifetime = DeleteTrash, 1000, time.Hour
	next.Drop = DropConfig{Dir: filepath.Join(dir, "drop"), Login: LoginConfig{Username: "sendmail", Mailbox: alice, RewriteFrom: true}}
	next.Mailboxes[0].Quota = 5e9
	reconfigure(t, b, next)
	if q, err := a.Quota(t.Context()); err != nil || q.Limit != 5e9 {
		t.Errorf("quota %+v: %v", q, err)
	}
	eventually(t, m, "mail by the new poll time", func() bool { return len(m.UIDs()) == 3 })
	big, err := a.NewMessage()
	if err != nil {
		t.Fatal(err)
	}
	defer big.Discard()
	if _, err := big.Write(make([]byte, 2000)); KindOf(err) != TooLarge {
		t.Errorf("append over the new limit: %v", err)
	}
	id, err := DropMessage(next.Drop.Dir, Envelope{Recipients: []Recipient{{Address: bob}}}, strings.NewReader("Subject: dropped\n\nhello\n"), 1000)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, nil, "a message from the new drop folder", func() bool { return len(sim.Delivered()) == 1 })
	r, err := b.store.Outbox().Get(t.Context(), id)
	if err != nil || r.Expires.Sub(r.Created) != time.Hour {
		t.Errorf("its lifetime is %v, %v", r.Expires.Sub(r.Created), err)
	}
	if _, err := m.Store(t.Context(), m.UIDs(), StoreAdd, []imap.Flag{imap.FlagDeleted}, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Expunge(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	trash := open(t, a, "Trash")
	eventually(t, trash, "what was expunged, in Trash by the new rule", func() bool { return len(trash.UIDs()) == 3 })

	reconfigure(t, b, testConfig(t, url, dir))
	if b.drop.folder != nil || b.drop.done != nil {
		t.Error("the drop folder is still read")
	}
}

// Changes while clients work: nothing races, nothing hangs.
func TestReconfigureStorm(t *testing.T) {
	_, url := newSim(t, graphsim.Options{})
	dir := t.TempDir()
	cfg := testConfig(t, url, dir)
	b, stop := start(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				a, ok := b.Account([]string{alice, bob}[n%2])
				if !ok {
					continue
				}
				m, err := a.Open(ctx, "INBOX", false)
				if err != nil {
					continue // it has just gone
				}
				for _, uid := range m.UIDs() {
					_, _ = m.Store(ctx, []imap.UID{uid}, StoreAdd, []imap.Flag{imap.FlagDeleted}, 0)
					_, _ = m.Expunge(ctx, []imap.UID{uid})
				}
				if nm, err := a.NewMessage(); err == nil {
					_, _ = nm.Write(fmt.Appendf(nil, "Subject: %d %d\r\n\r\nx\r\n", i, n))
					_, _, _ = a.Append(ctx, "INBOX", nil, time.Now(), nm)
					nm.Discard()
				}
				m.Close()
			}
		})
	}
	for i := range 20 {
		next := testConfig(t, url, dir)
		if i%2 == 0 {
			next.Mailboxes = next.Mailboxes[:1]
		}
		if i%3 == 0 {
			next.Drop = DropConfig{Dir: filepath.Join(dir, "drop"), Login: LoginConfig{Mailbox: alice}}
		}
		reconfigure(t, b, next)
		time.Sleep(20 * time.Millisecond)
	}
	cancel()
	wg.Wait()
	stop()
}
