package httpd

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"postern/backend"
)

// Sessions end this long after signing in, and after the last page or form somebody asked for; a page that is merely
// left open does not count.
const (
	sessionLife = 12 * time.Hour
	sessionIdle = time.Hour
	maxSessions = 200 // those used longest ago go first
)

// session is one signed-in administrator in one browser.
type session struct {
	login *backend.Login
	form  string // the token that each form must send back
	began time.Time

	mu    sync.Mutex
	used  time.Time
	flash *flash
}

// flash is what the next page tells of what was done; it is shown once.
type flash struct {
	Error    bool
	Text     string
	Username string // of a login that was made, with
	Password string // its password
}

// sessions are kept in memory: a restart signs everybody out.
type sessions struct {
	secure bool
	mu     sync.Mutex
	byKey  map[[sha256.Size]byte]*session // by the hash of the cookie, so that a look at the memory's dump is not enough
}

func (l *sessions) init(secure bool) {
	l.secure, l.byKey = secure, make(map[[sha256.Size]byte]*session)
}

// cookieName differs over TLS, where the prefix makes browsers keep plain-text pages of the same name from setting it.
func (l *sessions) cookieName() string {
	if l.secure {
		return "__Host-postern"
	}
	return "postern"
}

func (l *sessions) cookie(value string, age int) *http.Cookie {
	return &http.Cookie{Name: l.cookieName(), Value: value, Path: "/", MaxAge: age, HttpOnly: true, Secure: l.secure, SameSite: http.SameSiteStrictMode}
}

// begin makes a session and returns its cookie.
func (l *sessions) begin(login *backend.Login) *http.Cookie {
	value, now := secret(), time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.byKey) >= maxSessions {
		var oldest [sha256.Size]byte
		var at time.Time
		for k, s := range l.byKey {
			if t := s.lastUse(); at.IsZero() || t.Before(at) {
				oldest, at = k, t
			}
		}
		delete(l.byKey, oldest)
	}
	l.byKey[sha256.Sum256([]byte(value))] = &session{login: login, form: secret(), began: now, used: now}
	return l.cookie(value, int(sessionLife/time.Second))
}

// secret returns 256 bits of chance as text.
func secret() string {
	b := make([]byte, 32)
	rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

// of returns the session a request belongs to, nil if there is none that holds.
func (l *sessions) of(r *http.Request, b *backend.Backend) *session {
	c, err := r.Cookie(l.cookieName())
	if err != nil {
		return nil
	}
	key := sha256.Sum256([]byte(c.Value))
	l.mu.Lock()
	s := l.byKey[key]
	l.mu.Unlock()
	if s == nil {
		return nil
	}
	if !s.holds(b, remote(r)) {
		l.end(r)
		return nil
	}
	return s
}

// end forgets the session of a request.
func (l *sessions) end(r *http.Request) {
	if c, err := r.Cookie(l.cookieName()); err == nil {
		l.mu.Lock()
		delete(l.byKey, sha256.Sum256([]byte(c.Value)))
		l.mu.Unlock()
	}
}

// holds reports whether the session's time is not over and its login still allows it.
func (s *session) holds(b *backend.Backend, from netip.Addr) bool {
	now := time.Now()
	return now.Sub(s.began) < sessionLife && now.Sub(s.lastUse()) < sessionIdle && b.AdminHolds(s.login, from)
}

func (s *session) lastUse() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used
}

func (s *session) use() {
	s.mu.Lock()
	s.used = time.Now()
	s.mu.Unlock()
}

// say leaves word for the next page.
func (s *session) say(f flash) {
	s.mu.Lock()
	s.flash = &f
	s.mu.Unlock()
}

// said returns that word, once.
func (s *session) said() *flash {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.flash
	s.flash = nil
	return f
}

type sessionKey struct{}

func sessionOf(ctx context.Context) *session {
	s, _ := ctx.Value(sessionKey{}).(*session)
	return s
}

