package store

import "errors"

var (
	// ErrNotFound is returned for a folder, message or submission that is not there.
	ErrNotFound = errors.New("not in the store")
	// ErrNameTaken is returned when an IMAP name belongs to another folder of the account.
	ErrNameTaken = errors.New("folder name is taken")
	// ErrNoBody is returned when a message's bytes are not kept.
	ErrNoBody = errors.New("body is not kept")
	// ErrPruned is returned when the journal of removals does not go back that far.
	ErrPruned = errors.New("journal of removals does not go back that far")
	// ErrNotClaimable is returned when a submission is not waiting to be sent.
	ErrNotClaimable = errors.New("submission is not waiting to be sent")
	// ErrClosed is returned once the store is closed.
	ErrClosed = errors.New("store is closed")
	// ErrReadOnly is returned for changes through OpenOutboxReadOnly.
	ErrReadOnly = errors.New("outbox is open for reading only")
	// ErrExists is returned for a submission whose id is taken.
	ErrExists = errors.New("is there already")
	// ErrNoSpace is returned when a database cannot grow because its disk is full. What
	// writes files returns the operating system's error.
	ErrNoSpace = errors.New("no space left")
	// ErrDamaged is returned when a database file is not what SQLite has written.
	ErrDamaged = errors.New("is damaged or no SQLite database")
	// ErrUIDsExhausted is returned when a folder has given out all 2^32-1 UIDs.
	ErrUIDsExhausted = errors.New("folder has no UIDs left")
)
