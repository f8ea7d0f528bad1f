package httpd

import (
	"net"
	"net/netip"
	"sync"
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
	mu  sync.Mutex
	all int
	per map[netip.Addr]int
}

func bounded(l net.Listener) net.Listener {
	return &boundedListener{Listener: l, per: make(map[netip.Addr]int)}
}

// Accept implements net.Listener.
func (l *boundedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		addr := addressOf(c)
		if !l.enter(addr) {
			c.Close()
			continue
		}
		return &boundedConn{Conn: c, leave: sync.OnceFunc(func() { l.left(addr) })}, nil
	}
}

func addressOf(c net.Conn) netip.Addr {
	a, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr().Unmap().WithZone("")
}

func (l *boundedListener) enter(addr netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= maxConnections || l.per[addr] >= maxConnectionsPerAddress && !addr.IsLoopback() {
		return false
	}
	l.all++
	l.per[addr]++
	return true
}

func (l *boundedListener) left(addr netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.per[addr]--; l.per[addr] <= 0 {
		delete(l.per, addr)
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
