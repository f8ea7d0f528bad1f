package backend

import (
	"context"

	"github.com/emersion/go-imap/v2"
)

// HeaderText is something that is made of a message's header, such as the fields a mail program lists messages by. What
// many messages in a row are asked for is kept, so that the next program that lists the folder costs little.
type HeaderText struct {
	// Name tells it from others that are made of the same header. It must say all that Make depends on. With "" nothing is
	// kept.
	Name string
	// Make appends the text to dst.
	Make func(dst, header []byte) []byte
}

const (
	// textRun is how many messages next to each other must be asked for at once for their texts to be kept, or those kept
	// to be used: they are packed together, and one alone is made faster than unpacked.
	textRun = 16
	// maxTextName bounds the names that are kept, for clients choose them.
	maxTextName = 1 << 10
)

// TextsTogether returns how many of uids, from the first on, are kept together and best asked for at once.
func TextsTogether(uids []imap.UID) int {
	n := 1
	for n < len(uids) && pageOf(uids[n]) == pageOf(uids[0]) {
		n++
	}
	return n
}

// HeaderTexts yields what kinds make of the headers of messages: texts are those of the message uids[i], in the order
// of kinds, and good during the call only, which must not use the mailbox. Messages are yielded once, in any order, but not those
// that are gone. What the replica lacks is fetched.
func (m *Mailbox) HeaderTexts(ctx context.Context, uids []imap.UID, kinds []HeaderText, yield func(i int, texts [][]byte) error) error {
	r := &textReader{m: m, uids: uids, kinds: kinds, yield: yield, texts: make([][]byte, len(kinds)), keep: true, fresh: make(map[textPageNum]bool)}
	for _, k := range kinds {
		r.keep = r.keep && k.Name != "" && len(k.Name) <= maxTextName
	}
	if err := r.run(interactive(ctx)); err != nil {
		return translate("read headers", err)
	}
	return nil
}

// textReader runs one HeaderTexts.
type textReader struct {
	m     *Mailbox
	uids  []imap.UID
	kinds []HeaderText
	yield func(int, [][]byte) error
	keep  bool // kinds can be kept

	lacking []int                // indices of messages whose headers must be read
	fresh   map[textPageNum]bool // pages to keep of what is made of them
	texts   [][]byte
	plain   []textPlain // of each kind, reused
}

func (r *textReader) run(ctx context.Context) error {
	for lo, hi := 0, 0; lo < len(r.uids); lo = hi {
		hi = lo + TextsTogether(r.uids[lo:])
		if err := r.page(pageOf(r.uids[lo]), lo, hi); err != nil {
			return err
		}
		if len(r.lacking) >= headerChunk {
			if err := r.read(ctx); err != nil {
				return err
			}
		}
	}
	return r.read(ctx)
}

// page yields what is kept of uids[lo:hi], which are of one page, and notes what is not.
func (r *textReader) page(page textPageNum, lo, hi int) error {
	run := r.keep && hi-lo >= textRun
	if run {
		r.fresh[page] = true
	}
	if !run || !r.unpack(r.m.account.backend.texts.get(r.m.view.id, page, r.kinds)) {
		for i := lo; i < hi; i++ {
			r.lacking = append(r.lacking, i)
		}
		return nil
	}
next:
	for i := lo; i < hi; i++ {
		for k := range r.plain {
			text, ok := r.plain[k].text(r.uids[i])
			if !ok {
				r.lacking = append(r.lacking, i)
				continue next
			}
			r.texts[k] = text
		}
		if err := r.yield(i, r.texts); err != nil {
			return err
		}
	}
	return nil
}

// unpack makes pages, one of each kind, ready to be looked at.
func (r *textReader) unpack(pages []*textPage) bool {
	if pages == nil {
		return false
	}
	if r.plain == nil {
		r.plain = make([]textPlain, len(r.kinds))
	}
	for k, p := range pages {
		if !r.plain[k].unpack(p) {
			return false
		}
	}
	return true
}

// read yields what is lacking, made of the headers, and keeps it.
func (r *textReader) read(ctx context.Context) error {
	if len(r.lacking) == 0 {
		return nil
	}
	uids := make([]imap.UID, len(r.lacking))
	place := make(map[imap.UID]int, len(r.lacking))
	for j, i := range r.lacking {
		uids[j] = r.uids[i]
		place[uids[j]] = i
	}
	r.lacking = r.lacking[:0]
	var made *madeTexts
	if len(r.fresh) > 0 {
		made = r.m.account.backend.texts.begin(r.m.view.id, r.fresh, r.kinds)
		defer made.end()
		r.fresh = make(map[textPageNum]bool)
	}
	var buf []byte
	ends := make([]int, len(r.kinds))
	return r.m.headers(ctx, uids, func(uid imap.UID, header []byte) error {
		buf = buf[:0]
		for k := range r.kinds {
			buf = r.kinds[k].Make(buf, header)
			ends[k] = len(buf)
		}
		from := 0
		for k, end := range ends {
			r.texts[k] = buf[from:end:end]
			from = end
		}
		if made != nil {
			made.add(uid, r.texts)
		}
		return r.yield(place[uid], r.texts)
	})
}
