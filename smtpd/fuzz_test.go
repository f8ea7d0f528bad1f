package smtpd

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"postern/internal/fuzzcorpus"
)

// FuzzLogin feeds the mechanisms what clients may send: no panic, no error that
// go-smtp would print as it is, no success without the password.
func FuzzLogin(f *testing.F) {
	f.Add("LOGIN", []byte("alice"), []byte("secret"), true)
	f.Add("LOGIN", []byte("\x00alice\x00secret"), []byte(""), true)
	f.Add("LOGIN", []byte(""), []byte("alice"), false)
	f.Add("PLAIN", []byte("\x00alice\x00secret"), []byte(""), true)
	f.Add("PLAIN", []byte("a\x00b\x00c\x00d"), []byte("x"), false)
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, mech string, first, second []byte, initial bool) {
		var name, password string
		m := newMechanism(mech, func(u, p string) error {
			name, password = u, p
			if u == "alice" && p == "secret" {
				return nil
			}
			return status(535, 5, 7, 8, "no")
		})
		if m == nil {
			return
		}
		inputs := [][]byte{first, second, first, second}
		if !initial {
			inputs = append([][]byte{nil}, inputs...)
		}
		for _, in := range inputs {
			_, done, err := m.Next(in)
			if err != nil {
				if _, ok := err.(*smtp.SMTPError); !ok {
					t.Fatalf("error of type %T", err)
				}
				return
			}
			if done {
				if name != "alice" || password != "secret" {
					t.Fatalf("logged in as %q with %q", name, password)
				}
				return
			}
		}
	})
}

// FuzzDialogue plays any bytes as a session. Whatever comes, the session ends, and
// what was accepted was sent by a logged-in client.
func FuzzDialogue(f *testing.F) {
	files, _ := filepath.Glob(filepath.Join(dialogues, "*.txt"))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		var b strings.Builder
		for _, l := range strings.Split(string(text), "\n") {
			switch {
			case strings.HasPrefix(l, "C> "):
				s, _ := strconv.Unquote(l[3:])
				b.WriteString(s)
			case strings.HasPrefix(l, "C:"):
				b.WriteString(strings.TrimPrefix(l[2:], " ") + "\r\n")
			}
		}
		f.Add([]byte(b.String()), false)
		f.Add([]byte(b.String()), true)
	}
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, input []byte, starttls bool) {
		svc := &fakeService{}
		opts := Options{AllowPlainAuth: true, MaxMessage: 1 << 16}
		if starttls {
			opts.TLS, opts.TLSConfig = TLSStart, testTLS()
		}
		s, err := newServer(opts, svc)
		if err != nil {
			t.Fatal(err)
		}
		l := newPipeListener()
		served := make(chan error, 1)
		go func() { served <- s.Serve(context.Background(), l) }()
		c := l.dial()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		drained := make(chan struct{})
		go func() { io.Copy(io.Discard, c); close(drained) }()
		if _, err := c.Write(input); err != nil && !isClosed(err) {
			t.Errorf("write: %v", err)
		}
		c.Close()
		<-drained
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("session does not end: %v", err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
		for _, m := range svc.messages() {
			if len(m.env.Recipients) == 0 {
				t.Error("message without recipients")
			}
		}
	})
}

func isClosed(err error) bool {
	ne, ok := err.(net.Error)
	return err == io.ErrClosedPipe || ok && !ne.Timeout()
}
