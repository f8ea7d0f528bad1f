package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/backend/graphsim"
)

// smtpClient is one way in which mail programs send.
type smtpClient struct {
	name    string
	program string
	send    func(r *rig, t *testing.T, m outgoing) (string, error)
}

// outgoing is one message to send.
type outgoing struct {
	user  string
	id    string // Message-ID without brackets
	file  string // with the MIME
	rcpts []string
	mime  []byte
}

func swaks(args ...string) func(*rig, *testing.T, outgoing) (string, error) {
	return func(r *rig, _ *testing.T, m outgoing) (string, error) {
		listener := "smtp/none"
		switch {
		case slices.Contains(args, "--tls"):
			listener = "smtp/starttls"
		case slices.Contains(args, "--tls-on-connect"):
			listener = "smtp/implicit"
		}
		all := append([]string{"--server", "127.0.0.1:" + r.port(listener), "--from", m.user, "--to", strings.Join(m.rcpts, ","),
			"--auth-user", m.user, "--auth-password", e2ePassword, "--data", "@" + m.file, "--suppress-data", "--timeout", "30s"}, args...)
		return r.run(nil, "swaks", all...)
	}
}

func curlSMTP(scheme, listener string, args ...string) func(*rig, *testing.T, outgoing) (string, error) {
	return func(r *rig, _ *testing.T, m outgoing) (string, error) {
		all := append([]string{"-sS", "-m", "40", "--cacert", r.cert, "-u", m.user + ":" + e2ePassword, "-T", m.file, "--mail-from", m.user,
			"--url", scheme + "://127.0.0.1:" + r.port(listener)}, args...)
		for _, rcpt := range m.rcpts {
			all = append(all, "--mail-rcpt", rcpt)
		}
		return r.run(nil, "curl", all...)
	}
}

func msmtp(listener string, args ...string) func(*rig, *testing.T, outgoing) (string, error) {
	return func(r *rig, _ *testing.T, m outgoing) (string, error) {
		pw := filepath.Join(r.dir, "msmtp-password")
		if err := os.WriteFile(pw, []byte(e2ePassword), 0o600); err != nil {
			return "", err
		}
		all := append([]string{"--host=127.0.0.1", "--port=" + r.port(listener), "--auth=plain", "--user=" + m.user, "--passwordeval=cat " + pw,
			"--from=" + m.user, "--timeout=30", "--tls-trust-file=" + r.cert, "--undisclosed-recipients=off", "--remove-bcc-headers=off"}, args...)
		return r.run(m.mime, "msmtp", append(append(all, "--"), m.rcpts...)...)
	}
}

// smtplib is Python's own library, given the recipients as arguments.
const smtplib = `import smtplib, sys
host, port, user, password, path, *rcpts = sys.argv[1:]
s = smtplib.SMTP(host, int(port), timeout=40)
s.login(user, password)
print(s.sendmail(user, rcpts, open(path, 'rb').read()))
s.quit()
`

var smtpClients = []smtpClient{
	{"swaks-plain", "swaks", swaks("--auth", "PLAIN")},
	{"swaks-login", "swaks", swaks("--auth", "LOGIN")},
	{"swaks-starttls", "swaks", swaks("--auth", "PLAIN", "--tls")},
	{"swaks-implicit", "swaks", swaks("--auth", "LOGIN", "--tls-on-connect")},
	{"curl", "curl", curlSMTP("smtp", "smtp/none")},
	{"curl-starttls", "curl", curlSMTP("smtp", "smtp/starttls", "--ssl-reqd")},
	{"curl-implicit", "curl", curlSMTP("smtps", "smtp/implicit")},
	{"msmtp", "msmtp", msmtp("smtp/none", "--tls=off")},
	{"msmtp-starttls", "msmtp", msmtp("smtp/starttls", "--tls=on")},
	{"smtplib", "python3", func(r *rig, t *testing.T, m outgoing) (string, error) {
		return r.run(nil, "python3", append([]string{"-c", smtplib, "127.0.0.1", r.port("smtp/none"), m.user, e2ePassword, m.file}, m.rcpts...)...)
	}},
	{"nodemailer", "node", func(r *rig, t *testing.T, m outgoing) (string, error) {
		return r.node(t, "send.js", r.port("smtp/none"), m.user, e2ePassword, m.file, strings.Join(m.rcpts, ","))
	}},
}

// node runs a script of testdata/node, and skips the test where the npm packages are missing.
func (r *rig) node(t *testing.T, script string, args ...string) (string, error) {
	t.Helper()
	dir, err := filepath.Abs("testdata/node")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules")); err != nil {
		t.Skip("npm packages are not installed: npm install in cmd/postern/testdata/node")
	}
	return r.run(nil, "node", append([]string{filepath.Join(dir, script)}, args...)...)
}

