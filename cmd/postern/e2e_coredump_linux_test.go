package main

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The kernel writes the server's memory to no file, and what Go says of a server that is made to die has no secret in it.
func TestE2ENoSecretsWhenDying(t *testing.T) {
	if err := exec.Command("sh", "-c", "ulimit -S -c unlimited").Run(); err != nil {
		t.Skip("core dumps are switched off for this test already")
	}
	var log syncBuffer
	r := newRig(t, nil)
	r.stop()
	r.wholeLog = &log
	r.start()
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", r.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`(?m)^Max core file size +0 +0 `).Match(limits) {
		t.Errorf("core dumps are not switched off:\n%s", limits)
	}

	const marker = "Quixotic-Body-7719"
	c := r.rawIMAP(t)
	c.login(sampleUser)
	c.cmd("SELECT INBOX")
	if err := sendRaw(r.addr["smtp/none"], sampleUser, sampleUser, "one@fabrikam.example", "From: "+sampleUser+"\r\nSubject: x\r\n\r\n"+marker+"\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- r.cmd.Wait() }()
	select {
	case err = <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("SIGQUIT did not end the server")
	}
	r.cmd = nil
	if status := err.(*exec.ExitError).Sys().(syscall.WaitStatus); status.CoreDump() || !status.Exited() {
		t.Errorf("the server ended by %v, core %v", status.Signal(), status.CoreDump())
	}
	text := log.String()
	if !strings.Contains(text, "goroutine ") {
		t.Fatalf("no goroutines are told:\n%s", text)
	}
	for _, secret := range []string{e2ePassword, "wonder land", sampleSecret, "Bearer ", "eyJ", marker} {
		if strings.Contains(text, secret) {
			t.Errorf("what was said of the end holds %q", secret)
		}
	}
}
