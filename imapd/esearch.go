package imapd

import (
	"slices"

	"github.com/emersion/go-imap/v2"

	"postern/imapd/wire"
)

// searchReturn is what a search is to return. RFC 4731 section 3.1, RFC 5182 section 2.1, RFC 5267 section 3.
type searchReturn struct {
	extended                   bool // RETURN was given
	min, max, all, count, save bool
}

// parseReturn reads the options behind RETURN. Without any it means ALL.
func (r *searchReturn) parseReturn(d *wire.Decoder) {
	r.extended = true
	d.List(func() {
		switch d.Word() {
		case "MIN":
			r.min = true
		case "MAX":
			r.max = true
		case "ALL":
			r.all = true
		case "COUNT":
			r.count = true
		case "SAVE":
			r.save = true
		default:
			d.Fail(&wire.SyntaxError{Text: "unknown RETURN option"})
		}
	})
	if !r.tells() && !r.save {
		r.all = true
	}
}

// tells reports whether there is anything to tell: not if the result is to be saved only.
func (r *searchReturn) tells() bool { return r.min || r.max || r.all || r.count }

// about returns those of hits that the result is about: the first or last one or both where no more is asked for, else
// all. Both the saved result and MODSEQ go by it. RFC 5182 section 2.1, RFC 4731 section 3.2.
func (r *searchReturn) about(hits []searchHit) []searchHit {
	n := len(hits)
	switch {
	case n < 2 || r.all || r.count || !r.min && !r.max:
		return hits
	case r.min && r.max:
		return []searchHit{hits[0], hits[n-1]}
	case r.min:
		return hits[:1]
	}
	return hits[n-1:]
}

// tellESearch writes the ESEARCH response. hits are in the order of the mailbox or, for SORT, in that asked for, which
// the set of ALL then keeps. RFC 9051 section 7.3.4, RFC 5267 section 3.
func (s *session) tellESearch(c *command, req *searchRequest, hits []searchHit) {
	if !req.tells() {
		return
	}
	e := s.enc
	e.Raw("* ESEARCH (TAG ").String(c.tag).Byte(')')
	if c.uid {
		e.Raw(" UID")
	}
	if n := len(hits); n > 0 {
		if req.min {
			e.Raw(" MIN ").Num(uint64(hits[0].number(c.uid)))
		}
		if req.max {
			e.Raw(" MAX ").Num(uint64(hits[n-1].number(c.uid)))
		}
		if req.all {
			nums := make([]imap.UID, n)
			for i := range hits {
				nums[i] = hits[i].number(c.uid)
			}
			e.Raw(" ALL ").UIDs(nums)
		}
	}
	if req.count {
		e.Raw(" COUNT ").Num(uint64(len(hits)))
	}
	if len(hits) > 0 && req.key.uses(searchModSeq) {
		e.Raw(" MODSEQ ").Num(maxModSeq(req.about(hits)))
	}
	e.CRLF()
}

// save keeps the result of a search for "$". One that ended in NO empties it, BAD leaves it as it was. It is kept as
// UIDs, so messages that are removed vanish from it. RFC 5182 section 2.1.
func (v *view) save(hits []searchHit, r searchReturn, err error) {
	if err != nil {
		if reply(err).typ != imap.StatusResponseTypeBad {
			v.saved = nil
		}
		return
	}
	hits = slices.Clone(r.about(hits))
	slices.SortFunc(hits, func(a, b searchHit) int { return int(a.seq) - int(b.seq) })
	set := imap.UIDSet{}
	for i := 0; i < len(hits); {
		// A range may span UIDs that do not exist: none of them is ever given again.
		j := i + 1
		for j < len(hits) && hits[j].seq == hits[j-1].seq+1 {
			j++
		}
		set = append(set, imap.UIDRange{Start: hits[i].uid, Stop: hits[j-1].uid})
		i = j
	}
	v.saved = set
}
