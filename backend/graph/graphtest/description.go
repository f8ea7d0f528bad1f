package graphtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"

	"github.com/goccy/go-yaml"
)

// description is Microsoft's published OpenAPI description of Graph, cut to mail.
type description struct {
	doc   map[string]any
	paths []template
}

// template is a path of the description.
type template struct {
	segments []string // "{...}" stands for an id
	item     map[string]any
}

// File is where the description is looked for, relative to the module's folder.
const File = "../shared/graph-openapi-mail.yaml"

// load reads the description once. It is nil, without an error, where the file does not exist.
var load = sync.OnceValues(func() (*description, error) {
	_, self, _, ok := runtime.Caller(0)
	if !ok {
		return nil, errors.New("source position unknown")
	}
	// This file is in backend/graph/graphtest of the module.
	root := filepath.Join(filepath.Dir(self), "..", "..", "..")
	b, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(File)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	d := new(description)
	if err := yaml.Unmarshal(b, &d.doc); err != nil {
		return nil, fmt.Errorf("read %s: %w", File, err)
	}
	paths, _ := d.doc["paths"].(map[string]any)
	for path, item := range paths {
		m, ok := item.(map[string]any)
		if !ok {
			continue
		}
		d.paths = append(d.paths, template{strings.Split(strings.TrimPrefix(strings.ReplaceAll(path, "()", ""), "/"), "/"), m})
	}
	if len(d.paths) == 0 {
		return nil, fmt.Errorf("read %s: no paths", File)
	}
	return d, nil
})

// find returns the path item for a request's path. Where two fit, the one with fewer ids does: "delta" is no message.
func (d *description) find(segments []string) (map[string]any, bool) {
	var best map[string]any
	fewest := len(segments) + 1
	for _, t := range d.paths {
		if len(t.segments) != len(segments) {
			continue
		}
		ids, fits := 0, true
		for i, s := range t.segments {
			if strings.HasPrefix(s, "{") {
				ids++
				fits = fits && segments[i] != ""
			} else {
				fits = fits && strings.EqualFold(s, segments[i])
			}
		}
		if fits && ids < fewest {
			best, fewest = t.item, ids
		}
	}
	return best, best != nil
}

// resolve follows $ref.
func (d *description) resolve(v any) map[string]any {
	m, _ := v.(map[string]any)
	for range 10 {
		ref, ok := m["$ref"].(string)
		if !ok {
			return m
		}
		var at any = d.doc
		for _, part := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
			next, _ := at.(map[string]any)
			at = next[part]
		}
		m, _ = at.(map[string]any)
	}
	return m
}

// properties collects what an object of the schema may have.
func (d *description) properties(schema any, into map[string]any) {
	s := d.resolve(schema)
	if props, ok := s["properties"].(map[string]any); ok {
		for name, p := range props {
			into[name] = p
		}
	}
	for _, key := range []string{"allOf", "anyOf", "oneOf"} {
		list, _ := s[key].([]any)
		for _, part := range list {
			d.properties(part, into)
		}
	}
}

// derived returns the schema that the value's @odata.type names, where the schema has such.
func (d *description) derived(schema any, odataType string) any {
	s := d.resolve(schema)
	if disc, ok := s["discriminator"].(map[string]any); ok {
		if mapping, ok := disc["mapping"].(map[string]any); ok {
			if ref, ok := mapping[odataType].(string); ok {
				return map[string]any{"$ref": ref}
			}
		}
	}
	list, _ := s["allOf"].([]any)
	for _, part := range list {
		if got := d.derived(part, odataType); got != nil {
			return got
		}
	}
	return nil
}

// parameters is what check calls the body of an action.
const parameters = "parameters"

// check compares a JSON value with a schema and returns what is wrong.
func (d *description) check(at string, schema, v any) []string {
	s := d.resolve(schema)
	if v == nil {
		if d.nullable(s) {
			return nil
		}
		return []string{at + " is null"}
	}
	if list, ok := s["anyOf"].([]any); ok {
		var first []string
		for i, part := range list {
			wrong := d.check(at, part, v)
			if len(wrong) == 0 {
				return nil
			}
			if i == 0 {
				first = wrong
			}
		}
		return first
	}
	switch v := v.(type) {
	case map[string]any:
		return d.checkObject(at, s, v)
	case []any:
		if t := s["type"]; t != "array" {
			return []string{fmt.Sprintf("%s is an array, should be %v", at, t)}
		}
		var wrong []string
		for i, e := range v {
			wrong = append(wrong, d.check(fmt.Sprintf("%s[%d]", at, i), s["items"], e)...)
		}
		return wrong
	case string:
		if t := s["type"]; t != "string" {
			return []string{fmt.Sprintf("%s is a string, should be %v", at, t)}
		}
		if enum, ok := s["enum"].([]any); ok {
			for _, e := range enum {
				if e == v {
					return nil
				}
			}
			return []string{fmt.Sprintf("%s is %q, should be one of %v", at, v, enum)}
		}
		if p, ok := s["pattern"].(string); ok {
			if re, err := regexp.Compile(p); err == nil && !re.MatchString(v) {
				return []string{fmt.Sprintf("%s is %q, should match %s", at, v, p)}
			}
		}
	case bool:
		if t := s["type"]; t != "boolean" {
			return []string{fmt.Sprintf("%s is a boolean, should be %v", at, t)}
		}
	case float64:
		if t := s["type"]; t != "number" && t != "integer" {
			return []string{fmt.Sprintf("%s is a number, should be %v", at, t)}
		}
	}
	return nil
}

func (d *description) checkObject(at string, s map[string]any, v map[string]any) []string {
	if t, ok := v["@odata.type"].(string); ok {
		if got := d.derived(s, t); got != nil {
			s = d.resolve(got)
		}
	}
	props := make(map[string]any)
	d.properties(s, props)
	if len(props) == 0 && s["type"] != "object" {
		return []string{fmt.Sprintf("%s is an object, should be %v", at, s["type"])}
	}
	var wrong []string
	for name, e := range v {
		if strings.HasPrefix(name, "@odata.") {
			continue
		}
		p, ok := props[name]
		if !ok && at == parameters {
			// Parameters of actions have capitals here, and none in the documents.
			for other, q := range props {
				if strings.EqualFold(other, name) {
					p, ok = q, true
				}
			}
		}
		if !ok {
			wrong = append(wrong, fmt.Sprintf("%s has no property %s", at, name))
			continue
		}
		wrong = append(wrong, d.check(at+"."+name, p, e)...)
	}
	return wrong
}

func (d *description) nullable(s map[string]any) bool {
	if s["nullable"] == true {
		return true
	}
	list, _ := s["anyOf"].([]any)
	for _, part := range list {
		if d.nullable(d.resolve(part)) {
			return true
		}
	}
	return false
}
