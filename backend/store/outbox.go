package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/base32"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Outbox is the table of submissions, in a database of its own: the replica can be
// read again from Microsoft 365, accepted mail cannot. Every change is on the disk
// when the method returns. It is safe for concurrent use.
type Outbox struct {
	db  *database
	dir string
	now func() time.Time
	commits
	lock    *os.File // of OpenOutbox, while no server runs
	version int64    // of ChangedElsewhere; belongs to the holder of the writing token
}

func openOutbox(ctx context.Context, dir string, now func() time.Time) (*Outbox, error) {
	o := &Outbox{dir: dir, now: now}
	if err := os.MkdirAll(o.SpoolDir(), 0o700); err != nil {
		return nil, fmt.Errorf("open outbox: %w", err)
	}
	var err error
	o.db, _, err = openDatabase(ctx, dir, outboxKind)
	return o, err
}

// OpenOutboxReadOnly opens the outbox of a state folder for looking, also while a
// server works on it. All changes answer [ErrReadOnly].
func OpenOutboxReadOnly(dir string) (*Outbox, error) {
	path := filepath.Join(dir, outboxKind.file)
	if info, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("open outbox: %w", err)
	} else if info.Size() == 0 {
		return nil, fmt.Errorf("open outbox: %s is empty: postern has not run on this folder yet", path)
	}
	d, err := newDatabase(path, outboxKind, true)
	if err != nil {
		return nil, err
	}
	var id int64
	err = d.r.QueryRow("PRAGMA application_id").Scan(&id)
	if err == nil && id != outboxKind.applicationID {
		err = fmt.Errorf("%s is no outbox of Postern", path)
	}
	if err != nil {
		d.close()
		return nil, d.explain("open outbox", err)
	}
	return &Outbox{db: d, dir: dir, now: time.Now}, nil
}

// Close closes an outbox opened by OpenOutboxReadOnly or OpenOutbox; that of a Store
// is closed with the Store.
func (o *Outbox) Close() error {
	if o.db == nil {
		return nil
	}
	err := o.db.close()
	if o.lock != nil {
		o.lock.Close()
	}
	return err
}

// SpoolDir is where the files named by Submission.Spool are. Their writers make them durable before Add, or give it the
// text, and remove them.
func (o *Outbox) SpoolDir() string { return filepath.Join(o.dir, "spool") }

const submissionColumns = `id, state, claimed_from, mailbox, login, remote_addr, envelope_from, recipients, recipient_search,
	dsn_ret, dsn_envid, message_id, content, size, spool, attempts, next_attempt, created, updated, expires,
	last_error, hold_reason, graph_request_id, delay_notified,
	progress, wish, subject, digest, gather_until, drop_copy, unanswered`

func scanSubmission(scan func(...any) error) (*Submission, error) {
	var s Submission
	var state, claimedFrom, recipients, search string
	var attempts, next, created, updated, expires, delay, gather, drop, unanswered int64
	err := scan(&s.ID, &state, &claimedFrom, &s.Mailbox, &s.Login, &s.RemoteAddr, &s.EnvelopeFrom, &recipients, &search,
		&s.DSN.Ret, &s.DSN.EnvID, &s.MessageID, &s.Content, &s.Size, &s.Spool, &attempts, &next, &created, &updated, &expires,
		&s.LastError, &s.HoldReason, &s.GraphRequestID, &delay,
		&s.Progress, (*string)(&s.Wish), &s.Subject, &s.Digest, &gather, &drop, &unanswered)
	if err != nil {
		return nil, notFound(err)
	}
	if err := json.Unmarshal([]byte(recipients), &s.Recipients); err != nil {
		return nil, fmt.Errorf("recipients of submission %s: %w", s.ID, err)
	}
	s.State, s.ClaimedFrom, s.Attempts = State(state), State(claimedFrom), int(attempts)
	s.NextAttempt, s.Created, s.Updated = fromMillis(next), fromMillis(created), fromMillis(updated)
	s.Expires, s.DelayNotified, s.GatherUntil = fromMillis(expires), fromMillis(delay), fromMillis(gather)
	s.DropCopy, s.Unanswered = drop != 0, unanswered != 0
	return &s, nil
}

