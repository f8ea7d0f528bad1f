package imapd

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// TestGoIMAPClient drives a session with somebody else's client.
func TestGoIMAPClient(t *testing.T) {
	w := newWorld(t, Limits{})
	exists := make(chan uint32, 10)
	raw := w.connect()
	c := imapclient.New(raw.conn, &imapclient.Options{UnilateralDataHandler: &imapclient.UnilateralDataHandler{
		Mailbox: func(data *imapclient.UnilateralDataMailbox) {
			if data.NumMessages != nil {
				exists <- *data.NumMessages
			}
		},
	}})
	defer c.Close()
	check := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	check("login", c.Login("boss", "pass").Wait())
	caps := c.Caps()
	for _, want := range []imap.Cap{imap.CapUIDPlus, imap.CapMove, imap.CapIdle, imap.CapNamespace, imap.CapListExtended,
		imap.CapListStatus, imap.CapSpecialUse, imap.CapStatusSize, imap.CapUnselect, imap.CapEnable, imap.CapID} {
		if !caps.Has(want) {
			t.Errorf("no %s", want)
		}
	}
	if limit := caps[imap.Cap("APPENDLIMIT=157286400")]; limit != struct{}{} {
		t.Error("no APPENDLIMIT")
	}
	id, err := c.ID(&imap.IDData{Name: "test"}).Wait()
	check("id", err)
	if id.Name != "Postern" {
		t.Errorf("ID %q", id.Name)
	}
	ns, err := c.Namespace().Wait()
	check("namespace", err)
	if len(ns.Personal) != 1 || len(ns.Other) != 1 || ns.Other[0].Prefix != "Shared/" || ns.Other[0].Delim != '/' {
		t.Errorf("namespaces %+v", ns)
	}
	boxes, err := c.List("", "*", &imap.ListOptions{ReturnSubscribed: true, ReturnStatus: &imap.StatusOptions{NumMessages: true, UIDNext: true}}).Collect()
	check("list", err)
	found := make(map[string]*imap.ListData)
	for _, b := range boxes {
		found[b.Mailbox] = b
	}
	for _, name := range []string{"INBOX", "Sent", "Überblick & Co", "Archive/2023", "Shared/" + support + "/INBOX"} {
		if b := found[name]; b == nil || b.Status == nil || b.Status.NumMessages == nil {
			t.Errorf("LIST has no status of %s", name)
		}
	}

	const mail = "From: a@b.example\r\nTo: c@d.example\r\nSubject: hello\r\nMessage-ID: <1@b.example>\r\nDate: Mon, 23 Nov 2026 10:00:00 +0000\r\n\r\nBody\r\n"
	appendOne := func(box string) imap.UID {
		t.Helper()
		cmd := c.Append(box, int64(len(mail)), &imap.AppendOptions{Flags: []imap.Flag{imap.FlagSeen, "$Label1"}, Time: time.Now()})
		_, err := io.WriteString(cmd, mail)
		check("append", err)
		check("append", cmd.Close())
		data, err := cmd.Wait()
		check("append", err)
		if data.UID == 0 || data.UIDValidity == 0 {
			t.Errorf("APPENDUID %+v", data)
		}
		return data.UID
	}
	first := appendOne("Überblick & Co")
	sel, err := c.Select("Überblick & Co", nil).Wait()
	check("select", err)
	if sel.NumMessages != 1 || sel.UIDNext <= first || len(sel.PermanentFlags) < 6 {
		t.Errorf("SELECT %+v", sel)
	}
	check("store", c.Store(imap.UIDSetNum(first), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagFlagged}}, nil).Close())
	copied, err := c.Copy(imap.UIDSetNum(first), "Archive/2023").Wait()
	check("copy", err)
	if copied.SourceUIDs.String() != imap.UIDSetNum(first).String() || len(copied.DestUIDs) != 1 {
		t.Errorf("COPYUID %+v", copied)
	}
	moved, err := c.Move(imap.UIDSetNum(first), "Trash").Wait()
	check("move", err)
	if moved.UIDValidity == 0 || len(moved.DestUIDs.(imap.UIDSet)) != 1 {
		t.Errorf("COPYUID %+v", moved)
	}

	idle, err := c.Idle()
	check("idle", err)
	for len(exists) > 0 {
		<-exists
	}
	other := w.login("alice")
	other.ok("APPEND \"&ANw-berblick &- Co\" {20+}\r\nSubject: x\r\n\r\nHello.")
	select {
	case n := <-exists:
		if n != 1 {
			t.Errorf("IDLE: %d messages", n)
		}
	case <-time.After(patience):
		t.Error("IDLE said nothing")
	}
	check("idle", idle.Close())
	check("idle", idle.Wait())
	check("create", c.Create("Neu & Alt/Straße", &imap.CreateOptions{}).Wait())
	check("rename", c.Rename("Neu & Alt/Straße", "Weg", nil).Wait())
	check("delete", c.Delete("Weg").Wait())
	check("logout", c.Logout().Wait())
}

// TestNothingSecretIsLogged: not even at the most talkative level.
func TestNothingSecretIsLogged(t *testing.T) {
	w := newWorld(t, Limits{})
	c := w.connect()
	c.expect("* OK {{.*}}")
	c.do("LOGIN alice sesame-wrong")
	c.send("a AUTHENTICATE PLAIN\r\n")
	c.expect("+ ")
	c.send("AGFsaWNlAHNlc2FtZS13cm9uZw==\r\n")
	c.expect("a NO {{.*}}")
	c.ok("LOGIN alice pass")
	c.ok("APPEND INBOX {30+}\r\nSubject: sesame\r\n\r\nsesame!!!!!")
	c.ok("SELECT INBOX")
	c.ok("EXPUNGE")
	logs := w.logs.String()
	for _, secret := range []string{"sesame", "AGFsaWNl"} {
		if strings.Contains(logs, secret) {
			t.Errorf("the log holds %q:\n%s", secret, logs)
		}
	}
	if !strings.Contains(logs, "command failed") || !strings.Contains(logs, "account="+alice) {
		t.Errorf("the log says too little:\n%s", logs)
	}
}
