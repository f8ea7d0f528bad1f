package syncer

import "context"

// ahead has read yield pages, each of which apply takes while the next one is being read. When apply fails reading ends, and
// that is the error; else it is that of read, after what was read before has been applied.
func ahead[T any](ctx context.Context, read func(ctx context.Context, yield func(T) error) error, apply func(T) error) error {
	reading, stop := context.WithCancel(ctx)
	defer stop()
	pages := make(chan T) // not buffered: one page is applied, one is read, and no more are in memory
	ended := make(chan error, 1)
	go func() {
		defer close(pages)
		ended <- read(reading, func(page T) error {
			select {
			case pages <- page:
				return nil
			case <-reading.Done():
				return reading.Err()
			}
		})
	}()
	var failed error
	for page := range pages {
		if failed == nil {
			if failed = apply(page); failed != nil {
				stop()
			}
		}
	}
	if err := <-ended; failed == nil {
		return err
	}
	return failed
}
