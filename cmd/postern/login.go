package main

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"postern/backend"
)

func loginCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "login",
		Short: "Make, list and revoke the logins that mail programs use",
		Long: `Logins are Postern's own user names and passwords. Microsoft never sees them.
They stand in the configuration file; a running server takes changes over on SIGHUP.`,
		Args: cobra.NoArgs,
	}
	cmd.AddCommand(loginHashCommand(), loginAddCommand(), loginListCommand(), loginRevokeCommand())
	return cmd
}

func loginHashCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "hash",
		Short: "Print the hash of a password, for password_hash",
		Long: `Hash reads a password from standard input, without showing it if that is a terminal,
and prints what belongs behind password_hash in the configuration file.`,
		Args: cobra.NoArgs,
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
	var fromStdin bool
	cmd := &cobra.Command{
		Use:   "add USERNAME",
		Short: "Add a login to the configuration file and print its password",
		Long: `Add writes a new login into the configuration file, comments and all else untouched,
and prints a password made for it. The password is shown this once: the file holds only its hash.
It has 16 letters and digits, none easily mistaken, because it may have to be typed at a printer.`,
		Example: `  postern login add -c postern.yaml alice@contoso.example
  postern login add -c postern.yaml scanner --mailbox support@contoso.example --allow smtp --rewrite-from`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := configPath(cmd, nil)
			if err != nil {
				return err
			}
			l.Username = args[0]
			if l.Mailbox == "" {
				l.Mailbox = l.Username
			}
			var password string
			if fromStdin {
				password, err = readPassword(cmd.InOrStdin(), cmd.ErrOrStderr())
			} else {
				password = newPassword()
			}
			if err != nil {
				return err
			}
			if l.PasswordHash, err = backend.HashPassword(password); err != nil {
				return err
			}
			if err := editLogins(path, func(src []byte, c *configFile) ([]byte, error) {
				if slices.ContainsFunc(c.Logins, func(o loginConfig) bool { return strings.EqualFold(o.Username, l.Username) }) {
					return nil, fmt.Errorf("%s has a login %s already: revoke it first", path, l.Username)
				}
				return insertLogin(src, l)
			}); err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "user name  %s\n", l.Username)
			if !fromStdin {
				fmt.Fprintf(out, "password   %s\n", password)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "Written to %s. %s\n", path, reloadHint)
			return nil
		},
	}
	addConfigFlag(cmd)
	f := cmd.Flags()
	f.StringVar(&l.Mailbox, "mailbox", "", "mailbox it opens (default: the user name)")
	f.StringSliceVar(&l.Shared, "shared", nil, "mailboxes it sees under Shared/")
	f.StringSliceVar(&l.Allow, "allow", []string{"smtp", "imap"}, "what it may use")
	f.StringSliceVar(&l.SendAs, "send-as", nil, "addresses it may send as besides its mailbox's")
	f.BoolVar(&l.ReadOnly, "read-only", false, "may read but change nothing")
	f.BoolVar(&l.RewriteFrom, "rewrite-from", false, "replace any sender by the mailbox's address")
	f.BoolVar(&fromStdin, "password-stdin", false, "read the password from standard input instead of making one")
	return cmd
}

const reloadHint = "A running server takes it over on SIGHUP: kill -HUP PID, or systemctl reload postern"

// newPassword returns 16 letters and digits, 80 bits of chance. Without capitals and
// signs: the keyboards of devices make them hard to type, and some cannot store them.
func newPassword() string {
	const letters = "abcdefghijkmnpqrstuvwxyz23456789" // 32 of them; no l, o, 0, 1
	b := make([]byte, 16)
	rand.Read(b) // never fails
	for i := range b {
		b[i] = letters[b[i]%byte(len(letters))]
	}
	return string(b)
}

func loginListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the logins of the configuration file",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := configPath(cmd, nil)
			if err != nil {
				return err
			}
			c, err := readConfig(path, os.LookupEnv)
			if c == nil {
				return err
			}
			// Faults elsewhere do not hide who may log in.
			if err != nil {
				fmt.Fprintln(cmd.ErrOrStderr(), err)
			}
			return listLogins(cmd.OutOrStdout(), c.Logins, asJSON)
		},
	}
	addConfigFlag(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func listLogins(w io.Writer, logins []loginConfig, asJSON bool) error {
	type row struct {
		Username string   `json:"username"`
		Mailbox  string   `json:"mailbox"`
		Allow    []string `json:"allow"`
		ReadOnly bool     `json:"read_only"`
		Shared   []string `json:"shared"`
		SendAs   []string `json:"send_as"`
	}
	rows := []row{}
	for _, l := range logins {
		rows = append(rows, row{l.Username, l.Mailbox, l.Allow, l.ReadOnly, append([]string{}, l.Shared...), append([]string{}, l.SendAs...)})
	}
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(rows)
	}
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "USER NAME\tMAILBOX\tMAY USE\tSHARED\tSEND AS")
	for _, r := range rows {
		may := strings.Join(r.Allow, ",")
		if r.ReadOnly {
			may += " (read only)"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\n", r.Username, r.Mailbox, may, dash(r.Shared), dash(r.SendAs))
	}
	return tw.Flush()
}

func dash(s []string) string {
	if len(s) == 0 {
		return "-"
	}
	return strings.Join(s, ",")
}

func loginRevokeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "revoke USERNAME",
		Short: "Take a login out of the configuration file",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := configPath(cmd, nil)
			if err != nil {
				return err
			}
			if err := editLogins(path, func(src []byte, c *configFile) ([]byte, error) {
				i := slices.IndexFunc(c.Logins, func(o loginConfig) bool { return strings.EqualFold(o.Username, args[0]) })
				if i < 0 {
					return nil, fmt.Errorf("%s has no login %s", path, args[0])
				}
				return removeLogin(src, i)
			}); err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "Taken out of %s. %s; sessions that are open stay until they end.\n", path, reloadHint)
			return nil
		},
	}
	addConfigFlag(cmd)
	return cmd
}
