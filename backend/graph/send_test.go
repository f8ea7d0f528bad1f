package graph

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func encoded(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func TestMIMEOut(t *testing.T) {
	big := strings.Repeat("0123456789abcdef\r\n", 60_000)
	c, s, _ := served(t, func(n int, w http.ResponseWriter, r *http.Request, body string) { done(w, r) })
	if _, err := c.CreateFromMIME(t.Context(), source(big), int64(len(big))); err != nil {
		t.Error(err)
	}
	if err := c.SendMIME(t.Context(), source(big), int64(len(big))); err != nil {
		t.Error(err)
	}
	if _, err := c.ImportMIME(t.Context(), "f", source(big), int64(len(big))); err != nil {
		t.Error(err)
	}
	for i, want := range []string{"/v1.0/users/alice%40contoso.example/messages", "/v1.0/users/alice%40contoso.example/sendMail", "/beta/users/alice%40contoso.example/mailFolders/f/importMime"} {
		r := s.seen()[i]
		if r.URI != want || r.Header.Get("Content-Type") != "text/plain" || r.Body != encoded([]byte(big)) || r.Length != int64(len(r.Body)) {
			t.Errorf("%s %s, %d bytes, length %d", r.URI, r.Header.Get("Content-Type"), len(r.Body), r.Length)
		}
	}
}

// A source of another size than announced, or that fails, is never sent as a whole request, and never asked again.
func TestSourceTrouble(t *testing.T) {
	broken := errors.New("spool unreadable")
	for name, open := range map[string]func() (io.ReadCloser, error){
		"short":      source(mail[:10]),
		"long":       source(mail + "x"),
		"empty":      source(""),
		"not opened": func() (io.ReadCloser, error) { return nil, broken },
		"breaks": func() (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(strings.NewReader(mail[:5]), failing{broken})), nil
		},
		"breaks later": func() (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(strings.NewReader(mail), failing{broken})), nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, s, _ := served(t, func(n int, w http.ResponseWriter, r *http.Request, body string) { done(w, r) })
			err := c.SendMIME(t.Context(), open, int64(len(mail)))
			if err == nil || Unclear(err) || IsTemporary(err) || !errors.Is(err, errSize) && !errors.Is(err, broken) {
				t.Errorf("%v", err)
			}
			for _, r := range s.seen() {
				if len(r.Body) == int(EncodedSize(int64(len(mail)))) {
					t.Errorf("sent %q", r.Body)
				}
			}
		})
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestNewMessageJSON(t *testing.T) {
	read := true
	b, err := json.Marshal(NewMessage{
		Subject: "s", Body: "<p>", BodyHTML: true, From: &Recipient{"N", "a@b"}, To: []Recipient{{"", "c@d"}}, InternetMessageID: "<m@x>",
		Headers: []Header{{"x-a", "1"}}, IsRead: &read, Flag: FlagFlagged, Categories: []string{"k"}, ReadReceipt: true,
		Extended:    map[PropertyID]string{PropFlags: "4", PropDeliveryTime: "2020-01-01T00:00:00Z"},
		Attachments: []NewAttachment{{Name: "f", ContentType: "text/plain", ContentID: "c", IsInline: true, Content: []byte("hi")}, {Name: "empty"}},
	})
	want := `{"attachments":[{"@odata.type":"#microsoft.graph.fileAttachment","contentBytes":"aGk=","contentId":"c","contentType":"text/plain","isInline":true,"name":"f"},` +
		`{"@odata.type":"#microsoft.graph.fileAttachment","contentBytes":"","name":"empty"}],"body":{"contentType":"html","content":"\u003cp\u003e"},"categories":["k"],` +
		`"flag":{"flagStatus":"flagged"},"from":{"emailAddress":{"name":"N","address":"a@b"}},"internetMessageHeaders":[{"name":"x-a","value":"1"}],` +
		`"internetMessageId":"\u003cm@x\u003e","isRead":true,"isReadReceiptRequested":true,"singleValueExtendedProperties":[{"id":"Integer 0x0E07","value":"4"},` +
		`{"id":"SystemTime 0x0E06","value":"2020-01-01T00:00:00Z"}],"subject":"s","toRecipients":[{"emailAddress":{"address":"c@d"}}]}`
	if err != nil || string(b) != want {
		t.Errorf("%v\n%s\n%s", err, b, want)
	}
	none, off := []string(nil), false
	b, err = json.Marshal(Update{IsRead: &off, Categories: &none, To: &[]Recipient{}, Extended: map[PropertyID]string{PropLastVerb: "102"}})
	if want := `{"categories":[],"isRead":false,"singleValueExtendedProperties":[{"id":"Integer 0x1081","value":"102"}],"toRecipients":[]}`; err != nil || string(b) != want {
		t.Errorf("%v\n%s\n%s", err, b, want)
	}
	if b, _ := json.Marshal(Update{}); string(b) != "{}" {
		t.Errorf("empty update is %s", b)
	}
}

