package message

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestEncodeBinary(t *testing.T) {
	const plain = "Subject: x\r\nContent-Transfer-Encoding: 8bit\r\n\r\nh\xc3\xa4\r\n"
	for _, tt := range []struct{ name, in, want string }{
		{"nothing to do", plain, plain},
		{"empty", "", ""},
		{"one part", "A: b\r\nContent-Transfer-Encoding: BINARY\r\nC: d\r\n\r\n\x00\xff\r\n\x00",
			"A: b\r\nContent-Transfer-Encoding: base64\r\nC: d\r\n\r\nAP8NCgA="},
		{"a field of another name with the same end", "X-Content-Transfer-Encoding: binary\r\nContent-Transfer-Encoding: binary\r\n\r\n\x00",
			"X-Content-Transfer-Encoding: binary\r\nContent-Transfer-Encoding: base64\r\n\r\nAA=="},
		{"bare LF", "content-transfer-encoding: binary\n\n\x00", "content-transfer-encoding: base64\n\nAA=="},
		{"multipart", "Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: binary\r\n\r\n--b\r\n\r\ntext\r\n--b\r\n" +
			"Content-Type: image/png\r\nContent-Transfer-Encoding: binary\r\n\r\n\x00\x01\r\n--b--\r\nend",
			"Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n--b\r\n\r\ntext\r\n--b\r\n" +
				"Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\nAAE=\r\n--b--\r\nend"},
		{"within a message", "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: binary\r\n\r\nContent-Transfer-Encoding: binary\r\n\r\n\x00",
			"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\nContent-Transfer-Encoding: base64\r\n\r\nAA=="},
		{"long", "Content-Transfer-Encoding: binary\r\n\r\n" + strings.Repeat("\x00", 58),
			"Content-Transfer-Encoding: base64\r\n\r\n" + strings.Repeat("A", 76) + "\r\nAA=="},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := strings.NewReader(tt.in)
			ix, err := Parse(r, r.Size())
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			if err := EncodeBinary(&out, r, ix); err != nil {
				t.Fatal(err)
			}
			if out.String() != tt.want {
				t.Errorf("got  %q\nwant %q", out.String(), tt.want)
			}
		})
	}
	r := strings.NewReader("A: b\r\n\r\n\x00")
	ix, err := Parse(r, r.Size())
	if err != nil {
		t.Fatal(err)
	}
	if err := EncodeBinary(io.Discard, r, ix); !errors.Is(err, ErrNUL) {
		t.Errorf("NUL in text: %v", err)
	}
}
