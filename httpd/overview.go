package httpd

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"postern/backend"
)

// Tone says how much something wants attention. Pages show it by a word and a sign, not by colour alone.
type Tone string

// The tones; they are classes of the style sheet.
const (
	Good Tone = "good"
	Busy Tone = "busy" // will be well by itself
	Warn Tone = "warn" // look at it some time
	Bad  Tone = "bad"  // somebody must act
)

// mailboxRow is a mailbox as the overview shows it.
type mailboxRow struct {
	backend.AccountState
	Tone      Tone
	Word      string
	Detail    string
	Throttled int // answers 429 in the last ten minutes
}

func (s *Server) mailboxRow(a *backend.Account) mailboxRow {
	st := tidy(a.State())
	row := mailboxRow{AccountState: st, Tone: Good, Word: "in step"}
	for _, m := range a.Calls(10) {
		row.Throttled += m.Throttled
	}
	switch f := st.Filling; {
	case st.LastError != "" && (st.Kind == backend.SignInNeeded || st.Kind == backend.Denied):
		row.Tone, row.Word, row.Detail = Bad, "needs you", st.LastError
	case st.Usage.PausedFor > 0:
		row.Tone, row.Word = Warn, "throttled"
		row.Detail = "Microsoft 365 asks to wait; the next call is made in " + duration(st.Usage.PausedFor)
	case st.LastError != "":
		row.Tone, row.Word, row.Detail = Warn, "trouble", st.LastError
	case !st.Ready:
		row.Tone, row.Word = Busy, "reading the folders"
	case f != nil:
		row.Tone, row.Word = Busy, "first listing"
		row.Detail = fillingText(f)
	case row.Throttled > 0:
		row.Tone, row.Word = Warn, "was throttled"
		row.Detail = fmt.Sprintf("%s in the last ten minutes", count(row.Throttled, "refused call"))
	}
	return row
}

// fillingText says how far a listing has come.
func fillingText(f *backend.Filling) string {
	text := count(f.Folders, "folder") + ": " + number(f.Done) + " messages listed"
	if f.Total > 0 {
		text = fmt.Sprintf("%s: %s of %s messages listed", count(f.Folders, "folder"), number(f.Done), number(max(f.Total, f.Done)))
	}
	if f.Remaining > 0 {
		text += ", about " + duration(f.Remaining) + " left"
	}
	return text
}

// attention is something that wants a person.
type attention struct {
	Tone   Tone
	What   string
	Text   string
	Advice string
	Link   string
	Since  time.Time
}

type overviewData struct {
	Version   string
	Started   time.Time
	Mailboxes []mailboxRow
	InStep    int
	Attention []attention
	Queue     backend.QueueState
	Listeners []Listener
	Sessions  map[string]int // logged in, by protocol
	SignIns   []backend.SignIn
	Used      int64 // bytes of kept bodies
	Budget    int64
	Recent    []LogLine
	Lockouts  []backend.Lockout
}

func (s *Server) overview(r *http.Request) (string, any, error) {
	d, err := s.overviewData(r.Context())
	return "Overview", d, err
}

func (s *Server) overviewData(ctx context.Context) (*overviewData, error) {
	b := s.opts.Backend
	q, err := b.QueueState(ctx)
	if err != nil {
		return nil, err
	}
	d := &overviewData{Version: s.opts.Version, Started: s.started, Queue: q, Listeners: s.opts.Listeners(), SignIns: b.SignIns(),
		Sessions: make(map[string]int), Recent: s.opts.Recent(), Lockouts: b.Lockouts()}
	d.Used, d.Budget = b.BodyUse()
	for _, l := range d.Listeners {
		d.Sessions[l.Protocol] += l.LoggedIn
	}
	for _, a := range b.Accounts() {
		row := s.mailboxRow(a)
		d.Mailboxes = append(d.Mailboxes, row)
		switch {
		case row.Tone == Good:
			d.InStep++
		case row.Tone == Bad, row.Tone == Warn && row.LastError != "":
			text := row.LastError
			if row.Word == "throttled" {
				text = row.Detail
			}
			d.Attention = append(d.Attention, attention{row.Tone, row.Address, text, row.Advice, mailboxPath(row.Address), row.Since})
		}
	}
	for i, in := range d.SignIns {
		d.SignIns[i].Problem = withoutAdvice(in.Problem, in.Advice)
	}
	// Of all credentials, also of those that nobody uses yet, or that share their sign-in with another.
	now := time.Now()
	for _, e := range b.Expiries() {
		if w := e.Warning(now); w != "" {
			tone := Warn
			if e.Days(now) < 7 {
				tone = Bad
			}
			d.Attention = append(d.Attention, attention{Tone: tone, What: "Sign-in " + e.Credential, Text: w})
		}
	}
	if q.Count["held"] > 0 {
		d.Attention = append(d.Attention, attention{Tone: Warn, What: "Queue", Text: count(q.Count["held"], "message") + " held until somebody releases them", Link: "/queue?state=held"})
	}
	if !q.Oldest.IsZero() && time.Since(q.Oldest) > time.Hour {
		d.Attention = append(d.Attention, attention{Tone: Warn, What: "Queue", Text: "The oldest message has been waiting for " + duration(time.Since(q.Oldest)), Link: "/queue"})
	}
	for _, l := range d.Lockouts {
		who := "anybody"
		if l.Username != "" {
			who = l.Username
		}
		d.Attention = append(d.Attention, attention{Tone: Warn, What: "Log-in", Text: fmt.Sprintf("%s at %s is locked out for wrong passwords until %s", who, l.Remote,
			l.Until.Local().Format("15:04")), Link: "/logins"})
	}
	return d, nil
}