func TestIfMatch(t *testing.T) {
	c, s, _ := bubbled(func(n int, w http.ResponseWriter, r *http.Request, body string) {
		refuse(w, 412, "ErrorIrresolvableConflict")
	})
	_, err := c.Update(t.Context(), "m", Update{IfMatch: `W/"k"`})
	if StatusOf(err) != 412 || len(s.seen()) != 1 || s.seen()[0].Header.Get("If-Match") != `W/"k"` {
		t.Errorf("%v, %v", err, s.seen())
	}
}

// PermanentDelete may be asked again after an unclear end: what is gone then is what was wanted.
func TestPermanentDelete(t *testing.T) {
	for _, tt := range []struct {
		name     string
		statuses []int
		ok       bool
	}{
		{"clear", []int{204}, true}, {"gone before", []int{404}, false}, {"unclear, then gone", []int{504, 404}, true}, {"unclear twice", []int{504, 504}, false},
	} {
		bubble(t, func(t *testing.T) {
			c, s, _ := bubbled(func(n int, w http.ResponseWriter, r *http.Request, body string) { w.WriteHeader(tt.statuses[n]) })
			if err := c.PermanentDelete(t.Context(), "m"); (err == nil) != tt.ok || len(s.seen()) != len(tt.statuses) {
				t.Errorf("%s: %v, %d requests", tt.name, err, len(s.seen()))
			}
		})
	}
}

// sessions is an upload session that can misbehave.
type sessions struct {
	t       *testing.T
	got     []byte
	total   int
	deleted bool
	puts    int
	gets    int
	begun   int
	hook    func(s *sessions, n int, w http.ResponseWriter, r *http.Request, body string) bool // true: answered
	ranges  func(at int) string                                                                // of a PUT's answer
}

func (s *sessions) answer(n int, w http.ResponseWriter, r *http.Request, body string) {
	if strings.HasSuffix(r.URL.Path, "createUploadSession") {
		item := mustJSON(s.t, body)["AttachmentItem"].(map[string]any)
		if item["attachmentType"] != "file" || int(item["size"].(float64)) != s.total {
			s.t.Errorf("session for %v", item)
		}
		s.begun++
		s.got = nil
		reply(w, 201, `{"uploadUrl":"http://`+r.Host+`/upload?authtoken=permission","expirationDateTime":"2026-01-01T00:00:00Z","nextExpectedRanges":["0-"]}`)
		return
	}
	if r.Header.Get("Authorization") != "" || r.Header.Get("Prefer") != "" {
		s.t.Errorf("%s of the session with a token", r.Method)
	}
	if s.hook != nil && s.hook(s, n, w, r, body) {
		return
	}
	switch r.Method {
	case http.MethodDelete:
		s.deleted = true
		w.WriteHeader(204)
	case http.MethodGet:
		s.gets++
		reply(w, 200, fmt.Sprintf(`{"nextExpectedRanges":["%d-%d"]}`, len(s.got), s.total-1))
	case http.MethodPut:
		s.puts++
		s.take(w, r, body)
	}
}

func (s *sessions) take(w http.ResponseWriter, r *http.Request, body string) {
	var from, to, total int
	if _, err := fmt.Sscanf(r.Header.Get("Content-Range"), "bytes %d-%d/%d", &from, &to, &total); err != nil || to-from+1 != len(body) || total != s.total {
		s.t.Errorf("Content-Range %q with %d bytes", r.Header.Get("Content-Range"), len(body))
	}
	if len(body) > 4_000_000 {
		s.t.Errorf("piece of %d bytes", len(body))
	}
	if from != len(s.got) {
		refuse(w, 416, "InvalidRange")
		return
	}
	s.got = append(s.got, body...)
	if len(s.got) == s.total {
		w.Header().Set("Location", "https://outlook.office.com/api/v2.0/Users('u')/Messages('m')/Attachments('AA%3D')")
		w.WriteHeader(201)
		return
	}
	rng := `["` + fmt.Sprint(len(s.got)) + `"]`
	if s.ranges != nil {
		rng = s.ranges(len(s.got))
	}
	reply(w, 200, `{"ExpirationDateTime":"x","NextExpectedRanges":`+rng+`}`)
}

