package imapd

import (
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"postern/backend/graphsim"
)

// literals reads the responses to a command and cuts the literals out of them: each line has "{n}" where one
// was.
func (c *client) literals(command string) (lines, literals []string, tagged string) {
	c.t.Helper()
	c.send("x " + command + "\r\n")
	line := ""
	for {
		s, err := c.line()
		if err != nil {
			c.t.Fatalf("%s: %q, %v", command, s, err)
		}
		line += s
		if m := literalEnd.FindStringSubmatch(s); m != nil {
			n, _ := strconv.Atoi(m[1])
			b := make([]byte, n)
			if _, err := io.ReadFull(c.r, b); err != nil {
				c.t.Fatal(err)
			}
			literals = append(literals, string(b))
			continue
		}
		if rest, ok := strings.CutPrefix(line, "x "); ok {
			return lines, literals, rest
		}
		lines = append(lines, line)
		line = ""
	}
}

var literalEnd = regexp.MustCompile(`\{(\d+)\}$`)

// farWorld has messages in Archive whose bytes only the simulator has.
func farWorld(t *testing.T, n int) (*world, []string) {
	w := newSimWorld(t, graphsim.Options{})
	var ids []string
	for i := range n {
		mime := fmt.Sprintf("From: \"Sender %d\" <s%d@a.example>\r\nTo: alice@contoso.example\r\nSubject: Message %d\r\nMessage-ID: <%d@a.example>\r\nDate: Fri, 20 Nov 2026 01:00:00 +0000\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nThis is text %d, with the word %s in it.\r\n",
			i, i, i, i, i, []string{"apple", "banana"}[i%2])
		ids = append(ids, w.sim.AddMessage(alice, "archive", []byte(mime), graphsim.MessageSpec{}))
	}
	w.serve(Limits{})
	return w, ids
}

// bodyRequests makes requests for the bytes of messages fail, of all or of one.
func bodyRequests(id string) graphsim.Fault {
	return graphsim.Fault{Method: "GET", Path: regexp.QuoteMeta(id) + `/\$value`, Status: 403, Code: "ErrorAccessDenied", Message: "Access is denied."}
}

func TestFetchBodiesFromGraph(t *testing.T) {
	w, _ := farWorld(t, 12)
	c := w.login("alice")
	c.ok("SELECT Archive")
	lines, literals, tagged := c.literals("UID FETCH 1:* (UID BODY.PEEK[])")
	if !strings.HasPrefix(tagged, "OK") || len(lines) != 12 || len(literals) != 12 {
		t.Fatalf("%d responses, %d literals: %s", len(lines), len(literals), tagged)
	}
	for i, body := range literals {
		if want := fmt.Sprintf("* %d FETCH (UID %d BODY[] {%d})", i+1, i+1, len(body)); lines[i] != want {
			t.Errorf("%s, want %s", lines[i], want)
		}
	}
	// Sizes, and the sections put together, are those of the same bytes.
	lines, parts, _ := c.literals("UID FETCH 1:* (RFC822.SIZE BODY.PEEK[HEADER] BODY.PEEK[TEXT])")
	for i, body := range literals {
		if !strings.Contains(lines[i], fmt.Sprintf("RFC822.SIZE %d ", len(body))) || parts[2*i]+parts[2*i+1] != body {
			t.Errorf("%s does not fit the message of %d bytes", lines[i], len(body))
		}
	}
}

// What the replica's headers answer asks Graph for no bytes.
func TestFetchHeadersNeedNoBody(t *testing.T) {
	w, _ := farWorld(t, 5)
	if err := w.sim.Inject(bodyRequests("")); err != nil {
		t.Fatal(err)
	}
	c := w.login("alice")
	c.ok("SELECT Archive")
	lines, literals, tagged := c.literals("FETCH 1:* (ENVELOPE BODY.PEEK[HEADER.FIELDS (Subject)])")
	if !strings.HasPrefix(tagged, "OK") || len(lines) != 5 {
		t.Fatalf("%q %s", lines, tagged)
	}
	subjects := strings.Join(literals, "")
	for i := range 5 {
		if !strings.Contains(subjects, fmt.Sprintf("Subject: Message %d\r\n", i)) || !strings.Contains(strings.Join(lines, ""), fmt.Sprintf(`"<%d@a.example>"`, i)) {
			t.Errorf("message %d is not in %q %q", i, lines, literals)
		}
	}
	if _, tagged := c.do("SEARCH FROM s3@a.example"); !strings.HasPrefix(tagged, "OK") {
		t.Error(tagged)
	}
}

// One message that cannot be read costs NO at the end; the others are served, and it is not \Seen.
func TestFetchOneUnreadable(t *testing.T) {
	w, ids := farWorld(t, 5)
	if err := w.sim.Inject(bodyRequests(ids[2])); err != nil {
		t.Fatal(err)
	}
	c := w.login("alice")
	c.ok("SELECT Archive")
	lines, literals, tagged := c.literals("UID FETCH 1:* (BODY[TEXT])")
	if !strings.HasPrefix(tagged, "NO ") || len(lines) != 4 || len(literals) != 4 {
		t.Fatalf("%q %s", lines, tagged)
	}
	seen := c.ok("SEARCH UNSEEN")
	if len(seen) != 1 || len(strings.Fields(seen[0])) != 3 {
		t.Errorf("unseen: %q", seen)
	}
}

