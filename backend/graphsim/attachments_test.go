package graphsim

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"postern/internal/fuzzcorpus"
)

// put sends a chunk without Authorization.
func (h *harness) put(link string, data []byte, contentRange string, headers ...string) answer {
	return h.do("PUT", link, string(data), append([]string{"Authorization", "", "Content-Type", "", "Content-Range", contentRange}, headers...)...)
}

func TestUpload(t *testing.T) {
	h := newHarness(t, Options{})
	d := h.want(h.do("POST", u(alice, "/messages"), map[string]any{"subject": "big"}), 201, "")
	path := u(alice, "/messages/"+d.str("id")+"/attachments")
	data := bytes.Repeat([]byte("0123456789"), 350_000)
	item := func(n int) map[string]any {
		return map[string]any{"AttachmentItem": map[string]any{"attachmentType": "file", "name": "f.bin", "size": n, "isInline": false}}
	}
	h.want(h.do("POST", path+"/createUploadSession", item(1000)), 400, "ErrorAttachmentSizeShouldNotBeLessThanMinimumSize")
	s := h.want(h.do("POST", path+"/createUploadSession", item(len(data))), 201, "")
	link := s.str("uploadUrl")
	if !strings.HasPrefix(link, h.srv.URL) || fmt.Sprint(s.body["nextExpectedRanges"]) != "[0-]" {
		t.Fatalf("session: %s", s.raw)
	}
	h.want(h.do("PUT", link, string(data[:10]), "Content-Range", "bytes 0-9/3500000"), 401, "InvalidAuthenticationToken")
	h.want(h.put(link, data[2_000_000:], "bytes 2000000-3499999/3500000"), 416, "ErrorInvalidRange")
	h.want(h.put(link, data[:10], "bytes 0-10/3500000"), 400, "ErrorInvalidRequest")
	a := h.want(h.put(link, data[:2_000_000], "bytes 0-1999999/3500000"), 200, "")
	if fmt.Sprint(a.body["NextExpectedRanges"]) != "[2000000]" || a.str("ExpirationDateTime") != s.str("expirationDateTime") {
		t.Errorf("progress: %s", a.raw)
	}
	h.want(h.do("GET", link, nil, "Authorization", ""), 405, "Request_BadRequest")
	a = h.want(h.put(link, data[2_000_000:], "bytes 2000000-3499999/3500000"), 201, "")
	if len(a.raw) != 0 || !strings.Contains(a.header.Get("Location"), "/Attachments('") {
		t.Errorf("end: %v %s", a.header, a.raw)
	}
	list := h.want(h.do("GET", path+"?$select=id,name,size", nil), 200, "")
	if rows := list.rows(); len(rows) != 1 || rows[0]["name"] != "f.bin" || rows[0]["contentBytes"] != nil {
		t.Errorf("list: %.300s", list.raw)
	}
	v := h.want(h.do("GET", path+"/"+list.rows()[0]["id"].(string)+"/$value", nil), 200, "")
	if sha256.Sum256(v.raw) != sha256.Sum256(data) {
		t.Error("uploaded bytes differ")
	}
	h.want(h.put(link, data[:1], "bytes 0-0/3500000"), 404, "ErrorItemNotFound")
	s = h.want(h.do("POST", path+"/createUploadSession", item(len(data))), 201, "")
	h.want(h.do("DELETE", s.str("uploadUrl"), nil, "Authorization", ""), 204, "")
}

