package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
)

// certificate is the listeners' certificate, which can be replaced while they run.
type certificate struct {
	certFile, keyFile string
	current           atomic.Pointer[tls.Certificate]
}

// load reads the files. On an error the certificate in use stays.
func (c *certificate) load() error {
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	c.current.Store(&pair)
	return nil
}

// tlsConfig returns what a listener with TLS needs, nil for one without.
func (s *server) tlsConfig(l listenerConfig) *tls.Config {
	if !l.usesTLS() || s.cert == nil {
		return nil
	}
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if cert := s.cert.current.Load(); cert != nil {
				return cert, nil
			}
			return nil, errors.New("no certificate is loaded")
		},
	}
	if v, ok := tlsVersions[l.TLSMin]; ok {
		cfg.MinVersion = v
	}
	if cfg.MinVersion < tls.VersionTLS12 {
		// What old devices speak: without ECDHE, some without AES. Go leaves these out unless they are named. The order is Go's.
		for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
			if !strings.Contains(s.Name, "RC4") {
				cfg.CipherSuites = append(cfg.CipherSuites, s.ID)
			}
		}
	}
	return cfg
}
