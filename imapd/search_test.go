package imapd

import (
	"errors"
	"fmt"
	"sort"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend"
	"postern/imapd/wire"
	"postern/internal/fuzzcorpus"
)

// show writes a key for comparing.
func (k *searchKey) show() string {
	var subs []string
	for _, sub := range k.keys {
		subs = append(subs, sub.show())
	}
	list := strings.Join(subs, " ")
	switch k.op {
	case searchAll:
		return "all"
	case searchAnd:
		return "(" + list + ")"
	case searchOr:
		return "or[" + list + "]"
	case searchNot:
		return "not " + list
	case searchSet:
		if uids, ok := k.set.(imap.UIDSet); ok && !imap.IsSearchRes(k.set) {
			return "uid:" + uids.String()
		}
		return k.set.String()
	case searchFlag:
		return string(k.flag)
	case searchRecent:
		return "recent"
	case searchHeader:
		return fmt.Sprintf("%s=%q", k.field, k.text)
	case searchBody:
		return fmt.Sprintf("body %q", k.text)
	case searchText:
		return fmt.Sprintf("text %q", k.text)
	case searchEmailID, searchThreadID:
		return fmt.Sprintf("id %q", k.text)
	case searchBefore, searchOn, searchSince, searchSentBefore, searchSentOn, searchSentSince:
		return fmt.Sprintf("%d@%s", k.op-searchBefore, k.date.Format("2006-01-02"))
	}
	return fmt.Sprintf("%d#%d", k.op-searchOlder, k.num)
}

func TestParseSearch(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"ALL", "(all)"},
		{"all unseen", `(all not \Seen)`},
		{"1:3,7 UID 4:*", "(1:3,7 uid:4:*)"},
		{"*", "(*)"},
		{"ANSWERED DELETED DRAFT FLAGGED SEEN UNANSWERED UNDELETED UNDRAFT UNFLAGGED", `(\Answered \Deleted \Draft \Flagged \Seen not \Answered not \Deleted not \Draft not \Flagged)`},
		{"NEW OLD RECENT", `((recent not \Seen) not recent recent)`},
		{"KEYWORD $Label1 UNKEYWORD Junk", "($Label1 not Junk)"},
		{`FROM a TO "b c" CC {1+}` + "\r\nd BCC e SUBJECT f", `(FROM="a" TO="b c" CC="d" BCC="e" SUBJECT="f")`},
		{`HEADER Message-ID <x@y> HEADER X-A ""`, `(Message-ID="<x@y>" X-A="")`},
		{"BODY a TEXT b", `(body "a" text "b")`},
		{`BEFORE 1-Feb-2020 ON "01-Feb-2020" SINCE 01-Feb-2020`, "(0@2020-02-01 1@2020-02-01 2@2020-02-01)"},
		{"SENTBEFORE 1-Feb-2020 SENTON 1-Feb-2020 SENTSINCE 1-Feb-2020", "(3@2020-02-01 4@2020-02-01 5@2020-02-01)"},
		{"OLDER 10 YOUNGER 20 LARGER 30 SMALLER 40", "(0#10 1#20 2#30 3#40)"},
		{`MODSEQ 5 MODSEQ "/flags/\\draft" all 6`, "(4#5 4#6)"},
		{"EMAILID M1 THREADID T1", `(id "M1" id "T1")`},
		{"NOT SEEN", `(not \Seen)`},
		{"NOT NOT SEEN", `(\Seen)`},
		{"NOT UNSEEN", `(\Seen)`},
		{"OR SEEN OR FLAGGED (DELETED DRAFT)", `(or[\Seen or[\Flagged (\Deleted \Draft)]])`},
		{"NOT (1 OR ALL (2))", "(not (1 or[all (2)]))"},
		{"(((ALL)))", "((((all))))"},
		{"CHARSET UTF-8 SUBJECT gr\xc3\xbc", "UTF-8 "},
		{"CHARSET UTF-8 SUBJECT {4+}\r\ngr\xc3\xbc", `UTF-8 (SUBJECT="grü")`},
		{"CHARSET iso-8859-1 SUBJECT {3+}\r\ngr\xfc", `iso-8859-1 (SUBJECT="grü")`},
		{"CHARSET KOI8-R SUBJECT {6+}\r\n\xf0\xd2\xc9\xd7\xc5\xd4", `KOI8-R (SUBJECT="Привет")`},
		{"CHARSET us-ascii ALL", "us-ascii (all)"},
		{"SUBJECT {3+}\r\ngr\xfc", `(SUBJECT="grü")`},
		{"CHARSET X-NONE SUBJECT a", "badcharset"},
		{"CHARSET X-NONE ALL", "badcharset"},
		{"RETURN () ALL", "A (all)"},
		{"RETURN (MIN MAX COUNT) CHARSET UTF-8 ALL", "mMC UTF-8 (all)"},
		{"RETURN (ALL) UID 1", "A (uid:1)"},
		{"$", "($)"},

		{"", "bad"},
		{"BOGUS", "bad"},
		{"()", "bad"},
		{"NOT", "bad"},
		{"OR SEEN", "bad"},
		{"FROM", "bad"},
		{"HEADER a", "bad"},
		{"SINCE yesterday", "bad"},
		{"LARGER -1", "bad"},
		{"(SEEN", "bad"},
		{"SEEN)", "bad"},
		{"1:", "bad"},
		{"0", "bad"},
		{"CHARSET", "bad"},
		{"CHARSET UTF-8", "bad"},
		{"RETURN (BOGUS) ALL", "bad"},
		{"RETURN ALL", "bad"},
		{strings.Repeat("NOT ", 50_000) + "ALL", "bad"},
		{strings.Repeat("OR ALL ", 50_000) + "ALL", "bad"},
		{strings.Repeat("(", 5000), "bad"},
		{strings.Repeat("ALL ", 50_000) + "ALL", "bad"},
	} {
		d := argDecoder(t, " "+tt.in)
		if tt.in == "" {
			d = argDecoder(t, "")
		}
		req := parseSearch(d)
		got := "bad"
		if err := d.End(); err == nil {
			got = ""
			for _, o := range []struct {
				on bool
				as string
			}{{req.min, "m"}, {req.max, "M"}, {req.count, "C"}, {req.all, "A"}} {
				if o.on {
					got += o.as
				}
			}
			got += " " + req.charset + " "
			if err := req.decodeText(); err != nil {
				got = "badcharset"
				if !errors.Is(err, errBadCharset) {
					t.Error(err)
				}
			} else {
				got += req.key.show()
			}
			got = strings.Join(strings.Fields(got), " ")
		} else if !wire.Recoverable(err) {
			t.Errorf("SEARCH %.60q: %v", tt.in, err)
		}
		if strings.HasSuffix(tt.want, " ") { // 8-bit outside of literals: either is fine
			continue
		}
		if got != tt.want {
			t.Errorf("SEARCH %.60q = %s, want %s", tt.in, got, tt.want)
		}
	}
}

