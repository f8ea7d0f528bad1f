package token

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/internal/fuzzcorpus"
)

// entra answers token requests in a synctest bubble, without a network.
type entra struct {
	mu       sync.Mutex
	requests []url.Values
	urls     []string
	times    []time.Time
	delay    time.Duration
	answer   func(n int) (status int, header http.Header, body string)
}

func (e *entra) RoundTrip(r *http.Request) (*http.Response, error) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(b))
	if err != nil {
		return nil, err
	}
	if r.Header.Get("Authorization") != "" {
		form.Set("authorization header", "yes")
	}
	e.mu.Lock()
	n := len(e.requests)
	e.requests = append(e.requests, form)
	e.urls = append(e.urls, r.URL.String())
	e.times = append(e.times, time.Now())
	e.mu.Unlock()
	select {
	case <-time.After(e.delay):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	status, header, body := e.answer(n)
	if status == 0 {
		return nil, errors.New("connection refused")
	}
	if header == nil {
		header = http.Header{}
	}
	header.Set("Content-Type", "application/json; charset=utf-8")
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Header: header,
		Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

func (e *entra) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.requests)
}

func granted(n int) (int, http.Header, string) {
	return 200, nil, fmt.Sprintf(`{"token_type":"Bearer","expires_in":3599,"access_token":"t%d"}`, n)
}

func refusal(status int, oauth string, code int) func(int) (int, http.Header, string) {
	return func(int) (int, http.Header, string) {
		b, _ := json.Marshal(map[string]any{"error": oauth, "error_codes": []int{code}, "correlation_id": "corr-1",
			"error_description": fmt.Sprintf("AADSTS%d: for app 2c9b0c44 whose secret-value is wrong", code)})
		return status, nil, string(b)
	}
}

var contoso = Credential{Name: "contoso", Tenant: "contoso.example", ClientID: "app", ClientSecret: "s3cr3t&="}

func setup(answer func(int) (int, http.Header, string)) (*Manager, *entra) {
	e := &entra{answer: answer}
	return NewManager(&http.Client{Transport: e}, nil), e
}

func get(t *testing.T, s *Source) string {
	t.Helper()
	tok, err := s.Token(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return tok.AccessToken
}

func TestRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := setup(granted)
		defer m.Close()
		get(t, m.Source(contoso))
		want := url.Values{"client_id": {"app"}, "client_secret": {"s3cr3t&="}, "grant_type": {"client_credentials"},
			"scope": {"https://graph.microsoft.com/.default"}}
		if got := e.requests[0]; got.Encode() != want.Encode() {
			t.Errorf("sent %v, want %v", got, want)
		}
		if e.urls[0] != "https://login.microsoftonline.com/contoso.example/oauth2/v2.0/token" {
			t.Errorf("sent to %s", e.urls[0])
		}
	})
}

func TestClouds(t *testing.T) {
	for _, tt := range []struct {
		cred                   Credential
		endpoint, graph, scope string
	}{
		{Credential{Tenant: "t"}, "https://login.microsoftonline.com/t/oauth2/v2.0/token", "https://graph.microsoft.com", "https://graph.microsoft.com/.default"},
		{Credential{Tenant: "t", Cloud: USGov}, "https://login.microsoftonline.us/t/oauth2/v2.0/token", "https://graph.microsoft.us", "https://graph.microsoft.us/.default"},
		{Credential{Tenant: "t", Cloud: USGovDoD}, "https://login.microsoftonline.us/t/oauth2/v2.0/token", "https://dod-graph.microsoft.us", "https://dod-graph.microsoft.us/.default"},
		{Credential{Tenant: "t", Cloud: China}, "https://login.partner.microsoftonline.cn/t/oauth2/v2.0/token", "https://microsoftgraph.chinacloudapi.cn", "https://microsoftgraph.chinacloudapi.cn/.default"},
		// Overrides move hosts and never the scope.
		{Credential{Tenant: "a/b", Cloud: China, LoginURL: "http://127.0.0.1:9700/", GraphURL: "http://127.0.0.1:9700/"},
			"http://127.0.0.1:9700/a%2Fb/oauth2/v2.0/token", "http://127.0.0.1:9700", "https://microsoftgraph.chinacloudapi.cn/.default"},
	} {
		if got := [3]string{tt.cred.Endpoint(), tt.cred.Graph(), tt.cred.Scope()}; got != [3]string{tt.endpoint, tt.graph, tt.scope} {
			t.Errorf("%s: %v", tt.cred.Cloud, got)
		}
	}
	if Cloud("germany").Valid() || !China.Valid() || !Cloud("").Valid() {
		t.Error("Valid is wrong")
	}
}

