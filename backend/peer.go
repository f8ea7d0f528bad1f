package backend

import (
	"net"
	"net/netip"
	"sync"
)

// PeerAddr returns the address of conn's client, an IPv4 address always in its short form and without a zone. It is the zero Addr where
// there is none, as with a pipe or a balancer's client that came over a Unix socket.
func PeerAddr(conn net.Conn) netip.Addr {
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// sourceOf returns what counts as one address: an IPv4 address, or the /64
// an IPv6 host can choose its addresses from. The zero Addr is a source of its own.
func sourceOf(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// PeerLimits says how many connections a front end takes at once: all together, and from one IPv4 address or IPv6 /64.
type PeerLimits struct {
	All, Each int
}

// Admission is what became of a connection that asked to come in.
type Admission int

// The ways a connection is answered.
const (
	Admitted    Admission = iota
	TooManyAll            // PeerLimits.All are there
	TooManyEach           // PeerLimits.Each are there from where it comes
)

// Peers counts the connections of a front end by where they come from. The zero value has none. It may be used by
// several goroutines at once.
type Peers struct {
	mu  sync.Mutex
	all int
	per map[netip.Prefix]int
}

// Enter counts a connection from addr in, if the limits leave room. Leave must follow once for each that was Admitted.
func (p *Peers) Enter(addr netip.Addr, limits PeerLimits) Admission {
	p.mu.Lock()
	defer p.mu.Unlock()
	src := sourceOf(addr)
	switch {
	case p.all >= limits.All:
		return TooManyAll
	case p.per[src] >= limits.Each:
		return TooManyEach
	}
	if p.per == nil {
		p.per = make(map[netip.Prefix]int)
	}
	p.all++
	p.per[src]++
	return Admitted
}

// Leave takes a connection from addr out of the count.
func (p *Peers) Leave(addr netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	src := sourceOf(addr)
	p.all--
	if p.per[src]--; p.per[src] <= 0 {
		delete(p.per, src)
	}
}
