package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// bodyCache minds the body files: how much they take, which are open, which go.
//
// A file is there before its row and goes after it, so that a row always finds its
// file; files without a row are swept up by openBodies.
type bodyCache struct {
	s     *Store
	dir   string // bodies
	tmp   string // bodies/tmp
	codec *codec

	mu      sync.Mutex
	budget  int64
	total   int64 // bytes on disk
	open    map[BodyID]int
	doomed  map[BodyID]string // rows are gone, files go when closed
	staged  map[BodyID]bool
	touched map[BodyID]int64 // access times not written yet, Unix seconds
	flushed int64            // when they were written last, Unix seconds

	evicting sync.Mutex

	ahead aheadRows
}

const (
	accessStep  = 60  // seconds; a body's access time is not noted more often
	accessDelay = 300 // seconds after which noted times are written
	accessCount = 256 // or when there are so many
)

func openBodies(ctx context.Context, s *Store, dir string, budget int64) (*bodyCache, error) {
	c := &bodyCache{
		s: s, dir: dir, tmp: filepath.Join(dir, "tmp"), budget: budget, flushed: s.now().Unix(),
		open: map[BodyID]int{}, doomed: map[BodyID]string{}, staged: map[BodyID]bool{}, touched: map[BodyID]int64{},
	}
	var err error
	if c.codec, err = newCodec(); err != nil {
		return nil, fmt.Errorf("open bodies: %w", err)
	}
	if err := os.RemoveAll(c.tmp); err != nil {
		return nil, fmt.Errorf("open bodies: %w", err)
	}
	if err := os.MkdirAll(c.tmp, 0o700); err != nil {
		return nil, fmt.Errorf("open bodies: %w", err)
	}
	if err := c.sweep(ctx); err != nil {
		return nil, err
	}
	c.evict(ctx, 0)
	return c, nil
}

// BodyUse returns how many bytes the kept bodies take on the disk, and how many they may; 0 for no limit.
func (s *Store) BodyUse() (used, budget int64) {
	s.bodies.mu.Lock()
	defer s.bodies.mu.Unlock()
	return s.bodies.total, s.bodies.budget
}

// path returns where a body file is.
func (c *bodyCache) path(name string) string { return filepath.Join(c.dir, name[:2], name) }

// sweep makes rows and files agree after a crash: rows without a message, rows
// without a file and files without a row go.
func (c *bodyCache) sweep(ctx context.Context) error {
	files := map[string]string{} // path by name
	err := filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files[d.Name()] = path
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("sweep bodies: %w", err)
	}
	err = c.s.db.write(ctx, "sweep bodies", func(t *tx) error {
		if _, err := t.exec("DELETE FROM bodies WHERE NOT EXISTS (SELECT 1 FROM messages WHERE messages.body = bodies.id)"); err != nil {
			return err
		}
		rows, err := t.query("SELECT id, file, stored FROM bodies")
		if err != nil {
			return err
		}
		defer rows.Close()
		var lost []int64
		for rows.Next() {
			var id, stored int64
			var name string
			if err := rows.Scan(&id, &name, &stored); err != nil {
				return err
			}
			if files[name] == c.path(name) {
				delete(files, name)
				c.total += stored
			} else {
				lost = append(lost, id)
			}
		}
		if err := rows.Err(); err != nil {
			return err
		}
		if len(lost) > 0 {
			c.s.log.Warn("body files are missing, they will be read again", "count", len(lost))
		}
		return t.forgetBodies(lost)
	})
	if err != nil {
		return err
	}
	for _, path := range files {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("sweep bodies: %w", err)
		}
	}
	return nil
}

// forgetBodies deletes rows and what refers to them.
func (t *tx) forgetBodies(ids []int64) error {
	return inList(ids, nil, func(in string, args []any) error {
		if _, err := t.exec("UPDATE messages SET body = NULL WHERE body IN ("+in+")", args...); err != nil {
			return err
		}
		_, err := t.exec("DELETE FROM bodies WHERE id IN ("+in+")", args...)
		return err
	})
}

// insert adds the row of a placed body.
func (c *bodyCache) insert(t *tx, w *BodyWriter, name string, index []byte, fromClient bool) (BodyID, error) {
	var id int64
	stored := w.frames.stored
	err := t.row([]any{&id}, "INSERT INTO bodies (file, size, stored, from_client, accessed, idx) VALUES (?, ?, ?, ?, ?, ?) RETURNING id",
		name, w.frames.size, stored, intOf(fromClient), c.s.now().Unix(), index)
	t.after = append(t.after, func() { c.add(stored) })
	return BodyID(id), err
}

// release deletes those of the bodies that no message refers to any more. One at least has stopped to.
func (c *bodyCache) release(t *tx, ids []int64) error {
	if len(ids) == 0 {
		return nil
	}
	t.after = append(t.after, c.ahead.forget)
	slices.Sort(ids)
	ids = slices.Compact(ids)
	used := map[int64]bool{}
	err := inList(ids, nil, func(in string, args []any) error {
		list, err := t.ids("SELECT DISTINCT body FROM messages WHERE body IN ("+in+")", args...)
		for _, id := range list {
			used[id] = true
		}
		return err
	})
	if err != nil {
		return err
	}
	ids = slices.DeleteFunc(ids, func(id int64) bool { return used[id] })
	return c.remove(t, ids)
}

