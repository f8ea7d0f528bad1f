package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// The configuration file belongs to a person: it is changed by lines, at places
// the parser finds, so that comments, order and layout stay as they are.

// editLogins changes the file at path by edit, and replaces it in one step if what comes out is a
// good configuration with no more faults than before.
func editLogins(path string, edit func(src []byte, c *configFile) ([]byte, error)) error {
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		path = resolved // replace the file, not the link to it
	}
	src, err := os.ReadFile(path)
	if err != nil {
		return explainReadError(path, err)
	}
	before := parseConfig(path, src, os.LookupEnv)
	out, err := edit(src, before)
	if err != nil {
		return err
	}
	if after := parseConfig(path, out, os.LookupEnv); len(after.errors) > len(before.errors) {
		return fmt.Errorf("nothing was written, because the file would not be right:\n%w", after.err())
	}
	return replaceFile(path, out)
}

// replaceFile puts data in place of the file at path: whoever reads it sees the old or the new content, also after a power cut.
func replaceFile(path string, data []byte) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".postern-*.yaml")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // fails after the rename, as it should
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Chmod(info.Mode().Perm()), keepOwner(tmp, info), tmp.Sync(), tmp.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(tmp.Name(), path)
}

// loginsNode finds the value of the top-level key logins; key is nil if there is none.
func loginsNode(src []byte) (key *ast.MappingValueNode, err error) {
	file, err := parser.ParseBytes(src, 0)
	if err != nil {
		return nil, fmt.Errorf("not valid YAML: %w", err)
	}
	for _, doc := range file.Docs {
		var pairs []*ast.MappingValueNode
		switch n := doc.Body.(type) {
		case *ast.MappingNode:
			pairs = n.Values
		case *ast.MappingValueNode:
			pairs = []*ast.MappingValueNode{n}
		}
		for _, p := range pairs {
			if p.Key.GetToken().Value == "logins" {
				return p, nil
			}
		}
	}
	return nil, nil
}

var errNotBlock = errors.New("the logins are written in [ ]: put each on lines of its own beginning with \"- \", then try again")

// insertLogin returns src with l as the last of its logins.
func insertLogin(src []byte, l loginConfig) ([]byte, error) {
	lines := splitLines(src)
	key, err := loginsNode(src)
	if err != nil {
		return nil, err
	}
	if key == nil {
		return joinLines(append(lines, append([]string{"", "logins:"}, loginLines(l, "  ")...)...)), nil
	}
	at := key.Key.GetToken().Position.Line // lines before the place to insert
	switch n := key.Value.(type) {
	case *ast.NullNode:
		return joinLines(slices.Insert(lines, at, loginLines(l, "  ")...)), nil
	case *ast.SequenceNode:
		if len(n.Values) == 0 {
			// "logins: []", with or without a comment behind it.
			lines[at-1] = emptyList.ReplaceAllString(lines[at-1], "logins:$1")
			return joinLines(slices.Insert(lines, at, loginLines(l, "  ")...)), nil
		}
		if n.IsFlowStyle {
			return nil, errNotBlock
		}
		indent := strings.Repeat(" ", n.Start.Position.Column-1)
		end := lastLine(lines, lineOf(n.Values[len(n.Values)-1]), len(indent))
		return joinLines(slices.Insert(lines, end, loginLines(l, indent)...)), nil
	}
	return nil, errors.New("logins: a list is wanted here")
}

var emptyList = regexp.MustCompile(`^logins\s*:\s*\[\s*\](.*)`)

// removeLogin returns src without its i-th login, counted from 0.
func removeLogin(src []byte, i int) ([]byte, error) {
	key, err := loginsNode(src)
	if err != nil {
		return nil, err
	}
	n, ok := key.Value.(*ast.SequenceNode)
	if !ok || i >= len(n.Values) || n.IsFlowStyle {
		return nil, errNotBlock
	}
	lines := splitLines(src)
	indent := n.Start.Position.Column - 1
	first := lineOf(n.Values[i])
	for first > 1 && !beginsItem(lines[first-1], indent) {
		first-- // a dash on a line of its own, or comments between it and the first key
	}
	lines = slices.Delete(lines, first-1, lastLine(lines, lineOf(n.Values[i]), indent))
	if len(n.Values) == 1 {
		k := key.Key.GetToken().Position.Line
		lines[k-1] = strings.Replace(lines[k-1], "logins:", "logins: []", 1)
	}
	return joinLines(lines), nil
}

