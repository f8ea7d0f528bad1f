package main

import (
	"crypto/tls"
	"fmt"
	"path/filepath"
	"strings"

	"postern/backend"
)

// checkSMTPListeners checks what only listeners for mail to be sent have.
func (c *configFile) checkSMTPListeners(mailboxes map[string]bool) {
	for i := range c.Listeners {
		l := &c.Listeners[i]
		path := fmt.Sprintf("listeners[%d]", i)
		if l.Protocol != "smtp" {
			for _, key := range []string{"networks", "mailbox", "send_as", "rewrite_from", "fallback_from", "save_to_sent"} {
				if _, there := c.lines[path+"."+key]; there {
					c.errorf(path+"."+key, "is for smtp listeners only")
				}
			}
		}
		c.checkTLSMin(path, l)
		c.checkSender(path+".fallback_from", l.FallbackFrom)
		c.checkCopies(path+".save_to_sent", l.SaveToSent)
		for j, s := range l.SendAs {
			if !strings.Contains(s, "@") {
				c.errorf(fmt.Sprintf("%s.send_as[%d]", path, j), "%q is no address", s)
			}
		}
		switch {
		case len(l.Networks) > 0 && l.Profile != "device":
			c.errorf(path+".networks", "mail without log-in is taken with profile: device only")
		case len(l.Networks) > 0 && l.Mailbox == "":
			c.errorf(path, "mailbox is missing: the one that mail from networks goes through")
		case l.Mailbox != "" && !mailboxes[strings.ToLower(l.Mailbox)]:
			c.errorf(path+".mailbox", "%s is not among mailboxes: add it there, with its credential", l.Mailbox)
		case l.Mailbox != "" && len(l.Networks) == 0:
			c.errorf(path+".mailbox", "does nothing without networks")
		}
		for j, n := range l.Networks {
			if n.Bits() == 0 {
				c.errorf(fmt.Sprintf("%s.networks[%d]", path, j), "%s is everybody: that would be an open relay", n)
			}
		}
	}
}

// tlsVersions are the values of tls_min.
var tlsVersions = map[string]uint16{"1.0": tls.VersionTLS10, "1.1": tls.VersionTLS11, "1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}

func (c *configFile) checkTLSMin(path string, l *listenerConfig) {
	if l.TLSMin == "" {
		return
	}
	c.oneOf(path+".tls_min", l.TLSMin, "1.0", "1.1", "1.2", "1.3")
	switch old := l.TLSMin == "1.0" || l.TLSMin == "1.1"; {
	case !l.usesTLS():
		c.errorf(path+".tls_min", "does nothing with tls: none")
	case old && l.Profile != "device":
		c.errorf(path+".tls_min", "TLS older than 1.2 is for profile: device only")
	}
}

func (c *configFile) checkSender(path, addr string) {
	if addr != "" && !strings.Contains(addr, "@") {
		c.errorf(path, "%q is no address", addr)
	}
}

// unlessFalse is true or false; a key that is left out means true.
type unlessFalse string

func (u unlessFalse) off() bool { return u == "false" }

func (c *configFile) checkCopies(path string, value unlessFalse) {
	if value != "" && value != "true" && value != "false" {
		c.errorf(path, "write true or false, not %q", string(value))
	}
}

func (c *configFile) checkRate(path string, n int) {
	if n < 0 || n > 100_000 {
		c.errorf(path, "%d is out of range: from 1 to 100000 messages a minute, or 0 for no limit", n)
	}
}

// dropFolder is where postern sendmail puts mail within the state folder.
const dropFolder = "drop"

func (c *configFile) checkSendmail(mailboxes map[string]bool) {
	s := &c.Sendmail
	c.checkSender("sendmail.fallback_from", s.FallbackFrom)
	c.checkSender("sendmail.local", s.Local)
	c.checkCopies("sendmail.save_to_sent", s.SaveToSent)
	switch {
	case s.Mailbox == "" && s.Drop != "":
		c.errorf("sendmail", "mailbox is missing: the one that its mail goes through")
	case s.Mailbox != "" && !mailboxes[strings.ToLower(s.Mailbox)]:
		c.errorf("sendmail.mailbox", "%s is not among mailboxes: add it there, with its credential", s.Mailbox)
	}
	if s.Drop = c.beside(s.Drop); s.Drop == "" && s.Mailbox != "" {
		s.Drop = filepath.Join(c.State, dropFolder)
	}
}

// fixedLogin is the login of clients that need none on the listener.
func (l listenerConfig) fixedLogin() backend.LoginConfig {
	return backend.LoginConfig{Username: "listener " + l.Address, Mailbox: l.Mailbox, SendAs: l.SendAs,
		RewriteFrom: l.RewriteFrom, FallbackFrom: l.FallbackFrom, DropCopy: l.SaveToSent.off()}
}

// dropFolder translates the section sendmail.
func (s sendmailConfig) dropFolder() backend.DropConfig {
	if s.Mailbox == "" {
		return backend.DropConfig{}
	}
	return backend.DropConfig{Dir: s.Drop, Local: s.Local, Login: backend.LoginConfig{Username: "sendmail", Mailbox: s.Mailbox, SendAs: s.SendAs,
		RewriteFrom: true, FallbackFrom: s.FallbackFrom, DropCopy: s.SaveToSent.off()}}
}
