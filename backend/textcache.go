package backend

import (
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/klauspost/compress/s2"

	"postern/backend/store"
)

const (
	// maxTexts is how many bytes of memory the texts of all mailboxes may take: a list of headers and the envelopes of some
	// 300,000 messages.
	maxTexts = 48 << 20
	// keepTexts is how long a kind of text is kept that nobody asks for.
	keepTexts = 10 * time.Minute
	// pageTexts is how many UIDs a page has. More pack better, and cost more when one changes.
	pageTexts = 256
)

// textPageNum is the number of a page in its folder.
type textPageNum uint32

func pageOf(uid imap.UID) textPageNum { return textPageNum(uid / pageTexts) }

// textCache keeps what was made of headers, of each kind and pageTexts UIDs together, compressed. The zero value is empty
// and ready. Safe for concurrent use.
type textCache struct {
	mu      sync.Mutex
	columns map[textColumnKey]*textColumn
	making  map[*madeTexts]struct{}
	size    int64
	expiry  *time.Timer // runs while there are columns
	closed  bool
	limit   int64 // 0: maxTexts
}

type textColumnKey struct {
	folder store.FolderID
	kind   string
}

// textColumn is one kind of text of one folder.
type textColumn struct {
	pages map[textPageNum]*textPage
	size  int64
	used  time.Time
}

// textPage is the texts of a page, those of the messages in present. It does not change.
type textPage struct {
	present [pageTexts / 64]uint64
	packed  []byte // S2: the lengths as uvarints, then the texts
}

// size is about how many bytes of memory the page takes.
func (p *textPage) size() int64 { return int64(cap(p.packed)) + 128 }

func (p *textPage) has(uid imap.UID) bool {
	n := uid % pageTexts
	return p.present[n/64]&(1<<(n%64)) != 0
}

// without returns the page without one message. Its text stays where it is, and cannot be found any more.
func (p *textPage) without(uid imap.UID) *textPage {
	q := *p
	n := uid % pageTexts
	q.present[n/64] &^= 1 << (n % 64)
	return &q
}

// textPlain is a page unpacked. The zero value has none.
type textPlain struct {
	page  *textPage
	buf   []byte
	spans [pageTexts]struct{ from, to uint32 }
}

// unpack makes t the texts of p. It reports false if p is damaged, which cannot be.
func (t *textPlain) unpack(p *textPage) bool {
	if t.page == p {
		return true
	}
	t.page = nil
	buf, err := s2.Decode(t.buf[:cap(t.buf)], p.packed)
	if err != nil {
		return false
	}
	t.buf = buf
	at := 0
	for i := range t.spans {
		n, k := binary.Uvarint(buf[at:])
		if k <= 0 {
			return false
		}
		at += k
		t.spans[i].to = uint32(n) // a length for now
	}
	from := uint32(at)
	for i := range t.spans {
		to := from + t.spans[i].to
		t.spans[i] = struct{ from, to uint32 }{from, to}
		from = to
	}
	if int(from) != len(buf) {
		return false
	}
	t.page = p
	return true
}

func (t *textPlain) text(uid imap.UID) ([]byte, bool) {
	if !t.page.has(uid) {
		return nil, false
	}
	s := t.spans[uid%pageTexts]
	return t.buf[s.from:s.to:s.to], true
}

// get returns a page of each kind, or nil if there are not all of them.
func (c *textCache) get(folder store.FolderID, page textPageNum, kinds []HeaderText) []*textPage {
	c.mu.Lock()
	defer c.mu.Unlock()
	var pages []*textPage
	for i := range kinds {
		col := c.columns[textColumnKey{folder, kinds[i].Name}]
		if col == nil || col.pages[page] == nil {
			return nil
		}
		col.used = time.Now()
		pages = append(pages, col.pages[page])
	}
	return pages
}

// madeTexts is texts on their way into the cache.
type madeTexts struct {
	c      *textCache
	folder store.FolderID
	kinds  []HeaderText
	want   map[textPageNum]bool // pages to keep
	stale  map[imap.UID]bool    // got another header meanwhile; guarded by c.mu

	page  textPageNum // the one being collected
	texts []madeText
	buf   []byte
}

// madeText is what the kinds have made of one header: texts[k] is buf[ends[k-1]:ends[k]].
type madeText struct {
	uid  imap.UID
	from int
	ends []int
}

// begin says that headers of messages on these pages are about to be read. What is made of them is kept by add and end.
func (c *textCache) begin(folder store.FolderID, pages map[textPageNum]bool, kinds []HeaderText) *madeTexts {
	t := &madeTexts{c: c, folder: folder, kinds: kinds, want: pages}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.making == nil {
		c.making = make(map[*madeTexts]struct{})
	}
	c.making[t] = struct{}{}
	return t
}

// add takes the texts of one message.
func (t *madeTexts) add(uid imap.UID, texts [][]byte) {
	page := pageOf(uid)
	if page != t.page {
		t.put()
		t.page = page
	}
	if !t.want[page] {
		return
	}
	m := madeText{uid: uid, from: len(t.buf), ends: make([]int, len(texts))}
	for k, text := range texts {
		t.buf = append(t.buf, text...)
		m.ends[k] = len(t.buf)
	}
	t.texts = append(t.texts, m)
}

