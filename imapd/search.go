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
	if err := s.dec.End(); err != nil {
		return err
	}
	if err := req.decodeText(); err != nil {
		return err
	}
	if err := req.key.prepare(s.view); err != nil {
		return err
	}
	sr := &searcher{v: s.view, key: req.key, env: searchEnv{now: time.Now()}}
	sr.metadata()
	if len(sr.open) > 0 {
		// What follows may read thousands of headers and bodies.
		if err := s.enc.Flush(); err != nil {
			return err
		}
		if err := s.wait(sr.contents); err != nil {
			return err
		}
	}
	slices.SortFunc(sr.found, func(a, b searchHit) int { return int(a.seq) - int(b.seq) })
	sr.tell(s, c, req)
	return s.enc.Err()
}

// searchHit is a message found.
type searchHit struct {
	seq    uint32
	uid    imap.UID
	modSeq uint64
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

// tell writes the result, by UID for UID SEARCH. RFC 9051 section 7.3.4, RFC 3501 section 7.2.5.
func (sr *searcher) tell(s *session, c *command, req *searchRequest) {
	nums := make([]imap.UID, len(sr.found)) // or sequence numbers
	var modSeq uint64
	for i, h := range sr.found {
		nums[i] = imap.UID(h.seq)
		if c.uid {
			nums[i] = h.uid
		}
		modSeq = max(modSeq, h.modSeq)
	}
	if !req.key.uses(searchModSeq) || len(nums) == 0 {
		modSeq = 0
	}
	e := s.enc
	if !req.extended {
		e.Raw("* SEARCH")
		for _, n := range nums {
			e.SP().Num(uint64(n))
		}
		if modSeq > 0 {
			e.Raw(" (MODSEQ ").Num(modSeq).Byte(')')
		}
		e.CRLF()
		return
	}
	e.Raw("* ESEARCH (TAG ").String(c.tag).Byte(')')
	if c.uid {
		e.Raw(" UID")
	}
	if n := len(nums); n > 0 {
		if req.min {
			e.Raw(" MIN ").Num(uint64(nums[0]))
		}
		if req.max {
			e.Raw(" MAX ").Num(uint64(nums[n-1]))
		}
		if req.all {
			e.Raw(" ALL ").UIDs(nums)
		}
	}
	if req.count {
		e.Raw(" COUNT ").Num(uint64(len(nums)))
	}
	if modSeq > 0 {
		e.Raw(" MODSEQ ").Num(modSeq)
	}
	e.CRLF()
}
