package store

import (
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
)

// AccountID names one Microsoft 365 mailbox in the replica. Never reused.
type AccountID int64

// FolderID names one folder of an account. Never reused, not even after DeleteFolder.
type FolderID int64

// MessageID names one message in one folder. It is built from the folder and the
// UID, so it is never reused, and a message that moves gets another one.
type MessageID int64

// BodyID names one kept body, see [BodyWriter.Stage].
type BodyID int64

// GraphID is an immutable id as Graph gives it, of a folder or a message.
type GraphID string

// Flags are the IMAP flags that have a place of their own in Graph.
// All other flags are keywords.
type Flags uint16

const (
	FlagSeen Flags = 1 << iota
	FlagAnswered
	FlagFlagged
	FlagDeleted
	FlagDraft
	FlagForwarded // $Forwarded

	// FlagIsDraft is no flag of IMAP: Graph holds the message to be a draft. A client may
	// set or clear \Draft all the same.
	FlagIsDraft

	// FlagsAll has every flag of IMAP set.
	FlagsAll = FlagSeen | FlagAnswered | FlagFlagged | FlagDeleted | FlagDraft | FlagForwarded
)

// flagNames is in the order of the bits.
var flagNames = [...]imap.Flag{
	imap.FlagSeen, imap.FlagAnswered, imap.FlagFlagged, imap.FlagDeleted, imap.FlagDraft, imap.FlagForwarded,
}

// Append adds the IMAP names of the flags in f to dst.
func (f Flags) Append(dst []imap.Flag) []imap.Flag {
	for i, name := range flagNames {
		if f&(1<<i) != 0 {
			dst = append(dst, name)
		}
	}
	return dst
}

// FlagBit returns the bit for an IMAP flag, or 0 when it is a keyword to us.
// Case does not matter, RFC 9051 section 2.3.2.
func FlagBit(flag imap.Flag) Flags {
	for i, name := range flagNames {
		if strings.EqualFold(string(name), string(flag)) {
			return 1 << i
		}
	}
	return 0
}

// FillState says how far the first listing of a folder has come.
type FillState int

const (
	FillNone    FillState = iota // never begun
	FillListing                  // some pages are in, FillLink leads to the next
	FillDone                     // the skeleton is complete
)

// Folder is one row of the folder table.
type Folder struct {
	ID            FolderID
	Account       AccountID
	GraphID       GraphID
	ParentGraphID GraphID
	DisplayName   string           // as Graph shows it
	Name          string           // IMAP name in UTF-8, '/' separated, unique per account
	Role          imap.MailboxAttr // "" for none
	Hidden        bool

	UIDValidity   uint32
	UIDNext       imap.UID
	HighestModSeq uint64   // at least 1
	FirstRecent   imap.UID // messages from here on have been told to nobody as \Recent
	Subscribed    bool     // derived, see SetSubscribed

	// Kept exact by every transaction that touches messages.
	Messages, Unseen, DeletedCount int
	SizeSum                        int64 // bytes

	DeltaLink   string
	FillLink    string
	Fill        FillState
	HeadersLink string
	HeadersDone bool
	SyncedAt    time.Time // zero: never
}

// SyncUpdate changes what the syncer keeps on a folder; nil fields stay.
type SyncUpdate struct {
	DeltaLink   *string
	FillLink    *string
	HeadersLink *string
	Fill        *FillState
	HeadersDone *bool
	SyncedAt    *time.Time
}

// Message is one row of the message table.
type Message struct {
	ID      MessageID
	Folder  FolderID
	GraphID GraphID
	UID     imap.UID
	ModSeq  uint64

	Flags    Flags
	Keywords []string // sorted, as IMAP shows them; shared between messages, do not change

	Received  time.Time // INTERNALDATE, whole seconds, UTC; zero if unknown
	Sent      time.Time // whole seconds, UTC; zero if unknown
	Size      int64     // bytes
	SizeExact bool

	InternetMessageID string
	ThreadID          string // conversationId

	HasHeader    bool // Headers returns it
	HeaderAbsent bool // Graph is known to have no 0x007D for it: only $value tells
	HasBody      bool // may have been evicted since: Body has the last word

	// Local changes that are not in Graph yet. They win over what delta brings.
	Pending         Flags // these bits
	PendingKeywords bool  // and the keywords, if true
	PendingSeq      int64 // 0: nothing pending; grows with every local change in the account
}

// Remote is what one Graph row says about a message. Nil means that the row does
// not say; nothing is taken for unset because a row leaves it out.
type Remote struct {
	GraphID           GraphID
	Flags             Flags
	FlagsMask         Flags      // only these bits of Flags are known
	Keywords          *[]string  // any order
	Received          *time.Time // ignored once known: an INTERNALDATE never changes
	Sent              *time.Time
	SizeEstimate      *int64 // bytes; ignored once the exact size is known
	InternetMessageID *string
	ThreadID          *string
	Header            []byte // raw header; kept only if none is there yet

	// These flags, and the keywords, may be of before a change of our own. They are not put into a message that is there;
	// where they differ from what it has, it is named in Changes.Doubted.
	Doubt         Flags
	DoubtKeywords bool
}

// Changes is what one transaction did to one folder. It is for those who watch
// the folder, after the commit.
type Changes struct {
	Folder        FolderID
	UIDNext       imap.UID
	HighestModSeq uint64
	Added         []Message // ascending by UID
	Updated       []Message // as they are now; ModSeq is unchanged when only size, header or body did change
	Removed       []Removed
	// Unknown are ids that were named but are not in the replica, with too little
	// in the row to add them (no Received): read the message and apply it whole.
	Unknown []GraphID
	// Doubted are messages of which a row says something else in what was in doubt. See Remote.
	Doubted []GraphID
}

// Empty reports whether there is nothing to tell.
func (c *Changes) Empty() bool {
	return len(c.Added) == 0 && len(c.Updated) == 0 && len(c.Removed) == 0
}

// Removed is one message that is gone from a folder.
type Removed struct {
	UID     imap.UID
	ModSeq  uint64
	GraphID GraphID // empty when it comes from RemovedSince
}

// FlagChange is one local change to one message. Set and Clear, and
// AddKeywords and RemoveKeywords, must not overlap.
type FlagChange struct {
	UID            imap.UID
	Set, Clear     Flags
	AddKeywords    []string
	RemoveKeywords []string
	// ReplaceKeywords makes AddKeywords the whole list.
	ReplaceKeywords bool
	// UnchangedSince leaves the message alone if its ModSeq is higher; 0 for no
	// such condition. RFC 7162 section 3.1.3.
	UnchangedSince uint64
}

// PushResult says how pushing one pending change ended.
type PushResult struct {
	ID         MessageID
	PendingSeq int64   // as it was in the Message that was pushed
	Undo       *Remote // nil if Graph took it; else Graph's own values, the change was refused for good
}

// Moved is one message that Graph has moved or copied.
type Moved struct {
	UID        imap.UID // in the source folder
	NewGraphID GraphID  // in the destination; the same as before for a move of an immutable id
}

// HeaderRow is one message's raw header, nil when Graph has none (0x007D absent).
type HeaderRow struct {
	ID     MessageID
	Header []byte
}
