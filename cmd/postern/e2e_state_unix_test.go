//go:build unix

package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// Nothing in the state folder is open to others, whatever umask the server was started with: who may read it may read all mail.
func TestE2EStateIsClosed(t *testing.T) {
	r := newRig(t, nil)
	r.stop()
	conf := filepath.Join(r.dir, "postern.yaml")
	was := syscall.Umask(0)
	defer syscall.Umask(was)
	r.start()
	r.mustRunEnv(t, []byte(e2ePassword+"\n"), "login", "add", "-c", conf, "--state", "scanner", "--mailbox", sampleOther, "--password-stdin")
	r.snapshot(t, sampleUser, "INBOX")
	c := r.rawIMAP(t)
	c.login(sampleUser)
	c.cmd("SELECT INBOX")
	c.cmd("UID FETCH 1:* (BODY.PEEK[])")
	c.cmd("APPEND Archive {20+}\r\nSubject: x\r\n\r\nhello\r\n")
	_ = sendMail(r.addr["smtp/none"], sampleOther, sampleOther, "one@fabrikam.example", "<closed@e2e.example>") // may be put off
	r.mustRunEnv(t, nil, "reload", "-c", conf)
	r.mustRunEnv(t, nil, "backup", "-c", conf, "-o", filepath.Join(r.dir, "state", "backup.tar.zst"))
	within(t, 20*time.Second, "the last use of logins to be written down", func() bool {
		_, err := os.Stat(filepath.Join(r.dir, "state", "login-use.json"))
		return err == nil
	})
	n := 0
	err := filepath.WalkDir(filepath.Join(r.dir, "state"), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return nil // it has gone
		}
		n++
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return nil
	})
	if err != nil || n < 8 {
		t.Errorf("%d files seen, %v", n, err)
	}
}
