// Pack keeps what fuzzing on this machine has found interesting: from Go's cache into the folders testdata/corpus of the
// packages. It runs in the root of the module, by make corpus.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"postern/internal/fuzzcorpus"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

func run() error {
	out, err := exec.Command("go", "env", "GOCACHE").Output()
	if err != nil {
		return fmt.Errorf("go env: %w", err)
	}
	cache := filepath.Join(strings.TrimSpace(string(out)), "fuzz")
	list, err := exec.Command("go", "list", "-f", "{{.ImportPath}} {{.Dir}}", "./...").Output()
	if err != nil {
		return fmt.Errorf("go list: %w", err)
	}
	for line := range strings.Lines(string(list)) {
		path, dir, _ := strings.Cut(strings.TrimSpace(line), " ")
		targets, err := filepath.Glob(filepath.Join(cache, filepath.FromSlash(path), "Fuzz*"))
		if err != nil {
			return err
		}
		for _, from := range targets {
			target := filepath.Base(from)
			if there, err := declared(dir, target); err != nil || !there {
				if err != nil {
					return err
				}
				continue // of a target that has gone
			}
			if err := fuzzcorpus.Pack(from, filepath.Join(dir, fuzzcorpus.File(target))); err != nil {
				return fmt.Errorf("%s: %w", target, err)
			}
		}
	}
	return nil
}

// declared reports whether the package in dir has the target.
func declared(dir, target string) (bool, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	for _, name := range files {
		b, rerr := os.ReadFile(name)
		if rerr != nil {
			return false, rerr
		}
		if strings.Contains(string(b), "func "+target+"(f *testing.F)") {
			return true, nil
		}
	}
	return false, err
}