// A size that cannot be made exact at present is told as estimated.
func TestFetchEstimatedSize(t *testing.T) {
	w, _ := farWorld(t, 5)
	if err := w.sim.Inject(bodyRequests("")); err != nil {
		t.Fatal(err)
	}
	c := w.login("alice")
	c.ok("SELECT Archive")
	if lines := c.ok("FETCH 1:* RFC822.SIZE"); len(lines) != 5 {
		t.Errorf("sizes: %q", lines)
	}
}

func TestSearchBodiesAfar(t *testing.T) {
	w, _ := farWorld(t, 6)
	c := w.login("alice")
	c.ok("SELECT Archive")
	search := func(keys string) string {
		t.Helper()
		lines := c.ok("SEARCH " + keys)
		if len(lines) != 1 {
			t.Fatalf("%s: %q", keys, lines)
		}
		return strings.TrimPrefix(strings.TrimPrefix(lines[0], "* SEARCH"), " ")
	}
	all := search("BODY apple")
	if len(strings.Fields(all)) != 3 {
		t.Fatalf("by Graph's index: %q", all)
	}
	// With the bytes of some here the answer stays the same, and substrings are found in them.
	c.literals("FETCH 1:3 BODY.PEEK[]")
	if got := search("BODY apple"); got != all {
		t.Errorf("with some bytes kept: %q, before %q", got, all)
	}
	if got := search("BODY ppl"); len(strings.Fields(got)) == 0 {
		t.Errorf("substring: %q", got)
	}
	if got, want := search("NOT BODY apple"), 3; len(strings.Fields(got)) != want {
		t.Errorf("the others: %q", got)
	}
	if got := search("TEXT \"Message 4\""); len(strings.Fields(got)) != 1 {
		t.Errorf("text in the header: %q", got)
	}
	if got := search("BODY apple SEEN"); got != "" {
		t.Errorf("what is decided by flags: %q", got)
	}
}

// What a client was told of a message's header before the message itself was read is not taken back: Exchange keeps the
// header as it came, and writes another one when it is asked for the text.
func TestToldHeaderStays(t *testing.T) {
	w := newSimWorld(t, graphsim.Options{})
	const header = "Received: from a by b; Mon, 2 Mar 2026 10:00:00 +0000\r\nX-First: one\r\nSUBJECT: =?iso-8859-1?q?gr=FC=DFe?=\r\nfrom: \"Doe, Jane\" <jane@a.example> (comment)\r\n" +
		"To: b@b.example,\r\n\tc@c.example\r\nDate: Mon,  2 Mar 2026 10:00:00 GMT\r\nMessage-ID: <told@a.example>\r\n" +
		"Content-Type: multipart/alternative; boundary=original\r\nMIME-Version: 1.0 (as sent)\r\n"
	text := []byte(header + "\r\n--original\r\nContent-Type: text/plain\r\n\r\nplain\r\n--original\r\nContent-Type: text/html\r\n\r\n<p>html\r\n--original--\r\n")
	w.sim.AddMessage(alice, "inbox", text, graphsim.MessageSpec{})
	w.sim.AddMessage(alice, "sentitems", text, graphsim.MessageSpec{}) // has no transport headers
	w.serve(Limits{})
	c := w.login("alice")
	for _, mailbox := range []string{"INBOX", "Sent"} {
		c.ok("EXAMINE " + mailbox)
		items := []string{"ENVELOPE", "BODY.PEEK[HEADER.FIELDS (Subject From To Date Message-ID X-First Reply-To)]", "BODY.PEEK[HEADER.FIELDS (X-First)]<2.5>"}
		told := make([]string, len(items))
		ask := func(item string) string {
			t.Helper()
			responses, tagged := c.responses("FETCH 1 (" + item + ")")
			if !strings.HasPrefix(tagged, "OK") || len(responses) != 1 {
				t.Fatalf("%s: %q %s", item, responses, tagged)
			}
			return string(responses[0])
		}
		for i, item := range items {
			told[i] = ask(item)
		}
		read := w.sim.CountRequests(func(q graphsim.Request) bool { return strings.HasSuffix(q.Template, "/$value") })
		whole := ask("BODY.PEEK[]")
		if mailbox == "INBOX" && (read != 0 || strings.Contains(whole, "SUBJECT: =?iso")) {
			t.Fatalf("nothing is tested: %d messages were read before, the text is %s", read, whole)
		}
		for i, item := range items {
			if got := ask(item); got != told[i] {
				t.Errorf("%s: %s is\n%s\nand was\n%s", mailbox, item, got, told[i])
			}
			// Beside what needs the text it says the same.
			want := strings.TrimSuffix(told[i], ")")
			if got := ask(item + " BODY.PEEK[TEXT]"); !strings.HasPrefix(got, want) {
				t.Errorf("%s: %s with the text is\n%s\nand was\n%s", mailbox, item, got, told[i])
			}
		}
		// How the content is written must fit the content.
		boundary := regexp.MustCompile(`boundary="?([^"\r\n;]+)`).FindStringSubmatch(ask("BODY.PEEK[HEADER.FIELDS (Content-Type)]"))
		if boundary == nil || !strings.Contains(whole, "--"+boundary[1]+"--") {
			t.Errorf("%s: boundary %q is not that of\n%s", mailbox, boundary, whole)
		}
	}
}