func needSMTP(t *testing.T, c smtpClient) {
	t.Helper()
	need(t, c.program)
	if strings.HasPrefix(c.name, "swaks-starttls") || strings.HasPrefix(c.name, "swaks-implicit") {
		if exec.Command("perl", "-MNet::SSLeay", "-e1").Run() != nil {
			t.Skip("swaks has no TLS here: Net::SSLeay is not installed")
		}
	}
}

// smtpMessages are the kinds of mail each client sends. %[1]s is the sender, %[2]s the Message-ID.
var smtpMessages = []struct {
	name   string
	rcpts  []string
	header string
	body   string
	want   string // in what receivers get
}{
	{"plain", []string{"bob@contoso.example"}, "To: bob@contoso.example\r\nSubject: plain text", "Hello Bob,\r\n.dots at the start\r\n..and two\r\nbye\r\n", "\r\n.dots at the start\r\n..and two\r\n"},
	{"utf8", []string{"jurgen@fabrikam.example"}, "To: =?utf-8?Q?J=C3=BCrgen?= <jurgen@fabrikam.example>\r\nSubject: =?utf-8?B?5Lya6K2w?= Gr\u00fc\u00dfe\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit", "Gr\u00fc\u00dfe aus K\u00f6ln\r\n", ""},
	{"attachment", []string{"bob@contoso.example"}, "To: bob@contoso.example\r\nSubject: two megabytes\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=xyz", "", "filename=\"data.bin\""},
	{"bcc-only", []string{"hidden@fabrikam.example", "bob@contoso.example"}, "To: undisclosed-recipients:;\r\nBcc: hidden@fabrikam.example\r\nSubject: nobody is named", "Psst.\r\n", "Psst."},
	{"several", []string{"bob@contoso.example", "one@fabrikam.example", "two@fabrikam.example", "secret@northwind.example"},
		"To: Bob <bob@contoso.example>, one@fabrikam.example, not-in-envelope@fabrikam.example\r\nCc: two@fabrikam.example\r\nSubject: to several", "Hi all.\r\n", "Hi all."},
}

func attachment() string {
	data := make([]byte, 2<<20)
	for i := range data {
		data[i] = byte(i * i >> 8)
	}
	var b strings.Builder
	b.WriteString("--xyz\r\nContent-Type: text/plain\r\n\r\nSee the attachment.\r\n--xyz\r\nContent-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=\"data.bin\"\r\nContent-Transfer-Encoding: base64\r\n\r\n")
	for chunk := range slices.Chunk([]byte(base64.StdEncoding.EncodeToString(data)), 76) {
		b.Write(chunk)
		b.WriteString("\r\n")
	}
	b.WriteString("--xyz--\r\n")
	return b.String()
}

// Exactly the envelope's recipients get each message, once, and Bcc does not show.
func TestE2ESend(t *testing.T) {
	users := make([]string, len(smtpClients))
	for i, c := range smtpClients {
		users[i] = c.name + "@contoso.example" // one mailbox each: a mailbox may send 30 a minute
	}
	r := newRig(t, nil, users...)
	for i, c := range smtpClients {
		t.Run(c.name, func(t *testing.T) {
			needSMTP(t, c)
			for _, m := range smtpMessages {
				t.Run(m.name, func(t *testing.T) {
					body := m.body
					if m.name == "attachment" {
						body = attachment()
					}
					id := fmt.Sprintf("%s.%s@e2e.example", m.name, c.name)
					mime := fmt.Sprintf("From: %s\r\n%s\r\nDate: Mon, 23 Nov 2026 10:00:00 +0000\r\nMessage-ID: <%s>\r\n\r\n%s", users[i], m.header, id, body)
					msg := outgoing{user: users[i], id: id, rcpts: m.rcpts, mime: []byte(mime)}
					msg.file = r.write(t, "out-"+c.name+"-"+m.name+".eml", mime)
					out, err := c.send(r, t, msg)
					if err != nil {
						t.Fatalf("%v\n%s", err, out)
					}
					r.checkDelivered(t, msg, m.want)
				})
			}
		})
	}
}

