package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// rootCommand returns the program as cobra sees it.
func rootCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "postern",
		Short: "A local SMTP and IMAP server in front of Microsoft 365 mailboxes",
		Long: `Postern lets mail programs that only speak SMTP and IMAP use Microsoft 365.
It listens on this machine and does what they ask through Microsoft Graph.

New here? postern demo needs no file and no Microsoft 365: it brings a sample tenant of its own.`,
		Args:          wants(0, 0),
		SilenceErrors: true, // main prints them
		SilenceUsage:  true, // a mistake in a file is not answered with a page about flags
	}
	cmd.PersistentFlags().String("log-level", envOr("POSTERN_LOG_LEVEL", "info"), "debug, info, warn or error; also from POSTERN_LOG_LEVEL")
	cmd.PersistentFlags().String("log-format", envOr("POSTERN_LOG_FORMAT", "auto"), "text, json, or auto: text on a terminal, else json; also from POSTERN_LOG_FORMAT")
	cmd.AddCommand(serveCommand(), demoCommand(), configCommand(), loginCommand(), queueCommand(), sendmailCommand(), doctorCommand(), setupCommand(), signinCommand(), reloadCommand(), backupCommand(), restoreCommand(), healthCommand(), serviceCommand(), versionCommand(), simulatorCommand())
	cmd.InitDefaultCompletionCmd()
	refuseUnknown(cmd)
	// Groups of commands say COMMAND themselves.
	cmd.SetUsageTemplate(strings.Replace(cmd.UsageTemplate(), "{{if .HasAvailableSubCommands}}\n  {{.CommandPath}} [command]{{end}}", "", 1))
	return cmd
}

func envOr(name, value string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return value
}

// newLogger returns the logger the flags ask for. Logs go to standard error: standard output is for what a command was asked to print.
func newLogger(cmd *cobra.Command, usual slog.Level) (*slog.Logger, error) {
	name, _ := cmd.Flags().GetString("log-level")
	format, _ := cmd.Flags().GetString("log-format")
	var level slog.Level
	if err := level.UnmarshalText([]byte(name)); err != nil {
		return nil, fmt.Errorf("--log-level %q is unknown: write debug, info, warn or error", name)
	}
	if !cmd.Flags().Changed("log-level") && os.Getenv("POSTERN_LOG_LEVEL") == "" {
		level = usual
	}
	w := cmd.ErrOrStderr()
	switch format {
	case "auto":
		if isTerminal(w) {
			return slog.New(newTextHandler(w, level)), nil
		}
		return slog.New(newJSONHandler(w, level)), nil
	case "json":
		return slog.New(newJSONHandler(w, level)), nil
	case "text":
		return slog.New(newTextHandler(w, level)), nil
	}
	return nil, fmt.Errorf("--log-format %q is unknown: write auto, text or json", format)
}

// isTerminal reports whether a person is likely to look at w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
