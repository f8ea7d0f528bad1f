package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// What each kind of listener speaks, as somebody outside finds it: versions, cipher suites, and what openssl says of a session.
func TestE2ETLSProfiles(t *testing.T) {
	openssl := need(t, "openssl")
	r := newRig(t, nil)
	r.stop()
	// Old devices know RSA only.
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	r.writeCertificateOf(key)
	conf := filepath.Join(r.dir, "postern.yaml")
	b, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(string(b), "listeners:\n")
	_, rest, _ = strings.Cut(rest, "tls: {certificate") // behind the listeners
	kinds := []struct {
		name, listener string
		starttls       string   // what openssl says first
		versions       []string // it should speak
		old            bool     // suites without forward secrecy or AEAD are there, for old devices
	}{
		{"imap", "{protocol: imap, address: \"127.0.0.1:0\", tls: implicit}", "", []string{"1.2", "1.3"}, false},
		{"imap with STARTTLS", "{protocol: imap, address: \"127.0.0.1:0\", tls: starttls}", "imap", []string{"1.2", "1.3"}, false},
		{"smtp", "{protocol: smtp, address: \"127.0.0.1:0\", tls: implicit}", "", []string{"1.2", "1.3"}, false},
		{"smtp with STARTTLS, devices", "{protocol: smtp, address: \"127.0.0.1:0\", tls: starttls, profile: device}", "smtp", []string{"1.2", "1.3"}, false},
		{"smtp with STARTTLS, old devices", "{protocol: smtp, address: \"127.0.0.1:0\", tls: starttls, profile: device, tls_min: \"1.0\"}", "smtp", []string{"1.0", "1.1", "1.2", "1.3"}, true},
		{"smtp, old devices", "{protocol: smtp, address: \"127.0.0.1:0\", tls: implicit, profile: device, tls_min: \"1.1\"}", "", []string{"1.1", "1.2", "1.3"}, true},
		{"imap, newest only", "{protocol: imap, address: \"127.0.0.1:0\", tls: implicit, tls_min: \"1.3\"}", "", []string{"1.3"}, false},
		{"pages", "{protocol: http, address: \"127.0.0.1:0\", tls: implicit}", "", []string{"1.2", "1.3"}, false},
	}
	var list strings.Builder
	for _, k := range kinds {
		fmt.Fprintf(&list, "  - %s\n", k.listener)
	}
	if err := os.WriteFile(conf, []byte(head+"listeners:\n"+list.String()+"tls: {certificate"+rest), 0o600); err != nil {
		t.Fatal(err)
	}
	r.startWith(new(sync.Mutex), len(kinds))

	flags := map[string]string{"1.0": "-tls1", "1.1": "-tls1_1", "1.2": "-tls1_2", "1.3": "-tls1_3"}
	ask := func(addr, starttls string, args ...string) (string, bool) {
		args = append([]string{"s_client", "-connect", addr, "-CAfile", r.cert, "-verify_return_error", "-servername", "localhost", "-verify_hostname", "localhost"}, args...)
		if starttls != "" {
			args = append(args, "-starttls", starttls)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, openssl, args...)
		cmd.Env = append(os.Environ(), "OPENSSL_CONF=/dev/null") // this machine's policy is not what is asked for
		cmd.Stdin = strings.NewReader("")
		out, err := cmd.CombinedOutput()
		return string(out), err == nil && regexp.MustCompile(`Cipher is [A-Z]`).Match(out)
	}
	out, err := exec.Command(openssl, "ciphers", "ALL:COMPLEMENTOFALL:@SECLEVEL=0").Output()
	if err != nil {
		t.Fatal(err)
	}
	suites := slices.DeleteFunc(strings.Split(strings.TrimSpace(string(out)), ":"), func(s string) bool { return strings.HasPrefix(s, "TLS_") })
	for i, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			a := r.inRow[i]
			for version, flag := range flags {
				answer, ok := ask(a, k.starttls, flag, "-cipher", "ALL:COMPLEMENTOFALL:@SECLEVEL=0")
				if want := slices.Contains(k.versions, version); ok != want {
					t.Errorf("TLS %s is spoken: %v, want %v\n%s", version, ok, want, answer)
				}
				if ok && (!strings.Contains(answer, "Compression: NONE") || !strings.Contains(answer, "Verify return code: 0 (ok)")) {
					t.Errorf("TLS %s:\n%s", version, answer)
				}
			}
			if !slices.Contains(k.versions, "1.2") || k.starttls != "" && !k.old {
				return // those with STARTTLS have what the others have
			}
			var mu sync.Mutex
			var taken []string
			var g sync.WaitGroup
			slots := make(chan struct{}, 4)
			for _, s := range suites {
				slots <- struct{}{}
				g.Go(func() {
					defer func() { <-slots }()
					if _, ok := ask(a, k.starttls, "-tls1_2", "-cipher", s+":@SECLEVEL=0"); ok {
						mu.Lock()
						taken = append(taken, s)
						mu.Unlock()
					}
				})
			}
			g.Wait()
			if len(taken) == 0 {
				t.Fatal("no suite of TLS 1.2 is taken")
			}
			weak := regexp.MustCompile(`NULL|RC4|RC2|EXP|ADH|AECDH|MD5|PSK|SRP|^DHE|^DH`)
			plain := false
			for _, s := range taken {
				if weak.MatchString(s) {
					t.Errorf("%s is taken", s)
				}
				if !strings.HasPrefix(s, "ECDHE") {
					plain = true
				}
			}
			if plain != k.old {
				t.Errorf("suites without forward secrecy: %v, want %v: %v", plain, k.old, taken)
			}
		})
	}

	r.stop()
}

// Commands that somebody on the way has put behind STARTTLS, before the handshake, are not obeyed within it (CVE-2011-0411).
func TestE2ENothingBeforeTLS(t *testing.T) {
	r := newRig(t, nil)
	for _, tt := range []struct{ listener, hello, start, injected, after, want string }{
		{"smtp/starttls", "EHLO x\r\n", "STARTTLS\r\n", "MAIL FROM:<evil@y.example>\r\n", "NOOP\r\n", "250 "},
		{"imap/starttls", "a CAPABILITY\r\n", "b STARTTLS\r\n", "c LOGIN evil evil\r\n", "d NOOP\r\n", "d OK"},
	} {
		conn, err := net.Dial("tcp", r.addr[tt.listener])
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(conn)
		until := func(in *bufio.Reader, ends ...string) string {
			for {
				l, err := in.ReadString('\n')
				for _, end := range ends {
					if strings.HasPrefix(l, end) {
						return l
					}
				}
				if err != nil {
					return "" // hung up
				}
			}
		}
		until(in, "220 ", "* OK")
		if _, err := io.WriteString(conn, tt.hello); err != nil {
			t.Fatal(err)
		}
		until(in, "250 ", "a OK")
		if _, err := io.WriteString(conn, tt.start+tt.injected); err != nil {
			t.Fatal(err)
		}
		if until(in, "220 ", "b OK") == "" {
			continue // refused, which is as good
		}
		secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) // somebody on the way would be noticed elsewhere
		if err := secure.Handshake(); err != nil {
			continue // what was injected is in the way, and nothing more happens
		}
		if _, err := io.WriteString(secure, tt.after); err != nil {
			t.Fatal(err)
		}
		first, _ := bufio.NewReader(secure).ReadString('\n') // "" when it hung up
		if first != "" && !strings.HasPrefix(first, tt.want) {
			t.Errorf("%s: the first answer over TLS is %q", tt.listener, first)
		}
	}
}
