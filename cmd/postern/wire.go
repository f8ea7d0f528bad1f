package main

import (
	"fmt"
	"log/slog"
	"slices"

	"postern/backend"
	"postern/backend/token"
	"postern/imapd"
)

// backend translates a checked configuration into the backend's own.
func (c *configFile) backend(log *slog.Logger) (backend.Config, error) {
	if err := c.err(); err != nil {
		return backend.Config{}, fmt.Errorf("configuration: %w", err)
	}
	cfg := backend.Config{
		State:         c.State,
		Credentials:   make(map[string]token.Credential, len(c.Credentials)),
		ExpiryMail:    c.ExpiryMail,
		Logins:        c.logins(),
		SendWait:      c.SMTP.Wait,
		MaxMessage:    int64(c.SMTP.MaxMessage),
		QueueLifetime: c.Queue.Lifetime,
		QueueWarn:     c.Queue.Warn,
		LogKeep:       c.Queue.LogKeep,
		SendUnsure:    c.Queue.Unsure == "send",
		LogSubject:    c.Queue.LogSubject,
		MinFree:       int64(c.Queue.MinFree),
		Rate:          c.SMTP.Rate,
		Gather:        c.SMTP.Gather,
		Drop:          c.Sendmail.dropFolder(),
		Poll:          c.IMAP.Poll,
		Size:          backend.SizePolicy(c.IMAP.Size),
		Append:        backend.AppendPolicy(c.IMAP.Append),
		Delete:        backend.DeletePolicy(c.IMAP.Delete),
		CacheBodies:   int64(c.Cache.Bodies),
		Logger:        log,
	}
	for name := range c.Credentials {
		cfg.Credentials[name] = c.credential(name)
	}
	for _, m := range c.Mailboxes {
		cfg.Mailboxes = append(cfg.Mailboxes, backend.MailboxConfig{Address: m.Address, Credential: m.Credential, Aliases: m.Aliases, Quota: int64(m.Quota)})
	}
	return cfg, nil
}

// logins translates the logins, the part of the configuration that can change while the server runs.
func (c *configFile) logins() []backend.LoginConfig {
	var out []backend.LoginConfig
	for _, l := range c.Logins {
		out = append(out, backend.LoginConfig{Username: l.Username, PasswordHash: l.PasswordHash, Mailbox: l.Mailbox, Shared: l.Shared,
			SMTP: slices.Contains(l.Allow, "smtp"), IMAP: slices.Contains(l.Allow, "imap"), Admin: slices.Contains(l.Allow, "admin"), ReadOnly: l.ReadOnly, SendAs: l.SendAs,
			RewriteFrom: l.RewriteFrom, Networks: l.Networks, FallbackFrom: l.FallbackFrom, DropCopy: l.SaveToSent.off(),
			Rate: l.Rate, Gather: l.Gather})
	}
	return out
}

// imapLimits are those of IMAP clients, on each listener.
func (c *configFile) imapLimits() imapd.Limits {
	return imapd.Limits{Message: int64(c.SMTP.MaxMessage), Connections: c.IMAP.Connections,
		ConnectionsPerIP: c.IMAP.ConnectionsPerAddress, PerLogin: c.IMAP.ConnectionsPerLogin}
}
