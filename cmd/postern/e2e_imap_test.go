package main

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"postern/backend/graphsim"
)

// imapClient is a mail program that reads, searches, flags, appends, moves and deletes.
type imapClient struct {
	name    string
	program string
	work    func(r *rig, t *testing.T, user string) (out string, err error)
	appends bool // it stores a message of its own in Archive
}

var imapClients = []imapClient{
	{"curl", "curl", curlIMAP, true},
	{"imaplib", "python3", func(r *rig, t *testing.T, user string) (string, error) {
		script, err := filepath.Abs("testdata/imaplib_client.py")
		if err != nil {
			t.Fatal(err)
		}
		return r.run(nil, "python3", script, r.port("imap/none"), user, e2ePassword)
	}, true},
	{"imapflow", "node", func(r *rig, t *testing.T, user string) (string, error) {
		return r.node(t, "imap.js", r.port("imap/none"), user, e2ePassword)
	}, true},
	{"imap_tools", "python3", scripted("python3", "imap_tools_client.py", "import imap_tools"), true},
	{"mail_imapclient", "perl", scripted("perl", "mail_imapclient.pl", "use Mail::IMAPClient;"), true},
	{"net_imap", "ruby", scripted("ruby", "net_imap.rb", `require "net/imap"`), true},
	{"mutt", "mutt", muttIMAP, false},
}

// scripted runs one of testdata with an interpreter that has the library; probe is a program that needs it.
func scripted(interpreter, file, probe string) func(*rig, *testing.T, string) (string, error) {
	return func(r *rig, t *testing.T, user string) (string, error) {
		// Distributions keep their libraries with their own interpreter, which need not come first in the path.
		run := interpreter
		if own := "/usr/bin/" + interpreter; exec.Command(own, "--version").Run() == nil {
			run = own
		}
		flag := "-e"
		if interpreter == "python3" {
			flag = "-c"
		}
		if out, err := r.run(nil, run, flag, probe); err != nil {
			t.Skipf("%s lacks the library: %s", run, out)
		}
		path, err := filepath.Abs(filepath.Join("testdata", file))
		if err != nil {
			t.Fatal(err)
		}
		return r.run(nil, run, path, r.port("imap/none"), user, e2ePassword)
	}
}

func curlIMAP(r *rig, t *testing.T, user string) (string, error) {
	inbox := "imap://" + r.addr["imap/none"] + "/INBOX"
	var said strings.Builder
	curl := func(args ...string) string {
		out := r.mustRun(t, nil, "curl", append([]string{"-sS", "-m", "40", "-u", user + ":" + e2ePassword}, args...)...)
		said.WriteString(out)
		return out
	}
	uidOf := func(subject string) string {
		out := curl(inbox, "-X", `UID SEARCH SUBJECT "`+subject+`"`)
		m := regexp.MustCompile(`\* SEARCH (\d+)\r?\n`).FindStringSubmatch(out)
		if m == nil {
			t.Fatalf("%s: %q", subject, out)
		}
		return m[1]
	}
	said.WriteString("read ")
	curl(inbox + ";UID=" + uidOf("read me") + ";SECTION=TEXT")
	fmt.Fprintf(&said, "text search %d\n", len(strings.Fields(curl(inbox, "-X", "SEARCH BODY needle")))-2)
	fmt.Fprintf(&said, "fetched %d\n", strings.Count(curl(inbox, "-X", "FETCH 1:* (UID FLAGS RFC822.SIZE INTERNALDATE)"), "RFC822.SIZE"))
	curl(inbox, "-X", "UID STORE "+uidOf("flag me")+` +FLAGS (\Flagged $Label1)`)
	eml := r.write(t, "append-curl.eml", "From: "+user+"\r\nTo: x@y.example\r\nSubject: appended\r\nMessage-ID: <appended."+user+">\r\n\r\nAppended by curl.\r\n")
	curl("-T", eml, "imap://"+r.addr["imap/none"]+"/Archive")
	curl(inbox, "-X", "UID MOVE "+uidOf("move me")+" Archive")
	curl(inbox, "-X", "UID STORE "+uidOf("delete me")+` +FLAGS (\Deleted)`)
	curl(inbox, "-X", "EXPUNGE")
	return said.String(), nil
}