// end keeps what is left, and must be called.
func (t *madeTexts) end() {
	t.put()
	t.c.mu.Lock()
	delete(t.c.making, t)
	t.c.mu.Unlock()
}

// put keeps what was collected of one page.
func (t *madeTexts) put() {
	if len(t.texts) == 0 {
		return
	}
	slices.SortFunc(t.texts, func(a, b madeText) int { return int(int64(a.uid) - int64(b.uid)) })
	for k := range t.kinds {
		t.putKind(k)
	}
	t.texts, t.buf = t.texts[:0], t.buf[:0]
}

// putKind keeps what was collected of one kind, together with what is kept of the page already.
func (t *madeTexts) putKind(k int) {
	key := textColumnKey{t.folder, t.kinds[k].Name}
	t.c.mu.Lock()
	var old *textPage
	if col := t.c.columns[key]; col != nil {
		old = col.pages[t.page]
	}
	t.c.mu.Unlock()

	var plain textPlain
	p := &textPage{}
	if old == nil || !plain.unpack(old) {
		old = nil
	} else {
		p.present = old.present
	}
	var list [pageTexts][]byte
	for i := range list {
		if old != nil {
			list[i], _ = plain.text(imap.UID(i)) // UIDs of all pages fall into the same places
		}
	}
	for _, m := range t.texts {
		from := m.from
		if k > 0 {
			from = m.ends[k-1]
		}
		n := m.uid % pageTexts
		list[n] = t.buf[from:m.ends[k]]
		p.present[n/64] |= 1 << (n % 64)
	}
	var raw []byte
	for _, text := range list {
		raw = binary.AppendUvarint(raw, uint64(len(text)))
	}
	for _, text := range list {
		raw = append(raw, text...)
	}
	p.packed = slices.Clip(slices.Clone(s2.Encode(nil, raw)))
	t.c.put(key, t.page, old, p, t)
}

// put keeps a page in place of old, as far as there is room, which columns used longer ago make.
func (c *textCache) put(key textColumnKey, page textPageNum, old, p *textPage, t *madeTexts) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	for uid := range t.stale {
		if pageOf(uid) == page {
			p = p.without(uid)
		}
	}
	if c.columns == nil {
		c.columns = make(map[textColumnKey]*textColumn)
	}
	col := c.columns[key]
	switch {
	case col == nil && old != nil, col != nil && col.pages[page] != old:
		return // it has changed meanwhile; the next who asks does it
	case col == nil:
		col = &textColumn{pages: make(map[textPageNum]*textPage), size: 256 + int64(len(key.kind))}
		c.columns[key] = col
		c.size += col.size
	}
	col.used = time.Now()
	if c.expiry == nil {
		c.expiry = time.AfterFunc(keepTexts, c.expire)
	}
	limit := c.limit
	if limit == 0 {
		limit = maxTexts
	}
	n := p.size()
	if old != nil {
		n -= old.size()
	}
	for c.size+n > limit && c.evict(col) {
	}
	if c.size+n > limit {
		return
	}
	col.pages[page] = p
	col.size += n
	c.size += n
}

// evict drops the column not used for longest, but for the one given. It reports false if there is none.
func (c *textCache) evict(but *textColumn) bool {
	var oldest textColumnKey
	found := false
	for key, col := range c.columns {
		if col != but && (!found || col.used.Before(c.columns[oldest].used)) {
			oldest, found = key, true
		}
	}
	if found {
		c.drop(oldest)
	}
	return found
}

func (c *textCache) drop(key textColumnKey) {
	c.size -= c.columns[key].size
	delete(c.columns, key)
}

// expire drops what nobody has asked for lately.
func (c *textCache) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expiry = nil
	for key, col := range c.columns {
		if time.Since(col.used) >= keepTexts {
			c.drop(key)
		}
	}
	if len(c.columns) > 0 && !c.closed {
		c.expiry = time.AfterFunc(keepTexts, c.expire)
	}
}

// forget drops what was made of the headers of messages, which are others now.
func (c *textCache) forget(ids []store.MessageID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.columns) == 0 && len(c.making) == 0 {
		return
	}
	for t := range c.making {
		for _, id := range ids {
			if id.Folder() != t.folder {
				continue
			}
			if t.stale == nil {
				t.stale = make(map[imap.UID]bool)
			}
			t.stale[id.UID()] = true
		}
	}
	for key, col := range c.columns {
		for _, id := range ids {
			if key.folder != id.Folder() {
				continue
			}
			if p := col.pages[pageOf(id.UID())]; p != nil && p.has(id.UID()) {
				col.pages[pageOf(id.UID())] = p.without(id.UID())
			}
		}
	}
}

// forgetFolder drops what belongs to a folder that is gone.
func (c *textCache) forgetFolder(folder store.FolderID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key := range c.columns {
		if key.folder == folder {
			c.drop(key)
		}
	}
}

// close drops everything for good.
func (c *textCache) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	clear(c.columns)
	c.size = 0
	if c.expiry != nil {
		c.expiry.Stop()
	}
}
