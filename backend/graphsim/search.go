package graphsim

import (
	"sort"
	"strings"
	"time"
)

// searchLimit is how many results $search gives at most. Graph: search-query-parameter.
const searchLimit = 1000

// searchTerm is one term of a KQL query; all must hold.
type searchTerm struct {
	prop, text string
	not        bool
}

// searchMessages is $search: words in an index, newest sent first.
func searchMessages(list []*message, search string) ([]*message, *apiError) {
	s := strings.TrimSpace(search)
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return nil, errBadRequest("Syntax error: character ':' is not valid at position 0 in '%s'.", search)
	}
	terms := parseKQL(strings.ReplaceAll(s[1:len(s)-1], `\"`, `"`))
	if len(terms) == 0 {
		return nil, errBadRequest("Syntax error: $search is empty.")
	}
	var out []*message
	for _, m := range list {
		hit := true
		for _, t := range terms {
			ok, known := m.matches(t)
			if !known {
				return nil, errBadRequest("Syntax error: '%s' is not a property that can be searched.", t.prop)
			}
			if ok == t.not {
				hit = false
				break
			}
		}
		if hit {
			out = append(out, m)
		}
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i].sent > out[j].sent })
	return out[:min(len(out), searchLimit)], nil
}

func parseKQL(s string) []searchTerm {
	var terms []searchTerm
	not := false
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimSpace(s) {
		var t searchTerm
		end := strings.IndexAny(s, " :\"")
		if end > 0 && s[end] == ':' {
			t.prop, s = strings.ToLower(s[:end]), s[end+1:]
		}
		if strings.HasPrefix(s, `"`) {
			text, rest, _ := strings.Cut(s[1:], `"`)
			t.text, s = text, rest
		} else {
			t.text, s, _ = strings.Cut(s, " ")
		}
		switch {
		case t.prop == "" && t.text == "AND":
			continue
		case t.prop == "" && t.text == "NOT":
			not = true
			continue
		}
		t.text = strings.Trim(strings.ToLower(t.text), "()*")
		t.not, not = not, false
		if t.text != "" {
			terms = append(terms, t)
		}
	}
	return terms
}

// matches reports whether a term holds for m, and whether its property is one that can be searched.
func (m *message) matches(t searchTerm) (hit, known bool) {
	c := m.content()
	in := func(texts ...string) bool {
		for _, s := range texts {
			if containsWord(strings.ToLower(s), t.text) {
				return true
			}
		}
		return false
	}
	people := func(lists ...[]address) bool {
		for _, l := range lists {
			for _, a := range l {
				if in(a.name, a.addr) {
					return true
				}
			}
		}
		return false
	}
	var from []address
	if c.from != nil {
		from = []address{*c.from}
	}
	switch t.prop {
	case "":
		return people(from) || in(c.subject, c.plainText()), true
	case "subject":
		return in(c.subject), true
	case "body":
		return in(c.plainText()), true
	case "from":
		return people(from), true
	case "to":
		return people(c.to), true
	case "cc":
		return people(c.cc), true
	case "bcc":
		return people(c.bcc), true
	case "recipients":
		return people(c.to, c.cc, c.bcc), true
	case "participants":
		return people(from, c.to, c.cc, c.bcc), true
	case "hasattachment", "hasattachments":
		return c.hasAttachments() == (t.text == "true"), true
	case "attachment":
		for _, a := range c.attachments {
			if in(a.name) {
				return true, true
			}
		}
		return false, true
	case "importance":
		return importances[m.importance] == t.text, true
	case "kind":
		return t.text == "email", true
	case "received":
		return dateMatches(m.received, t.text), true
	case "sent":
		return dateMatches(m.sent, t.text), true
	case "size":
		return true, true
	}
	return false, false
}

// containsWord is a search by words and their beginnings, not by any substring.
func containsWord(s, word string) bool {
	for i := 0; ; {
		j := strings.Index(s[i:], word)
		if j < 0 {
			return false
		}
		if at := i + j; at == 0 || !isWordByte(s[at-1]) {
			return true
		}
		i += j + 1
	}
}

func isWordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c >= 0x80
}

// dateMatches reads a day, with >=, <=, > or < ahead of it, or a range day..day.
func dateMatches(unix int64, s string) bool {
	day := func(s string) (int64, bool) {
		for _, layout := range []string{"2006-01-02", "01/02/2006", "2006-01-02t15:04:05z"} {
			if t, err := time.Parse(layout, s); err == nil {
				return t.Unix(), true
			}
		}
		return 0, false
	}
	if a, b, ok := strings.Cut(s, ".."); ok {
		from, ok1 := day(a)
		to, ok2 := day(b)
		return ok1 && ok2 && unix >= from && unix < to+86400
	}
	op := strings.TrimRight(s, "0123456789-/tz:")
	at, ok := day(s[len(op):])
	if !ok {
		return false
	}
	switch op {
	case ">=":
		return unix >= at
	case ">":
		return unix >= at+86400
	case "<=":
		return unix < at+86400
	case "<":
		return unix < at
	}
	return unix >= at && unix < at+86400
}
