package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"postern/backend/graphsim"
)

// postfix is a Postfix of its own that takes mail, writes it to its queue and holds it there.
type postfix struct {
	dir, conf, addr string
}

func (b *bench) startPostfix() (*postfix, error) {
	if _, err := exec.LookPath("postfix"); err != nil || os.Getuid() != 0 {
		return nil, errMissing
	}
	dir, err := os.MkdirTemp(b.dir, "postfix-")
	if err != nil {
		return nil, err
	}
	p := &postfix{dir: dir, conf: filepath.Join(dir, "etc"), addr: fmt.Sprintf("127.0.0.1:%d", b.port+1)}
	for _, sub := range []string{"etc", "spool", "data"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	if out, err := exec.Command("chown", "postfix", filepath.Join(dir, "data")).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	main := fmt.Sprintf(`compatibility_level = 3.6
queue_directory = %[1]s/spool
data_directory = %[1]s/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = bench.localdomain
mydestination =
mynetworks = 127.0.0.0/8
smtpd_client_restrictions = check_client_access static:HOLD
smtpd_recipient_restrictions = permit_mynetworks, reject
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_tls_security_level = none
message_size_limit = 150000000
maillog_file = %[1]s/spool/maillog
maillog_file_prefixes = %[1]s
alias_maps =
default_process_limit = 100
`, dir)
	if err := os.WriteFile(filepath.Join(p.conf, "main.cf"), []byte(main), 0o644); err != nil {
		return nil, err
	}
	// The daemons of the distribution, without chroot, as the queue is not where theirs is.
	dist, err := os.ReadFile("/usr/share/postfix/master.cf.dist")
	if err != nil {
		return nil, err
	}
	master := regexp.MustCompile(`(?m)^smtp(\s+inet)`).ReplaceAllString(string(dist), p.addr+"$1")
	master = regexp.MustCompile(`(?m)^(\S+\s+(?:inet|unix)\s+\S+\s+\S+\s+)(?:-|y)(\s)`).ReplaceAllString(master, "${1}n${2}")
	if !strings.Contains(master, "\npostlog") {
		master += "postlog unix-dgram n - n - 1 postlogd\n"
	}
	if err := os.WriteFile(filepath.Join(p.conf, "master.cf"), []byte(master), 0o644); err != nil {
		return nil, err
	}
	b.atEnd(p.close)
	// Without pipes: its daemons would hold them open.
	if err := exec.Command("postfix", "-c", p.conf, "start").Run(); err != nil {
		return nil, fmt.Errorf("start postfix: %w; %s may say more", err, filepath.Join(dir, "spool", "maillog"))
	}
	return p, listening(p.addr)
}

func (p *postfix) empty() { _ = exec.Command("postsuper", "-c", p.conf, "-d", "ALL").Run() } // nothing depends on it

func (p *postfix) close() {
	_ = exec.Command("postfix", "-c", p.conf, "stop").Run() // it may have ended
	time.Sleep(200 * time.Millisecond)
	os.RemoveAll(p.dir)
}

// smtp compares how many messages a second are taken and are safe on the disk. Postfix holds them, Postern sends them at the pace of
// Exchange, thirty a minute.
func (b *bench) smtp() error {
	if _, err := exec.LookPath("smtp-source"); err != nil {
		fmt.Println("\nsmtp-source (of Postfix) is not installed: left out")
		return nil
	}
	runs := []struct {
		name                     string
		sessions, messages, size int
		keep                     bool
	}{
		{"2 KB, 1 session", 1, 2000, 2000, true},
		{"2 KB, 20 sessions", 20, 8000, 2000, true},
		{"2 KB, 1 connection each, 20 at once", 20, 4000, 2000, false},
		{"1 MB, 1 session", 1, 100, 1_000_000, true},
		{"1 MB, 20 sessions", 20, 300, 1_000_000, true},
	}
	one := func(addr string, i int) (time.Duration, error) {
		r := runs[i]
		args := []string{"-s", fmt.Sprint(r.sessions), "-m", fmt.Sprint(r.messages), "-l", fmt.Sprint(r.size), "-f", benchUser, "-t", "someone@fabrikam.example"}
		if r.keep {
			args = append(args, "-d")
		}
		return timed(func() error {
			out, err := exec.CommandContext(b.ctx, "smtp-source", append(args, addr)...).CombinedOutput()
			if err != nil {
				return fmt.Errorf("smtp-source: %w\n%s", err, out)
			}
			return nil
		})
	}
	ours := make([][]time.Duration, len(runs))
	theirs := make([][]time.Duration, len(runs))
	// In turns, so that both meet the same disk.
	missing := false
	for range max(1, min(3, b.rounds)) {
		w, err := b.newWorld(graphsim.Options{Latency: 50 * time.Millisecond}, 1, "smtp: {wait: 0s}\n", func(*graphsim.Sim, string) {})
		if err != nil {
			return err
		}
		if err := w.start(); err != nil {
			return err
		}
		for i := range runs {
			took, err := one(w.smtp, i)
			if err != nil {
				w.close()
				return fmt.Errorf("postern: %w", err)
			}
			ours[i] = append(ours[i], took)
		}
		w.close()
		p, err := b.startPostfix()
		if errors.Is(err, errMissing) {
			missing = true
			continue
		}
		if err != nil {
			return err
		}
		for i := range runs {
			took, err := one(p.addr, i)
			if err != nil {
				p.close()
				return fmt.Errorf("postfix: %w", err)
			}
			theirs[i] = append(theirs[i], took)
			p.empty()
		}
		p.close()
	}
	if missing {
		fmt.Println("\npostfix cannot be run here (it takes the package and root): Postern alone")
	}
	rate := func(i int, d []time.Duration) string {
		if len(d) == 0 {
			return ""
		}
		var out []string
		for _, one := range d {
			out = append(out, fmt.Sprintf("%.0f", float64(runs[i].messages)/one.Seconds()))
		}
		return strings.Join(out, " / ")
	}
	var rows [][]string
	for i, r := range runs {
		row := []string{r.name, rate(i, ours[i]), rate(i, theirs[i]), ""}
		if len(theirs[i]) > 0 {
			row[3] = ratio(median(theirs[i]), median(ours[i]))
		}
		rows = append(rows, row)
	}
	table("SMTP, messages a second taken and synced", []string{"", "Postern", "Postfix", "Postern/Postfix (medians)"}, rows)
	return nil
}
