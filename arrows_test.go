package postern_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// parts are the packages below backend, and what each may import of ours.
var parts = map[string][]string{
	"backend/message":  {},
	"backend/token":    {},
	"backend/graph":    {},
	"backend/graphsim": {},
	"backend/store":    {},
	"backend/outbox":   {"backend/store", "backend/message"}, // sends through an interface of its own
	"backend/syncer":   {"backend/graph", "backend/store", "backend/message"},
	"imapd/wire":       {},
}

// mayImport lists what the packages above may import of ours, besides packages inside their own folder.
var mayImport = map[string][]string{
	"backend": {"backend/message", "backend/token", "backend/graph", "backend/store", "backend/outbox", "backend/syncer"},
	"imapd":   {"backend", "backend/message", "imapd/wire"},
	"smtpd":   {"backend", "backend/message"},
	"httpd":   {"backend"},
}

// docs/architecture.md: arrows only point down.
func TestArrows(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	const module = "postern"
	seen := make(map[string]bool)
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		seen[name] = true
		if name == module || strings.HasPrefix(name, "cmd/") {
			continue // cmd knows everything
		}
		allowed, known := parts[name]
		if !known {
			allowed, known = mayImport[name]
		}
		// A package of a part's own, such as its test data or migrations.
		for owner := name; !known && strings.Contains(owner, "/"); {
			owner = owner[:strings.LastIndexByte(owner, '/')]
			if allowed, known = parts[owner]; !known {
				allowed, known = mayImport[owner]
			}
		}
		if !known {
			t.Errorf("package %s has no place in the layers: put it into arrows_test.go and docs/architecture.md", name)
			continue
		}
		for _, imp := range p.Imports {
			ours, ok := strings.CutPrefix(imp, module+"/")
			if !ok || slices.Contains(allowed, ours) || strings.HasPrefix(ours, name+"/") {
				continue
			}
			t.Errorf("%s imports %s, which is no arrow that points down", name, ours)
		}
	}
	for _, want := range []string{"backend", "backend/graph", "backend/graphsim", "backend/store", "imapd", "smtpd", "cmd/postern"} {
		if !seen[want] {
			t.Errorf("package %s is missing: does this test still look at the right module?", want)
		}
	}
}

// A simulator that shares code with the client shares its mistakes, and production code must not carry it but for the demo.
func TestOnlyCmdCarriesTheSimulator(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		pkg, imports, _ := strings.Cut(strings.TrimSpace(line), " ")
		if slices.Contains(strings.Fields(imports), "postern/backend/graphsim") && pkg != "postern/cmd/postern" && !strings.HasPrefix(pkg, "postern/backend/graphsim/") {
			t.Errorf("%s imports the simulator", pkg)
		}
	}
}
