package imapd

import (
	"context"
	"slices"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend"
)

func init() {
	commands["SEARCH"] = commandSpec{run: (*session).search, in: inSelected, uid: true, keepsNumbers: true}
}

// searchChunk is how many headers are read at once.
const searchChunk = 512

// search is SEARCH and UID SEARCH.
func (s *session) search(c *command) error {
	req := parseSearch(s.dec)
	err := s.dec.End()
	var hits []searchHit
	if err == nil {
		if req.key.uses(searchModSeq) {
			s.enableCondstore()
		}
		hits, err = s.find(req)
	}
	if req.save {
		s.view.save(hits, req.searchReturn, err)
	}
	if err != nil {
		return err
	}
	if s.enabled.rev2 && !req.extended {
		// RFC 9051 section 6.4.4: there is no other response, and no RETURN means all.
		req.extended, req.all = true, true
	}
	if req.extended {
		s.tellESearch(c, req, hits)
	} else {
		s.tellNumbers("SEARCH", c, req, hits)
	}
	return s.enc.Err()
}

// find returns the messages that a request means, in the order of the mailbox.
func (s *session) find(req *searchRequest) ([]searchHit, error) {
	if err := req.decodeText(); err != nil {
		return nil, err
	}
	req.key.prepare(s.view)
	sr := &searcher{v: s.view, key: req.key, env: searchEnv{now: time.Now()}}
	sr.metadata()
	if len(sr.open) > 0 {
		// What follows may read thousands of headers and bodies.
		if err := s.enc.Flush(); err != nil {
			return nil, err
		}
		if err := s.wait(sr.contents); err != nil {
			return nil, err
		}
		slices.SortFunc(sr.found, func(a, b searchHit) int { return int(a.seq) - int(b.seq) })
	}
	return sr.found, nil
}

// searchHit is a message found.
type searchHit struct {
	seq    uint32
	uid    imap.UID
	modSeq uint64
}

// number is how the client is told of it.
func (h *searchHit) number(uid bool) imap.UID {
	if uid {
		return h.uid
	}
	return imap.UID(h.seq)
}

func maxModSeq(hits []searchHit) uint64 {
	var n uint64
	for i := range hits {
		n = max(n, hits[i].modSeq)
	}
	return n
}

// openRow is a message that metadata cannot decide.
type openRow struct {
	seq    uint32
	msg    backend.Message
	recent bool
}

// searcher runs one SEARCH, the cheap tests first: flags, dates, sizes and sets from memory, then headers from
// the replica, then texts.
type searcher struct {
	v     *view
	key   *searchKey
	env   searchEnv
	found []searchHit
	open  []openRow
}

func (sr *searcher) hit(seq uint32, msg *backend.Message) {
	sr.found = append(sr.found, searchHit{seq, msg.UID, msg.ModSeq})
}

// metadata goes through all messages with what is in memory.
func (sr *searcher) metadata() {
	row := searchRow{}
	sr.v.messages(selection{{0, sr.v.len()}}, func(seq uint32, msg *backend.Message) bool {
		row.seq, row.msg, row.recent = seq, msg, sr.v.isRecent(msg.UID)
		switch sr.env.eval(sr.key, &row) {
		case yes3:
			sr.hit(seq, msg)
		case open3:
			sr.open = append(sr.open, openRow{seq, *msg, row.recent})
		}
		return true
	})
}

// contents decides what metadata has left open.
func (sr *searcher) contents(ctx context.Context) error {
	text := &textSearch{ctx: ctx, mbox: sr.v.mbox, keys: sr.key.textKeys()}
	needsHeader := sr.key.uses(searchHeader, searchSentBefore, searchSentOn, searchSentSince) ||
		// A message whose bytes are not kept is found by its header too.
		sr.key.uses(searchText) && slices.ContainsFunc(sr.open, func(r openRow) bool { return !r.msg.HasBody })
	var far []openRow // bytes not kept
	for lo := 0; lo < len(sr.open); lo += searchChunk {
		rows := sr.open[lo:min(lo+searchChunk, len(sr.open))]
		headers := map[imap.UID]*searchHeaders{}
		if needsHeader {
			var err error
			if headers, err = sr.headers(ctx, rows); err != nil {
				return err
			}
		}
		for i := range rows {
			if err := ctx.Err(); err != nil {
				return err
			}
			r := &rows[i]
			row := searchRow{seq: r.seq, msg: &r.msg, recent: r.recent, header: headers[r.msg.UID]}
			if needsHeader && row.header == nil {
				continue // gone
			}
			result := sr.env.eval(sr.key, &row)
			if result == open3 && r.msg.HasBody {
				found, ok, err := text.kept(r.msg.UID)
				if err != nil {
					return err
				}
				if !ok {
					continue
				}
				row.text = found
				result = sr.env.eval(sr.key, &row)
			}
			switch result {
			case yes3:
				sr.hit(r.seq, &r.msg)
			case open3:
				far = append(far, *r)
			}
		}
	}
	return sr.afar(ctx, text, far, needsHeader)
}

// afar decides on messages whose bytes only Graph has.
func (sr *searcher) afar(ctx context.Context, text *textSearch, rows []openRow, needsHeader bool) error {
	if len(rows) == 0 {
		return nil
	}
	uids := make([]imap.UID, len(rows))
	for i := range rows {
		uids[i] = rows[i].msg.UID
	}
	if err := text.askIndex(uids); err != nil {
		return err
	}
	for lo := 0; lo < len(rows); lo += searchChunk {
		chunk := rows[lo:min(lo+searchChunk, len(rows))]
		headers := map[imap.UID]*searchHeaders{}
		if needsHeader {
			var err error
			if headers, err = sr.headers(ctx, chunk); err != nil {
				return err
			}
		}
		for i := range chunk {
			r := &chunk[i]
			row := searchRow{seq: r.seq, msg: &r.msg, recent: r.recent, header: headers[r.msg.UID]}
			row.text = text.indexed(r.msg.UID, row.header)
			if sr.env.eval(sr.key, &row) == yes3 {
				sr.hit(r.seq, &r.msg)
			}
		}
	}
	return nil
}

// headers reads the headers of rows.
func (sr *searcher) headers(ctx context.Context, rows []openRow) (map[imap.UID]*searchHeaders, error) {
	uids := make([]imap.UID, len(rows))
	for i := range rows {
		uids[i] = rows[i].msg.UID
	}
	headers := make(map[imap.UID]*searchHeaders, len(rows))
	err := sr.v.mbox.Headers(ctx, uids, func(uid imap.UID, header []byte) error {
		headers[uid] = newSearchHeaders(slices.Clone(header))
		return nil
	})
	return headers, err
}

// tellNumbers writes the responses of RFC 3501 section 7.2.5 and RFC 5256 section 4: numbers in the order given.
func (s *session) tellNumbers(name string, c *command, req *searchRequest, hits []searchHit) {
	e := s.enc
	e.Raw("* ").Raw(name)
	for i := range hits {
		e.SP().Num(uint64(hits[i].number(c.uid)))
	}
	if len(hits) > 0 && req.key.uses(searchModSeq) {
		e.Raw(" (MODSEQ ").Num(maxModSeq(hits)).Byte(')')
	}
	e.CRLF()
}
