package main

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// A problem is one thing to put right in the configuration file.
type problem struct {
	line int // 0 if it belongs to no line
	text string
}

// byteSize is a number of bytes, written with a unit: 150MB, 2GB, 512KiB.
type byteSize int64

// decoder fills a configuration from YAML. The library's own strict mode stops
// at the first fault and knows no environment; somebody who mends a file wants all faults at once.
type decoder struct {
	getenv   func(string) (string, bool)
	lines    map[string]int  // where each key stands, by path such as listeners[1].tls
	expanded map[string]bool // paths whose value came from the environment
	problems []problem
}

// decode reads src into the struct dst points to. What src does not mention keeps its value.
func (d *decoder) decode(src []byte, dst any) {
	d.lines, d.expanded = make(map[string]int), make(map[string]bool)
	file, err := parser.ParseBytes(src, 0)
	if err != nil {
		d.syntaxError(src, err)
		return
	}
	var body ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.CommentType {
			continue
		}
		if body != nil {
			d.problemf(doc.Body, "a second document begins here: the file must hold one only")
			return
		}
		body = doc.Body
	}
	if body == nil {
		d.problems = append(d.problems, problem{text: "the file is empty; postern config example prints one to start from"})
		return
	}
	d.value("", body, reflect.ValueOf(dst).Elem())
}

var syntaxErrorAt = regexp.MustCompile(`^\[(\d+):\d+\] (.*)`)

// bareVariable is a ${NAME} without quotes within { }, where YAML takes its brackets for its own.
var bareVariable = regexp.MustCompile(`\{[^'"]*:\s*\$\{`)

func (d *decoder) syntaxError(src []byte, err error) {
	text := err.Error()
	first, _, _ := strings.Cut(text, "\n")
	if m := syntaxErrorAt.FindStringSubmatch(first); m != nil {
		line, _ := strconv.Atoi(m[1])
		what := "not valid YAML: " + m[2]
		if lines := splitLines(src); line > 0 && line <= len(lines) && bareVariable.MatchString(lines[line-1]) {
			what += `; within { } write "${NAME}" in quotes`
		}
		d.problems = append(d.problems, problem{line, what})
		return
	}
	d.problems = append(d.problems, problem{text: "not valid YAML: " + first})
}

func (d *decoder) problemf(n ast.Node, format string, args ...any) {
	d.problems = append(d.problems, problem{lineOf(n), fmt.Sprintf(format, args...)})
}

func lineOf(n ast.Node) int {
	if n == nil || n.GetToken() == nil || n.GetToken().Position == nil {
		return 0
	}
	return n.GetToken().Position.Line
}

// value reads n, found at path, into v.
func (d *decoder) value(path string, n ast.Node, v reflect.Value) {
	if _, seen := d.lines[path]; !seen {
		d.lines[path] = lineOf(n)
	}
	switch n := n.(type) {
	case *ast.NullNode:
		return // a key without a value is as good as absent
	case *ast.AnchorNode, *ast.AliasNode:
		d.problemf(n, "%sanchors and aliases are not supported: write the value out", at(path))
		return
	case *ast.TagNode:
		d.problemf(n, "%sYAML tags are not supported: write the plain value", at(path))
		return
	}
	switch p := v.Addr().Interface().(type) {
	case *time.Duration:
		if s, ok := d.scalar(path, n); ok {
			dur, err := time.ParseDuration(s)
			if err != nil {
				d.problemf(n, "%s%q is no duration: write a number with its unit, such as 10s, 5m or 48h", at(path), s)
				return
			}
			*p = dur
		}
		return
	case *byteSize:
		if s, ok := d.scalar(path, n); ok {
			size, err := parseSize(s)
			if err != nil {
				d.problemf(n, "%s%v", at(path), err)
				return
			}
			*p = size
		}
		return
	case *netip.Prefix:
		if s, ok := d.scalar(path, n); ok {
			prefix, err := parseNetwork(s)
			if err != nil {
				d.problemf(n, "%s%q is no network: write it like 192.0.2.0/24 or 2001:db8::/32", at(path), s)
				return
			}
			*p = prefix
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.structure(path, n, v)
	case reflect.Map:
		d.dictionary(path, n, v)
	case reflect.Slice:
		seq, ok := n.(*ast.SequenceNode)
		if !ok {
			d.problemf(n, "%sa list is wanted here: write each item on a line of its own beginning with \"- \", or all in [ ]", at(path))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), len(seq.Values), len(seq.Values)))
		for i, item := range seq.Values {
			d.value(fmt.Sprintf("%s[%d]", path, i), item, v.Index(i))
		}
	case reflect.String:
		if s, ok := d.scalar(path, n); ok {
			v.SetString(s)
		}
	case reflect.Bool:
		if s, ok := d.scalar(path, n); ok {
			b, err := strconv.ParseBool(s)
			if err != nil {
				d.problemf(n, "%swrite true or false, not %q", at(path), s)
				return
			}
			v.SetBool(b)
		}
	case reflect.Int:
		if s, ok := d.scalar(path, n); ok {
			i, err := strconv.Atoi(s)
			if err != nil {
				d.problemf(n, "%s%q is no whole number", at(path), s)
				return
			}
			v.SetInt(int64(i))
		}
	default:
		panic("configuration field of a kind the decoder does not know: " + v.Type().String())
	}
}

// structure reads a mapping whose keys are v's yaml tags.
func (d *decoder) structure(path string, n ast.Node, v reflect.Value) {
	fields := make(map[string]int)
	var names []string
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("yaml")
		fields[name] = i
		names = append(names, name)
	}
	d.mapping(path, n, func(key string, pair *ast.MappingValueNode) {
		i, ok := fields[key]
		if !ok {
			d.problemf(pair.Key, "%sunknown key %s%s", at(path), key, hint(path, key, names))
			return
		}
		d.value(join(path, key), pair.Value, v.Field(i))
	})
}

