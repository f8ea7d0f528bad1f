package backend

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postern/backend/graphsim"
	"postern/backend/message"
	"postern/backend/outbox"
	"postern/backend/store"
)

// quickly shortens the queue's waits for tests on the real clock.
func quickly(t *testing.T) {
	t.Helper()
	adjustOutbox = func(o *outbox.Options) {
		o.Retries = []time.Duration{20 * time.Millisecond, 50 * time.Millisecond}
		o.Looks = []time.Duration{20 * time.Millisecond, 60 * time.Millisecond, 150 * time.Millisecond}
	}
	t.Cleanup(func() { adjustOutbox = nil })
}

func loginOf(t *testing.T, b *Backend, address string) *Login {
	t.Helper()
	return &Login{Username: address, Account: accountOf(t, b, address)}
}

// submit sends text, whose line ends may be bare, and returns Submit's results.
func submit(t *testing.T, b *Backend, login *Login, env Envelope, text string) (string, error) {
	t.Helper()
	s, err := b.NewSubmission(login, env)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Discard()
	// In pieces of an odd size, as they come from a network.
	for r := strings.NewReader(text); ; {
		if _, err := io.CopyN(s, r, 1021); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	return s.Submit(t.Context())
}

func envelope(rcpts ...string) Envelope {
	e := Envelope{From: alice}
	for _, r := range rcpts {
		e.Recipients = append(e.Recipients, Recipient{Address: r})
	}
	return e
}

func settledRow(t *testing.T, b *Backend, id string) *store.Submission {
	t.Helper()
	var row *store.Submission
	eventually(t, nil, "submission "+id+" settled", func() bool {
		var err error
		if row, err = b.store.Outbox().Get(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		return (row.State == store.StateSent || row.State == store.StateBounced) && row.NextAttempt.IsZero()
	})
	return row
}

func spoolFiles(t *testing.T, b *Backend) int {
	t.Helper()
	entries, err := os.ReadDir(b.store.Outbox().SpoolDir())
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestSubmitDelivers(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	b, _ := start(t, testConfig(t, url, t.TempDir()))
	id, err := submit(t, b, loginOf(t, b, alice), envelope("carl@fabrikam.example", bob),
		"From: Alice <alice@contoso.example>\nTo: Carl <carl@fabrikam.example>, dora@fabrikam.example\nSubject: a\rb\nX-Custom: kept\n\nbody\n.dot\nno end")
	if err != nil {
		t.Fatal(err)
	}
	d := sim.Delivered()
	if len(d) != 1 {
		t.Fatalf("%d deliveries", len(d))
	}
	slices.Sort(d[0].Recipients)
	if got := strings.Join(d[0].Recipients, " "); got != bob+" carl@fabrikam.example" || d[0].From != alice {
		t.Errorf("from %s to %s", d[0].From, got)
	}
	text := string(d[0].MIME)
	for _, want := range []string{"To: \"Carl\" <carl@fabrikam.example>\r\n", "X-Original-To: Carl <carl@fabrikam.example>, dora@fabrikam.example\r\n",
		"X-Custom: kept\r\n", "X-Postern-Id: " + id + "\r\n", "\r\n\r\nbody\r\n.dot\r\nno end\r\n", "Date: ", "Message-ID: <" + id} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing from\n%s", want, text)
		}
	}
	if strings.Contains(text, "Bcc") {
		t.Error("Bcc shown")
	}
	if row := settledRow(t, b, id); row.State != store.StateSent || spoolFiles(t, b) != 0 {
		t.Errorf("row %+v, %d files", row, spoolFiles(t, b))
	}
}

func TestSubmitHeaders(t *testing.T) {
	_, url := newSim(t, graphsim.Options{})
	cfg := testConfig(t, url, t.TempDir())
	cfg.Mailboxes[0].Aliases = []string{"al@contoso.example"}
	b, err := New(cfg) // never run: the files stay
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for _, tt := range []struct {
		name, header string
		login        func(*Login)
		want, not    []string
		mailbox      string
		kind         Kind
		fails        bool
	}{
		{name: "own address", header: "From: alice@contoso.example\n", want: []string{"From: alice@contoso.example\r\n"}, mailbox: alice},
		{name: "alias", header: "From: A <AL@contoso.example>\n", want: []string{"From: A <AL@contoso.example>\r\n"}, mailbox: alice},
		{name: "stranger", header: "From: eve@evil.example\n", fails: true, kind: Denied},
		{name: "one stranger of two", header: "From: alice@contoso.example, eve@evil.example\n", fails: true, kind: Denied},
		{name: "stranger as Sender", header: "From: alice@contoso.example\nSender: Eve <eve@evil.example>\n", mailbox: alice,
			want: []string{"X-Original-Sender: Eve <eve@evil.example>\r\n"}, not: []string{"\r\nSender:"}},
		{name: "own address as Sender", header: "From: alice@contoso.example\nSender: al@contoso.example\n", mailbox: alice, want: []string{"\r\nSender: al@contoso.example\r\n"}},
		{name: "second From", header: "From: alice@contoso.example\nFrom: bob@contoso.example\n", mailbox: alice, not: []string{"bob@"}},
		{name: "send_as elsewhere", header: "From: news@fabrikam.example\n", login: func(l *Login) { l.SendAs = []string{"News@Fabrikam.example"} },
			want: []string{"From: news@fabrikam.example\r\n"}, mailbox: alice},
		{name: "send_as of ours", header: "From: bob@contoso.example\n", login: func(l *Login) { l.SendAs = []string{bob} }, mailbox: bob},
		{name: "rewritten", header: "From: \"Scanner, 2nd floor\" <scan@printer.local>\n", login: func(l *Login) { l.RewriteFrom = true },
			want: []string{"From: \"Scanner, 2nd floor\" <alice@contoso.example>\r\n", "Reply-To: \"Scanner, 2nd floor\" <scan@printer.local>\r\n"}, mailbox: alice},
		{name: "rewritten keeps Reply-To", header: "Reply-To: x@y.example\nFrom: scan@printer.local\n", login: func(l *Login) { l.RewriteFrom = true },
			want: []string{"From: alice@contoso.example\r\n", "Reply-To: x@y.example\r\n"}, not: []string{"Reply-To: scan"}, mailbox: alice},
		{name: "no From", header: "Subject: s\n", want: []string{"From: alice@contoso.example\r\n"}, mailbox: alice},
		{name: "From without address", header: "From: Scanner\n", want: []string{"alice@contoso.example"}, mailbox: alice},
		{name: "forged mark", header: "From: alice@contoso.example\nX-Postern-Id: forged\n", not: []string{"forged"}, mailbox: alice},
		{name: "no header at all", header: "just text without a colon\n", want: []string{"From: alice", "\r\n\r\njust text without a colon\r\n\r\nbody"}, mailbox: alice},
		{name: "mbox line", header: "From x@y Mon Jan  1 00:00:00 2026\nFrom: alice@contoso.example\nSubject: s\n", want: []string{"Subject: s\r\n"}, not: []string{"From x@y"}, mailbox: alice},
		{name: "Message-ID and Date kept", header: "From: alice@contoso.example\nMessage-Id: <given@x>\nDate: Mon, 1 Jan 2024 00:00:00 +0000\n",
			want: []string{"Message-Id: <given@x>\r\nDate: Mon, 1 Jan 2024 00:00:00 +0000\r\n"}, not: []string{"postern@"}, mailbox: alice},
		{name: "header too large", header: "From: alice@contoso.example\nX: " + strings.Repeat("x", 2<<20) + "\n", fails: true, kind: Refused},
	} {
		t.Run(tt.name, func(t *testing.T) {
			login := loginOf(t, b, alice)
			if tt.login != nil {
				tt.login(login)
			}
			s, err := b.NewSubmission(login, envelope(bob))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Discard()
			if _, err := io.WriteString(s, strings.ReplaceAll(tt.header, "\n", "\r\n")+"\r\nbody\r\n"); err != nil {
				t.Fatal(err)
			}
			if tt.fails {
				if _, err := s.Submit(t.Context()); KindOf(err) != tt.kind || err == nil || TextOf(err) == "" {
					t.Errorf("Submit: %v", err)
				}
				return
			}
			if s.err != nil {
				t.Fatal(s.err)
			}
			if _, err := s.Submit(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := s.mailbox.Address(); got != tt.mailbox {
				t.Errorf("through %s", got)
			}
			rows, err := b.store.Outbox().List(t.Context(), store.Filter{MessageID: s.id})
			if err != nil || len(rows) != 1 || rows[0].Mailbox != tt.mailbox {
				t.Fatalf("%v, rows %+v", err, rows)
			}
			text, err := os.ReadFile(filepath.Join(b.store.Outbox().SpoolDir(), rows[0].Spool))
			if err != nil || int64(len(text)) != rows[0].Size {
				t.Fatalf("%v, %d bytes", err, len(text))
			}
			for _, want := range append(tt.want, "Message-Id: ", "Date: ", "X-Postern-Id: "+rows[0].ID+"\r\n", "\r\n\r\n") {
				if !strings.Contains(strings.ReplaceAll(string(text), "Message-ID", "Message-Id"), want) {
					t.Errorf("%q is missing from\n%s", want, text)
				}
			}
			for _, not := range tt.not {
				if strings.Contains(string(text), not) {
					t.Errorf("%q is in\n%s", not, text)
				}
			}
		})
	}
	// What is written is looked at without sending it.
	for _, tt := range []struct{ in, want string }{
		{"a\nb\r\nc\rd\r\r\ne", "a\r\nb\r\nc\r\nd\r\n\r\ne\r\n"}, {"", ""}, {"\n", "\r\n"}, {"x\r", "x\r\n"},
	} {
		for size := 1; size < 5; size++ {
			var out bytes.Buffer
			c := crlfWriter{w: &out}
			for p := []byte(tt.in); len(p) > 0; {
				n := min(size, len(p))
				c.Write(p[:n])
				p = p[n:]
			}
			c.Close()
			if out.String() != tt.want {
				t.Errorf("%q in pieces of %d gives %q", tt.in, size, out.String())
			}
		}
	}
}

func TestCheckSender(t *testing.T) {
	_, url := newSim(t, graphsim.Options{})
	cfg := testConfig(t, url, t.TempDir())
	cfg.Mailboxes[0].Aliases = []string{"al@contoso.example"}
	b, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	login := loginOf(t, b, alice)
	login.SendAs = []string{"sales@contoso.example"}
	for from, want := range map[string]bool{
		"": true, alice: true, "ALICE@CONTOSO.EXAMPLE": true, "al@contoso.example": true, "Sales@contoso.example": true,
		bob: false, "eve@evil.example": false, "alice@evil.example": false,
	} {
		err := b.CheckSender(login, from)
		if (err == nil) != want || err != nil && (KindOf(err) != Denied || !strings.Contains(TextOf(err), from)) {
			t.Errorf("CheckSender(%q) = %v", from, err)
		}
	}
	login.RewriteFrom = true
	if err := b.CheckSender(login, "eve@evil.example"); err != nil {
		t.Error(err)
	}
	login.ReadOnly = true
	if err := b.CheckSender(login, alice); KindOf(err) != Denied {
		t.Error(err)
	}
}

// Every fault of a send: an accepted message arrives exactly once.
func TestEachMessageArrivesOnce(t *testing.T) {
	quickly(t)
	send := "/sendMail$"
	for _, tt := range []struct {
		name   string
		faults []graphsim.Fault
		opts   graphsim.Options
	}{
		{name: "connection dropped before", faults: []graphsim.Fault{{Path: send, Times: 2, DropBefore: true}}},
		{name: "connection reset afterwards", faults: []graphsim.Fault{{Path: send, Times: 1, DropAfter: true}}},
		{name: "reset, and Sent Items late", faults: []graphsim.Fault{{Path: send, Times: 1, DropAfter: true}},
			opts: graphsim.Options{SentItemsDelay: 80 * time.Millisecond}},
		{name: "200 for 202, sent", faults: []graphsim.Fault{{Path: send, Times: 1, StatusInstead: 200}}},
		{name: "200 for 202, not sent", faults: []graphsim.Fault{{Path: send, Times: 1, Status: 200}}},
		{name: "503 after the effect", faults: []graphsim.Fault{{Path: send, Times: 1, Status: 503, AfterEffect: true}}},
		{name: "503 without effect", faults: []graphsim.Fault{{Path: send, Times: 2, Status: 503}}},
		{name: "504 empty", faults: []graphsim.Fault{{Path: send, Times: 1, Status: 504, EmptyBody: true, AfterEffect: true}}},
		{name: "500", faults: []graphsim.Fault{{Path: send, Times: 1, Status: 500, AfterEffect: true}}},
		{name: "429 without Retry-After", faults: []graphsim.Fault{{Path: send, Times: 1, Status: 429}}},
		{name: "429 with a fraction", faults: []graphsim.Fault{{Path: send, Times: 1, Status: 429, RetryAfter: "0.25"}}},
		{name: "looking fails, too", faults: []graphsim.Fault{{Path: send, Times: 1, DropAfter: true}, {Path: "internetMessageId", Times: 1, Status: 503}}},
		{name: "looking breaks off", faults: []graphsim.Fault{{Path: send, Times: 1, DropAfter: true},
			{Path: "internetMessageId.*InternetHeaders|00020386", Times: 1, Status: 400, Code: "ErrorInvalidProperty"}, {Path: `/(\$|%24)value$`, Times: 2, TruncateBody: true}}},
		{name: "token expires", faults: []graphsim.Fault{{Path: send, Times: 1, TokenExpired: true}}},
		{name: "sign-in fails for a while", faults: []graphsim.Fault{{Path: "/token$", Times: 2, Status: 503}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			sim, url := newSim(t, tt.opts)
			for _, f := range tt.faults {
				inject(t, sim, f)
			}
			cfg := testConfig(t, url, t.TempDir())
			b, stop := start(t, cfg)
			id, err := submit(t, b, loginOf(t, b, alice), envelope(bob), "From: alice@contoso.example\nMessage-ID: <same@x>\nSubject: s\n\nbody\n")
			if err != nil {
				t.Fatal(err)
			}
			if row := settledRow(t, b, id); row.State != store.StateSent {
				t.Errorf("%s: %s", row.State, row.LastError)
			}
			if sim.FaultsFired() == 0 {
				t.Error("no fault fired")
			}
			// The same message again, to somebody else, as mailers do: it is another one.
			if _, err := submit(t, b, loginOf(t, b, alice), envelope("carl@fabrikam.example"), "From: alice@contoso.example\nMessage-ID: <same@x>\nSubject: s\n\nbody\n"); err != nil {
				t.Fatal(err)
			}
			stop()
			if d := sim.Delivered(); len(d) != 2 {
				t.Errorf("delivered %d times", len(d)-1)
			}
		})
	}
}

// A Message-ID that Exchange may not keep as it is does not hide the message.
func TestOddMessageID(t *testing.T) {
	quickly(t)
	for _, id := range []string{"no brackets", "<a b@c>", "<\"q\"@x>", "<it's@x>", "<ü@x>", "<" + strings.Repeat("l", 1500) + "@x>"} {
		sim, url := newSim(t, graphsim.Options{})
		inject(t, sim, graphsim.Fault{Path: "/sendMail$", Times: 1, DropAfter: true})
		b, stop := start(t, testConfig(t, url, t.TempDir()))
		queued, err := submit(t, b, loginOf(t, b, alice), envelope(bob), "From: alice@contoso.example\nMessage-ID: "+id+"\n\nbody\n")
		if err != nil {
			t.Fatal(err)
		}
		if row := settledRow(t, b, queued); row.State != store.StateSent || len(sim.Delivered()) != 1 {
			t.Errorf("%.40s: %s %s, delivered %d times", id, row.State, row.LastError, len(sim.Delivered()))
		}
		stop()
	}
}

// The other message with the same Message-ID must not pass for ours.
func TestSameMessageIDIsNotProof(t *testing.T) {
	quickly(t)
	sim, url := newSim(t, graphsim.Options{})
	sim.AddMessage(alice, "sentitems", []byte("From: alice@contoso.example\r\nMessage-ID: <same@x>\r\nSubject: the client's own copy\r\n\r\nbody\r\n"), graphsim.MessageSpec{})
	inject(t, sim, graphsim.Fault{Path: "/sendMail$", Times: 1, Status: 504})
	b, _ := start(t, testConfig(t, url, t.TempDir()))
	id, err := submit(t, b, loginOf(t, b, alice), envelope(bob), "From: alice@contoso.example\nMessage-ID: <same@x>\n\nbody\n")
	if err != nil {
		t.Fatal(err)
	}
	settledRow(t, b, id)
	if d := sim.Delivered(); len(d) != 1 {
		t.Errorf("delivered %d times", len(d))
	}
}

func TestRefusedAtOnce(t *testing.T) {
	for _, tt := range []struct {
		name   string
		fault  graphsim.Fault
		kind   Kind
		status string
	}{
		{"send as", graphsim.Fault{Status: 403, Code: "ErrorSendAsDenied"}, Denied, "5 7 1"},
		{"size", graphsim.Fault{Status: 400, Code: "ErrorMessageSizeExceeded"}, TooLarge, "5 3 4"},
		{"request size", graphsim.Fault{Status: 413, EmptyBody: true}, TooLarge, "5 3 4"},
		{"recipients", graphsim.Fault{Status: 400, Code: "ErrorInvalidRecipients"}, Refused, "5 1 3"},
		{"content", graphsim.Fault{Status: 400, Code: "ErrorMimeContentInvalid"}, Refused, "5 6 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sim, url := newSim(t, graphsim.Options{})
			tt.fault.Path = "/sendMail$"
			inject(t, sim, tt.fault)
			cfg := testConfig(t, url, t.TempDir())
			cfg.SendWait = 10 * time.Second
			b, _ := start(t, cfg)
			_, err := submit(t, b, loginOf(t, b, alice), envelope(bob), "From: alice@contoso.example\n\nbody\n")
			if KindOf(err) != tt.kind || err == nil || TextOf(err) == "" {
				t.Fatalf("Submit: %v", err)
			}
			if c, s, d, ok := StatusOf(err); !ok || fmt.Sprint(c, s, d) != tt.status {
				t.Errorf("status %d.%d.%d", c, s, d)
			}
			rows, err := b.store.Outbox().List(t.Context(), store.Filter{})
			if err != nil || len(rows) != 1 || rows[0].State != store.StateRefused || spoolFiles(t, b) != 0 || len(sim.Delivered()) != 0 {
				t.Errorf("%v: %d rows, %d files", err, len(rows), spoolFiles(t, b))
			}
		})
	}
}

// A message that Exchange refuses behind the 250 comes back as a report.
func TestFailureNotice(t *testing.T) {
	quickly(t)
	sim, url := newSim(t, graphsim.Options{})
	inject(t, sim, graphsim.Fault{Path: "/sendMail$", Status: 403, Code: "ErrorSendAsDenied"})
	cfg := testConfig(t, url, t.TempDir())
	cfg.SendWait = 0
	b, _ := start(t, cfg)
	inbox := open(t, accountOf(t, b, alice), "INBOX")
	env := envelope(bob, "carl@fabrikam.example")
	env.EnvID = "env1"
	env.Recipients[1].Orcpt = "rfc822;c@old.example"
	id, err := submit(t, b, loginOf(t, b, alice), env, "From: alice@contoso.example\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\nMessage-ID: <m1@x>\n\nbody\n")
	if err != nil {
		t.Fatal(err)
	}
	if row := settledRow(t, b, id); row.State != store.StateBounced {
		t.Fatalf("%+v", row)
	}
	eventually(t, inbox, "notice", func() bool { return len(inbox.UIDs()) == 1 })
	body, err := inbox.Body(t.Context(), inbox.UIDs()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	raw, err := io.ReadAll(io.NewSectionReader(body, 0, body.Size()))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Send As right is missing", "Original-Recipient: rfc822; c@old.example", "Final-Recipient: rfc822; bob@contoso.example",
		"Action: failed", "Status: 5.7.1", "Original-Envelope-Id: env1", "<m1@x>"} {
		if !bytes.Contains(raw, []byte(want)) {
			t.Errorf("%q is missing from\n%s", want, raw)
		}
	}
	if d := sim.Delivered(); len(d) != 0 {
		t.Errorf("%d messages sent", len(d))
	}
	if m, _ := inbox.Message(inbox.UIDs()[0]); m.HasFlag("\\Draft") {
		t.Error("the notice is a draft")
	}
}

func TestNoticeText(t *testing.T) {
	job := &outbox.Job{Submission: store.Submission{ID: "id1", Mailbox: alice, EnvelopeFrom: alice, MessageID: "<m@x>", Created: time.Now(), DSN: store.DSN{Ret: "FULL"}}}
	n := outbox.Notice{Kind: outbox.Failed, Status: "5.1.3", Text: "No such\r\nInjected: field", Recipients: []store.Recipient{{Address: "jürgen@x.example"}}}
	for _, original := range []string{"Subject: s\r\n\r\n", "Subject: schön\r\n\r\n", ""} {
		raw := buildNotice(job, n, "host", []byte(original), false)
		ix, err := message.Parse(bytes.NewReader(raw), int64(len(raw)))
		if err != nil {
			t.Fatal(err)
		}
		if !ix.Root.IsType("multipart", "report") || len(ix.Root.Children) != 3 || !ix.Root.Children[1].IsType("message", "delivery-status") {
			t.Errorf("structure of\n%s", raw)
		}
		if bytes.Contains(raw, []byte("\r\nInjected")) || !bytes.Contains(raw, []byte("Final-Recipient: utf-8; j\\x{FC}rgen@x.example")) {
			t.Errorf("fields of\n%s", raw)
		}
	}
}

// largeMessage has files of the given sizes, in base64, and a text.
func largeMessage(extra string, sizes ...int) (text string, files [][]byte) {
	var b strings.Builder
	b.WriteString("From: alice@contoso.example\r\nTo: bob@contoso.example\r\nSubject: large\r\nMIME-Version: 1.0\r\n")
	b.WriteString("Content-Type: multipart/" + extra + "; boundary=bb\r\n\r\n--bb\r\nContent-Type: text/plain\r\n\r\ntext\r\n")
	for i, size := range sizes {
		data := make([]byte, size)
		rand.Read(data)
		files = append(files, data)
		fmt.Fprintf(&b, "--bb\r\nContent-Type: application/octet-stream; name=f%d.bin\r\nContent-Disposition: attachment; filename=f%d.bin\r\nContent-Transfer-Encoding: base64\r\n\r\n", i, i)
		for enc := base64.StdEncoding.EncodeToString(data); len(enc) > 0; {
			n := min(76, len(enc))
			b.WriteString(enc[:n] + "\r\n")
			enc = enc[n:]
		}
	}
	b.WriteString("--bb--\r\n")
	return b.String(), files
}

// hasFiles checks that the message has these files and no others.
func hasFiles(t *testing.T, mime []byte, files [][]byte) {
	t.Helper()
	ix, err := message.Parse(bytes.NewReader(mime), int64(len(mime)))
	if err != nil {
		t.Fatal(err)
	}
	var got [][]byte
	var walk func(p *message.Part)
	walk = func(p *message.Part) {
		if p.IsType("application", "octet-stream") {
			r, err := message.Decoded(bytes.NewReader(mime), p)
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, data)
		}
		for _, c := range p.Children {
			walk(c)
		}
	}
	walk(ix.Root)
	if len(got) != len(files) {
		t.Fatalf("%d files arrived of %d", len(got), len(files))
	}
	for _, f := range files {
		if !slices.ContainsFunc(got, func(g []byte) bool { return bytes.Equal(f, g) }) {
			t.Errorf("a file of %d bytes is not among those that arrived", len(f))
		}
	}
}

