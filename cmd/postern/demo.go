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
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"postern/backend"
	"postern/backend/graphsim"
	"postern/backend/token"
)

// demoPassword opens the sample mailbox, on loopback only; there is nothing in it to protect.
const demoPassword = "wonderland"

func demoCommand() *cobra.Command {
	var keep string
	var messages int
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Try Postern with a sample tenant, without Microsoft 365",
		Long: `Demo runs Postern in front of a simulated Microsoft 365 in the same process, on loopback only.
It needs no file, prints a user name, a password and commands to try, and ends with Ctrl-C.`,
		Args: wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := newLogger(cmd, slog.LevelWarn)
			if err != nil {
				return err
			}
			if keep != "" {
				if err := os.MkdirAll(keep, 0o700); err != nil {
					return err
				}
			}
			// Always a new one: the sample tenant is made anew each time, and an old copy would not fit it.
			state, err := os.MkdirTemp(keep, "postern-demo-")
			if err != nil {
				return err
			}
			if keep == "" {
				defer os.RemoveAll(state)
			}
			if state, err = filepath.Abs(state); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
			if err := demo(ctx, state, messages, cmd.OutOrStdout(), log); err != nil {
				return err
			}
			if keep != "" {
				fmt.Fprintf(cmd.OutOrStdout(), "\nStopped. The state is in %s\n", state)
			} else {
				fmt.Fprintln(cmd.OutOrStdout(), "\nStopped. Nothing is left behind.")
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&keep, "state", "", "keep the state, in a new folder below this one (default: a temporary folder, removed at the end)")
	cmd.Flags().IntVar(&messages, "messages", 0, "so many more messages in the Inbox")
	return cmd
}

func demo(ctx context.Context, state string, messages int, out io.Writer, log *slog.Logger) error {
	step := func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) }
	step("Preparing a sample tenant, all in memory ...")
	sim := graphsim.New(graphsim.Options{Logger: log})
	seedSample(sim, time.Now(), messages)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	simCtx, stopSim := context.WithCancel(context.WithoutCancel(ctx))
	simDone := make(chan error, 1)
	go func() { simDone <- serveSimulator(simCtx, l, sim) }()
	defer func() {
		stopSim()
		<-simDone
	}()

	hash, err := backend.HashPassword(demoPassword)
	if err != nil {
		return err
	}
	conf := defaultConfig()
	origin := "http://" + l.Addr().String()
	cfg := backend.Config{
		State: state,
		Credentials: map[string]token.Credential{"contoso": {Name: "contoso", Tenant: sampleTenant, ClientID: sampleClientID, ClientSecret: sampleSecret,
			Cloud: token.Global, LoginURL: origin, GraphURL: origin}},
		Mailboxes: []backend.MailboxConfig{{Address: sampleUser, Credential: "contoso", Aliases: []string{"a.liddell@contoso.example"}},
			{Address: sampleShared, Credential: "contoso"}, {Address: sampleOther, Credential: "contoso"}},
		Logins: []backend.LoginConfig{
			{Username: sampleUser, PasswordHash: hash, Mailbox: sampleUser, Shared: []string{sampleShared}, SMTP: true, IMAP: true, Admin: true, SendAs: []string{sampleShared}},
			{Username: sampleOther, PasswordHash: hash, Mailbox: sampleOther, SMTP: true, IMAP: true}},
		SendWait: conf.SMTP.Wait, MaxMessage: int64(conf.SMTP.MaxMessage), QueueLifetime: conf.Queue.Lifetime,
		Poll: time.Second, // who tries it out waits; and nobody counts the calls
		Size: backend.SizePolicy(conf.IMAP.Size), Append: backend.AppendPolicy(conf.IMAP.Append), Delete: backend.DeletePolicy(conf.IMAP.Delete),
		CacheBodies: int64(conf.Cache.Bodies), LogSubject: true,
	}
	recent := newRecentLog(log.Handler())
	cfg.Logger = slog.New(recent)
	s := &server{log: cfg.Logger, recent: recent, http: httpConfig{PublicName: "localhost"}}
	if err := s.openDemo(cfg, step); err != nil {
		return err
	}
	ready := func() {
		step("Reading the mailboxes through the simulated Graph ...")
		go func() {
			if s.waitReady(ctx) {
				s.welcome(out, state)
			}
		}()
	}
	return s.run(ctx, ready, nil, nil)
}

