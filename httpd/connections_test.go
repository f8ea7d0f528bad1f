package httpd

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"
)

// Beyond the limit connections are closed at once, and there is room again when others end.
func TestConnectionLimit(t *testing.T) {
	w := newWorld(t, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- w.s.Serve(t.Context(), l) }()
	t.Cleanup(func() { l.Close(); <-served })
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	answers := func(c net.Conn) bool {
		if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, "GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n") // it may be closed
		b, _ := io.ReadAll(c)                                                        // the same
		return len(b) > 0
	}
	var open []net.Conn
	for range maxConnections {
		open = append(open, dial())
	}
	w.within("a connection too many to be closed", func() bool { return !answers(dial()) })
	for _, c := range open[:10] {
		c.Close()
	}
	w.within("room for another", func() bool { return answers(dial()) })

	b := bounded(l).(*boundedListener)
	far := netip.MustParseAddr("192.0.2.1")
	for range maxConnectionsPerAddress {
		if !b.enter(far) {
			t.Fatal("too few from one address")
		}
	}
	if b.enter(far) {
		t.Error("too many from one address")
	}
	if !b.enter(netip.MustParseAddr("192.0.2.2")) {
		t.Error("another address has to suffer")
	}
	b.left(far)
	if !b.enter(far) {
		t.Error("no room after one has left")
	}
}