// values are in the order of submissionColumns.
func (s *Submission) values() ([]any, error) {
	list := s.Recipients
	if list == nil {
		list = []Recipient{}
	}
	recipients, err := json.Marshal(list)
	if err != nil {
		return nil, err
	}
	flag := func(b bool) int64 {
		if b {
			return 1
		}
		return 0
	}
	var search strings.Builder
	for _, r := range s.Recipients {
		search.WriteString(strings.ToLower(r.Address) + "\n")
	}
	return []any{s.ID, string(s.State), string(s.ClaimedFrom), s.Mailbox, s.Login, s.RemoteAddr, s.EnvelopeFrom, string(recipients), search.String(),
		s.DSN.Ret, s.DSN.EnvID, s.MessageID, s.Content, s.Size, s.Spool, int64(s.Attempts), millis(s.NextAttempt), millis(s.Created), millis(s.Updated), millis(s.Expires),
		s.LastError, s.HoldReason, s.GraphRequestID, millis(s.DelayNotified),
		s.Progress, string(s.Wish), s.Subject, s.Digest, millis(s.GatherUntil), flag(s.DropCopy), flag(s.Unanswered)}, nil
}

func (s State) valid() bool {
	switch s {
	case StateSpooled, StateQueued, StateSending, StateUnclear, StateSent, StateBounced, StateHeld, StateRefused, StatePurged:
		return true
	}
	return false
}

// insertSubmission and replaceSubmission take the values in the order of submissionColumns. The first does nothing if the
// row is there already, the second takes all columns but the first from the new row then.
var insertSubmission, replaceSubmission = func() (string, string) {
	columns := strings.Split(submissionColumns, ",")
	insert := "INSERT INTO submissions (" + submissionColumns + ") VALUES (?" + strings.Repeat(", ?", len(columns)-1) + ") ON CONFLICT (id) DO "
	var sets []string
	for _, column := range columns[1:] {
		column = strings.TrimSpace(column)
		sets = append(sets, column+" = excluded."+column)
	}
	return insert + "NOTHING", insert + "UPDATE SET " + strings.Join(sets, ", ")
}()

// putSubmission writes the whole row, over an earlier one.
func (t *tx) putSubmission(s *Submission) error {
	_, err := t.writeSubmission(replaceSubmission, s)
	return err
}

// writeSubmission writes the row by one of the statements above, and what goes with it. It reports false if nothing was
// written.
func (t *tx) writeSubmission(query string, s *Submission) (written bool, err error) {
	if !s.State.valid() {
		return false, fmt.Errorf("submission %s: no such state %q", s.ID, s.State)
	}
	values, err := s.values()
	if err != nil {
		return false, err
	}
	result, err := t.exec(query, values...)
	if err != nil {
		return false, err
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return false, err
	}
	if s.Sends > 0 {
		if err := t.noteSends(s.Mailbox, s.Sends, s.Updated); err != nil {
			return false, err
		}
	}
	if err := t.putText(s); err != nil {
		return false, err
	}
	return true, t.putEvents(s)
}

func (t *tx) submission(id string) (*Submission, error) {
	st, err := t.stmt("SELECT " + submissionColumns + " FROM submissions WHERE id = ?")
	if err != nil {
		return nil, err
	}
	return scanSubmission(st.QueryRowContext(context.Background(), id).Scan)
}

// Insert is Add, for a file that is durable, and returns the submission as it was added.
func (o *Outbox) Insert(ctx context.Context, sub Submission) (*Submission, error) {
	if sub.ID == "" {
		sub.ID = newSubmissionID(o.now())
	}
	if err := o.Add(ctx, sub, nil); err != nil {
		return nil, err
	}
	return o.Get(ctx, sub.ID)
}

