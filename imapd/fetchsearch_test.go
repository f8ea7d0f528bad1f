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
