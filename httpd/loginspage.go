package httpd

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"postern/backend"
)

type loginsData struct {
	listQuery
	Logins    []backend.LoginState
	All       int
	Lockouts  []backend.Lockout
	More      int // lock-outs that are not shown
	Mailboxes []string
	Self      string
	MayRevoke bool // those of the configuration file, too
}

func (s *Server) logins(r *http.Request) (string, any, error) {
	l, err := readListQuery(r.URL.Query())
	if err != nil {
		return "", nil, err
	}
	d := &loginsData{listQuery: l, Lockouts: s.opts.Backend.Lockouts(), Self: sessionOf(r.Context()).login.Username, MayRevoke: s.opts.RevokeConfigured != nil}
	if d.More = max(0, len(d.Lockouts)-listPage); d.More > 0 {
		d.Lockouts = d.Lockouts[:listPage]
	}
	all := s.opts.Backend.Logins()
	d.All = len(all)
	all = slices.DeleteFunc(all, func(l backend.LoginState) bool {
		return !d.has(append([]string{l.Username, l.Mailbox}, l.Shared...)...)
	})
	slices.SortStableFunc(all, func(a, b backend.LoginState) int {
		return strings.Compare(strings.ToLower(a.Username), strings.ToLower(b.Username))
	})
	d.Logins = pageOf(&d.listQuery, all, func(l backend.LoginState) string { return l.Username }, "/logins", nil)
	for _, a := range s.opts.Backend.Accounts() {
		d.Mailboxes = append(d.Mailboxes, a.Address())
	}
	return "Logins", d, nil
}

// loginAdd makes a login and shows its password once.
func (s *Server) loginAdd(w http.ResponseWriter, r *http.Request) {
	ses := sessionOf(r.Context())
	c, err := loginFrom(r)
	if err == nil {
		password := backend.NewPassword()
		if c.PasswordHash, err = backend.HashPassword(password); err == nil {
			if err = s.opts.Backend.AddLogin(c); err == nil {
				s.log.Info("login made", "by", ses.login.Username, "username", c.Username, "mailbox", c.Mailbox)
				ses.say(flash{Text: "The login is made, and works from now on.", Username: c.Username, Password: password})
			}
		}
	}
	if err != nil {
		text := backend.TextOf(err)
		if text == "" {
			text = "The login could not be made; the log says why."
			s.log.Error("login not made", "err", err)
		}
		ses.say(flash{Error: true, Text: text})
	}
	http.Redirect(w, r, "/logins", http.StatusSeeOther)
}

// loginFrom reads the form.
func loginFrom(r *http.Request) (backend.LoginConfig, error) {
	f := r.PostForm
	has := func(name string) bool { return f.Get(name) != "" }
	c := backend.LoginConfig{Username: strings.TrimSpace(f.Get("username")), Mailbox: f.Get("mailbox"),
		SMTP: has("smtp"), IMAP: has("imap"), Admin: has("admin"), ReadOnly: has("readonly"), RewriteFrom: has("rewrite"),
		SendAs: words(f.Get("sendas")), Shared: words(f.Get("shared"))}
	c.SMTP = c.SMTP && !c.ReadOnly // who only reads sends nothing
	if c.Admin && !c.SMTP && !c.IMAP {
		c.Mailbox = ""
	}
	for _, n := range words(f.Get("networks")) {
		p, err := netip.ParsePrefix(n)
		if a, aerr := netip.ParseAddr(n); aerr == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			return c, &backend.Error{Kind: backend.Refused, Op: "read form", Text: fmt.Sprintf("%q is no network: write it like 192.0.2.0/24 or 2001:db8::/32.", n)}
		}
		c.Networks = append(c.Networks, p.Masked())
	}
	return c, nil
}

// words splits a list that a person wrote.
func words(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ';' || r == ' ' || r == '\n' || r == '\r' || r == '\t' })
}

func (s *Server) loginRevoke(w http.ResponseWriter, r *http.Request) {
	ses, name := sessionOf(r.Context()), r.PostForm.Get("username")
	err := s.revoke(ses, name)
	if err != nil {
		text := backend.TextOf(err)
		if text == "" {
			text = err.Error()
		}
		s.log.Warn("login not revoked", "username", name, "err", err)
		ses.say(flash{Error: true, Text: text})
	} else {
		s.log.Info("login revoked", "by", ses.login.Username, "username", name)
		ses.say(flash{Text: fmt.Sprintf("%s is revoked. Its open connections are ended.", name)})
	}
	http.Redirect(w, r, "/logins", http.StatusSeeOther)
}

func (s *Server) revoke(ses *session, name string) error {
	if strings.EqualFold(name, ses.login.Username) {
		return &backend.Error{Kind: backend.Refused, Op: "revoke login", Text: "You are signed in with this login. Sign in with another one to revoke it."}
	}
	for _, l := range s.opts.Backend.Logins() {
		if !strings.EqualFold(l.Username, name) || !l.Configured {
			continue
		}
		if s.opts.RevokeConfigured == nil {
			return &backend.Error{Kind: backend.Refused, Op: "revoke login", Text: "This login is part of the set-up and cannot be revoked here."}
		}
		return s.opts.RevokeConfigured(l.Username)
	}
	return s.opts.Backend.RevokeLogin(name)
}

func (s *Server) loginUnlock(w http.ResponseWriter, r *http.Request) {
	// Encoded twice: names that strangers have chosen may hold what forms do not pass on unchanged.
	who, err := url.QueryUnescape(r.PostForm.Get("who"))
	if err == nil && who != "" {
		s.opts.Backend.Unlock(who)
		sessionOf(r.Context()).say(flash{Text: who + " may try again."})
	}
	http.Redirect(w, r, "/logins", http.StatusSeeOther)
}
