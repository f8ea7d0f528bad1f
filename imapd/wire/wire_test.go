package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/internal/fuzzcorpus"
)

var testLimits = Limits{Line: 1000, Literal: 100, Command: 2000, Nesting: 5, Set: 50, Drain: 10_000}

// decoder returns a Decoder over s, and a counter of continuation requests.
func decoder(s string) (*Decoder, *int) {
	asked := new(int)
	return NewDecoder(strings.NewReader(s), testLimits, nil, func() error { *asked++; return nil }), asked
}

// args returns a Decoder placed behind "a x ".
func args(t *testing.T, s string) *Decoder {
	t.Helper()
	d, _ := decoder("a x " + s)
	if _, _, err := d.ReadCommand(); err != nil {
		t.Fatal(err)
	}
	d.Space()
	return d
}

func TestReadCommand(t *testing.T) {
	for _, tt := range []struct {
		in, tag, name string
		bad           bool
	}{
		{"a1 noop\r\n", "a1", "NOOP", false},
		{"a1 noop\n", "a1", "NOOP", false},
		{"\r\n\r\n \r\na1 noop \r\n", "a1", "NOOP", false},
		{"A.b-c]] Login x y\r\n", "A.b-c]]", "LOGIN", false},
		{"a+ noop\r\n", "", "", true},
		{"+ noop\r\n", "", "", true},
		{"a\r\n", "a", "", true},
		{"a (\r\n", "a", "", true},
		{"* noop\r\n", "", "", true},
		{"\x00a noop\r\n", "", "", true},
		{"\xffa noop\r\n", "", "", true},
		{strings.Repeat("x", 300) + " noop\r\n", "", "", true},
		{"{5}\r\n", "", "", true},
	} {
		d, _ := decoder(tt.in)
		tag, name, err := d.ReadCommand()
		if tag != tt.tag || (err == nil && name != tt.name) || (err != nil) != tt.bad {
			t.Errorf("ReadCommand(%q) = %q, %q, %v", tt.in, tag, name, err)
		}
		if err != nil && !Recoverable(err) {
			t.Errorf("ReadCommand(%q): %v is not recoverable", tt.in, err)
		}
	}
}

func TestStrings(t *testing.T) {
	for _, tt := range []struct{ in, want, err string }{
		{`foo`, "foo", ""},
		{`"foo bar"`, "foo bar", ""},
		{`"a\"b\\c"`, `a"b\c`, ""},
		{`""`, "", ""},
		{"{3}\r\na\x01c", "a\x01c", ""},
		{"{0}\r\n", "", ""},
		{"{3+}\r\n\r\n)", "\r\n)", ""},
		{`"foo`, "", "quoted string without end"},
		{"\"a\x01\"", "", "bad character in quoted string"},
		{`(foo)`, "", "string expected"},
		{"{x}", "", "string expected"},
		{"{101}\r\n", "", "literal too big"},
		{"{99999999999999999999999999}\r\n", "", "literal too big"},
		{"~{3}\r\nabc", "", "binary literal not allowed here"},
		{"Grüße", "Grüße", ""},
		{`"Grüße"`, "Grüße", ""},
		{"foo]", "foo]", ""},
	} {
		d := args(t, tt.in+"\r\n")
		got := d.AString()
		err := d.End()
		if got != tt.want || (err == nil) != (tt.err == "") || (err != nil && err.Error() != tt.err) {
			t.Errorf("AString(%q) = %q, %v; want %q, %q", tt.in, got, err, tt.want, tt.err)
		}
	}
}

func TestErrorsStick(t *testing.T) {
	d := args(t, "1 foo\r\n")
	d.Atom()
	d.Space()
	d.Number()
	err := d.Err()
	if err == nil {
		t.Fatal("no error")
	}
	if d.AString() != "" || d.More() || d.Peek() != 0 || d.TrySpace() || d.UIDSet() == nil && d.Err() != err {
		t.Error("parsing went on after an error")
	}
	if d.End() != err {
		t.Error("the first error did not stick")
	}
}

