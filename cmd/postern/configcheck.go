package main

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"postern/backend"
)

func sortProblems(p []problem) []problem {
	return slices.SortedStableFunc(slices.Values(p), func(a, b problem) int { return cmp.Compare(a.line, b.line) })
}

// check looks for what no single key shows: missing and clashing keys, references that lead nowhere, risky listeners.
func (c *configFile) check() {
	c.checkState()
	for _, name := range slices.Sorted(maps.Keys(c.Credentials)) {
		cred := c.Credentials[name]
		c.checkCredential("credentials."+name, &cred)
		c.Credentials[name] = cred
	}
	mailboxes := c.checkMailboxes()
	c.checkLogins(mailboxes)
	if m := c.ExpiryMail; m != "" && !mailboxes[strings.ToLower(m)] {
		c.errorf("expiry_mail", "%s is not among mailboxes: add it there, with its credential", m)
	}
	c.checkListeners()
	c.checkSMTPListeners(mailboxes)
	c.checkHTTP()
	c.checkSendmail(mailboxes)
	c.checkTLS()
	c.checkLimits()
}

func (c *configFile) checkState() {
	switch {
	case strings.HasPrefix(c.State, "postgres://"), strings.HasPrefix(c.State, "postgresql://"):
		c.errorf("state", "PostgreSQL is not yet available: name a folder, such as /var/lib/postern")
	case strings.Contains(c.State, "://"):
		c.errorf("state", "write the name of a folder, such as /var/lib/postern")
	case c.State == "":
		c.errorf("state", "is empty: write the name of a folder, such as /var/lib/postern")
	}
	if c.StateDir != "" {
		c.errorf("state_dir", "belongs to PostgreSQL, which is not yet available: take it out")
	}
	c.State = c.beside(c.State)
}

func (c *configFile) checkCredential(path string, cred *credentialConfig) {
	if identity := cred.ManagedIdentity != ""; identity && cred.Tenant == "" {
		// The machine knows its own tenant; client_id only picks one of several identities.
	} else if c.missing(path+".tenant", cred.Tenant) {
		c.errorf(path, "tenant is missing: the Directory (tenant) ID or a domain of the tenant")
	} else if strings.ContainsAny(cred.Tenant, "/?# ") {
		c.errorf(path+".tenant", "write the directory id or a domain, not an address")
	}
	if cred.ManagedIdentity == "" && c.missing(path+".client_id", cred.ClientID) {
		c.errorf(path, "client_id is missing: the Application (client) ID shown on the app registration's first page")
	}
	c.checkSignIn(path, cred)
	if cred.Cloud == "" {
		cred.Cloud = "global"
	}
	c.oneOf(path+".cloud", cred.Cloud, "global", "usgov", "usgov-dod", "china")
	c.checkURL(path+".login_url", cred.LoginURL)
	c.checkURL(path+".graph_url", cred.GraphURL)
}

// missing reports whether the key at path has no value, and nothing has been said about it yet.
func (c *configFile) missing(path, value string) bool {
	return value == "" && !slices.ContainsFunc(c.errors, func(p problem) bool { return strings.HasPrefix(p.text, at(path)) })
}

var guid = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

