package graphtest

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/getkin/kin-openapi/openapi3"
)

// description is Microsoft's published OpenAPI description of Graph, cut to mail. It is read by kin-openapi, whose
// validation of requests is not used: it takes property names it does not know, and those are what is to be found.
type description struct {
	doc   *openapi3.T
	paths []template
}

// template is a path of the description.
type template struct {
	segments []string // "{...}" stands for an id
	item     *openapi3.PathItem
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
	doc, err := openapi3.NewLoader().LoadFromData(b)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", File, err)
	}
	d := &description{doc: doc}
	for path, item := range doc.Paths.Map() {
		d.paths = append(d.paths, template{strings.Split(strings.TrimPrefix(strings.ReplaceAll(path, "()", ""), "/"), "/"), item})
	}
	if len(d.paths) == 0 {
		return nil, fmt.Errorf("read %s: no paths", File)
	}
	return d, nil
})

// find returns the path item for a request's path. Where two fit, the one with fewer ids does: "delta" is no message.
func (d *description) find(segments []string) (*openapi3.PathItem, bool) {
	var best *openapi3.PathItem
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

// operation returns what a path offers for a method.
func operation(item *openapi3.PathItem, method string) (*openapi3.Operation, bool) {
	switch method {
	case http.MethodGet, http.MethodPost, http.MethodPatch, http.MethodPut, http.MethodDelete:
		op := item.GetOperation(method)
		return op, op != nil
	}
	return nil, false
}

// jsonBody returns the schema of an operation's JSON body, nil if it takes none.
func jsonBody(op *openapi3.Operation) *openapi3.Schema {
	if op.RequestBody == nil || op.RequestBody.Value == nil {
		return nil
	}
	return jsonSchema(op.RequestBody.Value.Content)
}

func jsonSchema(content openapi3.Content) *openapi3.Schema {
	if media := content["application/json"]; media != nil && media.Schema != nil {
		return media.Schema.Value
	}
	return nil
}

// isAction reports an operation whose body is the parameters of an action.
func isAction(op *openapi3.Operation) bool {
	return op.Extensions["x-ms-docs-operation-type"] == "action"
}

// properties collects what an object of the schema may have.
func properties(s *openapi3.Schema, into openapi3.Schemas) {
	if s == nil {
		return
	}
	for name, p := range s.Properties {
		into[name] = p
	}
	for _, part := range parts(s) {
		properties(part, into)
	}
}

func parts(s *openapi3.Schema) []*openapi3.Schema {
	var out []*openapi3.Schema
	for _, list := range []openapi3.SchemaRefs{s.AllOf, s.AnyOf, s.OneOf} {
		for _, r := range list {
			out = append(out, r.Value)
		}
	}
	return out
}

// derived returns the schema that the value's @odata.type names, where the schema has such.
func (d *description) derived(s *openapi3.Schema, odataType string) *openapi3.Schema {
	if s.Discriminator != nil {
		if m, ok := s.Discriminator.Mapping[odataType]; ok {
			name := m.Ref[strings.LastIndexByte(m.Ref, '/')+1:]
			if r := d.doc.Components.Schemas[name]; r != nil {
				return r.Value
			}
		}
	}
	for _, r := range s.AllOf {
		if got := d.derived(r.Value, odataType); got != nil {
			return got
		}
	}
	return nil
}

// check compares a JSON value with a schema and returns what is wrong. folded says that the names of the outermost
// properties may differ in case: parameters of actions have capitals here, and none in the documents.
func (d *description) check(at string, s *openapi3.Schema, v any, folded bool) []string {
	if v == nil {
		if nullable(s) {
			return nil
		}
		return []string{at + " is null"}
	}
	if len(s.AnyOf) > 0 {
		var first []string
		for i, r := range s.AnyOf {
			wrong := d.check(at, r.Value, v, folded)
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
		return d.checkObject(at, s, v, folded)
	case []any:
		if !s.Type.Is(openapi3.TypeArray) {
			return []string{fmt.Sprintf("%s is an array, should be %v", at, s.Type)}
		}
		var wrong []string
		for i, e := range v {
			wrong = append(wrong, d.check(fmt.Sprintf("%s[%d]", at, i), s.Items.Value, e, false)...)
		}
		return wrong
	}
	err := s.VisitJSON(v)
	if e, ok := errors.AsType[*openapi3.SchemaError](err); ok {
		return []string{at + ": " + e.Reason}
	}
	if err != nil {
		return []string{at + ": " + err.Error()}
	}
	return nil
}

func (d *description) checkObject(at string, s *openapi3.Schema, v map[string]any, folded bool) []string {
	if t, ok := v["@odata.type"].(string); ok {
		if got := d.derived(s, t); got != nil {
			s = got
		}
	}
	props := make(openapi3.Schemas)
	properties(s, props)
	if len(props) == 0 && !s.Type.Is(openapi3.TypeObject) {
		return []string{fmt.Sprintf("%s is an object, should be %v", at, s.Type)}
	}
	var wrong []string
	for name, e := range v {
		if strings.HasPrefix(name, "@odata.") {
			continue
		}
		p, ok := props[name]
		if !ok && folded {
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
		wrong = append(wrong, d.check(at+"."+name, p.Value, e, false)...)
	}
	return wrong
}

func nullable(s *openapi3.Schema) bool {
	if s.Nullable {
		return true
	}
	for _, r := range s.AnyOf {
		if nullable(r.Value) {
			return true
		}
	}
	return false
}
