package outbox

import (
	"context"
	"errors"
)

// ErrStopped is answered while Run does not run.
var ErrStopped = errors.New("sending has stopped")

// Answers returns nil as soon as the Run loop has come round, else why ctx ended. [ErrStopped] while Run does not run.
func (q *Queue) Answers(ctx context.Context) error {
	q.mu.Lock()
	running := q.running
	q.mu.Unlock()
	if !running {
		return ErrStopped
	}
	select {
	case q.pings <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
