package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// portFinding says whether a listener's address is free, or a Postern answers there.
func portFinding(ctx context.Context, l listenerConfig) finding {
	check := l.Protocol + " " + l.Address
	if name, ok := l.inherited(); ok {
		return finding{check, fine, "systemd opens it: systemctl list-sockets shows the address of " + name, ""}
	}
	ln, err := net.Listen("tcp", l.Address)
	if err == nil {
		ln.Close()
		return finding{check, fine, "the port is free", ""}
	}
	if !errors.Is(err, syscall.EADDRINUSE) {
		err = explainListenError(l, err)
		return finding{check, failed, strings.TrimPrefix(err.Error(), l.Protocol+": "), "Choose another address or port under listeners."}
	}
	if answersAs(ctx, l) {
		return finding{check, fine, "a server of this kind answers, as a running Postern does", ""}
	}
	_, port, _ := net.SplitHostPort(l.Address)
	return finding{check, failed, "the port is taken by another program", fmt.Sprintf("Find it with ss -ltnp 'sport = :%s' and stop it, or choose another port under listeners.", port)}
}

// answersAs reports whether what listens at the address speaks the listener's protocol.
func answersAs(ctx context.Context, l listenerConfig) bool {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	host, port, err := net.SplitHostPort(l.Address)
	if err != nil {
		return false
	}
	if host == "" || host == "0.0.0.0" {
		host = "127.0.0.1"
	} else if host == "::" {
		host = "::1"
	}
	address := net.JoinHostPort(host, port)
	if l.Protocol == "http" {
		scheme := map[bool]string{true: "https", false: "http"}[l.usesTLS()]
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+address+"/healthz", nil)
		if err != nil {
			return false
		}
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true, // no proxy: it is here
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}).Do(req) // #nosec: only this word is looked at
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 16)) // a short answer is no "ok"
		return strings.TrimSpace(string(b)) == "ok"
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline) // fails on closed connections only, which the read tells
	if l.TLS == "implicit" {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) // #nosec: only the greeting is looked at
	}
	line, err := bufio.NewReaderSize(conn, 512).ReadString('\n')
	want := map[string]string{"smtp": "220 ", "imap": "* OK"}[l.Protocol]
	return err == nil && strings.HasPrefix(line, want)
}

// certificateFinding looks at the listeners' certificate.
func certificateFinding(c *configFile, now time.Time) finding {
	check := "listener certificate"
	if c.TLS.Certificate == "" {
		return finding{check, fine, "none, and no listener needs one", ""}
	}
	pair, err := tls.LoadX509KeyPair(c.beside(c.TLS.Certificate), c.beside(c.TLS.Key))
	if err != nil {
		return finding{check, failed, err.Error(), "Put a PEM certificate and its key where tls names them."}
	}
	left := pair.Leaf.NotAfter.Sub(now)
	day := pair.Leaf.NotAfter.Format(time.DateOnly)
	names := strings.Join(pair.Leaf.DNSNames, ", ")
	for _, ip := range pair.Leaf.IPAddresses {
		names = strings.TrimPrefix(names+", "+ip.String(), ", ")
	}
	switch {
	case left < 0:
		return finding{check, failed, "expired on " + day, "Renew it; the server takes it over by itself within half a minute."}
	case left < 14*24*time.Hour:
		return finding{check, warning, "expires on " + day, "Renew it; the server takes it over by itself within half a minute."}
	}
	return finding{check, fine, fmt.Sprintf("for %s, until %s", names, day), ""}
}

// Below these the queue may soon have no room.
const (
	diskWarn = 1 << 30
	diskFail = 100 << 20
)

// stateFindings looks at the state folder: there, ours, closed to others, and with room.
func stateFindings(dir string) []finding {
	info, err := os.Stat(dir)
	space := dir
	var first finding
	switch {
	case errors.Is(err, os.ErrNotExist):
		for space = filepath.Dir(dir); ; space = filepath.Dir(space) {
			if _, err := os.Stat(space); err == nil || space == filepath.Dir(space) {
				break
			}
		}
		first = finding{"state folder", fine, dir + " is made when the server starts", ""}
		if !mayWrite(space) {
			first = finding{"state folder", failed, dir + " is not there and this user may not make it", "Make it for the user that runs Postern, or choose another folder under state."}
		}
	case err != nil:
		first = finding{"state folder", failed, err.Error(), "Let the user that runs Postern own it."}
	case !info.IsDir():
		first = finding{"state folder", failed, dir + " is no folder", "Choose another name under state."}
	case !mayWrite(dir):
		first = finding{"state folder", failed, "this user may not write into " + dir, "Run doctor as the user that runs Postern, or let that user own the folder."}
	case info.Mode().Perm()&0o077 != 0 && othersEnter(info):
		first = finding{"state folder", warning, fmt.Sprintf("%s has mode %04o: others can look into it", dir, info.Mode().Perm()), "chmod 700 " + dir}
	default:
		first = finding{"state folder", fine, dir, ""}
	}
	free, known := diskFree(space)
	disk := finding{"disk", fine, fmt.Sprintf("%.1f GB free", float64(free)/1e9), ""}
	switch {
	case !known:
		disk = finding{"disk", fine, "free space is not known on this system", ""}
	case free < diskFail:
		disk.Status, disk.Remedy = failed, "Make room: mail waiting to be sent is kept there."
	case free < diskWarn:
		disk.Status, disk.Remedy = warning, "Make room, or lower cache.bodies."
	}
	return []finding{first, disk}
}

func othersEnter(info os.FileInfo) bool { return info.Mode().Perm()&0o005 != 0 }
