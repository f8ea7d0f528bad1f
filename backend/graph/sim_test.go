package graph_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"postern/backend/graph"
	"postern/backend/graph/graphtest"
	"postern/backend/graphsim"
)

const (
	tenant = "6d5f3f6e-0000-0000-0000-000000000000"
	app    = "2c9b0c44-0000-0000-0000-000000000000"
	alice  = "alice@contoso.example"
)

// simTokens asks the simulator for a token whenever the last one was refused.
type simTokens struct {
	sim *graphsim.Sim
	mu  sync.Mutex
	tok string
}

func (s *simTokens) Token(context.Context) (*oauth2.Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tok == "" {
		s.tok = s.sim.Token(tenant, app)
	}
	return &oauth2.Token{AccessToken: s.tok, TokenType: "Bearer"}, nil
}

func (s *simTokens) Invalidate(tok string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if tok == s.tok {
		s.tok = ""
	}
}

// simulated returns a client against the simulator, its requests held against the published description.
func simulated(t *testing.T, opts graphsim.Options) (*graph.Client, *graphsim.Sim) {
	t.Helper()
	sim := graphsim.New(opts)
	sim.AddTenant(tenant, "contoso.example")
	sim.AddApp(tenant, app, "secret", "Mail.ReadWrite", "Mail.Send", "Mail-Advanced.ReadWrite.All")
	sim.AddUser(tenant, graphsim.UserSpec{UPN: alice})
	sim.AddUser(tenant, graphsim.UserSpec{UPN: "bob@contoso.example"})
	srv := httptest.NewServer(sim)
	t.Cleanup(srv.Close)
	c := graph.New(graph.Options{BaseURL: srv.URL, User: alice, Tokens: &simTokens{sim: sim},
		HTTPClient: &http.Client{Transport: graphtest.Transport(t, srv.Client().Transport)}, Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))})
	return c, sim
}

func text(subject string, n int) string {
	return "From: alice@contoso.example\r\nTo: bob@contoso.example\r\nSubject: " + subject + "\r\nMessage-ID: <" + subject + "@x>\r\n" +
		"Date: Thu, 01 Jan 2026 00:00:00 +0000\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n" + strings.Repeat("line\r\n", n)
}

func opener(s string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(s)), nil }
}

