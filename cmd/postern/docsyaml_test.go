package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// docFiles returns the manual's pages.
func docFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(files) < 10 {
		t.Fatal(len(files), err)
	}
	return append(files, "../../README.md")
}

// Every piece of configuration in the manual is one that the program takes: blocks as part of a whole file, keys with their
// values where they stand in the text.
func TestConfigInDocs(t *testing.T) {
	blocks, spans := 0, 0
	for _, file := range docFiles(t) {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text := string(src)
		for _, m := range yamlBlock.FindAllStringSubmatchIndex(text, -1) {
			block := text[m[2]:m[3]]
			if !isConfig(block) {
				continue // of another program
			}
			blocks++
			if err := takes(t, block); err != nil {
				t.Errorf("%s:%d: %v\n%s", file, 1+strings.Count(text[:m[0]], "\n"), err, block)
			}
		}
		outside := fence.ReplaceAllStringFunc(text, func(s string) string { return strings.Repeat("\n", strings.Count(s, "\n")) })
		for i, line := range strings.Split(outside, "\n") {
			if code, ok := strings.CutPrefix(line, "    "); ok && isConfig(code) && !strings.HasPrefix(code, " ") {
				blocks++
				if err := takes(t, code); err != nil {
					t.Errorf("%s:%d: %v\n%s", file, i+1, err, code)
				}
			}
			for _, code := range span.FindAllString(line, -1) {
				m := keyValue.FindStringSubmatch(strings.Trim(code, "`"))
				if m == nil {
					continue
				}
				spans++
				if err := takesKey(m[1], m[2]); err != nil {
					t.Errorf("%s:%d: %s: %v", file, i+1, code, err)
				}
			}
		}
	}
	if blocks < 4 || spans < 30 {
		t.Errorf("only %d blocks and %d keys were found", blocks, spans)
	}
}

var (
	yamlBlock = regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$")
	fence     = regexp.MustCompile("(?ms)^```.*?^```$")
	section   = regexp.MustCompile(`^#?\s*([a-z_]+):`)
	keyValue  = regexp.MustCompile(`^([a-z][a-z_]*(?:\.[a-z_]+)*): +(.+)$`)
)

// isConfig reports whether text begins with a section of the configuration file.
func isConfig(text string) bool {
	m := section.FindStringSubmatch(text)
	return m != nil && slices.ContainsFunc(configKeys(), func(k configKey) bool { return k.Path == m[1] })
}

// takes checks a part of a configuration file within a whole one.
func takes(t *testing.T, part string) error {
	t.Helper()
	dir := t.TempDir()
	c, k, err := selfSigned("localhost", []string{"localhost"}, time.Hour, true)
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{"cert.pem": c, "key.pem": k} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return err
		}
	}
	whole := part
	for name, text := range map[string]string{
		"state":       "state: state",
		"credentials": "credentials: {contoso: {tenant: contoso.example, client_id: 2c9b0c44-0000-4000-8000-000000000000, client_secret: s}}",
		"mailboxes": "mailboxes: [{address: alice@contoso.example, credential: contoso}, {address: support@contoso.example, credential: contoso}, " +
			"{address: scanner@contoso.example, credential: contoso}]",
		"listeners": `listeners: [{protocol: imap, address: "127.0.0.1:1143", tls: none}]`,
		"tls":       "tls: {certificate: cert.pem, key: key.pem}",
	} {
		if !regexp.MustCompile(`(?m)^` + name + `:`).MatchString(part) {
			whole += "\n" + text + "\n"
		}
	}
	conf := parseConfig(filepath.Join(dir, "postern.yaml"), []byte(whole), func(string) (string, bool) { return "value", true })
	return conf.err()
}

// takesKey checks one key with a value, given by its path or the end of it.
func takesKey(key, value string) error {
	err := fmt.Errorf("there is no such key")
	for _, k := range configKeys() {
		if k.Path != key && !strings.HasSuffix(k.Path, "."+key) {
			continue
		}
		top, name, nested := strings.Cut(k.Path, ".")
		text := fmt.Sprintf("%s: %s", k.Path, value)
		if nested {
			switch top {
			case "credentials":
				text = fmt.Sprintf("credentials: {contoso: {%s: %s}}", name, quoteDollar(value))
			case "mailboxes", "logins", "listeners":
				text = fmt.Sprintf("%s: [{%s: %s}]", top, name, value)
			default:
				text = fmt.Sprintf("%s: {%s: %s}", top, name, value)
			}
		}
		c := defaultConfig()
		d := decoder{getenv: func(string) (string, bool) { return "value", true }}
		d.decode([]byte(text), &c)
		switch {
		case len(d.problems) > 0:
			err = fmt.Errorf("%v", d.problems)
		case len(k.Values) > 0 && !slices.Contains(k.Values, strings.Trim(value, `"[]`)):
			err = fmt.Errorf("%s takes %s", k.Path, strings.Join(k.Values, ", "))
		default:
			return nil
		}
	}
	return err
}

// quoteDollar quotes what YAML's flow style would take apart.
func quoteDollar(v string) string {
	if strings.Contains(v, "${") {
		return `"` + v + `"`
	}
	return v
}
