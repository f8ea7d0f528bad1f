package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
)

func defaultServiceConfig() string { return "/etc/postern/postern.yaml" }

const (
	ownUnit      = "/etc/systemd/system/postern.service"
	packagesUnit = "/usr/lib/systemd/system/postern.service"
	asRoot       = "run it as root, such as with sudo"
)

func (s *service) install() error {
	if err := s.checkConfig(); err != nil {
		return err
	}
	if _, err := os.Stat(packagesUnit); err == nil {
		return fmt.Errorf("%s is there already: a package has installed the service; systemctl start postern starts it", packagesUnit)
	}
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return errors.New("this machine does not run systemd: let its own manager of services run postern serve --config " + s.config)
	}
	for _, dir := range []string{"/home/", "/root/", "/tmp/", "/var/tmp/"} {
		if strings.HasPrefix(s.program, dir) {
			return fmt.Errorf("the service may not see %s: copy the program to /usr/local/bin and run it from there", s.program)
		}
	}
	if info, err := os.Stat(s.program); err != nil || info.Mode().Perm()&0o005 != 0o005 {
		return errors.Join(err, fmt.Errorf("the user %s could not run %s: chmod 755 it", serviceName, s.program))
	}
	if os.Geteuid() != 0 {
		return needRights(fmt.Errorf("install a service: %w", os.ErrPermission), asRoot)
	}
	if err := makeServiceUser(); err != nil {
		return err
	}
	if err := s.shareConfig(); err != nil {
		return err
	}
	if err := os.WriteFile(ownUnit, []byte(s.unit()), 0o644); err != nil {
		return err
	}
	if err := errors.Join(s.systemctl("daemon-reload"), s.systemctl("enable", "--quiet", serviceName)); err != nil {
		return err
	}
	fmt.Fprintf(s.out, "Installed: %s. It runs as the user %s.\n", ownUnit, serviceName)
	if s.state != "" && s.state != unitState {
		fmt.Fprintf(s.out, "The state folder %s must belong to that user: chown -R %s: %[1]s\n", s.state, serviceName)
	}
	_, err := fmt.Fprintln(s.out, "Start it with: postern service start")
	return err
}

// makeServiceUser makes the user the service runs as, as the packages do.
func makeServiceUser() error {
	if _, err := user.Lookup(serviceName); err == nil {
		return nil
	}
	cmd := exec.Command("useradd", "--system", "--user-group", "--home-dir", unitState, "--no-create-home", "--shell", "/usr/sbin/nologin", serviceName)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make the user %s: %w: %s", serviceName, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// shareConfig lets the service read the folder of its configuration, if that is the usual one; others are left alone.
func (s *service) shareConfig() error {
	dir := filepath.Dir(s.config)
	if dir != filepath.Dir(defaultServiceConfig()) {
		fmt.Fprintf(s.out, "The user %s must be able to read %s and the files it names, and nobody else should.\n", serviceName, s.config)
		return nil
	}
	group, err := user.LookupGroup(serviceName)
	if err != nil {
		return err
	}
	var gid int
	if _, err := fmt.Sscan(group.Gid, &gid); err != nil {
		return err
	}
	// New files get the group by the setgid bit. Those that are there are shared if they are root's alone.
	if err := errors.Join(os.Chown(dir, 0, gid), os.Chmod(dir, 0o750|os.ModeSetgid)); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
			continue
		}
		if err := errors.Join(os.Chown(name, 0, gid), os.Chmod(name, info.Mode().Perm()|0o040)); err != nil {
			return err
		}
	}
	return nil
}

func (s *service) uninstall() error {
	if _, err := os.Stat(ownUnit); err != nil {
		if _, err := os.Stat(packagesUnit); err == nil {
			return errors.New("the service belongs to a package: remove that")
		}
		return fmt.Errorf("there is no service: %w", err)
	}
	if err := s.systemctl("disable", "--quiet", "--now", serviceName); err != nil {
		return err
	}
	if err := needRights(os.Remove(ownUnit), asRoot); err != nil {
		return err
	}
	if err := s.systemctl("daemon-reload"); err != nil {
		return err
	}
	_, err := fmt.Fprintf(s.out, "Taken out. Configuration, state and the user %s stay.\n", serviceName)
	return err
}

func (s *service) start() error { return s.systemctl("start", serviceName) }
func (s *service) stop() error  { return s.systemctl("stop", serviceName) }

func (s *service) status() error {
	cmd := exec.Command("systemctl", "status", "--no-pager", "--lines=0", serviceName)
	cmd.Stdout, cmd.Stderr = s.out, os.Stderr
	err := cmd.Run()
	switch e, ok := errors.AsType[*exec.ExitError](err); {
	case ok && e.ExitCode() == errNotRunning.status:
		return errNotRunning
	case ok && e.ExitCode() == 4: // systemctl has said that there is no such unit
		return errors.New("there is no service: postern service install makes it")
	}
	return err
}

func (s *service) systemctl(args ...string) error {
	out, err := exec.Command("systemctl", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