func (c *configFile) checkURL(path, s string) {
	if s == "" {
		return
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.User != nil {
		c.errorf(path, "%q is no address: write it like https://host or http://127.0.0.1:9700", s)
		return
	}
	if strings.HasSuffix(strings.TrimRight(u.Path, "/"), "/v1.0") {
		c.errorf(path, "leave out /v1.0: Postern adds it itself")
	}
	if u.Scheme == "http" && !loopbackHost(u.Hostname()) {
		c.warnf(path, "secrets and mail travel in clear to %s: use https", u.Host)
	}
}

// checkMailboxes returns the mailboxes by address and alias, folded.
func (c *configFile) checkMailboxes() map[string]bool {
	known := make(map[string]bool)
	if len(c.Mailboxes) == 0 && len(c.errors) == 0 {
		c.errorf("mailboxes", "there are none: list at least one address with its credential")
	}
	for i, m := range c.Mailboxes {
		path := fmt.Sprintf("mailboxes[%d]", i)
		switch {
		case m.Address == "":
			c.errorf(path, "address is missing")
		case !strings.Contains(m.Address, "@") && !guid.MatchString(m.Address):
			c.errorf(path+".address", "%q is neither an address nor an object id", m.Address)
		}
		switch _, ok := c.Credentials[m.Credential]; {
		case m.Credential == "":
			c.errorf(path, "credential is missing: name one of those under credentials%s", c.names())
		case !ok:
			c.errorf(path+".credential", "there is no credential %q under credentials%s", m.Credential, c.names())
		}
		if _, ok := c.lines[path+".quota"]; ok && m.Quota < 1e6 {
			c.errorf(path+".quota", "%v is too small: at least 1MB; leave it out where it is not known", m.Quota)
		}
		for j, a := range append([]string{m.Address}, m.Aliases...) {
			key := path + ".address"
			if j > 0 {
				key = fmt.Sprintf("%s.aliases[%d]", path, j-1)
				if !strings.Contains(a, "@") {
					c.errorf(key, "%q is no address", a)
				}
			}
			if folded := strings.ToLower(a); a != "" && known[folded] {
				c.errorf(key, "%s is there twice", a)
			} else {
				known[folded] = true
			}
		}
	}
	delete(known, "")
	return known
}

// names lists the credentials there are, for a message.
func (c *configFile) names() string {
	if len(c.Credentials) == 0 {
		return ""
	}
	return " (" + strings.Join(slices.Sorted(maps.Keys(c.Credentials)), ", ") + ")"
}

func (c *configFile) checkLogins(mailboxes map[string]bool) {
	seen := make(map[string]bool)
	for i := range c.Logins {
		l := &c.Logins[i]
		path := fmt.Sprintf("logins[%d]", i)
		name := strings.ToLower(l.Username)
		switch {
		case l.Username == "":
			c.errorf(path, "username is missing")
		case seen[name]:
			c.errorf(path+".username", "%s is there twice; letter case does not count", l.Username)
		}
		seen[name] = true
		c.checkHash(path, l)
		switch {
		case l.Mailbox == "" && l.onlyAdmin():
		case l.Mailbox == "":
			c.errorf(path, "mailbox is missing: one of those under mailboxes")
		case !mailboxes[strings.ToLower(l.Mailbox)]:
			c.errorf(path+".mailbox", "%s is not among mailboxes: add it there, with its credential", l.Mailbox)
		}
		for j, s := range l.Shared {
			if !mailboxes[strings.ToLower(s)] {
				c.errorf(fmt.Sprintf("%s.shared[%d]", path, j), "%s is not among mailboxes: add it there, with its credential", s)
			}
		}
		for j, s := range l.SendAs {
			if !strings.Contains(s, "@") {
				c.errorf(fmt.Sprintf("%s.send_as[%d]", path, j), "%q is no address", s)
			}
		}
		if l.FallbackFrom != "" && !l.RewriteFrom {
			c.errorf(path+".fallback_from", "does nothing without rewrite_from: true")
		}
		c.checkSender(path+".fallback_from", l.FallbackFrom)
		c.checkCopies(path+".save_to_sent", l.SaveToSent)
		c.checkRate(path+".rate", l.Rate)
		c.between(path+".gather", l.Gather, 0, time.Minute)
		switch {
		case l.Allow != nil:
		case l.ReadOnly:
			l.Allow = []string{"imap"}
		default:
			l.Allow = []string{"smtp", "imap"}
		}
		if l.ReadOnly && slices.Contains(l.Allow, "smtp") {
			c.warnf(path+".allow", "smtp does nothing for a login that is read_only")
		}
		if len(l.Allow) == 0 {
			c.errorf(path+".allow", "allows nothing: write smtp, imap or admin, or several of them")
		}
		for j, a := range l.Allow {
			c.oneOf(fmt.Sprintf("%s.allow[%d]", path, j), a, allowed...)
		}
	}
	if len(c.Logins) == 0 && len(c.errors) == 0 {
		c.warnf("logins", "there are none, so nobody can log in: postern login add makes one")
	}
}

// allowed are the values of a login's allow.
var allowed = []string{"smtp", "imap", "admin"}

// onlyAdmin reports whether the login is for the pages alone, and so needs no mailbox.
func (l *loginConfig) onlyAdmin() bool { return len(l.Allow) == 1 && l.Allow[0] == "admin" }

func (c *configFile) checkHash(path string, l *loginConfig) {
	key := path + ".password_hash"
	switch {
	case l.PasswordHash != "" && l.PasswordHashFile != "":
		c.errorf(path+".password_hash_file", "password_hash is there as well: keep one of them")
		return
	case l.PasswordHashFile != "":
		key = path + ".password_hash_file"
		l.PasswordHash = c.secretFile(key, l.PasswordHashFile)
	case l.PasswordHash == "":
		c.errorf(path, "password_hash is missing: postern login hash prints it")
		return
	}
	if l.PasswordHash == "" {
		return // the file could not be read, and that has been said
	}
	if err := backend.CheckHash(l.PasswordHash); err != nil {
		c.errorf(key, "%v; postern login hash prints a good one", err)
	}
	if strings.Contains(exampleConfig, l.PasswordHash) && slices.ContainsFunc(c.Listeners, listenerConfig.reachable) {
		c.errorf(key, "this is the example's password, which everybody knows, and other machines reach a listener: postern login passwd %s", l.Username)
	}
}

func (c *configFile) checkListeners() {
	if len(c.Listeners) == 0 && len(c.errors) == 0 {
		c.errorf("listeners", "there are none: list at least one, such as {protocol: imap, address: \"127.0.0.1:1143\", tls: none}")
	}
	taken := make(map[string]bool)
	for i := range c.Listeners {
		l := &c.Listeners[i]
		path := fmt.Sprintf("listeners[%d]", i)
		if l.Protocol == "" {
			c.errorf(path, "protocol is missing: smtp, imap or http")
		} else {
			c.oneOf(path+".protocol", l.Protocol, "smtp", "imap", "http")
		}
		loopback, known := c.checkAddress(path, l.Address, taken)
		if l.TLS == "" {
			l.TLS = "none"
		}
		switch c.oneOf(path+".tls", l.TLS, "none", "starttls", "implicit"); {
		case l.Protocol == "http" && l.TLS == "starttls":
			c.errorf(path+".tls", "http has no STARTTLS: write implicit (https) or none")
		case l.Protocol == "http" && l.TLS == "none" && known && !loopback && !l.AllowPlaintext:
			c.errorf(path+".tls", "administrators' passwords would cross the network in clear: write implicit (https), listen on 127.0.0.1, or, if you mean it, add allow_plaintext: true")
		case l.TLS == "none" && known && !loopback && !l.AllowPlaintext:
			c.errorf(path+".tls", "passwords and mail would cross the network in clear: write starttls or implicit, listen on 127.0.0.1, or, if you mean it, add allow_plaintext: true")
		case l.usesTLS() && c.TLS == (tlsConfig{}):
			c.errorf(path+".tls", "%s needs a certificate: add tls: {certificate: cert.pem, key: key.pem}", l.TLS)
		}
		c.checkProfile(path, l)
	}
}

// checkAddress reports whether address is one only this machine can reach, and whether it is an address at all.
func (c *configFile) checkAddress(path, address string, taken map[string]bool) (loopback, known bool) {
	if address == "" {
		c.errorf(path, "address is missing, such as \"127.0.0.1:2525\"")
		return false, false
	}
	if name, ok := strings.CutPrefix(address, inheritedPrefix); ok {
		switch {
		case name == "" || strings.ContainsAny(name, ":\x00\n "):
			c.errorf(path+".address", "write the socket's name behind systemd:, as FileDescriptorName= of the socket unit gives it")
		case taken[address]:
			c.errorf(path+".address", "%s is there twice", address)
		}
		taken[address] = true
		return false, false // only known when systemd hands the socket over
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		c.errorf(path+".address", "%q is no host and port: write it like \"127.0.0.1:2525\" or \"[::1]:2525\"", address)
		return false, false
	}
	if _, err := net.LookupPort("tcp", port); err != nil {
		c.errorf(path+".address", "%q is no port", port)
		return false, false
	}
	if port != "0" && taken[address] {
		c.errorf(path+".address", "%s is there twice", address)
	}
	taken[address] = true
	return loopbackHost(host), true
}

// loopbackURL reports whether an address leads to this machine.
func loopbackURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && s != "" && loopbackHost(u.Hostname())
}

