package main

import (
	"fmt"
	"net/netip"
	"regexp"
)

// minToken is the shortest token that /metrics may be guarded by.
const minToken = 16

var hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$`)

// checkHTTP checks what belongs to the pages, and the ports that mail programs are told.
func (c *configFile) checkHTTP() {
	if n := c.HTTP.PublicName; n != "" {
		c.checkHost("http.public_name", n)
	}
	for i, n := range c.HTTP.Hosts {
		c.checkHost(fmt.Sprintf("http.hosts[%d]", i), n)
	}
	m := &c.HTTP.Metrics
	const path = "http.metrics"
	if m.Token != "" && m.TokenFile != "" {
		c.errorf(path+".token_file", "token is there as well: keep one of them")
	} else if m.TokenFile != "" {
		m.Token = c.secretFile(path+".token_file", m.TokenFile)
	}
	if m.Token != "" && len(m.Token) < minToken {
		c.errorf(path+".token", "is too short to be safe: at least %d characters, such as openssl rand -hex 16 prints", minToken)
	}
	for i, n := range m.Networks {
		if n.Bits() == 0 {
			c.errorf(fmt.Sprintf("%s.networks[%d]", path, i), "%s is everybody: use a token instead", n)
		}
	}
	for i, l := range c.Listeners {
		path := fmt.Sprintf("listeners[%d].public_port", i)
		switch _, there := c.lines[path]; {
		case !there:
		case l.Protocol == "http":
			c.errorf(path, "is for smtp and imap listeners only")
		case l.PublicPort < 1 || l.PublicPort > 65535:
			c.errorf(path, "%d is no port", l.PublicPort)
		}
	}
}

// checkHost refuses what is no plain host name or address.
func (c *configFile) checkHost(path, name string) {
	if _, err := netip.ParseAddr(name); err == nil || hostName.MatchString(name) {
		return
	}
	c.errorf(path, "%q is no host name: write it like mail.contoso.example, without https:// and port", name)
}
