package backend

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"postern/backend/graphsim"
	"postern/backend/store"
)

// Mail to users of this machine, as cron sends it, goes to the address given for them, or to the mailbox.
func TestDropForLocalUsers(t *testing.T) {
	for local, want := range map[string]string{"": alice, "admin@fabrikam.example": "admin@fabrikam.example"} {
		sim, url := newSim(t, graphsim.Options{})
		dir := t.TempDir()
		cfg := testConfig(t, url, filepath.Join(dir, "state"))
		cfg.Drop = DropConfig{Dir: filepath.Join(dir, "drop"), Local: local, Login: LoginConfig{Username: "sendmail", Mailbox: alice, RewriteFrom: true}}
		b, stop := start(t, cfg)
		env := Envelope{From: "root@host", Recipients: []Recipient{{Address: "root"}, {Address: "backup-user"}, {Address: "x@fabrikam.example"}}}
		id, err := DropMessage(cfg.Drop.Dir, env, strings.NewReader("From: root (Cron Daemon)\nTo: root\nSubject: Cron\n\noutput\n"), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, nil, "dropped message sent", func() bool {
			r, err := b.store.Outbox().Get(t.Context(), id)
			return err == nil && r.State == store.StateSent
		})
		if r, err := b.store.Outbox().Get(t.Context(), id); err != nil || len(r.Recipients) != 2 {
			t.Errorf("queued for %+v, error %v", r.Recipients, err)
		}
		stop()
		d := sim.Delivered()
		if len(d) != 1 || len(d[0].Recipients) != 2 || !slices.Contains(d[0].Recipients, want) {
			t.Errorf("delivered %+v", d)
		}
	}
}
