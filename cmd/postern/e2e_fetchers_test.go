package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/backend/graphsim"
)

// offlineimap copies the mailbox, then transfers nothing, then what has changed on both sides.
func TestE2EOfflineimap(t *testing.T) {
	offlineimap := need(t, "offlineimap")
	r := newRig(t, nil)
	mail := filepath.Join(r.dir, "mail")
	// Below Shared the address holds dots, which are offlineimap's own separator of levels.
	rc := r.write(t, "offlineimaprc", fmt.Sprintf(`[general]
accounts = a
metadata = %[1]s/meta
ui = basic
[Account a]
localrepository = l
remoterepository = r
[Repository l]
type = Maildir
localfolders = %[2]s
[Repository r]
type = IMAP
remotehost = 127.0.0.1
remoteport = %[3]s
remoteuser = %[4]s
remotepassfile = %[5]s
folderfilter = lambda f: not f.startswith("Shared")
ssl = no
starttls = no
`, r.dir, mail, r.port("imap/none"), sampleUser, r.write(t, "password", e2ePassword+"\n")))
	sync := func() (copied int, out string) {
		out = r.mustRun(t, nil, offlineimap, "-c", rc, "-o")
		return strings.Count(out, "Copy message"), out
	}
	want := 0
	for _, f := range r.sim.Folders(sampleUser) {
		if !f.Hidden {
			want += f.Total
		}
	}
	if n, out := sync(); n != want {
		t.Fatalf("%d messages copied, want %d:\n%s", n, want, out)
	}
	if n, out := sync(); n != 0 || strings.Contains(out, "Deleting") || strings.Contains(out, "Adding flag") {
		t.Errorf("the second run changed something:\n%s", out)
	}

	archive := len(r.sim.Messages(sampleUser, "archive"))
	r.sim.DeliverMessage(sampleUser, []byte("From: x@y.example\r\nTo: a@b.example\r\nSubject: fresh\r\n\r\nfresh\r\n"))
	uploaded := "From: a@b.example\nTo: c@d.example\nSubject: uploaded\nMessage-ID: <up@b.example>\nDate: Mon, 23 Nov 2026 10:00:00 +0000\n\nfrom the Maildir\n"
	if err := os.WriteFile(filepath.Join(mail, "Archive", "cur", "1.offline.test:2,S"), []byte(uploaded), 0o600); err != nil {
		t.Fatal(err)
	}
	copied := 0
	within(t, time.Minute, "one message comes down and one goes up", func() bool {
		n, _ := sync()
		copied += n
		return copied >= 2
	})
	list := r.sim.Messages(sampleUser, "archive")
	if len(list) != archive+1 || bySubject(list)["uploaded"].IsDraft || !bySubject(list)["uploaded"].IsRead {
		t.Errorf("Archive has %d messages, want %d: %+v", len(list), archive+1, bySubject(list)["uploaded"])
	}
	if n, out := sync(); n != 0 {
		t.Errorf("the last run transferred again:\n%s", out)
	}
}

// Programs that only collect mail get each message once, whole.
func TestE2EFetchers(t *testing.T) {
	fetchers := []struct {
		program string
		run     func(r *rig, t *testing.T, program, user, out string)
	}{
		{"fetchmail", func(r *rig, t *testing.T, program, user, out string) {
			rc := r.write(t, "fetchmailrc", fmt.Sprintf("poll 127.0.0.1 protocol imap port %s auth password user %q password \"%s\" is \"root\" here mda \"cat >>%s\" keep sslproto \"\"\n",
				r.port("imap/none"), user, strings.ReplaceAll(e2ePassword, `"`, `\042`), out))
			r.mustRun(t, nil, program, "-f", rc, "--pidfile", filepath.Join(r.dir, "fetchmail.pid"), "--nosyslog")
		}},
		{"getmail", func(r *rig, t *testing.T, program, user, out string) {
			rc := r.write(t, "getmailrc", fmt.Sprintf("[retriever]\ntype = SimpleIMAPRetriever\nserver = 127.0.0.1\nport = %s\nusername = %s\npassword = %s\nmailboxes = (\"INBOX\",)\n"+
				"[destination]\ntype = MDA_external\npath = /usr/bin/tee\narguments = (\"-a\", %q)\nallow_root_commands = true\n[options]\ndelete = false\nread_all = false\n",
				r.port("imap/none"), user, e2ePassword, out))
			r.mustRun(t, nil, program, "--getmaildir="+r.dir, "--rcfile="+rc)
		}},
	}
	var users []string
	for _, f := range fetchers {
		users = append(users, f.program+"@contoso.example")
	}
	r := newRig(t, func(sim *graphsim.Sim) {
		for _, u := range users {
			seedClient(sim, u)
		}
	}, users...)
	for i, f := range fetchers {
		t.Run(f.program, func(t *testing.T) {
			program := need(t, f.program)
			out := filepath.Join(r.dir, f.program+".mbox")
			subjects := func() int {
				raw, err := os.ReadFile(out)
				if err != nil {
					t.Fatal(err)
				}
				if !strings.Contains(string(raw), "Here is the NEEDLE, in hay.") {
					t.Errorf("a text is missing:\n%.2000s", raw)
				}
				return strings.Count(string(raw), "\nSubject: ")
			}
			unread := func() (n int) {
				for _, m := range r.sim.Messages(users[i], "inbox") {
					if !m.IsRead {
						n++
					}
				}
				return n
			}
			want := 9
			if f.program == "fetchmail" { // it takes what is not read, and marks it so
				want = unread()
			}
			f.run(r, t, program, users[i], out)
			if n := subjects(); n != want {
				t.Errorf("%d messages collected, want %d", n, want)
			}
			if f.program == "fetchmail" {
				within(t, 10*time.Second, "all is read in Graph", func() bool { return unread() == 0 })
			}
			r.sim.DeliverMessage(users[i], []byte("From: x@y.example\r\nTo: a@b.example\r\nSubject: fresh\r\n\r\nfresh\r\n"))
			within(t, 30*time.Second, "the new message", func() bool {
				if f.program == "fetchmail" {
					// Exit status 1 is "no new mail", which run would not forgive.
					if _, err := r.run(nil, program, "-c", "-f", filepath.Join(r.dir, "fetchmailrc"), "--pidfile", filepath.Join(r.dir, "fetchmail.pid")); err != nil {
						return false
					}
				}
				f.run(r, t, program, users[i], out)
				return subjects() == want+1
			})
		})
	}
}
