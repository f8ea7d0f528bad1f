package backend

import (
	"context"
	"errors"
	"fmt"
)

// Kind says what a mail client can do about a failure. Each front end has one
// function that turns a Kind into its protocol's reply.
type Kind int

const (
	Internal     Kind = iota // our fault: the log has the cause, the client does not
	Unavailable              // Graph throttles, fails or cannot be reached: try again
	NotFound                 // no such mailbox or message
	Exists                   // a mailbox of that name is there already
	SignInNeeded             // Microsoft refuses our sign-in: an administrator must act
	Denied                   // Microsoft or our own configuration forbids it: trying again will not help
	Refused                  // the request itself can never succeed: bad name, bad recipient, malformed content
	TooLarge                 // the message is over a limit that will not change by waiting
	OverQuota                // the Microsoft 365 mailbox is full
	AuthFailed               // wrong user name or password, or the login may not use this protocol
	TooMany                  // locked out or over a local limit: try again later
)

var kindNames = [...]string{"internal", "unavailable", "not found", "exists", "sign-in needed", "denied",
	"refused", "too large", "over quota", "authentication failed", "too many"}

// String returns the kind's name as it appears in logs.
func (k Kind) String() string {
	if k < 0 || int(k) >= len(kindNames) {
		return fmt.Sprintf("kind %d", int(k))
	}
	return kindNames[k]
}

// Error is the one error type that leaves package backend.
type Error struct {
	Kind Kind
	Op   string // what was being done, such as "append to mailbox"
	Text string // one plain sentence for the person at the mail client; holds nothing internal; may be empty
	Err  error  // the cause, for the log; may be nil when Text says it all
}

// Error returns the operation and the cause, for the log.
func (e *Error) Error() string {
	switch {
	case e.Err != nil:
		return e.Op + ": " + e.Err.Error()
	case e.Text != "":
		return e.Op + ": " + e.Text
	}
	return e.Op + ": " + e.Kind.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of the first Error in err's chain. An error that
// carries none is Internal, but for the end of a context: that is Unavailable.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return Unavailable
	}
	return Internal
}

// TextOf returns the sentence for the client in the first Error of err's chain, or "".
func TextOf(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Text
	}
	return ""
}
