package backend

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend/graphsim"
)

func inject(t *testing.T, sim *graphsim.Sim, f graphsim.Fault) {
	t.Helper()
	if err := sim.Inject(f); err != nil {
		t.Fatal(err)
	}
}

func TestFolders(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	dir := t.TempDir()
	b, stop := start(t, testConfig(t, url, dir))
	a := accountOf(t, b, alice)
	names := func() []string {
		list, err := a.Mailboxes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, m := range list {
			out = append(out, m.Name)
		}
		return out
	}
	has := func(name string) bool { return slices.Contains(names(), name) }
	ctx := t.Context()
	for _, name := range []string{"Work/2026/March", "INBOX/Lists"} {
		if err := a.Create(ctx, name, ""); err != nil {
			t.Fatalf("create %s: %v", name, err)
		}
		if !has(name) {
			t.Errorf("%s is not listed", name)
		}
	}
	for _, tt := range []struct {
		what string
		err  error
		want Kind
	}{
		{"create again", a.Create(ctx, "Work/2026", ""), Exists},
		{"create inbox", a.Create(ctx, "inbox", ""), Exists},
		{"create empty level", a.Create(ctx, "a//b", ""), Refused},
		{"create control", a.Create(ctx, "a\x01b", ""), Refused},
		{"create with role", a.Create(ctx, "My junk", imap.MailboxAttrJunk), Refused},
		{"create below Shared", a.Create(ctx, "Shared/x", ""), Refused},
		{"delete parent", a.Delete(ctx, "Work"), Refused},
		{"delete Sent", a.Delete(ctx, "Sent"), Refused},
		{"delete nothing", a.Delete(ctx, "Nothing"), NotFound},
		{"rename Trash", a.Rename(ctx, "Trash", "Bin"), Refused},
		{"rename below itself", a.Rename(ctx, "Work", "Work/x"), Refused},
		{"rename onto another", a.Rename(ctx, "Work", "Sent"), Exists},
		{"open nothing", func() error { _, err := a.Open(ctx, "Nothing", false); return err }(), NotFound},
	} {
		if KindOf(tt.err) != tt.want || tt.err == nil {
			t.Errorf("%s: %v, kind %v, want %v", tt.what, tt.err, KindOf(tt.err), tt.want)
		}
	}
	if _, err := appendMail(t, a, "Work/2026/March", mail(1), time.Time{}); err != nil {
		t.Fatal(err)
	}
	m := open(t, a, "Work/2026/March")
	valid := m.UIDValidity()
	if err := a.Rename(ctx, "Work/2026", "Archive 2026"); err != nil {
		t.Fatal(err)
	}
	if !has("Archive 2026/March") || has("Work/2026/March") {
		t.Errorf("after rename: %q", names())
	}
	if st, err := a.Status(ctx, "Archive 2026/March"); err != nil || st.UIDValidity != valid || st.Messages != 1 {
		t.Errorf("status after rename = %+v, %v", st, err)
	}
	if err := a.Rename(ctx, "Archive 2026/March", "Work/Old/March"); err != nil {
		t.Fatal(err)
	}
	if !has("Work/Old/March") {
		t.Errorf("after move: %q", names())
	}
	// Another program is at work too.
	sim.AddFolder(alice, "Work", "From Outlook")
	eventually(t, nil, "new folder", func() bool { return has("Work/From Outlook") })
	sim.RenameFolder(alice, "Work/From Outlook", "Renamed")
	eventually(t, nil, "renamed folder", func() bool { return has("Work/Renamed") && !has("Work/From Outlook") })
	sim.DeleteFolder(alice, "Work/Old/March")
	eventually(t, m, "gone folder", func() bool { names(); return m.Gone() })

	if err := a.Delete(ctx, "Work/Renamed"); err != nil {
		t.Fatal(err)
	}
	eventually(t, nil, "deleted folder in Trash", func() bool { return has("Trash/Renamed") && !has("Work/Renamed") })

	sim.AddFolder(alice, "", "Same")
	sim.AddFolder(alice, "", "Same")
	eventually(t, nil, "twins", func() bool { return has("Same") && has("Same (2)") })
	before := names()
	stop()
	b, _ = start(t, testConfig(t, url, dir))
	a = accountOf(t, b, alice)
	sim.ResetDelta(alice, "")
	if err := a.syncer.RefreshTree(ctx); err != nil {
		t.Fatal(err)
	}
	if after := names(); !slices.Equal(before, after) {
		t.Errorf("names after restart %q, before %q", after, before)
	}
	// Renaming INBOX leaves it empty and in place.
	if _, err := appendMail(t, a, "INBOX", mail(2), time.Time{}); err != nil {
		t.Fatal(err)
	}
	if err := a.Rename(ctx, "INBOX", "Saved"); err != nil {
		t.Fatal(err)
	}
	inbox, _ := a.Status(ctx, "INBOX")
	saved, err := a.Status(ctx, "Saved")
	if err != nil || inbox.Messages != 0 || saved.Messages != 1 {
		t.Errorf("after renaming INBOX: %+v and %+v, %v", inbox, saved, err)
	}
}

