package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"postern/backend"
	"postern/httpd"
	"postern/imapd"
	"postern/smtpd"
)

// stopTime is how long clients get to finish what they are doing when the server stops.
const stopTime = 10 * time.Second

func serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the server",
		Long: `Serve runs Postern until SIGTERM or SIGINT. When it is ready it prints one line for each listener.
On SIGHUP it reads the configuration again and takes over logins and the certificate; it says what else
has changed and needs a restart.`,
		Example: "  postern serve --config /etc/postern/postern.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := configPath(cmd, nil)
			if err != nil {
				return err
			}
			log, err := newLogger(cmd, slog.LevelInfo)
			if err != nil {
				return err
			}
			conf, err := readConfig(path, os.LookupEnv)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			context.AfterFunc(ctx, stop) // a second signal ends the program at once
			hup := make(chan os.Signal, 1)
			signal.Notify(hup, syscall.SIGHUP)
			defer signal.Stop(hup)
			watching, stopWatching := context.WithCancel(ctx)
			var watch sync.WaitGroup
			watch.Go(func() { watchReload(watching, conf.folder(), hup) })
			defer watch.Wait()
			defer stopWatching()
			return serve(ctx, conf, hup, cmd.OutOrStdout(), log)
		},
	}
	addConfigFlag(cmd)
	return cmd
}

// serve runs what conf describes until ctx ends.
func serve(ctx context.Context, conf *configFile, hup <-chan os.Signal, out io.Writer, log *slog.Logger) error {
	for _, w := range conf.describe(conf.warnings) {
		log.Warn(w)
	}
	cfg, err := conf.backend(log)
	if err != nil {
		return err
	}
	s := &server{log: log}
	if conf.TLS.Certificate != "" {
		s.cert = &certificate{certFile: conf.beside(conf.TLS.Certificate), keyFile: conf.beside(conf.TLS.Key)}
		if err := s.cert.load(); err != nil && conf.needsCertificate() {
			return err
		}
	}
	if err := s.open(cfg, conf.Listeners); err != nil {
		return err
	}
	ready := func() {
		for _, l := range s.fronts {
			fmt.Fprintf(out, "%s listening on %s, tls %s\n", l.conf.Protocol, l.listener.Addr(), l.conf.TLS)
		}
	}
	reload := func() { conf = reloadConfig(conf, s, log) }
	return s.run(ctx, ready, hup, reload)
}

// front is one listener with the server that answers there.
type front struct {
	conf     listenerConfig
	listener net.Listener
	server   interface {
		Serve(context.Context, net.Listener) error
		Shutdown(context.Context) error
	}
}

// server is a running Postern.
type server struct {
	log     *slog.Logger
	cert    *certificate // nil without one
	backend *backend.Backend
	fronts  []front
}

