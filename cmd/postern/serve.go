package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
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

// stopPagesTime is the same for status pages, which go last.
const stopPagesTime = 2 * time.Second

func serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the server",
		Long: `Serve runs Postern until SIGTERM or SIGINT. When it is ready it prints one line for each listener.
On SIGHUP it reads the configuration again and takes over all but another state folder. Sessions go on, but for those
whose login has lost a right; a configuration with faults changes nothing.

Under systemd it says when it is ready, reloading or stopping, keeps the line of systemctl status true, and answers the
watchdog as long as it really works. A listener with address: "systemd:NAME" takes the socket of that name.`,
		Example: "  postern serve --config /etc/postern/postern.yaml",
		Args:    wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := configPath(cmd, nil)
			if err != nil {
				return err
			}
			return hosted(cmd, func(ctx context.Context, log *slog.Logger, ready func()) error {
				conf, err := readConfig(path, os.LookupEnv)
				if err != nil {
					return err
				}
				hup := make(chan os.Signal, 1)
				signal.Notify(hup, syscall.SIGHUP)
				defer signal.Stop(hup)
				watching, stopWatching := context.WithCancel(ctx)
				var watch sync.WaitGroup
				var holds atomic.Pointer[configFile]
				holds.Store(conf)
				watch.Go(func() { watchReload(watching, holds.Load, hup) })
				defer watch.Wait()
				defer stopWatching()
				return serve(ctx, &holds, hup, cmd.OutOrStdout(), log, ready)
			})
		},
	}
	addConfigFlag(cmd)
	return cmd
}

// unhosted runs fn as an ordinary program: it ends on SIGTERM and SIGINT, and logs where the flags say.
func unhosted(cmd *cobra.Command, fn func(ctx context.Context, log *slog.Logger, ready func()) error) error {
	log, err := newLogger(cmd, slog.LevelInfo)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	return fn(ctx, log, func() {})
}

// serve runs what the configuration in holds describes until ctx ends. Others are put there when they are taken over. It calls isReady
// when clients are answered.
func serve(ctx context.Context, holds *atomic.Pointer[configFile], hup <-chan os.Signal, out io.Writer, log *slog.Logger, isReady func()) error {
	conf := holds.Load()
	if err := refuseCoreDumps(); err != nil {
		log.Warn("core dumps are not switched off", "err", err)
	}
	for _, w := range conf.describe(conf.warnings) {
		log.Warn(w)
	}
	recent := newRecentLog(log.Handler())
	log = slog.New(recent)
	cfg, err := conf.backend(log)
	if err != nil {
		return err
	}
	s := &server{log: log, conf: conf, http: conf.HTTP, recent: recent, systemd: newSystemd(log), imapLimits: conf.imapLimits()}
	pair, err := readCertificate(conf)
	if err != nil {
		return err
	}
	s.cert.Store(pair)
	opened := s.systemd.starting()
	err = s.open(cfg, conf.Listeners)
	opened()
	if err != nil {
		return err
	}
	ready := func() {
		if err := noteInUse(conf); err != nil {
			log.Warn("postern doctor will not know which configuration holds", "err", err)
		}
		for _, l := range s.fronts {
			fmt.Fprintf(out, "%s listening on %s, tls %s\n", l.conf.Protocol, l.port.addr(), l.conf.TLS)
		}
		isReady()
	}
	reload := func(request os.Signal) {
		s.systemd.reloading()
		defer s.systemd.ready()
		next, answer := reloadConfig(holds.Load(), s, log)
		holds.Store(next)
		if answer.Taken {
			if err := noteInUse(next); err != nil {
				log.Warn("postern doctor will not know which configuration holds", "err", err)
			}
		}
		if r, ok := request.(reloadRequest); ok && r.nonce != "" {
			answer.Nonce = r.nonce
			if err := answerReload(next.folder(), answer); err != nil {
				log.Warn("a command that waits is not answered", "err", err)
			}
		}
	}
	return s.run(ctx, ready, hup, reload)
}

// front is one listener with the server that answers there.
type front struct {
	conf       listenerConfig
	maxMessage int64
	port       *port
	server     interface {
		Serve(context.Context, net.Listener) error
		Shutdown(context.Context) error
	}
	stop context.CancelFunc // ends Serve; sessions go on
}