func TestUploadSession(t *testing.T) {
	content := strings.Repeat("0123456789", 1_000_000)
	for _, tt := range []struct {
		name   string
		hook   func(s *sessions, n int, w http.ResponseWriter, r *http.Request, body string) bool
		ranges func(int) string
		ok     bool
		// unclear: the file may be whole
		unclear bool
	}{
		{name: "plain", ok: true},
		{name: "other spelling", ranges: func(at int) string { return fmt.Sprintf(`["%d-9999999"]`, at) }, ok: true},
		{name: "nothing told", ranges: func(int) string { return `[]` }, ok: true},
		{name: "part of a piece kept", hook: func(s *sessions, n int, w http.ResponseWriter, r *http.Request, body string) bool {
			if n != 1 {
				return false
			}
			s.got = append(s.got, body[:1000]...)
			reply(w, 200, `{"NextExpectedRanges":["1000-"]}`)
			return true
		}, ok: true},
		{name: "answer lost", hook: func(s *sessions, n int, w http.ResponseWriter, r *http.Request, body string) bool {
			if n != 2 {
				return false
			}
			s.got = append(s.got, body...)
			w.WriteHeader(504)
			return true
		}, ok: true},
		{name: "piece lost", hook: func(s *sessions, n int, w http.ResponseWriter, r *http.Request, body string) bool {
			if n != 2 {
				return false
			}
			w.WriteHeader(502)
			return true
		}, ok: true},
		{name: "throttled", hook: func(s *sessions, n int, w http.ResponseWriter, r *http.Request, body string) bool {
			if n != 2 {
				return false
			}
			w.Header().Set("Retry-After", "2.5")
			refuse(w, 429, "TooManyRequests")
			return true
		}, ok: true},
		{name: "state not told", hook: func(s *sessions, n int, w http.ResponseWriter, r *http.Request, body string) bool {
			if r.Method == http.MethodGet {
				w.WriteHeader(405)
				return true
			}
			if n == 2 {
				w.WriteHeader(502)
				return true
			}
			return false
		}, ok: true},
		{name: "answer lost, state not told", hook: func(s *sessions, n int, w http.ResponseWriter, r *http.Request, body string) bool {
			if r.Method == http.MethodGet {
				w.WriteHeader(405)
				return true
			}
			if n == 2 {
				s.got = append(s.got, body...)
				w.WriteHeader(504)
				return true
			}
			return false
		}, ok: true},
		{name: "session ended", hook: func(s *sessions, n int, w http.ResponseWriter, r *http.Request, body string) bool {
			if n == 2 || n == 3 && r.Method == http.MethodGet {
				refuse(w, 404, "ErrorItemNotFound")
				return true
			}
			return false
		}, ok: true},
		{name: "last answer lost", hook: func(s *sessions, n int, w http.ResponseWriter, r *http.Request, body string) bool {
			if r.Method == http.MethodGet {
				w.WriteHeader(405)
				return true
			}
			if r.Method == http.MethodPut && len(s.got) == s.total {
				refuse(w, 404, "ErrorItemNotFound")
				return true
			}
			if r.Method == http.MethodPut && len(s.got)+len(body) == s.total {
				s.got = append(s.got, body...)
				w.WriteHeader(504)
				return true
			}
			return false
		}, unclear: true},
		{name: "refused", hook: func(s *sessions, n int, w http.ResponseWriter, r *http.Request, body string) bool {
			if r.Method == http.MethodPut {
				refuse(w, 403, "ErrorAccessDenied")
			}
			return r.Method == http.MethodPut
		}},
		{name: "never gets on", hook: func(s *sessions, n int, w http.ResponseWriter, r *http.Request, body string) bool {
			if r.Method == http.MethodPut {
				reply(w, 200, `{"nextExpectedRanges":["0-"]}`)
			}
			return r.Method == http.MethodPut
		}},
		{name: "always broken", hook: func(s *sessions, n int, w http.ResponseWriter, r *http.Request, body string) bool {
			if r.Method == http.MethodPut {
				w.WriteHeader(500)
			}
			return r.Method == http.MethodPut
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := &sessions{t: t, total: len(content), hook: tt.hook, ranges: tt.ranges}
				c, svc, _ := bubbled(s.answer)
				id, err := c.UploadAttachment(t.Context(), "m", NewAttachment{Name: "f.bin", Size: int64(len(content))}, func(at int64) (io.ReadCloser, error) {
					return io.NopCloser(strings.NewReader(content[at:])), nil
				})
				if tt.ok {
					if err != nil || id != "AA=" || string(s.got) != content || s.deleted != (s.begun > 1) {
						t.Errorf("id %q, %d bytes, %v", id, len(s.got), err)
					}
					return
				}
				if Unclear(err) != (tt.unclear || tt.name == "always broken") || tt.unclear && s.begun != 1 {
					t.Errorf("%v is unclear: %v, %d sessions", err, Unclear(err), s.begun)
				}
				if err == nil || !s.deleted || len(svc.seen()) > 20 {
					t.Errorf("%v, given up %v, %d requests", err, s.deleted, len(svc.seen()))
				}
				if strings.Contains(err.Error(), "permission") {
					t.Errorf("address in %v", err)
				}
			})
		})
	}
}

