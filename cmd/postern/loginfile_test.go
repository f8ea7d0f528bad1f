package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const headOfFile = `# my file
state: /tmp/x   # keep
credentials: {c: {tenant: t, client_id: i, client_secret: s}}
mailboxes:
  - {address: a@x.example, credential: c}
listeners: [{protocol: imap, address: "127.0.0.1:1143"}]
`

// A hash of "x".
const someHash = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA"

func TestInsertAndRemoveLogin(t *testing.T) {
	l := loginConfig{Username: "new", PasswordHash: someHash, Mailbox: "a@x.example", Allow: []string{"smtp"}, RewriteFrom: true}
	block := func(indent string) string {
		return indent + "- username: new\n" + indent + "  password_hash: '" + someHash + "'\n" + indent + "  mailbox: a@x.example\n" +
			indent + "  allow: [smtp]\n" + indent + "  rewrite_from: true\n"
	}
	one := "logins:  # who\n  # alice\n  - username: alice\n    password_hash: " + someHash + "\n    mailbox: a@x.example # hers\n\n    allow: [imap]\n"
	for _, tt := range []struct{ name, before, after string }{
		{"no logins", headOfFile, headOfFile + "\nlogins:\n" + block("  ")},
		{"no line end", strings.TrimRight(headOfFile, "\n"), headOfFile + "\nlogins:\n" + block("  ")},
		{"empty list", "logins: []  # none yet\n" + headOfFile, "logins:  # none yet\n" + block("  ") + headOfFile},
		{"no value", "logins:\n" + headOfFile, "logins:\n" + block("  ") + headOfFile},
		{"last in file", headOfFile + one, headOfFile + one + block("  ")},
		{"amid the file", one + "\n# listeners below\n" + headOfFile, one + block("  ") + "\n# listeners below\n" + headOfFile},
		{"not indented", strings.ReplaceAll(one, "\n  ", "\n") + headOfFile, strings.ReplaceAll(one, "\n  ", "\n") + block("") + headOfFile},
		{"wide", strings.ReplaceAll(one, "\n  ", "\n      ") + headOfFile, strings.ReplaceAll(one, "\n  ", "\n      ") + block("      ") + headOfFile},
		{"dash alone", strings.Replace(one, "- username", "-\n    username", 1) + headOfFile, strings.Replace(one, "- username", "-\n    username", 1) + block("  ") + headOfFile},
		{"flow item", "logins:\n  - {username: alice, password_hash: \"" + someHash + "\",\n     mailbox: a@x.example}\n" + headOfFile,
			"logins:\n  - {username: alice, password_hash: \"" + someHash + "\",\n     mailbox: a@x.example}\n" + block("  ") + headOfFile},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "postern.yaml")
			if err := os.WriteFile(path, []byte(tt.before), 0o640); err != nil {
				t.Fatal(err)
			}
			if err := editLogins(path, func(src []byte, _ *configFile) ([]byte, error) { return insertLogin(src, l) }); err != nil {
				t.Fatal(err)
			}
			got, _ := os.ReadFile(path)
			if string(got) != tt.after {
				t.Errorf("got\n%s\nwant\n%s", got, tt.after)
			}
			if info, _ := os.Stat(path); info.Mode().Perm() != 0o640 {
				t.Errorf("mode became %v", info.Mode())
			}
			// Taking it out again leaves every other line as it was.
			c := parseConfig(path, got, testEnv)
			if err := editLogins(path, func(src []byte, c *configFile) ([]byte, error) { return removeLogin(src, len(c.Logins)-1) }); err != nil {
				t.Fatal(err)
			}
			got, _ = os.ReadFile(path)
			want := strings.Replace(tt.after, block(strings.Repeat(" ", indentOf(tt.after))), "", 1)
			if len(c.Logins) == 1 {
				want = strings.Replace(want, "logins:", "logins: []", 1)
			}
			if string(got) != want {
				t.Errorf("after removing:\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func indentOf(s string) int {
	line := s[strings.LastIndex(s[:strings.Index(s, "- username: new")], "\n")+1:]
	return strings.Index(line, "-")
}

func TestRemoveFirstLogin(t *testing.T) {
	src := "logins:\n  # first\n  - username: a\n    mailbox: x\n  # second\n  - username: b\n    # inside\n    mailbox: y\nstate: /x\n"
	got, err := removeLogin([]byte(src), 0)
	if err != nil {
		t.Fatal(err)
	}
	if want := "logins:\n  # first\n  # second\n  - username: b\n    # inside\n    mailbox: y\nstate: /x\n"; string(got) != want {
		t.Errorf("got\n%s", got)
	}
	got, err = removeLogin([]byte(src), 1)
	if err != nil {
		t.Fatal(err)
	}
	if want := "logins:\n  # first\n  - username: a\n    mailbox: x\n  # second\nstate: /x\n"; string(got) != want {
		t.Errorf("got\n%s", got)
	}
}

func TestEditRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "postern.yaml")
	src := headOfFile + "logins: [{username: a, password_hash: \"" + someHash + "\", mailbox: a@x.example}]\n"
	if err := os.WriteFile(path, []byte(src), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) error {
		cmd := rootCommand()
		cmd.SetArgs(append(args, "-c", path))
		cmd.SetOut(new(bytes.Buffer))
		cmd.SetErr(new(bytes.Buffer))
		return cmd.Execute()
	}
	for _, tt := range []struct {
		want string
		args []string
	}{
		{"written in [ ]", []string{"login", "add", "b", "--mailbox", "a@x.example"}},
		{"written in [ ]", []string{"login", "revoke", "a"}},
		{"has a login A already", []string{"login", "add", "A", "--mailbox", "a@x.example"}},
		{"has no login b", []string{"login", "revoke", "b"}},
	} {
		if err := run(tt.args...); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v, want %q", tt.args, err, tt.want)
		}
	}
	if err := os.WriteFile(path, []byte(headOfFile), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run("login", "add", "b", "--mailbox", "nobody@x.example"); err == nil || !strings.Contains(err.Error(), "nobody@x.example is not among mailboxes") {
		t.Errorf("a login without mailbox: %v", err)
	}
	if got, _ := os.ReadFile(path); string(got) != headOfFile {
		t.Errorf("a refused change was written:\n%s", got)
	}
}

