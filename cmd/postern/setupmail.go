package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"postern/backend"
)

func (s *setup) askMailboxes(ctx context.Context) error {
	if s.ask && len(s.Mailboxes) == 0 {
		s.say("\nStep 4: mailboxes. Enter the user principal names of those that get a login of their own, an empty line ends.")
		if err := s.askAddresses(ctx, "Mailbox", "mailbox", &s.Mailboxes, true); err != nil {
			return err
		}
		s.say("Shared mailboxes, which the logins see beside their own; an empty line ends.")
		if err := s.askAddresses(ctx, "Shared mailbox", "shared", &s.Shared, false); err != nil {
			return err
		}
		if len(s.Shared) > 0 && !s.SendAsShared {
			var err error
			if s.SendAsShared, err = s.yes("May the logins also send as "+strings.Join(s.Shared, ", ")+"?", false); err != nil {
				return err
			}
		}
		return nil
	}
	if len(s.Mailboxes) == 0 {
		return errors.New("--mailbox is missing: the user principal name of a mailbox")
	}
	for _, address := range append(slices.Clone(s.Mailboxes), s.Shared...) {
		if text := s.mailboxFault(ctx, address); text != "" && !s.SkipChecks {
			return fmt.Errorf("%s (--skip-checks writes the configuration all the same)", text)
		}
	}
	return nil
}

// askAddresses adds to list what is entered, one address or several on each line, and can be opened. needed asks until
// there is one.
func (s *setup) askAddresses(ctx context.Context, label, flag string, list *[]string, needed bool) error {
	for {
		def := optional
		if needed && len(*list) == 0 {
			def = ""
		}
		entered, err := s.line(label, flag, def)
		if err != nil {
			return err
		}
		addresses := strings.FieldsFunc(entered, func(r rune) bool { return strings.ContainsRune(" \t,;", r) })
		if len(addresses) == 0 && (!needed || len(*list) > 0) {
			return nil
		}
		for _, a := range addresses {
			if s.tryMailbox(ctx, a) {
				*list = append(*list, a)
			}
		}
	}
}

// mailboxFault opens a mailbox, says how that went, and returns what is wrong.
func (s *setup) mailboxFault(ctx context.Context, address string) string {
	if !isMailbox(address) {
		return address + " is neither an address nor an object id"
	}
	f, err := s.open(ctx, s.cred, address)
	if err != nil {
		detail, remedy := explainMailbox(err, s.cred, address, s.named)
		if s.ask || s.SkipChecks {
			s.say("%s", line(failed, "mailbox "+address, detail, remedy))
		}
		return fmt.Sprintf("mailbox %s: %s. %s", address, detail, remedy)
	}
	s.say("%s", line(fine, "mailbox "+address, count(f.TotalItemCount, "message")+" in the Inbox", ""))
	return ""
}

func isMailbox(s string) bool { return strings.Contains(s, "@") || guid.MatchString(s) }

// tryMailbox reports whether to take a mailbox into the configuration: it opens, or the person keeps it.
func (s *setup) tryMailbox(ctx context.Context, address string) bool {
	if slices.ContainsFunc(append(slices.Clone(s.Mailboxes), s.Shared...), func(a string) bool { return strings.EqualFold(a, address) }) {
		s.say("%s is in the list already.", address)
		return false
	}
	if !isMailbox(address) {
		s.say("%s is neither an address nor an object id.", address)
		return false
	}
	for s.mailboxFault(ctx, address) != "" {
		what, err := s.choose("What now", "", "drop", [][2]string{{"drop", "leave this mailbox out, or enter it again"}, {"retry", "try again"}, {"keep", "take it, and mend it later"}})
		if err != nil || what == "drop" {
			return false
		}
		if what == "keep" {
			return true
		}
	}
	return true
}

