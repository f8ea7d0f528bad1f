package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"postern/backend/outbox"
	"postern/backend/store"
)

func queueCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "queue",
		Short: "Look at mail that is or was to be sent, and act on it",
		Long: `Queue shows what was submitted and acts on what has not been sent yet. It works on the state folder,
beside a running server, which takes notice within a second, and without one.`,
		Args: wants(0, 0),
	}
	cmd.AddCommand(queueListCommand(), queueShowCommand(),
		queueActionCommand(outbox.Retry, "Try again at once", "tried at once", ""),
		queueActionCommand(outbox.Hold, "Leave mail unsent until it is released", "held", "why, for the log"),
		queueActionCommand(outbox.Release, "Go on with mail that was held", "released", ""),
		queueActionCommand(outbox.Bounce, "Give mail up and tell its sender", "returned to its sender", "why, for the sender"),
		queueActionCommand(outbox.Purge, "Give mail up and tell nobody", "purged", "why, for the log"))
	return cmd
}

// queueFlags choose submissions.
type queueFlags struct {
	state                                        string
	states                                       []string
	mailbox, login, from, to, messageID, subject string
	older, newer                                 time.Duration
	all                                          bool
	limit                                        int
}

func (q *queueFlags) add(cmd *cobra.Command) {
	addConfigFlag(cmd)
	f := cmd.Flags()
	f.StringVar(&q.state, "state-dir", "", "state folder, instead of the one a configuration file names")
	f.StringVar(&q.state, "state", "", "the same")
	_ = f.MarkHidden("state")
	f.StringSliceVar(&q.states, "in", nil, "only in these states: queued, sending, unclear, held, sent, bounced, refused, purged")
	f.StringVar(&q.mailbox, "mailbox", "", "only through this mailbox")
	f.StringVar(&q.login, "login", "", "only of this login")
	f.StringVar(&q.from, "from", "", "only with this in the sender's address")
	f.StringVar(&q.to, "to", "", "only with this in a recipient's address")
	f.StringVar(&q.messageID, "message-id", "", "only with this Message-ID")
	f.StringVar(&q.subject, "subject", "", "only with this in the subject; needs queue.log_subject")
	f.DurationVar(&q.older, "older", 0, "only submitted longer ago than this, such as 2h")
	f.DurationVar(&q.newer, "newer", 0, "only submitted since, such as 24h")
}

// waitingStates are those of mail that is still here.
var waitingStates = []store.State{store.StateSpooled, store.StateQueued, store.StateSending, store.StateUnclear, store.StateHeld}

func (q *queueFlags) filter(now time.Time) (store.Filter, error) {
	f := store.Filter{Mailbox: q.mailbox, Login: q.login, Sender: q.from, Recipient: q.to, Subject: q.subject, Limit: q.limit}
	if f.MessageID = q.messageID; f.MessageID != "" && !strings.HasPrefix(f.MessageID, "<") {
		f.MessageID = "<" + f.MessageID + ">"
	}
	if q.older > 0 {
		f.OlderThan = now.Add(-q.older)
	}
	if q.newer > 0 {
		f.NewerThan = now.Add(-q.newer)
	}
	known := append([]store.State{store.StateSent, store.StateBounced, store.StateRefused, store.StatePurged}, waitingStates...)
	for _, s := range q.states {
		if !slices.Contains(known, store.State(s)) {
			return f, fmt.Errorf("--in %s is unknown: write queued, sending, unclear, held, sent, bounced, refused or purged", s)
		}
		f.States = append(f.States, store.State(s))
	}
	if len(q.states) == 0 && !q.all {
		f.States = waitingStates
	}
	return f, nil
}

// narrow reports whether anything but the state chooses.
func (q *queueFlags) narrow() bool {
	return q.mailbox+q.login+q.from+q.to+q.messageID+q.subject != "" || q.older > 0 || q.newer > 0
}

// dir returns the state folder.
func (q *queueFlags) dir(cmd *cobra.Command) (string, error) {
	if q.state != "" {
		return q.state, nil
	}
	c, err := configOf(cmd)
	if err != nil {
		return "", err
	}
	return c.folder(), nil
}

func queueListCommand() *cobra.Command {
	var q queueFlags
	var asJSON bool
	list := &cobra.Command{
		Use:   "list",
		Short: "List mail waiting to be sent",
		Long: `List shows submitted mail that has not left yet, oldest first. With --all, or --in, also what became of
mail that was sent, returned or refused, as long as queue.log_keep says.`,
		Example: "  postern queue list --all --to bob@ --newer 24h",
		Args:    wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := q.dir(cmd)
			if err != nil {
				return err
			}
			filter, err := q.filter(time.Now())
			if err != nil {
				return err
			}
			rows, err := queued(cmd, dir, filter)
			if err != nil {
				return err
			}
			if asJSON {
				return writeQueueJSON(cmd.OutOrStdout(), rows)
			}
			return writeQueueTable(cmd.OutOrStdout(), rows, time.Now())
		},
	}
	q.add(list)
	list.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	list.Flags().BoolVar(&q.all, "all", false, "include mail that was sent, returned or refused")
	list.Flags().IntVar(&q.limit, "limit", 0, "at most so many")
	return list
}