// earlyRow is the size up to which the row of a message is written while its file is still on its way to the disk.
const earlyRow = 256 << 10

// Add adds a submission, [ErrExists] if it is there already. ID must be given; Created is if empty, and State is queued.
// durable, which may be nil, returns when the message's file is on the disk, or why it is not; the row is never committed
// before that. One who is alone does not wait for the disk twice: the row is written up to the commit meanwhile.
func (o *Outbox) Add(ctx context.Context, sub Submission, durable func() error) error {
	now := o.now()
	if sub.Created.IsZero() {
		sub.Created = now
	}
	if sub.State == "" {
		sub.State = StateQueued
	}
	sub.Updated = now
	add := func(t *tx) error {
		written, err := t.writeSubmission(insertSubmission, &sub)
		if err == nil && !written {
			err = fmt.Errorf("submission %s: %w", sub.ID, ErrExists)
		}
		if err == nil && durable != nil {
			err = durable()
		}
		return err
	}
	const op = "add submission"
	if durable != nil && sub.Size <= earlyRow {
		if done, err := o.writeAlone(ctx, op, add); done {
			return err
		}
	}
	if durable != nil {
		if err := durable(); err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
	}
	return o.write(ctx, op, add)
}

// newSubmissionID returns an id that sorts by time: 48 bits of milliseconds, 32 of chance.
func newSubmissionID(now time.Time) string {
	var b [12]byte
	binary.BigEndian.PutUint64(b[:8], uint64(now.UnixMilli())<<16)
	rand.Read(b[6:10])
	return strings.ToLower(base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:10]))
}

// Update changes a submission; change sees the row as it is and nobody else changes
// it meanwhile. The id cannot be changed. An error from change is returned as it
// is, wrapped, and nothing happens.
func (o *Outbox) Update(ctx context.Context, id string, change func(*Submission) error) (*Submission, error) {
	return o.update(ctx, "update submission", id, change)
}

