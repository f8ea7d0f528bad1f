package outbox

import "sync"

// sharedSync lets messages that arrive together share one sync of the spool folder:
// a sync that begins after a file was made covers it.
type sharedSync struct {
	mu      sync.Mutex
	waiting []chan error
	busy    bool
}

// syncDir returns when dir has been synced by a sync that began after the call.
func (s *sharedSync) syncDir(dir string) error {
	done := make(chan error, 1)
	s.mu.Lock()
	s.waiting = append(s.waiting, done)
	if !s.busy {
		s.busy = true
		go s.run(dir)
	}
	s.mu.Unlock()
	return <-done
}

// run syncs dir until nobody waits for it.
func (s *sharedSync) run(dir string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.waiting) > 0 {
		batch := s.waiting
		s.waiting = nil
		s.mu.Unlock()
		err := syncDir(dir)
		for _, d := range batch {
			d <- err
		}
		s.mu.Lock()
	}
	s.busy = false
}
