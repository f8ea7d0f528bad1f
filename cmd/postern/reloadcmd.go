package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// reloadPatience is how long a server may take for an answer.
const reloadPatience = 30 * time.Second

func reloadCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Let the running server take the configuration over, and say what came of it",
		Long: `Reload checks the configuration and asks the running server to take it over, as SIGHUP does, and waits for its answer.
Nobody is disconnected who may still be there. With a fault in it nothing changes, and the exit status is 1.`,
		Example: "  postern reload -c /etc/postern/postern.yaml",
		Args:    wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			// The server's environment need not be ours, so that only it can say whether all variables are set.
			c, err := configOf(cmd)
			if err != nil {
				return err
			}
			if _, err := os.Stat(c.folder()); err != nil {
				return fmt.Errorf("no server has run with this configuration yet: %w", err)
			}
			nonce := rand.Text()
			if err := requestReload(c, nonce); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), reloadPatience)
			defer cancel()
			answer, err := awaitReload(ctx, c.folder(), nonce)
			if err != nil {
				return err
			}
			if !answer.Taken {
				return errors.New("not taken over, the old configuration holds:\n" + strings.Join(answer.Said, "\n"))
			}
			for _, s := range answer.Said {
				fmt.Fprintln(cmd.ErrOrStderr(), s)
			}
			fmt.Fprintln(cmd.OutOrStdout(), "Taken over.")
			return nil
		},
	}
	addConfigFlag(cmd)
	return cmd
}