// muttIMAP drives mutt by keys, in a terminal of tmux's.
func muttIMAP(r *rig, t *testing.T, user string) (string, error) {
	need(t, "tmux")
	dir := t.TempDir()
	escaped := strings.ReplaceAll(e2ePassword, `"`, `\"`)
	rc := filepath.Join(dir, "rc")
	conf := fmt.Sprintf(`set folder="imap://127.0.0.1:%[1]s/"
set spoolfile="imap://127.0.0.1:%[1]s/INBOX"
set imap_user="%[2]s"
set imap_pass="%[3]s"
set ssl_starttls=no ssl_force_tls=no header_cache=%[4]s/hc message_cachedir=%[4]s/bc
set wait_key=no confirmappend=no confirmcreate=no delete=yes quit=yes mark_old=no abort_nosubject=no sleep_time=0 imap_idle=yes
push '<limit>~s "read me"<enter><pipe-message>cat >%[4]s/read.txt<enter><limit>all<enter><tag-pattern>=b needle<enter><tag-prefix><pipe-message>grep -c NEEDLE >%[4]s/found.txt<enter><untag-pattern>all<enter><limit>~s "flag me"<enter><flag-message><limit>~s "move me"<enter><save-message>=Archive<enter><limit>~s "delete me"<enter><delete-message><limit>all<enter><sync-mailbox><quit>'
`, r.port("imap/none"), user, escaped, dir)
	if err := os.WriteFile(rc, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "tmux")
	tmux := func(args ...string) (string, error) {
		return r.run(nil, "tmux", append([]string{"-S", socket, "-f", os.DevNull}, args...)...)
	}
	if out, err := tmux("new-session", "-d", "-x", "110", "-y", "35", "mutt -F "+rc+" 2>"+dir+"/err; touch "+dir+"/done"); err != nil {
		return out, err
	}
	t.Cleanup(func() {
		if t.Failed() {
			screen, _ := tmux("capture-pane", "-p") // none when mutt has ended
			t.Logf("mutt's screen:\n%s", screen)
		}
		_, _ = tmux("kill-server") // it ends by itself when mutt does
	})
	within(t, 40*time.Second, "mutt", func() bool {
		_, err := os.Stat(filepath.Join(dir, "done"))
		return err == nil
	})
	read, err := os.ReadFile(filepath.Join(dir, "read.txt"))
	if err != nil {
		return "", err
	}
	found, err := os.ReadFile(filepath.Join(dir, "found.txt"))
	return fmt.Sprintf("read %s\ntext search %s\nfetched 9", read, strings.TrimSpace(string(found))), err
}

// seedClient gives user nine messages in the Inbox, four of them to be worked on.
func seedClient(sim *graphsim.Sim, user string) {
	now := time.Now()
	sim.AddSynthetic(user, "inbox", 5, graphsim.Synthetic{Seed: 9, Newest: now.Add(-time.Hour)})
	for i, subject := range []string{"read me", "flag me", "move me", "delete me"} {
		body := "Nothing to see."
		if subject == "read me" {
			body = "Here is the NEEDLE, in hay."
		}
		mime := fmt.Sprintf("From: Bob <bob@contoso.example>\r\nTo: %s\r\nSubject: %s\r\nDate: Mon, 23 Nov 2026 10:0%d:00 +0000\r\nMessage-ID: <%s.%s>\r\nContent-Type: text/plain\r\n\r\n%s\r\n",
			user, subject, i, strings.ReplaceAll(subject, " ", "-"), user, body)
		sim.AddMessage(user, "inbox", []byte(mime), graphsim.MessageSpec{Received: now.Add(time.Duration(i-10) * time.Minute)})
	}
}

