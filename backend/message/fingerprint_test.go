package message

import (
	"strings"
	"testing"
)

func fingerprintOf(t *testing.T, text string) string {
	t.Helper()
	text = strings.ReplaceAll(text, "\n", "\r\n")
	r := strings.NewReader(text)
	ix, err := Parse(r, int64(len(text)))
	if err != nil {
		t.Fatal(err)
	}
	sum, err := Fingerprint(r, ix)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

func TestFingerprint(t *testing.T) {
	const plain = "From: a@x\nSubject: caf=?utf-8?q?=C3=A9?=\nMessage-ID: <1@x>\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\nna\u00efve  text\nsecond line\n"
	mixed := func(boundary, attachment string) string {
		return "Subject: s\nContent-Type: multipart/mixed; boundary=" + boundary + "\n\npreamble " + boundary + "\n--" + boundary +
			"\nContent-Type: text/plain\n\nhello\n--" + boundary + "\nContent-Type: application/pdf\nContent-Transfer-Encoding: base64\n\n" + attachment + "\n--" + boundary + "--\n"
	}
	for _, tt := range []struct {
		name, a, b string
		same       bool
	}{
		{"itself", plain, plain, true},
		{"other fields", plain, "X-Status: R\nBcc: c@x\nDate: now\n" + plain, true},
		{"another encoding", plain, strings.NewReplacer("8bit", "quoted-printable", "na\u00efve", "na=C3=AF=\nve").Replace(plain), true},
		{"another charset", plain, strings.NewReplacer("utf-8\n", "iso-8859-1\n", "\u00ef", "\xef").Replace(plain), true},
		{"blanks", plain, strings.Replace(plain, "  text\n", " text \n", 1) + "\n\n", true},
		{"subject in another form", plain, strings.Replace(plain, "caf=?utf-8?q?=C3=A9?=", "caf=?iso-8859-1?q?=E9?=", 1), true},
		{"another subject", plain, strings.Replace(plain, "Subject: ", "Subject: Re ", 1), false},
		{"another text", plain, plain + "P.S.\n", false},
		{"another type", plain, strings.Replace(plain, "text/plain", "text/html", 1), false},
		{"another boundary", mixed("one", "QUJD\nREVG"), mixed("two", "QUJDREVG"), true},
		{"another attachment", mixed("one", "QUJDREVG"), mixed("one", "QUJDREVH"), false},
		{"a blank in an attachment", mixed("one", "QUJD"), mixed("one", "QUIgQw=="), false},
		{"no attachment", mixed("one", "QUJD"), "Subject: s\nContent-Type: text/plain\n\nhello\n", false},
		{"within a message", "Subject: s\nContent-Type: message/rfc822\n\nSubject: inner\n\nhello\n", "Subject: s\nContent-Type: message/rfc822\n\nSubject: inner\n\nhello you\n", false},
		{"an encoding nobody knows", "Content-Transfer-Encoding: x-odd\nContent-Type: image/png\n\nabc\n", "Content-Transfer-Encoding: x-odd\nContent-Type: image/png\n\nabd\n", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := fingerprintOf(t, tt.a) == fingerprintOf(t, tt.b); got != tt.same {
				t.Errorf("same = %v", got)
			}
		})
	}
}
