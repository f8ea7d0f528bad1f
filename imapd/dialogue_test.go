package imapd

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestDialogues plays testdata/imap/*.txt. Every file has a server and
// mailboxes of its own (see newWorld). Lines are
//
//	C: text      the client sends text and CRLF; C2: is a second client, and so on
//	S: text      the server must send exactly this line; {{...}} is a regular expression
//	U: text      as S, but in any order among the U lines that follow on each other
//	S* tag       lines up to the tagged response, which must be OK, are not looked at
//	EOF          the server must close the connection
//	# text       a remark
//
// Blanks at the end of a line count. A client connects when it first appears,
// and its greeting is read then.
func TestDialogues(t *testing.T) {
	files, err := filepath.Glob("../testdata/imap/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no dialogues: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			script, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			w := newWorld(t, Limits{Message: 10_000, LoginAttempts: 3})
			play(t, w, file, string(script))
		})
	}
}

// client is one end of a connection to a server in this process.
type client struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

// patience is how long a test waits for a line before it fails.
const patience = 20 * time.Second

func (c *client) send(text string) {
	c.conn.SetWriteDeadline(time.Now().Add(patience))
	if _, err := c.conn.Write([]byte(text)); err != nil {
		c.t.Errorf("send %.60q: %v", text, err)
	}
}

// line returns the next line without its end, or an error.
func (c *client) line() (string, error) {
	c.conn.SetReadDeadline(time.Now().Add(patience))
	s, err := c.r.ReadString('\n')
	return strings.TrimSuffix(s, "\r\n"), err
}

// expect reads a line and compares it.
func (c *client) expect(want string) string {
	c.t.Helper()
	got, err := c.line()
	if err != nil {
		c.t.Fatalf("want %q, got %q, %v", want, got, err)
	}
	if !matches(want, got) {
		c.t.Fatalf("want %q\n got %q", want, got)
	}
	return got
}

// expectEOF checks that the server has closed the connection.
func (c *client) expectEOF() {
	c.t.Helper()
	if got, err := c.line(); err == nil {
		c.t.Fatalf("want the end, got %q", got)
	} else if os.IsTimeout(err) {
		c.t.Fatal("the connection stays open")
	}
}

// do sends a command and returns the untagged responses and the tagged one.
func (c *client) do(command string) (untagged []string, tagged string) {
	c.t.Helper()
	c.send("x " + command + "\r\n")
	for {
		l, err := c.line()
		if err != nil {
			c.t.Fatalf("%s: %q, %v", command, l, err)
		}
		if rest, ok := strings.CutPrefix(l, "x "); ok {
			return untagged, rest
		}
		untagged = append(untagged, l)
	}
}

// ok is do for a command that must succeed.
func (c *client) ok(command string) []string {
	c.t.Helper()
	untagged, tagged := c.do(command)
	if !strings.HasPrefix(tagged, "OK") {
		c.t.Fatalf("%.100s: %s", command, tagged)
	}
	return untagged
}

// matches compares a line with what is wanted, {{...}} being regular expressions.
func matches(want, got string) bool {
	if !strings.Contains(want, "{{") {
		return want == got
	}
	var sb strings.Builder
	for rest := want; rest != ""; {
		plain, after, found := strings.Cut(rest, "{{")
		sb.WriteString(regexp.QuoteMeta(plain))
		if !found {
			break
		}
		expr, tail, _ := strings.Cut(after, "}}")
		sb.WriteString("(?:" + expr + ")")
		rest = tail
	}
	re, err := regexp.Compile("^(?:" + sb.String() + ")$")
	return err == nil && re.MatchString(got)
}

func play(t *testing.T, w *world, file, script string) {
	clients := make(map[string]*client)
	current := func(name string) *client {
		c := clients[name]
		if c == nil {
			c = w.connect()
			clients[name] = c
			c.expect("* OK [CAPABILITY {{.*}}")
		}
		return c
	}
	var pending []string // U lines
	lines := strings.Split(script, "\n")
	for i, line := range lines {
		at := fmt.Sprintf("%s:%d", filepath.Base(file), i+1)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if name, found := strings.CutPrefix(line, "EOF"); found {
			current(name).expectEOF()
			continue
		}
		head, text, _ := strings.Cut(line, " ")
		kind, name := head[:1], strings.TrimSuffix(head[1:], ":")
		c := current(strings.Trim(name, "*"))
		switch {
		case kind == "C":
			c.send(text + "\r\n")
		case kind == "S" && strings.HasSuffix(head, "*"):
			for {
				got, err := c.line()
				if err != nil {
					t.Fatalf("%s: %v", at, err)
				}
				if strings.HasPrefix(got, text+" ") {
					if !strings.HasPrefix(got, text+" OK") {
						t.Fatalf("%s: got %q", at, got)
					}
					break
				}
			}
		case kind == "S":
			got, err := c.line()
			if err != nil {
				t.Fatalf("%s: want %q, got %q, %v", at, text, got, err)
			}
			if !matches(text, got) {
				t.Fatalf("%s: want %q\n got %q", at, text, got)
			}
		case kind == "U":
			pending = append(pending, text)
			if i+1 < len(lines) && strings.HasPrefix(lines[i+1], head) {
				continue
			}
			for len(pending) > 0 {
				got, err := c.line()
				if err != nil {
					t.Fatalf("%s: %q, %v; missing %q", at, got, err, pending)
				}
				j := slices.IndexFunc(pending, func(want string) bool { return matches(want, got) })
				if j < 0 {
					t.Fatalf("%s: got %q, want one of %q", at, got, pending)
				}
				pending = slices.Delete(pending, j, j+1)
			}
		default:
			t.Fatalf("%s: cannot read %q", at, line)
		}
	}
}