// changeLoginLines returns src with the user name and password hash of its i-th login changed from those of old to those
// of new: only the lines that hold them, so that all else stays as it was.
func changeLoginLines(src []byte, i int, old, new loginConfig) ([]byte, error) {
	key, err := loginsNode(src)
	if err != nil {
		return nil, err
	}
	n, ok := key.Value.(*ast.SequenceNode)
	if !ok || i >= len(n.Values) || n.IsFlowStyle {
		return nil, errNotBlock
	}
	item, ok := n.Values[i].(*ast.MappingNode)
	if !ok || item.IsFlowStyle {
		return nil, errNotBlock
	}
	lines := splitLines(src)
	for _, pair := range item.Values {
		var value string
		switch name := pair.Key.GetToken().Value; {
		case name == "username" && new.Username != old.Username:
			value = new.Username
		case name == "password_hash" && new.PasswordHash != old.PasswordHash:
			value = new.PasswordHash
		default:
			continue
		}
		at := pair.Key.GetToken().Position
		if lineOf(pair.Value) != at.Line || pair.Value.Type() != ast.StringType {
			return nil, fmt.Errorf("line %d: the value is written over several lines: change it by hand", at.Line)
		}
		line := lines[at.Line-1]
		column := pair.Value.GetToken().Position.Column - 1 // counted in letters
		letters := []rune(line)
		if column < 0 || column > len(letters) {
			return nil, fmt.Errorf("line %d cannot be changed: change it by hand", at.Line)
		}
		rest, comment := string(letters[column:]), ""
		if c := strings.Index(rest, " #"); c >= 0 && !strings.ContainsAny(rest[:1], `'"`) {
			comment = rest[len(strings.TrimRight(rest[:c], " ")):]
		}
		lines[at.Line-1] = string(letters[:column]) + quote(value) + comment
	}
	return joinLines(lines), nil
}

func beginsItem(line string, indent int) bool {
	return len(line) > indent && strings.TrimSpace(line[:indent]) == "" && line[indent] == '-'
}

// lastLine returns the number of the last line of the list item that has content on line from and whose dash is behind
// indent blanks: what follows is indented more. Blank lines and comments at its end belong to what comes after.
func lastLine(lines []string, from, indent int) int {
	end := from
	for i := from; i < len(lines); i++ { // lines[i] has number i+1
		text := strings.TrimLeft(lines[i], " ")
		if text == "" || text[0] == '#' {
			continue
		}
		if len(lines[i])-len(text) <= indent {
			break
		}
		end = i + 1
	}
	return end
}

// loginLines writes l as an item of a list indented by indent. What equals the default is left out.
func loginLines(l loginConfig, indent string) []string {
	out := []string{indent + "- username: " + quote(l.Username)}
	add := func(key, value string) { out = append(out, indent+"  "+key+": "+value) }
	list := func(key string, values []string) {
		if len(values) == 0 {
			return
		}
		quoted := make([]string, len(values))
		for i, v := range values {
			quoted[i] = quote(v)
		}
		add(key, "["+strings.Join(quoted, ", ")+"]")
	}
	add("password_hash", quote(l.PasswordHash))
	if l.Mailbox != "" {
		add("mailbox", quote(l.Mailbox))
	}
	list("shared", l.Shared)
	list("allow", l.Allow)
	list("send_as", l.SendAs)
	if l.ReadOnly {
		add("read_only", "true")
	}
	if l.RewriteFrom {
		add("rewrite_from", "true")
	}
	var networks []string
	for _, n := range l.Networks {
		networks = append(networks, n.String())
	}
	list("networks", networks)
	return out
}

var plainScalar = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._@+/-]*$`)

// yamlWords are read as something else than a string when they stand alone.
var yamlWords = []string{"true", "false", "yes", "no", "on", "off", "null", "y", "n"}

// quote writes s as a YAML string that the decoder reads back as s.
func quote(s string) string {
	if plainScalar.MatchString(s) && !slices.Contains(yamlWords, strings.ToLower(s)) {
		return s
	}
	return "'" + strings.ReplaceAll(strings.ReplaceAll(s, "'", "''"), "${", "$${") + "'"
}

func splitLines(src []byte) []string {
	src = bytes.TrimRight(src, "\r\n")
	if len(src) == 0 {
		return nil
	}
	return strings.Split(string(src), "\n")
}

func joinLines(lines []string) []byte { return []byte(strings.Join(lines, "\n") + "\n") }
