package smtpd

import (
	"crypto/tls"
	"net"
	"time"

	"postern/backend"
)

// listener hands go-smtp our own connections and turns away those over the limits.
type listener struct {
	net.Listener
	server *Server
}

// Accept returns the next connection that is within the limits. TLS is not begun
// here: a silent client must not keep others from being accepted.
func (l *listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c := l.server.admit(raw); c != nil {
			return c, nil
		}
	}
}

// admit counts raw in and wraps it, or refuses it and returns nil.
func (s *Server) admit(raw net.Conn) *conn {
	remote := backend.PeerAddr(raw)

	s.mu.Lock()
	refusal := ""
	if s.stopping {
		refusal = lineStopping
	} else {
		switch s.peers.Enter(remote, backend.PeerLimits{All: s.limits.Connections, Each: s.limits.PerAddress}) {
		case backend.TooManyAll:
			refusal = "421 4.7.0 Too many connections, try again later\r\n"
		case backend.TooManyEach:
			refusal = "421 4.7.0 Too many connections from your address, try again later\r\n"
		}
	}
	if refusal != "" {
		s.mu.Unlock()
		s.log.Warn("smtp connection refused", "remote", remote, "reply", refusal[:len(refusal)-2])
		go func() {
			// A client that waits for a TLS handshake would only see noise.
			if s.opts.TLS != TLSImplicit {
				raw.SetWriteDeadline(time.Now().Add(time.Second))
				raw.Write([]byte(refusal))
			}
			raw.Close()
		}()
		return nil
	}
	c := newConn(s, raw, remote)
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	return c
}

// release takes a closed connection out of the counts.
func (s *Server) release(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.conns[c]; !ok {
		return
	}
	delete(s.conns, c)
	s.peers.Leave(c.remote)
}

// serverTLS is the configuration for one connection: nothing older than TLS 1.2 unless told otherwise.
func serverTLS(cfg *tls.Config) *tls.Config {
	if cfg.MinVersion != 0 {
		return cfg
	}
	cfg = cfg.Clone()
	cfg.MinVersion = tls.VersionTLS12
	return cfg
}
