package imapd

import (
	"github.com/emersion/go-imap/v2"
)

// command is one that a client has sent.
type command struct {
	tag  string // "" if it could not be read
	name string // in upper case, with "UID " before it if that was sent
	uid  bool   // the UID form

	keepsNumbers bool    // sequence numbers must not change before the tagged response
	tellsModSeq  bool    // with CONDSTORE the tagged OK says HIGHESTMODSEQ
	answered     bool    // the tagged response has been written
	ok           *status // the tagged OK; nil: "NAME completed"
}

// done sets the tagged OK. code, without brackets, may be empty.
func (c *command) done(code, text string) {
	c.ok = &status{imap.StatusResponseTypeOK, code, text}
}

// states is a set of connection states. RFC 3501 section 3.
type states uint8

const (
	inNotAuthenticated states = 1 << iota
	inAuthenticated
	inSelected

	inAny    = inNotAuthenticated | inAuthenticated | inSelected
	inLogged = inAuthenticated | inSelected
)

func (set states) has(state imap.ConnState) bool {
	switch state {
	case imap.ConnStateNotAuthenticated:
		return set&inNotAuthenticated != 0
	case imap.ConnStateAuthenticated:
		return set&inAuthenticated != 0
	case imap.ConnStateSelected:
		return set&inSelected != 0
	}
	return false
}

// commandSpec says how a command is run.
type commandSpec struct {
	// run parses the arguments, calls Decoder.End before it does anything, and
	// does the work. nil is answered with OK, a *status or any other error as
	// reply has it.
	run func(*session, *command) error
	in  states
	uid bool // there is a UID form
	// keepsNumbers: in its form without UID the command must not be answered with
	// EXPUNGE, for its own sequence numbers would change. RFC 3501 section 7.4.1.
	keepsNumbers bool
}

// commands are all that are known, by name without UID.
var commands = map[string]commandSpec{
	"CAPABILITY":   {run: (*session).capability, in: inAny},
	"NOOP":         {run: (*session).noop, in: inAny},
	"LOGOUT":       {run: (*session).logout, in: inAny},
	"ID":           {run: (*session).id, in: inAny},
	"STARTTLS":     {run: (*session).starttls, in: inNotAuthenticated},
	"AUTHENTICATE": {run: (*session).authenticate, in: inNotAuthenticated},
	"LOGIN":        {run: (*session).loginCommand, in: inNotAuthenticated},
	"ENABLE":       {run: (*session).enable, in: inLogged},
	"COMPRESS":     {run: (*session).compress, in: inLogged},
	"NAMESPACE":    {run: (*session).namespace, in: inLogged},
	"LIST":         {run: (*session).list, in: inLogged},
	"LSUB":         {run: (*session).lsub, in: inLogged},
	"SUBSCRIBE":    {run: (*session).subscribe, in: inLogged},
	"UNSUBSCRIBE":  {run: (*session).unsubscribe, in: inLogged},
	"CREATE":       {run: (*session).create, in: inLogged},
	"DELETE":       {run: (*session).delete, in: inLogged},
	"RENAME":       {run: (*session).rename, in: inLogged},
	"STATUS":       {run: (*session).status, in: inLogged},
	"SELECT":       {run: (*session).selectMailbox, in: inLogged},
	"EXAMINE":      {run: (*session).examine, in: inLogged},
	"APPEND":       {run: (*session).append, in: inLogged},
	"IDLE":         {run: (*session).idle, in: inLogged},
	"CHECK":        {run: (*session).check, in: inSelected},
	"CLOSE":        {run: (*session).close, in: inSelected},
	"UNSELECT":     {run: (*session).unselect, in: inSelected},
	"EXPUNGE":      {run: (*session).expunge, in: inSelected, uid: true},
	"STORE":        {run: (*session).store, in: inSelected, uid: true, keepsNumbers: true},
	"COPY":         {run: (*session).copy, in: inSelected, uid: true},
	"MOVE":         {run: (*session).move, in: inSelected, uid: true},
}