func TestSubscriptions(t *testing.T) {
	_, url := newSim(t, graphsim.Options{})
	b, _ := start(t, testConfig(t, url, t.TempDir()))
	a := accountOf(t, b, alice)
	if err := a.Subscribe(t.Context(), "Sent", false); err != nil {
		t.Fatal(err)
	}
	if err := a.Subscribe(t.Context(), "Not there", true); err != nil {
		t.Fatal(err)
	}
	names, err := a.Subscriptions(t.Context())
	if err != nil || !slices.Contains(names, "Not there") || !slices.Contains(names, "INBOX") || slices.Contains(names, "Sent") {
		t.Errorf("subscriptions = %q, %v", names, err)
	}
}

// TestFaults lets all kinds of calls go wrong once or more and expects that nobody notices.
func TestFaults(t *testing.T) {
	for name, f := range map[string]graphsim.Fault{
		"429":        {Path: "/messages", Status: 429, Code: "ApplicationThrottled", RetryAfter: "0.1", Every: 4, Times: 6},
		"503":        {Path: "/messages", Status: 503, EmptyBody: true, Every: 4, Times: 6},
		"504 delta":  {Path: "delta", Status: 504, Code: "GatewayTimeout", Times: 2},
		"drop":       {Path: "/messages", Method: "GET", DropBefore: true, Every: 3, Times: 4},
		"cut off":    {Path: "/messages", Method: "GET", TruncateBody: true, Every: 3, Times: 4},
		"401":        {Path: "/messages", TokenExpired: true, Times: 1},
		"item 429":   {Path: "/messages/", Method: "PATCH", Status: 429, Code: "TooManyRequests", RetryAfter: "0.1", Every: 2, Times: 4},
		"409":        {Path: "/messages/", Method: "PATCH", Status: 409, Code: "ErrorIrresolvableConflict", Times: 3},
		"move 503":   {Path: "/move", Status: 503, Code: "ServiceUnavailable", Times: 2},
		"move reset": {Path: "/move", Status: 500, Code: "InternalServerError", AfterEffect: true, Times: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sim, url := newSim(t, graphsim.Options{})
			sim.AddFolder(alice, "", "Work")
			for i := range 30 {
				sim.AddMessage(alice, "inbox", mail(i), graphsim.MessageSpec{})
			}
			inject(t, sim, f)
			b, _ := start(t, testConfig(t, url, t.TempDir()))
			a := accountOf(t, b, alice)
			m := open(t, a, "INBOX")
			if len(m.UIDs()) != 30 {
				t.Fatalf("%d messages", len(m.UIDs()))
			}
			if text := readBody(t, m, 3); !strings.Contains(text, "Hello number") {
				t.Errorf("body = %q", text)
			}
			if _, err := m.Store(t.Context(), m.UIDs(), StoreAdd, []imap.Flag{imap.FlagSeen}, 0); err != nil {
				t.Fatal(err)
			}
			eventually(t, nil, "push", func() bool {
				return !slices.ContainsFunc(sim.Messages(alice, "inbox"), func(i graphsim.MessageInfo) bool { return !i.IsRead })
			})
			res, err := m.Move(t.Context(), m.UIDs()[:10], "Work")
			if err != nil || len(res.Dest) != 10 {
				t.Errorf("move = %+v, %v", res, err)
			}
			if in, work := len(sim.Messages(alice, "inbox")), len(sim.Messages(alice, "Work")); in != 20 || work != 10 {
				t.Errorf("%d and %d messages in Graph", in, work)
			}
			work := open(t, a, "Work")
			sim.DeliverMessage(alice, mail(99))
			eventually(t, m, "both as in Graph", func() bool { return len(m.UIDs()) == 21 && len(work.UIDs()) == 10 })
		})
	}
}

