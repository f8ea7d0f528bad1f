package httpd

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// Times of event streams.
const (
	liveEvery  = 2 * time.Second  // between two looks at what a page shows
	liveShare  = 20               // at most this part of the time is spent on looking, for one stream
	liveAlive  = 20 * time.Second // after so long without a change a comment is sent, so that nobody takes the stream for dead
	liveLonger = 30 * time.Second // how long writing one event may take
)

// fragment is an event: the new content of the element with an id.
type fragment struct {
	ID   string `json:"id"`
	HTML string `json:"html"`
}

// events sends the live parts of the page that the query names, as they change (server-sent events, HTML Living Standard).
// It makes the same page again and again, with the same code, and sends what has become different.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	p, shown, err := s.shown(r)
	if err != nil || len(p.live) == 0 {
		http.Error(w, "there are no events of such a page", http.StatusNotFound)
		return
	}
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		http.Error(w, "too many pages are open", http.StatusServiceUnavailable)
		return
	}
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Time{}) // the request has been read; where this is not supported nothing is lost but the stream's length
	w.Header().Set("Content-Type", "text/event-stream")
	send := func(format string, args ...any) error {
		_ = rc.SetWriteDeadline(time.Now().Add(liveLonger)) // the same
		if _, err := fmt.Fprintf(w, format, args...); err != nil {
			return err
		}
		return rc.Flush()
	}
	if send("retry: 3000\n\n") != nil {
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.stopping, cancel)()
	ses := sessionOf(ctx)
	next := time.NewTimer(0)
	defer next.Stop()
	last := make(map[string]string)
	sent := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		}
		began := time.Now()
		if !ses.holds(s.opts.Backend, remote(r)) || s.sessions.of(r, s.opts.Backend) == nil {
			_ = send("event: signedout\ndata: {}\n\n") // the stream ends anyway
			return
		}
		v, err := s.view(p, shown.WithContext(ctx))
		if err != nil {
			if ctx.Err() == nil {
				_ = send("event: gone\ndata: {}\n\n") // the same
			}
			return
		}
		for _, id := range p.live {
			var b bytes.Buffer
			if err := templates[p.name].ExecuteTemplate(&b, id, v); err != nil {
				s.log.Error("live part of a page", "op", id, "err", err)
				return
			}
			html := string(harmless(b.Bytes()))
			if html == last[id] {
				continue
			}
			last[id] = html
			data, err := json.Marshal(fragment{id, html})
			if err != nil {
				return
			}
			if send("event: part\ndata: %s\n\n", data) != nil {
				return
			}
			sent = time.Now()
		}
		if time.Since(sent) > liveAlive {
			if send(": still here\n\n") != nil {
				return
			}
			sent = time.Now()
		}
		// What takes long, because mailboxes or the log are many, is done less often.
		next.Reset(max(s.liveEvery, liveShare*time.Since(began)))
	}
}

// shown returns the page that a query names in of, and the request that would ask for it.
func (s *Server) shown(r *http.Request) (*page, *http.Request, error) {
	u, err := url.ParseRequestURI(r.URL.Query().Get("of"))
	if err != nil || u.Host != "" {
		return nil, nil, errNoPage
	}
	req := r.Clone(r.Context())
	req.URL, req.RequestURI = u, u.RequestURI()
	mux := http.NewServeMux()
	var found *page
	for pattern, p := range pages {
		mux.HandleFunc("GET "+pattern, func(_ http.ResponseWriter, r *http.Request) { found, req = p, r })
	}
	mux.ServeHTTP(discard{}, req)
	if found == nil {
		return nil, nil, errNoPage
	}
	return found, req, nil
}

// discard is a ResponseWriter for the sake of matching a pattern.
type discard struct{}

func (discard) Header() http.Header         { return make(http.Header) }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}
