package backend

import (
	"bytes"
	"encoding/base64"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"postern/backend/graphsim"
)

// sends keeps the MIME that goes to Graph, to be sent or to become a draft, as it is on the wire.
type sends struct {
	next http.RoundTripper
	mu   sync.Mutex
	mime []string
}

func watchSends(cfg *Config) *sends {
	s := &sends{next: cfg.HTTPClient.Transport}
	cfg.HTTPClient = &http.Client{Transport: s}
	return s
}

func (s *sends) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "text/plain" {
		return s.next.RoundTrip(r)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	r.Body.Close()
	mime, err := base64.StdEncoding.DecodeString(string(body))
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.mime = append(s.mime, string(mime))
	s.mu.Unlock()
	r = r.Clone(r.Context())
	r.Body = io.NopCloser(bytes.NewReader(body))
	return s.next.RoundTrip(r)
}

func (s *sends) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.mime
	s.mime = nil
	return out
}

// Each of these has been damaged by one mail gateway or another. What Graph gets is what was submitted, but for the
// fields the envelope demands and those that were missing.
var untouched = map[string]string{
	"S/MIME signed": "Content-Type: multipart/signed; protocol=\"application/pkcs7-signature\"; micalg=sha-256;\r\n\tboundary=\"sig\"\r\nMIME-Version: 1.0\r\n\r\n" +
		"This is an S/MIME signed message\r\n\r\n--sig\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGr\u00fc\u00dfe  \r\n \t\r\ntrailing blanks count \r\n\r\n--sig\r\n" +
		"Content-Type: application/pkcs7-signature; name=smime.p7s\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename=smime.p7s\r\n\r\nMIAGCSqGSIb3DQEHAqCAMIACAQExDzANBglghkgBZQMEAgEFADCABgkqhkiG9w0BBwEAAA==\r\n\r\n--sig--\r\n",
	"S/MIME encrypted": "MIME-Version: 1.0\r\nContent-Type: application/pkcs7-mime; smime-type=enveloped-data; name=\"smime.p7m\"\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename=\"smime.p7m\"\r\n\r\nMIAGCSqGSIb3DQEHA6CAMIACAQAxggFsMIIBaAIBADBQMEQxCzAJBgNVBAYTAkRF\r\nAAAA\r\n",
	"PGP/MIME signed": "MIME-Version: 1.0\r\nContent-Type: multipart/signed; micalg=pgp-sha512; protocol=\"application/pgp-signature\"; boundary=\"pgp\"\r\n\r\n--pgp\r\nContent-Type: text/plain\r\n\r\n- dash\r\nFrom the start of a line\r\n--pgp\r\n" +
		"Content-Type: application/pgp-signature; name=\"signature.asc\"\r\n\r\n-----BEGIN PGP SIGNATURE-----\r\n\r\niHUEARYKAB0WIQ==\r\n-----END PGP SIGNATURE-----\r\n\r\n--pgp--\r\n",
	"PGP/MIME encrypted":    "MIME-Version: 1.0\r\nContent-Type: multipart/encrypted; protocol=\"application/pgp-encrypted\"; boundary=\"enc\"\r\n\r\n--enc\r\nContent-Type: application/pgp-encrypted\r\n\r\nVersion: 1\r\n\r\n--enc\r\nContent-Type: application/octet-stream\r\n\r\n-----BEGIN PGP MESSAGE-----\r\n\r\nhF4D\r\n-----END PGP MESSAGE-----\r\n\r\n--enc--\r\n",
	"alternative":           "MIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\npreamble\r\n--b\r\nContent-Type: text/plain; charset=iso-8859-15\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n100 =A4=\r\n\r\n--b\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>100 \u20ac</p>\r\n--b--\r\nepilogue\r\n",
	"calendar invitation":   "MIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary=c\r\n\r\n--c\r\nContent-Type: text/plain\r\n\r\nMeeting\r\n--c\r\nContent-Type: text/calendar; method=REQUEST; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\nBEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\nBEGIN:VEVENT\r\nUID:1\r\nSUMMARY;LANGUAGE=de:Besprechung\r\n  fortgesetzt\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n--c--\r\n",
	"inline image":          "MIME-Version: 1.0\r\nContent-Type: multipart/related; boundary=r; type=\"text/html\"\r\n\r\n--r\r\nContent-Type: text/html\r\n\r\n<img src=\"cid:a@b\">\r\n--r\r\nContent-Type: image/gif\r\nContent-ID: <a@b>\r\nContent-Transfer-Encoding: base64\r\n\r\nR0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7\r\n--r--\r\n",
	"nameless attachments":  "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=n\r\n\r\n--n\r\n\r\nno type at all\r\n--n\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\nJVBERi0=\r\n--n\r\nContent-Type: text/calendar\r\nContent-Disposition: attachment\r\n\r\nBEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n--n\r\nContent-Disposition: attachment; filename\r\n\r\nmalformed disposition\r\n--n--\r\n",
	"8-bit header and body": "Subject: Gr\u00fc\u00dfe\r\nX-Latin: \xe4\xf6\xfc\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xe4\xf6\xfc \xff\xfe\r\n",
	"binary part":           "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n\x00\x01\x02\x80\xff\x00\r\n--x--\r\n",
	"long lines":            "Subject: long\r\nX-Long: " + strings.Repeat("word ", 1000) + "end\r\n\r\n" + strings.Repeat("x", 1<<20) + "\r\n" + strings.Repeat("y", 5000) + "\r\n",
	"own fields":            "List-Id: <l.example>\r\nList-Unsubscribe: <mailto:u@l.example>,\r\n <https://l.example/u>\r\nAuto-Submitted: auto-generated\r\nX-Priority: 1\r\nDKIM-Signature: v=1; a=rsa-sha256; d=contoso.example; s=s; h=from:to;\r\n\tbh=AAAA=; b=BBBB\r\n\tCCCC=\r\nReceived: from a by b; Mon, 1 Jan 2024 00:00:00 +0000\r\nReceived: from c by d; Mon, 1 Jan 2024 00:00:00 +0000\r\nReferences: <1@x>\r\n <2@x>\r\nIn-Reply-To: <2@x>\r\nsubject: lower case name\r\n\r\nbody\r\n",
	"resent":                "Resent-From: bob@contoso.example\r\nResent-To: carl@fabrikam.example\r\nResent-Cc: dora@fabrikam.example\r\nResent-Date: Mon, 1 Jan 2024 00:00:00 +0000\r\nSubject: resent\r\n\r\nbody\r\n",
	"odd charsets":          "Subject: =?iso-2022-jp?B?GyRCJUYlOSVIGyhC?= =?x-unknown?Q?=FF?=\r\nContent-Type: text/plain; charset=iso-2022-jp\r\nContent-Transfer-Encoding: 7bit\r\n\r\n\x1b$B%F%9%H\x1b(B\r\n",
	"dots and From":         "Subject: dots\r\n\r\n.\r\n..\r\n.x\r\nFrom here\r\n>From there\r\n\r\n\r\n",
	"empty body":            "Subject: empty\r\n\r\n",
	"message in message":    "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\nContent-Type: message/rfc822\r\n\r\nFrom: inner@x\r\nTo: bob@contoso.example, other@y\r\nBcc: secret@x\r\nSubject: inner\r\nMessage-ID: <inner@x>\r\n\r\ninner body\r\n\r\n--m--\r\n",
}

