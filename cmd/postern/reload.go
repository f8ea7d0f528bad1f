package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"syscall"

	"postern/backend"
	"postern/imapd"
)

// reloadConfig reads the configuration again and takes it over, all of it or nothing. It returns the configuration that
// holds from now on, and what to answer to whoever has asked.
func reloadConfig(old *configFile, s *server, log *slog.Logger) (*configFile, reloadAnswer) {
	var answer reloadAnswer
	refuse := func(faults ...string) (*configFile, reloadAnswer) {
		for _, f := range faults {
			log.Error("configuration not taken over, the old one holds", "err", f)
		}
		return old, reloadAnswer{Said: faults}
	}
	next, err := readConfig(old.path, os.LookupEnv)
	switch {
	case err != nil && next == nil:
		return refuse(err.Error())
	case err != nil:
		return refuse(next.describe(next.errors)...)
	}
	for _, w := range next.describe(next.warnings) {
		log.Warn(w)
		answer.Said = append(answer.Said, w)
	}
	if next.State != old.State {
		log.Warn("another state folder holds only after a restart", "key", "state", "in_use", old.State, "configured", next.State)
		answer.Said = append(answer.Said, fmt.Sprintf("state: %s holds only after a restart, until then it stays %s", next.State, old.State))
		next.keepState(old)
	}
	if err := s.takeOver(next); err != nil {
		return refuse(err.Error())
	}
	answer.Taken = true
	return next, answer
}

// takeOver makes what conf says hold. On an error all stays as it is.
func (s *server) takeOver(conf *configFile) error {
	cfg, err := conf.backend(s.log)
	if err != nil {
		return err
	}
	pair, err := readCertificate(conf)
	if err != nil {
		return err
	}
	c, err := s.planFronts(conf.Listeners, cfg)
	if err != nil {
		return err
	}
	changed, err := s.backend.Reconfigure(cfg)
	if err != nil {
		c.undo(s.log)
		return err
	}
	s.cert.Store(pair)
	s.imapLimits = conf.imapLimits()
	s.http = conf.HTTP
	s.changeFronts(c, cfg)
	s.showFronts()
	s.log.Info("configuration taken over", "mailboxes", len(cfg.Mailboxes), "added", changed.Added, "removed", changed.Removed,
		"sign_in_changed", changed.SignIn, "logins", len(cfg.Logins))
	return nil
}

// frontChange is what becomes of the listeners.
type frontChange struct {
	fronts   []*front // all there will be; those without a server are new or changed
	opened   []*port
	closed   []*front
	released []*port // of closed ones, in the way of those opened
}

// planFronts opens the ports that are not there yet.
func (s *server) planFronts(listeners []listenerConfig, cfg backend.Config) (*frontChange, error) {
	c := &frontChange{closed: slices.Clone(s.fronts)}
	take := func(conf listenerConfig, same func(a, b listenerConfig) bool) (taken []*front) {
		_, inherited := conf.inherited()
		c.closed = slices.DeleteFunc(c.closed, func(f *front) bool {
			// Port 0 may be there several times; systemd may have given several sockets for one name.
			if !same(f.conf, conf) || len(taken) > 0 && !inherited {
				return false
			}
			taken = append(taken, f)
			return true
		})
		return taken
	}
	found := make([][]*front, len(listeners))
	for i, conf := range listeners { // first those that stay as they are
		found[i] = take(conf, func(a, b listenerConfig) bool { return reflect.DeepEqual(a, b) })
	}
	var missing []int
	for i, conf := range listeners {
		if found[i] == nil {
			found[i] = take(conf, func(a, b listenerConfig) bool {
				return a.Address == b.Address && (a.Protocol == b.Protocol || !strings.HasSuffix(a.Address, ":0"))
			})
		}
		_, inherited := conf.inherited()
		switch {
		case found[i] == nil && inherited:
			return nil, fmt.Errorf("%s: systemd hands sockets over when the server starts: restart it for %s", conf.Protocol, conf.Address)
		case found[i] == nil:
			missing = append(missing, i)
			continue
		}
		for j, f := range found[i] {
			if reflect.DeepEqual(f.conf, conf) && (f.conf.Protocol != "smtp" || f.maxMessage == cfg.MaxMessage) {
				continue
			}
			if inherited {
				if err := checkInherited(conf, f.port.addr()); err != nil {
					return nil, err
				}
			}
			found[i][j] = &front{conf: conf, port: f.port}
		}
	}
	for _, i := range missing {
		conf := listeners[i]
		p, err := c.open(conf.Address)
		if err != nil {
			c.undo(s.log)
			return nil, explainListenError(conf, err)
		}
		c.opened = append(c.opened, p)
		found[i] = []*front{{conf: conf, port: p}}
	}
	c.fronts = slices.Concat(found...)
	return c, nil
}

// open opens a port. One that is about to be closed must not be in its way: 127.0.0.1:2525 has to go before 0.0.0.0:2525
// can come.
func (c *frontChange) open(address string) (*port, error) {
	p, err := listenPort(address)
	if !errors.Is(err, syscall.EADDRINUSE) {
		return p, err
	}
	_, number, _ := net.SplitHostPort(address)
	for _, f := range c.closed {
		if _, n, _ := net.SplitHostPort(f.port.addr().String()); n == number && !slices.Contains(c.released, f.port) {
			f.port.release()
			c.released = append(c.released, f.port)
		}
	}
	return listenPort(address)
}

// undo puts the ports back as they were.
func (c *frontChange) undo(log *slog.Logger) {
	for _, p := range c.opened {
		p.close()
	}
	for _, p := range c.released {
		if err := p.retake(); err != nil {
			log.Error("listener is closed: its port was given up for a configuration that was not taken over", "listener", p.addr().String(), "err", err)
		}
	}
}

// changeFronts lets the new fronts answer and the old ones answer nobody new. Who is connected stays so.
func (s *server) changeFronts(c *frontChange, cfg backend.Config) {
	before := make(map[*port]*front)
	for _, f := range s.fronts {
		before[f.port] = f
	}
	for i, f := range c.fronts {
		if f.server != nil {
			continue
		}
		old := before[f.port]
		if err := s.prepare(f, cfg); err != nil {
			// Not to be expected: the configuration has been checked.
			s.log.Error("listener not taken over", "listener", f.conf.Address, "err", err)
			if old != nil {
				c.fronts[i] = old
			}
			continue
		}
		if old != nil {
			s.retire(old)
			s.log.Info("listener changed, open connections go on as they are", "protocol", f.conf.Protocol, "listener", f.port.addr().String(), "tls", f.conf.TLS)
		} else {
			s.log.Info("listener opened", "protocol", f.conf.Protocol, "listener", f.port.addr().String(), "tls", f.conf.TLS)
		}
		s.start(f)
	}
	for _, f := range c.closed {
		s.retire(f)
		s.log.Info("listener closed, open connections go on", "protocol", f.conf.Protocol, "listener", f.port.addr().String())
		f.port.close()
	}
	s.fronts = slices.DeleteFunc(c.fronts, func(f *front) bool { return f.server == nil })
	for _, f := range s.fronts {
		if f, ok := f.server.(*imapd.Server); ok {
			f.SetLimits(s.imapLimits)
		}
	}
}

// retire ends a front's answering. Status pages have no sessions to keep.
func (s *server) retire(f *front) {
	f.stop()
	if f.conf.Protocol != "http" {
		s.retired = append(s.retired, f)
		return
	}
	s.serving.pagesRunning.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopPagesTime)
		defer cancel()
		_ = f.server.Shutdown(ctx) // a page that takes longer is cut off
	})
}