// Every call of the client, against a strict service and the published description.
func TestEveryCall(t *testing.T) {
	c, sim := simulated(t, graphsim.Options{})
	ctx := t.Context()
	check := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}

	// Folders.
	ids, err := c.WellKnownFolders(ctx, []string{"inbox", "sentitems", "drafts", "deleteditems", "junkemail", "archive", "msgfolderroot", "recoverableitemsdeletions"})
	check("well-known folders", err)
	if len(ids) < 7 {
		t.Errorf("well-known folders %v", ids)
	}
	f, err := c.CreateFolder(ctx, "", "a/b")
	check("create folder", err)
	if _, err := c.CreateFolder(ctx, "", "a/b"); !graph.IsFolderExists(err) {
		t.Errorf("create again: %v", err)
	}
	sub, err := c.CreateFolder(ctx, f.ID, "sub")
	check("create subfolder", err)
	_, err = c.RenameFolder(ctx, sub.ID, "renamed")
	check("rename folder", err)
	_, err = c.MoveFolder(ctx, sub.ID, "inbox")
	check("move folder", err)
	got, err := c.Folder(ctx, sub.ID)
	check("read folder", err)
	if got.DisplayName != "renamed" || got.ParentFolderID != ids["inbox"] {
		t.Errorf("folder %+v", got)
	}
	if _, err := c.Folder(ctx, "nosuch"); err == nil {
		t.Error("a folder that is none")
	}
	seen := make(map[string]bool)
	link, err := c.FolderDelta(ctx, "", func(fs []graph.Folder) error {
		for _, f := range fs {
			seen[f.ID] = true
		}
		return nil
	})
	check("folder delta", err)
	if !seen[sub.ID] || !seen[ids["inbox"]] {
		t.Errorf("folder delta %v", seen)
	}
	check("delete folder", c.DeleteFolder(ctx, sub.ID))
	_, err = c.FolderDelta(ctx, link, func([]graph.Folder) error { return nil })
	check("folder delta again", err)

	// Messages from JSON.
	read := true
	own, err := graph.ParsePropertyID("String {8a7d1c3e-5f39-4c53-9b0a-1f1c4f0f7c11} Name postern-deleted")
	check("property", err)
	m, err := c.Create(ctx, f.ID, graph.NewMessage{Subject: "json", Body: "text", From: &graph.Recipient{Address: "x@y.example"}, To: []graph.Recipient{{Name: "B", Address: "bob@contoso.example"}},
		InternetMessageID: "<json@x>", Headers: []graph.Header{{Name: "x-a", Value: "1"}}, Importance: "high", IsRead: &read, Flag: graph.FlagFlagged, Categories: []string{"red"},
		Extended:    map[graph.PropertyID]string{graph.PropFlags: "4", graph.PropDeliveryTime: "2020-01-01T00:00:00Z", graph.PropSubmitTime: "2020-01-01T00:00:00Z", own: "1"},
		Attachments: []graph.NewAttachment{{Name: "a.txt", ContentType: "text/plain", Content: []byte("hi")}}})
	check("create", err)
	if m.IsDraft == nil || *m.IsDraft || *m.Received != time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC) {
		t.Errorf("created %+v", m)
	}
	m, err = c.Message(ctx, m.ID, graph.ListOptions{Select: []string{"isRead", "flag", "categories", "internetMessageId", "from", "toRecipients"}, Expand: []graph.PropertyID{graph.PropSize, own}})
	check("read", err)
	if !*m.IsRead || *m.Flag != graph.FlagFlagged || (*m.Categories)[0] != "red" || *m.InternetMessageID != "<json@x>" || m.Property(own) != "1" || m.Property(graph.PropSize) == "" {
		t.Errorf("read back %+v", m)
	}
	unread, flag := false, graph.FlagNone
	none := []string{}
	_, err = c.Update(ctx, m.ID, graph.Update{IsRead: &unread, Flag: &flag, Categories: &none, Extended: map[graph.PropertyID]string{own: "0", graph.PropLastVerb: "102"}})
	check("update", err)
	_, err = c.UploadAttachment(ctx, m.ID, graph.NewAttachment{Name: "b.txt", Size: 5}, func(int64) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader("there")), nil
	})
	check("add attachment", err)
	big := strings.Repeat("0123456789abcdef", 500_000)
	_, err = c.UploadAttachment(ctx, m.ID, graph.NewAttachment{Name: "big.bin", ContentType: "application/octet-stream", Size: int64(len(big))}, func(at int64) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(big[at:])), nil
	})
	check("upload attachment", err)
	if info, _ := sim.Message(alice, m.ID); !slices.Equal(info.Files, []string{"a.txt", "b.txt", "big.bin"}) {
		t.Errorf("attachments %v", info.Files)
	}

	// Moves keep immutable ids.
	moved, err := c.Move(ctx, m.ID, "archive")
	check("move", err)
	if moved.ID != m.ID {
		t.Errorf("moved %s is %s", m.ID, moved.ID)
	}
	copied, err := c.Copy(ctx, m.ID, f.ID)
	check("copy", err)
	var mime bytes.Buffer
	_, err = c.MIME(ctx, copied.ID, &mime)
	check("MIME", err)
	if !bytes.Contains(mime.Bytes(), []byte("Subject: json")) {
		t.Errorf("MIME %.200s", mime.String())
	}
	check("delete", c.Delete(ctx, copied.ID))
	check("permanent delete", c.PermanentDelete(ctx, m.ID))
	if err := c.PermanentDelete(ctx, m.ID); !graph.IsNotFound(err) {
		t.Errorf("again: %v", err)
	}

	// MIME, and sending.
	d, err := c.CreateFromMIME(ctx, opener(text("draft", 10)), int64(len(text("draft", 10))))
	check("draft", err)
	subject := "changed"
	_, err = c.Update(ctx, d.ID, graph.Update{Subject: &subject, Bcc: &[]graph.Recipient{{Address: "bob@contoso.example"}}})
	check("update draft", err)
	check("send draft", c.Send(ctx, d.ID))
	check("send", c.SendMIME(ctx, opener(text("sent", 10)), int64(len(text("sent", 10)))))
	if n := len(sim.Delivered()); n == 0 {
		t.Error("nothing delivered")
	}
	_, err = c.ImportMIME(ctx, f.ID, opener(text("imported", 1)), int64(len(text("imported", 1))))
	check("import", err)
	if err := c.SendMIME(ctx, opener(strings.Repeat("x", 4<<20)), 4<<20); !graph.IsTooLarge(err) || graph.Unclear(err) {
		t.Errorf("too large: %v", err)
	}

	// Lists and batches.
	for i := range 25 {
		sim.AddMessage(alice, "Inbox", []byte(text(fmt.Sprint("m", i), 1)), graphsim.MessageSpec{})
	}
	var list []string
	err = c.ListMessages(ctx, ids["inbox"], graph.ListOptions{Select: []string{"receivedDateTime", "isRead"}, Expand: []graph.PropertyID{graph.PropSize, graph.PropTransportHeaders, graph.PropLastVerb, own},
		OrderBy: "receivedDateTime desc", PageSize: 7}, "", func(page []graph.Message, _ string) error {
		for _, m := range page {
			list = append(list, m.ID)
			if m.Property(graph.PropSize) == "" || m.Property(graph.PropTransportHeaders) == "" {
				t.Errorf("row %+v", m)
			}
		}
		return nil
	})
	check("list", err)
	if len(list) < 25 {
		t.Fatalf("%d messages", len(list))
	}
	found := 0
	err = c.ListMessages(ctx, "", graph.ListOptions{Filter: "internetMessageId eq " + graph.Quote("<m3@x>"), Select: []string{"id"}}, "", func(page []graph.Message, _ string) error {
		found += len(page)
		return nil
	})
	check("filter", err)
	if found != 1 {
		t.Errorf("filter found %d", found)
	}
	check("search", c.ListMessages(ctx, ids["inbox"], graph.ListOptions{Search: "m3"}, "", func([]graph.Message, string) error { return nil }))
	updates := make([]graph.UpdateItem, len(list))
	for i, id := range list {
		updates[i] = graph.UpdateItem{ID: id, Update: graph.Update{IsRead: &read}}
	}
	check("update many", errors.Join(errorsIn(c.UpdateMany(ctx, updates))...))
	for i, r := range c.GetMany(ctx, list, graph.ListOptions{Select: []string{"isRead"}}) {
		if r.Err != nil || r.Message.ID != list[i] || !*r.Message.IsRead {
			t.Errorf("get %d: %+v %v", i, r.Message, r.Err)
		}
	}
	for i, r := range c.CopyMany(ctx, list[:3], f.ID) {
		if r.Err != nil || r.Message.ID == list[i] {
			t.Errorf("copy: %+v", r)
		}
	}
	for i, r := range c.MoveMany(ctx, append(list[:5:5], "AAMkAGgone"), f.ID) {
		if (r.Err == nil) != (i < 5) || i < 5 && r.Message.ID != list[i] {
			t.Errorf("move %d: %+v", i, r)
		}
	}
	check("delete many", errors.Join(c.DeleteMany(ctx, list[5:7], graph.DeleteToTrash)...))
	check("delete many", errors.Join(c.DeleteMany(ctx, list[7:9], graph.DeleteRecoverable)...))
	check("delete many", errors.Join(c.DeleteMany(ctx, list[9:11], graph.DeletePermanent)...))
}