// queued reads the submissions of the state folder dir.
func queued(cmd *cobra.Command, dir string, filter store.Filter) ([]store.Submission, error) {
	o, err := openQueue(dir)
	if o == nil || err != nil {
		return nil, err
	}
	defer o.Close()
	return o.List(cmd.Context(), filter)
}

// openQueue opens the outbox for reading; nil without an error when a server has never run.
func openQueue(dir string) (*store.Outbox, error) {
	o, err := store.OpenOutboxReadOnly(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if _, statErr := os.Stat(dir); statErr != nil {
			return nil, fmt.Errorf("there is no state folder %s: has the server been started with it?", dir)
		}
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open queue: %w", err)
	}
	return o, nil
}

func queueShowCommand() *cobra.Command {
	var q queueFlags
	var asJSON bool
	show := &cobra.Command{
		Use:   "show ID...",
		Short: "Show all that is known of a message, and its log",
		Args:  wants(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := q.dir(cmd)
			if err != nil {
				return err
			}
			o, err := openQueue(dir)
			if err != nil {
				return err
			}
			if o == nil {
				return fmt.Errorf("there is no message %s", args[0])
			}
			defer o.Close()
			details := []queueDetail{}
			for _, id := range args {
				sub, err := o.Get(cmd.Context(), id)
				if errors.Is(err, store.ErrNotFound) {
					return fmt.Errorf("there is no message %s", id)
				}
				if err != nil {
					return err
				}
				events, err := o.Events(cmd.Context(), id)
				if err != nil {
					return err
				}
				details = append(details, detailOf(sub, events))
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), details)
			}
			return writeQueueDetails(cmd.OutOrStdout(), details)
		},
	}
	addConfigFlag(show)
	show.Flags().StringVar(&q.state, "state-dir", "", "state folder, instead of the one a configuration file names")
	show.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return show
}