// dictionary reads a mapping with free keys.
func (d *decoder) dictionary(path string, n ast.Node, v reflect.Value) {
	v.Set(reflect.MakeMap(v.Type()))
	d.mapping(path, n, func(key string, pair *ast.MappingValueNode) {
		elem := reflect.New(v.Type().Elem()).Elem()
		d.value(join(path, key), pair.Value, elem)
		v.SetMapIndex(reflect.ValueOf(key), elem)
	})
}

// mapping calls do for each key of n, the first time it occurs.
func (d *decoder) mapping(path string, n ast.Node, do func(key string, pair *ast.MappingValueNode)) {
	var pairs []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		pairs = n.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{n}
	default:
		d.problemf(n, "%skeys with values are wanted here, written \"key: value\"", at(path))
		return
	}
	seen := make(map[string]bool)
	for _, pair := range pairs {
		if pair.Key.IsMergeKey() {
			d.problemf(pair, "%smerge keys are not supported: write the keys out", at(path))
			continue
		}
		key := pair.Key.GetToken().Value
		if seen[key] {
			d.problemf(pair.Key, "%skey %s is there twice", at(path), key)
			continue
		}
		seen[key] = true
		d.lines[join(path, key)] = lineOf(pair.Key)
		do(key, pair)
	}
}

// scalar returns the text of a value that is neither list nor mapping, with the environment put in.
func (d *decoder) scalar(path string, n ast.Node) (string, bool) {
	var s string
	switch n := n.(type) {
	case *ast.StringNode:
		s = n.Value
	case *ast.LiteralNode:
		s = n.Value.Value
	case ast.ScalarNode:
		s = n.GetToken().Value
	default:
		d.problemf(n, "%sa single value is wanted here", at(path))
		return "", false
	}
	out, used, err := expand(s, d.getenv)
	if err != nil {
		d.problemf(n, "%s%v", at(path), err)
		return "", false
	}
	if used {
		d.expanded[path] = true
	}
	return out, true
}

var variable = regexp.MustCompile(`\$?\$\{[^}]*\}?`)
var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// expand puts environment variables in place of ${NAME}. $${ stands for ${ itself; a $ elsewhere is a $.
func expand(s string, getenv func(string) (string, bool)) (out string, used bool, err error) {
	out = variable.ReplaceAllStringFunc(s, func(m string) string {
		if strings.HasPrefix(m, "$$") {
			return m[1:]
		}
		name, closed := strings.CutSuffix(m[len("${"):], "}")
		if !closed || !variableName.MatchString(name) {
			err = cmp.Or(err, fmt.Errorf("%s is no environment variable: write ${NAME}, or $${ for the characters themselves", m))
			return m
		}
		value, ok := getenv(name)
		if !ok {
			err = cmp.Or(err, fmt.Errorf("environment variable %s is not set", name))
		}
		used = true
		return value
	})
	return out, used, err
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func at(path string) string {
	if path == "" {
		return ""
	}
	return path + ": "
}

// instead says what to write in place of keys that people try.
var instead = map[string]string{
	"password":   "write password_hash, printed by: postern login hash",
	"user":       "write username",
	"secret":     "write client_secret",
	"tenant_id":  "write tenant",
	"host":       "write address, such as \"127.0.0.1:2525\"",
	"port":       "write address, such as \"127.0.0.1:2525\"",
	"read-only":  "write read_only",
	"cert":       "write certificate",
	"max_size":   "write max_message",
	"imap-delay": "write poll",
}

// hint names the key that was probably meant, or all there are.
func hint(path, key string, known []string) string {
	if s, ok := instead[key]; ok {
		return "; " + s
	}
	best, distance := "", math.MaxInt
	for _, name := range known {
		if n := editDistance(strings.ReplaceAll(strings.ToLower(key), "-", "_"), name); n < distance {
			best, distance = name, n
		}
	}
	if distance <= max(1, len(key)/3) {
		return "; did you mean " + best + "?"
	}
	where := "here"
	if path == "" {
		where = "at the top level"
	}
	return fmt.Sprintf("; the keys %s are %s", where, strings.Join(slices.Sorted(slices.Values(known)), ", "))
}

// editDistance counts the letters to insert, delete or replace to make b of a (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

var units = map[string]int64{"": 1, "b": 1,
	"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12,
	"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40,
	"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}

// parseSize reads 150MB, 1.5GB, 512KiB or a plain number of bytes.
func parseSize(s string) (byteSize, error) {
	s = strings.TrimSpace(s)
	digits := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
	unit, ok := units[strings.ToLower(strings.TrimSpace(s[len(digits):]))]
	n, err := strconv.ParseFloat(digits, 64)
	if size := n * float64(unit); ok && err == nil && size >= 0 && size < math.MaxInt64 && size == math.Trunc(size) {
		return byteSize(size), nil
	}
	return 0, fmt.Errorf("%q is no size: write a number with its unit, such as 150MB or 2GB", s)
}

// String returns the size in the largest decimal unit that leaves no fraction.
func (n byteSize) String() string {
	for _, u := range []struct {
		name string
		size byteSize
	}{{"GB", 1e9}, {"GiB", 1 << 30}, {"MB", 1e6}, {"MiB", 1 << 20}, {"KB", 1e3}} {
		if n != 0 && n%u.size == 0 {
			return fmt.Sprintf("%d%s", n/u.size, u.name)
		}
	}
	return fmt.Sprintf("%dB", int64(n))
}

// parseNetwork reads a network, or an address as the network of that address alone.
func parseNetwork(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(addr.Unmap().WithZone(""), addr.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	return p.Masked(), err
}