// A delta round with pages, empty ones among them, and then one with changes only.
func TestDeltaRounds(t *testing.T) {
	c, sim := simulated(t, graphsim.Options{EmptyPageEvery: 2})
	ctx := t.Context()
	for i := range 30 {
		sim.AddMessage(alice, "Inbox", []byte(text(fmt.Sprint("m", i), 1)), graphsim.MessageSpec{})
	}
	o := graph.ListOptions{Select: []string{"isRead", "flag", "categories", "receivedDateTime"}, PageSize: 10}
	rows := make(map[string]graph.Message)
	collect := func(page []graph.Message, _ string) error {
		for _, m := range page {
			r := rows[m.ID]
			r.Merge(m)
			rows[m.ID] = r
		}
		return nil
	}
	link, err := c.MessageDelta(ctx, "inbox", o, "", collect)
	if err != nil || len(rows) != 30 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	msgs := sim.Messages(alice, "Inbox")
	read := true
	sim.UpdateMessage(alice, msgs[0].ID, graphsim.Change{IsRead: &read})
	sim.MoveMessage(alice, msgs[1].ID, "Archive")
	clear(rows)
	link, err = c.MessageDelta(ctx, "inbox", o, link, collect)
	if err != nil || rows[msgs[0].ID].IsRead == nil || !*rows[msgs[0].ID].IsRead || rows[msgs[1].ID].Removed == "" {
		t.Errorf("%+v %v", rows, err)
	}
	sim.ResetDelta(alice, "Inbox")
	if _, err := c.MessageDelta(ctx, "inbox", o, link, collect); !graph.ResyncRequired(err) {
		t.Errorf("after a reset: %v", err)
	}
	link, err = c.LatestDelta(ctx, "inbox", o)
	if err != nil {
		t.Fatal(err)
	}
	clear(rows)
	if _, err := c.MessageDelta(ctx, "inbox", o, link, collect); err != nil || len(rows) != 0 {
		t.Errorf("%d rows after LatestDelta, %v", len(rows), err)
	}
	sim.SetOverQuota(alice, true)
	if _, err := c.LatestDelta(ctx, "inbox", o); !graph.IsQuota(err) {
		t.Errorf("over quota: %v", err)
	}
}

