// Package fuzzcorpus gives fuzz tests the inputs that earlier fuzzing has found interesting, so that every go test tries
// them and the next fuzzing starts from there. They are kept packed, testdata/corpus/FuzzName.txt for a target, because
// Go's own form is a file for each of thousands. make corpus writes them anew from what fuzzing on this machine has found.
package fuzzcorpus

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	header = "go test fuzz v1\n" // of Go's own files; an entry begins with it here, too

	// What is kept of a target: the shortest inputs. They are run by each go test.
	maxEntries = 150
	maxBytes   = 2048 // of one
)

// File is where the inputs of a target are, below the folder of its package.
func File(target string) string { return filepath.Join("testdata", "corpus", target+".txt") }

// Add gives a target its inputs. A target without any is left alone.
func Add(f *testing.F) {
	f.Helper()
	b, err := os.ReadFile(File(f.Name()))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		f.Fatal(err)
	}
	for _, entry := range strings.Split(string(b), header)[1:] {
		args, err := parse(entry)
		if err != nil {
			f.Fatalf("%s: %v", File(f.Name()), err)
		}
		f.Add(args...)
	}
}

// parse reads one entry: a line such as string("x") for each argument.
func parse(entry string) (args []any, err error) {
	for line := range strings.Lines(entry) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		arg, err := argument(line)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", line, err)
		}
		args = append(args, arg)
	}
	return args, nil
}

// argument reads the types that our targets have.
func argument(line string) (any, error) {
	expr, err := parser.ParseExpr(line)
	if err != nil {
		return nil, err
	}
	call, ok := expr.(*ast.CallExpr)
	if !ok || len(call.Args) != 1 {
		return nil, errors.New("not a conversion")
	}
	if ident, ok := call.Args[0].(*ast.Ident); ok && (ident.Name == "true" || ident.Name == "false") {
		return ident.Name == "true", nil
	}
	operand, sign := call.Args[0], ""
	if u, ok := operand.(*ast.UnaryExpr); ok && u.Op == token.SUB {
		operand, sign = u.X, "-"
	}
	lit, ok := operand.(*ast.BasicLit)
	if !ok {
		return nil, errors.New("not a literal")
	}
	_, slice := call.Fun.(*ast.ArrayType)
	kind, _ := call.Fun.(*ast.Ident)
	switch {
	case lit.Kind == token.STRING:
		s, err := strconv.Unquote(lit.Value)
		if slice {
			return []byte(s), err
		}
		return s, err
	case kind != nil && kind.Name == "int" && lit.Kind == token.INT:
		return strconv.Atoi(sign + lit.Value)
	case kind != nil && kind.Name == "byte" && lit.Kind == token.CHAR:
		c, _, rest, err := strconv.UnquoteChar(lit.Value[1:len(lit.Value)-1], '\'')
		if err == nil && (rest != "" || c > 0xff) {
			err = errors.New("not a byte")
		}
		return byte(c), err
	}
	return nil, errors.New("of a type that is not known here")
}

// Pack adds the inputs of one target, which Go keeps in the folder from, to those in the file to. Where there are too many
// the shortest stay.
func Pack(from, to string) error {
	files, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	var entries [][]byte
	kept, err := os.ReadFile(to)
	if err == nil {
		entries = bytes.Split(kept, []byte(header))[1:]
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, file := range files {
		b, err := os.ReadFile(filepath.Join(from, file.Name()))
		if err != nil {
			return err
		}
		if entry, ok := bytes.CutPrefix(b, []byte(header)); ok && len(entry) <= maxBytes {
			entries = append(entries, entry)
		}
	}
	if len(entries) == 0 {
		return nil
	}
	slices.SortFunc(entries, func(a, b []byte) int {
		if d := len(a) - len(b); d != 0 {
			return d
		}
		return bytes.Compare(a, b)
	})
	entries = slices.CompactFunc(entries, bytes.Equal)
	var out []byte
	for _, entry := range entries[:min(len(entries), maxEntries)] {
		out = append(append(out, header...), entry...)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o777); err != nil {
		return err
	}
	return os.WriteFile(to, out, 0o666)
}
