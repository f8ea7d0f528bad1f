package httpd

import (
	"net"
	"sync"

	"postern/backend"
)

// Connections at once: all, and from one address elsewhere. Programs on this machine share one address, a proxy in front of us among them.
const (
	maxConnections           = 500
	maxConnectionsPerAddress = 100
)

// boundedListener closes connections beyond the limits at once: descriptors are shared with the mail listeners, which
// must not suffer from what is done to the pages.
type boundedListener struct {
	net.Listener
	peers backend.Peers
}

func bounded(l net.Listener) net.Listener { return &boundedListener{Listener: l} }

// Accept implements net.Listener.
func (l *boundedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		addr := backend.PeerAddr(c)
		limits := backend.PeerLimits{All: maxConnections, Each: maxConnectionsPerAddress}
		if addr.IsLoopback() {
			limits.Each = limits.All
		}
		if l.peers.Enter(addr, limits) != backend.Admitted {
			c.Close()
			continue
		}
		return &boundedConn{Conn: c, leave: sync.OnceFunc(func() { l.peers.Leave(addr) })}, nil
	}
}

// boundedConn counts until it is closed.
type boundedConn struct {
	net.Conn
	leave func()
}

// Close implements net.Conn.
func (c *boundedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
