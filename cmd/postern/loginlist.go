package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"postern/backend"
)

// loginRow is what list and show tell of a login.
type loginRow struct {
	Username    string     `json:"username"`
	Mailbox     string     `json:"mailbox"`
	Allow       []string   `json:"allow"`
	ReadOnly    bool       `json:"read_only"`
	Shared      []string   `json:"shared"`
	SendAs      []string   `json:"send_as"`
	RewriteFrom bool       `json:"rewrite_from"`
	Networks    []string   `json:"networks"`
	Place       string     `json:"place"` // config or state
	LastUse     *time.Time `json:"last_use"`
	LastFrom    string     `json:"last_from,omitempty"`
	LastBy      string     `json:"last_by,omitempty"`
	Locked      []string   `json:"locked,omitempty"` // addresses at which it is locked out
}

// rows puts the logins of both places together with what the server knows.
func (p *loginPlaces) rows() ([]loginRow, []backend.Lockout, error) {
	activity, err := backend.ReadLoginActivity(p.conf.folder())
	if err != nil {
		return nil, nil, err
	}
	rows := []loginRow{}
	add := func(l loginConfig, place string) {
		r := loginRow{Username: l.Username, Mailbox: l.Mailbox, Allow: append([]string{}, l.Allow...), ReadOnly: l.ReadOnly, Shared: append([]string{}, l.Shared...),
			SendAs: append([]string{}, l.SendAs...), RewriteFrom: l.RewriteFrom, Networks: []string{}, Place: place}
		for _, n := range l.Networks {
			r.Networks = append(r.Networks, n.String())
		}
		if i := slices.IndexFunc(activity.Uses, func(u backend.LoginUse) bool { return sameUser(u.Username, l.Username) }); i >= 0 {
			u := activity.Uses[i]
			r.LastUse, r.LastBy = &u.Last, u.Protocol
			if u.Remote.IsValid() {
				r.LastFrom = u.Remote.String()
			}
		}
		for _, lock := range activity.Lockouts {
			if sameUser(lock.Username, l.Username) {
				r.Locked = append(r.Locked, lock.Remote)
			}
		}
		rows = append(rows, r)
	}
	for _, l := range p.conf.Logins {
		add(l, "config")
	}
	for _, l := range p.stored {
		if p.inConfig(l.Username) < 0 {
			add(fromState(l), "state")
		}
	}
	return rows, activity.Lockouts, nil
}

func loginListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the logins, where they stand and when they were used last",
		Args:  wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, p, err := loginsOf(cmd)
			if err != nil {
				return err
			}
			if err := p.conf.err(); err != nil {
				fmt.Fprintln(cmd.ErrOrStderr(), err)
			}
			rows, lockouts, err := p.rows()
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), rows)
			}
			if err := listLogins(cmd.OutOrStdout(), rows); err != nil {
				return err
			}
			for _, l := range lockouts {
				who := "anybody"
				if l.Username != "" {
					who = clean(l.Username) // what a stranger has written
				}
				fmt.Fprintf(cmd.OutOrStdout(), "locked out: %s at %s until %s\n", who, l.Remote, l.Until.Local().Format(time.TimeOnly))
			}
			return nil
		},
	}
	addConfigFlag(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// loginsOf reads the logins of the configuration that the command's flags name, and of its state.
func loginsOf(cmd *cobra.Command) (path string, p *loginPlaces, err error) {
	if path, err = configPath(cmd, nil); err == nil {
		p, err = openLogins(path)
	}
	return path, p, err
}

func listLogins(w io.Writer, rows []loginRow) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "USER NAME\tMAILBOX\tMAY USE\tSHARED\tSEND AS\tIN\tLAST USE")
	for _, r := range rows {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", clean(r.Username), cmp.Or(r.Mailbox, "-"), r.may(), dash(r.Shared), dash(r.SendAs), r.Place, r.last())
	}
	return tw.Flush()
}

func (r loginRow) may() string {
	may := strings.Join(r.Allow, ",")
	if r.ReadOnly {
		may += " (read only)"
	}
	return may
}

func (r loginRow) last() string {
	if r.LastUse == nil {
		return "-"
	}
	return fmt.Sprintf("%s %s from %s", r.LastUse.Local().Format("2006-01-02 15:04"), r.LastBy, r.LastFrom)
}

