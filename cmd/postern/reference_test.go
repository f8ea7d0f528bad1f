package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// docs/reference is written from the code by make docs, and manual pages by make dist.

var (
	updateReference = flag.Bool("update", false, "write docs/reference anew")
	manFolder       = flag.String("man", "", "folder to write manual pages into")
)

// documented returns the commands without what the environment of this machine would change.
func documented(t *testing.T) *cobra.Command {
	t.Helper()
	for _, name := range []string{"POSTERN_CONFIG", "POSTERN_LOG_LEVEL", "POSTERN_LOG_FORMAT"} {
		t.Setenv(name, "")
	}
	cmd := rootCommand()
	cmd.InitDefaultCompletionCmd("completion")
	cmd.DisableAutoGenTag = true
	return cmd
}

func TestReference(t *testing.T) {
	for name, text := range map[string]string{
		"commands.md":      commandReference(t, documented(t)),
		"configuration.md": configurationReference(t),
	} {
		file := filepath.Join("..", "..", "docs", "reference", name)
		if *updateReference {
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		have, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if string(have) != text {
			t.Errorf("docs/reference/%s is not what the code says: run make docs", name)
		}
	}
}

// commandReference is one page with a section for each command.
func commandReference(t *testing.T, root *cobra.Command) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("# Commands\n\nWritten from the program itself by `make docs`; do not edit. `postern help COMMAND` says the same.\n\n")
	anchor := func(name string) string {
		return "#" + strings.ReplaceAll(strings.TrimSuffix(name, ".md"), "_", "-")
	}
	var each func(cmd *cobra.Command)
	each = func(cmd *cobra.Command) {
		if !cmd.IsAvailableCommand() || cmd.IsAdditionalHelpTopicCommand() {
			return
		}
		var page bytes.Buffer
		if err := doc.GenMarkdownCustom(cmd, &page, anchor); err != nil {
			t.Fatal(err)
		}
		b.Write(page.Bytes())
		b.WriteString("\n")
		for _, sub := range cmd.Commands() {
			each(sub)
		}
	}
	each(root)
	return strings.TrimRight(b.String(), "\n") + "\n"
}

func configurationReference(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("# Keys of the configuration file\n\nWritten from the program itself by `make docs`; do not edit. [configuration.md](../configuration.md) explains them.\n\n" +
		"A duration is a number with a unit, such as `10s`, `5m` or `48h`; a size one such as `150MB` or `2GiB`; a network one such as `192.0.2.0/24` or a single address.\n" +
		"`credentials` has names of your choice, below which the keys stand; `mailboxes`, `logins` and `listeners` are lists.\n")
	for _, k := range configKeys() {
		if k.Text == "" {
			t.Errorf("%s has no description: write one in schemaText", k.Path)
		}
		if !strings.Contains(k.Path, ".") {
			fmt.Fprintf(&b, "\n## `%s`\n\n%s", k.Path, k.Text)
			switch {
			case k.Default != "":
				fmt.Fprintf(&b, " Default: `%s`.", k.Default)
			case k.Type == "section" || strings.Contains(k.Type, "sections"):
				b.WriteString("\n\n| key | what | default | meaning |\n|---|---|---|---|")
			}
			b.WriteString("\n")
			continue
		}
		_, key, _ := strings.Cut(k.Path, ".")
		what := k.Type
		if len(k.Values) > 0 {
			what = "`" + strings.Join(k.Values, "`, `") + "`"
			if strings.HasPrefix(k.Type, "list") {
				what = "list of " + what
			}
		}
		def := "–"
		if k.Default != "" {
			def = "`" + k.Default + "`"
			if strings.Contains(k.Default, " ") && !strings.HasPrefix(k.Default, "[") {
				def = k.Default
			}
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", key, what, def, strings.ReplaceAll(k.Text, "|", `\|`))
	}
	return b.String()
}

// docs/configuration.md is written by hand, and has every key all the same.
func TestConfigurationManual(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range configKeys() {
		key := k.Path[strings.LastIndexByte(k.Path, '.')+1:]
		if !strings.Contains(string(b), "`"+key+"`") {
			t.Errorf("docs/configuration.md says nothing of %s", k.Path)
		}
	}
}

// TestManPages writes a manual page for each command with -man; without it, it only makes them.
func TestManPages(t *testing.T) {
	dir := *manFolder
	if dir == "" {
		dir = t.TempDir()
	}
	date := time.Unix(0, 0).UTC()
	if s := os.Getenv("SOURCE_DATE_EPOCH"); s != "" {
		var sec int64
		if _, err := fmt.Sscan(s, &sec); err != nil {
			t.Fatal(err)
		}
		date = time.Unix(sec, 0).UTC()
	}
	if err := doc.GenManTree(documented(t), &doc.GenManHeader{Section: "1", Source: "Postern", Manual: "Postern", Date: &date}, dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"postern.1", "postern-serve.1", "postern-queue-list.1", "postern-backup.1"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.Contains(b, []byte(".SH SYNOPSIS")) {
			t.Errorf("%s: %v\n%s", name, err, b)
		}
	}
	if pages, _ := filepath.Glob(filepath.Join(dir, "*simulator*")); len(pages) > 0 {
		t.Errorf("a hidden command has a page: %v", pages)
	}
}
