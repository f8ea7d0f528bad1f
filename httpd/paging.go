package httpd

import (
	"net/url"
	"strings"
)

// listPage is how many rows a page of mailboxes or logins shows.
const listPage = 50

// listQuery narrows a list that is sorted by names and shown page by page.
type listQuery struct {
	Text  string // in a name; "" for all
	After string // the last name of the page before; "" for the first
	Next  string // address of the next page; "" on the last
	First string // address of the first page; "" on it
	Found int    // rows on all pages
}

// readListQuery takes it from an address, errNoPage if it is none that a page of ours would ask for.
func readListQuery(q url.Values) (listQuery, error) {
	l := listQuery{Text: strings.TrimSpace(q.Get("text")), After: q.Get("after")}
	if len(l.Text) > 500 || len(l.After) > 1000 {
		return l, errNoPage
	}
	return l, nil
}

// has reports whether any of the texts has what is searched for.
func (l *listQuery) has(texts ...string) bool {
	for _, t := range texts {
		if strings.Contains(strings.ToLower(t), strings.ToLower(l.Text)) {
			return true
		}
	}
	return false
}

// pageOf cuts the rows of one page out of all that were found, which are sorted by name. path and more make the addresses of the others.
func pageOf[T any](l *listQuery, rows []T, name func(T) string, path string, more url.Values) []T {
	l.Found = len(rows)
	for l.After != "" && len(rows) > 0 && strings.ToLower(name(rows[0])) <= strings.ToLower(l.After) {
		rows = rows[1:]
	}
	address := func(after string) string {
		q := url.Values{}
		for k, v := range more {
			if len(v) > 0 && v[0] != "" {
				q[k] = v
			}
		}
		if l.Text != "" {
			q.Set("text", l.Text)
		}
		if after != "" {
			q.Set("after", after)
		}
		if len(q) == 0 {
			return path
		}
		return path + "?" + q.Encode()
	}
	if l.After != "" {
		l.First = address("")
	}
	if len(rows) > listPage {
		rows = rows[:listPage]
		l.Next = address(name(rows[listPage-1]))
	}
	return rows
}