// checkDelivered waits for a message to leave and looks at who got what.
func (r *rig) checkDelivered(t *testing.T, m outgoing, want string) {
	t.Helper()
	found := func() (out []graphsim.Delivery) {
		for _, d := range r.sim.Delivered() {
			if d.MessageID == "<"+m.id+">" {
				out = append(out, d)
			}
		}
		return out
	}
	within(t, 30*time.Second, "delivery of "+m.id, func() bool { return len(found()) > 0 })
	all := found()
	if len(all) != 1 {
		t.Errorf("delivered %d times", len(all))
	}
	d := all[0]
	got, wanted := slices.Sorted(slices.Values(d.Recipients)), slices.Sorted(slices.Values(m.rcpts))
	if !slices.Equal(got, wanted) {
		t.Errorf("went to %v\nwant    %v", got, wanted)
	}
	header, _, _ := bytes.Cut(d.MIME, []byte("\r\n\r\n"))
	for _, leak := range []string{"\r\nbcc:", "hidden@", "secret@"} {
		if strings.Contains(strings.ToLower("\r\n"+string(header)), leak) {
			t.Errorf("receivers see %q:\n%s", leak, header)
		}
	}
	if !bytes.Contains(d.MIME, []byte(want)) {
		t.Errorf("what arrives lacks %q:\n%.2000s", want, d.MIME)
	}
	if d.From != m.user {
		t.Errorf("sent through %s, want %s", d.From, m.user)
	}
}

// A sender that is not the login's own is refused while the client still listens.
func TestE2ESenderRefused(t *testing.T) {
	need(t, "curl")
	r := newRig(t, nil)
	mime := "From: bob@contoso.example\r\nTo: bob@contoso.example\r\nSubject: forged\r\n\r\nx\r\n"
	file := r.write(t, "forged.eml", mime)
	send := func(from string) (string, error) {
		return r.run(nil, "curl", "-sS", "-m", "30", "-v", "-u", sampleUser+":"+e2ePassword, "-T", file, "--mail-from", from, "--mail-rcpt", sampleOther,
			"--url", "smtp://"+r.addr["smtp/none"])
	}
	for _, from := range []string{"bob@contoso.example", "alice@contoso.example"} { // the envelope's sender, then the header's
		out, err := send(from)
		if err == nil || !strings.Contains(out, "553") {
			t.Errorf("MAIL FROM %s: %v\n%s", from, err, out)
		}
	}
	if n := len(r.sim.Delivered()); n != 0 {
		t.Errorf("%d forged messages left", n)
	}
}

// A wrong password is answered late, and does not close the door to the right one.
func TestE2EWrongPassword(t *testing.T) {
	need(t, "curl")
	r := newRig(t, nil)
	for _, url := range []string{"smtp://" + r.addr["smtp/none"], "imap://" + r.addr["imap/none"]} {
		start := time.Now()
		out, err := r.run(nil, "curl", "-sS", "-m", "30", "-u", sampleUser+":wrong", "--url", url, "--mail-from", sampleUser, "--mail-rcpt", sampleOther, "-T", os.DevNull)
		if err == nil {
			t.Errorf("%s takes a wrong password: %s", url, out)
		}
		if took := time.Since(start); took < 100*time.Millisecond {
			t.Errorf("%s answers a wrong password after only %v", url, took)
		}
	}
	c := r.imap(t, sampleUser)
	if err := c.Noop().Wait(); err != nil {
		t.Error(err)
	}
}

// What one Graph call cannot take goes up in pieces and arrives whole.
func TestE2ELargeMessage(t *testing.T) {
	need(t, "curl")
	r := newRig(t, nil)
	data := make([]byte, 9<<20)
	for i := range data {
		data[i] = byte(i * i >> 10)
	}
	encoded := base64.StdEncoding.EncodeToString(data)
	var b strings.Builder
	fmt.Fprintf(&b, "From: %s\r\nTo: one@fabrikam.example\r\nSubject: nine megabytes\r\nMessage-ID: <large@e2e.example>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=xyz\r\n\r\n--xyz\r\nContent-Type: text/plain\r\n\r\nSee the attachment.\r\n--xyz\r\nContent-Type: application/zip\r\nContent-Disposition: attachment; filename=\"gr\u00f6\u00dfe.zip\"\r\nContent-Transfer-Encoding: base64\r\n\r\n", sampleUser)
	for chunk := range slices.Chunk([]byte(encoded), 76) {
		b.Write(chunk)
		b.WriteString("\r\n")
	}
	b.WriteString("--xyz--\r\n")
	m := outgoing{user: sampleUser, id: "large@e2e.example", file: r.write(t, "large.eml", b.String()), rcpts: []string{"one@fabrikam.example", "hidden@fabrikam.example"}}
	if out, err := curlSMTP("smtp", "smtp/none")(r, t, m); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	r.checkDelivered(t, m, "See the attachment.")
	for _, d := range r.sim.Delivered() {
		_, after, _ := bytes.Cut(d.MIME, []byte(encoded[:70]))
		got := bytes.ReplaceAll(after, []byte("\r\n"), nil)
		if !bytes.HasPrefix(got, []byte(encoded[70:])) {
			t.Error("the attachment has changed on its way")
		}
	}
}