func TestRefusedFlagIsUndone(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	sim.AddMessage(alice, "inbox", mail(1), graphsim.MessageSpec{})
	b, _ := start(t, testConfig(t, url, t.TempDir()))
	m := open(t, accountOf(t, b, alice), "INBOX")
	inject(t, sim, graphsim.Fault{Method: "PATCH", Path: "/messages/", Status: 400, Code: "ErrorInvalidPropertySet"})
	since := m.HighestModSeq()
	if _, err := m.Store(t.Context(), []imap.UID{1}, StoreAdd, []imap.Flag{imap.FlagFlagged, "nope"}, 0); err != nil {
		t.Fatal(err)
	}
	if got := flagsOf(m, 1); got != `\Flagged nope` {
		t.Errorf("flags = %q", got)
	}
	eventually(t, m, "undo", func() bool { return flagsOf(m, 1) == "" })
	if ch := m.Changes(since); !slices.Equal(ch.Updated, []imap.UID{1}) {
		t.Errorf("changes = %+v", ch)
	}
}

func TestQuota(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	for i := range 5 {
		sim.AddMessage(alice, "inbox", mail(i), graphsim.MessageSpec{})
	}
	sim.SetOverQuota(alice, true)
	b, _ := start(t, testConfig(t, url, t.TempDir()))
	a := accountOf(t, b, alice)
	m := open(t, a, "INBOX")
	if len(m.UIDs()) != 5 {
		t.Fatalf("%d messages", len(m.UIDs()))
	}
	_, err := appendMail(t, a, "INBOX", mail(9), time.Time{})
	if KindOf(err) != OverQuota {
		t.Errorf("append into a full mailbox: %v, kind %v", err, KindOf(err))
	}
	id := sim.Messages(alice, "inbox")[0].ID
	sim.DeleteMessage(alice, id, true)
	eventually(t, nil, "by list", func() bool {
		_ = a.syncer.RefreshNow(t.Context(), m.view.id)
		return len(m.UIDs()) == 4
	})
}

// A list may give smaller pages than were asked for. Folders on the later ones must not be taken for deleted, or their UIDs
// are lost.
func TestQuotaManyFolders(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{LargestPage: 3})
	for i := range 8 {
		sim.AddFolder(alice, "", fmt.Sprint("F", i))
		sim.AddFolder(alice, "F0", fmt.Sprint("Sub", i))
	}
	b, _ := start(t, testConfig(t, url, t.TempDir()))
	a := accountOf(t, b, alice)
	names := func() int {
		list, err := a.Mailboxes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	before := names()
	sim.SetOverQuota(alice, true)
	sim.AddFolder(alice, "", "G")
	eventually(t, nil, "new folder by lists", func() bool {
		if err := a.syncer.RefreshTree(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := names(); n < before {
			t.Fatalf("%d folders, were %d", n, before)
		}
		return names() == before+1
	})
}

// Pages of a list count rows from the start, so that of a folder in which messages are deleted meanwhile some are on no page.
// They must not get new UIDs.
func TestQuotaWhileDeleting(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{LargestPage: 4})
	for i := range 12 {
		sim.AddMessage(alice, "inbox", mail(i), graphsim.MessageSpec{Received: time.Unix(int64(1e9+i), 0)})
	}
	sim.SetOverQuota(alice, true)
	cfg := testConfig(t, url, t.TempDir())
	var delete atomic.Bool
	next := cfg.HTTPClient.Transport
	cfg.HTTPClient = &http.Client{Transport: transportFunc(func(r *http.Request) (*http.Response, error) {
		resp, err := next.RoundTrip(r)
		if strings.HasSuffix(r.URL.Path, "/messages") && !strings.Contains(r.URL.RawQuery, "skip=") && delete.CompareAndSwap(true, false) {
			for _, m := range sim.Messages(alice, "inbox")[10:] { // the oldest two
				sim.DeleteMessage(alice, m.ID, true)
			}
		}
		return resp, err
	})}
	b, _ := start(t, cfg)
	a := accountOf(t, b, alice)
	m := open(t, a, "INBOX")
	uids := m.UIDs()
	delete.Store(true)
	eventually(t, nil, "round with deletions", func() bool {
		_ = a.syncer.RefreshNow(t.Context(), m.view.id)
		return len(m.UIDs()) != len(uids)
	})
	if got := m.UIDs(); !slices.Equal(got, uids[2:]) {
		t.Errorf("UIDs = %v, want %v", got, uids[2:])
	}
}