func dash(s []string) string {
	if len(s) == 0 {
		return "-"
	}
	return strings.Join(s, ",")
}

func loginShowCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show USERNAME",
		Short: "Show one login",
		Args:  wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, p, err := loginsOf(cmd)
			if err != nil {
				return err
			}
			rows, _, err := p.rows()
			if err != nil {
				return err
			}
			i := slices.IndexFunc(rows, func(r loginRow) bool { return sameUser(r.Username, args[0]) })
			if i < 0 {
				return fmt.Errorf("there is no login %s", args[0])
			}
			r := rows[i]
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), r)
			}
			tw := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
			for _, row := range [][2]string{{"user name", r.Username}, {"mailbox", cmp.Or(r.Mailbox, "none")}, {"may use", r.may()}, {"shared", dash(r.Shared)}, {"send as", dash(r.SendAs)},
				{"rewrite from", fmt.Sprint(r.RewriteFrom)}, {"networks", strings.Replace(dash(r.Networks), "-", "anywhere", 1)},
				{"stands in", map[string]string{"config": path, "state": stateName}[r.Place]}, {"last use", r.last()}, {"locked out at", dash(r.Locked)}} {
				fmt.Fprintf(tw, "%s\t%s\n", row[0], row[1])
			}
			return tw.Flush()
		},
	}
	addConfigFlag(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// revokeLogin takes a login out of where it stands, and returns where that was.
func revokeLogin(path, name string) (string, error) {
	return changeLogin(path, name, func(*loginConfig) (*loginConfig, error) { return nil, nil })
}

func loginRevokeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "revoke USERNAME",
		Short: "Take a login away",
		Args:  wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := configPath(cmd, nil)
			if err != nil {
				return err
			}
			where, err := revokeLogin(path, args[0])
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "Taken out of %s. %s Its open connections end then.\n", where, reloadHint)
			return nil
		},
	}
	addConfigFlag(cmd)
	return cmd
}

func loginRenameCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rename USERNAME NEW",
		Short: "Change the user name of a login; the password stays",
		Args:  wants(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, p, err := loginsOf(cmd)
			if err != nil {
				return err
			}
			if !sameUser(args[0], args[1]) && (p.inConfig(args[1]) >= 0 || p.inState(args[1]) >= 0) {
				return fmt.Errorf("there is a login %s already", args[1])
			}
			where, err := changeLogin(path, args[0], func(l *loginConfig) (*loginConfig, error) { l.Username = args[1]; return l, nil })
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "Renamed in %s. %s\n", where, reloadHint)
			return nil
		},
	}
	addConfigFlag(cmd)
	return cmd
}

func loginPasswdCommand() *cobra.Command {
	var fromStdin bool
	cmd := &cobra.Command{
		Use:   "passwd USERNAME",
		Short: "Give a login a new password",
		Args:  wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := configPath(cmd, nil)
			if err != nil {
				return err
			}
			password, err := choosePassword(cmd, fromStdin)
			if err != nil {
				return err
			}
			hash, err := backend.HashPassword(password)
			if err != nil {
				return err
			}
			where, err := changeLogin(path, args[0], func(l *loginConfig) (*loginConfig, error) {
				if l.PasswordHashFile != "" {
					return nil, fmt.Errorf("the hash stands in %s: put the output of postern login hash there", l.PasswordHashFile)
				}
				l.PasswordHash = hash
				return l, nil
			})
			if err != nil {
				return err
			}
			printLogin(cmd, args[0], password, fromStdin)
			fmt.Fprintf(cmd.ErrOrStderr(), "Written to %s. %s\n", where, reloadHint)
			return nil
		},
	}
	addConfigFlag(cmd)
	addPasswordFlag(cmd, &fromStdin)
	return cmd
}

func loginUnlockCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "unlock USERNAME|ADDRESS",
		Short: "Let a locked out user or address try again",
		Args:  wants(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if all == (len(args) == 1) {
				return fmt.Errorf("name a user or an address, or write --all")
			}
			c, err := configOf(cmd)
			if err != nil {
				return err
			}
			if err := backend.RequestUnlock(c.folder(), strings.Join(args, "")); err != nil {
				return err
			}
			fmt.Fprintln(cmd.ErrOrStderr(), "Asked for. A running server acts on it within seconds; one that is restarted has no lock-outs.")
			return nil
		},
	}
	addConfigFlag(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "everybody")
	return cmd
}