func TestAttachments(t *testing.T) {
	h := newHarness(t, Options{})
	d := h.want(h.do("POST", u(alice, "/messages"), map[string]any{
		"subject": "s", "body": map[string]any{"contentType": "html", "content": "<img src=cid:pic>"},
		"attachments": []map[string]any{{"@odata.type": "#microsoft.graph.fileAttachment", "name": "p.png", "contentType": "image/png",
			"contentId": "pic", "isInline": true, "contentBytes": "cG5n"}},
	}), 201, "")
	if d.body["hasAttachments"] != false {
		t.Error("hasAttachments must not count inline ones")
	}
	path := u(alice, "/messages/"+d.str("id")+"/attachments")
	row := h.want(h.do("GET", path, nil), 200, "").rows()[0]
	if _, has := row["contentId"]; has || row["contentBytes"] != "cG5n" {
		t.Errorf("list: %v", row)
	}
	one := h.want(h.do("GET", path+"/"+row["id"].(string), nil), 200, "")
	if one.body["contentId"] != "pic" {
		t.Errorf("single: %s", one.raw)
	}
	h.want(h.do("GET", path+"?$select=contentBytes", nil), 400, "RequestBroker--ParseUri")
	item := h.want(h.do("POST", path, map[string]any{"@odata.type": "#microsoft.graph.itemAttachment", "name": "inner",
		"item": map[string]any{"@odata.type": "microsoft.graph.message", "subject": "inner"}}), 201, "")
	if v := h.do("GET", path+"/"+item.str("id")+"/$value", nil); !strings.Contains(string(v.raw), "Subject: inner") {
		t.Errorf("item attachment: %s", v.raw)
	}
	h.want(h.do("DELETE", path+"/"+row["id"].(string), nil), 204, "")
	h.want(h.do("GET", path+"/"+row["id"].(string), nil), 404, "ErrorItemNotFound")
	h.want(h.do("POST", path, map[string]any{"name": "x", "contentBytes": "AA=="}), 400, "UnableToDeserializePostBody")
	if a := h.do("GET", u(alice, "/messages/"+d.str("id")+"?$expand=attachments($select=id,name)"), nil); len(a.body["attachments"].([]any)) != 1 {
		t.Errorf("$expand=attachments: %s", a.raw)
	}
}

const signedBody = "Content-Type: text/plain;  charset=us-ascii\r\nX-Odd:   spacing\r\n\r\nsigned  text \r\n--not-it\r\n"

func TestMIME(t *testing.T) {
	for _, tt := range []struct {
		name, raw  string
		want, lack []string
		check      func(t *testing.T, a answer)
	}{
		{
			name: "signed parts stay byte for byte",
			raw: "From: a@x.example\r\nTo: b@x.example\r\nSubject: s\r\nMIME-Version: 1.0\r\nContent-Type: multipart/signed; protocol=\"application/pkcs7-signature\";\r\n micalg=sha-256; boundary=\"SIG\"\r\n\r\n--SIG\r\n" +
				signedBody + "\r\n--SIG\r\nContent-Type: application/pkcs7-signature\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA\r\n--SIG--\r\n",
			want: []string{"--SIG\r\n" + signedBody + "\r\n--SIG\r\n", `boundary="SIG"`},
		},
		{
			name: "a multipart gets new boundaries and keeps its content",
			raw: "From: =?iso-8859-1?q?J=FCrgen?= <j@x.example>\r\nTo: b@x.example\r\nSubject: =?utf-8?b?w7xi?=\r\nX-Long: " + strings.Repeat("word ", 40) + "\r\nContent-Type: multipart/mixed; boundary=OLD\r\n\r\npreamble\r\n--OLD\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: 8bit\r\n\r\ngr\xfc\xdfe\r\n--OLD\r\nContent-Type: application/octet-stream; name=x.bin\r\nContent-Disposition: attachment; filename=x.bin\r\nContent-Transfer-Encoding: base64\r\n\r\n" +
				base64.StdEncoding.EncodeToString([]byte("binary\x00data")) + "\r\n--OLD--\r\n",
			want: []string{"gr=FC=DFe", "charset=iso-8859-1", base64.StdEncoding.EncodeToString([]byte("binary\x00data")), "X-MS-Has-Attach: yes"},
			lack: []string{"OLD", "preamble"},
			check: func(t *testing.T, a answer) {
				if a.str("subject") != "üb" || a.str("bodyPreview") != "grüße" || a.body["hasAttachments"] != true {
					t.Errorf("properties: %s", a.raw)
				}
			},
		},
		{
			name: "broken structure is text",
			raw:  "From: x\r\nTo: undisclosed-recipients:;\r\nContent-Type: multipart/mixed\r\n\r\nno boundary\r\n",
			want: []string{"no boundary"},
		},
		{
			name: "html alone",
			raw:  "From: a@x.example\r\nTo: \"B, b\" <b@x.example>\r\nContent-Type: text/html\r\n\r\n<p>hi</p>\r\n",
			want: []string{"<p>hi</p>"},
			check: func(t *testing.T, a answer) {
				if b := a.body["body"].(map[string]any); b["contentType"] != "html" {
					t.Errorf("body: %v", b)
				}
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHarness(t, Options{})
			id := h.AddMessage(alice, "inbox", []byte(tt.raw), MessageSpec{})
			v := string(h.want(h.do("GET", u(alice, "/messages/"+id+"/$value"), nil), 200, "").raw)
			for _, w := range tt.want {
				if !strings.Contains(v, w) {
					t.Errorf("lacks %q:\n%s", w, v)
				}
			}
			for _, w := range tt.lack {
				if strings.Contains(v, w) {
					t.Errorf("has %q:\n%s", w, v)
				}
			}
			for i, line := range strings.Split(v, "\n") {
				if !strings.HasSuffix(line, "\r") && line != "" {
					t.Errorf("line %d ends in bare LF", i)
				}
			}
			if again := string(h.MIME(alice, id)); again != v {
				t.Error("a second reading differs without MutableMIME")
			}
			if tt.check != nil {
				tt.check(t, h.do("GET", u(alice, "/messages/"+id), nil))
			}
		})
	}
	h := newHarness(t, Options{MutableMIME: true})
	id := h.AddMessage(alice, "inbox", mimeOf("a@x.example", alice, "s", "<1@x>"), MessageSpec{})
	if bytes.Equal(h.MIME(alice, id), h.MIME(alice, id)) {
		t.Error("readings are equal with MutableMIME")
	}
}

