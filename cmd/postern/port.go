package main

import (
	"errors"
	"net"
	"sync"
)

// port is a listening socket that outlives the servers answering on it: each has a lease, and when another takes over, a
// client that comes meanwhile waits for it instead of being refused.
type port struct {
	conns  chan accepted
	closed chan struct{}
	once   sync.Once

	mu        sync.Mutex
	socket    net.Listener
	accepting bool // from the first lease on
	running   sync.WaitGroup
}

func newPort(l net.Listener) *port {
	return &port{conns: make(chan accepted), closed: make(chan struct{}), socket: l}
}

// listenPort opens a socket.
func listenPort(address string) (*port, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	return newPort(l), nil
}

func (p *port) acceptLocked() {
	p.accepting = true
	l := p.socket
	p.running.Go(func() {
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			select {
			case p.conns <- accepted{c, err}: // an error too: the server knows which ones pass
			case <-p.closed:
				if c != nil {
					c.Close()
				}
				return
			}
		}
	})
}

// addr returns where the port is, also while it is released.
func (p *port) addr() net.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.socket.Addr()
}

// release closes the socket for a while, so that another one can be tried that clashes with it.
func (p *port) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.socket.Close()
}

// retake opens the socket again after release.
func (p *port) retake() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	l, err := net.Listen("tcp", p.socket.Addr().String())
	if err != nil {
		return err
	}
	if p.socket = l; p.accepting {
		p.acceptLocked()
	}
	return nil
}

// close closes the port for good, and what leases there are.
func (p *port) close() {
	p.once.Do(func() { close(p.closed) })
	p.release()
	p.running.Wait()
}

// lease returns a listener on the port. Closing it leaves the port open.
func (p *port) lease() net.Listener {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.accepting {
		p.acceptLocked()
	}
	return &lease{port: p, ended: make(chan struct{})}
}

type lease struct {
	port  *port
	ended chan struct{}
	once  sync.Once
}

func (l *lease) Accept() (net.Conn, error) {
	select {
	case <-l.ended: // before a connection that is there, too
		return nil, net.ErrClosed
	default:
	}
	select {
	case a := <-l.port.conns:
		return a.conn, a.err
	case <-l.ended:
	case <-l.port.closed:
	}
	return nil, net.ErrClosed
}

func (l *lease) Close() error {
	l.once.Do(func() { close(l.ended) })
	return nil
}

func (l *lease) Addr() net.Addr { return l.port.addr() }
