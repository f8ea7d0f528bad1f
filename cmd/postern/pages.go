package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"

	"postern/httpd"
)

// newPages makes the server of a listener with protocol http.
func (s *server) newPages(l listenerConfig, log *slog.Logger) *httpd.Server {
	opts := httpd.Options{Backend: s.backend, Version: versionString(), TLSConfig: s.tlsConfig(l), Listeners: s.listeners, Alive: s.alive, Check: s.check,
		Metrics: s.metrics, Settings: s.pageSettings(), Logger: log}
	if s.recent != nil {
		opts.Recent = s.recent.lines
	}
	if s.conf != nil {
		path := s.conf.path
		opts.Doctor = func(ctx context.Context, tell func(httpd.Check)) { pageDoctor(ctx, path, tell) }
		opts.RevokeConfigured = func(username string) error {
			where, err := revokeLogin(path, username)
			if err != nil {
				return fmt.Errorf("%s is not taken out of the configuration file: %w. Where the service may not write that file: postern login revoke", username, err)
			}
			log.Info("login revoked", "username", username, "in", where)
			return nil
		}
	}
	return httpd.New(opts)
}

// pageDoctor makes the checks of postern doctor, of the configuration as the file has it now.
func pageDoctor(ctx context.Context, path string, tell func(httpd.Check)) {
	r := &report{json: true} // prints nothing
	r.each = func(f finding) {
		tell(httpd.Check{Name: f.Check, Status: string(f.Status), Detail: f.Detail, Remedy: f.Remedy})
	}
	c, err := readConfig(path, os.LookupEnv)
	if c == nil {
		r.add(finding{"configuration", failed, err.Error(), "Put the file back."})
		return
	}
	diagnose(ctx, c, doctorOptions{}, r)
}

// listeners says what the server listens on, and how many clients are there.
func (s *server) listeners() []httpd.Listener {
	var out []httpd.Listener
	for _, f := range *s.shown.Load() {
		l := httpd.Listener{Protocol: f.conf.Protocol, Address: f.port.addr().String(), TLS: f.conf.TLS, Profile: f.conf.Profile}
		if c, ok := f.server.(interface{ Sessions() (open, loggedIn int) }); ok {
			l.Open, l.LoggedIn = c.Sessions()
		}
		out = append(out, l)
	}
	return out
}

// hosts are the names under which the pages may be asked for.
func (s *server) hosts() []string {
	var out []string
	if s.http.PublicName != "" {
		out = append(out, s.http.PublicName)
	}
	out = append(out, s.http.Hosts...)
	for _, f := range s.fronts {
		if host, _, err := net.SplitHostPort(f.conf.Address); err == nil && f.conf.Protocol == "http" && host != "" {
			out = append(out, host)
		}
	}
	return out
}

// pageSettings are those of all listeners with protocol http.
func (s *server) pageSettings() httpd.Settings {
	return httpd.Settings{Hosts: s.hosts(), PublicName: s.http.PublicName, MailServers: s.mailServers(),
		Metrics: httpd.MetricsAccess{Networks: s.http.Metrics.Networks, Token: s.http.Metrics.Token}}
}

// showFronts lets pages and metrics know of the fronts and settings that hold now.
func (s *server) showFronts() {
	fronts := slices.Clone(s.fronts)
	s.shown.Store(&fronts)
	settings := s.pageSettings()
	for _, f := range s.fronts {
		if p, ok := f.server.(*httpd.Server); ok {
			p.Set(settings)
		}
	}
}

// mailServers are the listeners that mail programs are told of: those they can reach under the public name. Ones for
// devices are not meant for them.
func (s *server) mailServers() []httpd.MailServer {
	here := loopbackHost(s.http.PublicName)
	var out []httpd.MailServer
	for _, f := range s.fronts {
		if f.conf.Protocol != "smtp" && f.conf.Protocol != "imap" || f.conf.Profile == "device" {
			continue
		}
		addr, err := netip.ParseAddrPort(f.port.addr().String())
		if err != nil || addr.Addr().IsLoopback() && !here && f.conf.PublicPort == 0 {
			continue
		}
		m := httpd.MailServer{Protocol: f.conf.Protocol, Port: int(addr.Port()), TLS: f.conf.TLS}
		if f.conf.PublicPort != 0 {
			m.Port = f.conf.PublicPort
		}
		if !slices.Contains(out, m) {
			out = append(out, m)
		}
	}
	return out
}
