package imapd

import (
	"strings"
	"testing"
	"unicode/utf8"

	"postern/backend/graphsim"
	"postern/internal/fuzzcorpus"
)

func TestPreviewText(t *testing.T) {
	for _, tt := range []struct{ name, message, want string }{
		{"plain", "Subject: x\r\n\r\nHello\tthere,\r\n\r\n  how are you?\r\n", "Hello there, how are you?"},
		{"empty", "Subject: x\r\n\r\n", ""},
		{"quotes and signature", "\r\n> asked\r\n> more\r\nMy answer.\r\n-- \r\nMe, Inc.\r\n", "My answer."},
		{"only quotes", "\r\n> asked\r\n>> before\r\n", "asked before"},
		{"encoded", "Content-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nGr=FC=DFe =\r\naus K=F6ln\r\n", "Grüße aus Köln"},
		{"html", "Content-Type: text/html\r\n\r\n<html><head><title>T</title><style>p { color: red }</style></head><body><p>One &amp; <b>t</b>wo</p><div>three</div><br>four<script>no()</script></body></html>",
			"One & two three four"},
		{"hidden characters", "Content-Type: text/html; charset=utf-8\r\n\r\n<div>A&zwnj;&nbsp;&zwnj;&nbsp;&#847;&#8203;&shy;B</div>", "A\u200c B"},
		{"alternative", "Content-Type: multipart/alternative; boundary=x\r\n\r\n--x\r\n\r\nplain\r\n--x\r\nContent-Type: text/html\r\n\r\n<p>html\r\n--x--\r\n", "plain"},
		{"empty alternative", "Content-Type: multipart/alternative; boundary=x\r\n\r\n--x\r\n\r\n \r\n--x\r\nContent-Type: text/html\r\n\r\n<p>html\r\n--x--\r\n", "html"},
		{"attachment", "Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Disposition: attachment\r\n\r\nfile\r\n--x\r\nContent-Type: image/png\r\n\r\npng\r\n--x\r\n\r\ntext\r\n--x--\r\n", "text"},
		{"no text", "Content-Type: application/pdf\r\n\r\n%PDF\r\n", ""},
		{"embedded", "Content-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\ninner\r\n", ""},
		{"long", "\r\n" + strings.Repeat("wörd ", 1000), strings.TrimSpace(strings.Repeat("wörd ", 40))},
		{"long word", "\r\n" + strings.Repeat("ö", 3000), strings.Repeat("ö", maxPreview)},
		{"never ending style", "Content-Type: text/html\r\n\r\n<style>" + strings.Repeat("x", 1<<20), ""},
		{"never ending tag", "Content-Type: text/html\r\n\r\nseen <a " + strings.Repeat("x", 1<<20), "seen"},
	} {
		got, err := previewText(newContent(t, []byte(tt.message)))
		if err != nil || got != tt.want {
			t.Errorf("%s: %q, %v, want %q", tt.name, got, err, tt.want)
		}
	}
}

func FuzzPreviewText(f *testing.F) {
	f.Add([]byte("Content-Type: text/html\r\n\r\n<p>a &amp; b</p>"))
	_, files := mimeMessages(f)
	for _, b := range files {
		f.Add(b)
	}
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := previewText(newContent(t, b))
		if err != nil {
			t.Fatal(err)
		}
		if n := utf8.RuneCountInString(got); n > maxPreview || !utf8.ValidString(got) || strings.TrimSpace(got) != got {
			t.Fatalf("%d characters: %q", n, got)
		}
	})
}

// Without the bytes of the messages Graph's own previews are told, and LAZY asks for nothing.
func TestPreviewFromGraph(t *testing.T) {
	for _, n := range []int{3, 60} {
		w, _ := farWorld(t, n)
		if err := w.sim.Inject(bodyRequests("")); err != nil {
			t.Fatal(err)
		}
		c := w.login("alice")
		c.ok("SELECT Archive")
		if lines := c.ok("FETCH 1:* (PREVIEW (LAZY) UID)"); len(lines) != n || lines[0] != "* 1 FETCH (PREVIEW NIL UID 1)" {
			t.Errorf("lazy: %q", lines)
		}
		lines := c.ok("FETCH 1:* PREVIEW")
		if len(lines) != n {
			t.Fatalf("%d previews, want %d", len(lines), n)
		}
		for _, l := range lines {
			if !strings.Contains(l, `PREVIEW "This is text `) || !strings.HasSuffix(l, `in it.")`) {
				t.Error(l)
			}
		}
		// What cannot be read is an error, not a missing preview.
		if err := w.sim.Inject(graphsim.Fault{Status: 403, Code: "ErrorAccessDenied", Message: "Access is denied."}); err != nil {
			t.Fatal(err)
		}
		if _, tagged := c.do("FETCH 1:* PREVIEW"); !strings.HasPrefix(tagged, "NO ") {
			t.Error(tagged)
		}
	}
}