// parsedKey returns a key ready to evaluate.
func parsedKey(t testing.TB, s string) *searchKey {
	t.Helper()
	d := argDecoder(t, " "+s)
	req := parseSearch(d)
	if err := d.End(); err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	if err := req.decodeText(); err != nil {
		t.Fatal(err)
	}
	return req.key
}

func TestSearchEval(t *testing.T) {
	day := func(d, h int) time.Time { return time.Date(2026, 11, d, h, 0, 0, 0, time.UTC) }
	msg := &backend.Message{UID: 70, ModSeq: 100, Size: 5000, Received: day(20, 23), Sent: day(19, 12), EmailID: backend.ObjectID{'M', 0xab}, ThreadID: backend.ObjectID{'T', 1}}
	header := &searchHeaders{raw: []byte("From: =?utf-8?Q?J=C3=B6rg?= <joerg@a.example>\r\nSubject: a\r\n B c\r\nTo: x@a.example\r\nTo: second@a.example\r\nCc: j.d (other) @ (x) c.example\r\nX-Empty:\r\nDate: Fri, 20 Nov 2026 01:00:00 +1300\r\n\r\n")}
	for _, tt := range []struct {
		key         string
		meta, whole tri // without and with the header
	}{
		{"ALL", yes3, yes3},
		{"NOT ALL", no3, no3},
		{"7", yes3, yes3},
		{"1:6,8:9", no3, no3},
		{"UID 70", yes3, yes3},
		{"SEEN", no3, no3},
		{"UNSEEN", yes3, yes3},
		{"RECENT", yes3, yes3},
		{"NEW", yes3, yes3},
		{"OLD", no3, no3},
		{"SINCE 20-Nov-2026", yes3, yes3},
		{"SINCE 21-Nov-2026", no3, no3},
		{"ON 20-Nov-2026", yes3, yes3},
		{"ON 19-Nov-2026", no3, no3},
		{"BEFORE 20-Nov-2026", no3, no3},
		{"BEFORE 21-Nov-2026", yes3, yes3},
		{"LARGER 4999", yes3, yes3},
		{"LARGER 5000", no3, no3},
		{"SMALLER 5001", yes3, yes3},
		{"SMALLER 5000", no3, no3},
		{"OLDER 86400", yes3, yes3},
		{"YOUNGER 86400", no3, no3},
		{"YOUNGER 9223372036854775807", yes3, yes3},
		{"MODSEQ 100", yes3, yes3},
		{"MODSEQ 101", no3, no3},
		{"EMAILID Mab0000000000000000000000", yes3, yes3},
		{"THREADID T010000000000000000000000", yes3, yes3},
		{"THREADID t010000000000000000000000", no3, no3},
		{"SENTSINCE 10-Nov-2026", yes3, yes3},
		{"SENTSINCE 25-Nov-2026", no3, no3},
		{"SENTBEFORE 10-Nov-2026", no3, no3},
		{"SENTON 20-Nov-2026", open3, yes3}, // in the zone it was written in
		{"SENTON 19-Nov-2026", open3, no3},
		{"SENTSINCE 20-Nov-2026", open3, yes3},
		{"FROM jörg", open3, yes3},
		{"FROM JOERG@A", open3, yes3},
		{"FROM JORG", open3, no3}, // an accent is a character of its own
		{"FROM ulrich", open3, no3},
		{"SUBJECT \"a b C\"", open3, yes3},
		{"TO second", open3, yes3},
		{"CC unknown", open3, no3},
		{"CC j.d@c.example", open3, yes3},
		{"CC other", open3, yes3}, // as it is written
		{"HEADER x-empty \"\"", open3, yes3},
		{"HEADER x-empty a", open3, no3},
		{"HEADER x-none \"\"", open3, no3},
		{"BODY a", open3, open3},
		{"NOT BODY a", open3, open3},
		{"BODY a NOT ALL", no3, no3},
		{"OR BODY a ALL", yes3, yes3},
		{"OR BODY a FROM jörg", open3, yes3},
		{"BODY a FROM ulrich", open3, no3},
		{"NOT (FROM ulrich)", open3, yes3},
		{"OR SEEN FLAGGED", no3, no3},
	} {
		k := parsedKey(t, "CHARSET UTF-8 "+quoteSearch(tt.key))
		k.walk(func(k *searchKey) {
			k.test = backend.NewFlagTest(k.flag)
			switch set := k.set.(type) {
			case imap.UIDSet:
				if set.Contains(70) {
					k.sel = selection{{6, 7}}
				}
			case imap.SeqSet:
				for _, r := range set {
					k.sel = k.sel.add(int(r.Start)-1, int(r.Stop))
				}
			}
		})
		env := searchEnv{now: day(23, 0)}
		row := searchRow{seq: 7, msg: msg, recent: true}
		if got := env.eval(k, &row); got != tt.meta {
			t.Errorf("%s = %d without the header, want %d", tt.key, got, tt.meta)
		}
		row.header = header
		if got := env.eval(k, &row); got != tt.whole {
			t.Errorf("%s = %d with the header, want %d", tt.key, got, tt.whole)
		}
	}
}

