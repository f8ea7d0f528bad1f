package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/backend/graphsim"
)

// No way through the pages leads to mail, and no login of a mail program to the pages: not by its password, nor by anything it can ask for.
func TestE2EPagesOpenNoMailbox(t *testing.T) {
	const marker = "Zzyzx-only-for-alice"
	r := newRig(t, func(sim *graphsim.Sim) {
		sim.AddMessage(sampleUser, "inbox", []byte("From: "+marker+" <x@y.example>\r\nTo: "+sampleUser+"\r\nSubject: "+marker+"\r\nMessage-ID: <"+marker+"@y.example>\r\n\r\n"+marker+"\r\n"), graphsim.MessageSpec{})
	})
	conf := filepath.Join(r.dir, "postern.yaml")
	r.mustRun(t, []byte(e2ePassword+"\n"), program(t), "login", "add", "-c", conf, "admin", "--allow", "admin", "--password-stdin")
	r.snapshot(t, sampleUser, "INBOX") // it is in the replica now
	// A message of alice's, whose subject only goes into the log since the rig asks for it.
	if err := sendRaw(r.addr["smtp/none"], sampleUser, sampleUser, "one@fabrikam.example", "From: "+sampleUser+"\r\nSubject: told\r\n\r\n"+marker+"\r\n"); err != nil {
		t.Fatal(err)
	}
	r.drain(t)
	base := "http://" + r.addr["http/none"]
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	admin, stranger := &http.Client{Jar: jar, CheckRedirect: stay, Timeout: 20 * time.Second}, &http.Client{CheckRedirect: stay, Timeout: 20 * time.Second}
	do := func(c *http.Client, method, path, user string, form url.Values) (int, string) {
		t.Helper()
		req, err := http.NewRequest(method, base+path, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		if form != nil {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		if user != "" {
			req.SetBasicAuth(user, e2ePassword)
			req.AddCookie(&http.Cookie{Name: "postern", Value: base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{0}, 32))})
		}
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(io.LimitReader(res.Body, 4096<<10))
		if err != nil && !strings.HasPrefix(path, "/events") {
			t.Fatal(err)
		}
		return res.StatusCode, html.UnescapeString(string(b))
	}

	// A login of a mail program does not open them.
	for _, user := range []string{sampleUser, sampleOther, sampleUser + "/" + sampleShared, "admin/" + sampleUser} {
		if code, body := do(stranger, "POST", "/signin", "", url.Values{"username": {user}, "password": {e2ePassword}}); code != http.StatusForbidden {
			t.Errorf("%s signs in: %d %.200s", user, code, body)
		}
	}
	paths := []string{"/", "/queue", "/queue?state=", "/logins", "/clients", "/checks", "/mailboxes/" + sampleUser, "/mailboxes/" + url.PathEscape("../"+sampleUser), "/queue/" + url.PathEscape("../../state/replica.db"),
		"/assets/..%2f..%2fpostern.yaml", "/assets/../page.go", "//" + "etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/state/replica.db", "/debug/pprof/", "/debug/vars", "/metrics", "/readyz", "/healthz",
		"/mail", "/mail/config-v1.1.xml?emailaddress=" + sampleUser, "/.well-known/autoconfig/mail/config-v1.1.xml", "/mail/apple.mobileconfig?emailaddress=" + sampleUser}
	for _, p := range paths {
		open := strings.HasPrefix(p, "/mail/") || strings.HasPrefix(p, "/.well-known") || p == "/mail" || p == "/metrics" || p == "/readyz" || p == "/healthz"
		code, body := do(stranger, "GET", p, sampleOther, nil)
		if code == http.StatusOK && !open {
			t.Errorf("%s is answered to somebody who has not signed in: %.200s", p, body)
		}
		if strings.Contains(body, marker) || strings.Contains(body, "root:") || strings.Contains(body, "argon2id") {
			t.Errorf("%s says %.200s", p, body)
		}
	}
	for _, p := range []string{"/queue", "/logins", "/logins/revoke", "/logins/unlock", "/checks", "/signout"} {
		if code, body := do(stranger, "POST", p, sampleOther, url.Values{"username": {"evil"}, "mailbox": {sampleUser}, "imap": {"1"}, "action": {"purge"}, "form": {""}}); code/100 == 2 {
			t.Errorf("POST %s: %d %.200s", p, code, body)
		}
	}

	// Whoever looks after the server sees no mail, and cannot read any with that login.
	within(t, 20*time.Second, "the administrator to be signed in", func() bool {
		code, _ := do(admin, "POST", "/signin", "", url.Values{"username": {"admin"}, "password": {e2ePassword}})
		return code == http.StatusSeeOther
	})
	_, queue := do(admin, "GET", "/queue?state=", "", nil)
	_, id, _ := strings.Cut(queue, `href="/queue/`)
	id, _, _ = strings.Cut(id, `"`)
	if id == "" {
		t.Fatalf("no message in the queue's log:\n%s", queue)
	}
	for _, p := range append(paths, "/queue/"+id) {
		_, body := do(admin, "GET", p, "", nil)
		if strings.Contains(body, marker) || strings.Contains(body, "argon2id") || strings.Contains(body, sampleSecret) {
			t.Errorf("%s shows what is in a message, or a secret", p)
		}
	}
	if code, body := do(admin, "GET", "/queue/"+id, "", nil); code != http.StatusOK || !strings.Contains(body, "one@fabrikam.example") {
		t.Errorf("the message's page: %d %s", code, body)
	}
	c := r.rawIMAP(t)
	if st, a := c.cmd("LOGIN admin " + imapQuoted(e2ePassword)); st == "OK" {
		t.Errorf("the administrator's login reads mail: %s", a)
	}
	for _, user := range []string{"admin", "admin/" + sampleUser} {
		c := r.rawIMAP(t)
		if st, a := c.cmd("LOGIN " + imapQuoted(user) + " " + imapQuoted(e2ePassword)); st == "OK" {
			t.Errorf("%s reads mail: %s", user, a)
		}
		if err := smtpPlain(r.addr["smtp/none"], "", user, e2ePassword); err == nil {
			t.Errorf("%s sends mail", user)
		}
	}
}

