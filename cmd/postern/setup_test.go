package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"software.sslmate.com/src/go-pkcs12"

	"postern/backend/graphsim"
)

// setupWorld is a simulated tenant, an empty folder, and the answers that lead to a working configuration.
type setupWorld struct {
	sim   *graphsim.Sim
	dir   string
	flags map[string]string
}

func newSetupWorld(t *testing.T) *setupWorld {
	t.Helper()
	sim := graphsim.New(graphsim.Options{})
	sim.AddTenant(sampleTenant, sampleDomain)
	sim.AddApp(sampleTenant, sampleClientID, sampleSecret, "Mail.ReadWrite", "Mail.Send")
	sim.AddUser(sampleTenant, graphsim.UserSpec{UPN: sampleUser, FullAccess: []string{sampleShared}})
	sim.AddUser(sampleTenant, graphsim.UserSpec{UPN: sampleShared})
	sim.AddUser(sampleTenant, graphsim.UserSpec{UPN: "ghost@contoso.example", NoMailbox: true})
	srv := httptest.NewServer(sim)
	t.Cleanup(srv.Close)
	w := &setupWorld{sim: sim, dir: t.TempDir()}
	secret := filepath.Join(w.dir, "secret.txt")
	if err := os.WriteFile(secret, []byte(sampleSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.flags = map[string]string{"config": filepath.Join(w.dir, "postern.yaml"), "tenant": sampleDomain, "client-id": sampleClientID, "client-secret-file": secret,
		"mailbox": sampleUser, "shared": sampleShared, "login-url": srv.URL, "graph-url": srv.URL,
		"smtp": freePort(t), "imap": freePort(t), "http": freePort(t)}
	return w
}

// freePort returns an address that is free now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (w *setupWorld) secret(t *testing.T, value string) {
	t.Helper()
	if err := os.WriteFile(w.flags["client-secret-file"], []byte(value), 0o600); err != nil {
		t.Fatal(err)
	}
}

// setup runs setup without a dialogue.
func (w *setupWorld) setup(extra ...string) (string, error) {
	args := []string{"setup", "--no-input"}
	for k, v := range w.flags {
		if v != "" {
			args = append(args, "--"+k, v)
		}
	}
	return runPostern(nil, append(args, extra...)...)
}

func (w *setupWorld) doctor(extra ...string) (string, error) {
	return runPostern(nil, append([]string{"doctor", "-c", w.flags["config"]}, extra...)...)
}

func runPostern(in io.Reader, args ...string) (string, error) {
	cmd := rootCommand()
	var out bytes.Buffer
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	if in == nil {
		in = strings.NewReader("")
	}
	cmd.SetIn(in)
	err := cmd.Execute()
	return out.String(), err
}

// Each wrong step is named by setup and by doctor in one sentence that says what to do.
func TestWrongSteps(t *testing.T) {
	for _, tt := range []struct {
		name   string
		break_ func(t *testing.T, w *setupWorld)
		what   string // is wrong
		remedy string
		exit   int  // of doctor
		passes bool // setup goes on: it is only a warning, or its business is done
	}{
		{name: "nothing"},
		{name: "wrong tenant", break_: func(t *testing.T, w *setupWorld) { w.flags["tenant"] = "fabrikam.example" },
			what: "AADSTS90002", remedy: "check the directory id or domain name", exit: 2},
		{name: "wrong application", break_: func(t *testing.T, w *setupWorld) { w.flags["client-id"] = "2c9b0c44-0000-4000-8000-00000000000f" },
			what: "AADSTS700016", remedy: "check client_id and tenant", exit: 2},
		{name: "wrong secret", break_: func(t *testing.T, w *setupWorld) { w.secret(t, "another") },
			what: "AADSTS7000215", remedy: "use the secret's value, not its id", exit: 2},
		{name: "expired secret", break_: func(t *testing.T, w *setupWorld) {
			w.sim.AddExpiredSecret(sampleTenant, sampleClientID, "old")
			w.secret(t, "old")
		}, what: "AADSTS7000222", remedy: "create a new one", exit: 2},
		{name: "missing consent", break_: func(t *testing.T, w *setupWorld) { w.sim.AddApp(sampleTenant, sampleClientID, "") },
			what: "the token names no permission", remedy: "Grant the application permissions Mail.ReadWrite and Mail.Send with admin consent", exit: 2},
		{name: "only sending", break_: func(t *testing.T, w *setupWorld) { w.sim.AddApp(sampleTenant, sampleClientID, "", "Mail.Send") },
			what: "the app lacks Mail.ReadWrite", remedy: "Grant admin consent", exit: 2},
		{name: "blocked mailbox", break_: func(t *testing.T, w *setupWorld) {
			w.sim.BlockMailbox(sampleTenant, sampleClientID, sampleShared, true)
		}, what: "an application access policy keeps the app out", remedy: "Add support@contoso.example to the group", exit: 2},
		{name: "no mailbox", break_: func(t *testing.T, w *setupWorld) { w.flags["mailbox"] = "ghost@contoso.example" },
			what: "there is no Exchange Online mailbox", remedy: "licence with Exchange Online", exit: 2},
		{name: "no such user", break_: func(t *testing.T, w *setupWorld) { w.flags["mailbox"] = "nobody@contoso.example" },
			what: "there is no Exchange Online mailbox", remedy: "Check the spelling", exit: 2},
		{name: "clock off by an hour", break_: func(t *testing.T, w *setupWorld) { w.sim.SetClock(-time.Hour) },
			what: "clock is 1h ahead of Microsoft's", remedy: "Set the clock", exit: 2, passes: true},
		{name: "clock off, certificate", break_: func(t *testing.T, w *setupWorld) {
			w.useCertificate(t, true)
			w.sim.SetClock(-time.Hour)
		}, what: "clock is 1h ahead of Microsoft's", remedy: "check this machine's clock", exit: 2},
		{name: "certificate not uploaded", break_: func(t *testing.T, w *setupWorld) { w.useCertificate(t, false) },
			what: "AADSTS700027", remedy: "the certificate is the one uploaded", exit: 2},
		{name: "certificate expired", break_: func(t *testing.T, w *setupWorld) {
			c, k, err := selfSigned("Postern", nil, -time.Hour, false)
			w.flags["client-secret-file"], w.flags["certificate"], w.flags["key"] = "", filepath.Join(w.dir, "c.pem"), filepath.Join(w.dir, "k.pem")
			if err := errors.Join(err, writeNew(w.flags["certificate"], c, 0o600), writeNew(w.flags["key"], k, 0o600)); err != nil {
				t.Fatal(err)
			}
			w.upload(t, c)
		}, what: "has expired on", remedy: "ake a new one", exit: 2},
		{name: "listener's certificate expired", break_: func(t *testing.T, w *setupWorld) {
			c, k, err := selfSigned("localhost", []string{"localhost"}, -time.Hour, true)
			w.flags["imap"], w.flags["tls-certificate"], w.flags["tls-key"] = ":0", filepath.Join(w.dir, "c.pem"), filepath.Join(w.dir, "k.pem")
			if err := errors.Join(err, writeNew(w.flags["tls-certificate"], c, 0o600), writeNew(w.flags["tls-key"], k, 0o600)); err != nil {
				t.Fatal(err)
			}
		}, what: "expired on", remedy: "enew it", exit: 2},
		{name: "file that others can read", break_: func(t *testing.T, w *setupWorld) { open(t, w.dir, w.flags["client-secret-file"]) },
			what: "everybody on this machine can read", remedy: "chmod 640", exit: 1, passes: true}, // a simulator's secret is only warned about
		{name: "port taken", break_: func(t *testing.T, w *setupWorld) {
			l, err := net.Listen("tcp", w.flags["smtp"])
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			go func() { // says nothing that a mail server says
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					c.Close()
				}
			}()
		}, what: "taken by another program", remedy: "", exit: 2},
		{name: "no network", break_: func(t *testing.T, w *setupWorld) { w.flags["login-url"] = "http://" + freePort(t) },
			what: "refuses the connection", remedy: "Allow outgoing connections", exit: 2},
		{name: "secret ends soon", break_: func(t *testing.T, w *setupWorld) {
			w.flags["secret-expires"] = time.Now().Add(5 * 24 * time.Hour).Format(time.DateOnly)
		}, what: "", remedy: "", exit: 1, passes: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newSetupWorld(t)
			if tt.break_ != nil {
				tt.break_(t, w)
			}
			out, err := w.setup()
			good := tt.break_ == nil || tt.passes
			if (err == nil) != good {
				t.Fatalf("setup: %v\n%s", err, out)
			}
			if err != nil {
				out += err.Error()
				if _, e := os.Stat(w.flags["config"]); e == nil {
					t.Error("setup failed and wrote a configuration")
				}
				if o, err := w.setup("--skip-checks"); err != nil {
					t.Fatalf("setup --skip-checks: %v\n%s", err, o)
				}
			}
			oneLine(t, "setup", out, tt.what, tt.remedy)
			out, err = w.doctor()
			status := 0
			if e, ok := errors.AsType[*exitError](err); ok {
				status = e.status
			}
			if status != tt.exit {
				t.Errorf("doctor ended with %d, want %d:\n%s", status, tt.exit, out)
			}
			oneLine(t, "doctor", out, tt.what, tt.remedy)
			var report struct {
				Status verdict
				Checks []finding
			}
			out, _ = w.doctor("--json")
			if err := json.Unmarshal([]byte(out), &report); err != nil || len(report.Checks) < 5 {
				t.Errorf("doctor --json: %v\n%s", err, out)
			}
		})
	}
}

