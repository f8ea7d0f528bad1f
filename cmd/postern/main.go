// Postern is a side door to Microsoft 365 for mail programs that only speak
// SMTP and IMAP: it listens for them and does what they ask through Microsoft Graph.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	cmd := rootCommand()
	// As a link in the place of sendmail, whose callers know nothing of subcommands.
	if filepath.Base(os.Args[0]) == "sendmail" {
		cmd.SetArgs(append([]string{"sendmail"}, os.Args[1:]...))
	}
	if err := cmd.Execute(); err != nil {
		if e, ok := errors.AsType[*exitError](err); ok {
			os.Exit(e.status)
		}
		fmt.Fprintln(os.Stderr, "postern:", err)
		os.Exit(1)
	}
}
