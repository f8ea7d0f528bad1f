package main

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"
)

// Trusted balancers say who their clients are; nobody else may, and a silent one keeps nobody waiting.
func TestProxyListener(t *testing.T) {
	for _, tt := range []struct {
		name    string
		trusted string
		send    string
		remote  string // "" if the connection is closed
		rest    string
	}{
		{"version 1", "127.0.0.0/8", "PROXY TCP4 198.51.100.7 192.0.2.1 5555 25\r\nrest\n", "198.51.100.7", "rest\n"},
		{"version 1, IPv6", "127.0.0.0/8", "PROXY TCP6 2001:db8::7 2001:db8::1 5555 25\r\nrest\n", "2001:db8::7", "rest\n"},
		{"version 2", "127.0.0.0/8", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc6\x33\x64\x08\xc0\x00\x02\x01\x15\xb3\x00\x19rest\n", "198.51.100.8", "rest\n"},
		{"without header", "127.0.0.0/8", "EHLO x\r\n", "", ""},
		{"header too long", "127.0.0.0/8", "PROXY TCP4 " + string(make([]byte, 500)) + "\r\n", "", ""},
		{"not trusted", "192.0.2.0/24", "PROXY TCP4 198.51.100.7 192.0.2.1 5555 25\r\n", "127.0.0.1", "PROXY TCP4 198.51.100.7 192.0.2.1 5555 25\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inner, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			l := newProxyListener(inner, []netip.Prefix{netip.MustParsePrefix(tt.trusted)}, slog.New(slog.DiscardHandler))
			defer l.Close()
			conns := make(chan net.Conn, 1)
			go func() {
				if c, err := l.Accept(); err == nil {
					conns <- c
				}
			}()
			if tt.trusted[0] == '1' && tt.trusted[1] == '2' {
				silent, err := net.Dial("tcp", inner.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer silent.Close()
			}
			client, err := net.Dial("tcp", inner.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			if _, err := io.WriteString(client, tt.send); err != nil {
				t.Fatal(err)
			}
			if err := client.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if tt.remote == "" {
				if n, err := client.Read(make([]byte, 1)); err == nil {
					t.Errorf("%d bytes read from a connection to be closed", n)
				}
				return
			}
			c := <-conns
			defer c.Close()
			host, _, err := net.SplitHostPort(c.RemoteAddr().String())
			if err != nil || host != tt.remote {
				t.Errorf("remote %s, %v", c.RemoteAddr(), err)
			}
			if got, err := bufio.NewReader(c).ReadString('\n'); err != nil || got != tt.rest {
				t.Errorf("read %q, %v", got, err)
			}
		})
	}
}

// Closing ends Accept, and connections whose clients are not yet known.
func TestProxyListenerCloses(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := newProxyListener(inner, nil, slog.New(slog.DiscardHandler))
	done := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		done <- err
	}()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil {
		t.Error("Accept gives a connection")
	}
}