func TestNumSet(t *testing.T) {
	r := func(n ...imap.UID) (s imap.UIDSet) {
		for i := 0; i < len(n); i += 2 {
			s = append(s, imap.UIDRange{Start: n[i], Stop: n[i+1]})
		}
		return s
	}
	for _, tt := range []struct {
		in   string
		want imap.UIDSet
	}{
		{"1", r(1, 1)},
		{"1:5,7", r(1, 5, 7, 7)},
		{"7,1:5", r(1, 5, 7, 7)},
		{"5:1", r(1, 5)},
		{"*", r(0, 0)},
		{"1:*", r(1, 0)},
		{"*:3", r(3, 0)},
		{"*:*", r(0, 0)},
		{"*,4", r(4, 4, 0, 0)},
		{"3:5,4:9,20,1", r(1, 1, 3, 9, 20, 20)},
		{"5,6,4", r(4, 6)},
		{"4:*,9,*,2", r(2, 2, 4, 0)},
		{"4294967295,1", r(1, 1, 4294967295, 4294967295)},
		{"4294967295:1", r(1, 4294967295)},
		{"0", nil}, {"1:0", nil}, {"1,", nil}, {",1", nil}, {"1:2:3", nil}, {"4294967296", nil}, {"a", nil}, {"-1", nil}, {"1-2", nil},
	} {
		d := args(t, tt.in+"\r\n")
		got := d.UIDSet()
		if err := d.End(); (err == nil) != (tt.want != nil) || (err == nil && !reflect.DeepEqual(got, tt.want)) {
			t.Errorf("UIDSet(%q) = %v, %v; want %v", tt.in, got, err, tt.want)
		}
	}
	d := args(t, "$\r\n")
	if !imap.IsSearchRes(d.NumSet(false)) || d.End() != nil {
		t.Error("$ is not the saved search")
	}
	d = args(t, strings.Repeat("1:2,", 50)+"1\r\n")
	d.SeqSet()
	if _, ok := d.End().(*LimitError); !ok {
		t.Errorf("set over the limit: %v", d.Err())
	}
}

func TestNumSetOfAMegabyte(t *testing.T) {
	var sb strings.Builder
	sb.WriteString("a UID ")
	const n = 170_000
	for i := n; i > 0; i-- { // the worst order for insertion
		fmt.Fprintf(&sb, "%d,", 2*i)
	}
	in := strings.TrimSuffix(sb.String(), ",") + "\r\nb NOOP\r\n"
	if len(in) < 1<<20 {
		t.Fatalf("only %d bytes", len(in))
	}
	d := NewDecoder(strings.NewReader(in), DefaultLimits, nil, nil)
	d.ReadCommand()
	d.Space()
	start := time.Now()
	set := d.UIDSet()
	if err := d.End(); err != nil || len(set) != n || set[0].Start != 2 || set[n-1].Stop != 2*n {
		t.Fatalf("%d ranges, %v", len(set), err)
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("took %v", took)
	}
	if err := d.Finish(); err != nil {
		t.Fatal(err)
	}
	if tag, name, err := d.ReadCommand(); tag != "b" || name != "NOOP" || err != nil {
		t.Errorf("next command: %q %q %v", tag, name, err)
	}
	if err := d.Finish(); err != nil || len(d.buf) > keepBuffer {
		t.Errorf("buffer of %d bytes kept, %v", len(d.buf), err)
	}
}