func (s *setup) askListeners(context.Context) error {
	if s.ask && s.SMTP+s.IMAP+s.HTTP == "" {
		s.say("\nStep 5: where mail programs connect. 127.0.0.1 is this machine only; for printers and other machines write :587 and :993.")
	}
	taken := map[string]bool{}
	for _, l := range []struct {
		value               *string
		protocol, flag, def string
	}{{&s.SMTP, "smtp", "smtp", "127.0.0.1:2525"}, {&s.IMAP, "imap", "imap", "127.0.0.1:1143"}, {&s.HTTP, "http", "http", "127.0.0.1:8025"}} {
		what := map[string]string{"smtp": "SMTP", "imap": "IMAP", "http": "Pages"}[l.protocol]
		given := *l.value != ""
		for {
			if *l.value == "" {
				v, err := s.must(what+" address", l.flag, l.def)
				if err != nil {
					return err
				}
				*l.value = v
			}
			problem := addressFault(*l.value, l.protocol, taken)
			if problem == "" {
				taken[*l.value] = true
				break
			}
			if !s.ask || given && s.SkipChecks {
				if s.SkipChecks {
					break
				}
				return fmt.Errorf("--%s %s: %s", l.flag, *l.value, problem)
			}
			s.say("%s", line(failed, what, problem, "Choose another address or port."))
			*l.value, given = "", false
		}
	}
	return s.askTLS()
}

// addressFault says why nobody could listen at an address.
func addressFault(address, protocol string, taken map[string]bool) string {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return "that is no host and port: write it like 127.0.0.1:2525"
	}
	if port != "0" && taken[address] {
		return "that address is used above already"
	}
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return strings.TrimPrefix(explainListenError(listenerConfig{Protocol: protocol, Address: address}, err).Error(), protocol+": ")
	}
	ln.Close()
	return ""
}

// open to other machines, which needs TLS.
func (s *setup) reachable(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err == nil && !loopbackHost(host)
}

const (
	setupTLSFile    = "tls-cert.pem"
	setupTLSKeyFile = "tls-key.pem"
	tlsLife         = 825 * 24 * time.Hour // more is refused by Apple's programs
)

func (s *setup) askTLS() error {
	if !s.reachable(s.SMTP) && !s.reachable(s.IMAP) && !s.reachable(s.HTTP) {
		return nil
	}
	if s.TLSCertificate == "" {
		if s.ask {
			s.say("Other machines reach these listeners, so they use TLS. Name a certificate (PEM with its chain), or write new: one is made,\n" +
				"which every mail program must be told to trust.")
		}
		var err error
		if s.TLSCertificate, err = s.must("TLS certificate file", "tls-certificate", "new"); err != nil {
			return err
		}
		if s.TLSCertificate != "new" {
			if s.TLSKey, err = s.must("Its key", "tls-key", ""); err != nil {
				return err
			}
		}
	}
	if s.TLSCertificate != "new" {
		problem := s.tlsFault()
		if problem == "" || s.SkipChecks {
			return nil
		}
		if !s.ask {
			return errors.New(problem)
		}
		s.say("%s", line(failed, "TLS certificate", problem, ""))
		s.TLSCertificate, s.TLSKey = "", ""
		return s.askTLS()
	}
	cert, key, err := selfSigned(hostname(), []string{hostname(), "localhost", "127.0.0.1", "::1"}, tlsLife, true)
	if err != nil {
		return err
	}
	s.TLSCertificate, s.TLSKey = filepath.Join(s.dir, setupTLSFile), filepath.Join(s.dir, setupTLSKeyFile)
	s.files[s.TLSCertificate], s.files[s.TLSKey] = cert, key
	return nil
}

// tlsFault says why the certificate for listeners cannot be used.
func (s *setup) tlsFault() string {
	if s.TLSKey == "" {
		return "--tls-key is missing: the file with the certificate's key"
	}
	if _, err := s.readPrivate(s.TLSKey); err != nil {
		return err.Error()
	}
	pair, err := tls.LoadX509KeyPair(s.TLSCertificate, s.TLSKey)
	if err != nil {
		return err.Error() + ": name a PEM certificate with its chain, and its key"
	}
	if end := pair.Leaf.NotAfter; time.Now().After(end) {
		return fmt.Sprintf("the certificate %s has expired on %s: renew it", s.TLSCertificate, end.Format(time.DateOnly))
	}
	return ""
}

func (s *setup) makeLogins(context.Context) error {
	if s.ask {
		s.say("\nStep 6: logins. Each mailbox gets a user name and a password of Postern's own; Microsoft never sees them.")
	}
	for _, address := range s.Mailboxes {
		name, err := s.line("User name for "+address, "", address)
		if err != nil {
			return err
		}
		for slices.ContainsFunc(s.logins, func(l newLogin) bool { return strings.EqualFold(l.Username, name) }) {
			s.say("There is a login of that name already.")
			if name, err = s.must("User name for "+address, "", address); err != nil {
				return err
			}
		}
		l := newLogin{loginConfig: loginConfig{Username: name, Mailbox: address, Shared: s.Shared, Allow: []string{"smtp", "imap"}}, password: backend.NewPassword()}
		if s.SendAsShared {
			l.SendAs = s.Shared
		}
		if l.PasswordHash, err = backend.HashPassword(l.password); err != nil {
			return err
		}
		s.logins = append(s.logins, l)
	}
	return s.makeAdmin()
}

