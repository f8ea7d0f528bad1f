package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"time"
)

var errMissing = errors.New("not installed")

// dovecot is a Dovecot of its own with one user and one Maildir; nothing of the system's is touched.
type dovecot struct {
	dir, conf, addr string
}

// startDovecot serves n messages.
func (b *bench) startDovecot(n int) (*dovecot, error) {
	if _, err := exec.LookPath("dovecot"); err != nil || os.Getuid() != 0 {
		return nil, errMissing
	}
	dir, err := os.MkdirTemp(b.dir, "dovecot-")
	if err != nil {
		return nil, err
	}
	d := &dovecot{dir: dir, conf: filepath.Join(dir, "dovecot.conf"), addr: fmt.Sprintf("127.0.0.1:%d", b.port)}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	mail, err := user.Lookup("mail")
	if err != nil {
		return nil, err
	}
	uid, _ := strconv.Atoi(mail.Uid)
	gid, _ := strconv.Atoi(mail.Gid)
	box := filepath.Join(dir, "mail")
	for _, sub := range []string{"", "cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(box, sub), 0o700); err != nil {
			return nil, err
		}
		if err := os.Chown(filepath.Join(box, sub), uid, gid); err != nil {
			return nil, err
		}
	}
	for i := range n {
		m := message(i)
		flags := "S"
		if i%10 == 0 {
			flags = ""
		}
		name := filepath.Join(box, "cur", fmt.Sprintf("%d.M%dP1.bench,S=%d,W=%d:2,%s", received(i).Unix(), i, len(m), len(m), flags))
		if err := os.WriteFile(name, m, 0o600); err != nil {
			return nil, err
		}
		if err := os.Chown(name, uid, gid); err != nil {
			return nil, err
		}
		if err := os.Chtimes(name, received(i), received(i)); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "passwd"), []byte(benchUser+":{PLAIN}"+benchPassword+"::::::\n"), 0o644); err != nil {
		return nil, err
	}
	conf := fmt.Sprintf(`base_dir = %[1]s/run
state_dir = %[1]s/run
log_path = %[1]s/log
instance_name = postern-bench
protocols = imap
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
mail_location = maildir:%[1]s/mail
first_valid_uid = 1
mail_max_userip_connections = 2000
passdb {
  driver = passwd-file
  args = %[1]s/passwd
}
userdb {
  driver = static
  args = uid=mail gid=mail home=%[1]s/mail
}
service imap-login {
  inet_listener imap {
    port = %[2]d
  }
  inet_listener imaps {
    port = 0
  }
  process_min_avail = 2
  service_count = 0
}
`, dir, b.port)
	if err := os.WriteFile(d.conf, []byte(conf), 0o644); err != nil {
		return nil, err
	}
	b.atEnd(d.close)
	// Without pipes: its daemons would hold them open.
	if err := exec.Command("dovecot", "-c", d.conf).Run(); err != nil {
		return nil, fmt.Errorf("start dovecot: %w", err)
	}
	return d, listening(d.addr)
}

func (d *dovecot) close() {
	_ = exec.Command("dovecot", "-c", d.conf, "stop").Run() // it may have ended
	time.Sleep(200 * time.Millisecond)
	os.RemoveAll(d.dir)
}