func (o *Outbox) update(ctx context.Context, op, id string, change func(*Submission) error) (*Submission, error) {
	var out *Submission
	err := o.write(ctx, op, func(t *tx) error {
		s, err := t.submission(id)
		if err != nil {
			return err
		}
		if err := change(s); err != nil {
			return err
		}
		s.ID, s.Updated = id, o.now()
		if err := t.putSubmission(s); err != nil {
			return err
		}
		out, err = t.submission(id)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Claim takes a queued or unclear submission for sending and counts the attempt;
// only one caller can. ClaimedFrom then says which of the two it was.
// [ErrNotClaimable] for any other state.
func (o *Outbox) Claim(ctx context.Context, id string) (*Submission, error) {
	return o.update(ctx, "claim submission", id, func(s *Submission) error {
		if s.State != StateQueued && s.State != StateUnclear {
			return fmt.Errorf("%w: it is %s", ErrNotClaimable, s.State)
		}
		s.ClaimedFrom, s.State = s.State, StateSending
		s.Attempts++
		return nil
	})
}

// Recover is for the start, before anything is claimed. Submissions that were
// being sent when the program ended become unclear and due at once. It returns
// those that are still spooled: nobody was told that they are accepted, so row and
// file may go.
func (o *Outbox) Recover(ctx context.Context) ([]Submission, error) {
	now := o.now().UnixMilli()
	err := o.write(ctx, "recover outbox", func(t *tx) error {
		// They may have been handed over, which counts for the pace.
		if _, err := t.exec("INSERT INTO sends (mailbox, at) SELECT mailbox, ? FROM submissions WHERE state = 'sending'", now); err != nil {
			return err
		}
		_, err := t.exec("UPDATE submissions SET state = 'unclear', next_attempt = ?, updated = ? WHERE state = 'sending'", now, now)
		return err
	})
	if err != nil {
		return nil, err
	}
	return o.List(ctx, Filter{States: []State{StateSpooled}})
}

// Get returns one submission, or [ErrNotFound].
func (o *Outbox) Get(ctx context.Context, id string) (*Submission, error) {
	list, err := o.find(ctx, "WHERE id = ?", id)
	if err == nil && len(list) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return nil, o.db.explain("read submission", err)
	}
	return &list[0], nil
}

// Due returns queued and unclear submissions whose NextAttempt is not after now,
// longest waiting first, at most limit.
func (o *Outbox) Due(ctx context.Context, now time.Time, limit int) ([]Submission, error) {
	list, err := o.find(ctx, "WHERE state IN ('queued', 'unclear') AND next_attempt <= ? ORDER BY next_attempt, id LIMIT ?", now.UnixMilli(), int64(limit))
	return list, o.db.explain("list due submissions", err)
}

// NextDue returns the earliest NextAttempt of all queued and unclear submissions.
// It is the zero time when there are none; one that never had a NextAttempt counts
// as due since the beginning of 1970.
func (o *Outbox) NextDue(ctx context.Context) (time.Time, error) {
	var next sql.NullInt64
	err := o.db.row(ctx, []any{&next}, "SELECT MIN(next_attempt) FROM submissions WHERE state IN ('queued', 'unclear')")
	if err != nil || !next.Valid {
		return time.Time{}, o.db.explain("read outbox", err)
	}
	return time.UnixMilli(next.Int64).UTC(), nil
}

// List returns the submissions that a filter lets through, in order of their ids, which is that of their arrival.
func (o *Outbox) List(ctx context.Context, f Filter) ([]Submission, error) {
	where, args := f.where()
	list, err := o.find(ctx, where, args...)
	return list, o.db.explain("list submissions", err)
}

func (f *Filter) where() (string, []any) {
	var terms []string
	var args []any
	term := func(sql string, values ...any) {
		terms = append(terms, sql)
		args = append(args, values...)
	}
	if len(f.States) > 0 {
		states := make([]any, len(f.States))
		for i, st := range f.States {
			states[i] = string(st)
		}
		term("state IN (?"+strings.Repeat(", ?", len(states)-1)+")", states...)
	}
	if f.Mailbox != "" {
		term("LOWER(mailbox) = ?", strings.ToLower(f.Mailbox))
	}
	if f.Login != "" {
		term("login = ?", f.Login)
	}
	if f.Sender != "" {
		term(`LOWER(envelope_from) LIKE ? ESCAPE '\'`, containing(f.Sender))
	}
	if f.Recipient != "" {
		term(`recipient_search LIKE ? ESCAPE '\'`, containing(f.Recipient))
	}
	if f.MessageID != "" {
		term("message_id = ?", f.MessageID)
	}
	if f.Digest != "" {
		term("digest = ?", f.Digest)
	}
	if f.Subject != "" {
		term(`LOWER(subject) LIKE ? ESCAPE '\'`, containing(f.Subject))
	}
	if !f.OlderThan.IsZero() {
		term("created < ?", f.OlderThan.UnixMilli())
	}
	if !f.NewerThan.IsZero() {
		term("created >= ?", f.NewerThan.UnixMilli())
	}
	if f.Text != "" {
		like := containing(f.Text)
		term(`(id LIKE ? ESCAPE '\' OR LOWER(envelope_from) LIKE ? ESCAPE '\' OR recipient_search LIKE ? ESCAPE '\' OR LOWER(login) LIKE ? ESCAPE '\'
			OR LOWER(message_id) LIKE ? ESCAPE '\' OR LOWER(subject) LIKE ? ESCAPE '\')`, like, like, like, like, like, like)
	}
	if f.Before != "" {
		term("id < ?", f.Before)
	}
	if f.After != "" {
		term("id > ?", f.After)
	}
	where := ""
	if len(terms) > 0 {
		where = "WHERE " + strings.Join(terms, " AND ") + " "
	}
	where += "ORDER BY id"
	if f.Newest {
		where += " DESC"
	}
	if f.Limit > 0 {
		where += " LIMIT ?"
		args = append(args, int64(f.Limit))
	}
	return where, args
}

// containing makes a pattern for LIKE that takes text as it is.
func containing(text string) string {
	return "%" + strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`).Replace(strings.ToLower(text)) + "%"
}

func (o *Outbox) find(ctx context.Context, where string, args ...any) ([]Submission, error) {
	rows, err := o.db.query(ctx, "SELECT "+submissionColumns+" FROM submissions "+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []Submission
	for rows.Next() {
		s, err := scanSubmission(rows.Scan)
		if err != nil {
			return nil, err
		}
		list = append(list, *s)
	}
	return list, rows.Err()
}

// Counts returns how many submissions are in each state that has any.
func (o *Outbox) Counts(ctx context.Context) (map[State]int, error) {
	rows, err := o.db.query(ctx, "SELECT state, COUNT(*) FROM submissions GROUP BY state")
	if err != nil {
		return nil, o.db.explain("count submissions", err)
	}
	defer rows.Close()
	counts := map[State]int{}
	for rows.Next() {
		var state string
		var n int64
		if err := rows.Scan(&state, &n); err != nil {
			return nil, o.db.explain("count submissions", err)
		}
		counts[State(state)] = int(n)
	}
	return counts, o.db.explain("count submissions", rows.Err())
}

// OldestWaiting returns when the oldest message that is still to be sent was accepted; held ones do not count. It is the
// zero time when there is none.
func (o *Outbox) OldestWaiting(ctx context.Context) (time.Time, error) {
	var oldest sql.NullInt64
	err := o.db.row(ctx, []any{&oldest}, "SELECT MIN(created) FROM submissions WHERE state IN ('queued', 'sending', 'unclear')")
	if err != nil || !oldest.Valid {
		return time.Time{}, o.db.explain("read outbox", err)
	}
	return time.UnixMilli(oldest.Int64).UTC(), nil
}

// Delete forgets settled submissions not changed since olderThan, and what their logs say, and
// returns them, so that the caller can remove spool files that are still there.
func (o *Outbox) Delete(ctx context.Context, olderThan time.Time) ([]Submission, error) {
	var gone []Submission
	err := o.write(ctx, "forget submissions", func(t *tx) error {
		const which = " WHERE state IN ('sent', 'bounced', 'refused', 'purged') AND updated < ?"
		rows, err := t.query("SELECT "+submissionColumns+" FROM submissions"+which+" ORDER BY id", olderThan.UnixMilli())
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			s, err := scanSubmission(rows.Scan)
			if err != nil {
				return err
			}
			gone = append(gone, *s)
		}
		if err := rows.Err(); err != nil {
			return err
		}
		rows.Close()
		if len(gone) == 0 {
			return nil
		}
		for _, table := range []string{"events", "texts"} {
			if _, err := t.exec("DELETE FROM "+table+" WHERE submission IN (SELECT id FROM submissions"+which+")", olderThan.UnixMilli()); err != nil {
				return err
			}
		}
		_, err = t.exec("DELETE FROM submissions"+which, olderThan.UnixMilli())
		return err
	})
	if err != nil {
		return nil, err
	}
	return gone, nil
}

// Remove forgets one submission in any state; one that is not there is no error.
func (o *Outbox) Remove(ctx context.Context, id string) error {
	return o.write(ctx, "remove submission", func(t *tx) error {
		for _, table := range []string{"events", "texts"} {
			if _, err := t.exec("DELETE FROM "+table+" WHERE submission = ?", id); err != nil {
				return err
			}
		}
		_, err := t.exec("DELETE FROM submissions WHERE id = ?", id)
		return err
	})
}
