package smtpd

import (
	"maps"
	"sync"
	"testing"
	"time"
)

// Whoever counts commands is told how each was answered, and how many clients there are.
func TestObserve(t *testing.T) {
	var mu sync.Mutex
	told := make(map[string]int)
	s, addr := startServer(t, &fakeService{}, Options{Observe: func(command, outcome string, took time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		told[command+" "+outcome]++
	}}, "")
	c := dialTest(t, addr)
	c.transaction("DATA\r\n")
	c.expect("354")
	c.send("Subject: x\r\n\r\nbody\r\n.\r\n")
	c.expect("250")
	if open, in := s.Sessions(); open != 1 || in != 1 {
		t.Errorf("%d open, %d logged in", open, in)
	}
	c.send("MAIL FROM:<mallory@x.example>\r\n")
	c.expect("553")
	c.send("MAIL FROM:<alice@contoso.example>\r\nRCPT TO:<away@x.example>\r\nDATA\r\n")
	c.expect("250")
	c.expect("250")
	c.expect("354")
	c.send("Subject: x\r\n\r\nbody\r\n.\r\n")
	c.expect("4")
	d := dialTest(t, addr)
	d.expect("220")
	d.send("EHLO x\r\n")
	d.expect("250")
	d.send("AUTH PLAIN AGFsaWNlAHdyb25n\r\n")
	d.expect("535")
	if open, in := s.Sessions(); open != 2 || in != 1 {
		t.Errorf("%d open, %d logged in", open, in)
	}
	want := map[string]int{"AUTH ok": 1, "AUTH no": 1, "MAIL ok": 2, "MAIL no": 1, "RCPT ok": 2, "DATA ok": 1, "DATA later": 1}
	mu.Lock()
	defer mu.Unlock()
	if !maps.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
}
