package imapd

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	pumpChunk = 512                   // first size of the watcher's buffer; it grows while a client sends much
	pumpLimit = 64 << 10              // bytes read ahead of the session
	watchFrom = 20 * time.Millisecond // how long a session may read nothing before its connection is watched
)

// errStopping is what a session that waits for a command reads when the server
// is being shut down.
var errStopping = errors.New("server is shutting down")

// errInterrupted is what is read after interrupt.
var errInterrupted = errors.New("reading was ended")

// pump notices the end of a connection also while its session is busy with a command and reads nothing. It is a net.Conn and
// goes below TLS: there it need not know whether the bytes are plain or not, and STARTTLS leaves it in place.
//
// The session reads the connection itself: handing each command from one goroutine to another would take as long as
// answering many of them. Only when it has not read for a moment a watcher reads ahead of it, until it wants to read again.
type pump struct {
	net.Conn
	ended func(error) // called once, when nothing more will come

	mu       sync.Mutex
	pending  []byte // read by a watcher and not yet used: pending[off:]
	off      int
	err      error     // why no more will come
	reading  bool      // the session waits in Conn.Read
	watching bool      // a watcher does
	giveBack bool      // the session wants to read: the watcher is to end
	armed    time.Time // the deadline that Conn has for reading; zero: none, or the past
	shut     bool
	watchers sync.WaitGroup

	lastRead time.Time   // when the session has read last
	timer    *time.Timer // runs watch
	timed    bool        // timer is set

	ready chan struct{} // capacity 1: a watcher has read something, or has ended

	deadline atomic.Int64 // of Read, Unix nanoseconds; 0: none

	idle        atomic.Bool // the session waits for a command: it may be stopped
	stopping    atomic.Bool // by stop
	interrupted atomic.Bool // by interrupt
}

// newPump returns a pump that calls ended with the reason, io.EOF when the client closed its side, when nothing more will come.
func newPump(conn net.Conn, ended func(error)) *pump {
	p := &pump{Conn: conn, ended: ended, ready: make(chan struct{}, 1), lastRead: time.Now(), timed: true}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer = time.AfterFunc(watchFrom, p.watch)
	return p
}

// longAgo is a deadline that ends a Read under way.
var longAgo = time.Unix(1, 0)

// wakeLocked ends a Read of the connection under way, so that its goroutine looks what has changed.
func (p *pump) wakeLocked() {
	p.armed = time.Time{}
	p.Conn.SetReadDeadline(longAgo)
}

// armLocked gives the connection a deadline for reading that is not later than at, which is zero for none.
func (p *pump) armLocked(at, now time.Time) {
	if !p.armed.IsZero() && p.armed.After(now) && (at.IsZero() || !at.Before(p.armed)) {
		return // who wakes too early looks again
	}
	p.armed = at
	p.Conn.SetReadDeadline(at)
}

// endLocked notes that nothing more will come.
func (p *pump) endLocked(err error) {
	if p.err == nil {
		p.err = err
		p.ended(err)
	}
}

// watch reads ahead, if the session has not read for a moment, until it wants to read itself, until there is as much as may
// be read ahead, or until the connection ends.
func (p *pump) watch() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timed = false
	if p.reading || p.watching || p.shut || p.err != nil {
		return
	}
	if busy := time.Since(p.lastRead); busy < watchFrom {
		// Other commands have come since. Setting the timer for each would cost more than this look now and then.
		p.timed = true
		p.timer.Reset(watchFrom - busy)
		return
	}
	p.watchers.Add(1)
	defer p.watchers.Done()
	p.watching, p.giveBack = true, false
	p.armed = time.Time{}
	p.Conn.SetReadDeadline(time.Time{})
	chunk := make([]byte, pumpChunk)
	for p.err == nil && !p.giveBack && len(p.pending)-p.off < pumpLimit {
		p.mu.Unlock()
		n, err := p.Conn.Read(chunk)
		p.mu.Lock()
		p.pending = append(p.pending, chunk[:n]...)
		if err != nil && !(p.giveBack && errors.Is(err, os.ErrDeadlineExceeded)) {
			p.endLocked(err)
		}
		if n == len(chunk) && n < pumpLimit/2 {
			chunk = make([]byte, 2*n)
		}
	}
	p.watching = false
	signal(p.ready)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Read implements net.Conn. It is used by one goroutine at a time.
