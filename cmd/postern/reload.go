package main

import (
	"log/slog"
	"os"
	"reflect"

	"postern/imapd"
)

// reloadConfig reads the configuration again and takes it over. It returns the configuration that holds from now on: the
// old one when the new one has faults.
func reloadConfig(old *configFile, s *server, log *slog.Logger) *configFile {
	next, err := readConfig(old.path, os.LookupEnv)
	if err != nil {
		lines := []string{err.Error()}
		if next != nil {
			lines = next.describe(next.errors)
		}
		for _, line := range lines {
			log.Error("configuration not taken over", "err", line)
		}
		return old
	}
	for _, w := range next.describe(next.warnings) {
		log.Warn(w)
	}
	if next.State != old.State {
		log.Warn("changed, but holds only after a restart", "key", "state")
		next.keepState(old)
	}
	cfg, err := next.backend(log)
	if err != nil {
		log.Error("configuration not taken over", "err", err)
		return old
	}
	ch, err := s.backend.Reconfigure(cfg)
	if err != nil {
		log.Error("configuration not taken over", "err", err)
		return old
	}
	s.imapLimits = next.imapLimits()
	for _, f := range s.fronts {
		if f, ok := f.server.(*imapd.Server); ok {
			f.SetLimits(s.imapLimits)
		}
	}
	if s.cert != nil {
		if err := s.cert.load(); err != nil {
			log.Error("certificate not taken over", "err", err)
		}
	}
	for _, key := range needRestart(old.config, next.config) {
		log.Warn("changed, but holds only after a restart", "key", key)
	}
	log.Info("configuration taken over", "logins", len(next.Logins), "added", ch.Added, "removed", ch.Removed, "sign_in", ch.SignIn)
	// What needs a restart is compared with what runs, so that it is said again next time.
	next.Listeners, next.TLS = old.Listeners, old.TLS
	return next
}

// needRestart names the top-level keys that differ and cannot be taken over.
func needRestart(old, next config) []string {
	var out []string
	a, b := reflect.ValueOf(old), reflect.ValueOf(next)
	for i := range a.NumField() {
		key := a.Type().Field(i).Tag.Get("yaml")
		if (key == "listeners" || key == "tls") && !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
			out = append(out, key)
		}
	}
	return out
}