// TestRefusedLiterals is about content that must not be run as commands.
func TestRefusedLiterals(t *testing.T) {
	const evil = "z LOGOUT\r\n"
	for _, tt := range []struct {
		name, in string
		asked    int
		lost     bool
	}{
		{"unasked, never looked at", "a X {10+}\r\n" + evil + "\r\nb NOOP\r\n", 0, false},
		{"two of them", "a X {10+}\r\n" + evil + " {10+}\r\n" + evil + "\r\nb NOOP\r\n", 0, false},
		{"over the literal limit", "a X y {1000+}\r\n" + strings.Repeat(evil, 100) + "\r\nb NOOP\r\n", 0, false},
		{"over the drain limit", "a X y {20000+}\r\n" + strings.Repeat(evil, 2000) + "\r\nb NOOP\r\n", 0, true},
		{"behind a line too long", "a X " + strings.Repeat("y", 3000) + " {10+}\r\n" + evil + "\r\nb NOOP\r\n", 0, false},
		{"behind a line little too long", "a X " + strings.Repeat("y", 1000) + " {10+}\r\n" + evil + "\r\nb NOOP\r\n", 0, false},
		{"in a quoted string without end", "a X \"foo {10+}\r\n" + evil + "\r\nb NOOP\r\n", 0, false},
		{"with a bad tag", "+ {10+}\r\n" + evil + "\r\nb NOOP\r\n", 0, false},
		{"literal8", "a X ~{10+}\r\n" + evil + "\r\nb NOOP\r\n", 0, false},
		{"sync, client waits", "a X y {1000}\r\n", 0, false},
		{"sync, client does not wait", "a X y {1000}\r\n" + strings.Repeat(evil, 100) + "\r\nb NOOP\r\n", 0, true},
		{"size over 64 bits", "a X {184467440737095516170+}\r\n" + evil, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, asked := decoder(tt.in)
			_, _, err := d.ReadCommand()
			if err == nil {
				d.Space()
				d.Atom()
				d.Space()
				d.AString()
				err = d.End()
			}
			if !Recoverable(err) {
				t.Fatalf("error %v", err)
			}
			err = d.Finish()
			if (err == ErrLost) != tt.lost || (err != nil && !tt.lost) {
				t.Fatalf("Finish: %v", err)
			}
			if *asked != tt.asked {
				t.Errorf("asked for %d literals", *asked)
			}
			if tt.lost || !strings.HasSuffix(tt.in, "b NOOP\r\n") {
				return
			}
			if tag, name, err := d.ReadCommand(); tag != "b" || name != "NOOP" || err != nil {
				t.Errorf("next command: %q %q %v", tag, name, err)
			}
		})
	}
}

