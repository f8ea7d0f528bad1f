package imapd

import (
	"slices"
	"sync"

	"github.com/emersion/go-imap/v2"
)

// maxKeyCache is how many bytes of memory the keys of all mailboxes may take: some 200,000 messages.
const maxKeyCache = 64 << 20

// keyBox names a mailbox for as long as its UIDs mean the same messages, whose headers do not change.
type keyBox struct {
	id       string
	validity uint32
}

// keyCache keeps the keys of mailboxes that were sorted or threaded lately, for clients ask again and again, and some
// over a new connection each time. The zero value is empty and ready. Safe for concurrent use.
type keyCache struct {
	mu    sync.Mutex
	boxes map[keyBox]*boxKeys
	size  int64
	clock uint64
	limit int64 // 0: maxKeyCache
}

type boxKeys struct {
	keys map[imap.UID]*headerKeys
	size int64
	used uint64 // by the clock
}

// get fills in the keys that are there. They must not be changed.
func (c *keyCache) get(box keyBox, uids []imap.UID, keys []*headerKeys) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.boxes[box]
	if b == nil {
		return
	}
	c.clock++
	b.used = c.clock
	for i, uid := range uids {
		keys[i] = b.keys[uid]
	}
}

// put keeps those of keys at the indices, as far as there is room, which mailboxes used longer ago make. present are
// all messages of the mailbox, ascending: keys of others are dropped when they get many.
func (c *keyCache) put(box keyBox, present, uids []imap.UID, keys []*headerKeys, indices []int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.boxes == nil {
		c.boxes = make(map[keyBox]*boxKeys)
	}
	c.clock++
	b := c.boxes[box]
	if b == nil {
		b = &boxKeys{keys: make(map[imap.UID]*headerKeys, len(indices))}
		c.boxes[box] = b
	}
	b.used = c.clock
	if len(b.keys) > len(present)+len(present)/4 {
		for uid := range b.keys {
			if _, found := slices.BinarySearch(present, uid); !found {
				c.drop(b, uid)
			}
		}
	}
	limit := c.limit
	if limit == 0 {
		limit = maxKeyCache
	}
	for _, i := range indices {
		k := keys[i]
		if k == nil {
			continue
		}
		if b.keys[uids[i]] != nil {
			c.drop(b, uids[i]) // another session was faster
		}
		n := k.size()
		for c.size+n > limit && c.evict(b) {
		}
		if c.size+n > limit {
			return
		}
		b.keys[uids[i]] = k
		b.size += n
		c.size += n
	}
}

func (c *keyCache) drop(b *boxKeys, uid imap.UID) {
	n := b.keys[uid].size()
	delete(b.keys, uid)
	b.size -= n
	c.size -= n
}

// evict drops the mailbox not used for longest, but for b. It reports false if there is none.
func (c *keyCache) evict(b *boxKeys) bool {
	var oldest keyBox
	found := false
	for box, other := range c.boxes {
		if other != b && (!found || other.used < c.boxes[oldest].used) {
			oldest, found = box, true
		}
	}
	if found {
		c.size -= c.boxes[oldest].size
		delete(c.boxes, oldest)
	}
	return found
}