// However many work in a mailbox, the service refuses none of it.
func TestNeverThrottled(t *testing.T) {
	c, sim := simulated(t, graphsim.Options{Latency: 5 * time.Millisecond})
	var ids []string
	for i := range 40 {
		ids = append(ids, sim.AddMessage(alice, "Inbox", []byte(text(fmt.Sprint("m", i), 1)), graphsim.MessageSpec{}))
	}
	var wg sync.WaitGroup
	read := true
	for i := range 12 {
		ctx := graph.WithLane(t.Context(), graph.Lane(i%3))
		wg.Go(func() {
			for k := range 5 {
				if _, err := c.MIME(ctx, ids[(i*5+k)%40], io.Discard); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			items := make([]graph.UpdateItem, 15)
			for k := range items {
				items[k] = graph.UpdateItem{ID: ids[(i+k)%40], Update: graph.Update{IsRead: &read}}
			}
			if err := errors.Join(errorsIn(c.UpdateMany(ctx, items))...); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := sim.CountRequests(func(r graphsim.Request) bool { return r.Status == 429 }); n != 0 {
		t.Errorf("%d requests throttled", n)
	}
}

// What the service does to connections, and whether it had its effect.
func TestFaults(t *testing.T) {
	for _, tt := range []struct {
		name    string
		fault   graphsim.Fault
		unclear bool
		ok      bool
		sent    int
	}{
		{"reset after sending", graphsim.Fault{Path: "/sendMail$", DropAfter: true, Times: 1}, true, false, 1},
		{"closed before", graphsim.Fault{Path: "/sendMail$", DropBefore: true, Times: 1}, true, false, 0},
		{"504 after sending", graphsim.Fault{Path: "/sendMail$", Status: 504, AfterEffect: true, Times: 1}, true, false, 1},
		{"200 for 202", graphsim.Fault{Path: "/sendMail$", StatusInstead: 200, Times: 1}, true, false, 1},
		{"throttled", graphsim.Fault{Path: "/sendMail$", Status: 429, RetryAfter: "0.05", Times: 2}, false, true, 1},
		{"token expired", graphsim.Fault{Path: "/sendMail$", TokenExpired: true, Times: 1}, false, true, 1},
		{"denied", graphsim.Fault{Path: "/sendMail$", Status: 403, Code: "ErrorSendAsDenied", Times: 1}, false, false, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, sim := simulated(t, graphsim.Options{})
			if err := sim.Inject(tt.fault); err != nil {
				t.Fatal(err)
			}
			mail := text("x", 3)
			err := c.SendMIME(t.Context(), opener(mail), int64(len(mail)))
			if (err == nil) != tt.ok || graph.Unclear(err) != tt.unclear || len(sim.Delivered()) != tt.sent {
				t.Errorf("%v, %d delivered", err, len(sim.Delivered()))
			}
		})
	}
	t.Run("text cut off", func(t *testing.T) {
		c, sim := simulated(t, graphsim.Options{})
		id := sim.AddMessage(alice, "Inbox", []byte(text("x", 100)), graphsim.MessageSpec{})
		if err := sim.Inject(graphsim.Fault{Path: `\$value`, TruncateBody: true, Times: 1}); err != nil {
			t.Fatal(err)
		}
		if n, err := c.MIME(t.Context(), id, io.Discard); err == nil || !graph.IsTemporary(err) {
			t.Errorf("%d bytes, %v", n, err)
		}
	})
}

func TestNoMailbox(t *testing.T) {
	for _, code := range []string{"ErrorInvalidUser", "ResourceNotFound"} {
		sim := graphsim.New(graphsim.Options{UnknownUserCode: code})
		sim.AddTenant(tenant)
		sim.AddApp(tenant, app, "", "Mail.ReadWrite")
		srv := httptest.NewServer(sim)
		defer srv.Close()
		c := graph.New(graph.Options{BaseURL: srv.URL, User: "nobody@contoso.example", Tokens: &simTokens{sim: sim}})
		if _, err := c.Folder(t.Context(), "inbox"); !graph.IsNoMailbox(err) || graph.IsNotFound(err) {
			t.Errorf("%s: %v", code, err)
		}
	}
}

func errorsIn(results []graph.MessageResult) []error {
	errs := make([]error, len(results))
	for i, r := range results {
		errs[i] = r.Err
	}
	return errs
}