func TestContentUntouched(t *testing.T) {
	_, url := newSim(t, graphsim.Options{})
	cfg := testConfig(t, url, t.TempDir())
	wire := watchSends(&cfg)
	b, _ := start(t, cfg)
	login := loginOf(t, b, alice)
	head := "From: Alice <alice@contoso.example>\r\nTo: Bob <bob@contoso.example>\r\nDate: Mon, 1 Jan 2024 00:00:00 +0000\r\nMessage-ID: <m@x>\r\n"
	for name, rest := range untouched {
		t.Run(name, func(t *testing.T) {
			id, err := submit(t, b, login, envelope(bob), head+rest)
			if err != nil {
				t.Fatal(err)
			}
			got := wire.take()
			if len(got) != 1 {
				t.Fatalf("%d messages went to Graph", len(got))
			}
			// Nothing but our mark is added, at the end of the header.
			fields, body, _ := strings.Cut(head+rest, "\r\n\r\n")
			want := fields + "\r\nX-Postern-Id: " + id + "\r\n\r\n" + body
			if got[0] != want {
				t.Errorf("Graph got\n%.2000q\nwant\n%.2000q", got[0], want)
			}
		})
	}
}

// The envelope decides who gets a message, whatever the header says.
func TestEnvelopeRules(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	cfg := testConfig(t, url, t.TempDir())
	wire := watchSends(&cfg)
	b, _ := start(t, cfg)
	login := loginOf(t, b, alice)
	for _, tt := range []struct {
		name   string
		header string
		rcpts  []string
		want   []string // fields Graph gets
		not    []string
	}{
		{"envelope only", "", []string{"a@y.example", "b@y.example"}, []string{"Bcc: a@y.example, b@y.example\r\n"}, []string{"To:"}},
		{"header only", "To: c@y.example\r\nCc: d@y.example\r\n", []string{"a@y.example"},
			[]string{"X-Original-To: c@y.example\r\n", "X-Original-Cc: d@y.example\r\n", "Bcc: a@y.example\r\n"}, []string{"\r\nTo:", "\r\nCc:"}},
		{"both", "To: a@y.example, c@y.example\r\n", []string{"a@y.example"}, []string{"\r\nTo: a@y.example\r\n", "X-Original-To: a@y.example, c@y.example\r\n"}, []string{"Bcc"}},
		{"Bcc present", "To: a@y.example\r\nBcc: b@y.example\r\n", []string{"a@y.example", "b@y.example"}, []string{"\r\nTo: a@y.example\r\n", "\r\nBcc: b@y.example\r\n"}, []string{"X-Original"}},
		{"Bcc not in the envelope", "To: a@y.example\r\nBcc: b@y.example\r\n", []string{"a@y.example"}, []string{"\r\nTo: a@y.example\r\n"}, []string{"b@y.example", "Bcc"}},
		{"several Bcc fields", "Bcc: a@y.example\r\nTo: c@y.example\r\nBCC: b@y.example\r\n", []string{"a@y.example", "b@y.example", "c@y.example", "d@y.example"},
			[]string{"\r\nBcc: a@y.example, b@y.example, d@y.example\r\n", "\r\nTo: c@y.example\r\n"}, []string{"BCC:"}},
		{"empty Bcc", "To: a@y.example\r\nBcc: \r\n", []string{"a@y.example"}, []string{"\r\nTo: a@y.example\r\n"}, []string{"Bcc"}},
		{"Resent fields are no recipients", "To: a@y.example\r\nResent-To: r@y.example\r\nResent-Bcc: s@y.example\r\n", []string{"r@y.example"},
			[]string{"X-Original-To: a@y.example\r\n", "\r\nResent-To: r@y.example\r\n", "\r\nBcc: r@y.example\r\n"}, []string{"\r\nTo:", "Resent-Bcc"}},
		{"empty group", "To: undisclosed-recipients:;\r\n", []string{"a@y.example"}, []string{"\r\nBcc: a@y.example\r\n"}, nil},
		{"group", "To: Team: a@y.example, b@y.example;\r\n", []string{"a@y.example"}, []string{"a@y.example"}, []string{"\r\nTo: Team: a@y.example, b@y.example;\r\n"}},
		{"malformed addresses", "To: not an address, a@y.example, <>, @, x@\r\n", []string{"a@y.example"}, []string{"a@y.example"}, nil},
		{"no blank after the comma", "To: a@y.example,b@y.example\r\n", []string{"a@y.example", "b@y.example"}, []string{"\r\nTo: a@y.example,b@y.example\r\n"}, []string{"Bcc", "X-Original"}},
		{"name with a comma", "To: \"Doe, Jane\" <a@y.example>\r\n", []string{"a@y.example"}, []string{"\r\nTo: \"Doe, Jane\" <a@y.example>\r\n"}, []string{"Bcc", "X-Original"}},
		{"letter case", "To: A@Y.Example\r\n", []string{"a@y.example"}, []string{"\r\nTo: A@Y.Example\r\n"}, []string{"Bcc", "X-Original"}},
		{"two To fields", "To: a@y.example\r\nTo: b@y.example\r\n", []string{"a@y.example", "b@y.example"}, []string{"a@y.example", "b@y.example"}, []string{"Bcc"}},
		{"twice in the envelope", "To: a@y.example\r\n", []string{"a@y.example", "A@y.example"}, []string{"\r\nTo: a@y.example\r\n"}, []string{"Bcc"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sim.ResetDeliveries()
			if _, err := submit(t, b, login, envelope(tt.rcpts...), "From: alice@contoso.example\r\n"+tt.header+"\r\nbody\r\n"); err != nil {
				t.Fatal(err)
			}
			got := wire.take()
			if len(got) != 1 {
				t.Fatalf("%d messages went to Graph", len(got))
			}
			for _, w := range tt.want {
				if !strings.Contains(got[0], w) {
					t.Errorf("%q is missing from\n%s", w, got[0])
				}
			}
			for _, n := range tt.not {
				if strings.Contains(got[0], n) {
					t.Errorf("%q is in\n%s", n, got[0])
				}
			}
			want := map[string]bool{}
			for _, r := range tt.rcpts {
				want[strings.ToLower(r)] = true
			}
			for _, d := range sim.Delivered() {
				for _, r := range d.Recipients {
					if !want[strings.ToLower(r)] {
						t.Errorf("%s got it", r)
					}
					delete(want, strings.ToLower(r))
				}
			}
			if len(want) > 0 {
				t.Errorf("%v did not get it", want)
			}
		})
	}
}
