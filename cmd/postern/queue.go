package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"postern/backend/store"
)

func queueCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "queue",
		Short: "Look at mail waiting to be sent",
		Args:  cobra.NoArgs,
	}
	var asJSON, all bool
	var state string
	list := &cobra.Command{
		Use:   "list",
		Short: "List mail waiting to be sent",
		Long: `List shows submitted mail that has not left yet, oldest first. It works beside a running server.
With --all also what was sent or returned lately.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir := state
			if dir == "" {
				path, err := configPath(cmd, nil)
				if err != nil {
					return err
				}
				c, err := readConfig(path, os.LookupEnv)
				if c == nil {
					return err
				}
				dir = c.State // faults elsewhere in the file do not hide the queue
			}
			rows, err := queued(cmd, dir, all)
			if err != nil {
				return err
			}
			if asJSON {
				return writeQueueJSON(cmd.OutOrStdout(), rows)
			}
			return writeQueueTable(cmd.OutOrStdout(), rows, time.Now())
		},
	}
	addConfigFlag(list)
	list.Flags().StringVar(&state, "state", "", "state folder, instead of the one a configuration file names")
	list.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	list.Flags().BoolVar(&all, "all", false, "include mail that was sent or returned")
	cmd.AddCommand(list)
	return cmd
}

// queued reads the submissions of the state folder dir.
func queued(cmd *cobra.Command, dir string, all bool) ([]store.Submission, error) {
	outbox, err := store.OpenOutboxReadOnly(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if _, statErr := os.Stat(dir); statErr != nil {
			return nil, fmt.Errorf("there is no state folder %s: has the server been started with it?", dir)
		}
		return nil, nil // a server that has never run has nothing queued
	}
	if err != nil {
		return nil, fmt.Errorf("open queue: %w", err)
	}
	defer outbox.Close()
	filter := store.Filter{States: []store.State{store.StateSpooled, store.StateQueued, store.StateSending, store.StateUnclear, store.StateHeld}}
	if all {
		filter.States = nil
	}
	return outbox.List(cmd.Context(), filter)
}

// queueRow is a submission as queue list --json prints it. Programs read it: keys are added, never changed.
type queueRow struct {
	ID          string     `json:"id"`
	State       string     `json:"state"`
	Mailbox     string     `json:"mailbox"`
	Login       string     `json:"login"`
	Sender      string     `json:"sender"`
	Recipients  []string   `json:"recipients"`
	MessageID   string     `json:"message_id"`
	Size        int64      `json:"size"`
	Attempts    int        `json:"attempts"`
	Created     time.Time  `json:"created"`
	NextAttempt *time.Time `json:"next_attempt"`
	Expires     *time.Time `json:"expires"`
	LastError   string     `json:"last_error"`
	RequestID   string     `json:"request_id"`
}

func writeQueueJSON(w io.Writer, subs []store.Submission) error {
	rows := []queueRow{}
	for _, s := range subs {
		r := queueRow{ID: s.ID, State: string(s.State), Mailbox: s.Mailbox, Login: s.Login, Sender: s.EnvelopeFrom, Recipients: []string{},
			MessageID: s.MessageID, Size: s.Size, Attempts: s.Attempts, Created: s.Created, NextAttempt: known(s.NextAttempt),
			Expires: known(s.Expires), LastError: s.LastError, RequestID: s.GraphRequestID}
		for _, rcpt := range s.Recipients {
			r.Recipients = append(r.Recipients, rcpt.Address)
		}
		rows = append(rows, r)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(rows)
}

// known turns the zero time into JSON's null.
func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func writeQueueTable(w io.Writer, subs []store.Submission, now time.Time) error {
	if len(subs) == 0 {
		_, err := fmt.Fprintln(w, "Nothing is waiting.")
		return err
	}
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "ID\tSTATE\tAGE\tSIZE\tTRIES\tNEXT TRY\tMAILBOX\tTO\tLAST ERROR")
	for _, s := range subs {
		to := make([]string, 0, 2)
		for i, rcpt := range s.Recipients {
			if i == 2 {
				to = append(to, fmt.Sprintf("and %d more", len(s.Recipients)-i))
				break
			}
			to = append(to, clean(rcpt.Address))
		}
		next := "-"
		if s.NextAttempt.After(now) {
			next = "in " + roughly(s.NextAttempt.Sub(now))
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n", s.ID, s.State, roughly(now.Sub(s.Created)), kilobytes(s.Size), s.Attempts, next,
			s.Mailbox, strings.Join(to, " "), clean(s.LastError))
	}
	return tw.Flush()
}

// roughly writes a duration in its two largest units or less.
func roughly(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, int(d/time.Second)))
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", int(d/time.Minute), int(d%time.Minute/time.Second))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d/time.Hour), int(d%time.Hour/time.Minute))
	}
	return fmt.Sprintf("%dd", int(d/(24*time.Hour)))
}

func kilobytes(n int64) string {
	if n < 1e6 {
		return fmt.Sprintf("%d KB", (n+999)/1000)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}