// admin lets signed-in administrators pass and sends others to the sign-in page.
func (s *Server) admin(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ses := s.sessions.of(r, s.opts.Backend)
		if ses == nil {
			if r.URL.Path == "/events" {
				http.Error(w, "not signed in", http.StatusUnauthorized)
				return
			}
			target := "/signin"
			if r.Method == http.MethodGet && r.URL.Path != "/" {
				target += "?next=" + url.QueryEscape(r.URL.RequestURI())
			}
			http.Redirect(w, r, target, http.StatusSeeOther)
			return
		}
		if r.URL.Path != "/events" {
			ses.use()
		}
		next(w, r.WithContext(context.WithValue(r.Context(), sessionKey{}, ses)))
	}
}

// form reads a form and lets it pass if it carries the session's token.
func (s *Server) form(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		if err := r.ParseForm(); err != nil {
			http.Error(w, "this form cannot be read", http.StatusBadRequest)
			return
		}
		if subtle.ConstantTimeCompare([]byte(r.PostForm.Get("form")), []byte(sessionOf(r.Context()).form)) != 1 {
			http.Error(w, "this form belongs to a session that has ended: go back, reload the page and try again", http.StatusForbidden)
			return
		}
		next(w, r)
	}
}

// signInForm is the data of the sign-in page.
type signInForm struct {
	Next, Username, Error string
	NoAdmin               bool // nobody could sign in
	Insecure              bool // plain text from another machine
}

func (s *Server) signInPage(w http.ResponseWriter, r *http.Request) {
	if s.sessions.of(r, s.opts.Backend) != nil {
		http.Redirect(w, r, ownPath(r.URL.Query().Get("next")), http.StatusSeeOther)
		return
	}
	s.showSignIn(w, r, http.StatusOK, signInForm{Next: ownPath(r.URL.Query().Get("next"))})
}

func (s *Server) showSignIn(w http.ResponseWriter, r *http.Request, status int, f signInForm) {
	f.NoAdmin = !s.opts.Backend.HasAdmin()
	f.Insecure = s.opts.TLSConfig == nil && !remote(r).IsLoopback()
	s.render(w, status, "signin", view{Title: "Sign in", Data: f})
}

// ownPath returns a path of ours to go on to, whatever a link said.
func ownPath(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || !strings.HasPrefix(u.Path, "/") ||
		strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\r\n\t") || u.Path == "/signin" || u.Path == "/events" {
		return "/"
	}
	return u.RequestURI()
}

// signIn checks a user name and password. The backend slows guessing and locks out, as for the other protocols.
func (s *Server) signIn(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		http.Error(w, "this form cannot be read", http.StatusBadRequest)
		return
	}
	select {
	case s.signIns <- struct{}{}:
		defer func() { <-s.signIns }()
	default:
		w.Header().Set("Retry-After", "5")
		http.Error(w, "too many people are signing in at once: try again in a moment", http.StatusServiceUnavailable)
		return
	}
	f := signInForm{Next: ownPath(r.PostForm.Get("next")), Username: r.PostForm.Get("username")}
	login, err := s.opts.Backend.Authenticate(r.Context(), backend.Attempt{Protocol: "admin", Username: f.Username,
		Password: r.PostForm.Get("password"), Remote: remote(r)})
	if err != nil {
		s.log.Warn("sign-in failed", "remote", remote(r), "err", err)
		status := http.StatusForbidden
		switch backend.KindOf(err) {
		case backend.TooMany:
			status = http.StatusTooManyRequests
		case backend.Unavailable:
			status = http.StatusServiceUnavailable
		}
		f.Error = backend.TextOf(err)
		if f.Error == "" {
			f.Error = "This did not work; the log says why"
		}
		s.showSignIn(w, r, status, f)
		return
	}
	s.sessions.end(r) // another one of this browser
	http.SetCookie(w, s.sessions.begin(login))
	s.log.Info("administrator signed in", "username", login.Username, "remote", remote(r))
	http.Redirect(w, r, f.Next, http.StatusSeeOther)
}

func (s *Server) signOut(w http.ResponseWriter, r *http.Request) {
	s.log.Info("administrator signed out", "username", sessionOf(r.Context()).login.Username, "remote", remote(r))
	s.sessions.end(r)
	http.SetCookie(w, s.sessions.cookie("", -1))
	w.Header().Set("Clear-Site-Data", `"cache"`)
	http.Redirect(w, r, "/signin", http.StatusSeeOther)
}