// server is a running Postern.
type server struct {
	log     *slog.Logger
	cert    atomic.Pointer[tls.Certificate] // of all listeners; nil without one
	backend *backend.Backend
	fronts  []*front
	retired []*front      // that answer nobody new, but may still have sessions
	systemd *systemd      // may be nil
	pings   chan struct{} // of alive; not buffered
	ending  atomic.Bool
	serving serving

	imapLimits imapd.Limits

	conf    *configFile              // as it was read at the start; nil in the demo
	http    httpConfig               // that holds
	shown   atomic.Pointer[[]*front] // fronts as the pages and metrics see them
	recent  *recentLog               // may be nil
	metrics *httpd.Metrics
}

// serving is what run shares with reloads.
type serving struct {
	fail                 context.CancelCauseFunc // ends run
	ctx, pages           context.Context         // of fronts, and of status pages, which answer to the last
	fronts, pagesRunning sync.WaitGroup
}

// open takes the ports and the state folder, without answering anybody yet. Close is run's business; on an error all is closed again.
func (s *server) open(cfg backend.Config, listeners []listenerConfig) (err error) {
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	// Ports first: the usual mistake is a second Postern, and it should show before the state folder's lock does.
	if err := s.listen(listeners); err != nil {
		return err
	}
	s.pings = make(chan struct{})
	s.metrics = httpd.NewMetrics(versionString())
	cfg.Observer = s.metrics.Observer()
	defer s.answerStarting()()
	if s.backend, err = backend.New(cfg); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	s.metrics.Watch(s.backend, s.listeners, s.certificateEnd)
	for _, f := range s.fronts {
		if err := s.prepare(f, cfg); err != nil {
			return err
		}
	}
	s.showFronts()
	return nil
}

// listen opens the ports, or takes them from systemd.
func (s *server) listen(listeners []listenerConfig) error {
	sockets, err := inheritedListeners()
	if err != nil {
		return err
	}
	defer closeUnused(sockets, s.log.Warn)
	var errs []error
	for _, conf := range listeners {
		var list []net.Listener
		if name, ok := conf.inherited(); ok {
			list, err = takeInherited(conf, name, sockets)
		} else {
			var l net.Listener
			if l, err = net.Listen("tcp", conf.Address); err == nil {
				list = append(list, l)
			} else {
				err = explainListenError(conf, err)
			}
		}
		errs = append(errs, err)
		for _, l := range list {
			s.fronts = append(s.fronts, &front{conf: conf, port: newPort(l)})
		}
	}
	return errors.Join(errs...)
}

// answerStarting lets the status listeners say that the server is starting, until the returned function is called: opening a
// large state after an update may take minutes, and who watches shall not take that for a hang.
func (s *server) answerStarting() (done func()) {
	var servers []*http.Server
	var serving sync.WaitGroup
	for _, f := range s.fronts {
		tcp, ok := f.port.socket.(*net.TCPListener)
		if f.conf.Protocol != "http" || f.conf.TLS != "none" || !ok {
			continue
		}
		file, err := tcp.File()
		if err != nil {
			continue // Windows cannot, and does without
		}
		l, err := net.FileListener(file)
		file.Close()
		if err != nil {
			continue
		}
		srv := &http.Server{Handler: httpd.Starting(s.hosts()), ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second}
		servers = append(servers, srv)
		serving.Go(func() { _ = srv.Serve(l) }) // ends with ErrServerClosed
	}
	return func() {
		for _, srv := range servers {
			srv.Close()
		}
		serving.Wait()
	}
}

// prepare makes the server that answers on f.
func (s *server) prepare(f *front, cfg backend.Config) (err error) {
	f.maxMessage = cfg.MaxMessage
	log := s.log.With("listener", f.port.addr().String())
	switch f.conf.Protocol {
	case "smtp":
		opts := smtpd.Options{Backend: s.backend, Hostname: hostname(), TLS: smtpd.TLSMode(f.conf.TLS), TLSConfig: s.tlsConfig(f.conf),
			AllowPlainAuth: f.conf.AllowPlaintext, MaxMessage: cfg.MaxMessage, Logger: log,
			Device: f.conf.Profile == "device", Networks: f.conf.Networks, RewriteFrom: f.conf.RewriteFrom, DropCopy: f.conf.SaveToSent.off(), Observe: s.metrics.Command("smtp")}
		if len(f.conf.Networks) > 0 {
			if opts.Fixed, err = s.backend.FixedLogin(f.conf.fixedLogin()); err != nil {
				return err
			}
		}
		f.server, err = smtpd.New(opts)
	case "imap":
		f.server = imapd.New(imapd.Options{Backend: s.backend, TLSConfig: s.tlsConfig(f.conf), ImplicitTLS: f.conf.TLS == "implicit",
			AllowPlainAuth: f.conf.AllowPlaintext, Limits: s.imapLimits, Logger: log, Observe: s.metrics.Command("imap")})
	case "http":
		f.server = s.newPages(f.conf, log)
	default:
		err = fmt.Errorf("protocol %q is unknown", f.conf.Protocol)
	}
	return err
}

