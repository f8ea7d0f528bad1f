package main

import (
	"bufio"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// What can be in the way to Microsoft, as setup and doctor tell it: one line for each host, with what to do. It runs the
// program, because Go reads the proxy's variables once for each process.
func TestE2EWayToMicrosoft(t *testing.T) {
	w := newSetupWorld(t)
	ca, foreign := serverCertificate(t, "login.example", time.Now().Add(-2*time.Hour), time.Now().Add(time.Hour))
	expiredCA, expired := serverCertificate(t, "127.0.0.1", time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour))
	unknown := httptest.NewTLSServer(w.sim)
	t.Cleanup(unknown.Close)
	const afar = "https://login.example"
	for _, tt := range []struct {
		name, login  string
		env          []string
		what, remedy string
	}{
		{"no such name", "https://login.nowhere.invalid", nil, "the name login.nowhere.invalid", "name servers"},
		{"nobody there", "https://" + freePort(t), nil, "refuses the connection", "Allow outgoing connections"},
		{"unknown authority", unknown.URL, nil, "certificate of an unknown authority", "A firewall breaks TLS open"},
		{"no TLS", "https://" + strings.TrimPrefix(w.flags["login-url"], "http://"), nil, "does not speak TLS", "Something answers in its place"},
		{"another name", "https://" + tlsServer(t, foreign), []string{"SSL_CERT_FILE=" + ca}, "a certificate of another name", "Something answers in its place"},
		{"expired", "https://" + tlsServer(t, expired), []string{"SSL_CERT_FILE=" + expiredCA}, "is not valid at this machine's time", "Set this machine's clock"},
		{"no proxy there", afar, []string{"HTTPS_PROXY=http://" + freePort(t)}, "nothing answers at the proxy 127.0.0.1:", "Check HTTPS_PROXY"},
		{"proxy's name", afar, []string{"HTTPS_PROXY=http://proxy.nowhere.invalid:3128"}, "the proxy's name proxy.nowhere.invalid cannot be resolved", "Check HTTPS_PROXY"},
		{"proxy wants a password", afar, []string{"HTTPS_PROXY=http://" + fakeProxy(t, http.StatusProxyAuthRequired)}, "wants a user name and password", "http://USER:PASSWORD@127.0.0.1:"},
		{"proxy forbids", afar, []string{"HTTPS_PROXY=http://" + fakeProxy(t, http.StatusForbidden)}, "does not let through to login.example", "Allow CONNECT to login.example"},
		{"no proxy at all", afar, []string{"HTTPS_PROXY=http://" + fakeProxy(t, 0)}, "is no HTTP proxy", "Check HTTPS_PROXY"},
		{"proxy is no address", afar, []string{"HTTPS_PROXY=://"}, "HTTPS_PROXY is no address", "http://proxy.example.com:3128"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			flags := make(map[string]string)
			for k, v := range w.flags {
				flags[k] = v
			}
			flags["login-url"], flags["config"] = tt.login, filepath.Join(t.TempDir(), "postern.yaml")
			run := func(args ...string) string {
				cmd := exec.Command(program(t), args...)
				cmd.Env = append(os.Environ(), "NO_PROXY=", "no_proxy=", "https_proxy=")
				cmd.Env = append(cmd.Env, tt.env...)
				out, err := cmd.CombinedOutput()
				if err == nil {
					t.Errorf("%s succeeds:\n%s", args[0], out)
				}
				return string(out)
			}
			args := []string{"setup", "--no-input"}
			for k, v := range flags {
				args = append(args, "--"+k, v)
			}
			said := run(args...)
			saidInOneLine(t, "setup", said, tt.what, tt.remedy)
			if n := strings.Count(said, tt.what); n != 1 {
				t.Errorf("setup says it %d times:\n%s", n, said)
			}
			cmd := exec.Command(program(t), append(args, "--skip-checks")...)
			cmd.Env = append(os.Environ(), tt.env...)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("setup --skip-checks: %v\n%s", err, out)
			}
			out := run("doctor", "-c", flags["config"])
			saidInOneLine(t, "doctor", out, tt.what, tt.remedy)
			if n := strings.Count(out, tt.what); n != 1 {
				t.Errorf("doctor says it %d times:\n%s", n, out)
			}
		})
	}
}

