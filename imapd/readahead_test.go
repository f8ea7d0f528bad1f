package imapd

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"postern/backend/graphsim"
)

// TestReadAhead sends many commands ahead, each for one text that is not kept, as mbsync does. The requests of Graph that
// a mailbox takes at once are used for those to come, each text is read once, and every command gets its own.
func TestReadAhead(t *testing.T) {
	const n = 12
	w := newSimWorld(t, graphsim.Options{})
	for i := range n {
		w.sim.AddMessage(alice, "inbox", fmt.Appendf(nil, "From: a@b.example\r\nSubject: %d\r\n\r\ntext of %d.\r\n", i+1, i+1), graphsim.MessageSpec{})
	}
	if err := w.sim.Inject(graphsim.Fault{Path: `/\$value$`, Delay: 300 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	w.serve(Limits{})
	c := w.login("alice")
	c.ok("SELECT INBOX")
	var commands strings.Builder
	for i := range n {
		switch i {
		case 4:
			fmt.Fprintf(&commands, "t%d FETCH 5:6 (UID BODY.PEEK[TEXT])\r\n", i)
		case 5: // asked for with the one before; a text twice does not hurt
			fmt.Fprintf(&commands, "t%d UID FETCH 6 (BODY.PEEK[TEXT])\r\n", i)
		default:
			fmt.Fprintf(&commands, "t%d UID FETCH %d (BODY.PEEK[TEXT])\r\n", i, i+1)
		}
	}
	c.send(commands.String() + "n NOOP\r\n")
	for i := range n {
		for got := 0; ; {
			l, err := c.line()
			if err != nil {
				t.Fatal(err)
			}
			if rest, ok := strings.CutPrefix(l, fmt.Sprintf("t%d ", i)); ok {
				if want := map[bool]int{false: 1, true: 2}[i == 4]; got != want || !strings.HasPrefix(rest, "OK") {
					t.Errorf("command %d: %d texts, %s", i, got, rest)
				}
				break
			}
			if strings.HasPrefix(l, "text of ") {
				if l != fmt.Sprintf("text of %d.", i+1+got) {
					t.Errorf("command %d: %s", i, l)
				}
				got++
			}
		}
	}
	c.expect("n OK {{.*}}")

	asked := map[string]int{}
	var texts []graphsim.Request
	for _, r := range w.sim.Requests() {
		if strings.HasSuffix(r.Template, "/$value") {
			asked[r.Path]++
			texts = append(texts, r)
		}
	}
	if len(asked) != n || len(texts) != n {
		t.Errorf("%d texts were read in %d requests", len(asked), len(texts))
	}
	most := 0
	for _, r := range texts {
		atOnce := 0
		for _, o := range texts {
			if !o.Time.After(r.Time) && o.Time.Add(o.Took).After(r.Time) {
				atOnce++
			}
		}
		most = max(most, atOnce)
	}
	if most < 3 || most > 4 {
		t.Errorf("%d texts were read at once", most)
	}
}

// TestReadAheadGivenUp leaves texts that were read ahead to nobody: the client goes on with something else, or leaves.
func TestReadAheadGivenUp(t *testing.T) {
	w := newSimWorld(t, graphsim.Options{})
	for i := range 8 {
		w.sim.AddMessage(alice, "inbox", fmt.Appendf(nil, "From: a@b.example\r\nSubject: %d\r\n\r\ntext of %d.\r\n", i+1, i+1), graphsim.MessageSpec{})
	}
	if err := w.sim.Inject(graphsim.Fault{Path: `/\$value$`, Delay: 200 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	w.serve(Limits{})
	c := w.login("alice")
	c.ok("SELECT INBOX")
	// The second means another message when it is its turn.
	c.send("a UID FETCH 1 BODY.PEEK[TEXT]\r\nb FETCH 2 BODY.PEEK[TEXT] (\r\nc UID FETCH 3 BODY.PEEK[TEXT]\r\nd SELECT Archive\r\ne UID FETCH 4 BODY.PEEK[TEXT]\r\nf SELECT INBOX\r\ng UID FETCH 8 BODY.PEEK[TEXT]\r\n")
	for _, tag := range []string{"a OK", "b BAD", "c OK", "d OK", "e OK", "f OK", "g OK"} {
		for {
			l, err := c.line()
			if err != nil {
				t.Fatal(err)
			}
			if len(l) > 1 && l[1] == ' ' && l[0] != '*' {
				if !strings.HasPrefix(l, tag) {
					t.Errorf("want %s, got %s", tag, l)
				}
				break
			}
		}
	}
	c.send("h UID FETCH 5 BODY.PEEK[TEXT]\r\ni UID FETCH 6 BODY.PEEK[TEXT]\r\nj UID FETCH 7 BODY.PEEK[TEXT]\r\n")
	c.conn.Close() // goleak looks whether anything is left
}
