package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"postern/backend"
)

func loginCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "login",
		Short: "Make, list, change and revoke the logins that mail programs use",
		Long: `Logins are Postern's own user names and passwords. Microsoft never sees them.
They stand in the configuration file or in the state folder; a running server takes changes over by itself.`,
		Args: wants(0, 0),
	}
	cmd.AddCommand(loginHashCommand(), loginAddCommand(), loginListCommand(), loginShowCommand(), loginRevokeCommand(),
		loginRenameCommand(), loginPasswdCommand(), loginUnlockCommand())
	return cmd
}

func loginHashCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "hash",
		Short: "Print the hash of a password, for password_hash",
		Long: `Hash reads a password from standard input, without showing it if that is a terminal,
and prints what belongs behind password_hash in the configuration file.`,
		Args: wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			password, err := readPassword(cmd.InOrStdin(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			hash, err := backend.HashPassword(password)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), hash)
			return err
		},
	}
}

// readPassword reads one line. From a terminal it asks twice and shows nothing.
func readPassword(in io.Reader, prompt io.Writer) (string, error) {
	if f, ok := in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		var typed [2]string
		for i, ask := range []string{"Password: ", "Again: "} {
			fmt.Fprint(prompt, ask)
			b, err := term.ReadPassword(int(f.Fd()))
			fmt.Fprintln(prompt)
			if err != nil {
				return "", fmt.Errorf("read password: %w", err)
			}
			typed[i] = string(b)
		}
		if typed[0] != typed[1] {
			return "", errors.New("the two passwords differ")
		}
		return typed[0], nil
	}
	line, err := bufio.NewReader(io.LimitReader(in, 4096)).ReadString('\n')
	if err != nil && err != io.EOF {
		return "", fmt.Errorf("read password: %w", err)
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return "", errors.New("read password: standard input is empty")
	}
	return line, nil
}

func loginAddCommand() *cobra.Command {
	var l loginConfig
	var fromStdin, inState bool
	var networks []string
	cmd := &cobra.Command{
		Use:   "add USERNAME",
		Short: "Add a login and print its password",
		Long: `Add writes a new login into the configuration file, comments and all else untouched, and prints a password
made for it. With --state the login is kept in the state folder instead, for configuration files that nobody
there may change. Either way a running server takes it over within seconds.

The password is shown this once: only its hash is kept. It has 16 letters and digits, none easily
mistaken, because it may have to be typed at a printer.`,
		Example: `  postern login add -c postern.yaml alice@contoso.example
  postern login add -c postern.yaml scanner --mailbox support@contoso.example --allow smtp --rewrite-from --network 192.0.2.0/24
  postern login add -c postern.yaml admin --allow admin`,
		Args: wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := configPath(cmd, nil)
			if err != nil {
				return err
			}
			l.Username = args[0]
			switch {
			case !l.ReadOnly || !slices.Contains(l.Allow, "smtp"):
			case cmd.Flags().Changed("allow"):
				return errors.New("a login with --read-only sends nothing: leave smtp out of --allow")
			default:
				l.Allow = []string{"imap"}
			}
			if l.Mailbox == "" && !l.onlyAdmin() {
				l.Mailbox = l.Username
			}
			for _, n := range networks {
				p, err := parseNetwork(n)
				if err != nil {
					return fmt.Errorf("--network %q is no network: write it like 192.0.2.0/24 or 2001:db8::/32", n)
				}
				l.Networks = append(l.Networks, p)
			}
			password, err := choosePassword(cmd, fromStdin)
			if err != nil {
				return err
			}
			if l.PasswordHash, err = backend.HashPassword(password); err != nil {
				return err
			}
			where, err := addLogin(path, l, inState)
			if err != nil {
				return err
			}
			printLogin(cmd, l.Username, password, fromStdin)
			fmt.Fprintf(cmd.ErrOrStderr(), "Written to %s. %s\n", where, reloadHint)
			return nil
		},
	}
	addConfigFlag(cmd)
	f := cmd.Flags()
	f.StringVar(&l.Mailbox, "mailbox", "", "mailbox it opens (default: the user name)")
	f.StringSliceVar(&l.Shared, "shared", nil, "mailboxes it sees under Shared/")
	f.StringSliceVar(&l.Allow, "allow", []string{"smtp", "imap"}, "what it may use: smtp, imap, admin (the status pages)")
	f.StringSliceVar(&l.SendAs, "send-as", nil, "addresses it may send as besides its mailbox's")
	f.StringSliceVar(&networks, "network", nil, "networks it may log in from (default: anywhere)")
	f.BoolVar(&l.ReadOnly, "read-only", false, "may read by IMAP, and neither change nor send anything")
	f.BoolVar(&l.RewriteFrom, "rewrite-from", false, "replace any sender by the mailbox's address")
	f.BoolVar(&inState, "state", false, "keep it in the state folder instead of the configuration file")
	addPasswordFlag(cmd, &fromStdin)
	return cmd
}

func addPasswordFlag(cmd *cobra.Command, fromStdin *bool) {
	cmd.Flags().BoolVar(fromStdin, "password-stdin", false, "read the password from standard input instead of making one")
}

func choosePassword(cmd *cobra.Command, fromStdin bool) (string, error) {
	if fromStdin {
		return readPassword(cmd.InOrStdin(), cmd.ErrOrStderr())
	}
	return backend.NewPassword(), nil
}

func printLogin(cmd *cobra.Command, name, password string, known bool) {
	fmt.Fprintf(cmd.OutOrStdout(), "user name  %s\n", name)
	if !known {
		fmt.Fprintf(cmd.OutOrStdout(), "password   %s\n", password)
	}
}

const reloadHint = "A running server takes it over within seconds."
