package httpd

import (
	"io"
	"net"
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
}

// A host elsewhere gets no more than its part; others, and this machine, do not suffer from it.
func TestConnectionLimitByAddress(t *testing.T) {
	l := fakeListener(make(chan net.Conn))
	b := bounded(l)
	accepted := make(chan net.Conn)
	go func() {
		for {
			c, err := b.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- c
		}
	}()
	defer func() { close(l); <-accepted }()
	enter := func(from string) (net.Conn, bool) {
		theirs, ours := net.Pipe()
		t.Cleanup(func() { theirs.Close() })
		l <- &farConn{Conn: ours, from: &net.TCPAddr{IP: net.ParseIP(from), Port: 1}}
		closed := make(chan struct{})
		go func() {
			theirs.Read(make([]byte, 1)) // until it is closed
			close(closed)
		}()
		select {
		case c := <-accepted:
			return c, true
		case <-closed:
			return nil, false
		}
	}
	first, ok := enter("192.0.2.1")
	for range maxConnectionsPerAddress - 1 {
		if _, more := enter("192.0.2.1"); !ok || !more {
			t.Fatal("too few from one address")
		}
	}
	if _, ok := enter("192.0.2.1"); ok {
		t.Error("too many from one address")
	}
	if _, ok := enter("192.0.2.2"); !ok {
		t.Error("another address has to suffer")
	}
	first.Close()
	first.Close() // counts once
	if _, ok := enter("192.0.2.1"); !ok {
		t.Error("no room after one has left")
	}
	if _, ok := enter("192.0.2.1"); ok {
		t.Error("room for two after one has left")
	}
	for range maxConnectionsPerAddress + 1 {
		if _, ok := enter("127.0.0.1"); !ok {
			t.Fatal("this machine counts as one address")
		}
	}
}

// fakeListener accepts what is sent to it.
type fakeListener chan net.Conn

func (l fakeListener) Accept() (net.Conn, error) {
	if c, ok := <-l; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (l fakeListener) Close() error   { return nil }
func (l fakeListener) Addr() net.Addr { return &net.TCPAddr{} }

// farConn says that it comes from elsewhere.
type farConn struct {
	net.Conn
	from net.Addr
}

func (c *farConn) RemoteAddr() net.Addr { return c.from }
