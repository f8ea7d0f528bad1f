package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"postern/backend/backup"
	"postern/backend/store"
)

func backupCommand() *cobra.Command {
	var output, bodies string
	var where stateFlags
	cmd := &cobra.Command{
		Use:   "backup",
		Short: "Copy the state folder into one file, also while the server runs",
		Long: `Backup writes the queue with its messages, the logins and sign-ins of the state folder, and Postern's copy of the mailboxes with
all UIDs into one file, as of one moment. The configuration file, and the secrets, keys and certificates it names, are not in it.

The file is as precious as the state folder: it has mail in it. Restore it with postern restore.`,
		Example: `  postern backup --config /etc/postern/postern.yaml --output /var/backups/postern.tar.zst
  postern backup --output - | ssh backup@host 'cat >postern.tar.zst'`,
		Args: wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, drop, err := where.find(cmd)
			if err != nil {
				return err
			}
			choice := store.BodyChoice(bodies)
			if choice != store.NoBodies && choice != store.AppendedBodies && choice != store.AllBodies {
				return fmt.Errorf("--bodies %q is unknown: write none, appended or all", bodies)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			now := time.Now()
			if output == "" {
				output = "postern-" + now.UTC().Format("20060102T150405Z") + ".tar.zst"
			}
			o := backup.Options{Program: versionString(), Bodies: choice, Drop: drop, Progress: step(cmd.ErrOrStderr())}
			m, size, err := writeBackup(ctx, dir, output, cmd.OutOrStdout(), o)
			if errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("%w (is %s the state folder, and has the server run on it?)", err, dir)
			}
			if err != nil || output == "-" {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: the state of %s as of %s, %.1f MB.\n", output, dir, m.Created.Local().Format(time.DateTime), float64(size)/1e6)
			return err
		},
	}
	where.add(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "", "file to write, - for standard output (default: postern-TIME.tar.zst in this folder)")
	cmd.Flags().StringVar(&bodies, "bodies", string(store.AppendedBodies), "kept message texts to include: none, appended (what mail programs stored themselves) or all")
	return cmd
}

// stateFlags name a state folder, by a configuration file or itself.
type stateFlags struct{ dir string }

func (s *stateFlags) add(cmd *cobra.Command) {
	addConfigFlag(cmd)
	cmd.Flags().StringVar(&s.dir, "state-dir", "", "state folder, instead of the one a configuration file names")
}

// find returns the state folder, and the folder of postern sendmail if that lies outside of it.
func (s *stateFlags) find(cmd *cobra.Command) (dir, drop string, err error) {
	if s.dir != "" {
		dir, err = filepath.Abs(s.dir)
		return dir, "", err
	}
	c, err := configOf(cmd)
	if err != nil {
		return "", "", err
	}
	if dir, err = filepath.Abs(c.folder()); err != nil {
		return "", "", err
	}
	if c.Sendmail.Drop != "" {
		if drop, err = filepath.Abs(c.Sendmail.Drop); err != nil {
			return "", "", err
		}
		if rel, err := filepath.Rel(dir, drop); err == nil && filepath.IsLocal(rel) {
			drop = ""
		}
	}
	return dir, drop, nil
}

// writeBackup writes the file in one step: what has the name is whole.
func writeBackup(ctx context.Context, dir, output string, stdout io.Writer, o backup.Options) (*store.Manifest, int64, error) {
	if output == "-" {
		m, err := backup.Write(ctx, dir, stdout, o)
		return m, 0, err
	}
	f, err := os.OpenFile(output+".part", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, 0, err
	}
	defer os.Remove(f.Name()) // fails after the rename, as it should
	defer f.Close()
	m, err := backup.Write(ctx, dir, f, o)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), output)
	}
	if err != nil {
		return nil, 0, err
	}
	return m, info.Size(), nil
}

// step returns a function that tells a person at a terminal what is being done, and nobody else: cron mails what is printed.
func step(w io.Writer) func(what string, bytes int64) {
	if !isTerminal(w) {
		return func(string, int64) {}
	}
	return func(what string, bytes int64) {
		if bytes > 0 {
			what += fmt.Sprintf(" (%.1f MB)", float64(bytes)/1e6)
		}
		fmt.Fprintf(w, "%s %s ...\n", time.Now().Format("15:04:05"), clean(what))
	}
}

