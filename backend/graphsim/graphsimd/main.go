// Command graphsimd runs the Graph simulator as a process of its own, for tests in other languages:
//
//	graphsimd -address 127.0.0.1:9700 -sample
//
// It prints its URL on one line when it is ready. Tests then seed and inspect it through /_sim/; see graphsim's admin.go.
// It is no part of the product and listens on loopback only.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"postern/backend/graphsim"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "graphsimd:", err)
		os.Exit(1)
	}
}

func run() error {
	address := flag.String("address", "127.0.0.1:0", "loopback address to listen on")
	sample := flag.Bool("sample", false, "seed the tenant contoso.example with app \"sample\", secret \"sample\", alice@ and bob@")
	messages := flag.Int("messages", 0, "synthetic messages in alice's Inbox, with -sample")
	latency := flag.Duration("latency", 0, "wait before each request is worked on")
	noLimits := flag.Bool("no-limits", false, "switch throttling off")
	maxMessage := flag.Int64("max-message", 0, "largest message in bytes that a mailbox may send; 0 for Exchange's default, 35 MB")
	mutable := flag.Bool("mutable-mime", false, "return other bytes at each reading of $value")
	verbose := flag.Bool("v", false, "log requests")
	flag.Parse()

	opts := graphsim.Options{Admin: true, Latency: *latency, MutableMIME: *mutable, MaxMessage: *maxMessage}
	if *noLimits {
		opts.Limits = graphsim.Limits{MaxConcurrent: -1, Requests: -1, UploadBytes: -1, SendsPerMinute: -1}
	}
	if *verbose {
		opts.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	sim := graphsim.New(opts)
	if *sample {
		const tenant = "00000000-0000-0000-0000-00000000c0de"
		sim.AddTenant(tenant, "contoso.example")
		sim.AddApp(tenant, "sample", "sample", "Mail.ReadWrite", "Mail.Send")
		for _, name := range []string{"alice", "bob"} {
			sim.AddUser(tenant, graphsim.UserSpec{UPN: name + "@contoso.example"})
		}
		if *messages > 0 {
			sim.AddSynthetic("alice@contoso.example", "inbox", *messages, graphsim.Synthetic{Seed: 1})
		}
	}
	host, _, err := net.SplitHostPort(*address)
	if err != nil {
		return fmt.Errorf("address %q: %w", *address, err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("address %q is not on loopback", *address)
	}
	l, err := net.Listen("tcp", *address)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	srv := &http.Server{Handler: sim, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	fmt.Printf("http://%s\n", l.Addr())
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	ending, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := srv.Shutdown(ending); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}
