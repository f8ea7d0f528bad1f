package main

import (
	"bufio"
	"bytes"
	"strings"
	"testing"
)

// typedSetup is a setup whose questions are answered by lines.
func typedSetup(lines ...string) (*setup, *bytes.Buffer) {
	var out bytes.Buffer
	return &setup{dialogue: &dialogue{in: bufio.NewReader(strings.NewReader(strings.Join(lines, "\n") + "\n")), out: &out, ask: true}}, &out
}

// A wrong answer is told as such and asked for again; what was typed is shown as it was.
func TestWrongAnswers(t *testing.T) {
	s, out := typedSetup("the-value", "31.1.2027", "2027-01-31")
	if err := s.askSecret(); err != nil || s.SecretExpires != "2027-01-31" || !strings.Contains(out.String(), "no day such as 2027-01-31") {
		t.Errorf("expires %q, error %v\n%s", s.SecretExpires, err, out)
	}
	s, out = typedSetup("100%s, alice@contoso.example", "")
	s.Shared = []string{"Alice@contoso.example"}
	if err := s.askAddresses(t.Context(), "Mailbox", "mailbox", &s.Mailboxes, false); err != nil || len(s.Mailboxes) != 0 {
		t.Errorf("mailboxes %q, error %v", s.Mailboxes, err)
	}
	for _, want := range []string{"100%s is neither an address nor an object id.", "alice@contoso.example is in the list already."} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("lacks %q:\n%s", want, out)
		}
	}
}