func TestReplies(t *testing.T) {
	h := newHarness(t, Options{})
	id := h.AddMessage(alice, "inbox", mimeOf(bob, alice+", carol@x.example", "Lunch", "<1@x>"), MessageSpec{})
	h.want(h.do("POST", u(alice, "/messages/"+id+"/replyAll"), map[string]any{"comment": "Yes"}), 202, "")
	d := h.Delivered()
	if len(d) != 1 || strings.Join(d[0].Recipients, ",") != bob+",carol@x.example" || !strings.Contains(string(d[0].MIME), "In-Reply-To: <1@x>") {
		t.Errorf("%+v", d)
	}
	h.want(h.do("POST", u(alice, "/messages/"+id+"/reply"), map[string]any{"comment": "Yes", "message": map[string]any{"body": map[string]any{"content": "x"}}}), 400, "ErrorInvalidRequest")
	f := h.want(h.do("POST", u(alice, "/messages/"+id+"/createForward"), nil), 201, "")
	if f.str("subject") != "FW: Lunch" || f.body["isDraft"] != true {
		t.Errorf("forward: %s", f.raw)
	}
	got := h.Messages(alice, "inbox")[0]
	if got.Extended["0x1081"] != "103" {
		t.Errorf("last verb: %v", got.Extended)
	}
}

func TestNoLength(t *testing.T) {
	h := newHarness(t, Options{})
	id := h.want(h.do("POST", u(alice, "/messages"), b64(mimeOf(alice, bob, "s", "<9@x>"))), 201, "").str("id")
	req, _ := http.NewRequest("POST", h.srv.URL+"/v1.0"+u(alice, "/messages/"+id+"/send"), nil)
	req.Header.Set("Authorization", "Bearer "+h.tok)
	res, err := h.srv.Client().Do(req) // says Content-Length: 0
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 202 {
		t.Errorf("with Content-Length: 0: %d", res.StatusCode)
	}
}

// TestNoLengthAtAll: a POST that says nothing about its body is refused.
func TestNoLengthAtAll(t *testing.T) {
	h := newHarness(t, Options{})
	conn, err := net.Dial("tcp", h.srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /v1.0%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", u(alice, "/messages/x/send"), h.tok)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 411 {
		t.Errorf("status %d, want 411", res.StatusCode)
	}
}

