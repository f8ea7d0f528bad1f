package imapd

import (
	"bytes"
	"context"
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/emersion/go-imap/v2"

	"postern/backend"
	"postern/imapd/wire"
)

// readAhead is what a session reads for commands that have come but are not their turn yet: mbsync asks for each text with a
// command of its own, and sends many of them ahead. It belongs to the session's goroutine.
type readAhead struct {
	ctx     context.Context
	cancel  context.CancelFunc
	results map[imap.UID]chan bodyResult // being opened, or open
}

// lookAhead is how many messages of such a command are looked at.
const lookAhead = 16

// openBody opens a body in a goroutine of its own.
func openBody(ctx context.Context, mbox *backend.Mailbox, uid imap.UID) chan bodyResult {
	result := make(chan bodyResult, 1)
	go func() {
		var r bodyResult
		defer func() {
			if v := recover(); v != nil {
				r.err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
			}
			result <- r
		}()
		r.body, r.err = mbox.Body(ctx, uid)
	}()
	return result
}

// take returns what was asked for a message, or nil. It is then the caller's.
func (a *readAhead) take(uid imap.UID) chan bodyResult {
	result := a.results[uid]
	delete(a.results, uid)
	return result
}

// drop gives up what was not taken, and waits for it.
func (a *readAhead) drop() {
	if a.cancel == nil {
		return
	}
	a.cancel()
	for _, result := range a.results {
		if r := <-result; r.body != nil {
			r.body.Close()
		}
	}
	*a = readAhead{}
}

// readAhead asks for texts that are not kept and that the next commands, which have come already, ask for: so many that
// there are no more than bodiesAhead with the busy ones of this command. It costs no request that would not follow anyway.
func (s *session) readAhead(busy int) {
	s.dec.Ahead(func(line []byte) bool {
		req := s.parseAhead(line)
		if req == nil {
			return false // what comes behind another command may mean other messages
		}
		if !req.needsBody() {
			return true
		}
		looked := 0
		s.view.messages(s.view.find(req.set), func(_ uint32, msg *backend.Message) bool {
			if looked++; looked > lookAhead || busy+len(s.ahead.results) >= bodiesAhead {
				return false
			}
			if !msg.HasBody && s.ahead.results[msg.UID] == nil {
				if s.ahead.results == nil {
					s.ahead.ctx, s.ahead.cancel = context.WithCancel(s.ctx)
					s.ahead.results = make(map[imap.UID]chan bodyResult)
				}
				s.ahead.results[msg.UID] = openBody(s.ahead.ctx, s.view.mbox, msg.UID)
			}
			return true
		})
		return busy+len(s.ahead.results) < bodiesAhead
	})
}

// commandWaits reports whether another command has come already.
func (s *session) commandWaits() (waits bool) {
	s.dec.Ahead(func([]byte) bool {
		waits = true
		return false
	})
	return waits
}

// parseAhead reads a command that is not its turn yet, without its end, and returns nil if it is no FETCH.
func (s *session) parseAhead(line []byte) *fetchRequest {
	d := wire.NewDecoder(bytes.NewReader(append(bytes.Clone(line), '\r', '\n')), limitsBeforeLogin, nil, func() error { return wire.ErrLost })
	_, name, err := d.ReadCommand()
	uid := name == "UID"
	if uid {
		d.Space()
		name = d.Word()
	}
	if err != nil || !strings.EqualFold(name, "FETCH") {
		return nil
	}
	req := parseFetch(d, uid)
	if d.End() != nil {
		return nil
	}
	return req
}
