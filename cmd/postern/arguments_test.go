package main

import (
	"bytes"
	"strings"
	"testing"
)

// Words that are too many, too few or no command are told as such, with what to write.
func TestArguments(t *testing.T) {
	for _, tt := range []struct{ line, want string }{
		{"serv", `postern has no command "serv": did you mean serve? postern --help lists them`},
		{"nonsense", `postern has no command "nonsense": postern --help lists them`},
		{"queue lst", `postern queue has no command "lst": did you mean list? postern queue --help lists them`},
		{"completion tcsh", `postern completion has no command "tcsh": did you mean bash? postern completion --help lists them`},
		{"login show", "something is missing: write postern login show USERNAME [flags]"},
		{"login rename alice", "something is missing: write postern login rename USERNAME NEW [flags]"},
		{"queue show", "something is missing: write postern queue show ID... [flags]"},
		{"serve postern.yaml", `"postern.yaml" is too much: write postern serve [flags] (a configuration file stands behind --config)`},
		{"config check a.yaml b.yaml", `"b.yaml" is too much: write postern config check [FILE] [flags]`},
		{"version 2", `"2" is too much: write postern version [flags]`},
	} {
		t.Run(tt.line, func(t *testing.T) {
			cmd := rootCommand()
			cmd.SetArgs(strings.Fields(tt.line))
			var out bytes.Buffer
			cmd.SetOut(&out)
			cmd.SetErr(&out)
			if err := cmd.Execute(); err == nil || err.Error() != tt.want || out.Len() > 0 {
				t.Errorf("error %v, output %q; want %s", err, &out, tt.want)
			}
		})
	}
}

// A group of commands without a word shows its help.
func TestGroupsShowHelp(t *testing.T) {
	for _, line := range []string{"", "queue", "login", "config", "service"} {
		cmd := rootCommand()
		cmd.SetArgs(strings.Fields(line))
		var out bytes.Buffer
		cmd.SetOut(&out)
		if err := cmd.Execute(); err != nil || !strings.Contains(out.String(), "Available Commands:") || strings.Contains(out.String(), "[command]\n") {
			t.Errorf("postern %s: %v\n%s", line, err, &out)
		}
	}
}