func TestE2EClients(t *testing.T) {
	users := make([]string, len(imapClients))
	for i, c := range imapClients {
		users[i] = c.name + "@contoso.example"
	}
	r := newRig(t, func(sim *graphsim.Sim) {
		for _, u := range users {
			seedClient(sim, u)
		}
	}, users...)
	for i, c := range imapClients {
		t.Run(c.name, func(t *testing.T) {
			need(t, c.program)
			user := users[i]
			out, err := c.work(r, t, user)
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, want := range []string{"Here is the NEEDLE, in hay.", "text search 1\n", "fetched 9"} {
				if !strings.Contains(out, want) {
					t.Errorf("client does not say %q:\n%s", want, out)
				}
			}
			inbox := func() map[string]graphsim.MessageInfo { return bySubject(r.sim.Messages(user, "inbox")) }
			within(t, 20*time.Second, "the flag in Graph", func() bool { return inbox()["flag me"].Flagged })
			in, archive := inbox(), bySubject(r.sim.Messages(user, "archive"))
			if _, there := in["move me"]; there || archive["move me"].ID == "" {
				t.Errorf("not moved: Inbox %v, Archive %v", in, archive)
			}
			if _, there := in["delete me"]; there {
				t.Errorf("not deleted")
			}
			if len(in) != 7 {
				t.Errorf("Inbox has %d messages, want 7", len(in))
			}
			if !c.appends {
				return
			}
			if got := in["flag me"].Categories; len(got) != 1 {
				t.Errorf("the keyword became categories %v", got)
			}
			a := archive["appended"]
			if a.ID == "" || a.IsDraft {
				t.Fatalf("appended message is %+v", a)
			}
			if len(archive) != 2 {
				t.Errorf("Archive has %d messages, want 2", len(archive))
			}
			if c.name != "curl" && time.Since(a.Received) < 23*time.Hour {
				t.Errorf("appended message was received at %v: its date is lost", a.Received)
			}
		})
	}
}

func bySubject(list []graphsim.MessageInfo) map[string]graphsim.MessageInfo {
	out := make(map[string]graphsim.MessageInfo)
	for _, m := range list {
		out[m.Subject] = m
	}
	return out
}

