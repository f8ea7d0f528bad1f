package postern_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// parts are the packages below backend, and what each may import of ours.
var parts = map[string][]string{
	"backend/message":     {},
	"backend/token":       {},
	"backend/graph":       {},
	"backend/graphsim":    {},
	"backend/store":       {},
	"backend/outbox":      {"backend/store", "backend/message"}, // sends through an interface of its own
	"backend/backup":      {"backend/store", "backend/outbox"},  // commands use it, beside the backend
	"backend/syncer":      {"backend/graph", "backend/store", "backend/message"},
	"imapd/wire":          {},
	"internal/faultrun":   {}, // for tests
	"internal/fuzzcorpus": {}, // for tests
}

// mayImport lists what the packages above may import of ours, besides packages inside their own folder.
var mayImport = map[string][]string{
	"backend":        {"backend/message", "backend/token", "backend/graph", "backend/store", "backend/outbox", "backend/syncer"},
	"imapd":          {"backend", "backend/message", "imapd/wire"},
	"smtpd":          {"backend", "backend/message"},
	"httpd":          {"backend"},
	"deploy/pack":    {},                   // builds archives; knows nothing of the program
	"bench":          {"backend/graphsim"}, // drives the built program
	"deploy/systemd": {},                   // a file
}

// imports returns what each package of the module imports of ours, tests left out, by folder. It reads the files itself and
// does not ask go list: go test knows then which files the answer depends on, and does not repeat an old one.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	out := make(map[string][]string)
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if base := d.Name(); d.IsDir() && (base == "testdata" || base == "node_modules" || len(base) > 1 && base[0] == '.') {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		pkg := path.Dir(filepath.ToSlash(name))
		out[pkg] = append(out[pkg], "") // a package without imports is one, too
		for _, spec := range f.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if ours, ok := strings.CutPrefix(imp, "postern/"); ok {
				out[pkg] = append(out[pkg], ours)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// docs/architecture.md: arrows only point down.
func TestArrows(t *testing.T) {
	packages := imports(t)
	for name, imported := range packages {
		if strings.HasPrefix(name, "cmd/") {
			continue // cmd knows everything
		}
		owner, allowed := owner(name)
		if owner == "" {
			t.Errorf("package %s has no place in the layers: put it into arrows_test.go and docs/architecture.md", name)
			continue
		}
		for _, imp := range imported {
			inside := imp == owner || strings.HasPrefix(imp, owner+"/")
			if imp == "" || slices.Contains(allowed, imp) || inside && owner != "backend" && imp != name {
				continue
			}
			t.Errorf("%s imports %s, which is no arrow that points down", name, imp)
		}
	}
	for _, want := range []string{"backend", "backend/graph", "backend/graphsim", "backend/store", "imapd", "smtpd", "cmd/postern"} {
		if packages[want] == nil {
			t.Errorf("package %s is missing: does this test still look at the right module?", want)
		}
	}
}

// owner returns the layer a package belongs to, its own or that of the folder it lies in, and what that may import.
func owner(name string) (string, []string) {
	for {
		if allowed, ok := parts[name]; ok {
			return name, allowed
		}
		if allowed, ok := mayImport[name]; ok {
			return name, allowed
		}
		i := strings.LastIndexByte(name, '/')
		if i < 0 {
			return "", nil
		}
		name = name[:i]
	}
}

// Only the program may carry the simulator, for the demo: production code must not come to rest on it.
func TestOnlyCmdCarriesTheSimulator(t *testing.T) {
	for name, imported := range imports(t) {
		if slices.Contains(imported, "backend/graphsim") && name != "cmd/postern" && name != "bench" && !strings.HasPrefix(name, "backend/graphsim/") {
			t.Errorf("%s imports the simulator", name)
		}
	}
}