// saidInOneLine looks for a line with both.
func saidInOneLine(t *testing.T, who, out, what, remedy string) {
	t.Helper()
	for line := range strings.Lines(out) {
		if strings.Contains(line, what) && strings.Contains(line, remedy) {
			return
		}
	}
	t.Errorf("%s has no line with %q and %q:\n%s", who, what, remedy, out)
}

// serverCertificate makes a certificate that is its own authority, and a file with it.
func serverCertificate(t *testing.T, name string, from, to time.Time) (file string, cert tls.Certificate) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: to,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	if ip := net.ParseIP(name); ip != nil {
		tmpl.IPAddresses = []net.IP{ip}
	} else {
		tmpl.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// tlsServer answers nothing, but shows a certificate.
func tlsServer(t *testing.T, cert tls.Certificate) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = http.Serve(l, http.NotFoundHandler()) }() // ends with the listener
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// fakeProxy answers each CONNECT with a status, or with what is no HTTP at all.
func fakeProxy(t *testing.T, status int) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = http.ReadRequest(bufio.NewReader(c)) // any will do
				if status == 0 {
					_, _ = io.WriteString(c, "SSH-2.0-x\r\n")
					return
				}
				fmt.Fprintf(c, "HTTP/1.1 %d %s\r\nContent-Length: 0\r\n\r\n", status, http.StatusText(status))
			}()
		}
	}()
	return l.Addr().String()
}

// Everything but a managed identity goes through the proxy that the environment names, and past it where NO_PROXY says so.
func TestE2EProxy(t *testing.T) {
	w := newSetupWorld(t)
	w.sim.AddManagedIdentity(sampleTenant, sampleClientID)
	var mu sync.Mutex
	asked := make(map[string]int)
	proxy := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked[r.Host+map[bool]string{true: " token", false: ""}[strings.HasSuffix(r.URL.Path, "/token")]]++
		mu.Unlock()
		w.sim.ServeHTTP(rw, r)
	}))
	t.Cleanup(proxy.Close)
	run := func(env []string, args ...string) (string, error) {
		cmd := exec.Command(program(t), args...)
		cmd.Env = append(os.Environ(), append([]string{"HTTP_PROXY=" + proxy.URL, "NO_PROXY=", "no_proxy=", "http_proxy="}, env...)...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	flags := func(more ...string) []string {
		args := []string{"setup", "--no-input", "--force"}
		for k, v := range w.flags {
			if v != "" {
				args = append(args, "--"+k, v)
			}
		}
		return append(args, more...)
	}
	w.flags["login-url"], w.flags["graph-url"] = "http://login.afar.example", "http://graph.afar.example"
	if err := os.Chmod(w.flags["client-secret-file"], 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := run(nil, flags()...); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, _ := run(nil, "doctor", "-c", w.flags["config"]) // warns that http is no https
	saidInOneLine(t, "doctor", out, "Graph host graph.afar.example: answers", "through the proxy "+strings.TrimPrefix(proxy.URL, "http://"))
	if asked["login.afar.example token"] == 0 || asked["graph.afar.example"] == 0 {
		t.Errorf("the proxy was asked for %v", asked)
	}
	if out, err := run([]string{"NO_PROXY=.afar.example"}, "doctor", "-c", w.flags["config"]); err == nil || !strings.Contains(out, "the name login.afar.example") {
		t.Errorf("past the proxy: %v\n%s", err, out)
	}

	// The identity service answers on this machine; the name stands for its address, which the proxy must not see.
	clear(asked)
	w.flags["login-url"], w.flags["client-secret-file"], w.flags["tenant"], w.flags["client-id"] = "http://identity.afar.example", "", "", ""
	if out, err := run(nil, flags("--sign-in", "managed-identity")...); err == nil || !strings.Contains(out, "sign-in") {
		t.Errorf("the identity was found through the proxy: %v\n%s", err, out)
	}
	if asked["identity.afar.example token"] != 0 {
		t.Errorf("the proxy was asked for the identity: %v", asked)
	}
}
