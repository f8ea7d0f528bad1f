package httpd

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// overviewRows is how many mailboxes the overview shows; where there are more, the others have a page of their own.
const overviewRows = 20

// mailboxStates are what the list of mailboxes can be narrowed to.
var mailboxStates = []struct{ Value, Text string }{{"", "All"}, {"attention", "With trouble or waiting"}, {"busy", "Being read"}, {"good", "In step"}}

type mailboxesData struct {
	listQuery
	State  string
	States any
	Rows   []mailboxRow
	All    int
}

// mailboxes lists all mailboxes, page by page.
func (s *Server) mailboxes(r *http.Request) (string, any, error) {
	q := r.URL.Query()
	l, err := readListQuery(q)
	if err != nil {
		return "", nil, err
	}
	d := &mailboxesData{listQuery: l, State: q.Get("state"), States: mailboxStates}
	if !slices.ContainsFunc(mailboxStates, func(o struct{ Value, Text string }) bool { return o.Value == d.State }) {
		return "", nil, errNoPage
	}
	rows := s.mailboxRows()
	d.All = len(rows)
	rows = slices.DeleteFunc(rows, func(m mailboxRow) bool {
		switch {
		case !d.has(m.Address):
			return true
		case d.State == "attention":
			return m.Tone != Bad && m.Tone != Warn
		case d.State != "":
			return m.Tone != Tone(d.State)
		}
		return false
	})
	d.Rows = pageOf(&d.listQuery, rows, func(m mailboxRow) string { return m.Address }, "/mailboxes", url.Values{"state": {d.State}})
	return "Mailboxes", d, nil
}

// mailboxRows returns all mailboxes, sorted by address.
func (s *Server) mailboxRows() []mailboxRow {
	accounts := s.opts.Backend.Accounts()
	rows := make([]mailboxRow, 0, len(accounts))
	for _, a := range accounts {
		rows = append(rows, s.mailboxRow(a))
	}
	slices.SortFunc(rows, func(a, b mailboxRow) int {
		return strings.Compare(strings.ToLower(a.Address), strings.ToLower(b.Address))
	})
	return rows
}

// worstFirst sorts those to the front that somebody should look at.
func worstFirst(rows []mailboxRow) {
	rank := map[Tone]int{Bad: 0, Warn: 1, Busy: 2, Good: 3}
	slices.SortStableFunc(rows, func(a, b mailboxRow) int { return cmp.Compare(rank[a.Tone], rank[b.Tone]) })
}
