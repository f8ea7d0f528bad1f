package imapd

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// Messages made to break programs are shown like all others: with their bytes, a structure that fits, and a connection that
// goes on.
func TestHostileMessages(t *testing.T) {
	const head = "From: a@a.example\r\nTo: b@b.example\r\nSubject: hostile\r\nMIME-Version: 1.0\r\n"
	var parts, alternating strings.Builder
	parts.WriteString(head + "Content-Type: multipart/mixed; boundary=p\r\n\r\n")
	for i := range 10_000 {
		fmt.Fprintf(&parts, "--p\r\nContent-Type: text/plain; name=\"part %d\"\r\n\r\npart %d\r\n", i+1, i+1)
	}
	parts.WriteString("--p--\r\n")
	alternating.WriteString(head)
	for i := range 500 {
		fmt.Fprintf(&alternating, "Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\nContent-Type: message/rfc822\r\n\r\nSubject: level %d\r\n", i, i, i)
	}
	alternating.WriteString("\r\ninnermost\r\n")
	messages := map[string]string{
		"10,000 parts":                  parts.String(),
		"500 messages in multiparts":    alternating.String(),
		"2,000 nested multiparts":       head + nested(2000, "Content-Type: multipart/mixed; boundary=%[1]d\r\n\r\n--%[1]d\r\n") + "\r\ninnermost\r\n",
		"2,000 nested messages":         head + strings.Repeat("Content-Type: message/rfc822\r\n\r\nSubject: x\r\n", 2000) + "\r\ninnermost\r\n",
		"100,000 fields":                head + strings.Repeat("X-Field: value\r\n", 100_000) + "\r\nbody\r\n",
		"20,000 addresses":              "To: " + strings.Repeat("<someone@somewhere.example>,\r\n ", 20_000) + "x@y.example\r\nSubject: many\r\n\r\nbody\r\n",
		"a field of a megabyte":         head + "X-Long: " + strings.Repeat("x", 1<<20) + "\r\n\r\nbody\r\n",
		"a folded subject of 10,000":    "Subject: " + strings.Repeat("word\r\n ", 10_000) + "end\r\n\r\nbody\r\n",
		"10,000 parameters":             head + "Content-Type: text/plain" + strings.Repeat(";\r\n a*0*=utf-8''%41", 10_000) + "\r\n\r\nbody\r\n",
		"a million empty lines":         head + "\r\n" + strings.Repeat("\r\n", 1_000_000),
		"delimiters and nothing else":   head + "Content-Type: multipart/mixed; boundary=d\r\n\r\n" + strings.Repeat("--d\r\n", 50_000),
		"a boundary inside its own one": head + "Content-Type: multipart/mixed; boundary=\"--\"\r\n\r\n" + strings.Repeat("----\r\n", 10_000) + "------\r\n",
		"nothing but a colon":           ":",
		"one byte":                      "x",
		"parentheses in comments":       "From: " + strings.Repeat("(", 50_000) + " a@a.example\r\nSubject: comments\r\n\r\nbody\r\n",
		"quotes that never close":       "From: \"" + strings.Repeat("\\\"", 50_000) + "\r\nSubject: quotes\r\n\r\nbody\r\n",
	}
	w := newWorld(t, Limits{})
	c := w.login("alice")
	var names []string
	for name, text := range messages {
		names = append(names, name)
		if _, tagged := c.responses(fmt.Sprintf("APPEND INBOX {%d+}\r\n%s", len(text), text)); !strings.HasPrefix(tagged, "OK ") {
			t.Errorf("%s: APPEND: %s", name, tagged)
		}
	}
	c.ok("SELECT INBOX")
	for i, name := range names {
		for _, items := range []string{"ENVELOPE BODY.PEEK[HEADER.FIELDS (Subject From)]", "RFC822.SIZE BODYSTRUCTURE", "BODY", "BODY.PEEK[HEADER]", "BODY.PEEK[TEXT]<0.100>",
			"BODY.PEEK[1] BODY.PEEK[1.MIME] BINARY.SIZE[1]", "BODY.PEEK[9999] BODY.PEEK[10000.MIME]", "BODY.PEEK[1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1]", "PREVIEW", "BODY.PEEK[]"} {
			untagged, tagged := c.responses(fmt.Sprintf("FETCH %d (%s)", i+1, items))
			if !strings.HasPrefix(tagged, "OK ") || len(untagged) != 1 {
				t.Errorf("%s: FETCH %s: %d responses, %s", name, items, len(untagged), tagged)
				continue
			}
			if want := fmt.Sprintf("BODY[] {%d}\r\n%s)", len(messages[name]), messages[name]); items == "BODY.PEEK[]" && !bytes.HasSuffix(untagged[0], []byte(want)) {
				t.Errorf("%s: its text is not what was stored", name)
			}
			if items == "BODY.PEEK[9999] BODY.PEEK[10000.MIME]" && name == "10,000 parts" && !bytes.Contains(untagged[0], []byte("part 9999")) {
				t.Errorf("%s: part 9999 is not found: %.200q", name, untagged[0])
			}
		}
	}
	for _, command := range []string{"SEARCH SUBJECT hostile", "SEARCH TEXT nowhere", "SEARCH BODY innermost FROM a.example", "SEARCH HEADER X-Field value",
		"SORT (SUBJECT FROM TO) UTF-8 ALL", "THREAD REFERENCES UTF-8 ALL", "FETCH 1:* (UID RFC822.SIZE ENVELOPE BODYSTRUCTURE)", "NOOP"} {
		if _, tagged := c.responses(command); !strings.HasPrefix(tagged, "OK ") {
			t.Errorf("%s: %s", command, tagged)
		}
	}
}

func nested(n int, level string) string {
	var sb strings.Builder
	for i := range n {
		fmt.Fprintf(&sb, level, i)
	}
	return sb.String()
}