// quoteSearch sends words with 8-bit characters as literals.
func quoteSearch(s string) string {
	words := strings.Split(s, " ")
	for i, w := range words {
		for _, c := range []byte(w) {
			if c >= 0x80 {
				words[i] = fmt.Sprintf("{%d+}\r\n%s", len(w), w)
				break
			}
		}
	}
	return strings.Join(words, " ")
}

func TestScanText(t *testing.T) {
	names, files := mimeMessages(t)
	for _, tt := range []struct{ key, want string }{
		{"BODY grüße", "mixed-attachment"},
		{"BODY GRÜSSE", "mixed-attachment"},
		{"BODY köln", "mixed-attachment"},
		{"BODY \"weichen umbruch endet\"", "mixed-attachment"},
		{"BODY привет", "charsets"},
		{"BODY märz.pdf", ""},
		{"TEXT märz.pdf", "mixed-attachment"},
		{"TEXT \"content-disposition: inline\"", "mixed-attachment"},
		{"BODY \"embedded text\"", "rfc822-root"},
		{"BODY \"subject: embedded\"", ""},
		{"TEXT \"subject: embedded\"", "rfc822-root"},
		{"BODY \"visible all\"", "boundary-never-used no-boundary-param"},
		{"BODY joerg@a.example", ""},
		{"TEXT joerg@a.example", "eight-bit-header"},
		{"TEXT 日本語", "charsets"},
		{"TEXT \"from: jörg müller\"", "eight-bit-header"},
		{"TEXT grüße", "eight-bit-header global mixed-attachment"},
		{"BODY 4.2.2.2", "nested-rfc822"},
		{"BODY 5.1.1", "report"},
		{"BODY \"signature dashes\"", "long-line"},
		{"BODY iVBORw0KGgo", ""},
	} {
		k := parsedKey(t, "CHARSET UTF-8 "+literalSearch(tt.key))
		var got []string
		for _, name := range names {
			found, err := scanText(newContent(t, files[name]), k.textKeys(), textNeedles(k.textKeys()))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			for _, hit := range found {
				if hit {
					got = append(got, name)
				}
			}
		}
		sort.Strings(got)
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%s finds %q, want %q", tt.key, s, tt.want)
		}
	}
}

