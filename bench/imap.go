package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"postern/backend/graphsim"
)

// step is one thing a client does in an open mailbox.
type step struct {
	name string
	run  func(c *client) error
}

func command(format string, args ...any) func(c *client) error {
	return func(c *client) error {
		_, err := c.do(format, args...)
		return err
	}
}

const (
	listHeaders = "BODY.PEEK[HEADER.FIELDS (From To Cc Bcc Subject Date Message-ID Priority X-Priority References Newsgroups In-Reply-To Content-Type Reply-To)]"
	bodyCount   = 1000
)

// imapSteps are what the aims name, and what else mail programs do all the time.
var imapSteps = []step{
	{"STATUS (MESSAGES UIDNEXT UNSEEN)", command("STATUS INBOX (MESSAGES UIDNEXT UNSEEN)")},
	{"SELECT", command("SELECT INBOX")},
	{"UID FETCH 1:* (UID FLAGS)", command("UID FETCH 1:* (UID FLAGS)")},
	{"UID FETCH 1:* (FLAGS INTERNALDATE RFC822.SIZE ENVELOPE)", command("UID FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE)")},
	{"Thunderbird's list of headers", command("UID FETCH 1:* (UID RFC822.SIZE FLAGS " + listHeaders + ")")},
	{"1,000 texts, one command", command("FETCH 1:%d (UID BODY.PEEK[])", bodyCount)},
	{"1,000 texts, 1,000 commands", func(c *client) error {
		for i := range bodyCount {
			if _, err := c.do("FETCH %d (UID BODY.PEEK[])", i+1); err != nil {
				return err
			}
		}
		return nil
	}},
	{"SEARCH SUBJECT", command("UID SEARCH SUBJECT NEEDLE")},
	{"SEARCH FROM", command("UID SEARCH FROM lee.gu@fabrikam.example")},
	{"SEARCH UNSEEN", command("UID SEARCH UNSEEN")},
	{"NOOP", command("NOOP")},
}

type timing struct{ first, best, median time.Duration }

