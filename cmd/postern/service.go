package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
)

// serviceName is what the operating system knows the service by.
const serviceName = "postern"

// service is what an operating system's manager of services is told.
type service struct {
	program string // absolute
	config  string // absolute
	state   string // absolute; "" if the configuration cannot be read
	out     io.Writer
}

func serviceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "service",
		Short: "Install and control Postern as a service of this machine",
		Long: `Service makes a program that was copied to this machine a service: a unit of systemd on Linux, a daemon of launchd on macOS, a service
on Windows. It starts with the machine and is started anew when it fails. The deb and rpm packages do this by themselves.

All but status need the rights of an administrator.`,
		Args: wants(0, 0),
	}
	add := func(use, short, long string, run func(*service) error) {
		sub := &cobra.Command{
			Use: use, Short: short, Long: long, Args: wants(0, 0),
			RunE: func(cmd *cobra.Command, _ []string) error {
				s, err := newService(cmd)
				if err != nil {
					return err
				}
				return run(s)
			},
		}
		addConfigFlag(sub)
		cmd.AddCommand(sub)
	}
	add("install", "Make this program a service", `Install registers the program where it lies now; it does not start it. Run it again after moving the program or the configuration. Without --config that is
/etc/postern/postern.yaml on Linux, /usr/local/etc/postern/postern.yaml on macOS and %ProgramData%\Postern\postern.yaml on Windows.`, (*service).install)
	add("uninstall", "Stop the service and take it out", "Uninstall leaves configuration and state as they are.", (*service).uninstall)
	add("start", "Start the service", "", (*service).start)
	add("stop", "Stop the service, as serve does on SIGTERM", "", (*service).stop)
	add("status", "Say whether the service runs", "Status ends with 0 if the service runs and with 3 if not.", (*service).status)
	return cmd
}

// newService finds out what the service is made of.
func newService(cmd *cobra.Command) (*service, error) {
	s := &service{out: cmd.OutOrStdout()}
	program, err := os.Executable()
	if err == nil {
		program, err = filepath.EvalSymlinks(program)
	}
	if err != nil {
		return nil, fmt.Errorf("where is this program? %w", err)
	}
	s.program = program
	s.config, _ = cmd.Flags().GetString("config")
	if s.config == "" {
		s.config = defaultServiceConfig()
	}
	if s.config, err = filepath.Abs(s.config); err != nil {
		return nil, err
	}
	if c, _ := readConfig(s.config, os.LookupEnv); c != nil { // its faults are for config check to tell
		if s.state, err = filepath.Abs(c.folder()); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// checkConfig refuses to install a service that could not start.
func (s *service) checkConfig() error {
	if _, err := os.Stat(s.config); err != nil {
		return fmt.Errorf("%w: write the configuration first, with postern setup --config %s, or name another with --config", err, s.config)
	}
	return nil
}

// errNotRunning is the answer of status; its number is that of systemctl.
var errNotRunning = &exitError{status: 3}

// needRights explains a refusal.
func needRights(err error, how string) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w: %s", err, how)
	}
	return err
}
