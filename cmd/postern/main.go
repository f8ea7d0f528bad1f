// Postern is a side door to Microsoft 365 for mail programs that only speak
// SMTP and IMAP: it listens for them and does what they ask through Microsoft Graph.
package main

import (
	"errors"
	"fmt"
	"os"
)

func main() {
	if err := rootCommand().Execute(); err != nil {
		if e, ok := errors.AsType[*exitError](err); ok {
			os.Exit(e.status)
		}
		fmt.Fprintln(os.Stderr, "postern:", err)
		os.Exit(1)
	}
}
