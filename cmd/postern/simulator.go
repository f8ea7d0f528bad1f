package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"postern/backend/graphsim"
)

// simulatorCommand is for tests and for trying a configuration without Microsoft 365.
func simulatorCommand() *cobra.Command {
	var address, seed string
	var admin bool
	var messages int
	cmd := &cobra.Command{
		Use:    "simulator",
		Hidden: true,
		Short:  "Run a simulated Microsoft Graph and Entra",
		Long: `Simulator answers like Microsoft Graph and the Entra sign-in, from memory. Point login_url and graph_url of a
credential at it. With --seed demo it has the tenant ` + sampleTenant + `,
the client id ` + sampleClientID + ` with the secret ` + sampleSecret + `,
and the mailboxes ` + sampleUser + `, ` + sampleShared + ` and ` + sampleOther + `.`,
		Args: wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := newLogger(cmd, slog.LevelInfo)
			if err != nil {
				return err
			}
			if host, _, err := net.SplitHostPort(address); err != nil || !loopbackHost(host) {
				return fmt.Errorf("--address %s: the simulator listens on loopback only", address)
			}
			sim := graphsim.New(graphsim.Options{Admin: admin, Logger: log})
			switch seed {
			case "demo":
				seedSample(sim, time.Now(), messages)
			case "none":
			default:
				return fmt.Errorf("--seed %s is unknown: write demo or none", seed)
			}
			l, err := net.Listen("tcp", address)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			fmt.Fprintf(cmd.OutOrStdout(), "simulator listening on http://%s\n", l.Addr())
			return serveSimulator(ctx, l, sim)
		},
	}
	f := cmd.Flags()
	f.StringVar(&address, "address", "127.0.0.1:9700", "where to listen, on loopback")
	f.StringVar(&seed, "seed", "demo", "what to begin with: demo or none")
	f.BoolVar(&admin, "admin", false, "serve the administration interface under /_sim/")
	f.IntVar(&messages, "messages", 0, "so many more messages in the Inbox of "+sampleUser)
	return cmd
}

// serveSimulator answers on l until ctx ends.
func serveSimulator(ctx context.Context, l net.Listener, sim http.Handler) error {
	srv := &http.Server{Handler: sim, ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { srv.Close() })()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