func TestLargeMessages(t *testing.T) {
	quickly(t)
	for _, tt := range []struct {
		name  string
		sizes []int
		fault *graphsim.Fault
	}{
		{name: "one of 5 MB", sizes: []int{5 << 20}},
		{name: "several", sizes: []int{3 << 20, 200 << 10, 1 << 20}},
		{name: "many small", sizes: slices.Repeat([]int{300 << 10}, 14)},
		{name: "upload broken", sizes: []int{5 << 20}, fault: &graphsim.Fault{Method: "PUT", Skip: 1, Times: 1, DropBefore: true}},
		{name: "session refused", sizes: []int{5 << 20}, fault: &graphsim.Fault{Path: "createUploadSession", Times: 1, Status: 503}},
		{name: "draft reset", sizes: []int{5 << 20}, fault: &graphsim.Fault{Method: "POST", Path: "/messages$", Times: 1, DropAfter: true}},
		{name: "send reset", sizes: []int{5 << 20}, fault: &graphsim.Fault{Path: "/send$", Times: 1, DropAfter: true}},
		{name: "send not reached", sizes: []int{5 << 20}, fault: &graphsim.Fault{Path: "/send$", Times: 1, DropBefore: true}},
		{name: "send 503 after", sizes: []int{5 << 20}, fault: &graphsim.Fault{Path: "/send$", Times: 1, Status: 503, AfterEffect: true}},
		{name: "send throttled", sizes: []int{5 << 20}, fault: &graphsim.Fault{Path: "/send$", Times: 1, Status: 429, RetryAfter: "0.2"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			sim, url := newSim(t, graphsim.Options{})
			if tt.fault != nil {
				inject(t, sim, *tt.fault)
			}
			b, _ := start(t, testConfig(t, url, t.TempDir()))
			text, files := largeMessage("mixed", tt.sizes...)
			id, err := submit(t, b, loginOf(t, b, alice), envelope(bob, "hidden@fabrikam.example"), text)
			if err != nil {
				t.Fatal(err)
			}
			if row := settledRow(t, b, id); row.State != store.StateSent {
				t.Fatalf("%s: %s", row.State, row.LastError)
			}
			d := sim.Delivered()
			if len(d) != 1 || len(d[0].Recipients) != 2 {
				t.Fatalf("%d deliveries: %+v", len(d), d)
			}
			hasFiles(t, d[0].MIME, files)
			if drafts := sim.Messages(alice, "drafts"); len(drafts) != 0 {
				t.Errorf("%d drafts left", len(drafts))
			}
		})
	}
}

