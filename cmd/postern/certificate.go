package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"
)

// readCertificate reads the listeners' certificate. It is nil, without an error, where the configuration names none, or
// one that no listener needs cannot be read.
func readCertificate(conf *configFile) (*tls.Certificate, error) {
	if conf.TLS.Certificate == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(conf.beside(conf.TLS.Certificate), conf.beside(conf.TLS.Key))
	switch {
	case err != nil && conf.needsCertificate():
		return nil, fmt.Errorf("certificate: %w", err)
	case err != nil:
		return nil, nil
	}
	return &pair, nil
}

// certificateEnd returns when the listeners' certificate ends, the zero time without one.
func (s *server) certificateEnd() time.Time {
	pair := s.cert.Load()
	if pair == nil || pair.Leaf == nil {
		return time.Time{}
	}
	return pair.Leaf.NotAfter
}

// tlsConfig returns what a listener with TLS needs, nil for one without. Its certificate can be replaced while it is used.
func (s *server) tlsConfig(l listenerConfig) *tls.Config {
	if !l.usesTLS() {
		return nil
	}
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if cert := s.cert.Load(); cert != nil {
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
