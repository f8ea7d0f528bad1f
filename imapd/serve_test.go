package imapd

import (
	"context"
	"net"
	"os"
	"testing"
	"time"

	"postern/backend/graphsim"
)

// TestServe serves on the address in POSTERN_TEST_IMAP for as long as POSTERN_TEST_TIME
// says (5m if unset), over a simulator without request limits, for stress tests by other
// programs such as imaptest: within the service's own limits, 10,000 requests in 10
// minutes, these would only test the waiting. POSTERN_TEST_LOG names a file for the log.
func TestServe(t *testing.T) {
	address := os.Getenv("POSTERN_TEST_IMAP")
	if address == "" {
		t.Skip("POSTERN_TEST_IMAP is not set")
	}
	w := newSimWorld(t, graphsim.Options{Limits: graphsim.Limits{MaxConcurrent: -1, Requests: -1, UploadBytes: -1, SendsPerMinute: -1}})
	w.limit = 100_000_000
	w.serve(Limits{})
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	d, err := time.ParseDuration(os.Getenv("POSTERN_TEST_TIME"))
	if err != nil {
		d = 5 * time.Minute
	}
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	t.Logf("serving on %s; log in as alice with the password pass", l.Addr())
	if err := w.server.Serve(ctx, l); err != nil {
		t.Fatal(err)
	}
	if log := os.Getenv("POSTERN_TEST_LOG"); log != "" {
		if err := os.WriteFile(log, []byte(w.logs.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
