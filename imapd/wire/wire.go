// Package wire reads and writes the grammar of IMAP (RFC 3501 section 9, RFC
// 9051 section 9): atoms, strings, literals, number sets, flags, dates and
// mailbox names. It knows no mailbox and no command.
//
// Two invariants hold whatever the other side sends. Bytes announced as a
// literal are never read as commands, not even when the literal is refused. And
// the encoder never announces a literal before it holds its first bytes; when
// the rest cannot be had, the connection is broken instead of the framing.
package wire

import (
	"errors"
	"fmt"
)

// Limits bound what one command may make a Decoder hold or read.
type Limits struct {
	Line    int   // bytes of one line, that is of a command between two literals
	Literal int64 // bytes of a literal that is read into memory
	Command int64 // bytes of a whole command, lines and literals that are read into memory together
	Nesting int   // depth of parentheses
	Set     int   // ranges of one number set
	Drain   int64 // bytes of refused input that are read past before the connection is given up
}

// DefaultLimits suit a client that has logged in. A line of 2 MiB holds a set
// of some 250,000 UIDs, as synchronising programs send them.
var DefaultLimits = Limits{
	Line:    2 << 20,
	Literal: 256 << 10,
	Command: 4 << 20,
	Nesting: 64,
	Set:     500_000,
	Drain:   512 << 20,
}

// A SyntaxError says that the client broke the grammar: BAD is the answer and
// the connection goes on.
type SyntaxError struct {
	Text string // for the client; quotes nothing it sent
}

// Error returns the text.
func (e *SyntaxError) Error() string { return e.Text }

// A LimitError says that the command is well formed as far as it was read, but
// over one of the Limits. The connection goes on.
type LimitError struct {
	Literal bool // a literal was too big, as opposed to a line, a set or a nesting
	Text    string
}

// Error returns the text.
func (e *LimitError) Error() string { return e.Text }

// A NameError says that a mailbox name is no valid modified UTF-7 or UTF-8. The
// command is refused with NO, for its grammar is right.
type NameError struct {
	Text string
}

// Error returns the text.
func (e *NameError) Error() string { return e.Text }

// ErrLost is returned when the decoder cannot find the start of the next
// command without the risk of taking content for commands: refused input is
// over Limits.Drain, or a client did not wait for leave to send a literal that
// was refused. The connection must be closed.
var ErrLost = errors.New("end of refused input not found")

// Recoverable reports whether err is about one command only, so that the
// connection can go on after Decoder.Finish.
func Recoverable(err error) bool {
	switch err.(type) {
	case *SyntaxError, *LimitError, *NameError:
		return true
	}
	return false
}

func syntaxErrorf(format string, args ...any) *SyntaxError {
	return &SyntaxError{Text: fmt.Sprintf(format, args...)}
}
