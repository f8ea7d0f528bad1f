package syncer

import "context"

// Answers returns nil as soon as the Run loop has come round, else why ctx ended. [ErrStopped] once Run has returned.
func (s *Syncer) Answers(ctx context.Context) error {
	s.mu.Lock()
	stopped := s.stopped
	s.mu.Unlock()
	if stopped {
		return ErrStopped
	}
	select {
	case s.pings <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
