package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// wants checks how many words stand behind a command, most < 0 meaning any number, and shows the whole command line
// when they are too few or too many: cobra itself only counts, and takes a word too many for a command.
func wants(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return fmt.Errorf("something is missing: write %s", cmd.UseLine())
		case most < 0 || len(args) <= most:
			return nil
		case cmd.Flag("config") != nil && most == 0:
			return fmt.Errorf("%q is too much: write %s (a configuration file stands behind --config)", args[most], cmd.UseLine())
		}
		return fmt.Errorf("%q is too much: write %s", args[most], cmd.UseLine())
	}
}

// refuseUnknown lets groups of commands, such as postern queue, refuse a word that is none of theirs. Left alone cobra
// answers it with the help and status 0, which a script takes for success.
func refuseUnknown(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		refuseUnknown(sub)
	}
	if cmd.Runnable() || !cmd.HasSubCommands() {
		return
	}
	cmd.Use += " COMMAND"
	cmd.DisableFlagsInUseLine = true
	cmd.SuggestionsMinimumDistance = 2
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		hint := ""
		if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
			hint = fmt.Sprintf("did you mean %s? ", like[0])
		}
		return fmt.Errorf("%s has no command %q: %s%s --help lists them", cmd.CommandPath(), args[0], hint, cmd.CommandPath())
	}
}
