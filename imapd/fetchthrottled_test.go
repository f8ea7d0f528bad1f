package imapd

import (
	"strings"
	"testing"

	"postern/backend/graphsim"
)

// A message that cannot be had at present must not look as if it were gone: after a NO, mbsync goes on to the next one
// and never asks for this one again. So the connection ends, as Dovecot ends it. A wait of reasonable length is waited.
func TestFetchUnavailable(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault graphsim.Fault
		bye   bool
	}{
		{"for an hour", graphsim.Fault{Method: "GET", Path: `/\$value`, Status: 429, Code: "ApplicationThrottled", RetryAfter: "3600"}, true},
		{"for a second", graphsim.Fault{Method: "GET", Path: `/\$value`, Status: 429, Code: "ApplicationThrottled", RetryAfter: "1", Times: 1}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, _ := farWorld(t, 3)
			c := w.login("alice")
			c.ok("SELECT Archive")
			if err := w.sim.Inject(tt.fault); err != nil {
				t.Fatal(err)
			}
			if !tt.bye {
				if lines, literals, tagged := c.literals("UID FETCH 1:* (BODY.PEEK[])"); len(literals) != 3 || !strings.HasPrefix(tagged, "OK ") {
					t.Errorf("%q %s", lines, tagged)
				}
				return
			}
			c.send("x UID FETCH 1:* (BODY.PEEK[])\r\n")
			c.expect("* BYE {{.*}}fewer requests{{.*}}")
			c.expectEOF()
			if n := strings.Count(w.logs.String(), "level=WARN"); n != 1 || strings.Contains(w.logs.String(), "ERROR") {
				t.Errorf("%d warnings, want 1 and no error:\n%s", n, w.logs)
			}
		})
	}
}