// Many waiters cause one request, whether it works or not.
func TestOneRequestForAll(t *testing.T) {
	for name, answer := range map[string]func(int) (int, http.Header, string){
		"success": granted, "failure": refusal(503, "temporarily_unavailable", 90033),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, e := setup(answer)
				defer m.Close()
				e.delay = 200 * time.Millisecond
				began := time.Now()
				var wg sync.WaitGroup
				for range 50 {
					wg.Go(func() {
						_, err := m.Source(contoso).Token(context.Background())
						if (err == nil) != (name == "success") {
							t.Error(err)
						}
					})
				}
				wg.Wait()
				if e.count() != 1 || time.Since(began) != e.delay {
					t.Errorf("%d requests in %v", e.count(), time.Since(began))
				}
			})
		})
	}
}

func TestWhoShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := setup(granted)
		defer m.Close()
		same, renamed, rotated, other := contoso, contoso, contoso, contoso
		renamed.Name = "other name"
		rotated.ClientSecret = "new"
		other.Tenant = "fabrikam.example"
		for _, c := range []Credential{contoso, same, renamed, rotated, other} {
			get(t, m.Source(c))
		}
		if e.count() != 3 {
			t.Errorf("%d requests, want 3", e.count())
		}
	})
}

func TestCallerGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := setup(granted)
		defer m.Close()
		e.delay = 10 * time.Second
		s := m.Source(contoso)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		began := time.Now()
		if _, err := s.Token(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Fatalf("after %v: %v", time.Since(began), err)
		}
		// The request goes on and serves the next caller.
		if get(t, s) != "t0" || e.count() != 1 || time.Since(began) != 10*time.Second {
			t.Errorf("%d requests after %v", e.count(), time.Since(began))
		}
	})
}

func TestRenewal(t *testing.T) {
	for _, tt := range []struct {
		name     string
		extra    string
		from, to time.Duration
	}{
		{"half of life", "", 1700 * time.Second, 1800 * time.Second},
		{"refresh_in", `,"refresh_in":900`, 855 * time.Second, 900 * time.Second},
		{"refresh_in beyond life", `,"refresh_in":90000`, 1700 * time.Second, 1800 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, e := setup(func(n int) (int, http.Header, string) {
					return 200, nil, fmt.Sprintf(`{"token_type":"Bearer","expires_in":3599,"access_token":"t%d"%s}`, n, tt.extra)
				})
				defer m.Close()
				s := m.Source(contoso)
				get(t, s)
				get(t, s) // a second use
				time.Sleep(tt.from)
				synctest.Wait()
				if e.count() != 1 {
					t.Fatalf("%d requests before %v", e.count(), tt.from)
				}
				time.Sleep(tt.to - tt.from + time.Second)
				synctest.Wait()
				if e.count() != 2 {
					t.Fatalf("%d requests after %v", e.count(), tt.to)
				}
				began := time.Now()
				if got := get(t, s); got != "t1" || time.Since(began) != 0 {
					t.Errorf("got %s after %v", got, time.Since(began))
				}
			})
		})
	}
}

// A credential nobody uses is not renewed for ever, and works again when somebody does.
func TestUnusedIsNotRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := setup(granted)
		defer m.Close()
		s := m.Source(contoso)
		get(t, s)
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if n := e.count(); n != 1 {
			t.Errorf("%d requests in a day without use", n)
		}
		if got := get(t, s); got != "t1" {
			t.Errorf("got %s", got)
		}
	})
}

// While a renewal fails the old token serves, until its end.
func TestFailingRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := setup(func(n int) (int, http.Header, string) {
			if n > 0 {
				return 0, nil, ""
			}
			return granted(n)
		})
		defer m.Close()
		s := m.Source(contoso)
		began := time.Now()
		for time.Since(began) < 3599*time.Second-margin-time.Second {
			if got := get(t, s); got != "t0" {
				t.Fatal(got)
			}
			time.Sleep(10 * time.Second)
		}
		if n := e.count(); n < 5 || n > 30 {
			t.Errorf("%d requests", n)
		}
		time.Sleep(15 * time.Second)
		_, err := s.Token(context.Background())
		var te *Error
		if !errors.As(err, &te) || te.Permanent || te.Err == nil {
			t.Errorf("%#v", err)
		}
	})
}

func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := setup(refusal(503, "temporarily_unavailable", 90033))
		defer m.Close()
		s := m.Source(contoso)
		end := time.Now().Add(time.Hour)
		for time.Now().Before(end) {
			_, err := s.Token(context.Background())
			var te *Error
			if !errors.As(err, &te) || te.RetryAfter <= 0 || te.RetryAfter > maxBackoff {
				t.Fatalf("%v", err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := e.count(); n < 15 || n > 30 {
			t.Errorf("%d requests in an hour", n)
		}
		for i := 2; i < 7; i++ {
			before, gap := e.times[i-1].Sub(e.times[i-2]), e.times[i].Sub(e.times[i-1])
			if gap <= before {
				t.Errorf("wait %d is %v after %v", i, gap, before)
			}
		}
	})
}

// What no repeat mends is asked rarely, until a reloaded configuration asks for a source again.
func TestPermanent(t *testing.T) {
	for _, oauth := range []string{"invalid_client", "unauthorized_client", "invalid_scope"} {
		synctest.Test(t, func(t *testing.T) {
			m, e := setup(refusal(401, oauth, 7000215))
			defer m.Close()
			s := m.Source(contoso)
			for range 600 {
				_, err := s.Token(context.Background())
				var te *Error
				if !errors.As(err, &te) || !te.Permanent || te.OAuth != oauth || te.Status != 401 || te.CorrelationID != "corr-1" || !strings.Contains(te.Advice, "secret") {
					t.Fatalf("%#v", err)
				}
				time.Sleep(time.Second)
			}
			if n := e.count(); n > 3 {
				t.Errorf("%s: %d requests in ten minutes", oauth, n)
			}
			before := e.count()
			m.Source(contoso)
			s.Token(context.Background())
			if e.count() != before+1 {
				t.Errorf("%s: a new source did not try again", oauth)
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := setup(func(n int) (int, http.Header, string) {
			if n == 0 {
				return 429, http.Header{"Retry-After": {"77"}}, `{"error":"invalid_client"}`
			}
			return granted(n)
		})
		defer m.Close()
		s := m.Source(contoso)
		for range 76 {
			_, err := s.Token(context.Background())
			var te *Error
			if !errors.As(err, &te) || te.Permanent || te.Status != 429 {
				t.Fatalf("%#v", err)
			}
			time.Sleep(time.Second)
		}
		if e.count() != 1 {
			t.Errorf("%d requests before the time", e.count())
		}
		time.Sleep(time.Second)
		get(t, s)
	})
}

func TestInvalidate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := setup(granted)
		defer m.Close()
		a, b := m.Source(contoso), m.Source(contoso)
		first := get(t, a)
		get(t, b)
		a.Invalidate(first)
		b.Invalidate(first) // the other mailbox met the same 401
		if second := get(t, b); second != "t1" {
			t.Errorf("got %s", second)
		}
		b.Invalidate(first)
		get(t, a)
		if e.count() != 2 {
			t.Errorf("%d requests, want 2", e.count())
		}
		// Graph refuses the new one, too: no storm.
		for range 100 {
			a.Invalidate(get(t, a))
		}
		if e.count() != 2 {
			t.Errorf("%d requests after a storm of 401", e.count())
		}
		time.Sleep(forcedRest)
		a.Invalidate(get(t, a))
		get(t, a)
		if e.count() != 3 {
			t.Errorf("%d requests, want 3", e.count())
		}
	})
}

// Tokens may be revoked twice within a minute: the second time, too, there is another one soon. Only where that goes on are
// requests for tokens spread.
func TestInvalidateTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := setup(granted)
		defer m.Close()
		s := m.Source(contoso)
		s.Invalidate(get(t, s))
		get(t, s)
		time.Sleep(2 * time.Second)
		s.Invalidate(get(t, s))
		if got := get(t, s); got != "t2" {
			t.Errorf("two seconds later the token is %s, want t2", got)
		}
		before := e.count()
		for range 600 {
			s.Invalidate(get(t, s))
			time.Sleep(time.Second)
		}
		if n := e.count() - before; n > 20 {
			t.Errorf("%d requests in ten minutes of refusals", n)
		}
		time.Sleep(3 * time.Minute)
		s.Invalidate(get(t, s))
		get(t, s)
		time.Sleep(2 * time.Second)
		before = e.count()
		s.Invalidate(get(t, s))
		get(t, s)
		if e.count() != before+1 {
			t.Error("a token that served for minutes does not end the long waits")
		}
	})
}

// A service that answers with the very token that was refused is not asked over and over.
func TestInvalidateSameToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := setup(func(int) (int, http.Header, string) { return granted(0) })
		defer m.Close()
		s := m.Source(contoso)
		for range 10 {
			s.Invalidate(get(t, s))
			time.Sleep(2 * time.Minute)
		}
		if e.count() > 3 {
			t.Errorf("%d requests", e.count())
		}
	})
}

func TestAnswers(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		header     http.Header
		status     int
		want       Error
	}{
		{"html of a proxy", "<html>", nil, 502, Error{Status: 502}},
		{"empty", "", nil, 503, Error{Status: 503}},
		{"unknown tenant", `{"error":"invalid_request","error_codes":[90002]}`, nil, 400, Error{Status: 400, OAuth: "invalid_request", Codes: []int{90002}, Permanent: true, Advice: Advice(90002)}},
		{"number in the text only", `{"error":"invalid_client","error_description":"AADSTS7000222: expired"}`, nil, 401, Error{Status: 401, OAuth: "invalid_client", Codes: []int{7000222}, Permanent: true, Advice: Advice(7000222)}},
		{"number unknown", `{"error":"invalid_client","error_codes":[1]}`, nil, 401, Error{Status: 401, OAuth: "invalid_client", Codes: []int{1}, Permanent: true, Advice: byOAuth["invalid_client"]}},
		{"codes of another type", `{"error":"invalid_client","error_codes":"x","correlation_id":"c"}`, nil, 401, Error{Status: 401, OAuth: "invalid_client", Permanent: true, Advice: byOAuth["invalid_client"], CorrelationID: "c"}},
		{"redirect", "", http.Header{"Location": {"https://elsewhere.example/"}}, 307, Error{Status: 307}},
		{"no token in it", `{"token_type":"Bearer","expires_in":3599}`, nil, 200, Error{}},
		{"no bearer token", `{"token_type":"mac","access_token":"x"}`, nil, 200, Error{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, e := setup(func(int) (int, http.Header, string) { return tt.status, tt.header, tt.body })
				defer m.Close()
				_, err := m.Source(contoso).Token(context.Background())
				var got *Error
				if !errors.As(err, &got) {
					t.Fatalf("%#v", err)
				}
				if got.Status != tt.want.Status || got.OAuth != tt.want.OAuth || fmt.Sprint(got.Codes) != fmt.Sprint(tt.want.Codes) ||
					got.Advice != tt.want.Advice || got.Permanent != tt.want.Permanent || got.CorrelationID != tt.want.CorrelationID {
					t.Errorf("got %+v, want %+v", *got, tt.want)
				}
				if e.count() != 1 {
					t.Errorf("%d requests", e.count())
				}
			})
		})
	}
}

// A token without roles is a token: with RBAC for Applications it works.
func TestOpaque(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := setup(func(int) (int, http.Header, string) {
			return 200, nil, `{"token_type":"bearer","expires_in":3599,"ext_expires_in":3599,"access_token":"e30.e30.x"}`
		})
		defer m.Close()
		if get(t, m.Source(contoso)) != "e30.e30.x" {
			t.Error("another token")
		}
	})
}

// A token that ends soon, or whose answer does not tell its life.
func TestLife(t *testing.T) {
	for body, most := range map[string]int{
		`{"token_type":"Bearer","access_token":"x"}`:                              8,
		`{"token_type":"Bearer","access_token":"x","expires_in":"3599"}`:          1,
		`{"token_type":"Bearer","access_token":"x","expires_in":60}`:              35,
		`{"token_type":"Bearer","access_token":"x","expires_in":3599,"scope":""}`: 1,
	} {
		synctest.Test(t, func(t *testing.T) {
			m, e := setup(func(int) (int, http.Header, string) { return 200, nil, body })
			defer m.Close()
			s := m.Source(contoso)
			for range 15 * 60 {
				get(t, s)
				time.Sleep(time.Second)
			}
			if e.count() > most || e.count() == 0 {
				t.Errorf("%s: %d requests in 15 minutes", body, e.count())
			}
		})
	}
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, e := setup(granted)
		e.delay = time.Minute
		s := m.Source(contoso)
		done := make(chan error)
		go func() { _, err := s.Token(context.Background()); done <- err }()
		synctest.Wait()
		m.Close()
		if err := <-done; !errors.Is(err, ErrClosed) {
			t.Errorf("waiter got %v", err)
		}
		if _, err := s.Token(context.Background()); !errors.Is(err, ErrClosed) {
			t.Errorf("then %v", err)
		}
		if _, err := m.Source(contoso).Token(context.Background()); !errors.Is(err, ErrClosed) {
			t.Errorf("new source: %v", err)
		}
		m.Close()
	})
}

// No secret, token or identifier from the service's text gets into errors, logs or printed credentials.
func TestNothingLeaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		e := &entra{answer: refusal(401, "invalid_client", 7000215)}
		m := NewManager(&http.Client{Transport: e}, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
		_, err := m.Source(contoso).Token(context.Background())
		m.Close()
		cred := fmt.Sprintf("%v %+v %#v %s", contoso, contoso, contoso, slog.AnyValue(contoso).Resolve())
		for _, text := range []string{err.Error(), fmt.Sprintf("%+v %#v", err, errors.Unwrap(err)), log.String(), cred} {
			for _, bad := range []string{"s3cr3t", "secret-value", "2c9b0c44"} {
				if strings.Contains(text, bad) {
					t.Errorf("%s in %s", bad, text)
				}
			}
		}
		if !strings.Contains(err.Error(), "AADSTS7000215") || !strings.Contains(log.String(), "corr-1") {
			t.Errorf("error %v, log %s", err, log.String())
		}
	})
}

func FuzzErrorBody(f *testing.F) {
	f.Add(401, `{"error":"invalid_client","error_codes":[7000215]}`, "1")
	f.Add(503, `AADSTS90055`, "Mon, 02 Jan 2006 15:04:05 GMT")
	f.Add(400, `{"error":1,"error_codes":[1.5],"correlation_id":{}}`, "1e300")
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, status int, body, retryAfter string) {
		if status < 300 || status > 599 {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			m, _ := setup(func(int) (int, http.Header, string) {
				return status, http.Header{"Retry-After": {retryAfter}}, body
			})
			defer m.Close()
			_, err := m.Source(contoso).Token(context.Background())
			var te *Error
			if !errors.As(err, &te) || te.RetryAfter < 0 || te.RetryAfter > maxRetryAfter || len(te.Error()) > 2000 {
				t.Errorf("%#v", err)
			}
		})
	})
}

// FuzzAnswer reads a successful answer of the token endpoint, or what a proxy in front of it makes of one.
func FuzzAnswer(f *testing.F) {
	f.Add(`{"token_type":"Bearer","expires_in":3599,"access_token":"eyJ0"}`)
	f.Add(`{"token_type":"Bearer","expires_in":"3599","access_token":"eyJ0","refresh_in":"x"}`)
	f.Add(`{"access_token":"a\r\nX: y","expires_in":-1}`)
	f.Add("<html>log in</html>")
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, body string) {
		synctest.Test(t, func(t *testing.T) {
			m, _ := setup(func(int) (int, http.Header, string) {
				return 200, http.Header{"Content-Type": {"application/json"}}, body
			})
			defer m.Close()
			tok, err := m.Source(contoso).Token(context.Background())
			if err == nil && (tok.AccessToken == "" || strings.ContainsAny(tok.AccessToken, "\r\n\x00 ")) {
				t.Errorf("token %q", tok.AccessToken)
			}
			if err != nil && tok != nil {
				t.Error("a token and an error")
			}
		})
	})
}
