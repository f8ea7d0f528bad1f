package syncer

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"postern/backend/message"
	"postern/internal/fuzzcorpus"
)

func TestTakeApart(t *testing.T) {
	head := "From: \"A, B\" <a@x.example>\r\nTo: =?utf-8?q?J=C3=BCrgen?= <j@x.example>, broken, undisclosed:;\r\nReply-To: nobody\r\nSubject: =?utf-8?q?gr=C3=BCn?=\r\nMessage-ID: <1@x>\r\nMIME-Version: 1.0\r\n"
	part := func(fields, body string) string { return "--b\r\n" + fields + "\r\n\r\n" + body + "\r\n" }
	for _, tt := range []struct {
		name, raw, body string
		html            bool
		files           string // name type inline cid content
	}{
		{"plain", head + "\r\nhello\r\n", "hello\r\n", false, ""},
		{"latin1", head + "Content-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\ngr=FCn\r\n", "grün\r\n", false, ""},
		{"alternative", head + "Content-Type: multipart/alternative; boundary=b\r\n\r\n" +
			part("Content-Type: text/plain", "plain") + part("Content-Type: text/html", "<p>html") + part("Content-Type: text/calendar", "BEGIN:VCALENDAR") + "--b--\r\n",
			"<p>html", true, "invite.ics text/calendar false  BEGIN:VCALENDAR"},
		{"related", head + "Content-Type: multipart/related; boundary=b\r\n\r\n" +
			part("Content-Type: text/html", "<img src=cid:i@x>") + part("Content-Type: image/png; name=i.png\r\nContent-ID: <i@x>\r\nContent-Transfer-Encoding: base64", "aGk=") + "--b--\r\n",
			"<img src=cid:i@x>", true, "i.png image/png true i@x hi"},
		{"mixed", head + "Content-Type: multipart/mixed; boundary=b\r\n\r\n" +
			part("Content-Type: text/plain\r\nContent-Disposition: attachment; filename=notes.txt", "not the text") + part("Content-Type: text/plain", "the text") +
			part("Content-Type: message/rfc822", "Subject: inner\r\n\r\nin") + "--b--\r\n",
			"the text", false, "notes.txt text/plain false  not the text; message.eml message/rfc822 false  Subject: inner\r\n\r\nin"},
		{"only a file", head + "Content-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\naGk=\r\n", "", false, "attachment.pdf application/pdf false  hi"},
		{"unknown encoding", head + "Content-Type: text/plain\r\nContent-Transfer-Encoding: x-odd\r\n\r\nraw\r\n", "raw\r\n", false, ""},
		{"no header", "\r\njust text", "just text", false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := strings.NewReader(tt.raw)
			ix, err := message.Parse(r, r.Size())
			if err != nil {
				t.Fatal(err)
			}
			m, rest, err := takeApart(r, ix, everything)
			if err != nil {
				t.Fatal(err)
			}
			if m.Body != tt.body || m.BodyHTML != tt.html {
				t.Errorf("body = %q html %v, want %q html %v", m.Body, m.BodyHTML, tt.body, tt.html)
			}
			var files []string
			for _, u := range rest {
				c, err := u.open(0)
				if err != nil {
					t.Fatal(err)
				}
				text, _ := io.ReadAll(c)
				if int64(len(text)) != u.meta.Size {
					t.Errorf("%s: size %d, content %d", u.meta.Name, u.meta.Size, len(text))
				}
				files = append(files, fmt.Sprintf("%s %s %v %s %s", u.meta.Name, u.meta.ContentType, u.meta.IsInline, u.meta.ContentID, text))
			}
			if got := strings.Join(files, "; "); got != tt.files {
				t.Errorf("files = %q, want %q", got, tt.files)
			}
			if strings.HasPrefix(tt.raw, "From") {
				if m.Subject != "grün" || len(m.To) != 1 || m.To[0].Name != "Jürgen" || len(m.ReplyTo) != 0 || m.From.Address != "a@x.example" || m.InternetMessageID != "<1@x>" {
					t.Errorf("fields = %+v", m)
				}
			}
		})
	}
}

func TestTakeApartSigned(t *testing.T) {
	raw := "From: a@x.example\r\nContent-Type: multipart/signed; boundary=b; protocol=\"application/pkcs7-signature\"\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nsigned\r\n--b\r\nContent-Type: application/pkcs7-signature; name=smime.p7s\r\n\r\nsig\r\n--b--\r\n"
	r := strings.NewReader(raw)
	ix, err := message.Parse(r, r.Size())
	if err != nil {
		t.Fatal(err)
	}
	m, rest, err := takeApart(r, ix, everything)
	if err != nil || m.Body != "signed" || len(rest) != 2 || rest[0].meta.Name != "original.eml" {
		t.Fatalf("%+v, %v, %v", m, rest, err)
	}
	c, err := rest[0].open(5)
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := io.ReadAll(c); string(text) != raw[5:] {
		t.Errorf("original = %q", text)
	}
}

// What would cost more calls than Exchange takes files is kept as one file.
func TestTakeApartManyFiles(t *testing.T) {
	for n, want := range map[int]int{maxFiles: maxFiles, maxFiles + 1: 1} {
		raw := "From: a@x.example\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ntext\r\n" +
			strings.Repeat("--b\r\nContent-Type: image/png\r\n\r\nx\r\n", n) + "--b--\r\n"
		r := strings.NewReader(raw)
		ix, err := message.Parse(r, r.Size())
		if err != nil {
			t.Fatal(err)
		}
		m, rest, err := takeApart(r, ix, everything)
		if err != nil || m.Body != "text" || len(rest) != want {
			t.Fatalf("%d files become %d, %q, %v", n, len(rest), m.Body, err)
		}
		if want == 1 {
			c, err := rest[0].open(0)
			if err != nil {
				t.Fatal(err)
			}
			if text, _ := io.ReadAll(c); string(text) != raw || rest[0].meta.Name != "original.eml" {
				t.Errorf("%s of %d bytes is not the message", rest[0].meta.Name, len(text))
			}
		}
	}
}

func FuzzTakeApart(f *testing.F) {
	f.Add("From: a@b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--")
	f.Add("Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\nContent-Type: text/html; charset=utf-7\r\n\r\nx")
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, raw string) {
		r := strings.NewReader(raw)
		ix, err := message.Parse(r, r.Size())
		if err != nil {
			t.Fatal(err)
		}
		_, rest, err := takeApart(r, ix, everything)
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range rest {
			if u.meta.Name == "" {
				t.Fatal("attachment without a name")
			}
		}
	})
}

func TestHeaderBlock(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"A: b\r\nC: d\r\n\r\n", "A: b\r\nC: d\r\n\r\n"},
		{"A: b\nC: d\n folded", "A: b\r\nC: d\r\n folded\r\n\r\n"},
		{"Microsoft Mail Internet Headers Version 2.0\r\nA: b\r\n\r\nB: c\r\n", "A: b\r\nB: c\r\n\r\n"},
		{"", "\r\n"},
	} {
		if got := string(headerBlock(tt.in)); got != tt.want {
			t.Errorf("headerBlock(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}
