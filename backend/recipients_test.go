package backend

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"postern/backend/message"
	"postern/internal/fuzzcorpus"
)

func TestAddressHeader(t *testing.T) {
	for _, tt := range []struct {
		name, header string
		rcpts        string
		want         string
	}{
		{"all named", "To: a@x.example\nSubject: s\n", "a@x.example",
			"To: a@x.example\nSubject: s\n"},
		{"envelope only becomes Bcc", "To: a@x.example\nSubject: s\n", "a@x.example b@y.example",
			"To: a@x.example\nSubject: s\nBcc: b@y.example\n"},
		{"case does not matter", "To: Ann <A@X.Example>\n", "a@x.example",
			"To: Ann <A@X.Example>\n"},
		{"not in the envelope", "To: Ann <a@x.example>, Ben <b@y.example>\nCc: c@z.example\n", "b@y.example",
			"To: Ben <b@y.example>\nX-Original-To: Ann <a@x.example>, Ben <b@y.example>\nX-Original-Cc: c@z.example\n"},
		{"nobody of the header", "To: a@x.example\n", "b@y.example",
			"X-Original-To: a@x.example\nBcc: b@y.example\n"},
		{"Bcc in the envelope stays", "To: a@x.example\nBcc: b@y.example, c@z.example\n", "a@x.example b@y.example d@w.example",
			"To: a@x.example\nBcc: b@y.example, d@w.example\n"},
		{"Bcc outside the envelope goes", "To: a@x.example\nBcc: c@z.example\n", "a@x.example",
			"To: a@x.example\n"},
		{"no recipients named", "Subject: s\n", "a@x.example b@y.example",
			"Subject: s\nBcc: a@x.example, b@y.example\n"},
		{"Resent is left alone", "Resent-To: r@q.example\nTo: a@x.example\n", "a@x.example",
			"Resent-To: r@q.example\nTo: a@x.example\n"},
		{"Resent-Bcc is hidden like Bcc", "Resent-To: r@q.example\nresent-bcc: h@q.example,\n i@q.example\nTo: a@x.example\n", "r@q.example h@q.example",
			"Resent-To: r@q.example\nX-Original-To: a@x.example\nBcc: r@q.example, h@q.example\n"},
		{"folding and odd spelling kept", "tO:  a@x.example,\n\tb@y.example\nX-Odd:\tv  \n", "a@x.example b@y.example",
			"tO:  a@x.example,\n\tb@y.example\nX-Odd:\tv  \n"},
		{"twice in the envelope", "Subject: s\n", "a@x.example A@X.EXAMPLE",
			"Subject: s\nBcc: a@x.example\n"},
		{"quoted local part", "Subject: s\n", "john_doe@x.example",
			"Subject: s\nBcc: \"john doe\"@x.example\n"},
		{"international domain", "To: a@exämple.example\n", "a@xn--exmple-cua.example",
			"To: a@exämple.example\n"},
		{"two To fields", "To: a@x.example\nTo: b@y.example\n", "a@x.example",
			"To: a@x.example\nX-Original-To: b@y.example\n"},
		{"a route without its end swallows nobody", "Bcc: (comment, b@y.example) , <@r:c@z.example\n", "b@y.example c@z.example",
			"Bcc: <c@z.example>, b@y.example\n"},
		{"a quote without its end swallows nobody", "Bcc: \"C <c@z.example>\nBcc: \"B\" <b@y.example>\n", "b@y.example c@z.example",
			"Bcc: <c@z.example>, \"B\" <b@y.example>\n"},
		{"what needs no mending stays", "To: \"Ann, (x\" <a@x.example>, =?utf-8?q?B=2C?= <b@y.example> (c), G: c@z.example;\n", "a@x.example b@y.example c@z.example",
			"To: \"Ann, (x\" <a@x.example>, =?utf-8?q?B=2C?= <b@y.example> (c), G: c@z.example;\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var rcpts []string
			for _, r := range strings.Fields(tt.rcpts) {
				rcpts = append(rcpts, strings.ReplaceAll(r, "_", " "))
			}
			crlf := func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }
			got := string(addressHeader([]byte(crlf(tt.header+"\n")), rcpts))
			if got != crlf(tt.want+"\n") {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

func TestSplitRecipients(t *testing.T) {
	var rcpts []string
	for i := range 12 {
		rcpts = append(rcpts, fmt.Sprintf("r%d@x.example", i))
	}
	header := []byte("Cc: r9@x.example\r\nTo: R3@x.example, stranger@y.example\r\n\r\n")
	parts := splitRecipients(header, append(rcpts, "R0@X.example"), 5)
	if len(parts) != 3 || len(parts[0]) != 5 || len(parts[2]) != 2 {
		t.Fatalf("parts %v", parts)
	}
	if parts[0][0] != "r9@x.example" || parts[0][1] != "r3@x.example" {
		t.Errorf("the header's recipients are not first: %v", parts[0])
	}
	all := slices.Concat(parts...)
	slices.Sort(all)
	if n := len(slices.Compact(all)); n != 12 {
		t.Errorf("%d different recipients", n)
	}
	if got := splitRecipients(header, rcpts[:3], 500); len(got) != 1 || len(got[0]) != 3 {
		t.Errorf("one part: %v", got)
	}
}

func TestLongBccIsFolded(t *testing.T) {
	var rcpts []string
	for i := range 300 {
		rcpts = append(rcpts, fmt.Sprintf("recipient%d@department.contoso.example", i))
	}
	h := string(addressHeader([]byte("Subject: s\r\n\r\n"), rcpts))
	for _, l := range strings.Split(h, "\r\n") {
		if len(l) > 100 {
			t.Fatalf("line of %d bytes: %q", len(l), l)
		}
	}
	if n := strings.Count(h, "@"); n != 300 {
		t.Errorf("%d addresses", n)
	}
}

// FuzzAddressHeader: after the rewrite the header names the envelope's recipients and
// nobody else, whatever was in it.
func FuzzAddressHeader(f *testing.F) {
	f.Add("To: a@x.example, b@y.example\r\nSubject: x\r\n", "a@x.example")
	f.Add("To: \"a@x.example\" <b@y.example>;\r\nCc: g: c@z;\r\n", "b@y.example,d@w.example")
	f.Add("Bcc: a@x\r\n (comment, b@y) , <@r:c@z>\r\nTo: =?utf-8?q?a=2Cb?= <d@w>\r\n", "c@z,b@y")
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, header, list string) {
		want := map[string]bool{}
		var rcpts []string
		for _, r := range strings.Split(list, ",") {
			local, domain, ok := strings.Cut(r, "@")
			if ok && isDotAtom(local) && isDotAtom(domain) && isASCII(r) && !strings.ContainsAny(domain, "!#$%&'*+/=?^_`{|}~") {
				rcpts = append(rcpts, r)
				want[addressKey(r)] = true
			}
		}
		if len(rcpts) == 0 {
			return
		}
		out := addressHeader([]byte(header), rcpts)
		if !strings.HasSuffix(string(out), "\r\n") {
			t.Fatalf("no blank line at the end: %q", out)
		}
		got := map[string]bool{}
		for _, fl := range message.Fields(out) {
			if strings.EqualFold(fl.Name, "Resent-Bcc") {
				t.Fatalf("hidden recipients are shown: %q", out)
			}
			if !isRecipientField(fl.Name) {
				continue
			}
			for _, a := range wholeAddresses(fl.Value) {
				k := addressKey(a.Addr())
				if got[k] = true; !want[k] {
					t.Fatalf("%q is named in %q", k, out)
				}
			}
		}
		for k := range want {
			if !got[k] {
				t.Fatalf("%q is not named in %q", k, out)
			}
		}
		splitRecipients([]byte(header), rcpts, 2)
	})
}
