package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"postern/internal/fuzzcorpus"
)

// testEnv is the environment the sample files are read in.
func testEnv(name string) (string, bool) {
	if name == "POSTERN_CLIENT_SECRET" {
		return "s3cret~value", true
	}
	return "", false
}

// Each bad file says on its first lines, behind "# want:", what must be said of it, and nothing else may be.
func TestSampleConfigs(t *testing.T) {
	files, err := filepath.Glob("../../testdata/config/*.yaml")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d sample files, %v", len(files), err)
	}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			src, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			c := parseConfig(path, src, testEnv)
			var want []string
			for _, m := range regexp.MustCompile(`(?m)^# want: (.*)$`).FindAllStringSubmatch(string(src), -1) {
				want = append(want, filepath.Base(path)+":"+m[1])
			}
			got := c.describe(c.errors)
			for i := range got {
				got[i] = strings.ReplaceAll(got[i], filepath.Dir(path)+string(filepath.Separator), "")
			}
			good := strings.HasPrefix(filepath.Base(path), "good-")
			if good != (len(want) == 0) {
				t.Fatalf("a good file wants no errors, a bad one some")
			}
			for i := range max(len(got), len(want)) {
				switch {
				case i >= len(got):
					t.Errorf("not said: %s", want[i])
				case i >= len(want):
					t.Errorf("said too much: %s", got[i])
				case !strings.HasPrefix(got[i], want[i]):
					t.Errorf("said %s\nwant %s", got[i], want[i])
				}
			}
			if good {
				if _, err := c.backend(nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestExampleConfig(t *testing.T) {
	c := parseConfig("example.yaml", []byte(exampleConfig), testEnv)
	if err := c.err(); err != nil {
		t.Fatal(err)
	}
	if len(c.warnings) > 0 {
		t.Errorf("warnings: %v", c.describe(c.warnings))
	}
	if got := c.Credentials["contoso"].ClientSecret; got != "s3cret~value" {
		t.Errorf("client secret is %q", got)
	}
	def := defaultConfig()
	if c.State != def.State || c.SMTP != def.SMTP || c.IMAP != def.IMAP || c.Queue != def.Queue || c.Cache != def.Cache {
		t.Errorf("the example differs from the defaults it explains:\n%+v\n%+v", c.config, def)
	}
	without := parseConfig("example.yaml", []byte(exampleConfig), func(string) (string, bool) { return "", false })
	if err := without.err(); err == nil || !strings.Contains(err.Error(), "environment variable POSTERN_CLIENT_SECRET is not set") {
		t.Errorf("without the variable: %v", err)
	}
}

// docs/configuration.md must name every key.
func TestEveryKeyIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	var visit func(reflect.Type)
	visit = func(typ reflect.Type) {
		for f := range typ.Fields() {
			key := f.Tag.Get("yaml")
			if !strings.Contains(string(doc), "`"+key+"`") {
				t.Errorf("docs/configuration.md lacks `%s`", key)
			}
			elem := f.Type
			if elem.Kind() == reflect.Slice || elem.Kind() == reflect.Map {
				elem = elem.Elem()
			}
			if elem.Kind() == reflect.Struct && elem.PkgPath() == typ.PkgPath() {
				visit(elem)
			}
		}
	}
	visit(reflect.TypeFor[config]())
}

func TestPaths(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("from a file\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	src := `
state: var
credentials: {c: {tenant: contoso.example, client_id: 0123e5, client_secret_file: secret}}
mailboxes: [{address: a@contoso.example, credential: c}]
listeners: [{protocol: imap, address: "[::1]:0"}]
`
	c := parseConfig(filepath.Join(dir, "postern.yaml"), []byte(src), testEnv)
	if err := c.err(); err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(dir, "var"); c.State != want {
		t.Errorf("state is %s, want %s: beside the file", c.State, want)
	}
	if got := c.Credentials["c"]; got.ClientSecret != "from a file" || got.ClientID != "0123e5" || got.Cloud != "global" {
		t.Errorf("credential is %+v", got)
	}
	if len(c.warnings) != 1 || !strings.Contains(c.warnings[0].text, "nobody can log in") {
		t.Errorf("warnings: %v", c.warnings)
	}
}

// A certificate that is missing stops only those who need it.
func TestMissingCertificate(t *testing.T) {
	for _, tt := range []struct {
		mode             string
		errors, warnings int
	}{{"none", 0, 1}, {"starttls", 1, 0}, {"implicit", 1, 0}} {
		src := strings.Replace(exampleConfig, `address: "127.0.0.1:1143", tls: none`, `address: "127.0.0.1:1143", tls: `+tt.mode, 1) +
			"tls: {certificate: none.pem, key: none.pem}\n"
		c := parseConfig(filepath.Join(t.TempDir(), "postern.yaml"), []byte(src), testEnv)
		if len(c.errors) != tt.errors || len(c.warnings) != tt.warnings {
			t.Errorf("tls %s: errors %v, warnings %v", tt.mode, c.describe(c.errors), c.describe(c.warnings))
		}
	}
}

// Secrets that others can read are refused, unless somebody has said that it must be so.
func TestPermissions(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "postern.yaml")
	src := strings.Replace(exampleConfig, "${POSTERN_CLIENT_SECRET}", "written~here", 1)
	local := strings.Replace(src, "# login_url:", "login_url:", 1)
	for _, tt := range []struct {
		name, src        string
		file, folder     os.FileMode
		refused, warning bool
	}{
		{"readable by all", src, 0o644, 0o755, true, false},
		{"in a closed folder", src, 0o644, 0o700, false, false},
		{"by the group", src, 0o640, 0o755, false, false},
		{"by the owner", src, 0o600, 0o755, false, false},
		{"said so", src + "allow_readable_secrets: true\n", 0o644, 0o755, false, true},
		{"a simulator's", local, 0o644, 0o755, false, true},
		{"from the environment", exampleConfig, 0o644, 0o755, false, false},
	} {
		if err := os.WriteFile(path, []byte(tt.src), tt.file); err != nil {
			t.Fatal(err)
		}
		for name, mode := range map[string]os.FileMode{path: tt.file, dir: tt.folder, filepath.Dir(dir): tt.folder} {
			if err := os.Chmod(name, mode); err != nil {
				t.Fatal(err)
			}
		}
		c, err := readConfig(path, testEnv)
		if c == nil || (err != nil) != tt.refused || err != nil && !strings.Contains(err.Error(), "chmod 640") {
			t.Errorf("%s: %v", tt.name, err)
		}
		if warned := len(c.warnings) > 0; warned != tt.warning {
			t.Errorf("%s: warnings %v", tt.name, c.describe(c.warnings))
		}
	}
}

// What config show prints is a configuration again, and holds no secret.
func TestConfigShow(t *testing.T) {
	for _, name := range []string{"good-contract.yaml", "good-minimal.yaml", "good-tls-and-devices.yaml"} {
		src, err := os.ReadFile(filepath.Join("../../testdata/config", name))
		if err != nil {
			t.Fatal(err)
		}
		c := parseConfig(filepath.Join("../../testdata/config", name), src, func(string) (string, bool) { return "from-the-environment", true })
		if c.err() != nil {
			t.Fatal(c.err())
		}
		var out strings.Builder
		if err := showConfig(&out, c); err != nil {
			t.Fatal(err)
		}
		for _, bad := range []string{"from-the-environment", "$argon2id", "Not-A-Real-Secret"} {
			if strings.Contains(out.String(), bad) {
				t.Errorf("%s shows %s:\n%s", name, bad, out.String())
			}
		}
		again := parseConfig(filepath.Join("../../testdata/config", name), []byte(out.String()), testEnv)
		for _, e := range again.describe(again.errors) {
			if !strings.Contains(e, "hash") {
				t.Errorf("%s: %s\n%s", name, e, out.String())
			}
		}
		if !reflect.DeepEqual(again.Listeners[0], c.Listeners[0]) || again.Queue != c.Queue || again.IMAP != c.IMAP {
			t.Errorf("%s: another configuration:\n%s", name, out.String())
		}
	}
	for d, want := range map[time.Duration]string{48 * time.Hour: "48h", 5 * time.Second: "5s", time.Minute: "1m", 90 * time.Minute: "1h30m", 0: "0s", 10 * time.Minute: "10m"} {
		if got := shortDuration(d); got != want {
			t.Errorf("%v written %s, want %s", d, got, want)
		}
	}
}

// The schema takes the samples that the decoder takes, and not those with unknown keys.
func TestConfigSchema(t *testing.T) {
	raw, err := json.Marshal(configSchema())
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("postern.json", doc); err != nil {
		t.Fatal(err)
	}
	sch, err := compiler.Compile("postern.json")
	if err != nil {
		t.Fatal(err)
	}
	for name, good := range map[string]bool{"good-contract.yaml": true, "good-minimal.yaml": true, "good-tls-and-devices.yaml": true, "bad-unknown-keys.yaml": false, "bad-values.yaml": false} {
		src, err := os.ReadFile(filepath.Join("../../testdata/config", name))
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := yaml.Unmarshal(src, &v); err != nil {
			t.Fatal(err)
		}
		asJSON, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		inst, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
		if err != nil {
			t.Fatal(err)
		}
		if err := sch.Validate(inst); (err == nil) != good {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Paths in the tables are keys that exist.
	for path := range schemaText {
		if !strings.Contains(string(raw), `"`+path[strings.LastIndexByte(path, '.')+1:]+`"`) {
			t.Errorf("no key %s", path)
		}
	}
}

func TestExpand(t *testing.T) {
	env := func(name string) (string, bool) {
		v, ok := map[string]string{"A": "1", "EMPTY": "", "DOLLAR": "${A}"}[name]
		return v, ok
	}
	for _, tt := range []struct {
		in, out string
		used    bool
		fails   bool
	}{
		{in: "plain", out: "plain"},
		{in: "$argon2id$v=19$m=1", out: "$argon2id$v=19$m=1"},
		{in: "${A}", out: "1", used: true},
		{in: "x${A}y${A}", out: "x1y1", used: true},
		{in: "${EMPTY}", out: "", used: true},
		{in: "${DOLLAR}", out: "${A}", used: true}, // once only
		{in: "$${A}", out: "${A}"},
		{in: "$A", out: "$A"},
		{in: "${B}", fails: true},
		{in: "${A", fails: true},
		{in: "${}", fails: true},
		{in: "${A:-x}", fails: true},
	} {
		out, used, err := expand(tt.in, env)
		if (err != nil) != tt.fails {
			t.Errorf("%q: %v", tt.in, err)
		} else if err == nil && (out != tt.out || used != tt.used) {
			t.Errorf("%q gives %q, %v; want %q, %v", tt.in, out, used, tt.out, tt.used)
		}
	}
}

func TestParseSize(t *testing.T) {
	for in, want := range map[string]byteSize{
		"0": 0, "1234": 1234, "150MB": 150e6, "2GB": 2e9, "2 gb": 2e9, "1.5GB": 15e8, "512KiB": 512 << 10, "150MiB": 150 << 20, "1G": 1 << 30,
	} {
		got, err := parseSize(in)
		if err != nil || got != want {
			t.Errorf("%q is %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "MB", "-1MB", "1XB", "1e400", "NaN", "Inf", "10000000TB", "0.5"} {
		if got, err := parseSize(in); err == nil {
			t.Errorf("%q is taken as %d", in, got)
		}
	}
	for n, want := range map[byteSize]string{150e6: "150MB", 2e9: "2GB", 1 << 30: "1GiB", 1234: "1234B", 0: "0B"} {
		if n.String() != want {
			t.Errorf("%d is written %s, want %s", int64(n), n, want)
		}
	}
}

func TestDefaultsAreGood(t *testing.T) {
	c := &configFile{config: defaultConfig()}
	c.checkLimits()
	if err := c.err(); err != nil {
		t.Error(err)
	}
	if c.SMTP.Wait != 10*time.Second {
		t.Errorf("smtp.wait is %v", c.SMTP.Wait)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add(exampleConfig)
	files, _ := filepath.Glob("../../testdata/config/*.yaml")
	for _, path := range files {
		if src, err := os.ReadFile(path); err == nil {
			f.Add(string(src))
		}
	}
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, src string) {
		hang := time.AfterFunc(10*time.Second, func() { panic(fmt.Sprintf("not read after 10 s: %q", src)) })
		defer hang.Stop()
		parseConfig("fuzz.yaml", []byte(src), testEnv)
	})
}