// literalSearch sends the argument of a key as a literal.
func literalSearch(s string) string {
	word, arg, _ := strings.Cut(s, " ")
	arg = strings.Trim(arg, `"`)
	return fmt.Sprintf("%s {%d+}\r\n%s", word, len(arg), arg)
}

func TestFoldSearch(t *testing.T) {
	for _, tt := range []struct{ text, find string }{
		{"Straße", "STRASSE"},
		{"CAFÉ", "café"},
		{"Cafe\u0301", "CAFÉ"},
		{"ΟΔΥΣΣΕΎΣ", "Οδυσσεύς"},
		{"ﬁne", "FINE"},
		{"İstanbul", "istanbul"},
	} {
		a, b := foldSearch(nil, tt.text), foldSearch(nil, tt.find)
		if tt.text == "İstanbul" { // decomposed: i and a dot
			a = []byte(strings.ReplaceAll(string(a), "\u0307", ""))
		}
		if string(a) != string(b) {
			t.Errorf("%q is %q, %q is %q", tt.text, a, tt.find, b)
		}
	}
}

// What lies across the pieces in which a text is read is found too.
func TestNeedlesAcrossChunks(t *testing.T) {
	for _, fill := range []string{"x", "é", "wörter und ", "&amp;"} {
		for shift := -30; shift < 30; shift++ {
			n := textChunk/len(fill) + shift
			text := strings.Repeat(fill, n) + "Näd&amp;el" + strings.Repeat(fill, 100)
			nd := newNeedles([][]byte{foldSearch(nil, "näd&el"), foldSearch(nil, "absent")})
			if err := nd.inText(strings.NewReader(text), true); err != nil {
				t.Fatal(err)
			}
			if !nd.found[0] || nd.found[1] {
				t.Errorf("fill %q shift %d: %v", fill, shift, nd.found)
			}
		}
	}
	nd := newNeedles([][]byte{[]byte("abc"), nil})
	if err := nd.inText(iotest.OneByteReader(strings.NewReader("xxabcxx")), false); err != nil || !nd.found[0] || !nd.found[1] {
		t.Errorf("%v %v", nd.found, err)
	}
	broken := errors.New("broken")
	nd = newNeedles([][]byte{[]byte("abc")})
	if err := nd.inText(iotest.ErrReader(broken), false); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
}

func FuzzParseSearch(f *testing.F) {
	for _, s := range []string{" RETURN (MIN) CHARSET UTF-8 OR (SEEN 1:*) NOT FROM a", " UID 1,2 SINCE 1-Jan-2020 HEADER a {1+}\r\nb", " LARGER 5 KEYWORD x", " $"} {
		f.Add(s)
	}
	header := &searchHeaders{raw: []byte("From: a@a.example\r\n\r\n")}
	body := newContent(f, []byte("From: a@a.example\r\nContent-Type: text/html\r\n\r\n<p>text &amp; more\r\n"))
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, s string) {
		d := wire.NewDecoder(strings.NewReader("a x"+s+"\r\n"), wire.DefaultLimits, nil, func() error { return nil })
		if _, _, err := d.ReadCommand(); err != nil {
			return
		}
		req := parseSearch(d)
		if d.End() != nil || req.decodeText() != nil {
			return
		}
		row := searchRow{seq: 1, msg: &backend.Message{UID: 1}, header: header}
		var err error
		if row.text, err = scanText(body, req.key.textKeys(), textNeedles(req.key.textKeys())); err != nil {
			t.Fatal(err)
		}
		env := searchEnv{now: time.Unix(1, 0)}
		if env.eval(req.key, &row) == open3 {
			t.Fatalf("%q is left open", s)
		}
	})
}
