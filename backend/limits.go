package backend

import (
	"fmt"
	"sync"
	"time"

	"postern/backend/outbox"
)

// rates bounds how many messages a login may submit in a minute.
type rates struct {
	mu      sync.Mutex
	buckets map[string]*bucket
}

// bucket holds what a login may still submit. It fills evenly, up to one minute's worth.
type bucket struct {
	left float64
	at   time.Time
}

// take reports whether name may submit one more message, and takes it from what it may if use is set.
func (r *rates) take(name string, perMinute int, use bool, now time.Time) bool {
	if perMinute <= 0 {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.buckets[name]
	if b == nil {
		if r.buckets == nil {
			r.buckets = make(map[string]*bucket)
		}
		b = &bucket{left: float64(perMinute)}
		r.buckets[name] = b
	} else {
		b.left = min(float64(perMinute), b.left+now.Sub(b.at).Minutes()*float64(perMinute))
	}
	b.at = now
	if b.left < 1 {
		return false
	}
	if use {
		b.left--
	}
	return true
}

func (b *Backend) checkRate(login *Login, use bool) error {
	n := login.Rate
	if n == 0 {
		n = b.config().Rate
	}
	if b.rates.take(foldUser(login.Username), n, use, time.Now()) {
		return nil
	}
	return &Error{Kind: TooMany, Op: opSubmit, Text: fmt.Sprintf("The login %s may send %d messages a minute, try again later", login.Username, n),
		Err: &outbox.Error{Status: "4.7.1", Err: fmt.Errorf("login %s is over its rate of %d a minute", login.Username, n)}}
}

// CheckRoom reports whether login may submit a message now, of size bytes as far as the client has
// told: its rate must not be used up, nor the disk of the queue.
func (b *Backend) CheckRoom(login *Login, size int64) error {
	if err := b.checkRate(login, false); err != nil {
		return err
	}
	return b.checkSpace(size)
}

// spaceStep is how many bytes of a message are written before the disk is looked at again.
const spaceStep = 8 << 20

// checkSpace keeps the queue's disk from running full: a full disk would stop what is queued already, too.
func (b *Backend) checkSpace(size int64) error {
	free, err := freeSpace(b.store.Outbox().SpoolDir())
	if err != nil {
		b.log.Warn("free space is not known", "err", err)
		return nil
	}
	// A message above the direct way is taken apart on its way out, in memory, so its own size is all it needs.
	if free-size >= b.config().MinFree {
		return nil
	}
	return noSpace(fmt.Errorf("%d bytes are free on the disk of the queue, %d are to stay so, %d asked for", free, b.config().MinFree, size))
}

// noSpace is the error for a full disk.
func noSpace(cause error) error {
	return &Error{Kind: OverQuota, Op: opSubmit, Text: "The server's disk is full, try again later",
		Err: &outbox.Error{Status: "4.3.1", Err: cause}}
}

// storeError is the error for what could not be written.
func storeError(err error) error {
	if isNoSpace(err) {
		return noSpace(err)
	}
	return &Error{Kind: Internal, Op: opSubmit, Err: err}
}