// loopbackHost reports whether only this machine can reach host. Names other
// than localhost are not looked up: what they mean may change.
func loopbackHost(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

func (c *configFile) checkProfile(path string, l *listenerConfig) {
	switch _, there := c.lines[path+".profile"]; {
	case l.Protocol != "smtp" && there:
		c.errorf(path+".profile", "is for smtp listeners only")
	case l.Profile == "":
		l.Profile = "modern"
	default:
		c.oneOf(path+".profile", l.Profile, "modern", "device")
	}
}

// checkTLS loads the certificate, so that a wrong file is found now and not by the first client.
func (c *configFile) checkTLS() {
	switch {
	case c.TLS.Certificate == "" && c.TLS.Key == "":
		return
	case c.TLS.Certificate == "" || c.TLS.Key == "":
		c.errorf("tls", "certificate and key belong together: one of them is missing")
		return
	}
	cert, err := tls.LoadX509KeyPair(c.beside(c.TLS.Certificate), c.beside(c.TLS.Key))
	if err != nil && !c.needsCertificate() {
		c.warnf("tls.certificate", "%v; no listener needs it", err)
		return
	}
	if err != nil {
		c.errorf("tls.certificate", "%v", err)
		return
	}
	if left := time.Until(cert.Leaf.NotAfter); left < 0 {
		c.warnf("tls.certificate", "expired on %s", cert.Leaf.NotAfter.Format(time.DateOnly))
	} else if left < 14*24*time.Hour {
		c.warnf("tls.certificate", "expires on %s", cert.Leaf.NotAfter.Format(time.DateOnly))
	}
}

// reachable reports whether other machines can reach the listener, as far as its address tells.
func (l listenerConfig) reachable() bool {
	host, _, err := net.SplitHostPort(l.Address)
	return err == nil && !loopbackHost(host)
}

// usesTLS reports whether the listener needs the certificate.
func (l listenerConfig) usesTLS() bool { return l.TLS == "starttls" || l.TLS == "implicit" }

// needsCertificate reports whether any listener does.
func (c *configFile) needsCertificate() bool {
	return slices.ContainsFunc(c.Listeners, listenerConfig.usesTLS)
}

func (c *configFile) checkLimits() {
	c.oneOf("queue.unsure", c.Queue.Unsure, "hold", "send")
	c.oneOf("imap.size", c.IMAP.Size, "auto", "exact", "estimate")
	c.oneOf("imap.append", c.IMAP.Append, "json", "import-mime")
	c.oneOf("imap.delete", c.IMAP.Delete, "recoverable", "trash", "purge")
	// Mail programs give up on the end of DATA after ten minutes (RFC 5321 section 4.5.3.2.6), many much sooner.
	c.between("smtp.wait", c.SMTP.Wait, 0, 5*time.Minute)
	c.between("imap.poll", c.IMAP.Poll, time.Second, time.Hour)
	c.checkConnections("imap.connections", c.IMAP.Connections)
	c.checkConnections("imap.connections_per_address", c.IMAP.ConnectionsPerAddress)
	c.checkConnections("imap.connections_per_login", c.IMAP.ConnectionsPerLogin)
	c.checkRate("smtp.rate", c.SMTP.Rate)
	c.between("smtp.gather", c.SMTP.Gather, 0, time.Minute)
	c.between("queue.warn", c.Queue.Warn, time.Minute, 30*24*time.Hour)
	c.between("queue.log_keep", c.Queue.LogKeep, time.Hour, 10*365*24*time.Hour)
	c.between("queue.lifetime", c.Queue.Lifetime, time.Minute, 30*24*time.Hour)
	if n := c.SMTP.MaxMessage; n < 1e3 || n > 150<<20 {
		c.errorf("smtp.max_message", "%v is out of range: from 1KB to 150MiB, the largest message Microsoft 365 can be set to take", n)
	}
	if c.Cache.Bodies < 1e6 {
		c.errorf("cache.bodies", "%v is too small: at least 1MB", c.Cache.Bodies)
	}
}

func (c *configFile) checkConnections(path string, n int) {
	// A desktop client opens five or more.
	if n < 5 || n > 100_000 {
		c.errorf(path, "%d is out of range: from 5 to 100000 connections", n)
	}
}

func (c *configFile) between(path string, d, low, high time.Duration) {
	if d < low || d > high {
		c.errorf(path, "%v is out of range: from %v to %v", d, low, high)
	}
}

func (c *configFile) oneOf(path, value string, allowed ...string) {
	if slices.Contains(allowed, value) {
		return
	}
	// Two letters changed places is a distance of two; of short words that would be another word.
	best, near := "", 3
	for _, a := range allowed {
		if n := editDistance(strings.ToLower(value), strings.ToLower(a)); n < near && (n < 2 || len(a) > 3) && n < len(a)/2+1 {
			best, near = a, n
		}
	}
	if best != "" {
		c.errorf(path, "%q is unknown; did you mean %s?", value, best)
		return
	}
	c.errorf(path, "%q is unknown: write %s", value, strings.Join(allowed, ", "))
}