func TestStreamedLiteral(t *testing.T) {
	content := strings.Repeat("0123456789abcde\n", 1000)
	for _, one := range []bool{false, true} {
		for _, plus := range []string{"", "+"} {
			in := fmt.Sprintf("a APPEND box {%d%s}\r\n%s (x)\r\nb NOOP\r\n", len(content), plus, content)
			var r io.Reader = strings.NewReader(in)
			if one {
				r = iotest.OneByteReader(r)
			}
			asked := 0
			d := NewDecoder(r, testLimits, nil, func() error { asked++; return nil })
			d.ReadCommand()
			d.Space()
			d.Mailbox()
			d.Space()
			lit := d.Literal()
			if d.Err() != nil || lit.Size != int64(len(content)) || asked != 0 {
				t.Fatal(d.Err(), lit, asked)
			}
			lr, err := lit.Accept()
			if err != nil {
				t.Fatal(err)
			}
			if (asked == 1) != (plus == "") {
				t.Errorf("asked %d times for {n%s}", asked, plus)
			}
			got, err := io.ReadAll(lr)
			if err != nil || string(got) != content {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			if err := lit.Close(); err != nil {
				t.Fatal(err)
			}
			d.Space()
			d.List(func() { d.Atom() })
			if err := d.End(); err != nil {
				t.Fatal(err)
			}
			if err := d.Finish(); err != nil {
				t.Fatal(err)
			}
			if tag, _, err := d.ReadCommand(); tag != "b" || err != nil {
				t.Errorf("next: %q, %v", tag, err)
			}
		}
	}
}

func TestStreamedLiteralGivenUp(t *testing.T) {
	d, _ := decoder("a APPEND {20}\r\nz LOGOUT\r\nz LOGOUT\r\n rest\r\nb NOOP\r\n")
	d.ReadCommand()
	d.Space()
	r, err := d.Literal().Accept()
	if err != nil {
		t.Fatal(err)
	}
	io.ReadFull(r, make([]byte, 3))
	if err := d.Finish(); err != nil {
		t.Fatal(err)
	}
	if tag, name, err := d.ReadCommand(); tag != "b" || name != "NOOP" || err != nil {
		t.Errorf("next command: %q %q %v", tag, name, err)
	}
}

func TestLiteralBrokenOff(t *testing.T) {
	d, _ := decoder("a APPEND {20}\r\nshort")
	d.ReadCommand()
	d.Space()
	r, _ := d.Literal().Accept()
	if _, err := io.ReadAll(r); err != io.ErrUnexpectedEOF {
		t.Errorf("read: %v", err)
	}
	if err := d.Finish(); err != io.ErrUnexpectedEOF {
		t.Errorf("Finish: %v", err)
	}
}

func TestLineTooLong(t *testing.T) {
	d, _ := decoder("tag1 X " + strings.Repeat("y", 5000) + "\r\nb NOOP\r\n")
	tag, _, err := d.ReadCommand()
	if _, ok := err.(*LimitError); !ok || tag != "tag1" {
		t.Fatalf("%q, %v", tag, err)
	}
	if err := d.Finish(); err != nil {
		t.Fatal(err)
	}
	if tag, _, err := d.ReadCommand(); tag != "b" || err != nil {
		t.Errorf("next: %q, %v", tag, err)
	}
	d, _ = decoder("tag1 X " + strings.Repeat("y", 50_000))
	if _, _, err := d.ReadCommand(); !errors.Is(err, ErrLost) {
		t.Errorf("endless line: %v", err)
	}
}

func TestBeforeRunsOnlyWhenInputIsOut(t *testing.T) {
	n := 0
	d := NewDecoder(strings.NewReader("a NOOP\r\nb NOOP\r\nc NOOP\r\n"), testLimits, func() error { n++; return nil }, nil)
	for range 3 {
		if _, _, err := d.ReadCommand(); err != nil {
			t.Fatal(err)
		}
		d.Finish()
	}
	if n != 1 {
		t.Errorf("flushed %d times for three commands in one packet", n)
	}
}

func TestReadLine(t *testing.T) {
	d, _ := decoder("a IDLE\r\ndone {5+}\r\n" + strings.Repeat("x", 100) + "\r\nb NOOP\r\n")
	d.ReadCommand()
	d.End()
	if s, err := d.ReadLine(20); s != "done {5+}" || err != nil {
		t.Errorf("%q, %v", s, err)
	}
	if _, err := d.ReadLine(20); !Recoverable(err) {
		t.Errorf("long line: %v", err)
	}
	d.Finish()
	if tag, _, err := d.ReadCommand(); tag != "b" || err != nil {
		t.Errorf("next: %q, %v", tag, err)
	}
}

func TestList(t *testing.T) {
	for _, tt := range []struct {
		in string
		ok bool
		n  int
	}{
		{"()", true, 0}, {"(a)", true, 1}, {"(a b  c )", true, 3}, {"( a)", true, 1},
		{"(a", false, 1}, {`(a"b")`, false, 1}, {"a", false, 0}, {"", false, 0},
	} {
		d, _ := decoder("a x " + tt.in + "\r\n")
		d.ReadCommand()
		d.TrySpace()
		n := 0
		d.List(func() { d.Atom(); n++ })
		if err := d.End(); (err == nil) != tt.ok || (tt.ok && n != tt.n) {
			t.Errorf("List(%q): %d members, %v", tt.in, n, err)
		}
	}
	d := args(t, strings.Repeat("(", 10)+strings.Repeat(")", 10)+"\r\n")
	var nested func()
	nested = func() { d.List(nested) }
	nested()
	if _, ok := d.End().(*LimitError); !ok {
		t.Errorf("nesting: %v", d.Err())
	}
}

func TestNames(t *testing.T) {
	for _, tt := range []struct{ coded, name string }{
		{"INBOX", "INBOX"},
		{"&ANw-berblick", "Überblick"},
		{"R&-D", "R&D"},
		{"~peter/mail/&U,BTFw-/&ZeVnLIqe-", "~peter/mail/台北/日本語"},
		{"&2D3eAA-", "😀"},
		{"a&-&AOQ-", "a&ä"},
	} {
		if got, err := DecodeName(tt.coded); got != tt.name || err != nil {
			t.Errorf("DecodeName(%q) = %q, %v", tt.coded, got, err)
		}
		if got := EncodeName(tt.name); got != tt.coded {
			t.Errorf("EncodeName(%q) = %q", tt.name, got)
		}
	}
	for _, bad := range []string{"&", "R&D", "&AGE-", "&AOQ-&AOQ-", "&AOQ", "&A-", "&2D0-", "&2D0AYQ-", "a\x01", "\xff", "&AOQ=-", "&AAA-", "&A Q-"} {
		if got, err := DecodeName(bad); err == nil {
			t.Errorf("DecodeName(%q) = %q", bad, got)
		}
	}
	if got, err := DecodeName("Grüße"); got != "Grüße" || err != nil {
		t.Errorf("raw UTF-8: %q, %v", got, err)
	}
	for in, want := range map[string]string{"inbox": "INBOX", "InBoX/a": "INBOX/a", "inboxes": "inboxes", "x/inbox": "x/inbox"} {
		if got := CanonicalName(in); got != want {
			t.Errorf("CanonicalName(%q) = %q", in, got)
		}
	}
	d := args(t, "R&D\r\n")
	d.Mailbox()
	if _, ok := d.End().(*NameError); !ok {
		t.Errorf("invalid name: %v", d.Err())
	}
	d = args(t, "R&D\r\n")
	d.SetUTF8(true)
	if got := d.Mailbox(); got != "R&D" || d.End() != nil {
		t.Errorf("in UTF-8: %q, %v", got, d.Err())
	}
}

func TestDatesAndFlags(t *testing.T) {
	want := time.Date(2026, 2, 3, 4, 5, 6, 0, time.FixedZone("", -5400))
	for _, in := range []string{`" 3-Feb-2026 04:05:06 -0130"`, `"03-feb-2026 04:05:06 -0130"`, `"3-Feb-2026 04:05:06 -0130"`} {
		d := args(t, in+"\r\n")
		if got := d.DateTime(); !got.Equal(want) || d.End() != nil {
			t.Errorf("DateTime(%s) = %v, %v", in, got, d.Err())
		}
	}
	for _, in := range []string{`"32-Feb-2026 04:05:06 -0130"`, `" 3-Feb-2026"`, `3-Feb-2026`, `""`} {
		d := args(t, in+"\r\n")
		if d.DateTime(); d.End() == nil {
			t.Errorf("DateTime(%s) accepted", in)
		}
	}
	for _, in := range []string{"3-Feb-2026", `"3-Feb-2026"`, "03-FEB-2026"} {
		d := args(t, in+"\r\n")
		if got := d.Date(); !got.Equal(time.Date(2026, 2, 3, 0, 0, 0, 0, time.UTC)) || d.End() != nil {
			t.Errorf("Date(%s) = %v, %v", in, got, d.Err())
		}
	}
	d := args(t, `(\seen \FLAGGED $Label1 \XFoo)`+"\r\n")
	if got := d.Flags(); !reflect.DeepEqual(got, []imap.Flag{`\Seen`, `\Flagged`, "$Label1", `\XFoo`}) || d.End() != nil {
		t.Errorf("%v, %v", got, d.Err())
	}
	d = args(t, `\seen foo`+"\r\n")
	if got := d.Flags(); !reflect.DeepEqual(got, []imap.Flag{`\Seen`, "foo"}) || d.End() != nil {
		t.Errorf("%v, %v", got, d.Err())
	}
	for _, in := range []string{`(\)`, `(\*)`, `(a]b)`, `("x")`} {
		d := args(t, in+"\r\n")
		if d.Flags(); d.End() == nil {
			t.Errorf("flags %s accepted", in)
		}
	}
}

func TestNumbers(t *testing.T) {
	d := args(t, "9223372036854775807 4294967295\r\n")
	if n := d.Number64(); n != math.MaxInt64 {
		t.Error(n)
	}
	d.Space()
	if n := d.Number(); n != math.MaxUint32 || d.End() != nil {
		t.Error(n, d.Err())
	}
	d = args(t, "9223372036854775808\r\n")
	if d.Number64(); d.End() == nil {
		t.Error("64 bits accepted")
	}
}

func TestEncode(t *testing.T) {
	var out bytes.Buffer
	e := NewEncoder(&out)
	zone := time.FixedZone("", 3600)
	for _, tt := range []struct {
		do   func()
		want string
	}{
		{func() { e.String(`a"b\c`) }, `"a\"b\\c"`},
		{func() { e.String("") }, `""`},
		{func() { e.String("Grüße") }, "{7}\r\nGrüße"},
		{func() { e.String("a\r\nb") }, "{4}\r\na\r\nb"},
		{func() { e.String("a\x00b") }, "{3}\r\na\x80b"},
		{func() { e.NString("", false) }, "NIL"},
		{func() { e.AString("nil") }, `"nil"`},
		{func() { e.AString("x]") }, `"x]"`},
		{func() { e.Mailbox("Grüße & Co") }, `"Gr&APwA3w-e &- Co"`},
		{func() { e.Flags([]imap.Flag{`\Seen`, "Red Category", "", `\*`, "ü", "$x", ")", `\`}) }, `(\Seen \* $x)`},
		{func() { e.DateTime(time.Date(2026, 2, 3, 4, 5, 6, 0, zone)) }, `"03-Feb-2026 04:05:06 +0100"`},
		{func() { e.DateTime(time.Date(12026, 2, 3, 4, 5, 6, 0, zone)) }, `"01-Jan-1970 00:00:00 +0000"`},
		{func() { e.UIDs([]imap.UID{1, 2, 3, 5, 4, 9, 10}) }, `1:3,5,4,9:10`},
		{func() { e.Text("a\r\nb OK ü") }, "a  b OK ??"},
		{func() { e.Text("") }, "-"},
		{func() { e.LiteralBytes([]byte("a\x00")) }, "{2}\r\na\x80"},
		{func() { e.Literal8Bytes([]byte("a\x00")) }, "~{2}\r\na\x00"},
		{func() { e.LiteralAt(strings.NewReader("0123456789"), 2, 3) }, "{3}\r\n234"},
	} {
		out.Reset()
		tt.do()
		if e.Flush(); out.String() != tt.want {
			t.Errorf("got %q, want %q", out.String(), tt.want)
		}
	}
	e.SetUTF8(true)
	out.Reset()
	e.Mailbox("Grüße").SP().String("\xff")
	if e.Flush(); out.String() != "\"Grüße\" {1}\r\n\xff" {
		t.Errorf("in UTF-8: %q", out.String())
	}
}

// countingWriter counts writes.
type countingWriter struct{ writes, bytes int }

func (w *countingWriter) Write(p []byte) (int, error) {
	w.writes++
	w.bytes += len(p)
	return len(p), nil
}

// TestFewWrites: go-imap writes once per response line, which costs ten times
// the processor time of one write per 32 KiB.
func TestFewWrites(t *testing.T) {
	var w countingWriter
	e := NewEncoder(&w)
	for i := range 100_000 {
		e.Raw("* ").Num(uint64(i)).Raw(` FETCH (FLAGS (\Seen))`).CRLF()
	}
	e.Flush()
	if limit := w.bytes/flushAt + 1; w.writes > limit {
		t.Errorf("%d writes for %d bytes", w.writes, w.bytes)
	}
	allocs := testing.AllocsPerRun(1000, func() {
		e.Raw("* ").Num(77777).Raw(" FETCH (UID ").Num(99999).Raw(" FLAGS ").Flags([]imap.Flag{`\Seen`}).Raw(")").CRLF()
	})
	if allocs > 0.1 {
		t.Errorf("%v allocations per response", allocs)
	}
}

// shortReader has fewer bytes than it was promised.
type shortReader struct{ have int64 }

func (r shortReader) ReadAt(p []byte, off int64) (int, error) {
	n := int(max(0, min(int64(len(p)), r.have-off)))
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func TestLiteralNotHeld(t *testing.T) {
	var out bytes.Buffer
	e := NewEncoder(&out)
	e.Raw("x ")
	if err := e.LiteralAt(shortReader{100}, 0, 200); err != io.ErrUnexpectedEOF {
		t.Errorf("error %v", err)
	}
	e.NIL()
	if e.Flush(); out.String() != "x NIL" || e.Err() != nil {
		t.Errorf("a short literal was announced: %q, %v", out.String(), e.Err())
	}
	if err := e.LiteralAt(shortReader{100_000}, 0, 200_000); !errors.Is(err, ErrBroken) {
		t.Errorf("error %v", err)
	}
	before := out.Len()
	e.Raw("a OK").CRLF()
	if e.Flush() == nil || out.Len() != before {
		t.Error("output went on after a broken literal")
	}
}

func TestRollback(t *testing.T) {
	var out bytes.Buffer
	e := NewEncoder(&out)
	e.Raw("a").CRLF()
	m := e.Mark()
	e.Raw("half")
	if !e.Rollback(m) {
		t.Error("not rolled back")
	}
	e.Raw("b").CRLF().Flush()
	if out.String() != "a\r\nb\r\n" || e.Rollback(m) {
		t.Errorf("%q", out.String())
	}
}

func FuzzDecoder(f *testing.F) {
	for _, s := range []string{
		"a LOGIN x y\r\nb NOOP\r\n", "a X {3}\r\nabc {3+}\r\nabc\r\n", "a FETCH 1:* (FLAGS BODY[1.2]<0.1>)\r\n",
		"a X \"q\\\"\" (a (b) c) &AOQ- 5:*,3 \" 3-Feb-2026 04:05:06 -0130\"\r\n", "a X ~{1+}\r\n\x00\r\n", "\r\n\n\r\n+ {5+}\r\nabcde\r\n",
		"a X {99999999999999999999+}\r\n", "a " + strings.Repeat("x", 1200) + "{3+}\r\nabc\r\n",
	} {
		f.Add(s)
	}
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, s string) {
		whole := commands(strings.NewReader(s))
		if split := commands(iotest.OneByteReader(strings.NewReader(s))); !strings.Contains(s, "}") && split != whole {
			t.Errorf("read at once:\n%s\nbyte by byte:\n%s", whole, split)
		}
	})
}

// commands reads r to its end, trying every parser, and tells what it saw.
func commands(r io.Reader) string {
	var sb strings.Builder
	d := NewDecoder(r, testLimits, nil, func() error { return nil })
	for range 1000 {
		tag, name, err := d.ReadCommand()
		fmt.Fprintf(&sb, "%q %q %v\n", tag, name, err)
		for i := 0; d.Err() == nil && d.More(); i++ {
			d.Space()
			switch c := d.Peek(); {
			case c == '(':
				d.List(func() { sb.WriteString(d.AString()) })
			case c == '"' && i%2 == 0:
				d.DateTime()
			case c >= '0' && c <= '9' && i%2 == 0:
				fmt.Fprint(&sb, d.NumSet(true))
			case c == '~':
				if l := d.Literal(); l != nil {
					if lr, err := l.Accept(); err == nil {
						io.CopyN(io.Discard, lr, 2)
					}
					d.Fail(io.ErrNoProgress)
				}
			case i%3 == 1:
				sb.WriteString(d.MailboxPattern())
			case i%3 == 2:
				sb.WriteString(d.Word())
			default:
				sb.WriteString(d.Mailbox())
			}
		}
		fmt.Fprintf(&sb, "end %v\n", d.End())
		if err := d.Finish(); err != nil {
			fmt.Fprintf(&sb, "%v\n", err)
			break
		}
	}
	return sb.String()
}

func FuzzName(f *testing.F) {
	for _, s := range []string{"INBOX", "&ANw-berblick", "R&-D", "&2D3eAA-", "&AOQ-&AOQ-", "x\xff"} {
		f.Add(s)
	}
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, s string) {
		if name, err := DecodeName(s); err == nil {
			if again, err := DecodeName(EncodeName(name)); err != nil || again != name {
				t.Errorf("%q -> %q -> %q -> %q, %v", s, name, EncodeName(name), again, err)
			}
		}
	})
}
