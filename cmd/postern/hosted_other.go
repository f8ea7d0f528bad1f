//go:build !windows

package main

import (
	"context"
	"log/slog"

	"github.com/spf13/cobra"
)

// hosted runs the server. Managers of services other than that of Windows run it like any program.
func hosted(cmd *cobra.Command, fn func(ctx context.Context, log *slog.Logger, ready func()) error) error {
	return unhosted(cmd, fn)
}