// remove deletes rows, and the files once that is committed.
func (c *bodyCache) remove(t *tx, ids []int64) error {
	type file struct {
		id   BodyID
		name string
		size int64
	}
	var files []file
	err := inList(ids, nil, func(in string, args []any) error {
		rows, err := t.query("SELECT id, file, stored FROM bodies WHERE id IN ("+in+")", args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id int64
			var f file
			if err := rows.Scan(&id, &f.name, &f.size); err != nil {
				return err
			}
			f.id = BodyID(id)
			files = append(files, f)
		}
		return rows.Err()
	})
	if err != nil {
		return err
	}
	if err := t.forgetBodies(ids); err != nil {
		return err
	}
	t.after = append(t.after, func() {
		c.ahead.forget()
		for _, f := range files {
			c.add(-f.size)
			c.unlink(f.id, f.name)
		}
	})
	return nil
}

// drop forgets a body that turned out to be lost or damaged.
func (c *bodyCache) drop(ctx context.Context, id BodyID, why error) error {
	c.s.log.Warn("kept body cannot be read, it will be read from Graph again", "body", int64(id), "err", why)
	return c.s.db.write(ctx, "drop body", func(t *tx) error { return c.remove(t, []int64{int64(id)}) })
}

func (c *bodyCache) add(n int64) {
	c.mu.Lock()
	c.total += n
	c.mu.Unlock()
}

func (c *bodyCache) setStaged(id BodyID, on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if on {
		c.staged[id] = true
	} else {
		delete(c.staged, id)
	}
}

// unlink removes a file whose row is gone, now or when it is closed.
func (c *bodyCache) unlink(id BodyID, name string) {
	c.mu.Lock()
	delete(c.touched, id)
	delete(c.staged, id)
	inUse := c.open[id] > 0
	if inUse {
		c.doomed[id] = name
	}
	c.mu.Unlock()
	if !inUse {
		c.removeFile(name)
	}
}

func (c *bodyCache) removeFile(name string) {
	// A file that stays for now goes when the store is opened again.
	if err := os.Remove(c.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.s.log.Warn("body file cannot be removed", "err", err)
	}
}

func (c *bodyCache) acquire(id BodyID) {
	c.mu.Lock()
	c.open[id]++
	c.mu.Unlock()
}

func (c *bodyCache) unacquire(id BodyID) {
	c.mu.Lock()
	var name string
	if c.open[id]--; c.open[id] == 0 {
		delete(c.open, id)
		name = c.doomed[id]
		delete(c.doomed, id)
	}
	c.mu.Unlock()
	if name != "" {
		c.removeFile(name)
	}
}

// touch notes that a body was opened. The times are written now and then, since a
// transaction for each reading would cost more than the reading.
func (c *bodyCache) touch(ctx context.Context, id BodyID, accessed int64) {
	now := c.s.now().Unix()
	c.mu.Lock()
	if now-max(accessed, c.touched[id]) >= accessStep {
		c.touched[id] = now
	}
	due := len(c.touched) >= accessCount || (len(c.touched) > 0 && now-c.flushed >= accessDelay)
	c.mu.Unlock()
	if !due {
		return
	}
	if err := c.flushAccess(ctx); err != nil && ctx.Err() == nil {
		c.s.log.Warn("access times of bodies cannot be written", "err", err)
	}
}

// flushAccess writes the noted access times.
func (c *bodyCache) flushAccess(ctx context.Context) error {
	c.mu.Lock()
	any := len(c.touched) > 0
	c.mu.Unlock()
	if !any {
		return nil
	}
	return c.s.db.write(ctx, "write access times", c.writeAccess)
}

func (c *bodyCache) writeAccess(t *tx) error {
	c.mu.Lock()
	touched := c.touched
	c.touched = map[BodyID]int64{}
	c.flushed = c.s.now().Unix()
	c.mu.Unlock()
	for id, at := range touched {
		if _, err := t.exec("UPDATE bodies SET accessed = ? WHERE id = ?", at, int64(id)); err != nil {
			return err
		}
	}
	return nil
}

// SetBodyBudget changes Options.BodyBudget. What is over it goes at once.
func (s *Store) SetBodyBudget(ctx context.Context, budget int64) {
	c := s.bodies
	c.mu.Lock()
	c.budget = budget
	c.mu.Unlock()
	c.evict(ctx, 0)
}

// evict removes the bodies used longest ago until a little less than the budget is
// taken, those that clients appended after all others. Open and staged ones and
// keep, the newest, stay. That it cannot do so is logged, not returned: the body
// that made it necessary is kept all the same.
func (c *bodyCache) evict(ctx context.Context, keep BodyID) {
	c.mu.Lock()
	over := c.budget > 0 && c.total > c.budget
	c.mu.Unlock()
	if !over || !c.evicting.TryLock() {
		return
	}
	defer c.evicting.Unlock()
	start := time.Now()
	var victims []int64
	err := c.s.db.write(ctx, "evict bodies", func(t *tx) error {
		if err := c.writeAccess(t); err != nil {
			return err
		}
		var err error
		if victims, err = c.victims(t, keep); err != nil {
			return err
		}
		return c.remove(t, victims)
	})
	if err != nil {
		c.s.log.Warn("bodies cannot be evicted", "err", err)
		return
	}
	c.s.log.Debug("bodies evicted", "count", len(victims), "took", time.Since(start))
}

func (c *bodyCache) victims(t *tx, keep BodyID) ([]int64, error) {
	rows, err := t.query("SELECT id, stored FROM bodies ORDER BY from_client, accessed, id")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	excess := c.total - (c.budget - c.budget/20)
	var list []int64
	for excess > 0 && rows.Next() {
		var id, stored int64
		if err := rows.Scan(&id, &stored); err != nil {
			return nil, err
		}
		if BodyID(id) == keep || c.staged[BodyID(id)] || c.open[BodyID(id)] > 0 {
			continue
		}
		list = append(list, id)
		excess -= stored
	}
	return list, rows.Err()
}