// queueActionCommand makes the command for one action. done says what has happened; reason describes that flag, "" for none.
func queueActionCommand(action outbox.Action, short, done, reason string) *cobra.Command {
	var q queueFlags
	var asJSON bool
	var why string
	cmd := &cobra.Command{
		Use:   string(action) + " [ID...]",
		Short: short,
		Long: short + `. Name messages by their ids, or choose them by flags; without either nothing happens.
A message that is being sent at that moment is dealt with when the attempt has failed.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := q.dir(cmd)
			if err != nil {
				return err
			}
			if len(args) == 0 && !q.narrow() && !q.all && len(q.states) == 0 {
				return fmt.Errorf("which messages? Name ids, choose by flags such as --mailbox or --to, or write --all")
			}
			if len(args) > 0 && (q.narrow() || q.all || len(q.states) > 0) {
				return errors.New("ids and flags that choose are both there: keep one")
			}
			o, running, err := store.OpenOutbox(cmd.Context(), dir)
			if errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("there is no queue in %s: has the server been started with it?", dir)
			}
			if err != nil {
				return fmt.Errorf("open queue: %w", err)
			}
			defer o.Close()
			ids := args
			if len(ids) == 0 {
				if ids, err = chosen(cmd, o, &q, action); err != nil {
					return err
				}
			}
			results := []queueResult{}
			failures := 0
			for _, id := range ids {
				r := queueResult{ID: id, Done: true}
				later, err := outbox.Ask(cmd.Context(), o, id, action, why)
				switch {
				case errors.Is(err, store.ErrNotFound):
					r.Done, r.Error = false, "there is no such message"
				case err != nil:
					r.Done, r.Error = false, strings.TrimPrefix(err.Error(), "update submission: ")
				}
				if r.Later = later; !r.Done {
					failures++
				}
				results = append(results, r)
			}
			if err := writeQueueResults(cmd.OutOrStdout(), results, asJSON, done, running); err != nil {
				return err
			}
			if failures > 0 {
				return fmt.Errorf("%d of %d could not be %s", failures, len(ids), done)
			}
			return nil
		},
	}
	q.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&q.all, "all", false, "all mail in the queue")
	if reason != "" {
		cmd.Flags().StringVar(&why, "reason", "", reason)
	}
	return cmd
}

// chosen returns the ids of the waiting messages that the flags choose and the action can be for.
func chosen(cmd *cobra.Command, o *store.Outbox, q *queueFlags, action outbox.Action) ([]string, error) {
	filter, err := q.filter(time.Now())
	if err != nil {
		return nil, err
	}
	if len(q.states) == 0 {
		filter.States = map[outbox.Action][]store.State{
			outbox.Retry:   {store.StateQueued, store.StateUnclear},
			outbox.Hold:    {store.StateQueued, store.StateUnclear, store.StateSending},
			outbox.Release: {store.StateHeld},
			outbox.Bounce:  waitingStates,
			outbox.Purge:   waitingStates,
		}[action]
	}
	rows, err := o.List(cmd.Context(), filter)
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(rows))
	for i := range rows {
		ids[i] = rows[i].ID
	}
	return ids, nil
}

// queueResult is what an action came to for one message. Programs read it: keys are added, never changed.
type queueResult struct {
	ID    string `json:"id"`
	Done  bool   `json:"done"`
	Later bool   `json:"later"` // it is being sent now: happens when the attempt has failed
	Error string `json:"error"`
}

func writeQueueResults(w io.Writer, results []queueResult, asJSON bool, done string, running bool) error {
	if asJSON {
		return writeJSON(w, results)
	}
	n := 0
	for _, r := range results {
		switch {
		case r.Error != "":
			fmt.Fprintf(w, "%s: %s\n", r.ID, r.Error)
		case r.Later:
			fmt.Fprintf(w, "%s: is being sent now; if that fails, it is %s\n", r.ID, done)
		default:
			n++
		}
	}
	_, err := fmt.Fprintf(w, "%s %s.\n", count(n, "message"), done)
	if !running && n > 0 {
		_, err = fmt.Fprintln(w, "No server is running: what is to be sent or told goes out when one starts.")
	}
	return err
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
	Updated     time.Time  `json:"updated"`
	Remote      string     `json:"remote"`
	Subject     string     `json:"subject"` // only with queue.log_subject
	HoldReason  string     `json:"hold_reason"`
}

func writeQueueJSON(w io.Writer, subs []store.Submission) error {
	rows := []queueRow{}
	for i := range subs {
		rows = append(rows, rowOf(&subs[i]))
	}
	return writeJSON(w, rows)
}

func rowOf(s *store.Submission) queueRow {
	r := queueRow{ID: s.ID, State: string(s.State), Mailbox: s.Mailbox, Login: s.Login, Sender: s.EnvelopeFrom, Recipients: []string{},
		MessageID: s.MessageID, Size: s.Size, Attempts: s.Attempts, Created: s.Created, NextAttempt: known(s.NextAttempt),
		Expires: known(s.Expires), LastError: s.LastError, RequestID: s.GraphRequestID,
		Updated: s.Updated, Remote: s.RemoteAddr, Subject: s.Subject, HoldReason: s.HoldReason}
	for _, rcpt := range s.Recipients {
		r.Recipients = append(r.Recipients, rcpt.Address)
	}
	return r
}

// queueDetail is a submission as queue show --json prints it. Programs read it: keys are added, never changed.
type queueDetail struct {
	queueRow
	Log []queueEvent `json:"log"`
}

type queueEvent struct {
	At        time.Time `json:"at"`
	What      string    `json:"what"`
	Status    string    `json:"status"`
	Text      string    `json:"text"`
	RequestID string    `json:"request_id"`
}

func detailOf(s *store.Submission, events []store.Event) queueDetail {
	d := queueDetail{queueRow: rowOf(s), Log: []queueEvent{}}
	for _, e := range events {
		d.Log = append(d.Log, queueEvent{e.At, e.What, e.Status, e.Text, e.RequestID})
	}
	return d
}

func writeQueueDetails(w io.Writer, details []queueDetail) error {
	for i, d := range details {
		if i > 0 {
			fmt.Fprintln(w)
		}
		line := func(name, value string) {
			if value != "" {
				fmt.Fprintf(w, "%-12s %s\n", name, clean(value))
			}
		}
		line("Id", d.ID)
		line("State", d.State)
		line("Held", d.HoldReason)
		line("Mailbox", d.Mailbox)
		line("Login", d.Login)
		line("From host", d.Remote)
		line("Sender", d.Sender)
		for _, r := range d.Recipients {
			line("Recipient", r)
		}
		line("Message-ID", d.MessageID)
		line("Subject", d.Subject)
		line("Size", kilobytes(d.Size))
		line("Submitted", d.Created.Local().Format(time.DateTime))
		line("Attempts", fmt.Sprint(d.Attempts))
		if d.NextAttempt != nil && !slices.Contains([]string{"sent", "bounced", "refused", "purged"}, d.State) {
			line("Next try", d.NextAttempt.Local().Format(time.DateTime))
		}
		line("Last error", d.LastError)
		line("Request id", d.RequestID)
		for _, e := range d.Log {
			text := e.What
			for _, more := range []string{e.Status, e.Text} {
				if more != "" {
					text += ", " + more
				}
			}
			if e.RequestID != "" {
				text += " (request " + e.RequestID + ")"
			}
			line(e.At.Local().Format("01-02 15:04:05"), text)
		}
	}
	return nil
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
