package main

import (
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/pires/go-proxyproto"
)

// proxyHeaderTime is how long a balancer has for its header. It sends it at once.
const proxyHeaderTime = 5 * time.Second

// maxProxyWaiting is how many connections may be waiting for their header at once.
const maxProxyWaiting = 256

// proxyListener learns from trusted balancers, by the PROXY protocol (versions 1 and 2), who their clients are. Others are
// clients themselves, whatever they send. Headers are read beside Accept: a silent balancer must not keep others waiting.
type proxyListener struct {
	net.Listener
	trusted []netip.Prefix
	log     *slog.Logger
	ready   chan accepted
	waiting chan struct{}
	closed  chan struct{}
	once    sync.Once
}

type accepted struct {
	conn net.Conn
	err  error
}

func newProxyListener(l net.Listener, trusted []netip.Prefix, log *slog.Logger) net.Listener {
	p := &proxyListener{Listener: l, trusted: trusted, log: log, ready: make(chan accepted),
		waiting: make(chan struct{}, maxProxyWaiting), closed: make(chan struct{})}
	go p.run()
	return p
}

// run accepts until the listener is closed.
func (p *proxyListener) run() {
	for {
		c, err := p.Listener.Accept()
		if err == nil && p.trusts(c.RemoteAddr()) {
			select {
			case p.waiting <- struct{}{}:
				go func() {
					defer func() { <-p.waiting }()
					p.readHeader(c)
				}()
			default:
				p.log.Warn("connection refused, too many wait for their PROXY header", "remote", c.RemoteAddr())
				c.Close()
			}
			continue
		}
		if !p.give(accepted{c, err}) {
			return
		}
	}
}

// readHeader hands c on once it is known whose it is. Without a header it is a balancer's check that it is alive, or a
// mistake that would make all clients look alike; both end here.
func (p *proxyListener) readHeader(c net.Conn) {
	pc := proxyproto.NewConn(c, proxyproto.WithPolicy(proxyproto.REQUIRE), proxyproto.SetReadHeaderTimeout(proxyHeaderTime))
	remote := pc.RemoteAddr() // reads it
	h := pc.ProxyHeader()
	if h == nil {
		p.log.Info("connection of a balancer without PROXY header", "remote", c.RemoteAddr())
		c.Close()
		return
	}
	if !p.give(accepted{conn: &proxiedConn{pc, remote, c}}) {
		c.Close()
	}
}

func (p *proxyListener) give(a accepted) bool {
	select {
	case p.ready <- a:
		return true
	case <-p.closed:
		if a.conn != nil {
			a.conn.Close()
		}
		return false
	}
}

func (p *proxyListener) trusts(addr net.Addr) bool {
	t, ok := addr.(*net.TCPAddr)
	return ok && slices.ContainsFunc(p.trusted, func(n netip.Prefix) bool { return n.Contains(t.AddrPort().Addr().Unmap().WithZone("")) })
}

// Accept returns the next connection whose client is known.
func (p *proxyListener) Accept() (net.Conn, error) {
	select {
	case a := <-p.ready:
		return a.conn, a.err
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// Close closes the listener below.
func (p *proxyListener) Close() error {
	p.once.Do(func() { close(p.closed) })
	return p.Listener.Close()
}

// proxiedConn is a connection by way of a balancer.
type proxiedConn struct {
	*proxyproto.Conn
	remote net.Addr
	raw    net.Conn
}

// RemoteAddr returns the client's address.
func (c *proxiedConn) RemoteAddr() net.Addr { return c.remote }

// CloseWrite ends our half, so that a last reply arrives.
func (c *proxiedConn) CloseWrite() error {
	if t, ok := c.raw.(*net.TCPConn); ok {
		return t.CloseWrite()
	}
	return c.raw.Close()
}
