package main

import (
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
)

// exampleConfig is a whole configuration with a comment on each key. A test keeps it valid.
//
//go:embed example.yaml
var exampleConfig string

func configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check or show a configuration file, or print one to start from",
		Args:  wants(0, 0),
	}
	check := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Say all that is wrong with a configuration file",
		Long: `Check reads a configuration file as serve would, and says all that is wrong with it.
It talks to nobody: whether Microsoft takes the credentials shows when serve starts.`,
		Args: wants(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := configPath(cmd, args)
			if err != nil {
				return err
			}
			return checkConfig(cmd.OutOrStdout(), cmd.ErrOrStderr(), path)
		},
	}
	addConfigFlag(check)
	cmd.AddCommand(check, configShowCommand(), configSchemaCommand(), &cobra.Command{
		Use:   "example",
		Short: "Print a complete configuration file with comments",
		Args:  wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := io.WriteString(cmd.OutOrStdout(), exampleConfig)
			return err
		},
	})
	return cmd
}

func checkConfig(out, errOut io.Writer, path string) error {
	c, err := readConfig(path, os.LookupEnv)
	if c == nil {
		return err
	}
	for _, w := range c.describe(c.warnings) {
		fmt.Fprintln(errOut, "warning:", w)
	}
	if err != nil {
		for _, e := range c.describe(c.errors) {
			fmt.Fprintln(errOut, e)
		}
		return fmt.Errorf("%s found in %s", count(len(c.errors), "fault"), path)
	}
	_, err = fmt.Fprintf(out, "%s is fine: %s, %s, %s\n", path,
		plural(len(c.Mailboxes), "mailbox", "mailboxes"), count(len(c.Logins), "login"), count(len(c.Listeners), "listener"))
	return err
}

func count(n int, what string) string { return plural(n, what, what+"s") }

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// addConfigFlag gives a command the flag that names the configuration file.
func addConfigFlag(cmd *cobra.Command) {
	cmd.Flags().StringP("config", "c", os.Getenv("POSTERN_CONFIG"), "configuration file; else POSTERN_CONFIG, "+setupConfigFile+" here, or "+defaultConfigFile)
	_ = cmd.MarkFlagFilename("config", "yaml", "yml") // only helps shell completion
}

// configPath returns the configuration file the command line names.
func configPath(cmd *cobra.Command, args []string) (string, error) {
	path, _ := cmd.Flags().GetString("config")
	if len(args) > 0 {
		if cmd.Flags().Changed("config") && path != args[0] {
			return "", errors.New("two configuration files are named: keep one")
		}
		path = args[0]
	}
	if path == "" {
		path = usualConfig(".")
	}
	if path == "" {
		return "", fmt.Errorf("which configuration file? There is no %s here and no %s: write %s --config FILE, set POSTERN_CONFIG, or let postern setup write one",
			setupConfigFile, defaultConfigFile, cmd.CommandPath())
	}
	return path, nil
}

// configOf reads the configuration the command line names, for commands that need only some of it: faults elsewhere in the
// file do not keep anybody from looking at the queue, or from asking whether the server lives.
func configOf(cmd *cobra.Command) (*configFile, error) {
	path, err := configPath(cmd, nil)
	if err != nil {
		return nil, err
	}
	c, err := readConfig(path, os.LookupEnv)
	if c == nil {
		return nil, err
	}
	return c, nil
}

// usualConfig returns the configuration in dir, where setup puts it, or else the machine's; "" if there is neither. One
// in dir that somebody else could have put there is left alone.
func usualConfig(dir string) string {
	here := filepath.Join(dir, setupConfigFile)
	if info, err := os.Stat(here); err == nil && info.Mode().IsRegular() && ownOrRoots(info) {
		return here
	}
	if _, err := os.Stat(defaultConfigFile); err == nil {
		return defaultConfigFile
	}
	return ""
}