func restoreCommand() *cobra.Command {
	var where stateFlags
	var o backup.RestoreOptions
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Put a backup back into the state folder, while no server runs",
		Long: `Restore unpacks a file made by postern backup into the state folder. FILE may also be the folder before-update, which
the server makes in the state folder before an update changes its tables.

Mail that waited to be sent when the backup was made may have been sent since. It is held: look at it with postern queue list, then
release or purge it. What is released, or with --send all of it, is first looked for in the mailbox and sent only if it is not there.

UIDs and UIDVALIDITY stay, so that mail programs keep their copies; new messages get UIDs far above all that were given since the backup.
With --new-uids the copy of the mailboxes is left out, and mail programs load everything again.`,
		Example: "  systemctl stop postern\n  postern restore --config /etc/postern/postern.yaml /var/backups/postern.tar.zst\n  systemctl start postern",
		Args:    wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, drop, err := where.find(cmd)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return err
			}
			if o.Own, err = ownAs(dir); err != nil {
				return err
			}
			o.Drop, o.Notice = drop, step(cmd.ErrOrStderr())
			report, err := backup.Restore(ctx, args[0], dir, o)
			switch {
			case errors.Is(err, backup.ErrInUse):
				return fmt.Errorf("%w: --replace puts what is there aside", err)
			case errors.Is(err, backup.ErrWaiting):
				return fmt.Errorf("%w: start the server and let them go out (postern queue list), or add --abandon-queue to leave them behind", err)
			case err != nil:
				return err
			}
			return writeRestored(cmd.OutOrStdout(), dir, report)
		},
	}
	where.add(cmd)
	cmd.Flags().BoolVar(&o.Send, "send", false, "send what waited, if it is not found in the mailbox, instead of holding it")
	cmd.Flags().BoolVar(&o.NewUIDs, "new-uids", false, "leave the copy of the mailboxes out; mail programs load all mail again")
	cmd.Flags().BoolVar(&o.Replace, "replace", false, "put the present content of the state folder aside")
	cmd.Flags().BoolVar(&o.Abandon, "abandon-queue", false, "leave mail behind that waits in the present queue and is not in the backup")
	return cmd
}

func writeRestored(w io.Writer, dir string, r *backup.Report) error {
	fmt.Fprintf(w, "Restored the state of %s, made by %s, into %s.\n", r.Manifest.Created.Local().Format(time.DateTime), clean(r.Manifest.Program), dir)
	if r.Replica {
		fmt.Fprintln(w, "Mail programs keep their copies, and ask for all flags once.")
	} else {
		fmt.Fprintln(w, "The mailboxes are read anew; mail programs load all mail again.")
	}
	if r.Held > 0 {
		fmt.Fprintf(w, "Held, because they may have been sent since: %s. See postern queue list, then postern queue release or purge.\n", count(r.Held, "message"))
	}
	if r.Waiting > 0 {
		fmt.Fprintf(w, "%s will be sent if not found in the mailbox.\n", count(r.Waiting, "message"))
	}
	if r.Settled > 0 {
		fmt.Fprintf(w, "%s of the backup's queue had been dealt with since, as the replaced state knew.\n", count(r.Settled, "message"))
	}
	if r.Dropped != "" {
		fmt.Fprintf(w, "Mail of postern sendmail that no server had taken is in %s", r.Dropped)
		if filepath.Base(r.Dropped) == "drop-held" {
			fmt.Fprint(w, "; move its files to the folder drop to have them sent")
		}
		fmt.Fprintln(w, ".")
	}
	if r.Abandoned > 0 {
		fmt.Fprintf(w, "%s left behind unsent, in %s.\n", count(r.Abandoned, "message"), r.Replaced)
	}
	if r.Replaced != "" {
		fmt.Fprintf(w, "What was there before is in %s. Delete it when you no longer need it: it has mail in it.\n", r.Replaced)
	}
	_, err := fmt.Fprintln(w, "Start the server now.")
	return err
}