type transportFunc func(*http.Request) (*http.Response, error)

func (f transportFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestFolderAnswersLost has Graph carry out changes of folders whose answers are lost.
func TestFolderAnswersLost(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	b, _ := start(t, testConfig(t, url, t.TempDir()))
	a := accountOf(t, b, alice)
	ctx := t.Context()
	lose := func(method, path string) {
		sim.ClearFaults()
		inject(t, sim, graphsim.Fault{Method: method, Path: path, Status: 504, Code: "GatewayTimeout", AfterEffect: true, Times: 1})
	}
	for _, step := range []struct {
		method, path string
		do           func() error
	}{
		{"POST", "/mailFolders$", func() error { return a.Create(ctx, "New", "") }},
		{"POST", "/childFolders$", func() error { return a.Create(ctx, "New/Sub", "") }},
		{"PATCH", "/mailFolders/", func() error { return a.Rename(ctx, "New/Sub", "New/Other") }},
		{"POST", "/move$", func() error { return a.Rename(ctx, "New/Other", "Other") }},
		{"DELETE", "/mailFolders/", func() error { return a.Delete(ctx, "Other") }},
	} {
		lose(step.method, step.path)
		if err := step.do(); err != nil {
			t.Errorf("%s %s: %v", step.method, step.path, err)
		}
		if sim.FaultsFired() != 1 {
			t.Errorf("%s %s: no answer was lost", step.method, step.path)
		}
	}
	// Another of the same name, where Deleted Items takes no second one.
	if err := a.Create(ctx, "Other", ""); err != nil {
		t.Fatal(err)
	}
	sim.ClearFaults()
	inject(t, sim, graphsim.Fault{Method: "DELETE", Path: "/mailFolders/", Status: 409, Code: "ErrorFolderExists", Times: 1})
	if err := a.Delete(ctx, "Other"); err != nil {
		t.Error(err)
	}
	if !slices.ContainsFunc(sim.Folders(alice), func(f graphsim.FolderInfo) bool { return strings.Contains(f.Path, "/Other (") }) {
		t.Errorf("second deleted folder is not in Deleted Items: %+v", sim.Folders(alice))
	}
	// One that Graph does not delete in the end has its name still.
	if err := a.Create(ctx, "Kept", ""); err != nil {
		t.Fatal(err)
	}
	sim.ClearFaults()
	inject(t, sim, graphsim.Fault{Method: "DELETE", Path: "/mailFolders/", Status: 409, Code: "ErrorFolderExists"})
	if err := a.Delete(ctx, "Kept"); err == nil {
		t.Error("a folder that is not deleted is said to be")
	}
	if !slices.ContainsFunc(sim.Folders(alice), func(f graphsim.FolderInfo) bool { return f.Path == "Kept" }) {
		t.Errorf("folder that was not deleted has another name: %+v", sim.Folders(alice))
	}
	sim.ClearFaults()
	if !slices.ContainsFunc(sim.Folders(alice), func(f graphsim.FolderInfo) bool { return strings.HasSuffix(f.Path, "/Other") }) {
		t.Errorf("deleted folder is not in Deleted Items: %+v", sim.Folders(alice))
	}
}

func TestAppendLarge(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	b, _ := start(t, testConfig(t, url, t.TempDir()))
	a := accountOf(t, b, alice)
	file := bytes.Repeat([]byte("0123456789abcdef"), 5<<20/16)
	var raw bytes.Buffer
	raw.WriteString("From: x@y.example\r\nTo: z@y.example\r\nSubject: large\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\ntext\r\n")
	for _, name := range []string{"big.bin", "small.bin"} {
		fmt.Fprintf(&raw, "--b\r\nContent-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=%s\r\nContent-Transfer-Encoding: base64\r\n\r\n", name)
		part := file
		if name == "small.bin" {
			part = file[:1000]
		}
		enc := base64.StdEncoding.EncodeToString(part)
		for len(enc) > 76 {
			raw.WriteString(enc[:76] + "\r\n")
			enc = enc[76:]
		}
		raw.WriteString(enc + "\r\n")
	}
	raw.WriteString("--b--\r\n")
	for _, mailbox := range []string{"INBOX", "Drafts"} {
		m := open(t, a, mailbox)
		uid, err := appendMail(t, a, mailbox, raw.Bytes(), time.Time{})
		if err != nil {
			t.Fatalf("%s: %v", mailbox, err)
		}
		if readBody(t, m, uid) != raw.String() {
			t.Errorf("%s: other bytes read back", mailbox)
		}
		info := sim.Messages(alice, strings.ToLower(mailbox))
		if len(info) != 1 || len(info[0].Files) != 2 || info[0].Size < len(file) {
			t.Errorf("%s: in Graph %+v", mailbox, info)
		}
	}
	// A failure on the way leaves nothing.
	inject(t, sim, graphsim.Fault{Path: "createUploadSession", Status: 400, Code: "ErrorInvalidRequest"})
	for _, mailbox := range []string{"INBOX", "Drafts"} {
		if _, err := appendMail(t, a, mailbox, raw.Bytes(), time.Time{}); err == nil {
			t.Errorf("%s: append did not fail", mailbox)
		}
		if n := len(sim.Messages(alice, strings.ToLower(mailbox))); n != 1 {
			t.Errorf("%s: %d messages after a failed append", mailbox, n)
		}
		m := open(t, a, mailbox)
		if err := a.syncer.RefreshNow(t.Context(), m.view.id); err != nil {
			t.Fatal(err)
		}
		if n := len(m.UIDs()); n != 1 {
			t.Errorf("%s: clients see %d messages after a failed append", mailbox, n)
		}
	}
}

// A message that Postern did not send is filed as the client asks, even beside another of the same Message-ID: a program
// that restores or copies folders counts what it has written.
func TestAppendToSentOfOldMessage(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	b, _ := start(t, testConfig(t, url, t.TempDir()))
	a := accountOf(t, b, alice)
	sim.AddMessage(alice, "sentitems", mail(7), graphsim.MessageSpec{NoTransportHeaders: true, IsRead: true})
	m := open(t, a, "Sent")
	uid, err := appendMail(t, a, "Sent", mail(7), time.Time{}, imap.FlagSeen)
	if err != nil || uid != 2 {
		t.Fatalf("append = %d, %v", uid, err)
	}
	if n := len(sim.Messages(alice, "sentitems")); n != 2 || len(m.UIDs()) != 2 {
		t.Errorf("%d messages in Sent Items, %d for clients", n, len(m.UIDs()))
	}
	if got := readBody(t, m, uid); got != string(mail(7)) {
		t.Errorf("read back %q", got)
	}
}

func TestExpungePolicies(t *testing.T) {
	for _, tt := range []struct {
		policy             DeletePolicy
		trash, recoverable int
		fault              graphsim.Fault
	}{
		{DeleteRecoverable, 0, 2, graphsim.Fault{}},
		{DeleteTrash, 2, 0, graphsim.Fault{}},
		{DeletePurge, 0, 0, graphsim.Fault{}},
		{DeleteRecoverable, 0, 2, graphsim.Fault{Path: "/move", Status: 400, Code: "ErrorInvalidOperation"}},
		{DeleteRecoverable, 0, 2, graphsim.Fault{Path: "/move", Status: 404, Code: "ErrorItemNotFound"}},
		{DeletePurge, 0, 2, graphsim.Fault{Path: "/permanentDelete", Status: 405, Code: "MethodNotAllowed"}},
		{DeletePurge, 0, 2, graphsim.Fault{Path: "/permanentDelete", Status: 404, Code: "ResourceNotFound", Message: "Resource not found for the segment 'permanentDelete'."}},
		{DeleteRecoverable, 0, 2, graphsim.Fault{Path: "/move", Status: 504, Code: "GatewayTimeout", AfterEffect: true, Times: 3}},
		{DeleteRecoverable, 0, 2, graphsim.Fault{Path: "/move", Status: 500, Code: "InternalServerError", Times: 1}},
		{DeleteRecoverable, 0, 2, graphsim.Fault{Path: "/move", Status: 412, Code: "ErrorIrresolvableConflict", Times: 2}},
		{DeleteTrash, 2, 0, graphsim.Fault{Path: "/messages/[^/]*$", Method: "DELETE", Status: 504, Code: "GatewayTimeout", AfterEffect: true, Times: 3}},
		{DeletePurge, 0, 0, graphsim.Fault{Path: "/permanentDelete", Status: 504, Code: "GatewayTimeout", AfterEffect: true, Times: 3}},
	} {
		t.Run(fmt.Sprintf("%s %s %d", tt.policy, tt.fault.Path, tt.fault.Status), func(t *testing.T) {
			sim, url := newSim(t, graphsim.Options{})
			for i := range 3 {
				sim.AddMessage(alice, "inbox", mail(i), graphsim.MessageSpec{})
			}
			if tt.fault.Path != "" {
				inject(t, sim, tt.fault)
			}
			cfg := testConfig(t, url, t.TempDir())
			cfg.Delete = tt.policy
			b, _ := start(t, cfg)
			a := accountOf(t, b, alice)
			m := open(t, a, "INBOX")
			if _, err := m.Store(t.Context(), []imap.UID{1, 2, 3}, StoreAdd, []imap.Flag{imap.FlagDeleted}, 0); err != nil {
				t.Fatal(err)
			}
			done, err := m.Expunge(t.Context(), []imap.UID{1, 3})
			if err != nil || !slices.Equal(done, []imap.UID{1, 3}) || !slices.Equal(m.UIDs(), []imap.UID{2}) {
				t.Fatalf("expunge = %v, %v; left %v", done, err, m.UIDs())
			}
			if n := len(sim.Messages(alice, "deleteditems")); n != tt.trash {
				t.Errorf("%d in Deleted Items, want %d", n, tt.trash)
			}
			if n := len(sim.Messages(alice, "recoverableitemsdeletions")); n != tt.recoverable {
				t.Errorf("%d in Recoverable Items, want %d", n, tt.recoverable)
			}
			trash := open(t, a, "Trash")
			for _, uid := range trash.UIDs() {
				if strings.Contains(flagsOf(trash, uid), "Deleted") {
					t.Error("the mark has come along to Trash")
				}
			}
		})
	}
}

// A folder that has just been deleted in Outlook must not swallow what is moved there: Graph's "not found" is about the
// folder, and the messages are where they were.
func TestMoveToVanishedFolder(t *testing.T) {
	for _, op := range []string{"move", "copy"} {
		t.Run(op, func(t *testing.T) {
			sim, url := newSim(t, graphsim.Options{})
			sim.AddMessage(alice, "inbox", mail(0), graphsim.MessageSpec{})
			sim.AddFolder(alice, "", "Old")
			b, _ := start(t, testConfig(t, url, t.TempDir()))
			a := accountOf(t, b, alice)
			m := open(t, a, "INBOX")
			open(t, a, "Old")
			inject(t, sim, graphsim.Fault{Path: "/" + op + "$", Status: 404, Code: "ErrorItemNotFound"})
			var err error
			if op == "move" {
				_, err = m.Move(t.Context(), []imap.UID{1}, "Old")
			} else {
				_, err = m.Copy(t.Context(), []imap.UID{1}, "Old")
			}
			if KindOf(err) != NotFound {
				t.Errorf("%s = %v, want NotFound", op, err)
			}
			if got := m.UIDs(); !slices.Equal(got, []imap.UID{1}) {
				t.Errorf("left in INBOX: %v, want the message", got)
			}
		})
	}
}

func TestHeadersOfMany(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	sim.AddSynthetic(alice, "inbox", 3000, graphsim.Synthetic{})
	for i := range 60 {
		sim.AddMessage(alice, "sentitems", mail(i), graphsim.MessageSpec{NoTransportHeaders: true})
	}
	b, _ := start(t, testConfig(t, url, t.TempDir()))
	a := accountOf(t, b, alice)
	for _, tt := range []struct {
		mailbox     string
		from, until int
	}{{"INBOX", 0, 3000}, {"INBOX", 500, 510}, {"Sent", 0, 5}, {"Sent", 0, 60}} {
		m := open(t, a, tt.mailbox)
		got := 0
		err := m.Headers(t.Context(), m.UIDs()[tt.from:tt.until], func(_ imap.UID, h []byte) error {
			if bytes.Contains(h, []byte("Subject: ")) && bytes.HasSuffix(h, []byte("\r\n\r\n")) {
				got++
			}
			return nil
		})
		if err != nil || got != tt.until-tt.from {
			t.Errorf("%s %d to %d: %d headers, %v", tt.mailbox, tt.from, tt.until, got, err)
		}
	}
}

func TestSearchText(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	for i := range 5 {
		sim.AddMessage(alice, "inbox", []byte(strings.ReplaceAll(string(mail(i)), "Hello", fmt.Sprintf("Hello word%d", i))), graphsim.MessageSpec{})
	}
	b, _ := start(t, testConfig(t, url, t.TempDir()))
	m := open(t, accountOf(t, b, alice), "INBOX")
	for _, tt := range []struct {
		text string
		body bool
		want int
	}{{"word3", false, 1}, {"word3", true, 1}, {`"number"`, false, 5}, {"absent", false, 0}, {`"()`, false, 0}} {
		got, err := m.SearchText(t.Context(), tt.text, tt.body, m.UIDs())
		if err != nil || len(got) != tt.want {
			t.Errorf("search %q: %v, %v", tt.text, got, err)
		}
	}
}

func TestCopyToOtherAccount(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	sim.AddMessage(alice, "inbox", mail(1), graphsim.MessageSpec{IsRead: true})
	b, _ := start(t, testConfig(t, url, t.TempDir()))
	m := open(t, accountOf(t, b, alice), "INBOX")
	to := accountOf(t, b, bob)
	res, err := m.CopyTo(t.Context(), []imap.UID{1, 77}, to, "INBOX")
	if err != nil || !slices.Equal(res.Source, []imap.UID{1}) || len(res.Dest) != 1 {
		t.Fatalf("copy = %+v, %v", res, err)
	}
	dst := open(t, to, "INBOX")
	if readBody(t, dst, res.Dest[0]) != readBody(t, m, 1) || flagsOf(dst, res.Dest[0]) != `\Seen` {
		t.Errorf("the copy differs: %q", flagsOf(dst, res.Dest[0]))
	}
}

// TestAppendUnclear loses Graph's answer to a creation. The message must be there once, whether it was made or not.
func TestAppendUnclear(t *testing.T) {
	for name, f := range map[string]graphsim.Fault{
		"made":     {Method: "POST", Path: "/messages$", Status: 500, AfterEffect: true, Times: 1},
		"not made": {Method: "POST", Path: "/messages$", Status: 503, EmptyBody: true, Times: 1},
		"reset":    {Method: "POST", Path: "/messages$", DropAfter: true, Times: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, mailbox := range []string{"INBOX", "Drafts"} {
				sim, url := newSim(t, graphsim.Options{})
				b, _ := start(t, testConfig(t, url, t.TempDir()))
				a := accountOf(t, b, alice)
				m := open(t, a, mailbox)
				inject(t, sim, f)
				uid, err := appendMail(t, a, mailbox, mail(1), time.Time{})
				if err != nil || uid == 0 {
					t.Errorf("%s: append = %d, %v", mailbox, uid, err)
				}
				if err := a.syncer.RefreshNow(t.Context(), m.view.id); err != nil {
					t.Fatal(err)
				}
				if n := len(sim.Messages(alice, strings.ToLower(mailbox))); n != 1 || len(m.UIDs()) != 1 {
					t.Errorf("%s: %d messages in Graph, %d for clients", mailbox, n, len(m.UIDs()))
				}
			}
		})
	}
}

