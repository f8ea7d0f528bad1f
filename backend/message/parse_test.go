package message

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite golden files")

// mimeFiles returns the messages of testdata/mime by name.
func mimeFiles(t testing.TB) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob("../../testdata/mime/*.eml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no test messages: %v", err)
	}
	files := map[string][]byte{}
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimSuffix(filepath.Base(p), ".eml")] = b
	}
	return files
}

func parse(t testing.TB, b []byte) *Index {
	t.Helper()
	ix, err := Parse(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return ix
}

// dump writes an index for people to check and for golden files.
func dump(b []byte, ix *Index) string {
	var sb strings.Builder
	fmt.Fprintf(&sb, "size %d\n", ix.Size)
	dumpPart(&sb, b, ix.Root, "", "  ")
	return sb.String()
}

func dumpPart(sb *strings.Builder, raw []byte, p *Part, number, indent string) {
	fmt.Fprintf(sb, "%s[%s] %s/%s %q header %d+%d body %d+%d lines %d\n", indent, number, p.Type, p.Subtype, p.Params,
		p.Header.Off, p.Header.Len, p.Body.Off, p.Body.Len, p.Lines)
	for _, f := range []struct{ name, value string }{{"id", p.ID}, {"description", p.Description}, {"encoding", p.Encoding}, {"md5", p.MD5}, {"location", p.Location}} {
		if f.value != "" {
			fmt.Fprintf(sb, "%s  %s %q\n", indent, f.name, f.value)
		}
	}
	if p.Language != nil {
		fmt.Fprintf(sb, "%s  language %q\n", indent, p.Language)
	}
	if p.Disposition != "" {
		fmt.Fprintf(sb, "%s  disposition %s %q name %q\n", indent, p.Disposition, p.DispositionParams, p.FileName())
	}
	if e := p.Envelope; e != nil {
		fmt.Fprintf(sb, "%s  date %q subject %q in-reply-to %q message-id %q\n", indent, e.Date, e.Subject, e.InReplyTo, e.MessageID)
		for _, l := range []struct {
			name string
			list []Address
		}{{"from", e.From}, {"sender", e.Sender}, {"reply-to", e.ReplyTo}, {"to", e.To}, {"cc", e.Cc}, {"bcc", e.Bcc}} {
			for _, a := range l.list {
				fmt.Fprintf(sb, "%s  %s %q %q %q\n", indent, l.name, a.Name, a.Mailbox, a.Host)
			}
		}
	}
	if !p.Multipart() && p.Message == nil {
		fmt.Fprintf(sb, "%s  = %.60q\n", indent, raw[p.Body.Off:p.Body.End()])
	}
	for i, c := range p.Children {
		dumpPart(sb, raw, c, strings.TrimPrefix(fmt.Sprintf("%s.%d", number, i+1), "."), indent+"  ")
	}
	if p.Message != nil {
		dumpPart(sb, raw, p.Message, number+".", indent+"  ")
	}
}

func TestParseGolden(t *testing.T) {
	for name, b := range mimeFiles(t) {
		t.Run(name, func(t *testing.T) {
			ix := parse(t, b)
			checkIndex(t, b, ix)
			golden(t, name, dump(b, ix))
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs:\n%s\nwant:\n%s", path, got, want)
	}
}

// checkIndex checks what holds for every message.
func checkIndex(t testing.TB, b []byte, ix *Index) {
	t.Helper()
	if ix.Size != int64(len(b)) || ix.Root == nil {
		t.Fatalf("size %d, root %v", ix.Size, ix.Root)
	}
	if r := ix.Root; r.Header.Off != 0 || r.Header.Len != r.Body.Off || r.Body.End() != ix.Size {
		t.Errorf("root is not the whole message: %+v %+v", r.Header, r.Body)
	}
	parts := 0
	var check func(p *Part, in Span, depth int)
	check = func(p *Part, in Span, depth int) {
		parts++
		if depth > maxDepth+1 {
			t.Fatalf("depth %d", depth)
		}
		if p.Header.Off < in.Off || p.Header.End() > p.Body.Off || p.Body.Len < 0 || p.Body.End() > in.End() {
			t.Fatalf("part outside its parent: header %+v body %+v in %+v", p.Header, p.Body, in)
		}
		if n := int64(bytes.Count(b[p.Body.Off:p.Body.End()], newline)); n != p.Lines {
			t.Errorf("body %+v has %d lines, index says %d", p.Body, n, p.Lines)
		}
		if p.Type == "" || p.Subtype == "" {
			t.Errorf("part without a type: %+v", p)
		}
		if p.IsType("multipart", "") != p.Multipart() {
			t.Errorf("%s/%s with %d children", p.Type, p.Subtype, len(p.Children))
		}
		off := p.Body.Off
		for _, c := range p.Children {
			if c.Header.Off < off {
				t.Errorf("child at %d overlaps the one before, which ends at %d", c.Header.Off, off)
			}
			check(c, p.Body, depth+1)
			off = c.Body.End()
		}
		if m := p.Message; m != nil {
			if m.Envelope == nil || m.Header.Off != p.Body.Off || m.Body.End() != p.Body.End() {
				t.Errorf("embedded message %+v %+v does not fill %+v", m.Header, m.Body, p.Body)
			}
			check(m, p.Body, depth+1)
		}
	}
	check(ix.Root, Span{0, ix.Size}, 0)
	if parts > 2*maxParts {
		t.Errorf("%d parts", parts)
	}
}