// Mail put into the drop folder goes out as its configured mailbox and nobody else, whatever the file says and whatever it is.
func TestE2EDropFolderBorders(t *testing.T) {
	r := newRig(t, nil)
	r.stop()
	drop := filepath.Join(r.dir, "drop")
	conf := filepath.Join(r.dir, "postern.yaml")
	b, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(conf, append(b, fmt.Sprintf("sendmail: {mailbox: %s, drop: %q}\n", sampleOther, drop)...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(drop, 0o700); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(r.dir, "key.pem")
	envelope := func(from, to string) string {
		return fmt.Sprintf("{\"from\":%q,\"recipients\":[{\"address\":%q}]}\n", from, to)
	}
	put := func(name, content string) {
		if err := os.WriteFile(filepath.Join(drop, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("0000000000000001.msg", envelope(sampleUser, "one@fabrikam.example")+"From: "+sampleUser+"\nSubject: forged envelope\n\nx\n")
	put("0000000000000002.msg", envelope(sampleOther, "one@fabrikam.example")+"From: "+sampleUser+"\nSubject: forged header\n\nx\n")
	put("0000000000000003.msg", envelope(sampleOther, "one@fabrikam.example\r\nBcc: two@fabrikam.example")+"From: "+sampleOther+"\nSubject: forged recipient\n\nx\n")
	put("..%2f..%2fx.msg", envelope(sampleOther, "one@fabrikam.example")+"From: "+sampleOther+"\nSubject: odd name\n\nx\n")
	put("0000000000000005.msg", "no envelope\n\nx\n")
	if err := os.Symlink(secret, filepath.Join(drop, "0000000000000006.msg")); err != nil {
		t.Fatal(err)
	}
	put("0000000000000007.msg", envelope(sampleOther, "one@fabrikam.example")+"From: "+sampleOther+"\nSubject: good\n\nx\n")
	r.start()
	within(t, 20*time.Second, "the good message", func() bool { return len(r.sim.Delivered()) > 0 })
	within(t, 20*time.Second, "nothing to be left to take", func() bool {
		left, err := filepath.Glob(filepath.Join(drop, "*.msg"))
		return err == nil && len(left) == 0
	})
	r.drain(t)
	for _, d := range r.sim.Delivered() {
		head, _, _ := bytes.Cut(d.MIME, []byte("\r\n\r\n"))
		if d.Sender != sampleOther || d.From != sampleOther || bytes.Contains(head, []byte("\nFrom: "+sampleUser)) || bytes.Contains(d.MIME, []byte("PRIVATE KEY")) {
			t.Errorf("sent by %s as %s:\n%s", d.Sender, d.From, d.MIME)
		}
		for _, to := range d.Recipients {
			if to != "one@fabrikam.example" {
				t.Errorf("sent to %s", to)
			}
		}
	}
	if b, err := os.ReadFile(secret); err != nil || !bytes.Contains(b, []byte("PRIVATE KEY")) {
		t.Errorf("a linked file was touched: %v", err)
	}
}
