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

const (
	searchChunk = 512  // how many headers are read at once
	searchRun   = 4096 // how many texts of single fields
)

// maxSearchFields is how many fields a search may look through for their texts to be kept. The texts of more are taken out
// of the whole header.
const maxSearchFields = 8

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
	texts []backend.HeaderText // that the keys look through; nil if they need no header
	whole bool                 // texts is the whole header
	found []searchHit
	open  []openRow
}

func (sr *searcher) hit(seq uint32, msg *backend.Message) {
	sr.found = append(sr.found, searchHit{seq, msg.UID, msg.ModSeq})
}

// metadata goes through all messages with what is in memory.
func (sr *searcher) metadata() {
	row := searchRow{}
	recent := sr.key.uses(searchRecent)
	sr.v.messages(selection{{0, sr.v.len()}}, func(seq uint32, msg *backend.Message) bool {
		row.seq, row.msg, row.recent = seq, msg, recent && sr.v.isRecent(msg.UID)
		switch sr.env.eval(sr.key, &row) {
		case yes3:
			sr.hit(seq, msg)
		case open3:
			sr.open = append(sr.open, openRow{seq, *msg, row.recent})
		}
		return true
	})
}

// chooseTexts says what of the headers the search needs.
func (sr *searcher) chooseTexts() {
	sr.whole = sr.key.uses(searchSentBefore, searchSentOn, searchSentSince) ||
		// A message whose bytes are not kept is found by its header too.
		sr.key.uses(searchText) && slices.ContainsFunc(sr.open, func(r openRow) bool { return !r.msg.HasBody })
	sr.key.walk(func(k *searchKey) {
		if k.op != searchHeader || sr.whole {
			return
		}
		text := fieldSearchText(k.field)
		k.column = slices.IndexFunc(sr.texts, func(t backend.HeaderText) bool { return t.Name == text.Name })
		if k.column < 0 {
			k.column = len(sr.texts)
			sr.texts = append(sr.texts, text)
		}
		sr.whole = len(sr.texts) > maxSearchFields
	})
	if sr.whole {
		sr.texts = []backend.HeaderText{wholeHeader}
	}
}

// contents decides what metadata has left open.
func (sr *searcher) contents(ctx context.Context) error {
	text := &textSearch{ctx: ctx, mbox: sr.v.mbox, keys: sr.key.textKeys()}
	sr.chooseTexts()
	var far []openRow // bytes not kept
	for rows := range slices.Chunk(sr.open, sr.chunk()) {
		headers, err := sr.headers(ctx, rows)
		if err != nil {
			return err
		}
		for i := range rows {
			if err := ctx.Err(); err != nil {
				return err
			}
			r := &rows[i]
			row := searchRow{seq: r.seq, msg: &r.msg, recent: r.recent}
			if headers != nil {
				if row.header = headers[i]; row.header == nil {
					continue // gone
				}
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
	return sr.afar(ctx, text, far)
}

// afar decides on messages whose bytes only Graph has.
func (sr *searcher) afar(ctx context.Context, text *textSearch, rows []openRow) error {
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
	for chunk := range slices.Chunk(rows, sr.chunk()) {
		headers, err := sr.headers(ctx, chunk)
		if err != nil {
			return err
		}
		for i := range chunk {
			r := &chunk[i]
			row := searchRow{seq: r.seq, msg: &r.msg, recent: r.recent}
			if headers != nil {
				row.header = headers[i]
			}
			row.text = text.indexed(r.msg.UID, row.header)
			if sr.env.eval(sr.key, &row) == yes3 {
				sr.hit(r.seq, &r.msg)
			}
		}
	}
	return nil
}

func (sr *searcher) chunk() int {
	if sr.whole {
		return searchChunk
	}
	return searchRun
}

// headers returns what the keys need of the headers of rows, in their order, nil for those that are gone. Without need
// it returns nil.
func (sr *searcher) headers(ctx context.Context, rows []openRow) ([]*searchHeaders, error) {
	if sr.texts == nil {
		return nil, nil
	}
	uids := make([]imap.UID, len(rows))
	for i := range rows {
		uids[i] = rows[i].msg.UID
	}
	headers := make([]*searchHeaders, len(rows))
	block := make([]searchHeaders, len(rows))
	all := make([][]byte, len(rows)*len(sr.texts))
	var buf []byte
	err := sr.v.mbox.HeaderTexts(ctx, uids, sr.texts, func(i int, texts [][]byte) error {
		headers[i] = &block[i]
		mine := all[i*len(texts):][:len(texts):len(texts)]
		for k, text := range texts {
			from := len(buf)
			buf = append(buf, text...)
			mine[k] = buf[from:len(buf):len(buf)]
		}
		if sr.whole {
			headers[i].raw = mine[0]
		} else {
			headers[i].texts = mine
		}
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