func (p *pump) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, err := p.readLocked(b)
	p.lastRead = time.Now()
	if !p.timed && !p.shut && err == nil {
		p.timed = true
		p.timer.Reset(watchFrom)
	}
	return n, err
}

func (p *pump) readLocked(b []byte) (int, error) {
	for {
		if n := p.takeLocked(b); n > 0 || len(b) == 0 {
			return n, nil
		}
		now := time.Now()
		var at time.Time
		if d := p.deadline.Load(); d != 0 {
			at = time.Unix(0, d)
		}
		switch {
		case p.err != nil:
			return 0, p.err
		case p.interrupted.Load():
			return 0, errInterrupted
		case p.stopping.Load() && p.idle.Load():
			return 0, errStopping
		case !at.IsZero() && !at.After(now):
			return 0, os.ErrDeadlineExceeded
		case p.watching:
			p.giveBack = true
			p.wakeLocked()
			p.mu.Unlock()
			<-p.ready
			p.mu.Lock()
			continue
		}
		p.armLocked(at, now)
		p.reading = true
		p.mu.Unlock()
		n, err := p.Conn.Read(b)
		p.mu.Lock()
		p.reading = false
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			p.endLocked(err)
		}
		if n > 0 {
			return n, nil
		}
	}
}

// takeLocked moves what has been read ahead to b.
func (p *pump) takeLocked(b []byte) int {
	n := copy(b, p.pending[p.off:])
	if p.off += n; p.off == len(p.pending) {
		p.pending, p.off = nil, 0
	}
	return n
}

// wake has a Read of the session look again why it should go on.
func (p *pump) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reading {
		p.wakeLocked()
	}
}

// interrupt ends reading for good, while writing goes on.
func (p *pump) interrupt() {
	p.interrupted.Store(true)
	p.wake()
}

// SetReadDeadline implements net.Conn. It counts from the next Read on.
func (p *pump) SetReadDeadline(t time.Time) error {
	if t.IsZero() {
		p.deadline.Store(0)
	} else {
		p.deadline.Store(t.UnixNano())
	}
	return nil
}

// SetDeadline implements net.Conn.
func (p *pump) SetDeadline(t time.Time) error {
	p.SetReadDeadline(t)
	return p.Conn.SetWriteDeadline(t)
}

// stop makes the session end as soon as it waits for a command.
func (p *pump) stop() {
	p.stopping.Store(true)
	p.wake()
}

// isStopping reports whether stop was called.
func (p *pump) isStopping() bool { return p.stopping.Load() }

// Close implements net.Conn.
func (p *pump) Close() error {
	p.mu.Lock()
	if p.shut {
		p.mu.Unlock()
		return nil
	}
	p.shut = true
	p.timer.Stop()
	p.mu.Unlock()
	return p.Conn.Close()
}

// wait waits, after Close, for whoever still reads ahead.
func (p *pump) wait() { p.watchers.Wait() }

// linger gives the client a moment to read the last words before the connection
// is closed: closing with unread input makes TCP throw them away.
func (p *pump) linger(d time.Duration) {
	c, ok := p.Conn.(interface{ CloseWrite() error })
	if !ok || c.CloseWrite() != nil {
		return
	}
	p.interrupted.Store(false)
	p.idle.Store(false)
	p.SetReadDeadline(time.Now().Add(d))
	unread := make([]byte, 4<<10)
	for budget := 1 << 20; budget > 0; {
		n, err := p.Read(unread)
		if err != nil {
			return
		}
		budget -= n
	}
}

// isEOF reports whether err is the orderly end of a connection.
func isEOF(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }
