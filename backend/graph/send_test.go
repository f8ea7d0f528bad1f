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

	"postern/internal/fuzzcorpus"
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
	begun   int
	piece   int                                                                                // the largest piece; 0 for 4 MB
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
	case http.MethodPut:
		s.puts++
		s.take(w, r, body)
	default:
		s.t.Errorf("%s of a session is not documented", r.Method)
		w.WriteHeader(405)
	}
}

func (s *sessions) take(w http.ResponseWriter, r *http.Request, body string) {
	var from, to, total int
	if _, err := fmt.Sscanf(r.Header.Get("Content-Range"), "bytes %d-%d/%d", &from, &to, &total); err != nil || to-from+1 != len(body) || total != s.total {
		s.t.Errorf("Content-Range %q with %d bytes", r.Header.Get("Content-Range"), len(body))
	}
	if len(body) > s.most() {
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

func (s *sessions) most() int {
	if s.piece > 0 {
		return s.piece
	}
	return 4_000_000
}

func TestUploadSession(t *testing.T) {
	content := strings.Repeat("0123456789", 1_000_000)
	for _, tt := range []struct {
		name    string
		hook    func(s *sessions, n int, w http.ResponseWriter, r *http.Request, body string) bool
		ranges  func(int) string
		ok      bool
		unclear bool // the file may be whole
		again   bool // another session is begun
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
		{name: "answer lost, repeat is a bad request", hook: func(s *sessions, n int, w http.ResponseWriter, r *http.Request, body string) bool {
			if n == 3 {
				refuse(w, 400, "ErrorInvalidRequest")
				return true
			}
			if n != 2 {
				return false
			}
			s.got = append(s.got, body...)
			w.WriteHeader(504)
			return true
		}, ok: true},
		{name: "answer lost twice", hook: func(s *sessions, n int, w http.ResponseWriter, r *http.Request, body string) bool {
			if n != 1 && n != 3 || r.Method != http.MethodPut {
				return false
			}
			s.got = append(s.got, body...)
			w.WriteHeader(502)
			return true
		}, ok: true},
		{name: "state lost", again: true, hook: func(s *sessions, n int, w http.ResponseWriter, r *http.Request, body string) bool {
			if n == 2 {
				s.got = s.got[:100]
				w.WriteHeader(504)
			}
			return n == 2
		}, ok: true},
		{name: "smaller pieces", hook: func(s *sessions, n int, w http.ResponseWriter, r *http.Request, body string) bool {
			if s.piece = 1_000_000; len(body) <= s.piece {
				return false
			}
			w.WriteHeader(413)
			return true
		}, ok: true},
		{name: "session ended", again: true, hook: func(s *sessions, n int, w http.ResponseWriter, r *http.Request, body string) bool {
			if n == 2 {
				refuse(w, 404, "ErrorItemNotFound")
				return true
			}
			return false
		}, ok: true},
		{name: "last answer lost", hook: func(s *sessions, n int, w http.ResponseWriter, r *http.Request, body string) bool {
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
		{name: "last piece answered without a word", hook: func(s *sessions, n int, w http.ResponseWriter, r *http.Request, body string) bool {
			if r.Method == http.MethodPut && len(s.got)+len(body) == s.total && n < 4 {
				reply(w, 200, `{}`) // and not taken
				return true
			}
			return false
		}, ok: true},
		{name: "last piece answered by a page", hook: func(s *sessions, n int, w http.ResponseWriter, r *http.Request, body string) bool {
			if r.Method == http.MethodPut && len(s.got)+len(body) == s.total && n < 4 {
				w.Header().Set("Content-Type", "text/html")
				io.WriteString(w, "<p>Sign in to the network")
				return true
			}
			return false
		}, ok: true},
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
					if err != nil || id != "AA=" || string(s.got) != content || s.deleted != tt.again || (s.begun > 1) != tt.again {
						t.Errorf("id %q, %d bytes in %d sessions, %v", id, len(s.got), s.begun, err)
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

// What is sent in one request, its base64 and JSON counted, and what by a session, whichever MB the service means.
func TestAttachmentBorders(t *testing.T) {
	const name = "f.bin"
	// The largest file whose request is not over MaxRequest: its JSON has 83 bytes without the content.
	const fits = (MaxRequest - 83) / 4 * 3
	for _, tt := range []struct {
		name         string
		size         int
		request, min int    // the service's limits
		want         string // P for POST, S for a session
		fails        bool
	}{
		{"empty", 0, 4_000_000, 3_000_000, "P", false},
		{"small", 5, 4_000_000, 3_000_000, "P", false},
		{"fits just so", fits, 4_000_000, 3_000_000, "P", false},
		{"one more", fits + 1, 4_000_000, 2_900_000, "S", false},
		{"just below 3 MB, by POST", 2_999_999, 4 << 20, 3_000_000, "SP", false},
		{"just below 3 MB, by session", 2_999_999, 4_000_000, 2_900_000, "S", false},
		{"just below 3 MB, by neither", 2_999_999, 4_000_000, 3_000_000, "SP", true},
		{"3 MB", 3_000_000, 4_000_000, 3_000_000, "S", false},
		{"between 3 MB and 3 MiB", 3_100_000, 4 << 20, 3 << 20, "SP", false},
		{"3 MiB", 3 << 20, 4 << 20, 3 << 20, "S", false},
		{"a narrower request", 1_000_000, 1_200_000, 900_000, "PS", false},
		{"a narrower request, by neither", 1_000_000, 1_200_000, 3_000_000, "PS", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				content := strings.Repeat("x", tt.size)
				ways, got := "", ""
				c, _, _ := bubbled(func(n int, w http.ResponseWriter, r *http.Request, body string) {
					switch {
					case strings.HasSuffix(r.URL.Path, "/messages/m/attachments/createUploadSession"):
						ways += "S"
						if tt.size < tt.min {
							refuse(w, 400, "ErrorAttachmentSizeShouldNotBeLessThanMinimumSize")
							return
						}
						reply(w, 201, `{"uploadUrl":"http://`+r.Host+`/upload","nextExpectedRanges":["0-"]}`)
					case strings.HasSuffix(r.URL.Path, "/messages/m/attachments"):
						ways += "P"
						if len(body) > tt.request {
							w.WriteHeader(413)
							return
						}
						b, _ := base64.StdEncoding.DecodeString(mustJSON(t, body)["contentBytes"].(string))
						got = string(b)
						reply(w, 201, `{"id":"att"}`)
					case len(body) > tt.request:
						w.WriteHeader(413)
					default:
						if got += body; len(got) < tt.size {
							reply(w, 200, fmt.Sprintf(`{"NextExpectedRanges":["%d"]}`, len(got)))
							return
						}
						w.Header().Set("Location", "https://outlook.office.com/Attachments('att')")
						w.WriteHeader(201)
					}
				})
				id, err := c.UploadAttachment(t.Context(), "m", NewAttachment{Name: name, Size: int64(tt.size)}, func(at int64) (io.ReadCloser, error) {
					return io.NopCloser(strings.NewReader(content[at:])), nil
				})
				if ways != tt.want || (err != nil) != tt.fails {
					t.Errorf("ways %s, %v", ways, err)
				}
				if tt.fails && (StatusOf(err) != 413 || !IsTooLarge(err)) {
					t.Errorf("%v", err)
				}
				if !tt.fails && (id != "att" || got != content) {
					t.Errorf("id %q, %d bytes", id, len(got))
				}
			})
		})
	}
	c, s, _ := bubbled(nil)
	_, err := c.UploadAttachment(t.Context(), "m", NewAttachment{Size: 9}, func(int64) (io.ReadCloser, error) { return source("short")() })
	if !errors.Is(err, errSize) || len(s.seen()) != 0 {
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
	fuzzcorpus.Add(f)
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

// An attachment counts as added when the answer names it.
func TestAttachmentNotNamed(t *testing.T) {
	for _, body := range []string{`{}`, ``, `null`, `<p>Sign in to the network`} {
		bubble(t, func(t *testing.T) {
			c, _, _ := bubbled(func(_ int, w http.ResponseWriter, r *http.Request, _ string) { reply(w, 200, body) })
			_, err := c.UploadAttachment(t.Context(), "m", NewAttachment{Name: "f", Size: 3}, func(int64) (io.ReadCloser, error) {
				return io.NopCloser(strings.NewReader("abc")), nil
			})
			if !Unclear(err) || !IsTemporary(err) {
				t.Errorf("answer %q: %v", body, err)
			}
		})
	}
}