func TestLoginAddPrintsAWorkingPassword(t *testing.T) {
	path := filepath.Join(t.TempDir(), "postern.yaml")
	if err := os.WriteFile(path, []byte(headOfFile), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := rootCommand()
	cmd.SetOut(&out)
	cmd.SetErr(new(bytes.Buffer))
	cmd.SetArgs([]string{"login", "add", "-c", path, "a@x.example"})
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	c, err := readConfig(path, testEnv)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Logins) != 1 || c.Logins[0].Mailbox != "a@x.example" || len(c.Logins[0].Allow) != 2 {
		t.Fatalf("logins are %+v", c.Logins)
	}
	fields := strings.Fields(out.String())
	if password := fields[len(fields)-1]; len(password) != 16 {
		t.Errorf("printed %q", out.String())
	}
}

func TestQuote(t *testing.T) {
	for _, s := range []string{"alice@contoso.example", "true", "No", "it's", "a: b", "#x", "*", "${HOME}", "$argon2id$v=19$m=8,t=1", "-", "123", " pad ", "ümläut"} {
		var v struct {
			S string `yaml:"s"`
		}
		d := decoder{getenv: testEnv}
		d.decode([]byte("s: "+quote(s)+"\n"), &v)
		if len(d.problems) > 0 || v.S != s {
			t.Errorf("%q is written %s and read as %q %v", s, quote(s), v.S, d.problems)
		}
	}
}

