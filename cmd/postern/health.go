package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func healthCommand() *cobra.Command {
	var ready bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask the running server whether it works",
		Long: `Health asks the http listener of the configuration for /healthz, or with --ready for /readyz, and ends with status 0 if the answer
is good and 1 if not. It is for the health checks of containers and monitoring, where there is no curl.`,
		Example: "  postern health --config /etc/postern/postern.yaml --ready",
		Args:    wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := configOf(cmd)
			if err != nil {
				return err
			}
			url, err := c.statusURL()
			if err != nil {
				return err
			}
			page := "/healthz"
			if ready {
				page = "/readyz"
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			return askHealth(ctx, url+page, cmd.OutOrStdout())
		},
	}
	addConfigFlag(cmd)
	cmd.Flags().BoolVar(&ready, "ready", false, "ask whether clients can be sent there, not only whether it lives")
	cmd.Flags().DurationVar(&timeout, "timeout", 12*time.Second, "how long to wait for the answer")
	return cmd
}

// statusURL returns where this machine reaches the status pages.
func (c *configFile) statusURL() (string, error) {
	for _, l := range c.Listeners {
		if _, inherited := l.inherited(); l.Protocol != "http" || l.TLS == "implicit" || inherited {
			continue
		}
		host, port, err := net.SplitHostPort(l.Address)
		if err != nil || port == "0" {
			continue
		}
		switch host {
		case "", "0.0.0.0":
			host = "127.0.0.1"
		case "::":
			host = "::1"
		}
		return "http://" + net.JoinHostPort(host, port), nil
	}
	return "", errors.New(`there is no http listener to ask: add {protocol: http, address: "127.0.0.1:8025"} under listeners`)
}

func askHealth(ctx context.Context, url string, out io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req) // no proxy: it is here
	if err != nil {
		return fmt.Errorf("the server does not answer: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("the server does not answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(body)))
	}
	_, err = out.Write(body)
	return err
}