// makeAdmin makes the login for the pages.
func (s *setup) makeAdmin() (err error) {
	name := "admin"
	for n := 2; slices.ContainsFunc(s.logins, func(l newLogin) bool { return strings.EqualFold(l.Username, name) }); n++ {
		name = fmt.Sprintf("admin%d", n)
	}
	l := newLogin{loginConfig: loginConfig{Username: name, Allow: []string{"admin"}}, password: backend.NewPassword()}
	if l.PasswordHash, err = backend.HashPassword(l.password); err == nil {
		s.logins = append(s.logins, l)
	}
	return err
}

// beside writes a file's name as seen from the configuration's folder.
func (s *setup) beside(name string) string {
	abs, err := filepath.Abs(name)
	if err != nil {
		return name
	}
	dir, err := filepath.Abs(s.dir)
	if err != nil {
		return abs
	}
	if rel, err := filepath.Rel(dir, abs); err == nil && !strings.HasPrefix(rel, "..") {
		return rel
	}
	return abs
}

// text is the configuration.
func (s *setup) text() string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	opt := func(key, value string) {
		if value != "" {
			p("    %s: %s", key, quote(value))
		}
	}
	p("# Written by postern setup on %s. Every key is described in docs/configuration.md.", time.Now().Format(time.DateOnly))
	p("# After a change: postern config check, then postern reload. Is something wrong? postern doctor.")
	p("")
	p("# Copy of the mailboxes, mail waiting to be sent. Seen from this file's folder.")
	p("state: %s", quote(s.State))
	p("")
	p("credentials:")
	p("  %s:", s.Name)
	opt("tenant", s.Tenant)
	opt("client_id", s.ClientID)
	switch s.SignIn {
	case "secret":
		opt("client_secret_file", s.beside(s.ClientSecretFile))
		opt("secret_expires", s.SecretExpires)
	case "certificate", "new-certificate":
		opt("certificate", s.beside(s.Certificate))
		if s.Key != "" {
			opt("key", s.beside(s.Key))
		}
		if s.CertificatePasswordFile != "" {
			opt("certificate_password_file", s.beside(s.CertificatePasswordFile))
		}
	case "federated":
		opt("federated_token_file", s.FederatedTokenFile)
	case "managed-identity":
		opt("managed_identity", "auto")
	case "device-code":
		opt("device_code", s.User)
	}
	opt("cloud", s.Cloud)
	opt("login_url", s.LoginURL)
	opt("graph_url", s.GraphURL)
	p("")
	p("mailboxes:")
	for _, m := range append(slices.Clone(s.Mailboxes), s.Shared...) {
		p("  - {address: %s, credential: %s}", quote(m), s.Name)
	}
	p("")
	p("# Postern's own user names and passwords; see also: postern login --help")
	p("logins:")
	for _, l := range s.logins {
		for _, text := range loginLines(l.loginConfig, "  ") {
			p("%s", text)
		}
	}
	p("")
	p("listeners:")
	p("  - {protocol: smtp, address: '%s', tls: %s}", s.SMTP, s.tls(s.SMTP))
	p("  - {protocol: imap, address: '%s', tls: %s}", s.IMAP, s.tls(s.IMAP))
	if s.reachable(s.HTTP) {
		p("  - {protocol: http, address: '%s', tls: implicit}", s.HTTP)
	} else {
		p("  - {protocol: http, address: '%s'}", s.HTTP)
	}
	if s.TLSCertificate != "" {
		p("")
		p("tls: {certificate: %s, key: %s}", quote(s.beside(s.TLSCertificate)), quote(s.beside(s.TLSKey)))
	}
	return b.String()
}

// tls is the mode of a listener: ports 465 and 993 speak TLS from the first byte.
func (s *setup) tls(address string) string {
	if !s.reachable(address) {
		return "none"
	}
	if _, port, _ := net.SplitHostPort(address); port == "465" || port == "993" {
		return "implicit"
	}
	return "starttls"
}

