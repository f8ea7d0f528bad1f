package main

import (
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"postern/backend/graphsim"
)

// odd are characters that move a terminal's cursor, forge lines, or turn the direction of what follows: C0, DEL, C1 (where
// U+009B begins a sequence as ESC [ does), and bidirectional overrides.
const odd = "\x1b[2J\x1b]0;title\a\x7f\u009b31m\u202egnp\u2066\u2028\u200b\r\nforged"

// oddRunes returns what a terminal must not be sent, each with what is around it.
func oddRunes(s string) []string {
	var out []string
	for i, r := range s {
		if r != '\n' && !unicode.IsPrint(r) {
			out = append(out, fmt.Sprintf("%U in %q", r, s[max(0, i-60):min(len(s), i+20)]))
		}
	}
	return out
}

// What strangers, users and Microsoft write into names, addresses and errors reaches no log, no command's output and no page
// as a character that does something.
func TestE2EControlCharacters(t *testing.T) {
	for _, format := range []string{"json", "text"} {
		t.Run(format, func(t *testing.T) {
			var log syncBuffer
			r := newRig(t, nil)
			conf := filepath.Join(r.dir, "postern.yaml")
			r.mustRun(t, []byte(e2ePassword+"\n"), program(t), "login", "add", "-c", conf, "admin", "--allow", "admin", "--password-stdin")
			r.stop()
			t.Setenv("POSTERN_LOG_LEVEL", "debug")
			t.Setenv("POSTERN_LOG_FORMAT", format)
			r.wholeLog = &log
			r.start()
			if err := r.sim.Inject(graphsim.Fault{Path: "/send(Mail)?$", Times: 1, Status: http.StatusBadRequest, Code: "ErrorInvalidRecipients", Message: "no " + odd}); err != nil {
				t.Fatal(err)
			}
			if err := r.sim.Inject(graphsim.Fault{Path: "/send(Mail)?$", Skip: 1, Times: 3, Status: http.StatusServiceUnavailable, Code: "Odd" + odd, Message: "later " + odd}); err != nil {
				t.Fatal(err)
			}

			// Log-ins, until they lock out: side by side, since each is made to wait.
			var guessing sync.WaitGroup
			for i := range 25 {
				c := r.rawIMAP(t)
				guessing.Go(func() {
					user := odd + "user"
					_, _ = fmt.Fprintf(c.conn, "a LOGIN {%d+}\r\n%s guess%d\r\n", len(user), user, i)
					_, _ = c.r.ReadString('\n') // the server may have hung up
				})
			}
			guessing.Wait()
			_ = smtpPlain(r.addr["smtp/none"], "", odd+"user", "guess") // is refused
			base := "http://" + r.addr["http/none"]
			if res, err := http.PostForm(base+"/signin", url.Values{"username": {odd + "user"}, "password": {"guess"}}); err == nil {
				res.Body.Close()
			}
			c := r.rawIMAP(t)
			c.login(sampleUser)
			for _, verb := range []string{"CREATE", "SELECT", "STATUS", "SUBSCRIBE"} {
				name := verb + odd
				rest := ""
				if verb == "STATUS" {
					rest = " (MESSAGES)"
				}
				c.cmd(fmt.Sprintf("%s {%d+}\r\n%s%s", verb, len(name), name, rest))
			}
			// Mail that is refused, waits, and has odd names in it.
			oddLine := strings.NewReplacer("\r", "", "\n", "").Replace(odd)
			for i, to := range []string{"one@fabrikam.example", "\"o\u202ene\u200b\"@fabrikam.example", "two@fabrikam.example"} {
				_ = sendRaw(r.addr["smtp/none"], sampleUser, sampleUser, to, fmt.Sprintf("From: %s\r\nTo: x@y.example\r\nSubject: s%s\r\nMessage-ID: <m%d%s@y.example>\r\n\r\ntext\r\n", sampleUser, oddLine, i, oddLine)) // may be refused
			}

			pages := func(s string) string { // spaces of all widths, tabs, and marks that languages need may be there
				return strings.Map(func(r rune) rune {
					if r == '\t' || r == '\r' || unicode.Is(unicode.Zs, r) || unicode.Is(unicode.Mn, r) {
						return ' '
					}
					return r
				}, s)
			}
			check := func(what, text string, parts ...string) {
				t.Helper()
				for _, part := range parts {
					if !strings.Contains(text, part) {
						t.Errorf("%s has no %q, so it was not tried:\n%s", what, part, text)
					}
				}
				if bad := oddRunes(text); len(bad) > 0 {
					t.Errorf("%s has %d: %s", what, len(bad), strings.Join(bad[:min(len(bad), 5)], "; "))
				}
			}
			jar, err := cookiejar.New(nil)
			if err != nil {
				t.Fatal(err)
			}
			browser := &http.Client{Jar: jar, Timeout: 20 * time.Second}
			get := func(path string) string {
				res, err := browser.Get(base + path)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				b, err := io.ReadAll(res.Body)
				if err != nil {
					t.Fatal(err)
				}
				return html.UnescapeString(string(b))
			}
			if res, err := browser.PostForm(base+"/signin", url.Values{"username": {"admin"}, "password": {e2ePassword}}); err != nil {
				t.Fatal(err)
			} else {
				res.Body.Close()
			}
			var list string
			within(t, 20*time.Second, "lock-out and queue to be told", func() bool {
				list = r.mustRun(t, nil, program(t), "login", "list", "-c", conf)
				return strings.Contains(list, "locked out") && strings.Contains(get("/logins"), "Locked out")
			})
			check("login list", list, "forgeduser")
			queued := r.mustRun(t, nil, program(t), "queue", "list", "--all", "-c", conf)
			check("queue list", queued, "fabrikam.example")
			asJSON := r.mustRun(t, nil, program(t), "queue", "list", "--all", "--json", "-c", conf)
			check("queue list --json", asJSON, "fabrikam.example")
			var rows []queueRow
			if err := json.Unmarshal([]byte(asJSON), &rows); err != nil || len(rows) == 0 {
				t.Fatalf("%v: %s", err, asJSON)
			}
			whole := false
			for _, row := range rows {
				whole = whole || strings.Contains(row.Subject, "\u202e")
				check("queue show", r.mustRun(t, nil, program(t), "queue", "show", row.ID, "-c", conf), row.ID)
				check("page of a message", pages(get("/queue/"+row.ID)), row.ID)
			}
			if !whole {
				t.Error("JSON does not say what was there")
			}
			for _, page := range []string{"/", "/queue?state=", "/logins", "/mailboxes/" + sampleUser, "/queue?text=" + url.QueryEscape(odd), "/signin?next=" + url.QueryEscape(odd)} {
				check("page "+page, pages(get(page)), "<title>")
			}
			metrics := get("/metrics")
			check("metrics", metrics, "postern_")
			r.stop()
			check("log", log.String(), "forgeduser", "later")
		})
	}
}