func TestBounce(t *testing.T) {
	h := newHarness(t, Options{Bounces: true})
	h.want(h.do("POST", u(alice, "/sendMail"), b64(mimeOf(alice, "nobody@contoso.example", "lost", "<9@x>"))), 202, "")
	in := h.Messages(alice, "inbox")
	if len(in) != 1 || in[0].Subject != "Undeliverable: lost" || !strings.HasPrefix(in[0].From, "postmaster@") {
		t.Fatalf("Inbox: %+v", in)
	}
	if v := string(h.MIME(alice, in[0].ID)); !strings.Contains(v, "Final-Recipient: rfc822;nobody@contoso.example") || !strings.Contains(v, "multipart/report") {
		t.Errorf("report:\n%s", v)
	}
}

func TestManagedIdentity(t *testing.T) {
	h := newHarness(t, Options{})
	h.AddManagedIdentity(testTenant, testApp)
	link := h.srv.URL + imdsPath + "?api-version=2018-02-01&resource=https%3A%2F%2Fgraph.microsoft.com%2F"
	if a := h.do("GET", link, nil); a.status != 400 || a.body["error"] != "bad_request_102" {
		t.Errorf("without Metadata: %d %s", a.status, a.raw)
	}
	a := h.do("GET", link, nil, "Metadata", "true")
	if a.status != 200 || a.body["expires_in"] != "3599" {
		t.Fatalf("%d %s", a.status, a.raw)
	}
	h.tok = a.str("access_token")
	h.want(h.do("GET", u(alice, "/mailFolders"), nil), 200, "")
}

func FuzzMIME(f *testing.F) {
	f.Add([]byte("Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n\r\nx\r\n--a--"))
	f.Add([]byte("From: a@b\r\nContent-Type: text/plain; charset=utf-16\r\nContent-Transfer-Encoding: base64\r\n\r\nAAA"))
	f.Add([]byte(signedBody))
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		m := messageFromMIME(raw, 1)
		m.folder = sampleMessage.folder
		renderForDelivery(m)
		m.body.preview()
		m.body.root = nil
		renderForDelivery(m)
	})
}

func FuzzFilter(f *testing.F) {
	f.Add("isRead eq true and (subject eq 'a''b' or not startswith(subject,'x'))")
	f.Add("singleValueExtendedProperties/Any(ep: ep/id eq 'Integer 0x1081' and cast(ep/value, Edm.Int32) eq 102)")
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, s string) {
		if e, err := parseFilter(s); err == nil {
			_, _ = e.eval(sampleMessage)
			e.props(nil)
			messageIDEquals(e)
		}
		_, _ = parseExpand(s)
		_, _ = parseQuery(s, listOptions)
		_ = parseKQL(s)
		_, _ = parseExtID(s)
	})
}

// Requests and chunks of more than 4 MB are refused wherever they go, and sessions for files below 3 MB; which MB is an option.
func TestSizeLimits(t *testing.T) {
	for _, tt := range []struct {
		opts         Options
		request, min int
	}{
		{Options{}, 4_000_000, 3_000_000},
		{Options{MaxRequest: 4 << 20, MinUpload: 3 << 20}, 4 << 20, 3 << 20},
	} {
		h := newHarness(t, tt.opts)
		d := h.want(h.do("POST", u(alice, "/messages"), map[string]any{"subject": "big"}), 201, "")
		path := u(alice, "/messages/"+d.str("id")+"/attachments")
		item := func(n int) map[string]any {
			return map[string]any{"AttachmentItem": map[string]any{"attachmentType": "file", "name": "f.bin", "size": n}}
		}
		h.want(h.do("POST", path+"/createUploadSession", item(tt.min-1)), 400, "ErrorAttachmentSizeShouldNotBeLessThanMinimumSize")
		h.want(h.do("POST", path+"/createUploadSession", item(tt.min)), 201, "")
		s := h.want(h.do("POST", path+"/createUploadSession", item(2*tt.request)), 201, "")
		data := bytes.Repeat([]byte{'x'}, tt.request+1)
		h.want(h.put(s.str("uploadUrl"), data, fmt.Sprintf("bytes 0-%d/%d", tt.request, 2*tt.request)), 413, "RequestEntityTooLarge")
		h.want(h.put(s.str("uploadUrl"), data[1:], fmt.Sprintf("bytes 0-%d/%d", tt.request-1, 2*tt.request)), 200, "")
		h.want(h.do("POST", u(alice, "/sendMail"), string(data), "Content-Type", "text/plain"), 413, "RequestEntityTooLarge")
	}
}