// open takes the ports and the state folder, without answering anybody yet. Close is run's business; on an error all is closed again.
func (s *server) open(cfg backend.Config, listeners []listenerConfig) (err error) {
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	// Ports first: the usual mistake is a second Postern, and it should show before the state folder's lock does.
	var errs []error
	for _, conf := range listeners {
		l, err := net.Listen("tcp", conf.Address)
		if err != nil {
			errs = append(errs, explainListenError(conf, err))
			continue
		}
		if len(conf.ProxyFrom) > 0 {
			l = newProxyListener(l, conf.ProxyFrom, s.log)
		}
		s.fronts = append(s.fronts, front{conf: conf, listener: l})
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if s.backend, err = backend.New(cfg); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	for i := range s.fronts {
		if err := s.prepare(&s.fronts[i], cfg); err != nil {
			return err
		}
	}
	return nil
}

// prepare makes the server that answers on f.
func (s *server) prepare(f *front, cfg backend.Config) (err error) {
	log := s.log.With("listener", f.listener.Addr().String())
	switch f.conf.Protocol {
	case "smtp":
		opts := smtpd.Options{Backend: s.backend, Hostname: hostname(), TLS: smtpd.TLSMode(f.conf.TLS), TLSConfig: s.tlsConfig(f.conf),
			AllowPlainAuth: f.conf.AllowPlaintext, MaxMessage: cfg.MaxMessage, Logger: log,
			Device: f.conf.Profile == "device", Networks: f.conf.Networks, RewriteFrom: f.conf.RewriteFrom, DropCopy: f.conf.SaveToSent == "false"}
		if len(f.conf.Networks) > 0 {
			if opts.Fixed, err = s.backend.FixedLogin(f.conf.fixedLogin()); err != nil {
				return err
			}
		}
		f.server, err = smtpd.New(opts)
	case "imap":
		f.server = imapd.New(imapd.Options{Backend: s.backend, TLSConfig: s.tlsConfig(f.conf), ImplicitTLS: f.conf.TLS == "implicit",
			AllowPlainAuth: f.conf.AllowPlaintext, Limits: imapd.Limits{Message: cfg.MaxMessage}, Logger: log})
	case "http":
		f.server = httpd.New(httpd.Options{Accounts: s.states, Warnings: s.warnings, Version: versionString(), Logger: log})
	default:
		err = fmt.Errorf("protocol %q is unknown", f.conf.Protocol)
	}
	return err
}

func (s *server) states() []backend.AccountState {
	var out []backend.AccountState
	for _, a := range s.backend.Accounts() {
		out = append(out, a.State())
	}
	return out
}

// warnings are what the status page says besides the mailboxes' states.
func (s *server) warnings() []string {
	var out []string
	for _, e := range s.backend.Expiries() {
		if w := e.Warning(time.Now()); w != "" {
			out = append(out, w)
		}
	}
	return out
}

// hostname is what the SMTP greeting says.
func hostname() string {
	if name, err := os.Hostname(); err == nil && name != "" {
		return name
	}
	return "localhost"
}

func explainListenError(conf listenerConfig, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s: %s is taken by another program, perhaps another Postern", conf.Protocol, conf.Address)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%s: this user may not listen on %s: use a port above 1023, or give the service CAP_NET_BIND_SERVICE", conf.Protocol, conf.Address)
	}
	return fmt.Errorf("%s: %w", conf.Protocol, err)
}

// run answers clients until ctx ends or something fails that cannot be mended, then closes everything.
func (s *server) run(ctx context.Context, ready func(), hup <-chan os.Signal, reload func()) error {
	defer s.close()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	// The backend outlives the front ends: what they are doing when told to stop still needs it.
	backendCtx, stopBackend := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBackend()
	backendDone := make(chan struct{})
	go func() {
		defer close(backendDone)
		if err := s.backend.Run(backendCtx); err != nil && backendCtx.Err() == nil {
			stop(fmt.Errorf("backend: %w", err))
		}
	}()
	var serving sync.WaitGroup
	for _, f := range s.fronts {
		serving.Go(func() {
			if err := f.server.Serve(ctx, f.listener); err != nil {
				stop(fmt.Errorf("%s on %s: %w", f.conf.Protocol, f.listener.Addr(), err))
			}
		})
	}
	ready()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-hup:
			reload()
		}
	}
	cause := context.Cause(ctx)
	s.log.Info("stopping")

	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	var stopping sync.WaitGroup
	for _, f := range s.fronts {
		stopping.Go(func() {
			if err := f.server.Shutdown(grace); err != nil {
				s.log.Warn("clients were cut off", "protocol", f.conf.Protocol, "err", err)
			}
		})
	}
	stopping.Wait()
	serving.Wait()
	stopBackend()
	<-backendDone
	s.log.Info("stopped")
	if errors.Is(cause, context.Canceled) {
		return nil // by a signal
	}
	return cause
}

// close frees the ports and the state folder. It is called once.
func (s *server) close() {
	for _, f := range s.fronts {
		f.listener.Close() // closed already after a run
	}
	if s.backend == nil {
		return
	}
	if err := s.backend.Close(); err != nil {
		s.log.Error("close", "err", err)
	}
}