// write puts all files in place, the configuration last.
func (s *setup) write(context.Context) error {
	s.stateDir()
	if s.SignIn == "secret" && s.ClientSecretFile == "" {
		s.ClientSecretFile = filepath.Join(s.dir, setupSecretFile)
		s.files[s.ClientSecretFile] = []byte(s.typed + "\n")
	}
	text := s.text()
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	for name, data := range s.files {
		if err := writePrivate(name, data); err != nil {
			return err
		}
	}
	// A configuration that serve would refuse is a fault of setup's, and better found now.
	c := parseConfig(s.Config, []byte(text), os.LookupEnv)
	if err := c.err(); err != nil {
		return fmt.Errorf("the configuration would not be right, and is not written:\n%w", err)
	}
	return writePrivate(s.Config, []byte(text))
}

// writePrivate writes a file with mode 0600 in one step; with 0640 where the folder is shared with a service's group.
func writePrivate(name string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".postern-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails after the rename, as it should
	_, err = f.Write(data)
	if err = errors.Join(err, shareWithGroup(f), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return os.Rename(f.Name(), name)
}

func (s *setup) printResult() {
	s.say("\nWritten: %s. The passwords are shown this once; the file holds only their hashes.\n", s.Config)
	for _, l := range s.logins {
		purpose := ""
		if l.onlyAdmin() {
			purpose = ", for the pages below"
		}
		s.say("  user name  %s%s\n  password   %s\n", l.Username, purpose, l.password)
	}
	s.say("Start it:    postern serve --config %s\nCheck it:    postern doctor --config %s\nLook at it:  %s://%s/\n", s.Config, s.Config, map[bool]string{true: "https", false: "http"}[s.reachable(s.HTTP)], s.HTTP)
	s.printTry()
	smtpHost, smtpPort := clientAddress(s.SMTP)
	imapHost, imapPort := clientAddress(s.IMAP)
	smtpTLS, imapTLS := clientSecurity(s.tls(s.SMTP)), clientSecurity(s.tls(s.IMAP))
	s.say("Settings of mail programs; user name and password as above.\n")
	s.say("  %-13s %-34s %s", "", "incoming (IMAP)", "outgoing (SMTP)")
	s.say("  %-13s %-34s %s", "server", imapHost, smtpHost)
	s.say("  %-13s %-34s %s", "port", imapPort, smtpPort)
	s.say("  %-13s %-34s %s", "security", imapTLS, smtpTLS)
	s.say("  %-13s %-34s %s\n", "password", "normal password", "normal password")
	s.say("  Thunderbird   Account Settings > Add Mail Account > Configure manually; authentication: Normal password.")
	s.say("  Outlook       File > Manage Profiles > Email Accounts > New > Manual setup > POP or IMAP; More Settings > Outgoing Server: my server requires authentication.")
	s.say("  Apple Mail    Add Account > Other Mail Account; let the verification fail once, then enter servers and ports.")
	if s.reachable(s.SMTP) {
		s.say("  Printer       SMTP server %s, port %s, %s, SMTP authentication on, sender address %s.", smtpHost, smtpPort, smtpTLS, s.Mailboxes[0])
	} else {
		s.say("  Printer       needs a listener that other machines reach: run setup with --smtp :587, or see docs/clients.md.")
	}
	s.say("  Others        docs/clients.md")
}

// printTry shows how to send and read a first message. The doctor sends without a login, so that the first
// thing to work is the easiest one.
func (s *setup) printTry() {
	l := s.logins[0]
	s.say("Try it:\n  postern doctor --config %s --send-test %s", s.Config, s.Mailboxes[0])
	if host, port := clientAddress(s.IMAP); s.tls(s.IMAP) == "none" {
		s.say("  curl -sS -u '%s:%s' 'imap://%s/INBOX;MAILINDEX=*'      # once it runs: the newest message", l.Username, l.password, net.JoinHostPort(host, port))
	}
	s.say("")
}

// clientAddress is what a mail program is told.
func clientAddress(address string) (host, port string) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address, ""
	}
	if addr := net.ParseIP(host); host == "" || addr != nil && addr.IsUnspecified() {
		host = hostname()
	}
	return host, port
}

func clientSecurity(tls string) string {
	return map[string]string{"none": "none (this machine only)", "starttls": "STARTTLS", "implicit": "SSL/TLS"}[tls]
}