// A new name or password changes the lines that hold them and nothing else.
func TestChangeLogin(t *testing.T) {
	path := filepath.Join(t.TempDir(), "postern.yaml")
	other := strings.Replace(someHash, "AAAA", "BBBB", 1)
	src := headOfFile + "logins:\n  # first\n  - username: alice  # hers\n    mailbox: a@x.example\n    password_hash: " + someHash + "\n    networks: [192.0.2.0/24]\n" +
		"  - username: 'Jürgen # 2'\n    password_hash: '" + someHash + "'\n    mailbox: a@x.example\n"
	if err := os.WriteFile(path, []byte(src), 0o600); err != nil {
		t.Fatal(err)
	}
	change := func(name string, edit func(*loginConfig)) {
		t.Helper()
		if _, err := changeLogin(path, name, func(l *loginConfig) (*loginConfig, error) { edit(l); return l, nil }); err != nil {
			t.Fatal(err)
		}
	}
	change("ALICE", func(l *loginConfig) { l.Username = "o'neill" })
	change("o'neill", func(l *loginConfig) { l.PasswordHash = other })
	change("Jürgen # 2", func(l *loginConfig) { l.Username = "jurgen" })
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.NewReplacer("username: alice", "username: 'o''neill'", "'Jürgen # 2'", "jurgen").Replace(src)
	want = strings.Replace(want, someHash, "'"+other+"'", 1)
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// Logins of the state folder: made, listed, changed and taken away by the commands.
func TestStateLoginCommands(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "postern.yaml")
	if err := os.WriteFile(path, []byte(strings.Replace(headOfFile, "/tmp/x", "state", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (string, error) {
		cmd := rootCommand()
		var out bytes.Buffer
		cmd.SetArgs(append([]string{"login"}, append(args, "-c", path)...))
		cmd.SetOut(&out)
		cmd.SetErr(new(bytes.Buffer))
		err := cmd.Execute()
		return out.String(), err
	}
	out, err := run("add", "printer", "--state", "--mailbox", "a@x.example", "--allow", "smtp", "--network", "192.0.2.7")
	if err != nil || !strings.Contains(out, "password   ") {
		t.Fatal(out, err)
	}
	for _, tt := range []struct {
		want string // in the output, or the error behind a !
		args []string
	}{
		{"!already", []string{"add", "PRINTER", "--mailbox", "a@x.example"}},
		{"!not among mailboxes", []string{"add", "x", "--state", "--mailbox", "b@x.example"}},
		{"!no network", []string{"add", "x", "--state", "--mailbox", "a@x.example", "--network", "office"}},
		{"state  -", []string{"list"}},
		{"192.0.2.7/32", []string{"show", "printer"}},
		{"!no login nobody", []string{"show", "nobody"}},
		{"", []string{"rename", "printer", "scanner"}},
		{"password   ", []string{"passwd", "scanner"}},
		{`"place": "state"`, []string{"show", "scanner", "--json"}},
		{"", []string{"unlock", "scanner"}},
		{"!or write --all", []string{"unlock"}},
		{"", []string{"revoke", "Scanner"}},
		{"!no login scanner", []string{"revoke", "scanner"}},
	} {
		out, err := run(tt.args...)
		want, fails := strings.CutPrefix(tt.want, "!")
		if (err != nil) != fails || fails && !strings.Contains(err.Error(), want) || !fails && !strings.Contains(out, want) {
			t.Errorf("login %v: %q, %v, want %q", tt.args, out, err, tt.want)
		}
	}
	after, err := os.ReadFile(path)
	if err != nil || !strings.HasPrefix(string(after), "# my file") || strings.Contains(string(after), "logins") {
		t.Errorf("the configuration changed: %s, %v", after, err)
	}
}

// A login that may only read is not given what it could not use.
func TestReadOnlyAllows(t *testing.T) {
	w := newSetupWorld(t)
	if out, err := w.setup(); err != nil {
		t.Fatal(err, out)
	}
	c := w.flags["config"]
	if out, err := runPostern(nil, "login", "add", "-c", c, "viewer", "--mailbox", sampleUser, "--read-only"); err != nil {
		t.Fatal(err, out)
	}
	if out, err := runPostern(nil, "login", "add", "-c", c, "odd", "--mailbox", sampleUser, "--read-only", "--allow", "smtp"); err == nil {
		t.Errorf("smtp and read-only: %s", out)
	}
	conf, err := readConfig(c, testEnv)
	if err != nil || len(conf.warnings) > 0 || len(conf.Logins) != 3 || // with those that setup made, a person's and the administrator's
		conf.Logins[2].Username != "viewer" || !slices.Equal(conf.Logins[2].Allow, []string{"imap"}) {
		t.Errorf("%+v, %v, %v", conf.Logins, conf.warnings, err)
	}
	src, err := os.ReadFile(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c, bytes.Replace(src, []byte("allow: [imap]"), []byte("allow: [smtp, imap]"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if conf, err = readConfig(c, testEnv); err != nil || len(conf.warnings) != 1 {
		t.Errorf("%v, %v", conf.warnings, err)
	}
}