func TestIndivisibleMessage(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	b, _ := start(t, testConfig(t, url, t.TempDir()))
	text, _ := largeMessage("signed; protocol=\"application/pkcs7-signature\"", 6<<20)
	_, err := submit(t, b, loginOf(t, b, alice), envelope(bob), text)
	if KindOf(err) != TooLarge || !strings.Contains(TextOf(err), "signed") {
		t.Errorf("Submit: %v", err)
	}
	if e, ok := errors.AsType[*outbox.Error](err); !ok || e.Status != "5.3.4" {
		t.Errorf("no status in %v", err)
	}
	if len(sim.Messages(alice, "drafts")) != 0 || len(sim.Delivered()) != 0 {
		t.Error("something was made")
	}
}

// More recipients than Exchange takes: in parts, each of them once, faults or not.
func TestManyRecipients(t *testing.T) {
	quickly(t)
	sim, url := newSim(t, graphsim.Options{})
	inject(t, sim, graphsim.Fault{Path: "/sendMail$", Skip: 1, Times: 1, DropAfter: true})
	b, _ := start(t, testConfig(t, url, t.TempDir()))
	env := envelope()
	for i := range 1203 {
		env.Recipients = append(env.Recipients, Recipient{Address: fmt.Sprintf("r%d@fabrikam.example", i)})
	}
	id, err := submit(t, b, loginOf(t, b, alice), env, "From: alice@contoso.example\nTo: r7@fabrikam.example\nSubject: all\n\nbody\n")
	if err != nil {
		t.Fatal(err)
	}
	settledRow(t, b, id)
	seen := map[string]int{}
	for _, d := range sim.Delivered() {
		for _, r := range d.Recipients {
			seen[r]++
		}
	}
	if len(seen) != 1203 || len(sim.Delivered()) != 3 {
		t.Errorf("%d recipients in %d messages", len(seen), len(sim.Delivered()))
	}
	for r, n := range seen {
		if n != 1 {
			t.Errorf("%s got it %d times", r, n)
		}
	}
}