// measure runs the steps so many times, each round on a connection of its own.
func measure(addr string, steps []step, rounds int) (map[string]timing, error) {
	all := make(map[string][]time.Duration)
	for range rounds {
		c, err := dial(addr, benchUser, benchPassword)
		if err != nil {
			return nil, err
		}
		for _, s := range steps {
			took, err := timed(func() error { return s.run(c) })
			if err != nil {
				c.close()
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			all[s.name] = append(all[s.name], took)
		}
		c.close()
	}
	out := make(map[string]timing)
	for name, d := range all {
		t := timing{first: d[0], best: d[0], median: median(d)}
		for _, one := range d {
			t.best = min(t.best, one)
		}
		out[name] = t
	}
	return out, nil
}

// mailWorld is a Postern with n messages in its mailbox, the same that Dovecot serves.
func (b *bench) mailWorld(opts graphsim.Options, n int, extra string) (*world, error) {
	return b.newWorld(opts, 1, extra, func(sim *graphsim.Sim, user string) {
		sim.AddSynthetic(user, "inbox", n, graphsim.Synthetic{MIME: message, Newest: received(n - 1), Step: 10 * time.Minute})
	})
}

func (b *bench) imap() error {
	for _, n := range b.sizes {
		if err := b.imapSize(n); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) imapSize(n int) error {
	w, err := b.mailWorld(graphsim.Options{}, n, "imap: {poll: 5s}\n")
	if err != nil {
		return err
	}
	defer w.close()
	if err := w.start(); err != nil {
		return err
	}
	c, err := dial(w.imap, benchUser, benchPassword)
	if err != nil {
		return err
	}
	opened, err := timed(func() error { _, err := c.do("SELECT INBOX"); return err })
	if err != nil {
		return err
	}
	c.close()
	headers, err := timed(func() error { w.quiet(3*time.Second, 5*time.Minute); return nil })
	if err != nil {
		return err
	}
	calls := len(w.sim.Requests())
	ours, err := measure(w.imap, imapSteps, b.rounds)
	if err != nil {
		return fmt.Errorf("postern: %w", err)
	}
	rss := w.memory("VmRSS")
	if err := w.stop(); err != nil {
		return err
	}
	var theirs map[string]timing
	d, err := b.startDovecot(n)
	switch {
	case errors.Is(err, errMissing):
		fmt.Println("\ndovecot cannot be run here (it takes the package and root): Postern alone")
	case err != nil:
		return err
	default:
		defer d.close()
		if theirs, err = measure(d.addr, imapSteps, b.rounds); err != nil {
			return fmt.Errorf("dovecot: %w", err)
		}
	}
	var rows [][]string
	for _, s := range imapSteps {
		o, t := ours[s.name], theirs[s.name]
		rows = append(rows, []string{s.name, ms(o.first), ms(o.median), ms(o.best), ms(t.first), ms(t.median), ms(t.best), ratio(t.median, o.median)})
	}
	table(fmt.Sprintf("IMAP, %d messages", n), []string{"step", "Postern first", "median", "best", "Dovecot first", "median", "best", "Dovecot/Postern (medians)"}, rows)
	fmt.Printf("\nFirst open without latency of Graph: %v, headers and newest texts read %v later, %d calls; memory afterwards: %.0f MB.\n", opened.Round(time.Millisecond),
		(headers - 3*time.Second).Round(time.Second), calls, rss)
	return nil
}

// mbsync copies a mailbox of 5,000 messages: more would meet Graph's limit of 10,000 requests in ten minutes, not a server's.
func (b *bench) mbsync() error {
	if _, err := exec.LookPath("mbsync"); err != nil {
		fmt.Println("\nmbsync is not installed: left out")
		return nil
	}
	const n = 5000
	w, err := b.mailWorld(graphsim.Options{}, n, "imap: {poll: 5s}\n")
	if err != nil {
		return err
	}
	defer w.close()
	if err := w.start(); err != nil {
		return err
	}
	row := func(name, addr string, times int) ([]string, error) {
		out := []string{name}
		dir, err := os.MkdirTemp(b.dir, "mbsync-")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
		for range times {
			took, err := timed(func() error { return runMbsync(b, dir, addr) })
			if err != nil {
				return nil, err
			}
			out = append(out, ms(took))
		}
		return out, nil
	}
	var rows [][]string
	first, err := row("Postern, nothing read yet", w.imap, 3)
	if err != nil {
		return err
	}
	rows = append(rows, first)
	kept, err := row("Postern, texts kept", w.imap, 3)
	if err != nil {
		return err
	}
	rows = append(rows, kept)
	if err := w.stop(); err != nil {
		return err
	}
	d, err := b.startDovecot(n)
	if err == nil {
		defer d.close()
		for _, name := range []string{"Dovecot, no index yet", "Dovecot, indexed"} {
			r, err := row(name, d.addr, 3)
			if err != nil {
				return err
			}
			rows = append(rows, r)
		}
	} else if !errors.Is(err, errMissing) {
		return err
	}
	table(fmt.Sprintf("mbsync, %d messages", n), []string{"server", "first run", "second", "third"}, rows)
	return nil
}

func runMbsync(b *bench, dir, addr string) error {
	host, port := "127.0.0.1", addr[len("127.0.0.1:"):]
	conf := fmt.Sprintf("IMAPAccount a\nHost %s\nPort %s\nUser %s\nPass %s\nSSLType None\nAuthMechs LOGIN\n\nIMAPStore r\nAccount a\n\nMaildirStore l\nPath %s/\nInbox %s/INBOX\n\nChannel c\nFar :r:\nNear :l:\nPatterns INBOX\nCreate Near\nSync All\nSyncState *\n",
		host, port, benchUser, benchPassword, dir, dir)
	name := filepath.Join(dir, "rc")
	if err := os.WriteFile(name, []byte(conf), 0o600); err != nil {
		return err
	}
	cmd := exec.CommandContext(b.ctx, "mbsync", "-q", "-c", name, "c")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mbsync: %w\n%s", err, out)
	}
	return nil
}
