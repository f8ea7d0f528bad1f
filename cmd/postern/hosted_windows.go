package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/eventlog"
)

// hosted runs the server, as a service if the manager of services has started this process.
func hosted(cmd *cobra.Command, fn func(ctx context.Context, log *slog.Logger, ready func()) error) error {
	isService, err := svc.IsWindowsService()
	if err != nil {
		return err
	}
	if !isService {
		return unhosted(cmd, fn)
	}
	events, err := eventlog.Open(serviceName)
	if err != nil {
		return err
	}
	defer events.Close()
	h := &hostedServer{ctx: cmd.Context(), log: slog.New(newEventHandler(events)), fn: fn}
	if err := svc.Run(serviceName, h); err != nil {
		return err
	}
	return h.err
}

// hostedServer answers the manager of services.
type hostedServer struct {
	ctx context.Context
	log *slog.Logger
	fn  func(context.Context, *slog.Logger, func()) error
	err error // of fn
}

// stopTick is how often the manager is told that stopping goes on.
const stopTick = 2 * time.Second

// Execute implements svc.Handler.
func (h *hostedServer) Execute(_ []string, requests <-chan svc.ChangeRequest, status chan<- svc.Status) (bool, uint32) {
	// Converting a large state may take a while.
	status <- svc.Status{State: svc.StartPending, WaitHint: uint32((2 * time.Minute).Milliseconds())}
	ctx, stop := context.WithCancel(h.ctx)
	defer stop()
	ready, done := make(chan struct{}), make(chan error, 1)
	var once sync.Once
	go func() { done <- h.fn(ctx, h.log, func() { once.Do(func() { close(ready) }) }) }()
	now := svc.Status{State: svc.StartPending, Accepts: 0}
	var tick <-chan time.Time
	for {
		select {
		case <-ready:
			ready = nil
			if now.State == svc.StartPending {
				now = svc.Status{State: svc.Running, Accepts: svc.AcceptStop | svc.AcceptShutdown}
				status <- now
			}
		case r := <-requests:
			switch r.Cmd {
			case svc.Interrogate:
				status <- now
			case svc.Stop, svc.Shutdown:
				stop()
				now = svc.Status{State: svc.StopPending, WaitHint: uint32((3 * stopTick).Milliseconds())}
				status <- now
				ticker := time.NewTicker(stopTick)
				defer ticker.Stop()
				tick = ticker.C
			}
		case <-tick:
			now.CheckPoint++
			status <- now
		case h.err = <-done:
			status <- svc.Status{State: svc.StopPending}
			if h.err != nil {
				h.log.Error("ended", "err", h.err)
				return true, 1 // the manager counts it as a failure and starts the service anew
			}
			return false, 0
		}
	}
}

// eventHandler writes log lines into the Event Log.
type eventHandler struct {
	events *eventlog.Log
	mu     *sync.Mutex
	line   *bytes.Buffer
	text   slog.Handler // writes to line
}

func newEventHandler(events *eventlog.Log) *eventHandler {
	var line bytes.Buffer
	return &eventHandler{events: events, mu: new(sync.Mutex), line: &line, text: newTextHandler(&line, slog.LevelInfo)}
}

// Enabled implements slog.Handler.
func (h *eventHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.text.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h *eventHandler) Handle(ctx context.Context, r slog.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.line.Reset()
	if err := h.text.Handle(ctx, r); err != nil {
		return fmt.Errorf("event log: %w", err)
	}
	const id = 1 // there is one kind of event
	switch text := h.line.String(); {
	case r.Level >= slog.LevelError:
		return h.events.Error(id, text)
	case r.Level >= slog.LevelWarn:
		return h.events.Warning(id, text)
	default:
		return h.events.Info(id, text)
	}
}

// WithAttrs implements slog.Handler.
func (h *eventHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.text = h.text.WithAttrs(attrs)
	return &next
}

// WithGroup implements slog.Handler.
func (h *eventHandler) WithGroup(name string) slog.Handler {
	next := *h
	next.text = h.text.WithGroup(name)
	return &next
}
