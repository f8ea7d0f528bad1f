package backend

import (
	"context"
	"errors"
	"strings"
	"time"

	"postern/backend/outbox"
	"postern/backend/store"
)

// QueuedMessage is what is known of a submitted message: never its content, its subject only where the configuration
// logs subjects.
type QueuedMessage struct {
	ID          string
	State       string // queued, sending, unclear, held, sent, bounced, refused or purged
	Mailbox     string
	Login       string
	Remote      string // the client's address
	Sender      string // of the envelope; "" for <>
	Recipients  []string
	MessageID   string
	Subject     string
	Size        int64 // bytes
	Attempts    int
	Created     time.Time
	Updated     time.Time
	NextAttempt time.Time // zero: none
	Expires     time.Time
	LastError   string
	HoldReason  string
	RequestID   string // Graph's, of the last attempt

	Uploaded, UploadSize int64 // bytes, while it is sent in pieces; else 0
}

// Waiting reports whether the message is still to be sent.
func (m *QueuedMessage) Waiting() bool {
	switch store.State(m.State) {
	case store.StateSent, store.StateBounced, store.StateRefused, store.StatePurged:
		return false
	}
	return true
}

// May reports whether the queue would take the action for the message now: retry, hold, release, bounce or purge.
func (m *QueuedMessage) May(action string) bool {
	held := m.State == string(store.StateHeld)
	switch outbox.Action(action) {
	case outbox.Retry:
		return m.Waiting() && !held && m.State != string(store.StateSending)
	case outbox.Hold:
		return m.Waiting() && !held
	case outbox.Release:
		return held
	case outbox.Bounce, outbox.Purge:
		return m.Waiting()
	}
	return false
}

// QueueEvent is one line of a message's log.
type QueueEvent struct {
	At        time.Time
	What      string
	Status    string // RFC 3463; may be empty
	Text      string
	RequestID string
}

// QueueQuery chooses messages. Zero fields do not restrict.
type QueueQuery struct {
	Text    string // part of id, sender, recipient, login, Message-ID or logged subject
	State   string // one state; "waiting" for all that are still to be sent
	Mailbox string
	Before  string // ids smaller than this one, for paging
	Limit   int
}

var waitingStates = []store.State{store.StateQueued, store.StateSending, store.StateUnclear, store.StateHeld}

// Queue returns messages, newest first.
func (b *Backend) Queue(ctx context.Context, q QueueQuery) ([]QueuedMessage, error) {
	f := store.Filter{Text: q.Text, Mailbox: q.Mailbox, Before: q.Before, Limit: q.Limit, Newest: true}
	switch q.State {
	case "":
	case "waiting":
		f.States = waitingStates
	default:
		f.States = []store.State{store.State(q.State)}
	}
	rows, err := b.store.Outbox().List(ctx, f)
	if err != nil {
		return nil, translate("list queue", err)
	}
	uploads := b.outbox.Uploads()
	out := make([]QueuedMessage, len(rows))
	for i := range rows {
		out[i] = queuedMessage(&rows[i], uploads)
	}
	return out, nil
}

func queuedMessage(s *store.Submission, uploads map[string]outbox.Upload) QueuedMessage {
	m := QueuedMessage{ID: s.ID, State: string(s.State), Mailbox: s.Mailbox, Login: s.Login, Remote: s.RemoteAddr, Sender: s.EnvelopeFrom,
		MessageID: s.MessageID, Subject: s.Subject, Size: s.Size, Attempts: s.Attempts, Created: s.Created, Updated: s.Updated,
		NextAttempt: s.NextAttempt, Expires: s.Expires, LastError: s.LastError, HoldReason: s.HoldReason, RequestID: s.GraphRequestID}
	for _, r := range s.Recipients {
		m.Recipients = append(m.Recipients, r.Address)
	}
	if u, ok := uploads[s.ID]; ok {
		m.Uploaded, m.UploadSize = u.Done, u.Total
	}
	return m
}

// QueueMessage returns one message and its log, oldest first. The error's kind is NotFound if there is none.
func (b *Backend) QueueMessage(ctx context.Context, id string) (QueuedMessage, []QueueEvent, error) {
	const op = "read queue"
	row, err := b.store.Outbox().Get(ctx, id)
	if err != nil {
		return QueuedMessage{}, nil, translate(op, err)
	}
	events, err := b.store.Outbox().Events(ctx, id)
	if err != nil {
		return QueuedMessage{}, nil, translate(op, err)
	}
	out := make([]QueueEvent, len(events))
	for i, e := range events {
		out[i] = QueueEvent(e)
	}
	return queuedMessage(row, b.outbox.Uploads()), out, nil
}

// QueueAct does to a message what an administrator asks for: retry, hold, release, bounce or purge. later tells that it is
// being sent, and the rest follows if that fails. The error's kind is NotFound, or Refused with the reason as its text.
func (b *Backend) QueueAct(ctx context.Context, id, action, reason string) (later bool, err error) {
	const op = "act on queue"
	switch a := outbox.Action(action); a {
	case outbox.Retry, outbox.Hold, outbox.Release, outbox.Bounce, outbox.Purge:
		later, err = b.outbox.Ask(ctx, id, a, reason)
	default:
		return false, &Error{Kind: Refused, Op: op, Text: "There is no such action"}
	}
	if errors.Is(err, outbox.ErrNotPossible) {
		_, why, _ := strings.Cut(err.Error(), outbox.ErrNotPossible.Error()+": ")
		return false, &Error{Kind: Refused, Op: op, Text: "Not possible: " + why, Err: err}
	}
	return later, translate(op, err)
}

// QueueState is how much is on its way out.
type QueueState struct {
	Count  map[string]int // messages by state, settled ones as long as the log keeps them
	Oldest time.Time      // when the oldest that is still to be sent was accepted, held ones left out; zero: none
}

// Waiting returns how many are still to be sent, held ones too.
func (q QueueState) Waiting() int {
	n := 0
	for _, s := range waitingStates {
		n += q.Count[string(s)]
	}
	return n
}

// QueueState counts the queue.
func (b *Backend) QueueState(ctx context.Context) (QueueState, error) {
	counts, err := b.store.Outbox().Counts(ctx)
	if err != nil {
		return QueueState{}, translate("count queue", err)
	}
	q := QueueState{Count: make(map[string]int, len(counts))}
	for s, n := range counts {
		q.Count[string(s)] = n
	}
	q.Oldest, err = b.store.Outbox().OldestWaiting(ctx)
	return q, translate("count queue", err)
}
