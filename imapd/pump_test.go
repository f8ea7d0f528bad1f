package imapd

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// pumped returns a pump, the client's side of its connection, and what the pump said about the end.
func pumped(t *testing.T) (*pump, net.Conn, chan error) {
	t.Helper()
	client, server := net.Pipe()
	ended := make(chan error, 1)
	p := newPump(server, func(err error) { ended <- err }) // a second call would block
	t.Cleanup(func() {
		client.Close()
		p.Close()
		p.wait()
	})
	return p, client, ended
}

func read(p *pump, want string) error {
	b := make([]byte, len(want))
	if _, err := io.ReadFull(p, b); err != nil {
		return err
	}
	if string(b) != want {
		return errors.New("read " + string(b))
	}
	return nil
}

// TestPumpEnd has the client leave while the session reads nothing.
func TestPumpEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, client, ended := pumped(t)
		go io.WriteString(client, "command")
		if err := read(p, "command"); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		client.Close()
		if err := <-ended; err != io.EOF {
			t.Errorf("ended: %v", err)
		}
		if took := time.Since(begun); took > 2*watchFrom {
			t.Errorf("noticed after %v", took)
		}
		if _, err := p.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("read: %v", err)
		}
	})
}

// TestPumpReadsAhead has the client send while the session is busy, more than is read ahead.
func TestPumpReadsAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, client, _ := pumped(t)
		sent := make([]byte, 3*pumpLimit)
		for i := range sent {
			sent[i] = byte(i % 251)
		}
		go client.Write(sent)
		for at := 0; at < len(sent); {
			time.Sleep(time.Second) // busy
			p.mu.Lock()
			ahead := len(p.pending) - p.off
			p.mu.Unlock()
			if ahead > 2*pumpLimit || at == 0 && ahead < pumpLimit {
				t.Fatalf("%d bytes read ahead", ahead)
			}
			b := make([]byte, 1+at%100_000)
			n, err := p.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			for i, c := range b[:n] {
				if c != sent[at+i] {
					t.Fatalf("byte %d is %d", at+i, c)
				}
			}
			at += n
		}
	})
}

// TestPumpGivesBack goes from a session that was busy to one that waits, and back, with what arrives at either time.
func TestPumpGivesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, client, _ := pumped(t)
		watching := func() bool {
			synctest.Wait()
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.watching
		}
		for range 3 {
			time.Sleep(2 * watchFrom)
			if !watching() {
				t.Fatal("a busy session's connection is not watched")
			}
			done := make(chan error, 1)
			go func() { done <- read(p, "one") }()
			if watching() {
				t.Error("the watcher stays though the session waits")
			}
			io.WriteString(client, "one")
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * watchFrom)
			io.WriteString(client, "two") // to the watcher
			if err := read(p, "two"); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestPumpWaits goes through what ends a wait.
func TestPumpWaits(t *testing.T) {
	for _, tt := range []struct {
		name string
		idle bool
		end  func(p *pump, client net.Conn)
		want error
		far  bool // not before the deadline
	}{
		{"stopped while idle", true, func(p *pump, _ net.Conn) { p.stop() }, errStopping, false},
		{"stopped within a command", false, func(p *pump, _ net.Conn) { p.stop() }, os.ErrDeadlineExceeded, true},
		{"interrupted", false, func(p *pump, _ net.Conn) { p.interrupt() }, errInterrupted, false},
		{"left", true, func(_ *pump, client net.Conn) { client.Close() }, io.EOF, false},
		{"nothing", true, func(*pump, net.Conn) {}, os.ErrDeadlineExceeded, true},
	} {
		for _, busy := range []time.Duration{0, 2 * watchFrom} {
			t.Run(tt.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p, client, _ := pumped(t)
					p.idle.Store(tt.idle)
					// One that was set before and is earlier must not end a later wait.
					p.SetReadDeadline(time.Now().Add(time.Second))
					go io.WriteString(client, "x")
					if err := read(p, "x"); err != nil {
						t.Fatal(err)
					}
					time.Sleep(busy)
					begun := time.Now()
					p.SetReadDeadline(begun.Add(time.Minute))
					time.AfterFunc(2*time.Second, func() { tt.end(p, client) })
					_, err := p.Read(make([]byte, 1))
					took := time.Since(begun)
					if !errors.Is(err, tt.want) || tt.far != (took >= time.Minute) || took > time.Minute {
						t.Errorf("after %v: %v", took, err)
					}
				})
			})
		}
	}
}
