package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"net/textproto"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/backend/graphsim"
)

// A message of 100 MB goes through in less than 64 MB of memory above what the server takes when idle.
func TestE2ELargeMessageMemory(t *testing.T) {
	program(t)
	if raceDetector {
		t.Skip("the race detector has a memory of its own")
	}
	if _, err := os.Stat("/proc/self/clear_refs"); err != nil {
		t.Skip("memory is measured on Linux only")
	}
	sim := graphsim.New(graphsim.Options{MaxMessage: 150 << 20})
	sim.AddTenant(sampleTenant, sampleDomain)
	sim.AddApp(sampleTenant, sampleClientID, sampleSecret, "Mail.ReadWrite", "Mail.Send")
	sim.AddUser(sampleTenant, graphsim.UserSpec{UPN: sampleUser})
	r := &rig{t: t, sim: sim, dir: t.TempDir(), users: []string{sampleUser}}
	srv := httptest.NewServer(sim)
	t.Cleanup(srv.Close)
	r.writeFaultConfig(srv.URL)
	r.startWith(new(sync.Mutex), 2)
	t.Cleanup(func() {
		if r.cmd != nil {
			r.kill()
		}
	})
	if err := sendPlain(r.addr["smtp/none"], sampleUser, "x@fabrikam.example", "Subject: first\r\n\r\nx\r\n"); err != nil {
		t.Fatal(err)
	}
	within(t, 10*time.Second, "first message", func() bool { return len(sim.Delivered()) == 1 })
	pid := r.cmd.Process.Pid
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
		t.Skipf("peak not reset: %v", err)
	}
	idle := memory(t, pid, "VmRSS")

	conn, err := net.Dial("tcp", r.addr["smtp/none"])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := textproto.NewConn(conn)
	expect := func(send string, code int) {
		t.Helper()
		if send != "" {
			if err := c.PrintfLine("%s", send); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := c.ReadResponse(code); err != nil {
			t.Fatalf("%s: %v", send, err)
		}
	}
	began := time.Now()
	expect("", 220)
	expect("EHLO x", 250)
	expect("MAIL FROM:<"+sampleUser+">", 250)
	expect("RCPT TO:<x@fabrikam.example>", 250)
	expect("DATA", 354)
	w := bufio.NewWriterSize(conn, 1<<20)
	io.WriteString(w, "From: "+sampleUser+"\r\nSubject: large\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ntext\r\n")
	line := strings.Repeat("QUJD", 19) + "\r\n"
	const size = 100_000_000
	for range 2 {
		io.WriteString(w, "--b\r\nContent-Type: application/zip\r\nContent-Disposition: attachment; filename=f.zip\r\nContent-Transfer-Encoding: base64\r\n\r\n")
		for n := 0; n < size/2; n += len(line) {
			io.WriteString(w, line)
		}
	}
	io.WriteString(w, "--b--\r\n.\r\n")
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.ReadResponse(250); err != nil {
		t.Fatal(err)
	}
	answered := time.Since(began)
	within(t, 4*time.Minute, "large message", func() bool { return len(sim.Delivered()) == 2 })
	peak := memory(t, pid, "VmHWM")
	t.Logf("idle %d MB, peak %d MB, %v to the answer, %v to Exchange", idle>>20, peak>>20, answered.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	if peak-idle > 64_000_000 {
		t.Errorf("%d MB above idle", (peak-idle)/1_000_000)
	}
}

// memory reads one value of a process's status, in bytes.
func memory(t *testing.T, pid int, key string) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(key + `:\s+(\d+) kB`).FindSubmatch(b)
	if m == nil {
		t.Skipf("no %s", key)
	}
	kb, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kb << 10
}
