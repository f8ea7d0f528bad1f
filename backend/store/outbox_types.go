package store

import "time"

// State is where a submission stands.
type State string

const (
	StateSpooled State = "spooled" // row and file are there, 250 not yet said; never due
	StateQueued  State = "queued"  // waits for NextAttempt
	StateSending State = "sending" // claimed; turned into unclear by Recover after a crash
	StateUnclear State = "unclear" // an attempt ended without an answer: look before sending again
	StateSent    State = "sent"    // Graph has taken it
	StateBounced State = "bounced" // given up, the sender was told
	StateHeld    State = "held"    // waits for a person
	StateRefused State = "refused" // never accepted: its client was told so
	StatePurged  State = "purged"  // taken out by a person, without a notice
)

// Settled reports whether nothing more is sent for a message in the state.
func (s State) Settled() bool {
	switch s {
	case StateSent, StateBounced, StateRefused, StatePurged:
		return true
	}
	return false
}

// Recipient is one envelope recipient with its DSN wishes, RFC 3461.
type Recipient struct {
	Address string
	Notify  []string // NEVER, or any of SUCCESS, FAILURE, DELAY
	Orcpt   string   // as given, "rfc822;user@example.org"
}

// DSN holds the parameters of MAIL FROM, RFC 3461 sections 4.3 and 4.4.
type DSN struct {
	Ret   string // FULL, HDRS or ""
	EnvID string
}

// Submission is one submitted message. The MIME is in a spool file, that of a small one in the database as well.
type Submission struct {
	ID    string // given by Insert if empty; sorts by time of submission
	State State
	// ClaimedFrom is the state Claim found: StateUnclear means that an earlier
	// attempt may have sent the message.
	ClaimedFrom State

	Mailbox      string // address of the Microsoft 365 mailbox it goes through
	Login        string
	RemoteAddr   string
	EnvelopeFrom string // reversePath, "" for <>
	Recipients   []Recipient
	DSN          DSN

	MessageID string // Message-ID field
	Content   string // fingerprint of what the message says, to know a client's copy of it; may be empty
	Subject   string // only if the configuration wants it in the log
	Digest    string // of the message as received, to know it again; may be empty
	Size      int64  // bytes of the spool file
	Spool     string // file name within SpoolDir

	Attempts       int
	NextAttempt    time.Time // times are UTC, whole milliseconds
	Created        time.Time // set by Insert if zero
	Updated        time.Time // set by every change
	Expires        time.Time
	LastError      string
	HoldReason     string
	GraphRequestID string
	DelayNotified  time.Time // a DELAY notice was sent; zero: none

	Progress    string    // notes of the queue for itself
	Wish        Wish      // what a person asked for while the message was being sent
	GatherUntil time.Time // until then recipients may be added
	DropCopy    bool      // its copy in Sent Items is not wanted
	Unanswered  bool      // its client may not have seen the 250; Outbox.Answered ends that

	// Sends is how many messages were handed to Exchange, to be counted for the mailbox's pace by the Update
	// that carries it. Reading leaves it 0; see Outbox.RecentSends.
	Sends int

	// Text is the message itself, where Add is to keep it with the row because its file may not be on the disk yet. It
	// goes when nothing is left to do for the message. Reading leaves it empty; see Outbox.Texts.
	Text []byte

	// Events are added to the log by the Insert or Update that carries them. Reading
	// leaves them empty; see Outbox.Events.
	Events []Event
}

// Wish is what is to become of a submission as soon as nobody is sending it.
type Wish string

// The wishes.
const (
	WishNone   Wish = ""
	WishHold   Wish = "hold"
	WishBounce Wish = "bounce"
	WishPurge  Wish = "purge"
)

// Event is one line of a submission's log.
type Event struct {
	At        time.Time // set by Insert and Update if zero
	What      string    // accepted, sent, deferred, …
	Status    string    // enhanced status code, RFC 3463; may be empty
	Text      string    // for people; holds nothing of the message
	RequestID string    // Graph's; may be empty
}

// Filter chooses submissions; zero fields do not restrict.
type Filter struct {
	States    []State
	Mailbox   string // equal but for case
	Login     string
	Sender    string // part of EnvelopeFrom, case does not matter
	Recipient string // part of any recipient's address, case does not matter
	MessageID string
	Digest    string
	Subject   string    // part of it, case does not matter; finds only what was logged with its subject
	OlderThan time.Time // Created before
	NewerThan time.Time // Created at or after
	Text      string    // part of id, sender, a recipient, login, Message-ID or logged subject; case does not matter
	After     string    // ids greater than this one, for paging
	Before    string    // ids smaller than this one, the same with Newest
	Newest    bool      // newest first instead of oldest first
	Limit     int       // 0: all
}
