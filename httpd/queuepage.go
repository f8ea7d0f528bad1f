package httpd

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"postern/backend"
)

// queuePage is how many messages a page of the queue shows.
const queuePage = 50

// queueStates are what the list can be narrowed to, with what they are called there.
var queueStates = []struct{ Value, Text string }{
	{"waiting", "Waiting"}, {"", "All, with what was sent"}, {"queued", "Queued"}, {"sending", "Being sent"}, {"unclear", "Unclear"}, {"held", "Held"},
	{"sent", "Sent"}, {"bounced", "Returned"}, {"refused", "Refused"}, {"purged", "Purged"},
}

type queueData struct {
	State     backend.QueueState
	Query     backend.QueueQuery
	States    any
	Mailboxes []string
	Rows      []backend.QueuedMessage
	Next      string // address of the next page, "" for none
	First     string // of the first
	Here      string // this page, to come back to
}

func (s *Server) queue(r *http.Request) (string, any, error) {
	q := r.URL.Query()
	d := &queueData{States: queueStates, Here: r.URL.RequestURI(),
		Query: backend.QueueQuery{Text: strings.TrimSpace(q.Get("text")), State: q.Get("state"), Mailbox: q.Get("mailbox"), Before: q.Get("before"), Limit: queuePage + 1}}
	if !q.Has("state") && d.Query.Text == "" {
		d.Query.State = "waiting"
	}
	if !slices.ContainsFunc(queueStates, func(o struct{ Value, Text string }) bool { return o.Value == d.Query.State }) || len(d.Query.Text) > 500 {
		return "", nil, errNoPage
	}
	for _, a := range s.opts.Backend.Accounts() {
		d.Mailboxes = append(d.Mailboxes, a.Address())
	}
	var err error
	if d.State, err = s.opts.Backend.QueueState(r.Context()); err != nil {
		return "", nil, err
	}
	if d.Rows, err = s.opts.Backend.Queue(r.Context(), d.Query); err != nil {
		return "", nil, err
	}
	address := url.Values{"state": {d.Query.State}}
	if d.Query.Text != "" {
		address.Set("text", d.Query.Text)
	}
	if d.Query.Mailbox != "" {
		address.Set("mailbox", d.Query.Mailbox)
	}
	d.First = "/queue?" + address.Encode()
	if len(d.Rows) > queuePage {
		d.Rows = d.Rows[:queuePage]
		address.Set("before", d.Rows[queuePage-1].ID)
		d.Next = "/queue?" + address.Encode()
	}
	return "Queue and message log", d, nil
}

type messageData struct {
	backend.QueuedMessage
	Log    []backend.QueueEvent
	Reason string // of the last failure, for people
}

func (s *Server) message(r *http.Request) (string, any, error) {
	m, log, err := s.opts.Backend.QueueMessage(r.Context(), r.PathValue("id"))
	if err != nil {
		return "", nil, err
	}
	d := &messageData{QueuedMessage: m, Log: log}
	for _, e := range log {
		if m.LastError != "" && e.Status != "" && e.Text != "" {
			d.Reason = e.Text
		}
	}
	return "Message " + m.ID, d, nil
}

// actionDone says what each action comes to.
var actionDone = map[string]string{
	"retry": "tried at once", "hold": "held until released", "release": "released", "bounce": "given up, the sender is told", "purge": "given up, nobody is told",
}

// maxAct is how many messages one form may act on; a page shows fewer.
const maxAct = 200

// queueAct does what a form asks for to the messages it names.
func (s *Server) queueAct(w http.ResponseWriter, r *http.Request) {
	ses, ids := sessionOf(r.Context()), r.PostForm["id"]
	action, reason := r.PostForm.Get("action"), strings.TrimSpace(r.PostForm.Get("reason"))
	back := ownPath(r.PostForm.Get("back"))
	done, known := actionDone[action]
	switch {
	case !known || len(reason) > 500 || len(ids) > maxAct:
		http.Error(w, "there is no such action", http.StatusBadRequest)
		return
	case len(ids) == 0:
		ses.say(flash{Error: true, Text: "Choose messages first, by the boxes at the left."})
		http.Redirect(w, r, back, http.StatusSeeOther)
		return
	}
	var later, n int
	var failed []string
	for _, id := range ids {
		wait, err := s.opts.Backend.QueueAct(r.Context(), id, action, reason)
		switch {
		case err != nil:
			text := backend.TextOf(err)
			if backend.KindOf(err) == backend.NotFound {
				text = "It is no longer here"
			} else if text == "" {
				text = "The log says why"
				s.log.Error("queue action", "op", action, "queue_id", id, "err", err)
			}
			failed = append(failed, id+": "+text)
		case wait:
			later++
		default:
			n++
		}
	}
	s.log.Info("queue action", "op", action, "username", ses.login.Username, "messages", n+later, "failed", len(failed))
	var text []string
	if n > 0 {
		text = append(text, fmt.Sprintf("%s: %s.", count(n, "message"), done))
	}
	if later > 0 {
		text = append(text, fmt.Sprintf("%s being sent at this moment; if that fails: %s.", count(later, "message"), done))
	}
	ses.say(flash{Error: len(failed) > 0, Text: strings.Join(append(text, failed...), " ")})
	http.Redirect(w, r, back, http.StatusSeeOther)
}
