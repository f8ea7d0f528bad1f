package backend

import (
	"net"
	"net/netip"
	"testing"
)

// Whoever owns an IPv6 network has 2^64 addresses: counted one by one they would take all places. Other hosts do not suffer.
func TestPeersCountNetworks(t *testing.T) {
	var p Peers
	limits := PeerLimits{All: 5, Each: 2}
	for _, step := range []struct {
		addr  string // empty for the zero Addr
		leave bool
		want  Admission
	}{
		{addr: "2001:db8:1:1::1"}, {addr: "2001:db8:1:1:ffff::2"},
		{addr: "2001:db8:1:1:aaaa::3", want: TooManyEach},
		{addr: "2001:db8:1:2::1"}, // the neighbour
		{addr: "192.0.2.1"}, {addr: "::ffff:192.0.2.1"},
		{addr: "192.0.2.2", want: TooManyAll},
		{addr: "2001:db8:1:1::1", leave: true},
		{addr: "192.0.2.1", want: TooManyEach},
		{addr: "2001:db8:1:1:bbbb::4"},
		{addr: "", want: TooManyAll},
	} {
		addr, _ := netip.ParseAddr(step.addr) // the zero Addr of ""
		if step.leave {
			p.Leave(addr)
		} else if got := p.Enter(addr, limits); got != step.want {
			t.Errorf("%s: %d, want %d", step.addr, got, step.want)
		}
	}
	for _, s := range []string{"2001:db8:1:1::9", "2001:db8:1:1::9", "2001:db8:1:2::1", "192.0.2.1", "192.0.2.1"} {
		p.Leave(netip.MustParseAddr(s))
	}
	if p.all != 0 || len(p.per) != 0 {
		t.Errorf("%d are left, %v", p.all, p.per)
	}
}

type fakeConn struct {
	net.Conn
	remote net.Addr
}

func (c fakeConn) RemoteAddr() net.Addr { return c.remote }

func TestPeerAddr(t *testing.T) {
	for _, tt := range []struct {
		remote net.Addr
		want   netip.Addr
	}{
		{&net.TCPAddr{IP: net.ParseIP("::ffff:192.0.2.1"), Port: 7}, netip.MustParseAddr("192.0.2.1")},
		{&net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0"}, netip.MustParseAddr("fe80::1")},
		{&net.UnixAddr{Name: "@x", Net: "unix"}, netip.Addr{}},
	} {
		if got := PeerAddr(fakeConn{remote: tt.remote}); got != tt.want {
			t.Errorf("%v: %v, want %v", tt.remote, got, tt.want)
		}
	}
}
