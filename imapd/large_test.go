package imapd

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"postern/backend/graphsim"
)

// TestLargeMailbox checks that commands on a large mailbox take time linear in
// it. POSTERN_LARGE sets another number of messages, for measuring.
func TestLargeMailbox(t *testing.T) {
	n := 10_000
	if s := os.Getenv("POSTERN_LARGE"); s != "" {
		n, _ = strconv.Atoi(s)
	}
	w := newSimWorld(t, graphsim.Options{Limits: graphsim.Limits{}})
	w.sim.AddSynthetic(alice, "inbox", n, graphsim.Synthetic{})
	w.serve(Limits{})
	c := w.login("alice")
	timed := func(command string) int {
		t.Helper()
		start := time.Now()
		c.send("x " + command + "\r\n")
		lines := 0
		c.conn.SetReadDeadline(time.Now().Add(2 * time.Minute))
		for {
			line, err := c.r.ReadSlice('\n')
			if err == bufio.ErrBufferFull {
				io.Discard.Write(line)
				continue
			}
			if err != nil {
				t.Fatalf("%.60s: %v", command, err)
			}
			if line[0] == 'x' {
				if !strings.HasPrefix(string(line), "x OK") {
					t.Fatalf("%.60s: %s", command, line)
				}
				break
			}
			lines++
		}
		took := time.Since(start)
		t.Logf("%-40.40s %7d lines %v", command, lines, took)
		return lines
	}
	timed("SELECT INBOX")
	timed("SELECT INBOX")
	timed("NOOP")
	if got := timed("UID FETCH 1:* (FLAGS)"); got != n {
		t.Errorf("%d messages, want %d", got, n)
	}
	var sb strings.Builder
	for uid := n; uid > 0; uid -= 2 {
		fmt.Fprintf(&sb, ",%d", uid)
	}
	if got := timed("UID FETCH " + sb.String()[1:] + " (FLAGS)"); got != n/2 {
		t.Errorf("%d messages, want %d", got, n/2)
	}
	timed(`STORE 1:* +FLAGS.SILENT ($Test)`)
	timed(`STORE 1:* +FLAGS ($Test)`)
	timed("STATUS INBOX (MESSAGES UNSEEN SIZE)")
}
