package graph

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
)

// proxyError is the answer of a proxy that does not let us through.
type proxyError struct {
	host   string
	status int
}

func (e *proxyError) Error() string {
	return fmt.Sprintf("proxy %s answers %d %s", e.host, e.status, http.StatusText(e.status))
}

// checkProxy gives a proxy's refusal a type; net/http makes a mere text of it.
func checkProxy(_ context.Context, proxy *url.URL, _ *http.Request, answer *http.Response) error {
	if answer.StatusCode == http.StatusOK {
		return nil
	}
	return &proxyError{proxy.Host, answer.StatusCode}
}

// ExplainNetwork says in plain words why a host could not be reached, and what an administrator can do about it. ok is
// false for an error that is none of the way there, because an answer came.
func ExplainNetwork(err error) (detail, remedy string, ok bool) {
	var way *wayError
	if !errors.As(err, &way) {
		way, _ = withoutURL(err).(*wayError)
	}
	if way == nil {
		return "", "", false
	}
	host, proxy := way.target.Host, ""
	if p, e := http.ProxyFromEnvironment(&http.Request{URL: way.target}); e == nil && p != nil {
		proxy = p.Host
	}
	err = way.err
	if proxy != "" {
		if detail, remedy = explainProxy(err, proxy, host); detail != "" {
			return detail, remedy, true
		}
	}
	if detail, remedy = explainTLS(err, host); detail != "" {
		if proxy != "" {
			detail += ", through the proxy " + proxy
		}
		return detail, remedy, true
	}
	name, port := way.target.Hostname(), way.target.Port()
	if port == "" {
		port = "443"
	}
	allow := "Allow outgoing connections to " + name + " on port " + port + ", or set HTTPS_PROXY if this machine reaches the internet through a proxy only."
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return "the name " + dns.Name + " does not exist for this machine's name servers",
			"Check the name servers (resolvectl status), login_url and graph_url if they are set, or set HTTPS_PROXY if this machine reaches the internet through a proxy only.", true
	case errors.As(err, &dns):
		return "the name " + dns.Name + " cannot be looked up: this machine's name servers do not answer", "Check the name servers (resolvectl status).", true
	case errors.Is(err, syscall.ECONNREFUSED):
		return host + " refuses the connection", allow, true
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return "this machine has no route to " + host, "Check its network.", true
	case errors.Is(err, context.Canceled):
		return "", "", false
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return host + " does not answer", allow, true
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.EPIPE):
		return "the connection to " + host + " is cut", "If it stays so, look at firewalls on the way.", true
	}
	return fmt.Sprintf("%s cannot be reached: %v", host, err), allow, true
}

// explainProxy finds what is wrong with the proxy itself.
func explainProxy(err error, proxy, host string) (detail, remedy string) {
	const check = "Check HTTPS_PROXY, or unset it if this machine needs no proxy."
	var refused *proxyError
	var op *net.OpError
	var dns *net.DNSError
	switch {
	case errors.As(err, &refused) && refused.status == http.StatusProxyAuthRequired:
		return "the proxy " + proxy + " wants a user name and password", "Write them into HTTPS_PROXY: http://USER:PASSWORD@" + proxy + "."
	case errors.As(err, &refused):
		return fmt.Sprintf("the proxy %s does not let through to %s (status %d)", proxy, host, refused.status), "Allow CONNECT to " + host + " there."
	case strings.HasPrefix(proxy, ":"):
		return "HTTPS_PROXY is no address", "Write it like http://proxy.example.com:3128, or unset it if this machine needs no proxy."
	case errors.As(err, &op) && op.Op == "proxyconnect" && errors.As(err, &dns):
		return "the proxy's name " + dns.Name + " cannot be resolved", check
	case errors.As(err, &op) && op.Op == "proxyconnect" && errors.Is(err, syscall.ECONNREFUSED):
		return "nothing answers at the proxy " + proxy, check
	case errors.As(err, &op) && op.Op == "proxyconnect":
		return fmt.Sprintf("the proxy %s cannot be reached: %v", proxy, op.Err), check
	case strings.Contains(err.Error(), "malformed HTTP"):
		return "what answers at " + proxy + " is no HTTP proxy", check
	}
	return "", ""
}

// explainTLS finds what is wrong with a host's certificate.
func explainTLS(err error, host string) (detail, remedy string) {
	const elsewhere = "Something answers in its place: check the name servers, the proxy, and login_url or graph_url if they are set."
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var name x509.HostnameError
	var roots x509.SystemRootsError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	switch {
	case errors.As(err, &roots):
		return "this machine has no list of certificate authorities", "Install it: the package is called ca-certificates."
	case errors.As(err, &unknown):
		return host + " shows a certificate of an unknown authority",
			"A firewall breaks TLS open: let it pass " + host + " untouched, or add its authority to this machine's certificates (update-ca-certificates); if this machine has none at all, install ca-certificates."
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return host + "'s certificate is not valid at this machine's time", "Set this machine's clock."
	case errors.As(err, &invalid):
		return host + " shows a certificate that cannot be accepted: " + invalid.Error(), elsewhere
	case errors.As(err, &name):
		return host + " shows a certificate of another name", elsewhere
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return host + " does not speak TLS", elsewhere
	case errors.As(err, &alert):
		return host + " refuses the TLS connection: " + alert.Error(), elsewhere
	}
	return "", ""
}
