package httpd

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
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
	case st.SendOnly:
		row.Word, row.Detail = "sends only", "The app may not read it, and no login does"
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

// manyUnclear is how many messages without a clear answer are worth a word; one or two come and go by themselves.
const manyUnclear = 10

// maxAttention is how many things to look at the overview names: a lapsed sign-in of an app concerns all its mailboxes.
const maxAttention = 20

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
	Mailboxes []mailboxRow // those worst off first where there are more than overviewRows
	All       int          // mailboxes
	Hidden    int          // of them, those that are not in Mailboxes
	InStep    int
	Attention []attention // the first maxAttention
	Things    int         // all there are
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
	d.Mailboxes = s.mailboxRows()
	d.All = len(d.Mailboxes)
	for _, row := range d.Mailboxes {
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
	if d.Hidden = max(0, d.All-overviewRows); d.Hidden > 0 {
		worstFirst(d.Mailboxes)
		d.Mailboxes = d.Mailboxes[:overviewRows]
	}
	mailboxes := d.Attention // last, since they may be many
	d.Attention = nil
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
	if n := q.Count["unclear"]; n >= manyUnclear {
		d.Attention = append(d.Attention, attention{Tone: Warn, What: "Queue", Text: "Microsoft 365 gave no clear answer to the sending of " + count(n, "message") + ". They are looked for before they are sent again",
			Advice: "If this goes on, see Microsoft's service health, and the network or proxy on the way there.", Link: "/queue?state=unclear"})
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
	d.Attention = append(d.Attention, mailboxes...)
	slices.SortStableFunc(d.Attention, func(a, b attention) int { // what somebody must act on comes first
		rank := map[Tone]int{Bad: 0, Warn: 1}
		return cmp.Compare(rank[a.Tone], rank[b.Tone])
	})
	d.Things = len(d.Attention)
	d.Attention = d.Attention[:min(len(d.Attention), maxAttention)]
	return d, nil
}
