package store

import (
	"sync"

	"github.com/emersion/go-imap/v2"
)

// folderCache keeps the rows of folders that were asked for by name: clients select the same few, and ask for their status,
// all the time, and each question to the database takes longer than all else about a SELECT. A commit that may have changed
// any folder makes all of it worthless.
type folderCache struct {
	mu   sync.Mutex
	age  uint64 // database.folderAge as of which the rows are
	rows map[folderKey]*Folder
	ids  map[FolderID]*Folder
}

type folderKey struct {
	account AccountID
	name    string
}

// cachedFolders is how many rows are kept; each has some KB of delta links.
const cachedFolders = 256

// renewLocked forgets rows that are older than age.
func (c *folderCache) renewLocked(age uint64) {
	if c.rows == nil || c.age != age || len(c.rows) >= cachedFolders {
		c.rows, c.ids = make(map[folderKey]*Folder), make(map[FolderID]*Folder)
		c.age = age
	}
}

// get returns a copy of a row that is as of age, or nil.
func (c *folderCache) get(age uint64, key folderKey) *Folder {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.age != age || c.rows[key] == nil {
		return nil
	}
	f := *c.rows[key]
	return &f
}

// recent returns the FirstRecent of a folder as of age, 0 if it is not known.
func (c *folderCache) recent(age uint64, id FolderID) imap.UID {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.age != age || c.ids[id] == nil {
		return 0
	}
	return c.ids[id].FirstRecent
}

// put keeps a row that was read when, or after, the database was of that age. Rows of a higher age are not given up for it.
func (c *folderCache) put(age uint64, key folderKey, row Folder) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rows != nil && c.age > age {
		return
	}
	c.renewLocked(age)
	c.rows[key], c.ids[row.ID] = &row, &row
}