// TestCopyUnclear loses Graph's answers to copies.
func TestCopyUnclear(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	for i := range 10 {
		sim.AddMessage(alice, "inbox", mail(i), graphsim.MessageSpec{})
	}
	sim.AddFolder(alice, "", "Work")
	b, _ := start(t, testConfig(t, url, t.TempDir()))
	a := accountOf(t, b, alice)
	m := open(t, a, "INBOX")
	work := open(t, a, "Work")
	inject(t, sim, graphsim.Fault{Path: "/copy$", Status: 504, AfterEffect: true, Times: 2})
	inject(t, sim, graphsim.Fault{Path: "/copy$", Status: 500, Skip: 3, Times: 1})
	res, err := m.Copy(t.Context(), m.UIDs(), "Work")
	if err != nil || len(res.Dest) != 10 {
		t.Errorf("copy = %+v, %v", res, err)
	}
	if err := a.syncer.RefreshNow(t.Context(), work.view.id); err != nil {
		t.Fatal(err)
	}
	if n := len(sim.Messages(alice, "Work")); n != 10 || len(work.UIDs()) != 10 {
		t.Errorf("%d copies in Graph, %d for clients", n, len(work.UIDs()))
	}
}

func TestStoreOfMany(t *testing.T) {
	if testing.Short() {
		t.Skip("a large mailbox")
	}
	sim, url := newSim(t, graphsim.Options{})
	sim.AddSynthetic(alice, "inbox", 20_000, graphsim.Synthetic{UnreadEvery: 1})
	b, _ := start(t, testConfig(t, url, t.TempDir()))
	m := open(t, accountOf(t, b, alice), "INBOX")
	since := m.HighestModSeq()
	began := time.Now()
	if _, err := m.Store(t.Context(), m.UIDs(), StoreAdd, []imap.Flag{imap.FlagSeen}, 0); err != nil {
		t.Fatal(err)
	}
	t.Logf("STORE of 20,000: %s", time.Since(began))
	began = time.Now()
	if ch := m.Changes(since); len(ch.Updated) != 20_000 {
		t.Errorf("%d updated", len(ch.Updated))
	}
	t.Logf("changes: %s", time.Since(began))
}

