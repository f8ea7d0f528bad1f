package httpd

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postern/backend"
)

func TestReadiness(t *testing.T) {
	states := map[string]backend.AccountState{
		"fine":    {Address: alice, Ready: true, LastSync: time.Now().Add(-3 * time.Second)},
		"unread":  {Address: bob},
		"busy":    {Address: bob, Ready: true, LastSync: time.Now().Add(-time.Hour), LastError: "429 too many requests", Kind: backend.Unavailable, Since: time.Now().Add(-time.Minute)},
		"sends":   {Address: bob, LastError: "403 denied", Kind: backend.Denied, SendOnly: true},
		"denied":  {Address: bob, LastError: "403 denied", Kind: backend.Denied},
		"expired": {Address: bob, Ready: true, LastError: "AADSTS7000222: expired", Kind: backend.SignInNeeded, Since: time.Now().Add(-72 * time.Hour)},
	}
	for _, tt := range []struct {
		name     string
		accounts []string
		ready    bool
	}{
		{"none", nil, true},
		{"fine", []string{"fine"}, true},
		{"busy passes", []string{"fine", "busy"}, true},
		{"never read", []string{"fine", "unread"}, false},
		{"sends only", []string{"fine", "sends"}, true},
		{"denied", []string{"fine", "denied"}, false},
		{"secret expired", []string{"expired", "fine"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var list []backend.AccountState
			for _, a := range tt.accounts {
				list = append(list, states[a])
			}
			if got := readinessOf(list); got.Ready != tt.ready || len(got.Accounts) != len(list) {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestHealth(t *testing.T) {
	hang, stop := error(nil), error(nil)
	w := newWorld(t, func(o *Options) {
		o.Alive = func(context.Context) error { return hang }
		o.Check = func(context.Context) error { return stop }
	})
	status := func(path string) (int, string) {
		res, body := w.get(path)
		return res.StatusCode, body
	}
	if code, body := status("/healthz"); code != 200 || body != "ok\n" {
		t.Errorf("healthz: %d %q", code, body)
	}
	if code, body := status("/readyz"); code != 200 || !strings.Contains(body, alice) {
		t.Errorf("readyz: %d %s", code, body)
	}
	// Others learn whether, not whose mailboxes.
	w.from = "192.0.2.7:1234"
	if code, body := status("/readyz"); code != 200 || strings.Contains(body, "contoso") {
		t.Errorf("readyz from elsewhere: %d %s", code, body)
	}
	w.from = "127.0.0.1:1"
	if res, body := w.request("GET", "/readyz", nil, func(r *http.Request) { r.Header.Set("X-Forwarded-For", "192.0.2.7") }); strings.Contains(body, "contoso") {
		t.Errorf("readyz through a proxy: %d %s", res.StatusCode, body)
	}
	hang, stop = errors.New("queue: stuck"), errors.New("stopping")
	if code, body := status("/healthz"); code != 503 || !strings.Contains(body, "stuck") {
		t.Errorf("healthz: %d %q", code, body)
	}
	if code, body := status("/readyz"); code != 503 || !strings.Contains(body, "stopping") {
		t.Errorf("readyz: %d %q", code, body)
	}
}

// Nobody but a signed-in administrator gets anything from the pages.
func TestPagesNeedSignIn(t *testing.T) {
	w := newWorld(t, nil)
	for _, path := range []string{"/", "/mailboxes/" + alice, "/queue", "/queue/x", "/logins", "/clients", "/checks"} {
		res, body := w.get(path)
		want := "/signin"
		if path != "/" {
			want += "?next=" + url.QueryEscape(path)
		}
		if res.StatusCode != 303 || res.Header.Get("Location") != want || strings.Contains(body, "contoso") && !strings.Contains(path, alice) {
			t.Errorf("%s: %d to %s", path, res.StatusCode, res.Header.Get("Location"))
		}
	}
	for _, path := range []string{"/queue", "/logins", "/logins/revoke", "/logins/unlock", "/checks", "/signout"} {
		if res, _ := w.request("POST", path, url.Values{"id": {"x"}, "action": {"purge"}, "username": {"alice"}}, nil); res.StatusCode != 303 || res.Header.Get("Location") != "/signin" {
			t.Errorf("POST %s: %d to %s", path, res.StatusCode, res.Header.Get("Location"))
		}
	}
	if res, _ := w.get("/events?of=/"); res.StatusCode != 401 {
		t.Errorf("events: %d", res.StatusCode)
	}
	w.jar["postern"] = &http.Cookie{Name: "postern", Value: "made-up"}
	if res, _ := w.get("/"); res.StatusCode != 303 {
		t.Errorf("with a made-up cookie: %d", res.StatusCode)
	}
}

func TestSignIn(t *testing.T) {
	w := newWorld(t, nil)
	if body := w.page("/signin?next=/queue"); !strings.Contains(body, `value="/queue"`) {
		t.Errorf("the page forgets where to go on:\n%s", body)
	}
	for _, tt := range []struct{ user, password, says string }{
		{"admin", "wrong", "Wrong user name or password"},
		{"nobody", password, "Wrong user name or password"},
		{"<b>", "", "Wrong user name or password"},
		{alice, password, "lacks admin under allow"},
	} {
		res, body := w.request("POST", "/signin", url.Values{"username": {tt.user}, "password": {tt.password}}, nil)
		if res.StatusCode != 403 || !strings.Contains(body, tt.says) || len(w.jar) != 0 || strings.Contains(body, "<b>") {
			t.Errorf("%s: %d, cookies %v\n%s", tt.user, res.StatusCode, w.jar, body)
		}
	}
	res, _ := w.request("POST", "/signin", url.Values{"username": {"Admin"}, "password": {password}, "next": {"/queue?state=held"}}, nil)
	if res.StatusCode != 303 || res.Header.Get("Location") != "/queue?state=held" {
		t.Fatalf("sign-in: %d to %q", res.StatusCode, res.Header.Get("Location"))
	}
	c := w.jar["postern"]
	if c == nil || !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Secure || c.Domain != "" {
		t.Fatalf("cookie %+v", c)
	}
	w.page("/")
	// The page for signing in is of no use then.
	if res, _ := w.get("/signin"); res.StatusCode != 303 || res.Header.Get("Location") != "/" {
		t.Errorf("signed in, and /signin says %d", res.StatusCode)
	}
	w.post("/signout", url.Values{})
	w.jar["postern"] = c
	if res, _ := w.get("/"); res.StatusCode != 303 {
		t.Error("the cookie still opens the pages after signing out")
	}
}

func TestSecureCookie(t *testing.T) {
	w := newWorld(t, nil)
	w.s.sessions.init(true)
	w.signIn()
	if c := w.jar["__Host-postern"]; c == nil || !c.Secure || c.Path != "/" || c.Domain != "" {
		t.Errorf("cookies %v", w.jar)
	}
}

func TestOwnPath(t *testing.T) {
	for next, want := range map[string]string{
		"": "/", "/": "/", "/queue?state=sent": "/queue?state=sent", "/mailboxes/a@b": "/mailboxes/a@b",
		"https://evil.example/": "/", "//evil.example/": "/", "/\\evil.example": "/", "\\\\evil.example": "/", "javascript:alert(1)": "/",
		"queue": "/", "/signin": "/", "/signin?next=/signin": "/", "/events?of=/": "/", "/a\nb": "/", "http:/evil": "/", "/%zz": "/",
	} {
		if got := ownPath(next); got != want {
			t.Errorf("ownPath(%q) = %q, want %q", next, got, want)
		}
	}
}

// Guessing is locked out as for the other protocols.
func TestSignInLockout(t *testing.T) {
	w := newWorld(t, nil)
	w.from = "192.0.2.66:999"
	var last *http.Response
	for i := range 25 {
		r := httptest.NewRequest("POST", "/signin", strings.NewReader(url.Values{"username": {"admin"}, "password": {strings.Repeat("x", i+1)}}.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Host, r.RemoteAddr = w.host, w.from
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond) // who guesses does not wait for the answer
		rec := httptest.NewRecorder()
		w.s.ServeHTTP(rec, r.WithContext(ctx))
		cancel()
		last = rec.Result()
	}
	if last.StatusCode != http.StatusTooManyRequests {
		t.Errorf("the 25th guess: %d", last.StatusCode)
	}
	res, body := w.request("POST", "/signin", url.Values{"username": {"admin"}, "password": {password}}, nil)
	if res.StatusCode != http.StatusTooManyRequests || !strings.Contains(body, "try again in") {
		t.Errorf("the right password while locked out: %d\n%s", res.StatusCode, body)
	}
	// From elsewhere it works, and shows.
	w.from = "127.0.0.1:1"
	w.signIn()
	if body := w.page("/logins"); !strings.Contains(body, "192.0.2.66") {
		t.Errorf("the lock-out is not shown:\n%s", body)
	}
	w.post("/logins/unlock", url.Values{"who": {"admin"}})
	w.from = "192.0.2.66:999"
	w.signIn()
}

// A form is taken from our own pages only.
func TestForgedForms(t *testing.T) {
	w := newWorld(t, nil)
	w.signIn()
	right := formToken.FindStringSubmatch(w.page("/queue"))[1]
	form := func(token string) url.Values {
		return url.Values{"form": {token}, "username": {"mallory"}, "mailbox": {alice}, "imap": {"1"}}
	}
	for name, tt := range map[string]struct {
		form   url.Values
		change func(*http.Request)
	}{
		"no token":                {form(""), nil},
		"another's token":         {form(secret()), nil},
		"another site, by fetch":  {form(right), func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }},
		"a neighbour, by fetch":   {form(right), func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") }},
		"another site, by origin": {form(right), func(r *http.Request) { r.Header.Del("Sec-Fetch-Site"); r.Header.Set("Origin", "https://evil.example") }},
		"another port, by origin": {form(right), func(r *http.Request) { r.Header.Del("Sec-Fetch-Site"); r.Header.Set("Origin", "http://127.0.0.1:9") }},
		"endless":                 {url.Values{"form": {right}, "x": {strings.Repeat("x", maxForm)}}, nil},
	} {
		if res, _ := w.request("POST", "/logins", tt.form, tt.change); res.StatusCode != 403 && res.StatusCode != 400 {
			t.Errorf("%s: %d", name, res.StatusCode)
		}
	}
	if res, _ := w.request("POST", "/signin", url.Values{"username": {"admin"}, "password": {password}}, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }); res.StatusCode != 403 {
		t.Errorf("another site signs in: %d", res.StatusCode)
	}
	for _, l := range w.b.Logins() {
		if l.Username == "mallory" {
			t.Error("a forged form made a login")
		}
	}
}

func TestHosts(t *testing.T) {
	w := newWorld(t, nil)
	for host, want := range map[string]int{
		"127.0.0.1:8025": 200, "[::1]:8025": 200, "localhost": 200, "LOCALHOST.:1": 200, "192.0.2.1": 200, "mail.contoso.example": 200, "Mail.Contoso.Example.:8025": 200,
		"evil.example": 421, "evil.example:8025": 421, "localhost.evil.example": 421, "mail.contoso.example.evil.example": 421, "": 421, "127.0.0.1.evil.example": 421,
	} {
		w.host = host
		if res, _ := w.get("/signin"); res.StatusCode != want {
			t.Errorf("%q: %d, want %d", host, res.StatusCode, want)
		}
	}
	w.s.Set(Settings{Hosts: []string{"other.example"}})
	w.host = "mail.contoso.example"
	if res, _ := w.get("/signin"); res.StatusCode != 421 {
		t.Errorf("a name that was taken out: %d", res.StatusCode)
	}
}

var inline = regexp.MustCompile(`(?i)<script[^>]*>[^<]|\sstyle=|\son[a-z]+=|javascript:|<style|https?://`)

// Each page has the headers that keep browsers from harm, nothing that its policy would forbid, and nothing from elsewhere.
func TestPagesAreClosed(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Doctor = func(context.Context, func(Check)) {} })
	check := func(path string) {
		t.Helper()
		res, body := w.get(path)
		h := res.Header
		if res.StatusCode != 200 || h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "no-referrer" ||
			!strings.Contains(h.Get("Content-Security-Policy"), "default-src 'none'") || !strings.Contains(h.Get("Content-Security-Policy"), "frame-ancestors 'none'") ||
			strings.Contains(h.Get("Content-Security-Policy"), "unsafe") {
			t.Errorf("%s: %d %v", path, res.StatusCode, h)
		}
		body = strings.ReplaceAll(body, "http://www.w3.org/2000/svg", "")
		if m := inline.FindString(body); m != "" {
			t.Errorf("%s holds %q", path, m)
		}
		if !strings.Contains(body, `<html lang="en">`) || strings.Count(body, "<h1>") != 1 || !strings.Contains(body, `<main id="main"`) {
			t.Errorf("%s lacks language, heading or main part", path)
		}
		for _, m := range regexp.MustCompile(`<(input|select)[^>]*>`).FindAllString(body, -1) {
			id := regexp.MustCompile(`\bid="([^"]+)"`).FindStringSubmatch(m)
			if strings.Contains(m, `type="hidden"`) || strings.Contains(m, `type="checkbox"`) {
				continue // boxes stand within their labels
			}
			if id == nil || !strings.Contains(body, `<label for="`+id[1]+`"`) {
				t.Errorf("%s: no label for %s", path, m)
			}
		}
	}
	check("/signin")
	check("/mail")
	w.signIn()
	id := w.submit("about")
	for _, path := range []string{"/", "/mailboxes/" + alice, "/queue", "/queue?state=", "/queue/" + id, "/logins", "/clients", "/checks"} {
		check(path)
	}
	for _, path := range []string{"/mailboxes/nobody@contoso.example", "/queue/none", "/queue?state=odd", "/nothing"} {
		if res, body := w.get(path); res.StatusCode != 404 || inline.MatchString(body) {
			t.Errorf("%s: %d", path, res.StatusCode)
		}
	}
	for name, a := range assets {
		res, body := w.get("/assets/" + name + "?v=" + a.version)
		if res.StatusCode != 200 || !strings.Contains(res.Header.Get("Cache-Control"), "immutable") || body != string(a.content) {
			t.Errorf("asset %s: %d", name, res.StatusCode)
		}
		if res, _ := w.get("/assets/" + name); res.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("asset %s is kept without its version", name)
		}
	}
}

// What is taken from a login ends its session at once; time does, too.
func TestSessionEnds(t *testing.T) {
	w := newWorld(t, nil)
	if err := w.b.AddLogin(backend.LoginConfig{Username: "root", PasswordHash: hashOf(t, "toor"), Admin: true}); err != nil {
		t.Fatal(err)
	}
	in := func() {
		t.Helper()
		if res, _ := w.request("POST", "/signin", url.Values{"username": {"root"}, "password": {"toor"}}, nil); res.StatusCode != 303 {
			t.Fatalf("sign-in: %d", res.StatusCode)
		}
		w.page("/")
	}
	out := func(why string) {
		t.Helper()
		if res, _ := w.get("/"); res.StatusCode != 303 {
			t.Errorf("%s: still signed in", why)
		}
	}
	age := func(change func(*session)) {
		w.s.sessions.mu.Lock()
		defer w.s.sessions.mu.Unlock()
		for _, s := range w.s.sessions.byKey {
			change(s)
		}
	}
	in()
	age(func(s *session) { s.used = time.Now().Add(-sessionIdle) })
	out("nothing done for an hour")
	in()
	age(func(s *session) { s.began = time.Now().Add(-sessionLife) })
	out("after half a day")
	in()
	if err := w.b.RevokeLogin("root"); err != nil {
		t.Fatal(err)
	}
	out("revoked")
	if err := w.b.AddLogin(backend.LoginConfig{Username: "root", PasswordHash: hashOf(t, "toor"), Admin: true, Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}); err != nil {
		t.Fatal(err)
	}
	out("another login of the same name")
	in()
	w.from = "192.0.2.5:1"
	out("from a place the login may not be used from")
}

func hashOf(t *testing.T, password string) string {
	t.Helper()
	h, err := backend.HashPassword(password)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestManySessions(t *testing.T) {
	var l sessions
	l.init(false)
	for range maxSessions + 50 {
		l.begin(&backend.Login{Username: "admin"})
	}
	if len(l.byKey) != maxSessions {
		t.Errorf("%d sessions are kept", len(l.byKey))
	}
}

// The pages for logins: a password is made, shown once, and works; the login can be taken away.
func TestLoginsPage(t *testing.T) {
	var configured atomic.Value
	w := newWorld(t, func(o *Options) {
		o.RevokeConfigured = func(name string) error { configured.Store(name); return nil }
	})
	w.signIn()
	body := w.post("/logins", url.Values{"username": {"scanner <1>"}, "mailbox": {bob}, "smtp": {"1"}, "networks": {"127.0.0.0/8, 2001:db8::1"}, "sendas": {"info@contoso.example"}, "rewrite": {"1"}})
	m := regexp.MustCompile(`id="new-password">([a-z0-9]{16})<`).FindStringSubmatch(body)
	if m == nil || !strings.Contains(body, "scanner &lt;1&gt;") {
		t.Fatalf("no password:\n%s", body)
	}
	if strings.Contains(w.page("/logins"), m[1]) {
		t.Error("the password is shown again")
	}
	login, err := w.b.Authenticate(t.Context(), backend.Attempt{Protocol: "smtp", Username: "scanner <1>", Password: m[1], Remote: netip.MustParseAddr("127.0.0.1")})
	if err != nil || login.Account.Address() != bob || !login.RewriteFrom || len(login.SendAs) != 1 {
		t.Errorf("login %+v, %v", login, err)
	}
	if _, err := w.b.Authenticate(t.Context(), backend.Attempt{Protocol: "imap", Username: "scanner <1>", Password: m[1], Remote: netip.MustParseAddr("127.0.0.1")}); err == nil {
		t.Error("it reads, too")
	}
	for name, tt := range map[string]struct {
		form url.Values
		says string
	}{
		"twice":      {url.Values{"username": {"Scanner <1>"}, "mailbox": {bob}, "smtp": {"1"}}, "There is a login"},
		"configured": {url.Values{"username": {"ALICE@contoso.example"}, "mailbox": {bob}, "smtp": {"1"}}, "There is a login"},
		"no name":    {url.Values{"username": {" "}, "mailbox": {bob}, "smtp": {"1"}}, "user name is missing"},
		"nothing":    {url.Values{"username": {"x"}, "mailbox": {bob}}, "may use nothing"},
		"mailbox":    {url.Values{"username": {"x"}, "mailbox": {"eve@contoso.example"}, "smtp": {"1"}}, "not configured"},
		"network":    {url.Values{"username": {"x"}, "mailbox": {bob}, "smtp": {"1"}, "networks": {"home"}}, "no network"},
		"sender":     {url.Values{"username": {"x"}, "mailbox": {bob}, "smtp": {"1"}, "sendas": {"info"}}, "no address"},
	} {
		if body := w.post("/logins", tt.form); !strings.Contains(body, tt.says) || strings.Contains(body, "new-password") {
			t.Errorf("%s: does not say %q", name, tt.says)
		}
	}
	if body := w.post("/logins", url.Values{"username": {"second"}, "mailbox": {bob}, "admin": {"1"}}); !strings.Contains(body, "no mailbox") {
		t.Error("an administrator's login opens a mailbox")
	}
	if body := w.post("/logins/revoke", url.Values{"username": {"scanner <1>"}}); !strings.Contains(body, "is revoked") {
		t.Errorf("not revoked:\n%s", body)
	}
	if _, err := w.b.Authenticate(t.Context(), backend.Attempt{Protocol: "smtp", Username: "scanner <1>", Password: m[1], Remote: netip.MustParseAddr("127.0.0.1")}); err == nil {
		t.Error("a revoked login works")
	}
	if body := w.post("/logins/revoke", url.Values{"username": {"ADMIN"}}); !strings.Contains(body, "signed in with this login") {
		t.Error("one can lock oneself out")
	}
	w.post("/logins/revoke", url.Values{"username": {alice}})
	if configured.Load() != alice {
		t.Errorf("a login of the file: %v", configured.Load())
	}
	if body := w.post("/logins/revoke", url.Values{"username": {"nobody"}}); !strings.Contains(body, "no login nobody") {
		t.Error("revoking nobody says nothing")
	}
}

func TestQueuePages(t *testing.T) {
	w := newWorld(t, nil)
	w.signIn()
	if body := w.page("/queue"); !strings.Contains(body, "Nothing is waiting") {
		t.Errorf("an empty queue:\n%s", body)
	}
	refusal := faultOf("sendMail$", 403)
	refusal.Code = "ErrorAccessDenied"
	if err := w.sim.Inject(refusal); err != nil {
		t.Fatal(err)
	}
	id := w.submit("Quarterly <figures>")
	w.within("the first attempt to fail", func() bool { m, _, _ := w.b.QueueMessage(t.Context(), id); return m.LastError != "" })
	body := w.page("/queue")
	for _, want := range []string{id, bob, "Quarterly &lt;figures&gt;", alice} {
		if !strings.Contains(body, want) {
			t.Errorf("the queue lacks %q:\n%s", want, body)
		}
	}
	if body := w.page("/queue/" + id); !strings.Contains(body, "accepted") || !strings.Contains(body, "192.0.2.9") || strings.Contains(body, "secret body") {
		t.Errorf("the message:\n%s", body)
	}
	act := func(action, id, reason string) string {
		t.Helper()
		return w.post("/queue", url.Values{"id": {id}, "action": {action}, "reason": {reason}, "back": {"/queue/" + id}})
	}
	if body := act("hold", id, "wait for Bob"); !strings.Contains(body, "held until released") || !strings.Contains(body, "wait for Bob") {
		t.Errorf("hold:\n%s", body)
	}
	if body := act("hold", id, ""); !strings.Contains(body, "held already") {
		t.Errorf("hold again:\n%s", body)
	}
	w.sim.ClearFaults()
	act("release", id, "")
	w.within("the released message to be sent", func() bool { m, _, _ := w.b.QueueMessage(t.Context(), id); return m.State == "sent" })
	if n := len(w.sim.Delivered()); n != 1 {
		t.Errorf("%d deliveries", n)
	}
	if body := act("retry", id, ""); !strings.Contains(body, "it is sent already") {
		t.Errorf("retry of a sent one:\n%s", body)
	}
	for query, found := range map[string]bool{"text=bob%40": true, "text=" + id: true, "text=figures": true, "text=carol": false, "text=%25": false, "state=": true, "state=waiting": false,
		"state=sent&mailbox=" + alice: true, "state=sent&mailbox=" + bob: false} {
		if got := strings.Contains(w.page("/queue?"+query), "/queue/"+id); got != found {
			t.Errorf("%s: found %v", query, got)
		}
	}
	if body := w.post("/queue", url.Values{"action": {"hold"}}); !strings.Contains(body, "Choose messages first") {
		t.Error("no choice is no word")
	}
	if body := w.post("/queue", url.Values{"id": {"nothing"}, "action": {"purge"}}); !strings.Contains(body, "no longer here") {
		t.Errorf("an unknown id:\n%s", body)
	}
	token := formToken.FindStringSubmatch(w.page("/queue"))[1]
	for _, form := range []url.Values{{"action": {"explode"}, "id": {id}, "form": {token}}, {"action": {"hold"}, "id": make([]string, maxAct+1), "form": {token}}} {
		if res, _ := w.request("POST", "/queue", form, nil); res.StatusCode != 400 {
			t.Errorf("%v: %d", form["action"], res.StatusCode)
		}
	}
}

// A long queue comes page by page, none left out.
func TestQueuePaging(t *testing.T) {
	w := newWorld(t, nil)
	w.signIn()
	want := make(map[string]bool)
	for range 2*queuePage + 3 {
		want[w.submit("x")] = true
	}
	link := regexp.MustCompile(`href="(/queue\?[^"]*before=[^"]*)"`)
	row := regexp.MustCompile(`name="id" value="([^"]+)"`)
	next, pages := "/queue?state=&text=bob", 0
	for next != "" {
		body := w.page(next)
		pages++
		for _, m := range row.FindAllStringSubmatch(body, -1) {
			if !want[m[1]] {
				t.Errorf("%s is there twice, or is none of ours", m[1])
			}
			delete(want, m[1])
		}
		next = ""
		if m := link.FindStringSubmatch(body); m != nil {
			next = strings.ReplaceAll(m[1], "&amp;", "&")
		}
	}
	if len(want) != 0 || pages != 3 {
		t.Errorf("%d left out, on %d pages", len(want), pages)
	}
}

// The stream sends what changes, and ends with the session.
func TestEvents(t *testing.T) {
	w := newWorld(t, nil)
	w.signIn()
	srv := httptest.NewServer(w.s)
	defer srv.Close()
	stream := func(of string) (*http.Response, *bufio.Scanner) {
		r, err := http.NewRequestWithContext(t.Context(), "GET", srv.URL+"/events?of="+url.QueryEscape(of), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.AddCookie(w.jar["postern"])
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { res.Body.Close() })
		sc := bufio.NewScanner(res.Body)
		sc.Buffer(nil, 4<<20)
		return res, sc
	}
	for _, of := range []string{"", "/nothing", "/clients", "https://evil.example/", "/signin", "/events?of=/"} {
		if res, _ := stream(of); res.StatusCode != 404 {
			t.Errorf("events of %q: %d", of, res.StatusCode)
		}
	}
	res, lines := stream("/queue?state=")
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%d %v", res.StatusCode, res.Header)
	}
	// until reads on until an event's data satisfies ok, and returns the event's name.
	until := func(ok func(event, data string) bool) bool {
		event := ""
		for lines.Scan() {
			if name, found := strings.CutPrefix(lines.Text(), "event: "); found {
				event = name
			}
			if data, found := strings.CutPrefix(lines.Text(), "data: "); found && ok(event, data) {
				return true
			}
		}
		return false
	}
	id := w.submit("hello")
	if !until(func(event, data string) bool {
		var f fragment
		return event == "part" && json.Unmarshal([]byte(data), &f) == nil && f.ID == "queue-rows" && strings.Contains(f.HTML, id)
	}) {
		t.Fatal("a new message is not told")
	}
	w.s.sessions.mu.Lock()
	clear(w.s.sessions.byKey)
	w.s.sessions.mu.Unlock()
	if !until(func(event, _ string) bool { return event == "signedout" }) {
		t.Error("the end of the session is not told")
	}
}

// Shutting down does not wait for streams that would go on for ever.
func TestServeAndShutdown(t *testing.T) {
	w := newWorld(t, nil)
	w.signIn()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- w.s.Serve(ctx, l) }()
	r, err := http.NewRequest("GET", "http://"+l.Addr().String()+"/events?of=/", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.AddCookie(w.jar["postern"])
	res, err := http.DefaultClient.Do(r)
	if err != nil || res.StatusCode != 200 {
		t.Fatal(res, err)
	}
	defer res.Body.Close()
	stop, stopped := context.WithTimeout(t.Context(), 20*time.Second)
	defer stopped()
	if err := w.s.Shutdown(stop); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestDoctorPage(t *testing.T) {
	release := make(chan struct{})
	var runs atomic.Int32
	w := newWorld(t, func(o *Options) {
		o.Doctor = func(ctx context.Context, tell func(Check)) {
			runs.Add(1)
			tell(Check{"clock", "ok", "0 s apart", ""})
			tell(Check{"mailbox <x>", "failed", "refused", "Grant it."})
			select {
			case <-release:
			case <-ctx.Done():
			}
			tell(Check{"disk", "warning", "nearly full", "Make room."})
		}
	})
	w.signIn()
	w.post("/checks", url.Values{})
	w.within("the first checks", func() bool { return strings.Contains(w.page("/checks"), "mailbox &lt;x&gt;") })
	if body := w.post("/checks", url.Values{}); !strings.Contains(body, "run already") || !strings.Contains(body, "Running") {
		t.Errorf("started twice:\n%s", body)
	}
	close(release)
	w.within("the end", func() bool { return strings.Contains(w.page("/checks"), "1 failed, 1 warning, 1 good") })
	body := w.page("/checks")
	if strings.Index(body, "refused") > strings.Index(body, "0 s apart") {
		t.Error("what failed is not at the top")
	}
	if body := w.post("/checks", url.Values{}); !strings.Contains(body, "just ended") || runs.Load() != 1 {
		t.Errorf("%d runs", runs.Load())
	}
}

// The overview and a mailbox's page tell of trouble, in words.
func TestTroubleShows(t *testing.T) {
	w := newWorld(t, func(o *Options) {
		o.Recent = func() []LogLine { return []LogLine{{time.Now(), "ERROR", "disk <full>"}} }
	})
	w.signIn()
	body := w.page("/")
	for _, want := range []string{alice, bob, "in step", "of credential c expires in", "of credential spare expires in", "disk &lt;full&gt;", "signed in", "127.0.0.1:1143"} {
		if !strings.Contains(body, want) {
			t.Errorf("the overview lacks %q", want)
		}
	}
	f := faultOf("", 429)
	f.Mailbox, f.RetryAfter = alice, "120"
	if err := w.sim.Inject(f); err != nil {
		t.Fatal(err)
	}
	a, _ := w.b.Account(alice)
	go func() { _, _ = a.Status(context.Background(), "INBOX") }() // asks, and is refused
	w.within("the throttling to show", func() bool { return strings.Contains(w.page("/"), "throttled") })
	if body := w.page("/mailboxes/" + alice); !strings.Contains(body, "asks to wait") || !regexp.MustCompile(`[1-9]\d* throttled`).MatchString(body) {
		t.Errorf("the mailbox's page:\n%s", body)
	}
	if body := w.page("/mailboxes/" + strings.ToUpper(bob)); !strings.Contains(body, "INBOX") {
		t.Errorf("another mailbox:\n%s", body)
	}
}

// Many messages without a clear answer are worth a word.
func TestUnclearShows(t *testing.T) {
	w := newWorld(t, nil)
	w.signIn()
	if err := w.sim.Inject(faultOf("sendMail$", 503)); err != nil {
		t.Fatal(err)
	}
	for range manyUnclear {
		w.submit("unclear")
	}
	w.within("unclear messages to show", func() bool {
		return strings.Contains(w.page("/"), "no clear answer to the sending of 10 messages")
	})
}
