package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/backend/graphsim"
)

// SIGHUP takes over logins and the certificate; a faulty file changes nothing.
func TestE2EReload(t *testing.T) {
	r := newRig(t, nil)
	path := filepath.Join(r.dir, "postern.yaml")
	login := func(user, password string) error {
		return smtpLogin(r.addr["smtp/none"], user, password)
	}
	if err := login(sampleOther, e2ePassword); err != nil {
		t.Fatal(err)
	}
	hup := func() {
		if err := r.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	var stdin bytes.Buffer
	stdin.WriteString("new password\n")
	r.mustRunEnv(t, stdin.Bytes(), "login", "add", "-c", path, "--mailbox", sampleOther, "--password-stdin", "scanner")
	r.mustRunEnv(t, nil, "login", "revoke", "-c", path, sampleOther)
	oldCert := r.servedCertificate(t)
	r.writeCertificate()
	hup()
	within(t, 10*time.Second, "the new login", func() bool { return login("scanner", "new password") == nil })
	if err := login(sampleOther, e2ePassword); err == nil {
		t.Error("a revoked login still works")
	}
	if bytes.Equal(oldCert, r.servedCertificate(t)) {
		t.Error("the old certificate is still served")
	}

	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(good, "colour: red\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	hup()
	within(t, 10*time.Second, "the fault in the log", func() bool { return strings.Contains(r.log.String(), "unknown key colour") })
	if err := login("scanner", "new password"); err != nil {
		t.Errorf("after a faulty file: %v", err)
	}
	r.stop()
}

// rewrite changes the configuration and lets the server take it over; want is in the log then.
func (r *rig) rewrite(t *testing.T, want string, oldnew ...string) {
	t.Helper()
	path := filepath.Join(r.dir, "postern.yaml")
	src, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := string(src)
	for i := 0; i < len(oldnew); i += 2 {
		if !strings.Contains(text, oldnew[i]) {
			t.Fatalf("the configuration has no %s", oldnew[i])
		}
		text = strings.Replace(text, oldnew[i], oldnew[i+1], 1)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	before := strings.Count(r.log.all(), want)
	if err := r.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	within(t, 10*time.Second, "the log to say: "+want, func() bool { return strings.Count(r.log.all(), want) > before })
}

// talk is a connection whose lines a test writes and reads.
type talk struct {
	t *testing.T
	*textproto.Conn
}

func dial(t *testing.T, addr string) *talk {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return &talk{t, textproto.NewConn(c)}
}

// say sends a line, if there is one, and reads up to a line with one of these beginnings, which it returns.
func (c *talk) say(line string, until ...string) string {
	c.t.Helper()
	if line != "" {
		if err := c.PrintfLine("%s", line); err != nil {
			c.t.Fatal(err)
		}
	}
	for {
		got, err := c.ReadLine()
		if err != nil {
			c.t.Fatalf("after %q: %v", line, err)
		}
		for _, u := range until {
			if strings.HasPrefix(got, u) {
				return got
			}
		}
	}
}

func plainAuth(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + password))
}

// All but the state folder is taken over by SIGHUP, and whoever is connected stays so.
func TestE2EReloadAll(t *testing.T) {
	r := newRig(t, func(s *graphsim.Sim) { s.AddUser(sampleTenant, graphsim.UserSpec{UPN: "dora@contoso.example"}) })
	quoted := fmt.Sprintf("%q", e2ePassword)
	t.Setenv("E2E_SECRET", sampleSecret) // for commands that look at the configuration

	idle := dial(t, r.addr["imap/none"])
	idle.say("", "* OK")
	idle.say("a login "+sampleUser+" "+quoted, "a OK")
	idle.say("b select INBOX", "b OK")
	idle.say("c idle", "+")
	message := dial(t, r.addr["smtp/none"])
	message.say("", "220 ")
	message.say("EHLO x", "250 ")
	message.say("AUTH PLAIN "+plainAuth(sampleUser, e2ePassword), "235")
	message.say("MAIL FROM:<"+sampleUser+">", "250")
	message.say("RCPT TO:<"+sampleOther+">", "250")
	message.say("DATA", "354")
	if err := message.PrintfLine("Subject: over a reload\r\n\r\nfirst half"); err != nil {
		t.Fatal(err)
	}

	// A listener more, one on the same port changed, one less, a mailbox, a limit.
	extra := freePort(t)
	implicit := r.addr["smtp/implicit"]
	r.rewrite(t, "configuration taken over",
		`{protocol: smtp, address: "127.0.0.1:0", tls: implicit}`, `{protocol: imap, address: "`+extra+`", tls: none}`,
		`{protocol: imap, address: "127.0.0.1:0", tls: starttls}`, `{protocol: imap, address: "127.0.0.1:0", tls: none}`,
		"mailboxes:\n", "smtp: {max_message: 100KB}\nmailboxes:\n  - {address: dora@contoso.example, credential: c}\n",
		"logins:\n", "logins:\n  - {username: dora, password_hash: "+r.hash(t)+", mailbox: dora@contoso.example}\n")
	if _, err := net.Dial("tcp", implicit); err == nil {
		t.Error("the listener that was taken out still answers")
	}
	dora := dial(t, extra)
	dora.say("", "* OK")
	dora.say("a login dora "+quoted, "a OK")
	dora.say("b select INBOX", "b OK")
	now := dial(t, r.addr["imap/starttls"])
	if greeting := now.say("", "* OK"); strings.Contains(greeting, "STARTTLS") {
		t.Errorf("the changed listener says %s", greeting)
	}
	small := dial(t, r.addr["smtp/none"])
	small.say("", "220 ")
	if size := small.say("EHLO x", "250-SIZE", "250 SIZE"); !strings.HasSuffix(size, " 100000") {
		t.Errorf("the new limit is told as %s", size)
	}

	// The sessions of before.
	if err := message.PrintfLine("second half"); err != nil {
		t.Fatal(err)
	}
	message.say(".", "250")
	message.say("NOOP", "250")
	within(t, 10*time.Second, "the message", func() bool { return len(r.sim.Delivered()) == 1 })
	if got := string(r.sim.Delivered()[0].MIME); !strings.Contains(got, "first half\r\nsecond half") {
		t.Errorf("it arrived as %q", got)
	}
	r.sim.DeliverMessage(sampleUser, []byte("From: a@b.example\r\nSubject: new\r\n\r\nx\r\n"))
	idle.say("", "* ") // EXISTS
	if err := idle.PrintfLine("DONE"); err != nil {
		t.Fatal(err)
	}
	idle.say("", "c OK")
	idle.say("d noop", "d OK")

	// What cannot be taken over is refused whole: here a port somebody else has, and with it the rest of the file.
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	r.rewrite(t, "is taken by another program", extra, taken.Addr().String(), "max_message: 100KB", "max_message: 200KB")
	still := dial(t, extra)
	still.say("", "* OK")
	small = dial(t, r.addr["smtp/none"])
	small.say("", "220 ")
	if size := small.say("EHLO x", "250-SIZE", "250 SIZE"); !strings.HasSuffix(size, " 100000") {
		t.Errorf("after a refused configuration the limit is told as %s", size)
	}

	// From this machine alone to the whole network on the same port, as one does when a printer is to be let in.
	_, port, _ := net.SplitHostPort(extra)
	r.rewrite(t, "configuration taken over", taken.Addr().String()+`", tls: none`, "0.0.0.0:"+port+`", tls: starttls`)
	wide := dial(t, extra)
	if greeting := wide.say("", "* OK"); !strings.Contains(greeting, "STARTTLS") {
		t.Errorf("the wider listener says %s", greeting)
	}
	// And a clash that cannot be solved gives the port back.
	r.rewrite(t, "is taken by another program", "0.0.0.0:"+port, "127.0.0.1:"+port, "200KB", "300KB",
		"listeners:\n", "listeners:\n  - {protocol: smtp, address: \""+taken.Addr().String()+"\"}\n")
	back := dial(t, extra)
	if greeting := back.say("", "* OK"); !strings.Contains(greeting, "STARTTLS") {
		t.Errorf("after a refused configuration: %s", greeting)
	}

	// The same by command, which tells what came of it.
	path := filepath.Join(r.dir, "postern.yaml")
	if out, err := r.run(nil, program(t), "reload", "-c", path); err == nil || !strings.Contains(out, "not taken over") || !strings.Contains(out, "is taken by another program") {
		t.Errorf("a port of somebody else: %v\n%s", err, out)
	}

	// Another state folder is said to need a restart; the rest is taken over.
	r.rewrite(t, "another state folder holds only after a restart", "listeners:\n  - {protocol: smtp, address: \""+taken.Addr().String()+"\"}\n", "listeners:\n",
		"state: state", "state: elsewhere")
	within(t, 10*time.Second, "the rest", func() bool {
		c := dial(t, r.addr["smtp/none"])
		c.say("", "220 ")
		return strings.HasSuffix(c.say("EHLO x", "250-SIZE", "250 SIZE"), " 300000")
	})
	if _, err := os.Stat(filepath.Join(r.dir, "elsewhere")); err == nil {
		t.Error("the other state folder was made")
	}

	r.rewrite(t, "configuration taken over", "state: elsewhere", "state: state")
	if out, err := r.run(nil, program(t), "reload", "-c", path); err != nil || !strings.Contains(out, "Taken over.") {
		t.Errorf("%v\n%s", err, out)
	}

	// A mailbox that goes takes its sessions along, and nobody else's.
	r.rewrite(t, "configuration taken over", "  - {address: dora@contoso.example, credential: c}\n", "",
		"  - {username: dora, password_hash: "+r.hash(t)+", mailbox: dora@contoso.example}\n", "")
	dora.say("", "* BYE")
	idle.say("e noop", "e OK")
	r.stop()
}

// hash returns the hash of the rig's password, always the same.
func (r *rig) hash(t *testing.T) string {
	t.Helper()
	src, err := os.ReadFile(filepath.Join(r.dir, "postern.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(src), "    password_hash: ")
	hash, _, _ := strings.Cut(after, "\n")
	return "\"" + hash + "\""
}

// What is done to a login by command ends the sessions it has, in the file as in the state folder, and no others.
func TestE2ELoginCommandsEndSessions(t *testing.T) {
	r := newRig(t, nil)
	path := filepath.Join(r.dir, "postern.yaml")
	quoted := fmt.Sprintf("%q", "pass word")
	for _, place := range []string{"", "--state"} {
		for _, name := range []string{"revoked", "renamed", "changed", "stays"} {
			args := []string{"login", "add", "-c", path, "--mailbox", sampleOther, "--password-stdin", name}
			if place != "" {
				args = append(args, place)
			}
			r.mustRunEnv(t, []byte("pass word\n"), args...)
		}
		within(t, 10*time.Second, "the new logins", func() bool { return smtpLogin(r.addr["smtp/none"], "stays", "pass word") == nil })
		reads, sends := make(map[string]*talk), make(map[string]*talk)
		for _, name := range []string{"revoked", "renamed", "changed", "stays"} {
			c := dial(t, r.addr["imap/none"])
			c.say("", "* OK")
			c.say("a login "+name+" "+quoted, "a OK")
			c.say("b select INBOX", "b OK")
			c.say("c idle", "+")
			reads[name] = c
			c = dial(t, r.addr["smtp/none"])
			c.say("", "220 ")
			c.say("EHLO x", "250 ")
			c.say("AUTH PLAIN "+plainAuth(name, "pass word"), "235")
			sends[name] = c
		}
		r.mustRunEnv(t, nil, "login", "revoke", "-c", path, "revoked")
		r.mustRunEnv(t, nil, "login", "rename", "-c", path, "renamed", "other name")
		r.mustRunEnv(t, nil, "login", "passwd", "-c", path, "changed")
		for _, name := range []string{"revoked", "renamed", "changed"} {
			reads[name].say("", "* BYE")
			sends[name].say("", "421 ")
		}
		if err := reads["stays"].PrintfLine("DONE"); err != nil {
			t.Fatal(err)
		}
		reads["stays"].say("", "c OK")
		sends["stays"].say("NOOP", "250")
		r.mustRunEnv(t, nil, "login", "revoke", "-c", path, "other name")
		r.mustRunEnv(t, nil, "login", "revoke", "-c", path, "changed")
		r.mustRunEnv(t, nil, "login", "revoke", "-c", path, "stays")
		reads["stays"].say("", "* BYE")
	}
	r.stop()
}
