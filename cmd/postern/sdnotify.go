package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"postern/backend/store"
)

// systemd tells the service manager how the server is doing, see sd_notify(3). Without a manager that
// wants to know its methods do nothing.
type systemd struct {
	log *slog.Logger
	on  bool
}

func newSystemd(log *slog.Logger) *systemd {
	return &systemd{log: log, on: os.Getenv("NOTIFY_SOCKET") != ""}
}

func (m *systemd) tell(states ...string) {
	if m == nil || !m.on {
		return
	}
	if _, err := daemon.SdNotify(false, strings.Join(states, "\n")); err != nil {
		m.log.Warn("systemd not told", "err", err)
	}
}

func (m *systemd) ready() { m.tell(daemon.SdNotifyReady) }
func (m *systemd) stopping() {
	m.tell(daemon.SdNotifyStopping, "STATUS=Stopping: clients and sends may finish")
}

// reloading is told before and ready after a reload.
func (m *systemd) reloading() {
	if m == nil || !m.on {
		return
	}
	m.tell(daemon.SdNotifyReloading, strings.TrimSpace(daemon.SdNotifyMonotonicUsec()))
}

// startSlice is how much more time to start is asked for again and again while the state is being opened: copying and
// converting a large one may take minutes.
const startSlice = 30 * time.Second

// starting asks for time until the returned function is called.
func (m *systemd) starting() (done func()) {
	if m == nil || !m.on {
		return func() {}
	}
	stop := make(chan struct{})
	ask := func() {
		m.tell("STATUS=Starting: opening the state folder", fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", startSlice.Microseconds()))
	}
	ask()
	go func() {
		tick := time.NewTicker(startSlice / 3)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				ask()
			}
		}
	}()
	return func() { close(stop) }
}

// statusEvery is how often systemctl status gets a new line.
const statusEvery = 10 * time.Second

// watch keeps the status line true and pets the watchdog while alive says so, until ctx ends. When it stops
// petting, systemd ends the process with SIGABRT, which writes down what every goroutine does, and starts it anew.
func (m *systemd) watch(ctx context.Context, alive func(context.Context) error, status func(context.Context) string) {
	if m == nil || !m.on {
		return
	}
	every := statusEvery
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		m.log.Warn("watchdog of systemd not understood", "err", err)
	}
	if limit > 0 {
		every = min(every, limit/3)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	last := time.Time{}
	for {
		if limit > 0 {
			actx, cancel := context.WithTimeout(ctx, every)
			err := alive(actx)
			cancel()
			switch {
			case err == nil:
				m.tell(daemon.SdNotifyWatchdog)
			case ctx.Err() == nil:
				m.log.Error("not answering; systemd will start the service anew if this goes on", "err", err, "limit", limit)
			}
		}
		if time.Since(last) >= statusEvery {
			last = time.Now()
			m.tell("STATUS=" + status(ctx))
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// statusLine says in one line how the server is doing.
func (s *server) statusLine(ctx context.Context) string {
	accounts := s.states()
	inStep, trouble := 0, ""
	var done, total int
	for _, a := range accounts {
		if f := a.Filling; f != nil {
			done, total = done+f.Done, total+f.Total
		}
		switch {
		case a.LastError != "":
			trouble = "; " + a.Address + ": " + a.LastError
		case a.Ready:
			inStep++
		}
	}
	line := fmt.Sprintf("%d of %s in step", inStep, plural(len(accounts), "mailbox", "mailboxes"))
	if total > 0 {
		line += fmt.Sprintf("; listing for the first time, %d%% of %d messages", 100*min(done, total)/total, total)
	}
	if counts, err := s.backend.QueueCounts(ctx); err == nil {
		waiting := 0
		for _, state := range waitingStates {
			waiting += counts[state]
		}
		line += fmt.Sprintf("; %s waiting", count(waiting, "message"))
		if n := counts[store.StateHeld]; n > 0 {
			line += fmt.Sprintf(", %d of them held", n)
		}
	}
	return clean(line + trouble)
}
