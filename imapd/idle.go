package imapd

import (
	"strings"
	"time"

	"postern/imapd/wire"
)

const (
	maxDone = 1024                       // bytes of the line that ends IDLE
	endless = 100 * 365 * 24 * time.Hour // how long IDLE may last
)

// idle is IDLE. RFC 2177. While the client is silent, one goroutine reads its
// line and this one tells what happens in the mailbox; neither touches what the
// other uses. The client may stay as long as it takes signs of life.
func (s *session) idle(*command) error {
	if err := s.dec.End(); err != nil {
		return err
	}
	s.enc.Raw("+ idling").CRLF()
	// What came between the last command and this one is told at once.
	if s.view != nil {
		if err := s.tellChanges(true); err != nil {
			return err
		}
	}
	if err := s.enc.Flush(); err != nil {
		return err
	}
	s.enc.Release()
	s.dec.Release()

	type input struct {
		line string
		err  error
	}
	lines := make(chan input, 1)
	s.readTimeout = endless
	s.pump.idle.Store(true)
	s.idling = true
	go func() {
		line, err := s.dec.ReadLine(maxDone)
		lines <- input{line, err}
	}()
	var notify <-chan struct{}
	if s.view != nil {
		notify = s.view.mbox.Notify()
	}
	alive := time.NewTicker(s.limits.KeepAlive)
	defer alive.Stop()

	var failed error // of writing or of the mailbox; the reader must still end
	for {
		select {
		case in := <-lines:
			s.idling = false
			s.pump.idle.Store(false)
			s.readTimeout = s.limits.Transfer
			switch {
			case failed != nil:
				return failed
			case wire.Recoverable(in.err):
				return bad("Expected DONE")
			case in.err != nil:
				return in.err
			case !strings.EqualFold(strings.Trim(in.line, " \t"), "DONE"):
				return bad("Expected DONE")
			}
			return nil
		case <-notify:
			failed = s.tellChanges(true)
		case <-alive.C:
			s.enc.Raw("* OK Still here").CRLF()
		}
		if failed == nil {
			failed = s.enc.Flush()
		}
		if failed != nil {
			s.pump.interrupt()
			notify = nil
			alive.Stop()
		}
	}
}
