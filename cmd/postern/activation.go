package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
)

// inheritedPrefix begins an address that is no address: "systemd:NAME" stands for the sockets that systemd hands over
// under that name (FileDescriptorName= of the socket unit).
const inheritedPrefix = "systemd:"

// inherited returns the name behind inheritedPrefix.
func (l listenerConfig) inherited() (name string, ok bool) {
	return strings.CutPrefix(l.Address, inheritedPrefix)
}

// inheritedListeners takes over the sockets that systemd has opened for this process, by their names. It can do so once.
// See sd_listen_fds(3).
func inheritedListeners() (map[string][]net.Listener, error) {
	sockets, err := activation.ListenersWithNames()
	if err != nil {
		return nil, fmt.Errorf("take over systemd's sockets: %w", err)
	}
	return sockets, nil
}

// takeInherited returns the sockets a listener is to answer on, and takes them out of sockets. A name may stand for
// several, such as one for IPv4 and one for IPv6.
func takeInherited(conf listenerConfig, name string, sockets map[string][]net.Listener) ([]net.Listener, error) {
	list := sockets[name]
	delete(sockets, name)
	if len(list) == 0 {
		return nil, fmt.Errorf("%s: systemd has handed over no socket named %s (%s): start the socket unit, and set FileDescriptorName=%s there", conf.Protocol, name, there(sockets), name)
	}
	var errs []error
	for _, l := range list {
		errs = append(errs, checkInherited(conf, l.Addr()))
	}
	return list, errors.Join(errs...)
}

// there says which names systemd has given.
func there(sockets map[string][]net.Listener) string {
	if len(sockets) == 0 {
		if os.Getenv("NOTIFY_SOCKET") == "" {
			return "this process was not started by systemd, or without sockets"
		}
		return "there are no others"
	}
	var names []string
	for name := range sockets {
		names = append(names, name)
	}
	slices.Sort(names)
	return "there is " + strings.Join(names, ", ")
}

// checkInherited makes sure of what config check makes sure of when the file itself has the address.
func checkInherited(conf listenerConfig, addr net.Addr) error {
	tcp, ok := addr.(*net.TCPAddr)
	switch {
	case !ok:
		return fmt.Errorf("%s: systemd's socket %s is none of TCP: write ListenStream= with an address and a port", conf.Protocol, addr)
	case tcp.IP.IsLoopback():
		return nil
	case conf.Protocol == "http" && conf.TLS == "none" && !conf.AllowPlaintext:
		return fmt.Errorf("http: %s can be reached from other machines: write ListenStream= with 127.0.0.1 or [::1]", addr)
	case conf.TLS == "none" && !conf.AllowPlaintext:
		return fmt.Errorf("%s: on %s passwords and mail would cross the network in clear: write tls: starttls or implicit, ListenStream= with 127.0.0.1, or, if you mean it, allow_plaintext: true", conf.Protocol, addr)
	}
	return nil
}

// closeUnused closes the sockets that no listener has asked for: clients would hang in their queues.
func closeUnused(sockets map[string][]net.Listener, warn func(msg string, args ...any)) {
	for name, list := range sockets {
		for _, l := range list {
			warn("systemd has handed over a socket that no listener uses: write address: \"systemd:"+name+"\"", "socket", name, "address", l.Addr().String())
			l.Close()
		}
	}
}
