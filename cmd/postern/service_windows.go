package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/eventlog"
	"golang.org/x/sys/windows/svc/mgr"
)

func defaultServiceConfig() string {
	dir := os.Getenv("ProgramData")
	if dir == "" {
		dir = `C:\ProgramData`
	}
	return filepath.Join(dir, "Postern", "postern.yaml")
}

// asRoot says how to get the rights.
const asRoot = "run it in a window opened with Run as administrator"

// serviceAccount is the account that Windows makes for one service alone. It has no password and no rights but those given to it.
const serviceAccount = `NT SERVICE\` + serviceName

// withService calls fn with the service as its manager knows it.
func withService(fn func(*mgr.Service) error) error {
	m, err := mgr.Connect()
	if err != nil {
		return rights(err)
	}
	defer m.Disconnect()
	s, err := m.OpenService(serviceName)
	if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) {
		return errors.New("there is no service: postern service install makes it")
	}
	if err != nil {
		return rights(err)
	}
	defer s.Close()
	return rights(fn(s))
}

func rights(err error) error {
	if errors.Is(err, windows.ERROR_ACCESS_DENIED) {
		return fmt.Errorf("%w: %s", err, asRoot)
	}
	return err
}

func (s *service) install() error {
	if err := s.checkConfig(); err != nil {
		return err
	}
	m, err := mgr.Connect()
	if err != nil {
		return rights(err)
	}
	defer m.Disconnect()
	made, err := m.CreateService(serviceName, s.program, mgr.Config{
		DisplayName: "Postern", Description: "SMTP and IMAP in front of Microsoft 365", StartType: mgr.StartAutomatic, DelayedAutoStart: true,
		ServiceStartName: serviceAccount, SidType: windows.SERVICE_SID_TYPE_UNRESTRICTED,
	}, "serve", "--config", s.config)
	if errors.Is(err, windows.ERROR_SERVICE_EXISTS) {
		return errors.New("the service is there already: postern service uninstall takes it out")
	}
	if err != nil {
		return rights(fmt.Errorf("make the service: %w", err))
	}
	defer made.Close()
	again := mgr.RecoveryAction{Type: mgr.ServiceRestart, Delay: 5 * time.Second}
	later := mgr.RecoveryAction{Type: mgr.ServiceRestart, Delay: time.Minute}
	err = errors.Join(
		made.SetRecoveryActions([]mgr.RecoveryAction{again, again, later}, 24*60*60),
		made.SetRecoveryActionsOnNonCrashFailures(true),
		s.share(),
	)
	if e := eventlog.InstallAsEventCreate(serviceName, eventlog.Error|eventlog.Warning|eventlog.Info); e != nil && !strings.Contains(e.Error(), "exists") {
		err = errors.Join(err, e)
	}
	if err != nil {
		return rights(err)
	}
	_, err = fmt.Fprintf(s.out, "Installed as the service %s, with an account of its own (%s). Its log is in the Event Viewer, under Windows Logs > Application.\n"+
		"Start it with: postern service start\n", serviceName, serviceAccount)
	return err
}

// share gives the service's account what it needs: to read the configuration's folder, and to change the state.
func (s *service) share() error {
	grants := []struct{ dir, rights string }{{filepath.Dir(s.config), "(OI)(CI)RX"}}
	if s.state != "" {
		if err := os.MkdirAll(s.state, 0o700); err != nil {
			return err
		}
		grants = append(grants, struct{ dir, rights string }{s.state, "(OI)(CI)M"})
	}
	for _, g := range grants {
		if out, err := exec.Command("icacls", g.dir, "/grant", serviceAccount+":"+g.rights).CombinedOutput(); err != nil {
			return fmt.Errorf("give the service access to %s: %w: %s", g.dir, err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}

func (s *service) uninstall() error {
	err := withService(func(made *mgr.Service) error {
		if err := stopAndWait(made); err != nil {
			return err
		}
		return made.Delete()
	})
	if err != nil {
		return err
	}
	_ = eventlog.Remove(serviceName) // what is left tells nobody anything
	_, err = fmt.Fprintln(s.out, "Taken out. Configuration and state stay.")
	return err
}

func (s *service) start() error {
	return withService(func(made *mgr.Service) error {
		if err := made.Start(); err != nil && !errors.Is(err, windows.ERROR_SERVICE_ALREADY_RUNNING) {
			return err
		}
		// Until it runs, or says why not.
		return waitFor(made, svc.Running, 2*time.Minute)
	})
}

func (s *service) stop() error { return withService(stopAndWait) }

func stopAndWait(made *mgr.Service) error {
	if _, err := made.Control(svc.Stop); err != nil && !errors.Is(err, windows.ERROR_SERVICE_NOT_ACTIVE) {
		return err
	}
	return waitFor(made, svc.Stopped, 2*stopTime+30*time.Second)
}

func waitFor(made *mgr.Service, want svc.State, limit time.Duration) error {
	for begun := time.Now(); ; time.Sleep(200 * time.Millisecond) {
		st, err := made.Query()
		switch {
		case err != nil:
			return err
		case st.State == want:
			return nil
		case want == svc.Running && st.State == svc.Stopped:
			return errors.New("the service has ended at once: the Event Viewer says why, under Windows Logs > Application")
		case time.Since(begun) > limit:
			return fmt.Errorf("the service is not %s after %v", stateNames[want], limit)
		}
	}
}

var stateNames = map[svc.State]string{svc.Stopped: "stopped", svc.StartPending: "starting", svc.StopPending: "stopping", svc.Running: "running"}

func (s *service) status() error {
	return withService(func(made *mgr.Service) error {
		st, err := made.Query()
		if err != nil {
			return err
		}
		fmt.Fprintf(s.out, "%s, process %d\n", stateNames[st.State], st.ProcessId)
		if st.State != svc.Running {
			return errNotRunning
		}
		return nil
	})
}