// A session is given up even when the caller has gone.
func TestUploadCancelled(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &sessions{t: t, total: 4_000_000}
		c, _, _ := bubbled(s.answer)
		_, err := c.UploadAttachment(t.Context(), "m", NewAttachment{Size: 4_000_000}, func(at int64) (io.ReadCloser, error) {
			return nil, io.ErrClosedPipe
		})
		if !errors.Is(err, io.ErrClosedPipe) || !s.deleted {
			t.Errorf("%v, given up %v", err, s.deleted)
		}
	})
}

func TestSmallAttachments(t *testing.T) {
	for _, size := range []int{0, 5, SessionSize - 1} {
		c, s, _ := bubbled(func(n int, w http.ResponseWriter, r *http.Request, body string) { reply(w, 201, `{"id":"att"}`) })
		content := strings.Repeat("x", size)
		id, err := c.UploadAttachment(t.Context(), "m", NewAttachment{Name: "f", Size: int64(size)}, func(int64) (io.ReadCloser, error) { return source(content)() })
		if err != nil || id != "att" || !strings.HasSuffix(s.seen()[0].URI, "/messages/m/attachments") || mustJSON(t, s.seen()[0].Body)["contentBytes"] != encoded([]byte(content)) {
			t.Errorf("%d: %q %v", size, id, err)
		}
	}
	c, s, _ := bubbled(nil)
	_, err := c.UploadAttachment(t.Context(), "m", NewAttachment{Size: 9}, func(int64) (io.ReadCloser, error) { return source("short")() })
	if !errors.Is(err, errSize) || len(s.seen()) != 0 {
		t.Errorf("%v", err)
	}
	// Between 3 MB and 3 MiB the service decides.
	c, s, _ = bubbled(func(n int, w http.ResponseWriter, r *http.Request, body string) {
		if n == 0 {
			refuse(w, 400, "ErrorAttachmentSizeShouldNotBeLessThanMinimumSize")
			return
		}
		reply(w, 201, `{"id":"att"}`)
	})
	body := strings.Repeat("x", SessionSize+1)
	if _, err := c.UploadAttachment(t.Context(), "m", NewAttachment{Size: SessionSize + 1}, func(int64) (io.ReadCloser, error) { return source(body)() }); err != nil || len(s.seen()) != 2 {
		t.Errorf("%v", err)
	}
}

func TestRanges(t *testing.T) {
	for _, tt := range []struct {
		in   []string
		want int64
		ok   bool
	}{
		{nil, 0, false}, {[]string{"0-"}, 0, true}, {[]string{"2097152"}, 2097152, true}, {[]string{"10-20", " 5 - 7 "}, 5, true},
		{[]string{"x", "-5", ""}, 0, false}, {[]string{"99999999999999999999"}, 0, false},
	} {
		if got, ok := nextOffset(tt.in); got != tt.want || ok != tt.ok {
			t.Errorf("nextOffset(%q) = %d, %v", tt.in, got, ok)
		}
	}
}

func FuzzRanges(f *testing.F) {
	f.Add("0-", "5")
	f.Fuzz(func(t *testing.T, a, b string) {
		if n, ok := nextOffset([]string{a, b}); n < 0 || !ok && n != 0 {
			t.Errorf("nextOffset(%q, %q) = %d, %v", a, b, n, ok)
		}
	})
}

// Thirty sends a minute, however many ask.
func TestSendPace(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, s, _ := bubbled(func(n int, w http.ResponseWriter, r *http.Request, body string) { done(w, r) })
		for range 65 {
			if err := c.Send(t.Context(), "m"); err != nil {
				t.Fatal(err)
			}
		}
		for i := 30; i < 65; i++ {
			if gap := s.seen()[i].At.Sub(s.seen()[i-30].At); gap < time.Minute {
				t.Fatalf("31 sends in %v", gap)
			}
		}
	})
}
