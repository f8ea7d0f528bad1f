package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

var (
	link        = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading     = regexp.MustCompile(`^#{1,6} +(.+)$`)
	placeholder = regexp.MustCompile(`@[A-Z0-9_]+@|\b(TODO|FIXME|XXX|TBD)\b`)
)

// The manual is whole: links lead somewhere, rows of tables have as many cells as their heads, and nothing was left to be filled in.
func TestDocsAreWhole(t *testing.T) {
	files := []string{"../../README.md", "../../CHANGELOG.md"}
	err := filepath.WalkDir("../../docs", func(path string, _ fs.DirEntry, err error) error {
		if filepath.Ext(path) == ".md" {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	anchors := make(map[string]map[string]bool)
	for _, file := range files {
		anchors[filepath.Clean(file)] = anchorsOf(t, file)
	}
	for _, file := range files {
		cells := 0 // of the table we are in
		lines := manualLines(t, file)
		for i, line := range lines {
			if m := placeholder.FindString(line); m != "" {
				t.Errorf("%s:%d: %s was left to be filled in", file, i+1, m)
			}
			for _, m := range link.FindAllStringSubmatch(span.ReplaceAllString(line, ""), -1) {
				checkLink(t, file, i+1, m[1], anchors)
			}
			row := strings.TrimSpace(line)
			if !strings.HasPrefix(row, "|") {
				cells = 0
				continue
			}
			n := strings.Count(strings.ReplaceAll(row, `\|`, ""), "|") - 1
			if cells == 0 {
				cells = n
				if i+1 == len(lines) || !strings.HasPrefix(strings.TrimSpace(lines[i+1]), "|---") {
					t.Errorf("%s:%d: a table without a head", file, i+1)
				}
			}
			if n != cells || !strings.HasSuffix(row, "|") {
				t.Errorf("%s:%d: a row of %d cells in a table of %d", file, i+1, n, cells)
			}
		}
	}
}

// manualLines returns the lines of a manual's page, blocks of code emptied.
func manualLines(t *testing.T, file string) []string {
	t.Helper()
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(src), "\n")
	code := false
	for i, line := range lines {
		fence := strings.HasPrefix(strings.TrimSpace(line), "```")
		if fence {
			code = !code
		}
		if code || fence {
			lines[i] = ""
		}
	}
	return lines
}

// anchorsOf returns what links may name behind #: headings as GitHub spells them.
func anchorsOf(t *testing.T, file string) map[string]bool {
	t.Helper()
	found := make(map[string]bool)
	for _, line := range manualLines(t, file) {
		m := heading.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		found[strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, m[1])] = true
	}
	return found
}

func checkLink(t *testing.T, file string, line int, target string, anchors map[string]map[string]bool) {
	t.Helper()
	if strings.Contains(target, "://") {
		return
	}
	name, anchor, _ := strings.Cut(target, "#")
	path := filepath.Clean(file)
	if name != "" {
		path = filepath.Join(filepath.Dir(file), name)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("%s:%d: %s leads nowhere", file, line, target)
	} else if anchor != "" && !anchors[path][anchor] {
		t.Errorf("%s:%d: %s: there is no such heading", file, line, target)
	}
}