func TestAppendImportMIME(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	sim.AddApp(testTenant, testApp, "", "Mail.ReadWrite", "Mail.Send", "Mail-Advanced.ReadWrite.All")
	cfg := testConfig(t, url, t.TempDir())
	cfg.Append = AppendImportMIME
	b, _ := start(t, cfg)
	a := accountOf(t, b, alice)
	m := open(t, a, "INBOX")
	date := time.Date(2020, 5, 6, 7, 8, 9, 0, time.UTC)
	uid, err := appendMail(t, a, "INBOX", mail(1), date, imap.FlagFlagged, "kw")
	if err != nil {
		t.Fatal(err)
	}
	if err := a.syncer.RefreshNow(t.Context(), m.view.id); err != nil {
		t.Fatal(err)
	}
	if got := flagsOf(m, uid); got != `\Flagged kw` {
		t.Errorf("flags = %q", got)
	}
	if msg, _ := m.Message(uid); !msg.Received.Equal(date) || len(m.UIDs()) != 1 {
		t.Errorf("message = %+v of %d", msg, len(m.UIDs()))
	}
	info := sim.Messages(alice, "inbox")
	if len(info) != 1 || info[0].IsDraft || info[0].IsRead || !info[0].Flagged || !slices.Equal(info[0].Categories, []string{"kw"}) {
		t.Errorf("in Graph: %+v", info)
	}
}