// start lets a front answer.
func (s *server) start(f *front) {
	l := f.port.lease()
	if len(f.conf.ProxyFrom) > 0 {
		l = newProxyListener(l, f.conf.ProxyFrom, s.log)
	}
	ctx, running := s.serving.ctx, &s.serving.fronts
	if f.conf.Protocol == "http" {
		ctx, running = s.serving.pages, &s.serving.pagesRunning
	}
	ctx, f.stop = context.WithCancel(ctx)
	running.Go(func() {
		if err := f.server.Serve(ctx, l); err != nil {
			s.serving.fail(fmt.Errorf("%s on %s: %w", f.conf.Protocol, f.port.addr(), err))
		}
	})
}

func (s *server) states() []backend.AccountState {
	var out []backend.AccountState
	for _, a := range s.backend.Accounts() {
		out = append(out, a.State())
	}
	return out
}

// errStopping is why a server that is about to end is not ready.
var errStopping = errors.New("stopping")

// check says why nobody should be sent here, if so. It answers soon.
func (s *server) check(ctx context.Context) error {
	if s.ending.Load() {
		return errStopping
	}
	return s.backend.Check(ctx)
}

// alive reports whether the loops that must go round do so. While the server stops it is taken to be alive: it will end.
func (s *server) alive(ctx context.Context) error {
	if s.ending.Load() {
		return nil
	}
	select {
	case s.pings <- struct{}{}:
	case <-ctx.Done():
		if s.ending.Load() {
			return nil
		}
		return fmt.Errorf("server: %w", context.Cause(ctx))
	}
	if err := s.backend.Alive(ctx); err != nil && !s.ending.Load() {
		return err
	}
	return nil
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
func (s *server) run(ctx context.Context, ready func(), hup <-chan os.Signal, reload func(os.Signal)) error {
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
	// Status pages answer to the last, so that who watches sees the server stop.
	pages, stopPages := context.WithCancel(context.WithoutCancel(ctx))
	defer stopPages()
	s.serving.ctx, s.serving.pages, s.serving.fail = ctx, pages, stop
	for _, f := range s.fronts {
		s.start(f)
	}
	ready()
	s.systemd.ready()
	var watching sync.WaitGroup
	watching.Go(func() { s.systemd.watch(pages, s.alive, s.statusLine) })
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-s.pings:
		case request := <-hup:
			reload(request)
		}
	}
	cause := context.Cause(ctx)
	s.ending.Store(true)
	s.log.Info("stopping")
	s.systemd.stopping()

	s.shutdown(func(f *front) bool { return f.conf.Protocol != "http" }, stopTime)
	s.serving.fronts.Wait()
	stopBackend()
	<-backendDone
	s.shutdown(func(f *front) bool { return f.conf.Protocol == "http" }, stopPagesTime)
	stopPages()
	s.serving.pagesRunning.Wait()
	watching.Wait()
	s.log.Info("stopped")
	if errors.Is(cause, context.Canceled) {
		return nil // by a signal
	}
	return cause
}

// shutdown ends those fronts that which names; their clients may finish within grace.
func (s *server) shutdown(which func(*front) bool, grace time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	var stopping sync.WaitGroup
	for _, f := range slices.Concat(s.fronts, s.retired) {
		if !which(f) {
			continue
		}
		stopping.Go(func() {
			if err := f.server.Shutdown(ctx); err != nil {
				s.log.Warn("clients were cut off", "protocol", f.conf.Protocol, "err", err)
			}
		})
	}
	stopping.Wait()
}

// close frees the ports and the state folder. It is called once.
func (s *server) close() {
	for _, f := range s.fronts {
		f.port.close()
	}
	if s.backend == nil {
		return
	}
	if err := s.backend.Close(); err != nil {
		s.log.Error("close", "err", err)
	}
}