// oneLine looks for what and, in the output as well, the remedy.
func oneLine(t *testing.T, who, out, what, remedy string) {
	t.Helper()
	for _, want := range []string{what, remedy} {
		if !strings.Contains(out, want) {
			t.Errorf("%s does not say %q:\n%s", who, want, out)
		}
	}
}

// useCertificate makes the app sign in by a new certificate, which the tenant knows or not.
func (w *setupWorld) useCertificate(t *testing.T, uploaded bool) {
	t.Helper()
	cert, key, err := selfSigned("Postern", nil, time.Hour, false)
	if err != nil {
		t.Fatal(err)
	}
	w.flags["client-secret-file"], w.flags["certificate"], w.flags["key"] = "", filepath.Join(w.dir, "c.pem"), filepath.Join(w.dir, "k.pem")
	if err := errors.Join(writeNew(w.flags["certificate"], cert, 0o600), writeNew(w.flags["key"], key, 0o600)); err != nil {
		t.Fatal(err)
	}
	if uploaded {
		w.upload(t, cert)
	}
}

func (w *setupWorld) upload(t *testing.T, data []byte) {
	t.Helper()
	block, _ := pem.Decode(data)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	w.sim.AddCertificate(sampleTenant, sampleClientID, cert)
}

func TestDoctorFlags(t *testing.T) {
	w := newSetupWorld(t)
	if out, err := w.setup(); err != nil {
		t.Fatal(err, out)
	}
	w.sim.AddUser(sampleTenant, graphsim.UserSpec{UPN: "ceo@contoso.example"})
	before, err := os.ReadFile(w.flags["config"])
	if err != nil {
		t.Fatal(err)
	}
	out, err := w.doctor("--must-not-reach", "ceo@contoso.example")
	oneLine(t, "doctor", out, "the app opens this mailbox", "RBAC for Applications")
	if err == nil {
		t.Error("an app that reaches too much is no failure")
	}
	w.sim.BlockMailbox(sampleTenant, sampleClientID, "ceo@contoso.example", true)
	out, err = w.doctor("--must-not-reach", "ceo@contoso.example", "--send-test", sampleShared)
	oneLine(t, "doctor", out, "refused, as it should be", "in the Inbox of "+sampleShared)
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if d := w.sim.Delivered(); len(d) != 1 {
		t.Errorf("%d messages were sent", len(d))
	}
	if after, _ := os.ReadFile(w.flags["config"]); !bytes.Equal(before, after) {
		t.Error("doctor changed the configuration")
	}
	if _, err := os.Stat(filepath.Join(w.dir, "state")); err == nil {
		t.Error("doctor made the state folder")
	}
}

