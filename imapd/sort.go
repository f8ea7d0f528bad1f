package imapd

import (
	"cmp"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"

	"postern/backend"
	"postern/imapd/wire"
)

func init() {
	commands["SORT"] = commandSpec{run: (*session).sort, in: inSelected, uid: true, keepsNumbers: true}
}

// sortBy is what messages are compared by. RFC 5256 section 3, RFC 5957.
type sortBy int

const (
	sortArrival sortBy = iota
	sortCc
	sortDate
	sortFrom
	sortSize
	sortSubject
	sortTo
	sortDisplayFrom
	sortDisplayTo
)

var sortNames = map[string]sortBy{
	"ARRIVAL": sortArrival, "CC": sortCc, "DATE": sortDate, "FROM": sortFrom, "SIZE": sortSize, "SUBJECT": sortSubject, "TO": sortTo,
	"DISPLAYFROM": sortDisplayFrom, "DISPLAYTO": sortDisplayTo,
}

// sortKey is one criterion.
type sortKey struct {
	by      sortBy
	reverse bool
}

// sortRequest is a SORT command.
type sortRequest struct {
	searchRequest
	keys []sortKey
}

const maxSortKeys = 50

// parseSort reads the arguments of SORT. RFC 5256 section 3, RFC 5267 section 3.
func parseSort(d *wire.Decoder) *sortRequest {
	req := &sortRequest{}
	d.Space()
	if d.Peek() != '(' {
		if d.Word() != "RETURN" {
			d.Fail(&wire.SyntaxError{Text: "sort criteria expected"})
			return req
		}
		d.Space()
		req.parseReturn(d)
		d.Space()
	}
	d.List(func() {
		var k sortKey
		word := d.Word()
		if word == "REVERSE" {
			k.reverse = true
			d.Space()
			word = d.Word()
		}
		by, ok := sortNames[word]
		if !ok {
			d.Fail(&wire.SyntaxError{Text: "unknown sort criterion"})
		}
		if len(req.keys) >= maxSortKeys {
			d.Fail(&wire.LimitError{Text: "too many sort criteria"})
			return
		}
		k.by = by
		req.keys = append(req.keys, k)
	})
	if len(req.keys) == 0 {
		d.Fail(&wire.SyntaxError{Text: "no sort criteria"})
		return req
	}
	req.parseProgram(d)
	return req
}

// parseProgram reads a charset, which SORT and THREAD must have, and search keys.
func (r *searchRequest) parseProgram(d *wire.Decoder) {
	d.Space()
	r.charset = d.AString()
	d.Space()
	p := &searchParser{d: d}
	r.key = p.keyList(p.word())
}

// sort is SORT and UID SORT.
func (s *session) sort(c *command) error {
	req := parseSort(s.dec)
	err := s.dec.End()
	var hits []searchHit
	if err == nil {
		if hits, err = s.find(&req.searchRequest); err == nil {
			hits, err = s.sorted(hits, req.keys)
		}
	}
	if req.save {
		s.view.save(hits, req.searchReturn, err)
	}
	if err != nil {
		return err
	}
	if req.extended {
		s.tellESearch(c, &req.searchRequest, hits)
	} else {
		s.tellNumbers("SORT", c, &req.searchRequest, hits)
	}
	return s.enc.Err()
}

// sortRow is one message with what it is compared by.
type sortRow struct {
	searchHit
	arrival, sent, size int64
	keys                *headerKeys // nil if none are needed
}

// sentDate is the date of RFC 5256 section 2.2: that of the Date field or, without one, INTERNALDATE.
func sentDate(keys *headerKeys, arrival int64) int64 {
	if keys.sent == noDate {
		return arrival
	}
	return keys.sent
}

// sorted returns hits in the order of the criteria. Those that are gone are left out.
func (s *session) sorted(hits []searchHit, by []sortKey) ([]searchHit, error) {
	needsKeys, needsOthers := false, false // others than dates
	for _, k := range by {
		needsKeys = needsKeys || k.by != sortArrival && k.by != sortSize
		needsOthers = needsOthers || k.by != sortArrival && k.by != sortSize && k.by != sortDate
	}
	rows := make([]sortRow, 0, len(hits))
	var ask []imap.UID
	var asked []int
	s.view.messagesOf(hits, func(i int, msg *backend.Message) {
		row := sortRow{searchHit: hits[i], arrival: msg.Received.Unix(), size: msg.Size, sent: msg.Sent.Unix()}
		if needsKeys && (needsOthers || msg.HasHeader || msg.Sent.IsZero()) {
			// Else what Graph tells of the date will do: no header need be fetched for that.
			ask = append(ask, msg.UID)
			asked = append(asked, len(rows))
		}
		rows = append(rows, row)
	})
	if len(ask) > 0 {
		keys, err := s.headerKeys(ask)
		if err != nil {
			return nil, err
		}
		gone := &headerKeys{}
		for j, i := range asked {
			if rows[i].keys = keys[j]; keys[j] == nil {
				rows[i].keys = gone
				continue
			}
			rows[i].sent = sentDate(keys[j], rows[i].arrival)
		}
		rows = slices.DeleteFunc(rows, func(r sortRow) bool { return r.keys == gone })
	}
	slices.SortFunc(rows, func(a, b sortRow) int { return compareRows(&a, &b, by) })
	hits = make([]searchHit, len(rows))
	for i := range rows {
		hits[i] = rows[i].searchHit
	}
	return hits, nil
}

// messagesOf yields the messages found, with their indices in hits. Those that are gone are skipped.
func (v *view) messagesOf(hits []searchHit, yield func(i int, msg *backend.Message)) {
	uids := make([]imap.UID, len(hits))
	for i := range hits {
		uids[i] = hits[i].uid
	}
	i := 0
	v.mbox.Messages(uids, func(msg *backend.Message) bool {
		for hits[i].uid != msg.UID {
			i++
		}
		yield(i, msg)
		return true
	})
}

// compareRows compares by the criteria and, where those are equal, by the place in the mailbox, which REVERSE does not
// turn round.
func compareRows(a, b *sortRow, by []sortKey) int {
	for _, k := range by {
		var n int
		switch k.by {
		case sortArrival:
			n = cmp.Compare(a.arrival, b.arrival)
		case sortDate:
			n = cmp.Compare(a.sent, b.sent)
		case sortSize:
			n = cmp.Compare(a.size, b.size)
		case sortSubject:
			n = strings.Compare(a.keys.subject, b.keys.subject)
		case sortFrom:
			n = strings.Compare(a.keys.from, b.keys.from)
		case sortTo:
			n = strings.Compare(a.keys.to, b.keys.to)
		case sortCc:
			n = strings.Compare(a.keys.cc, b.keys.cc)
		case sortDisplayFrom:
			n = strings.Compare(a.keys.showFrom, b.keys.showFrom)
		case sortDisplayTo:
			n = strings.Compare(a.keys.showTo, b.keys.showTo)
		}
		if n != 0 {
			if k.reverse {
				return -n
			}
			return n
		}
	}
	return cmp.Compare(a.seq, b.seq)
}
