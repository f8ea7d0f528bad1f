package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
)

func defaultServiceConfig() string { return "/usr/local/etc/postern/postern.yaml" }

const (
	plistFile     = "/Library/LaunchDaemons/" + launchdLabel + ".plist"
	newsyslogFile = "/etc/newsyslog.d/postern.conf"
	asRoot        = "run it with sudo"
)

// newsyslogLine is for /etc/newsyslog.d, see newsyslog.conf(5): at 10 MB the log is packed, five are kept, and only root reads them. B: no line of
// newsyslog's own is put into it.
const newsyslogLine = launchdLog + "\troot:wheel\t600\t5\t10240\t*\tJB\n"

func (s *service) install() error {
	if err := s.checkConfig(); err != nil {
		return err
	}
	if err := os.WriteFile(plistFile, []byte(s.plist()), 0o644); err != nil {
		return needRights(err, asRoot)
	}
	if err := os.WriteFile(newsyslogFile, []byte(newsyslogLine), 0o644); err != nil {
		return needRights(err, asRoot)
	}
	_, err := fmt.Fprintf(s.out, "Installed: %s. Its log is %s.\nStart it with: postern service start\n", plistFile, launchdLog)
	return err
}

func (s *service) uninstall() error {
	if _, err := os.Stat(plistFile); err != nil {
		return fmt.Errorf("there is no service: %w", err)
	}
	if s.loaded() {
		if err := s.stop(); err != nil {
			return err
		}
	}
	for _, name := range []string{plistFile, newsyslogFile} {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return needRights(err, asRoot)
		}
	}
	_, err := fmt.Fprintln(s.out, "Taken out. Configuration, state and log stay.")
	return err
}

// loaded reports whether launchd knows the daemon now; it then runs, or is about to.
func (s *service) loaded() bool {
	return exec.Command("launchctl", "print", "system/"+launchdLabel).Run() == nil
}

func (s *service) start() error {
	if s.loaded() {
		return launchctl("kickstart", "system/"+launchdLabel)
	}
	return launchctl("bootstrap", "system", plistFile)
}

// stop takes the daemon out of launchd until it is started or the machine is: launchd would start anew what only ends.
func (s *service) stop() error { return launchctl("bootout", "system/"+launchdLabel) }

func (s *service) status() error {
	out, err := exec.Command("launchctl", "print", "system/"+launchdLabel).Output()
	if err != nil {
		fmt.Fprintln(s.out, "not running")
		return errNotRunning
	}
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "state = ") || strings.HasPrefix(line, "pid = ") || strings.HasPrefix(line, "last exit code = ") {
			fmt.Fprintln(s.out, line)
		}
	}
	if !strings.Contains(string(out), "state = running") {
		return errNotRunning
	}
	return nil
}

func launchctl(args ...string) error {
	out, err := exec.Command("launchctl", args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("launchctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
		if os.Geteuid() != 0 {
			err = fmt.Errorf("%w: %s", err, asRoot)
		}
	}
	return err
}
