package message

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestFields(t *testing.T) {
	header := "From a@b Mon Nov 23\r\n leading\r\nSubject: one\r\n two\r\nno field here\r\n nor here\r\nTo : x\r\nX-Empty:\r\nbad name: y\r\nsubject:\tagain \r\nNoEOL: z"
	var got []string
	for _, f := range Fields([]byte(header)) {
		got = append(got, fmt.Sprintf("%s=%q raw %q", f.Name, f.Value, f.Raw))
	}
	want := []string{
		`Subject="one two" raw "Subject: one\r\n two\r\n"`,
		`To="x" raw "To : x\r\n"`,
		`X-Empty="" raw "X-Empty:\r\n"`,
		`subject="again" raw "subject:\tagain \r\n"`,
		`NoEOL="z" raw "NoEOL: z"`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if v, ok := FieldValue([]byte(header), "SUBJECT"); v != "one two" || !ok {
		t.Errorf("first subject: %q %v", v, ok)
	}
	var all []string
	for v := range FieldValues([]byte("To: a\r\nCc: x\r\nTO : b\r\n c\r\nto: d\r\n\r\nTo: e\r\n"), "to") {
		if all = append(all, v); v == "d" {
			break
		}
	}
	if got := strings.Join(all, "|"); got != "a|b c|d" {
		t.Errorf("FieldValues = %q", got)
	}
	if _, ok := FieldValue([]byte("A: b\r\n\r\nC: d\r\n"), "c"); ok {
		t.Error("a field was found in the body")
	}
}

func TestFilterHeader(t *testing.T) {
	const header = "junk\r\nFrom: a\r\n b\r\nTO: c\r\nfrom: d\r\n\r\n"
	for _, tt := range []struct {
		header string
		names  []string
		not    bool
		want   string
	}{
		{header, []string{"FROM"}, false, "From: a\r\n b\r\nfrom: d\r\n\r\n"},
		{header, []string{"From"}, true, "junk\r\nTO: c\r\n\r\n"},
		{header, []string{"x"}, false, "\r\n"},
		{header, nil, true, "junk\r\nFrom: a\r\n b\r\nTO: c\r\nfrom: d\r\n\r\n"},
		{"From: a\nTo: b\n\n", []string{"to"}, false, "To: b\n\n"},
		{"A: b\r\njunk\r\n more\r\n", []string{"a"}, true, "junk\r\n more\r\n"},
		{"From: cut", []string{"from"}, false, "From: cut\r\n"},
		{"From: cut", []string{"x"}, false, ""},
		{"\r\n", []string{"from"}, false, "\r\n"},
		{"", []string{"from"}, false, ""},
	} {
		if got := string(FilterHeader([]byte(tt.header), tt.names, tt.not)); got != tt.want {
			t.Errorf("FilterHeader(%q, %v, %v) = %q, want %q", tt.header, tt.names, tt.not, got, tt.want)
		}
	}
}

func TestDecodeWords(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"plain", "plain"},
		{"=?utf-8?Q?a_=C3=A9?=", "a é"},
		{"=?UTF-8?b?w6k=?= =?utf-8?B?w6k?=", "éé"},
		{"=?utf-8?Q?=C3?=\r\n =?utf-8?Q?=A9?=", "é"},
		{"=?iso-8859-1?q?=E9?= and =?iso-8859-1*fr?q?=E8?=", "é and è"},
		{"x=?utf-8?q?y?=z", "xyz"},
		{`"=?utf-8?q?in_quotes?="`, `"in quotes"`},
		{"=?utf-8?q?blank in word?=", "blank in word"},
		{"=?nonsense?q?kept_=41?=", "kept A"},
		{"=?utf-8?q?unfinished", "=?utf-8?q?unfinished"},
		{"=?utf-8?x?abc?=", "=?utf-8?x?abc?="},
		{"=?utf-8?q??=", ""},
		{"=?utf-8?q?=4?=", "=4"},
		{"=?ISO-2022-JP?B?GyRCRnxLXDhsGyhC?=", "日本語"},
		{"=?gb2312?B?1tDOxA==?=", "中文"},
		{"=?windows-1252?q?=80?=", "€"},
		{"raw \xe9 latin", "raw é latin"},
		{"raw é utf", "raw é utf"},
		{"=?utf-8?q?=FF=FE?=", "ÿþ"},
		{"=?=?utf-8?q?a?=", "=?a"},
		{"", ""},
	} {
		if got := DecodeWords(tt.in); got != tt.want {
			t.Errorf("DecodeWords(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestParseDate(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"Mon, 23 Nov 2026 10:00:00 +0100", "2026-11-23T10:00:00+01:00"},
		{"23 Nov 2026 10:00 +0100 (CET)", "2026-11-23T10:00:00+01:00"},
		{"Mon,23 Nov 2026 10:00:00 PST", "2026-11-23T10:00:00-08:00"},
		{"Mon, 23 Nov 2026 10:00:00 EDT", "2026-11-23T10:00:00-04:00"},
		{"Mon, 23 Nov 2026 10:00:00 GMT", "2026-11-23T10:00:00Z"},
		{"Mon, 23 Nov 2026 10:00:00 Z", "2026-11-23T10:00:00Z"},
		{"Mon, 23 Nov 2026 10:00:00 A", "2026-11-23T10:00:00Z"},
		{"Mon, 23 Nov 2026 10:00:00", "2026-11-23T10:00:00Z"},
		{"Mon, 23 Nov 2026 10:00:00 GMT+0200", "2026-11-23T10:00:00+02:00"},
		{"Mon, 23 (a (nested) comment) Nov 26 10:00:00 -0330", "2026-11-23T10:00:00-03:30"},
		{"1 Jan 99 0:0:0 +0000", "1999-01-01T00:00:00Z"},
		{"1 Jan 101 00:00:00 +0000", "2001-01-01T00:00:00Z"},
		{"Mon Nov 23 10:00:00 2026", "2026-11-23T10:00:00Z"},
		{"Mon Nov 23 10:00:00 CET 2026", "2026-11-23T10:00:00+01:00"},
		{"23-Nov-2026 10:00:00 +0100", "2026-11-23T10:00:00+01:00"},
		{"2026-11-23T10:00:00Z", "2026-11-23T10:00:00Z"},
		{"2026-11-23 10:00:00 +0100", "2026-11-23T10:00:00+01:00"},
		{"Monday, November 23, 2026 10:00 PM", "2026-11-23T22:00:00Z"},
		{"23.11.2026 10:00", "2026-11-23T10:00:00Z"},
		{"Thu, 31 Dec 2026 23:59:60 +0000", "2026-12-31T23:59:59Z"},
		{"Mon, 23 Nov 2026 10.30.15 +0100", "2026-11-23T10:30:15+01:00"},
		{"Mon, 23 Nov 2026 10:00:00 +9999", "2026-11-23T10:00:00Z"},
		{"Sun, 31 Feb 2026 10:00:00 +0000", ""},
		{"Mon, 23 Nov 2026 99:00:00 +0000", ""},
		{"yesterday", ""},
		{"", ""},
		{"(", ""},
	} {
		got, ok := ParseDate(tt.in)
		s := ""
		if ok {
			s = got.Format(time.RFC3339)
		}
		if s != tt.want {
			t.Errorf("ParseDate(%q) = %q, want %q", tt.in, s, tt.want)
		}
	}
}

func TestSplitSubject(t *testing.T) {
	for _, tt := range []struct {
		in, want string
		reply    bool
	}{
		{"Hello", "Hello", false},
		{"Re: Hello", "Hello", true},
		{"RE: fwd: [list] Hello (fwd) ", "Hello", true},
		{"[list] Re: Hello", "Hello", true},
		{"[Fwd: Re: Hello]", "Hello", true},
		{"Re[2]: Hello", "Hello", true},
		{"re [x] : Hello", "Hello", true},
		{"[only]", "[only]", false},
		{"Re: [only]", "[only]", true},
		{"=?utf-8?q?Re:_Gr=C3=BC=C3=9Fe?=", "Grüße", true},
		{"a \t\r\n b", "a b", false},
		{"Reply", "Reply", false},
		{"Re:", "", true},
		{"", "", false},
		{"[list] Hello", "Hello", false},
		{"Hello (fwd)", "Hello", true},
		{"[fwd: Hello]", "Hello", true},
		{"[a] [b] fw [c]: [d] Hello", "Hello", true},
		{"Re Hello", "Re Hello", false},
	} {
		if got, reply := SplitSubject(tt.in); got != tt.want || reply != tt.reply {
			t.Errorf("SplitSubject(%q) = %q, %v, want %q, %v", tt.in, got, reply, tt.want, tt.reply)
		}
	}
}

func TestParseAddressList(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{`a@a.example`, "<a@a.example>"},
		{`A B <a@a.example>, "C, D" <c@c.example>`, "A B<a@a.example>|C, D<c@c.example>"},
		{`a@a.example; b@b.example`, "<a@a.example>|<b@b.example>"},
		{`root`, "<root>"},
		{`foo.@docomo.ne.example`, "<foo.@docomo.ne.example>"},
		{"J\xf6rg <j@a.example>, b@b.example", "J\xf6rg<j@a.example>|<b@b.example>"},
		{`bad <a@, good@b.example`, "bad<a>|<good@b.example>"},
		{`"unfinished <a@a.example>, b@b.example`, `"unfinished<a@a.example>|<b@b.example>`},
		{`(unfinished a@a.example, b@b.example`, `(unfinished<a@a.example>|<b@b.example>`},
		{`a@a.example (A (nested) Name)`, "A (nested) Name<a@a.example>"},
		{`<a@a.example> <b@b.example>`, "<a@a.example>|<b@b.example>"},
		{`Name a@a.example`, "Name<a@a.example>"},
		{`a b c`, "<\"a b c\">"},
		{`=?utf-8?Q?A,_B?= <a@a.example>`, "=?utf-8?Q?A,_B?=<a@a.example>"},
		{`a @ a . example`, "<a@a.example>"},
		{`Mr. a@a.example`, "Mr.<a@a.example>"},
		{`"a b"@a.example`, `<"a b"@a.example>`},
		{`a@b@c.example`, `<"a@b"@c.example>`},
		{`<mailto:a@a.example>, mailto:b@b.example`, "<a@a.example>|<b@b.example>"},
		{`G: a@a.example, b@b.example; c@c.example`, "G:|<a@a.example>|<b@b.example>|;|<c@c.example>"},
		{`undisclosed-recipients:;`, "undisclosed-recipients:|;"},
		{`G: a@a.example`, "G:|<a@a.example>|;"},
		{`<>`, "<>"},
		{`G: (nobody) ;, H:(one);h@h.example`, "G:|;|H:|;|<h@h.example>"},
		{`(nobody)`, "nobody<>"},
		{`R <@a.example , @b.example:r@c.example>`, "@a.example,@b.example:R<r@c.example>"},
		{`,,;, ;`, ""},
		{``, ""},
		{`a@[192.0.2.1], "Q\"q" <q@q.example>`, `<a@[192.0.2.1]>|Q"q<q@q.example>`},
		{"A\r\n B\r\n\t<a@a.example>", "A B<a@a.example>"},
	} {
		var got []string
		for _, a := range ParseAddressList(tt.in) {
			switch {
			case a.Host == "" && a.Mailbox != "":
				got = append(got, a.Mailbox+":")
			case a.Host == "":
				got = append(got, ";")
			default:
				if a.Route != "" {
					a.Name = a.Route + ":" + a.Name
				}
				got = append(got, a.Name+"<"+a.Addr()+">")
			}
		}
		if s := strings.Join(got, "|"); s != tt.want {
			t.Errorf("ParseAddressList(%q) =\n%s, want\n%s", tt.in, s, tt.want)
		}
	}
}