// The answer to the last piece of an attachment is lost: nobody tells whether the attachment is there. APPEND succeeds all
// the same, and nothing half-made stays.
func TestAppendUploadAnswerLost(t *testing.T) {
	quickly(t)
	for _, mailbox := range []string{"Archive", "Drafts"} {
		for _, fault := range []graphsim.Fault{{DropAfter: true}, {Status: 504, AfterEffect: true}, {TruncateBody: true}} {
			sim, url := newSim(t, graphsim.Options{})
			b, stop := start(t, testConfig(t, url, t.TempDir()))
			a := accountOf(t, b, alice)
			text, _ := largeMessage("mixed", 5<<20)
			fault.Method, fault.Skip, fault.Times = "PUT", 1, 1 // the second of two pieces
			inject(t, sim, fault)
			uid, err := appendMail(t, a, mailbox, []byte(text), time.Time{}, imap.FlagSeen)
			if err != nil || uid == 0 {
				t.Errorf("%s, %+v: %v", mailbox, fault, err)
				continue
			}
			made := sim.Messages(alice, strings.ToLower(mailbox))
			if len(made) != 1 || !made[0].IsRead || len(made[0].Files) != 1 {
				t.Errorf("%s, %+v: %+v", mailbox, fault, made)
			}
			stop()
		}
	}
}