// openDemo listens on the usual ports, or on free ones where these are taken.
func (s *server) openDemo(cfg backend.Config, step func(string, ...any)) error {
	listeners := []listenerConfig{
		{Protocol: "smtp", Address: "127.0.0.1:2525", TLS: "none"},
		{Protocol: "imap", Address: "127.0.0.1:1143", TLS: "none"},
		{Protocol: "http", Address: "127.0.0.1:8025", TLS: "none"},
	}
	for i := range listeners {
		l, err := net.Listen("tcp", listeners[i].Address)
		if err == nil {
			l.Close()
		} else if errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EACCES) {
			step("Port %s is taken, so %s gets a free one.", strings.TrimPrefix(listeners[i].Address, "127.0.0.1:"), listeners[i].Protocol)
			listeners[i].Address = "127.0.0.1:0"
		}
	}
	return s.open(cfg, listeners)
}

// waitReady waits until every mailbox has been read once; false if ctx ended first.
func (s *server) waitReady(ctx context.Context) bool {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		missing := 0
		for _, a := range s.backend.Accounts() {
			if !a.State().Ready {
				missing++
			}
		}
		if missing == 0 {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
}

// welcome tells a newcomer what to do. Each command works as it is printed.
func (s *server) welcome(out io.Writer, state string) {
	addr := make(map[string]string)
	for _, f := range s.fronts {
		addr[f.conf.Protocol] = f.port.addr().String()
	}
	_, imapPort, _ := net.SplitHostPort(addr["imap"]) // it listens, so it has a port
	rc := filepath.Join(state, "mbsyncrc")
	mirror := filepath.Join(state, "mail")
	lines := fmt.Sprintf(`IMAPAccount demo
Host 127.0.0.1
Port %s
User %s
Pass %s
SSLType None
AuthMechs *

IMAPStore remote
Account demo

MaildirStore local
Path %s/
Inbox %s/INBOX
SubFolders Verbatim

Channel demo
Far :remote:
Near :local:
Patterns *
Create Both
Expunge Both
SyncState *
`, imapPort, sampleUser, demoPassword, mirror, mirror)
	err := os.WriteFile(rc, []byte(lines), 0o600)
	if err == nil {
		err = os.MkdirAll(mirror, 0o700)
	}
	mbsync := fmt.Sprintf("mbsync -c %s demo", rc)
	if err != nil {
		s.log.Warn("mbsync configuration", "err", err)
		mbsync = "(its configuration could not be written, see above)"
	}
	fmt.Fprintf(out, `
Postern is ready.

  IMAP  %[1]s    SMTP  %[2]s    pages  http://%[3]s/
  user name  %[4]s    password  %[5]s

Try, in another terminal:

  List the folders, then read the latest message:
    curl -sS -u %[4]s:%[5]s 'imap://%[1]s/'
    curl -sS -u %[4]s:%[5]s 'imap://%[1]s/INBOX;MAILINDEX=*'

  Send a message to yourself; it is in the Inbox a moment later:
    printf 'From: %[4]s\r\nTo: %[4]s\r\nSubject: hello\r\n\r\nIt works.\r\n' | curl -sS -u %[4]s:%[5]s 'smtp://%[2]s' --mail-from %[4]s --mail-rcpt %[4]s -T -

  Watch it in a browser, at http://%[3]s/, with the same user name and password.

  Copy the whole mailbox to %[6]s (mbsync is in the package isync):
    %[7]s

Ctrl-C ends the demo.
`, addr["imap"], addr["smtp"], addr["http"], sampleUser, demoPassword, mirror, mbsync)
}