func TestFilterAddressField(t *testing.T) {
	keep := func(addr string) bool { return strings.HasPrefix(addr, "k") }
	for _, tt := range []struct {
		in, want string
		changed  bool
	}{
		{"k@a.example", "k@a.example", false},
		{"x@a.example", "", true},
		{`"K, K" <k1@a.example>, X <x@a.example>;  k2@a.example (two)`, `"K, K" <k1@a.example>, k2@a.example (two)`, true},
		{"=?utf-8?Q?K=C3=A9?= <k@a.example>,\r\n x@a.example", "=?utf-8?Q?K=C3=A9?= <k@a.example>", true},
		{"G: k@a.example, x@a.example; x@a.example", "G: k@a.example;", true},
		{"G: x@a.example;, k@a.example", "k@a.example", true},
		{"undisclosed-recipients:;", "undisclosed-recipients:;", false},
		{"undisclosed-recipients:;, x@a.example", "undisclosed-recipients: ;", true},
		{"broken <>, x@a.example", "", true},
		{"", "", false},
	} {
		got, changed := FilterAddressField(tt.in, keep)
		if got != tt.want || changed != tt.changed {
			t.Errorf("FilterAddressField(%q) = %q, %v, want %q, %v", tt.in, got, changed, tt.want, tt.changed)
		}
	}
}

func TestCompleteHeader(t *testing.T) {
	const own = "From: new\r\nX-Extra: 1\r\nContent-Type: text/html\r\nMIME-Version: 1.0\r\nX-Extra: 2\r\n\r\nbody: no field\r\n"
	for _, tt := range []struct{ told, want string }{
		{"", own},
		{"from: old\r\n folded\r\nCONTENT-TYPE: text/plain\r\nContent-Language: de\r\n\r\n",
			"from: old\r\n folded\r\nX-Extra: 1\r\nX-Extra: 2\r\nContent-Type: text/html\r\nMIME-Version: 1.0\r\n\r\n"},
		{"x-extra: told\r\njunk\r\nX-Other: cut", "x-extra: told\r\nX-Other: cut\r\nFrom: new\r\nContent-Type: text/html\r\nMIME-Version: 1.0\r\n\r\n"},
	} {
		got := string(CompleteHeader([]byte(tt.told), []byte(own)))
		if got != tt.want {
			t.Errorf("%q completed is %q, want %q", tt.told, got, tt.want)
		}
		if again := string(CompleteHeader([]byte(got), []byte(own))); tt.told != "" && again != got {
			t.Errorf("completed twice it is %q, once %q", again, got)
		}
	}
}