// script answers questions as a person would: each answer is given when its question has been asked.
type script struct {
	mu      sync.Mutex
	out     bytes.Buffer
	steps   [][2]string // a piece of the output to wait for, and the answer
	before  func(step int)
	at      int
	changed *sync.Cond
}

func (s *script) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.changed.Broadcast()
	return s.out.Write(p)
}

// Read gives the next answer. Whoever reads has asked, so the question must be there.
func (s *script) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at >= len(s.steps) {
		return 0, io.EOF
	}
	step := s.steps[s.at]
	if !strings.Contains(s.out.String(), step[0]) {
		return 0, errors.New("asked something else than " + step[0] + ":\n" + s.out.String())
	}
	s.out.Reset()
	if s.before != nil {
		s.before(s.at)
	}
	s.at++
	return copy(p, step[1]+"\n"), nil
}

// The dialogue, with mistakes on the way: certificate made by setup, uploaded late, and a login renamed.
func TestSetupDialogue(t *testing.T) {
	t.Setenv("POSTERN_SETUP_ASK", "1")
	w := newSetupWorld(t)
	s := &script{steps: [][2]string{
		{"Cloud [global]", ""}, {"Application (client) ID", "not an id"}, {"That is no id", sampleClientID}, {"Directory (tenant) ID", sampleClientID},
		{"application's id again", sampleDomain}, {"Grant admin consent", ""}, {"Sign in by", "new-certificate"}, {"Upload certificate", ""},
		{"AADSTS700027", "retry"}, {"Enter when uploaded", ""},
		{"Mailbox: ", sampleUser}, {"messages in the Inbox", strings.ToUpper(sampleUser) + "; nobody@contoso.example"}, {"Check the spelling", ""}, {"Mailbox: ", ""},
		{"Shared mailbox: ", ""}, {"SMTP address", "nonsense"}, {"that is no host and port", w.flags["smtp"]},
		{"IMAP address", w.flags["smtp"]}, {"used above already", w.flags["imap"]}, {"Pages address", w.flags["smtp"]}, {"used above already", w.flags["http"]},
		{"User name for", "alice"},
	}}
	s.changed = sync.NewCond(&s.mu)
	s.before = func(step int) {
		if s.steps[step][0] == "Enter when uploaded" {
			cert, err := os.ReadFile(filepath.Join(w.dir, setupCertFile))
			if err != nil {
				t.Error(err)
				return
			}
			w.upload(t, cert)
		}
	}
	cmd := rootCommand()
	cmd.SetArgs([]string{"setup", "-c", w.flags["config"], "--login-url", w.flags["login-url"], "--graph-url", w.flags["graph-url"]})
	cmd.SetIn(s)
	cmd.SetOut(s)
	cmd.SetErr(s)
	if err := cmd.Execute(); err != nil || s.at != len(s.steps) {
		t.Fatalf("after %d answers: %v\n%s", s.at, err, s.out.String())
	}
	oneLine(t, "setup", s.out.String(), "user name  alice\n", "postern serve --config")
	c, err := readConfig(w.flags["config"], testEnv)
	if err != nil || len(c.Logins) != 2 || len(c.Mailboxes) != 1 || !c.Logins[1].onlyAdmin() || c.Credentials["contoso"].Certificate == "" || len(c.warnings) > 0 {
		t.Errorf("%+v, %v", c, err)
	}
	for _, name := range []string{"postern.yaml", setupKeyFile} {
		if info, err := os.Stat(filepath.Join(w.dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if out, err := w.doctor(); err != nil {
		t.Errorf("doctor: %v\n%s", err, out)
	}
	// Leaving in the middle writes nothing.
	s = &script{steps: [][2]string{{"Replace it", "y"}, {"Cloud", "china"}}}
	s.changed = sync.NewCond(&s.mu)
	before, _ := os.ReadFile(w.flags["config"])
	cmd.SetIn(s)
	cmd.SetOut(s)
	if err := cmd.Execute(); !errors.Is(err, errEnd) {
		t.Errorf("left: %v", err)
	}
	if after, _ := os.ReadFile(w.flags["config"]); !bytes.Equal(before, after) {
		t.Error("the configuration changed")
	}
}

// Answers from a file; a device code; listeners for other machines.
func TestSetupAnswers(t *testing.T) {
	w := newSetupWorld(t)
	w.sim.AllowPublicClient(sampleTenant, sampleClientID)
	w.sim.ConsentDelegated(sampleTenant, sampleClientID, "Mail.ReadWrite", "Mail.Send", "Mail.ReadWrite.Shared", "Mail.Send.Shared")
	file := filepath.Join(w.dir, "answers.yaml")
	text := "config: " + w.flags["config"] + "\ntenant: wrong.example\nclient_id: " + sampleClientID + "\nuser: " + sampleUser +
		"\nmailbox: [" + sampleUser + "]\nshared: [" + sampleShared + "]\nsmtp: ':0'\nimap: ':0'\nhttp: " + w.flags["http"] +
		"\nlogin_url: " + w.flags["login-url"] + "\ngraph_url: " + w.flags["graph-url"] + "\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out := &approver{sim: w.sim}
	cmd := rootCommand()
	cmd.SetArgs([]string{"setup", "--answers", file, "--tenant", sampleDomain})
	cmd.SetIn(strings.NewReader(""))
	cmd.SetOut(out)
	if err := cmd.Execute(); err != nil {
		t.Fatalf("%v\n%s", err, out.text.String())
	}
	c, err := readConfig(w.flags["config"], testEnv)
	if err != nil || c.Credentials["contoso"].DeviceCode != sampleUser || c.Listeners[0].TLS != "starttls" || c.TLS.Certificate == "" {
		t.Errorf("%+v, %v", c, err)
	}
	text2, err := w.doctor()
	if err != nil || !strings.Contains(text2, "by device code as "+sampleUser) {
		t.Errorf("doctor: %v\n%s", err, text2)
	}
	// Signing in again.
	out.text.Reset()
	cmd = rootCommand()
	cmd.SetArgs([]string{"signin", "contoso", "-c", w.flags["config"]})
	cmd.SetOut(out)
	if err := cmd.Execute(); err != nil || !strings.Contains(out.text.String(), "Signed in as "+sampleUser) {
		t.Errorf("signin: %v\n%s", err, out.text.String())
	}
	for _, tt := range []struct{ answers, want string }{{"colour: red\n", "unknown key colour"}, {"tenant: [a]\n", "a single value"}} {
		if err := os.WriteFile(file, []byte(tt.answers), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := runPostern(nil, "setup", "--answers", file); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v", tt.answers, err)
		}
	}
	if _, err := runPostern(nil, "setup", "--no-input", "-c", filepath.Join(w.dir, "new.yaml")); err == nil || !strings.Contains(err.Error(), "--client-id is missing") {
		t.Errorf("without answers: %v", err)
	}
}

// approver is a user who enters each code that is shown.
type approver struct {
	sim  *graphsim.Sim
	text bytes.Buffer
}

func (a *approver) Write(p []byte) (int, error) {
	if _, rest, ok := strings.Cut(string(p), "enter the code "); ok {
		code, _, _ := strings.Cut(rest, ".")
		a.sim.ApproveDevice(code, sampleUser)
	}
	return a.text.Write(p)
}

func TestSetupScript(t *testing.T) {
	for _, kind := range []string{"az", "powershell", "msgraph"} {
		out, err := runPostern(nil, "setup", "--print-script", kind, "--group", "mail@contoso.example", "--certificate", "app.pem")
		if err != nil {
			t.Error(err)
		}
		for _, want := range []string{"e2a3a72e-5f79-4c64-b1b1-878b674786c9", "b633e1c5-b582-4048-a93e-9f11b44c7e96", "mail@contoso.example", "app.pem",
			"New-ManagementRoleAssignment", "New-ManagementScope", "New-ServicePrincipal", "New-ApplicationAccessPolicy", "Test-ServicePrincipalAuthorization"} {
			if !strings.Contains(out, want) {
				t.Errorf("%s lacks %s", kind, want)
			}
		}
		if strings.Contains(out, "@EXCHANGE@") || strings.Contains(out, "@GROUP@") || strings.Contains(out, "@CERTIFICATE@") {
			t.Errorf("%s has a gap left", kind)
		}
	}
	for _, args := range [][]string{{"--print-script", "bash"}, {"--print-script", "az", "--group", "x@y'; rm"}, {"--print-script", "az", "--certificate", "$(id)"}} {
		if _, err := runPostern(nil, append([]string{"setup"}, args...)...); err == nil {
			t.Errorf("%v was taken", args)
		}
	}
}

// What setup finds wrong with files before it writes a configuration that serve would refuse.
func TestSetupFiles(t *testing.T) {
	t.Parallel()
	cert := func(t *testing.T, w *setupWorld, life time.Duration, server bool) (certFile, keyFile string) {
		c, k, err := selfSigned("x", []string{"localhost"}, life, server)
		if err != nil {
			t.Fatal(err)
		}
		certFile, keyFile = filepath.Join(w.dir, "c.pem"), filepath.Join(w.dir, "k.pem")
		if err := errors.Join(writeNew(certFile, c, 0o644), writeNew(keyFile, k, 0o600)); err != nil {
			t.Fatal(err)
		}
		return certFile, keyFile
	}
	for _, tt := range []struct {
		name, want string
		break_     func(t *testing.T, w *setupWorld)
		warns      bool
	}{
		{name: "no secret", want: "is empty", break_: func(t *testing.T, w *setupWorld) { w.secret(t, "\n") }},
		{name: "secret file is not there", want: "no such file", break_: func(t *testing.T, w *setupWorld) { w.flags["client-secret-file"] += "x" }},
		{name: "secret of a simulator that others can read", want: "chmod 640", warns: true, break_: func(t *testing.T, w *setupWorld) {
			open(t, w.dir, w.flags["client-secret-file"])
		}},
		{name: "certificate has expired", want: "has expired on", break_: func(t *testing.T, w *setupWorld) {
			w.flags["client-secret-file"] = ""
			w.flags["certificate"], w.flags["key"] = cert(t, w, -time.Hour, false)
		}},
		{name: "key of another certificate", want: "the key does not belong to the certificate", break_: func(t *testing.T, w *setupWorld) {
			w.flags["client-secret-file"] = ""
			w.flags["certificate"], w.flags["key"] = cert(t, w, time.Hour, false)
			_, k, err := selfSigned("y", nil, time.Hour, false)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(w.flags["key"], k, 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "listener's certificate has expired", want: "has expired on", break_: func(t *testing.T, w *setupWorld) {
			w.flags["smtp"] = ":0"
			w.flags["tls-certificate"], w.flags["tls-key"] = cert(t, w, -time.Hour, true)
		}},
		{name: "listener's key is not named", want: "--tls-key is missing", break_: func(t *testing.T, w *setupWorld) {
			w.flags["smtp"] = ":0"
			w.flags["tls-certificate"], _ = cert(t, w, time.Hour, true)
		}},
		{name: "ids swapped", want: "--tenant " + sampleTenant + " --client-id " + sampleClientID, break_: func(t *testing.T, w *setupWorld) {
			w.flags["tenant"], w.flags["client-id"] = sampleClientID, sampleTenant
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newSetupWorld(t)
			tt.break_(t, w)
			out, err := w.setup()
			if err != nil {
				out += err.Error()
			}
			if (err == nil) != tt.warns || !strings.Contains(out, tt.want) {
				t.Errorf("%v\n%s", err, out)
			}
			if _, err := os.Stat(w.flags["config"]); (err == nil) != tt.warns {
				t.Errorf("configuration written: %v", err == nil)
			}
		})
	}
}

// open lets everybody read a file, through the folders a test made.
func open(t *testing.T, dir, file string) {
	t.Helper()
	for ; dir != os.TempDir() && len(dir) > 1; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
}

// Each way to sign in, set up without a dialogue and looked at by doctor.
func TestSetupSignIns(t *testing.T) {
	for _, tt := range []struct {
		name string
		make func(t *testing.T, w *setupWorld)
		says string
		edit [2]string // of the configuration, before doctor looks
		env  func(t *testing.T, w *setupWorld)
	}{
		{name: "secret", says: "by client secret"},
		{name: "PEM", says: "by certificate", make: func(t *testing.T, w *setupWorld) { w.useCertificate(t, true) }},
		{name: "RS256", says: "by certificate", make: func(t *testing.T, w *setupWorld) { w.useCertificate(t, true) }, edit: [2]string{"    key:", "    signature: RS256\n    key:"}},
		{name: "PFX", says: "by certificate", make: func(t *testing.T, w *setupWorld) {
			w.useCertificate(t, true)
			pair, err := tls.LoadX509KeyPair(w.flags["certificate"], w.flags["key"])
			if err != nil {
				t.Fatal(err)
			}
			pfx, err := pkcs12.Modern.Encode(pair.PrivateKey, pair.Leaf, nil, "open sesame")
			if err != nil {
				t.Fatal(err)
			}
			w.flags["certificate"], w.flags["key"], w.flags["certificate-password-file"] = filepath.Join(w.dir, "app.pfx"), "", filepath.Join(w.dir, "pfx-password")
			if err := errors.Join(os.WriteFile(w.flags["certificate"], pfx, 0o600), os.WriteFile(w.flags["certificate-password-file"], []byte("open sesame\n"), 0o600)); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "federated", says: "by federated token", make: func(t *testing.T, w *setupWorld) {
			w.sim.AddFederated(sampleTenant, sampleClientID, graphsim.FederatedIssuer{Issuer: "https://issuer.example", Subject: "system:sa"})
			part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
			w.flags["client-secret-file"], w.flags["federated-token-file"] = "", filepath.Join(w.dir, "token")
			text := part(`{"alg":"RS256"}`) + "." + part(fmt.Sprintf(`{"iss":"https://issuer.example","sub":"system:sa","aud":"api://AzureADTokenExchange","exp":%d}`, time.Now().Add(time.Hour).Unix())) + "." + part("signature")
			if err := os.WriteFile(w.flags["federated-token-file"], []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "managed identity of a machine", says: "by managed identity", make: func(_ *testing.T, w *setupWorld) {
			w.sim.AddManagedIdentity(sampleTenant, sampleClientID)
			w.flags["client-secret-file"], w.flags["tenant"], w.flags["client-id"], w.flags["sign-in"] = "", "", "", "managed-identity"
		}},
		{name: "managed identity of an app service", says: "by managed identity", make: func(_ *testing.T, w *setupWorld) {
			w.sim.AddManagedIdentity(sampleTenant, sampleClientID)
			w.flags["client-secret-file"], w.flags["tenant"], w.flags["client-id"], w.flags["sign-in"] = "", "", "", "managed-identity"
		}, env: func(t *testing.T, w *setupWorld) {
			t.Setenv("IDENTITY_ENDPOINT", w.flags["login-url"]+"/msi/token")
			t.Setenv("IDENTITY_HEADER", graphsim.AppServiceHeader)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newSetupWorld(t)
			if tt.make != nil {
				tt.make(t, w)
			}
			if tt.env != nil {
				tt.env(t, w)
			}
			if out, err := w.setup(); err != nil {
				t.Fatalf("setup: %v\n%s", err, out)
			}
			if tt.edit[0] != "" {
				src, err := os.ReadFile(w.flags["config"])
				if err != nil || !bytes.Contains(src, []byte(tt.edit[0])) {
					t.Fatalf("%v\n%s", err, src)
				}
				if err := os.WriteFile(w.flags["config"], bytes.Replace(src, []byte(tt.edit[0]), []byte(tt.edit[1]), 1), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			out, err := w.doctor()
			if e, ok := errors.AsType[*exitError](err); ok && e.status > 1 || err != nil && !ok {
				t.Errorf("doctor: %v\n%s", err, out)
			}
			if !strings.Contains(out, tt.says) || !strings.Contains(out, "mailbox "+sampleUser+": opened in") {
				t.Errorf("doctor does not say %q:\n%s", tt.says, out)
			}
		})
	}
}

// An app that may only send is a warning where nothing else is asked of it, and what becomes of unclear attempts is told.
func TestDoctorSendingOnly(t *testing.T) {
	t.Parallel()
	w := newSetupWorld(t)
	if out, err := w.setup(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	w.sim.AddApp(sampleTenant, sampleClientID, "", "Mail.Send")
	raw, err := os.ReadFile(w.flags["config"])
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		allow, what string
		exit        int
	}{
		{"[smtp, imap]", "the app lacks Mail.ReadWrite", 2},
		{"[smtp]", "the app may only send, and no login reads it", 1},
	} {
		conf := strings.ReplaceAll(string(raw), "allow: [smtp, imap]", "allow: "+tt.allow) + "\nqueue: {unsure: send}\n"
		if err := os.WriteFile(w.flags["config"], []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := w.doctor()
		var code *exitError
		if !errors.As(err, &code) || code.status != tt.exit {
			t.Errorf("%s: %v\n%s", tt.allow, err, out)
		}
		for _, want := range []string{tt.what, "those that were perhaps sent not be looked for (queue.unsure says what becomes of them: send)"} {
			if !strings.Contains(out, want) {
				t.Errorf("%s: no %q in\n%s", tt.allow, want, out)
			}
		}
	}
}
