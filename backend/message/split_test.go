package message

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

func encode64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// big is base64 text of n bytes in lines.
func big(n int) string {
	line := strings.Repeat("QUJD", 19) + "\r\n"
	return strings.Repeat(line, n/len(line)+1)
}

func TestSplitAttachments(t *testing.T) {
	const head = "From: a@a.example\r\nMIME-Version: 1.0\r\n"
	text := "Content-Type: text/plain\r\n\r\nHello\r\n"
	pdf := func(name string, n int) string {
		return "Content-Type: application/pdf\r\nContent-Disposition: attachment; filename=" + name + "\r\nContent-Transfer-Encoding: base64\r\n\r\n" + big(n)
	}
	multi := func(kind, b string, parts ...string) string {
		return "Content-Type: multipart/" + kind + "; boundary=" + b + "\r\n\r\npre\r\n--" + b + "\r\n" +
			strings.Join(parts, "\r\n--"+b+"\r\n") + "\r\n--" + b + "--\r\nepi\r\n"
	}
	image := "Content-Type: image/png\r\nContent-ID: <i@x>\r\nContent-Transfer-Encoding: base64\r\n\r\n" + big(4_000_000)
	html := "Content-Type: text/html\r\n\r\n<img src=cid:i@x>"
	for _, tt := range []struct {
		name, msg, want string
		skeleton        string // "" not checked
	}{
		{"first of three", head + multi("mixed", "b", text, pdf("one.pdf", 4_000_000), pdf("two.pdf", 100_000)), "one.pdf", ""},
		{"last", head + multi("mixed", "b", text, pdf("one.pdf", 4_000_000)), "one.pdf", head + multi("mixed", "b", text)},
		{"in the middle", head + multi("mixed", "b", text, pdf("one.pdf", 4_000_000), text), "one.pdf", head + multi("mixed", "b", text, text)},
		{"two at the end", head + multi("mixed", "b", text, pdf("one.pdf", 4_000_000), pdf("two.pdf", 5_000_000)), "one.pdf two.pdf", head + multi("mixed", "b", text)},
		{"no text", head + multi("mixed", "b", pdf("one.pdf", 4_000_000), pdf("two.pdf", 5_000_000)), "one.pdf two.pdf", head + multi("mixed", "b", emptyText)},
		{"inline image", head + multi("related", "r", html, image), "attachment-1.png inline i@x", head + multi("related", "r", html)},
		{"nested", head + multi("mixed", "m", multi("alternative", "a", text, multi("related", "r", html, image)), pdf("one.pdf", 4_000_000)), "attachment-1.png inline i@x one.pdf",
			head + multi("mixed", "m", multi("alternative", "a", text, multi("related", "r", html)))},
		{"the message is the attachment", head + pdf("scan.pdf", 5_000_000), "scan.pdf", head + emptyText},
		{"forwarded message", head + multi("mixed", "m", text, "Content-Type: message/rfc822\r\n\r\nSubject: =?utf-8?q?fw=C3=A9?=\r\n\r\n"+big(4_000_000)), "fwé.eml", ""},
		{"small enough", head + multi("mixed", "b", text, pdf("one.pdf", 1_000_000)), "", head + multi("mixed", "b", text, pdf("one.pdf", 1_000_000))},
		{"text is too large", head + "\r\n" + big(4_000_000), "error", ""},
		{"many small ones", head + multi("mixed", "b", text, pdf("a", 40_000), strings.Repeat(pdf("b", 40_000)+"\r\n--b\r\n", 100)+text), "error", ""},
		{"signed", head + multi("signed; protocol=\"application/pgp-signature\"", "s", text, pdf("x", 4_000_000)), "error", ""},
		{"encrypted", head + multi("encrypted", "s", text, pdf("x", 4_000_000)), "error", ""},
		{"opaque S/MIME", head + "Content-Type: application/pkcs7-mime; smime-type=signed-data\r\nContent-Transfer-Encoding: base64\r\n\r\n" + big(4_000_000), "error", ""},
		{"signed inside a list's wrapper", head + multi("mixed", "m", multi("signed", "s", text, pdf("x", 10_000)), pdf("one.pdf", 4_000_000)), "one.pdf", ""},
		{"invitation", head + multi("alternative", "m", text, "Content-Type: text/calendar; method=REQUEST\r\n\r\n"+big(4_000_000)), "error", ""},
		{"not closed", head + "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" + text + "\r\n--b\r\n" + pdf("one.pdf", 4_000_000), "one.pdf", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := []byte(tt.msg)
			ix := parse(t, b)
			s, err := SplitAttachments(bytes.NewReader(b), ix, 50_000, MaxSkeleton)
			if err != nil {
				if !errors.Is(err, ErrIndivisible) || tt.want != "error" {
					t.Fatal(err)
				}
				return
			}
			var got []string
			for _, a := range s.Attachments {
				got = append(got, a.Name)
				if a.Inline {
					got = append(got, "inline", a.ContentID)
				}
				r, err := a.Open()
				if err != nil {
					t.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, r); err != nil || n != a.Size {
					t.Errorf("%s: %d bytes, said %d: %v", a.Name, n, a.Size, err)
				}
			}
			if g := strings.Join(got, " "); g != tt.want {
				t.Fatalf("attachments %q, want %q", g, tt.want)
			}
			var out bytes.Buffer
			if err := s.Skeleton(&out); err != nil || int64(out.Len()) != s.SkeletonSize || out.Len() > MaxSkeleton {
				t.Fatalf("skeleton of %d bytes, said %d: %v", out.Len(), s.SkeletonSize, err)
			}
			if tt.skeleton != "" && out.String() != tt.skeleton {
				t.Errorf("skeleton %.1000q\nwant %.1000q", out.String(), tt.skeleton)
			}
			// What is left has the parts that were there, less those taken out.
			left := parse(t, out.Bytes())
			checkIndex(t, out.Bytes(), left)
			if n, m := leaves(ix.Root), leaves(left.Root); m != n-len(s.Attachments) && m != 1 {
				t.Errorf("%d parts, %d after taking out %d:\n%s", n, m, len(s.Attachments), fmt.Sprint(dump(out.Bytes(), left)))
			}
		})
	}
}

func leaves(p *Part) int {
	if !p.Multipart() {
		return 1
	}
	n := 0
	for _, c := range p.Children {
		n += leaves(c)
	}
	return n
}