// mbsync copies the whole mailbox, then finds nothing to do, then merges what changed on both sides.
func TestE2EMbsync(t *testing.T) {
	mbsync := need(t, "mbsync")
	r := newRig(t, nil)
	mail := filepath.Join(r.dir, "mail")
	if err := os.Mkdir(mail, 0o700); err != nil {
		t.Fatal(err)
	}
	rc := r.write(t, "mbsyncrc", fmt.Sprintf(`IMAPAccount a
Host 127.0.0.1
Port %s
User %s
Pass %q
SSLType None
AuthMechs *

IMAPStore remote
Account a

MaildirStore local
Path %[4]s/
Inbox %[4]s/INBOX
SubFolders Verbatim

Channel all
Far :remote:
Near :local:
Patterns *
Create Both
Expunge Both
SyncState *
`, r.port("imap/none"), sampleUser, e2ePassword, mail))
	sync := func() string { return r.mustRun(t, nil, mbsync, "-c", rc, "all") }
	sync()

	want := 0
	for _, user := range []string{sampleUser, sampleShared} {
		for _, f := range r.sim.Folders(user) {
			if !f.Hidden {
				want += f.Total
			}
		}
	}
	first := maildir(t, mail)
	if len(first) != want {
		t.Fatalf("mbsync has %d messages, Graph %d", len(first), want)
	}
	for _, folder := range []string{"INBOX/cur", "Projects/Looking Glass/cur", "Sent/cur", "Shared/" + sampleShared + "/INBOX/cur"} {
		if !slices.ContainsFunc(first, func(f string) bool {
			return strings.HasPrefix(f, folder) || strings.HasPrefix(f, strings.Replace(folder, "/cur", "/new", 1))
		}) {
			t.Errorf("nothing in %s; there is %v", folder, first)
		}
	}
	writes := func() int {
		return r.sim.CountRequests(func(q graphsim.Request) bool {
			return q.Method != "GET" && q.Mailbox != "" && !strings.HasSuffix(q.Template, "$batch")
		})
	}
	before := writes()
	sync()
	if again := maildir(t, mail); !slices.Equal(again, first) {
		t.Errorf("the second run changed the copy: %d files, then %d", len(first), len(again))
	}
	if n := writes() - before; n != 0 {
		t.Errorf("the second run made %d changes in Graph", n)
	}

	// Changes on this side: one flag, one new message, one deletion.
	flagged := fileWith(t, mail, "INBOX", "Subject: Tea at four?")
	rename(t, flagged, addFlag(flagged, "F"))
	deleted := fileWith(t, mail, "INBOX", "Subject: Scan from device")
	rename(t, deleted, addFlag(deleted, "T"))
	local := filepath.Join(mail, "Projects", "2026", "cur", "1700000000.1_1.e2e:2,S")
	if err := os.WriteFile(local, []byte("From: alice@contoso.example\nTo: bob@contoso.example\nSubject: written here\nMessage-ID: <here@e2e.example>\nDate: Mon, 23 Nov 2026 10:00:00 +0000\n\nhello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// And on the other.
	in := bySubject(r.sim.Messages(sampleUser, "inbox"))
	r.sim.DeliverMessage(sampleUser, []byte("From: bob@contoso.example\r\nTo: alice@contoso.example\r\nSubject: written there\r\nMessage-ID: <there@e2e.example>\r\n\r\nhello\r\n"))
	r.sim.MoveMessage(sampleUser, in["Re: Minutes of the board meeting"].ID, "archive")
	r.sim.DeleteMessage(sampleUser, in["[UPS] on battery: rack 4"].ID, true)

	within(t, 60*time.Second, "merge", func() bool {
		sync()
		inbox := bySubject(r.sim.Messages(sampleUser, "inbox"))
		_, deletedThere := inbox["Scan from device"]
		return inbox["Tea at four?"].Flagged && !deletedThere && len(r.sim.Messages(sampleUser, "Projects/2026")) == 1 &&
			has(t, mail, "INBOX", "Subject: written there") && !has(t, mail, "INBOX", "Subject: [UPS] on battery") &&
			has(t, mail, "Archive", "Subject: Re: Minutes of the board meeting") && !has(t, mail, "INBOX", "Subject: Re: Minutes")
	})
	second := maildir(t, mail)
	sync()
	if again := maildir(t, mail); !slices.Equal(again, second) {
		t.Errorf("after the merge a further run still changes the copy")
	}
	if n := len(r.sim.Messages(sampleUser, "Projects/2026")); n != 1 {
		t.Errorf("the message written here is %d times in Graph", n)
	}
}

// maildir lists the messages of all folders below dir, "new" and "cur" alike.
func maildir(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if sub := filepath.Base(filepath.Dir(path)); sub == "cur" || sub == "new" {
			rel, err := filepath.Rel(dir, path)
			out = append(out, rel)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

// find returns the files of a maildir folder that contain text.
func find(t *testing.T, dir, folder, text string) (out []string) {
	t.Helper()
	for _, sub := range []string{"cur", "new"} {
		files, err := filepath.Glob(filepath.Join(dir, folder, sub, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if b, err := os.ReadFile(f); err == nil && strings.Contains(string(b), text) {
				out = append(out, f)
			}
		}
	}
	return out
}

func has(t *testing.T, dir, folder, text string) bool {
	t.Helper()
	return len(find(t, dir, folder, text)) > 0
}

func fileWith(t *testing.T, dir, folder, text string) string {
	t.Helper()
	files := find(t, dir, folder, text)
	if len(files) != 1 {
		t.Fatalf("%d files in %s contain %q", len(files), folder, text)
	}
	return files[0]
}

// addFlag returns the file's name with one more maildir flag, in cur.
func addFlag(path, flag string) string {
	name, flags, _ := strings.Cut(filepath.Base(path), ":2,")
	letters := strings.Split(flags+flag, "")
	slices.Sort(letters)
	return filepath.Join(filepath.Dir(filepath.Dir(path)), "cur", name+":2,"+strings.Join(letters, ""))
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// TLS as clients check it: certificate and name.
func TestE2ETLS(t *testing.T) {
	need(t, "curl")
	r := newRig(t, nil)
	for _, tt := range []struct{ url, listener, flag string }{
		{"imap", "imap/starttls", "--ssl-reqd"}, {"imaps", "imap/implicit", "--ssl"},
	} {
		url := tt.url + "://localhost:" + r.port(tt.listener) + "/"
		out := r.mustRun(t, nil, "curl", "-sS", "-m", "30", tt.flag, "--cacert", r.cert, "-u", sampleUser+":"+e2ePassword, url)
		if !strings.Contains(out, "INBOX") {
			t.Errorf("%s: %s", url, out)
		}
	}
	if _, err := exec.LookPath("openssl"); err == nil {
		out, err := r.run([]byte("a LOGOUT\r\n"), "openssl", "s_client", "-quiet", "-connect", r.addr["imap/implicit"], "-CAfile", r.cert, "-verify_return_error", "-verify_ip", "127.0.0.1", "-tls1_1")
		if err == nil {
			t.Errorf("TLS 1.1 is taken: %s", out)
		}
	}
	out := r.mustRun(t, nil, "curl", "-sS", "-m", "30", "http://"+r.addr["http/none"]+"/readyz")
	if !strings.Contains(out, `"ready": true`) {
		t.Errorf("readyz: %s", out)
	}
	r.stop()
}

// A client that waits in IDLE hears of a message from outside, and of a flag another program has set.
func TestE2EIdle(t *testing.T) {
	r := newRig(t, nil)
	grown, flagged := make(chan uint32, 10), make(chan uint32, 10)
	c, err := imapclient.DialInsecure(r.addr["imap/none"], &imapclient.Options{UnilateralDataHandler: &imapclient.UnilateralDataHandler{
		Mailbox: func(d *imapclient.UnilateralDataMailbox) {
			if d.NumMessages != nil {
				grown <- *d.NumMessages
			}
		},
		Fetch: func(m *imapclient.FetchMessageData) {
			buf, err := m.Collect()
			if err == nil && slices.Contains(buf.Flags, imap.FlagFlagged) {
				flagged <- buf.SeqNum
			}
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Login(sampleUser, e2ePassword).Wait(); err != nil {
		t.Fatal(err)
	}
	sel, err := c.Select("INBOX", nil).Wait()
	if err != nil {
		t.Fatal(err)
	}
	idle, err := c.Idle()
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	r.sim.DeliverMessage(sampleUser, []byte("From: bob@contoso.example\r\nTo: alice@contoso.example\r\nSubject: knock\r\nMessage-ID: <knock@e2e.example>\r\n\r\nhello\r\n"))
	select {
	case n := <-grown:
		if n != sel.NumMessages+1 {
			t.Errorf("INBOX has %d messages, want %d", n, sel.NumMessages+1)
		}
		t.Logf("told of the message after %v", time.Since(start).Round(time.Millisecond))
	case <-time.After(20 * time.Second):
		t.Fatal("IDLE does not hear of a new message")
	}
	tea := bySubject(r.sim.Messages(sampleUser, "inbox"))["Tea at four?"]
	r.sim.UpdateMessage(sampleUser, tea.ID, graphsim.Change{Flagged: new(true)})
	select {
	case <-flagged:
	case <-time.After(20 * time.Second):
		t.Fatal("IDLE does not hear of a flag")
	}
	if err := idle.Close(); err != nil {
		t.Error(err)
	}
	if err := idle.Wait(); err != nil {
		t.Error(err)
	}
}

// A login that lists a shared mailbox reads it beside its own, or as if it were its own.
func TestE2EShared(t *testing.T) {
	r := newRig(t, nil)
	want := len(r.sim.Messages(sampleShared, "inbox"))
	for _, tt := range []struct{ user, mailbox string }{
		{sampleUser, "Shared/" + sampleShared + "/INBOX"},
		{sampleUser + "/" + sampleShared, "INBOX"},
	} {
		if n := len(r.snapshot(t, tt.user, tt.mailbox).messages); n != want {
			t.Errorf("%s of %s has %d messages, want %d", tt.mailbox, tt.user, n, want)
		}
	}
	// And sends in its name, through its own mailbox or the shared one.
	for _, login := range []string{sampleUser, sampleUser + "/" + sampleShared} {
		if err := sendMail(r.addr["smtp/none"], login, sampleShared, sampleOther, "<"+login+">"); err != nil {
			t.Errorf("%s sends as %s: %v", login, sampleShared, err)
		}
	}
	within(t, 20*time.Second, "both messages", func() bool { return len(r.sim.Delivered()) == 2 })
	for _, d := range r.sim.Delivered() {
		if d.Sender != sampleShared {
			t.Errorf("%s came from %s", d.MessageID, d.Sender)
		}
	}
}
