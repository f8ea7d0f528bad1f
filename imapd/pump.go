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
	pumpChunk = 512      // first size of the read buffer; it grows while a client sends much
	pumpLimit = 64 << 10 // bytes read ahead of the session
)

// errStopping is what a session that waits for a command reads when the server
// is being shut down.
var errStopping = errors.New("server is shutting down")

// errInterrupted is what is read after interrupt.
var errInterrupted = errors.New("reading was ended")

// pump reads a connection ahead of its session, so that the end of the
// connection is noticed while the session is busy with a command and reads
// nothing. It is a net.Conn and goes below TLS: there it need not know whether
// the bytes are plain or not, and STARTTLS leaves it in place.
type pump struct {
	net.Conn

	mu      sync.Mutex
	pending []byte // read and not yet used: pending[off:]
	off     int
	err     error // why no more will come

	ready chan struct{} // capacity 1: pending or err changed
	space chan struct{} // capacity 1: pending was used

	deadline atomic.Int64 // of Read, Unix nanoseconds; 0: none

	idle     atomic.Bool   // the session waits for a command: it may be stopped
	stopping chan struct{} // closed by stop
	closed   chan struct{}
	done     chan struct{} // closed when run has returned
	once     sync.Once
	stopOnce sync.Once

	interrupted   chan struct{} // closed by interrupt
	interruptOnce sync.Once
}

func newPump(conn net.Conn) *pump {
	return &pump{
		Conn:     conn,
		ready:    make(chan struct{}, 1),
		space:    make(chan struct{}, 1),
		stopping: make(chan struct{}),
		closed:   make(chan struct{}),
		done:     make(chan struct{}),

		interrupted: make(chan struct{}),
	}
}

// run reads until the connection ends and then calls ended with the reason,
// io.EOF when the client closed its side.
func (p *pump) run(ended func(error)) {
	defer close(p.done)
	chunk := make([]byte, pumpChunk)
	for {
		n, err := p.Conn.Read(chunk)
		p.mu.Lock()
		p.pending = append(p.pending, chunk[:n]...)
		if err != nil {
			p.err = err
		}
		full := len(p.pending)-p.off >= pumpLimit
		p.mu.Unlock()
		signal(p.ready)
		if err != nil {
			ended(err)
			return
		}
		for full {
			select {
			case <-p.space:
			case <-p.closed:
				ended(net.ErrClosed)
				return
			}
			p.mu.Lock()
			full = len(p.pending)-p.off >= pumpLimit
			p.mu.Unlock()
		}
		if n == len(chunk) && n < pumpLimit/2 {
			chunk = make([]byte, 2*n)
		} else if n < len(chunk)/8 && len(chunk) > pumpChunk {
			chunk = make([]byte, pumpChunk)
		}
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Read implements net.Conn. It is used by one goroutine at a time.
func (p *pump) Read(b []byte) (int, error) {
	var timer *time.Timer
	for {
		p.mu.Lock()
		if n := copy(b, p.pending[p.off:]); n > 0 || len(b) == 0 {
			if p.off += n; p.off == len(p.pending) {
				p.off = 0
				if cap(p.pending) > pumpChunk {
					p.pending = nil
				}
				p.pending = p.pending[:0]
			}
			p.mu.Unlock()
			signal(p.space)
			return n, nil
		}
		err := p.err
		p.mu.Unlock()
		if err != nil {
			return 0, err
		}

		var expired <-chan time.Time
		if at := p.deadline.Load(); at != 0 {
			wait := time.Until(time.Unix(0, at))
			if wait <= 0 {
				return 0, os.ErrDeadlineExceeded
			}
			if timer == nil {
				timer = time.NewTimer(wait)
				defer timer.Stop()
			}
			expired = timer.C
		}
		stopping := p.stopping
		if !p.idle.Load() {
			stopping = nil
		}
		select {
		case <-p.ready:
		case <-expired:
			return 0, os.ErrDeadlineExceeded
		case <-stopping:
			return 0, errStopping
		case <-p.interrupted:
			return 0, errInterrupted
		case <-p.closed:
			return 0, net.ErrClosed
		}
	}
}

// interrupt ends reading for good, while writing goes on.
func (p *pump) interrupt() { p.interruptOnce.Do(func() { close(p.interrupted) }) }

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
func (p *pump) stop() { p.stopOnce.Do(func() { close(p.stopping) }) }

// isStopping reports whether stop was called.
func (p *pump) isStopping() bool {
	select {
	case <-p.stopping:
		return true
	default:
		return false
	}
}

// Close implements net.Conn.
func (p *pump) Close() error {
	err := error(nil)
	p.once.Do(func() {
		close(p.closed)
		err = p.Conn.Close()
	})
	return err
}

// linger gives the client a moment to read the last words before the connection
// is closed: closing with unread input makes TCP throw them away.
func (p *pump) linger(d time.Duration) {
	if c, ok := p.Conn.(interface{ CloseWrite() error }); ok && c.CloseWrite() == nil {
		timer := time.NewTimer(d)
		defer timer.Stop()
		for budget := 1 << 20; budget > 0; {
			p.mu.Lock()
			budget -= len(p.pending) - p.off
			p.pending, p.off = nil, 0
			err := p.err
			p.mu.Unlock()
			if err != nil {
				return
			}
			signal(p.space)
			select {
			case <-p.ready:
			case <-timer.C:
				return
			}
		}
	}
}

// isEOF reports whether err is the orderly end of a connection.
func isEOF(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }
