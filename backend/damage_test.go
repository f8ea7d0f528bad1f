package backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend/graphsim"
	"postern/backend/store"
	"postern/internal/faultrun"
)

// spoil damages a file the way disks, copies and people do, and says how.
func spoil(t *testing.T, path string, rnd *rand.Rand) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const page = 4096
	pages := len(b) / page
	how := ""
	switch rnd.IntN(8) {
	case 0:
		n := rnd.IntN(len(b))
		b, how = b[:n], fmt.Sprintf("cut off at %d of %d bytes", n, len(b))
	case 1:
		from, n := rnd.IntN(pages), 1+rnd.IntN(8)
		clear(b[from*page : min(len(b), (from+n)*page)])
		how = fmt.Sprintf("%d pages from %d on are zero", n, from)
	case 2:
		n := rnd.IntN(100)
		for i := range n {
			b[i] = byte(rnd.Uint32())
		}
		how = fmt.Sprintf("the first %d bytes are garbage", n)
	default:
		for range 1 + rnd.IntN(3) {
			at := rnd.IntN(pages)
			for i := range page {
				b[at*page+i] = byte(rnd.Uint32())
			}
			how += fmt.Sprint(" ", at)
		}
		how = "garbage in pages" + how
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return how
}

// Wherever a replica is damaged, it is either told at the start, with what to do, or shows when the damaged part is read: by an
// error that says so, never by wrong mail. When the file has been moved away everything is read anew under another UIDVALIDITY, and
// the mail that waits leaves.
func TestReplicaDamagedAnywhere(t *testing.T) {
	quickly(t)
	rnd := rand.New(rand.NewPCG(faultrun.Seed(t, 3), 4))
	end := time.Now().Add(faultrun.Length(t, 0))
	sim, url := newSim(t, graphsim.Options{})
	const each = 150
	boxes := []string{"INBOX", "Archive"}
	for i := range each {
		sim.AddMessage(alice, "inbox", mail(i), graphsim.MessageSpec{IsRead: i%2 == 0, Categories: []string{"Red", "Blue"}[:i%3]})
		sim.AddMessage(alice, "archive", mail(1000+i), graphsim.MessageSpec{})
	}
	whole := t.TempDir()
	cfg := testConfig(t, url, whole)
	b, stop := start(t, cfg)
	a := accountOf(t, b, alice)
	validity := make(map[string]uint32)
	subject := make(map[string]string) // by mailbox and UID
	for _, name := range boxes {
		m := open(t, a, name)
		eventually(t, m, "all of "+name, func() bool { return len(m.UIDs()) == each })
		validity[name] = m.UIDValidity()
		for _, uid := range m.UIDs() {
			subject[fmt.Sprint(name, uid)] = subjectOf(readBody(t, m, uid))
		}
	}
	stop()

	told, shown, hidden := 0, 0, 0
	for round := 0; round < 8 || time.Now().Before(end); round++ {
		cfg.State = filepath.Join(t.TempDir(), "state")
		if err := os.CopyFS(cfg.State, os.DirFS(whole)); err != nil {
			t.Fatal(err)
		}
		inject(t, sim, graphsim.Fault{Path: "/send(Mail)?$", Status: 503})
		b, stop := start(t, cfg)
		id, err := submit(t, b, loginOf(t, b, alice), envelope("x@fabrikam.example"),
			fmt.Sprintf("From: %s\nTo: x@fabrikam.example\nMessage-ID: <waits.%d@contoso.example>\n\nhello\n", alice, round))
		if err != nil {
			t.Fatal(err)
		}
		stop()
		path := filepath.Join(cfg.State, "replica.db")
		for _, suffix := range []string{"-wal", "-shm"} {
			if err := os.Remove(path + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
		}
		how := spoil(t, path, rnd)
		if b, err := New(cfg); err != nil {
			told++
			if text := err.Error(); !errors.Is(err, store.ErrDamaged) || !strings.Contains(text, path) || !strings.Contains(text, "move the file") {
				t.Errorf("%s: the error says %q", how, text)
			}
		} else if readDamaged(t, b, boxes, each, subject, how) {
			shown++
		} else {
			hidden++
		}

		if err := os.Rename(path, path+".damaged"); err != nil {
			t.Fatal(err)
		}
		for _, suffix := range []string{"-wal", "-shm"} {
			_ = os.Remove(path + suffix)
		}
		sim.ClearFaults()
		b, stop = start(t, cfg)
		a := accountOf(t, b, alice)
		for _, name := range boxes {
			m := open(t, a, name)
			eventually(t, m, "all of "+name+" again", func() bool { return len(m.UIDs()) == each })
			if m.UIDValidity() <= validity[name] {
				t.Errorf("%s: UIDVALIDITY of %s was %d and is %d", how, name, validity[name], m.UIDValidity())
			}
		}
		if row := settledRow(t, b, id); row.State != store.StateSent {
			t.Errorf("%s: the message that waited is %s: %s", how, row.State, row.LastError)
		}
		if n := arrivals(sim)[fmt.Sprintf("<waits.%d@contoso.example>", round)]; n != 1 {
			t.Errorf("%s: the message that waited arrived %d times", how, n)
		}
		stop()
		if t.Failed() {
			t.Fatalf("round %d: %s", round, how)
		}
	}
	t.Logf("damage told at the start %d times, when it was read %d times, not met %d times", told, shown, hidden)
	if told == 0 {
		t.Errorf("the run shows little")
	}
}

// readDamaged reads what it can of damaged mailboxes and reports whether anything was refused.
func readDamaged(t *testing.T, b *Backend, boxes []string, each int, subject map[string]string, how string) (refused bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- b.Run(ctx) }()
	defer func() {
		cancel()
		select {
		case <-ran: // with an error or not: the damage may be in its way
		case <-time.After(time.Minute):
			t.Fatalf("%s: the server does not stop", how)
		}
		_ = b.Close()
	}()
	fails := func(what string, err error) bool {
		if err == nil {
			return false
		}
		refused = true
		// Whatever the store says of damaged rows; what matters is that it is said, and to clients as the server's fault.
		if k := KindOf(err); k != Internal && k != NotFound && k != Unavailable {
			t.Errorf("%s: %s: %v (%v)", how, what, err, k)
		}
		return true
	}
	a := accountOf(t, b, alice)
	asked, stopAsking := context.WithTimeout(ctx, 20*time.Second)
	defer stopAsking()
	for _, name := range boxes {
		m, err := a.Open(asked, name, false)
		if fails("open "+name, err) {
			continue
		}
		for _, uid := range m.UIDs() {
			body, err := m.Body(asked, uid)
			if fails("body", err) {
				continue
			}
			text, err := io.ReadAll(io.NewSectionReader(body, 0, body.Size()))
			body.Close()
			if fails("text", err) {
				continue
			}
			if want, ok := subject[fmt.Sprint(name, uid)]; ok && m.UIDValidity() != 0 && subjectOf(string(text)) != want {
				t.Errorf("%s: %s has %q as UID %d, which was %q", how, name, subjectOf(string(text)), uid, want)
			}
		}
		if len(m.UIDs()) != each {
			refused = true
		}
		_, err = m.Store(asked, []imap.UID{1}, StoreAdd, []imap.Flag{imap.FlagFlagged}, 0)
		fails("store", err)
		m.Close()
	}
	return refused
}

func subjectOf(text string) string {
	_, rest, _ := strings.Cut(text, "Subject: ")
	subject, _, _ := strings.Cut(rest, "\r\n")
	return subject
}
