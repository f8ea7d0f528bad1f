package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// commandLine finds the program's command lines. What follows a verb up to the end of the code, a comment or a redirection belongs to it.
var commandLine = regexp.MustCompile(`(?:^|[\s\x60"'(./])postern((?: +(?:-{1,2}[A-Za-z][\w-]*|[a-z][a-z-]*))[^\x60\n]*)`)

// Every command line in the manual, and each one that the program itself tells people to type, is one that it understands.
func TestCommandsInDocs(t *testing.T) {
	var files []string
	for _, root := range []string{"../../README.md", "../../docs", "../../deploy", "../../backend", "."} {
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if strings.HasSuffix(path, "_test.go") || strings.Contains(path, "testdata") {
				return nil
			}
			switch filepath.Ext(path) {
			case ".md", ".go", ".service", ".sh", ".ps1", ".yaml", ".yml":
				files = append(files, path)
			}
			return nil
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	found := 0
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(src), "\n") {
			for _, code := range codeOf(file, line) {
				m := commandLine.FindStringSubmatch(code)
				if m == nil {
					continue
				}
				found++
				err := understands(sentenceEnd.Split(m[1], 2)[0], filepath.Ext(file) != ".go")
				if errors.Is(err, errNoCommand) && (filepath.Ext(file) != ".md" || !strings.HasPrefix(strings.Trim(code, "`./"), "postern")) {
					continue // it only speaks of the program
				}
				if err != nil {
					t.Errorf("%s:%d: postern%s: %v", file, i+1, m[1], err)
				}
			}
		}
	}
	if found < 80 {
		t.Errorf("only %d command lines were found", found)
	}
}

// errNoCommand is returned for a line that begins with no command.
var errNoCommand = errors.New("no such command")

// sentenceEnd is where the words around a command line go on.
var sentenceEnd = regexp.MustCompile(`[,;.] |[()]| ---`)

var (
	span   = regexp.MustCompile("`[^`]+`")
	quoted = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
)

// codeOf returns the parts of a line in which a command line may stand: code in a manual, text in a program.
func codeOf(file, line string) []string {
	switch filepath.Ext(file) {
	case ".md":
		if strings.HasPrefix(line, "    ") && !strings.Contains(line, "`") {
			return []string{strings.TrimSpace(line)}
		}
		return span.FindAllString(line, -1)
	case ".go":
		if strings.HasPrefix(strings.TrimSpace(line), "//") {
			return nil
		}
		if strings.HasPrefix(line, "  postern") { // an example
			return []string{line}
		}
		return quoted.FindAllString(line, -1)
	}
	return []string{line}
}

// understands parses a command line as the program would. One that is not whole may lack the value of its last flag: in a
// program's text it is put behind.
func understands(line string, whole bool) error {
	var args []string
	for _, word := range strings.Fields(line) {
		word = strings.TrimRight(strings.Trim(word, `"'`+"`"), ".,:;)\\")
		word = strings.ReplaceAll(word, `\n`, "")
		if word == "" || strings.HasPrefix(word, "#") || strings.HasPrefix(word, ">") || strings.HasPrefix(word, "<") || word == "|" || word == "&" || word == "…" {
			break
		}
		args = append(args, word)
	}
	root := rootCommand()
	root.InitDefaultHelpFlag()
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	cmd, rest, err := root.Find(args)
	if err != nil || cmd == root {
		return errNoCommand
	}
	if cmd.DisableFlagParsing {
		return nil // sendmail has options of its own
	}
	cmd.InitDefaultHelpFlag()
	prose := false
	for i := 0; i < len(rest); i++ {
		word := rest[i]
		if !strings.HasPrefix(word, "-") || word == "-" {
			// Behind a command a sentence may go on; flags in it still have to exist.
			prose = prose || cmd.HasSubCommands() || strings.ToLower(word) == word && !strings.ContainsAny(word, "@./:=0123456789") && !isArgument(cmd)
			continue
		}
		name, _, given := strings.Cut(strings.TrimLeft(word, "-"), "=")
		f := cmd.Flag(name)
		if f == nil && !strings.HasPrefix(word, "--") && len(name) == 1 {
			f = shorthand(cmd, name)
		}
		if f == nil {
			return errors.New("there is no flag " + word)
		}
		if f.NoOptDefVal == "" && !given && !prose {
			if i++; i >= len(rest) && whole {
				return errors.New(word + " lacks its value")
			}
		}
	}
	return nil
}

func isArgument(cmd *cobra.Command) bool { return strings.Contains(cmd.Use, " ") }

func shorthand(cmd *cobra.Command, name string) *pflag.Flag {
	if f := cmd.Flags().ShorthandLookup(name); f != nil {
		return f
	}
	return cmd.InheritedFlags().ShorthandLookup(name)
}
