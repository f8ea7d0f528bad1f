package syncer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"postern/backend/graph"
	"postern/backend/store"
)

// Status says how the account is doing.
type Status struct {
	Ready    bool      // the folder tree has been read
	LastSync time.Time // of the last success
	Err      error     // of the last failure, nil after a success
	Since    time.Time // when Err first occurred
	Op       string    // what failed
}

// Status returns how the account is doing.
func (s *Syncer) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.status
	st.Ready = s.tree.runs > 0
	return st
}

// record notes a job's end for Status and the log.
func (s *Syncer) record(err error, op string) {
	if errors.Is(err, context.Canceled) || errors.Is(err, store.ErrNotFound) {
		return // stopping, or a folder that has just gone
	}
	s.mu.Lock()
	before := s.status.Err
	if err == nil {
		s.status.LastSync, s.status.Err, s.status.Op = time.Now(), nil, ""
	} else {
		if before == nil {
			s.status.Since = time.Now()
		}
		s.status.Err, s.status.Op = err, op
	}
	s.mu.Unlock()
	switch {
	case err != nil && (before == nil || sameness(before) != sameness(err)):
		s.log.Warn("Graph cannot be used", "op", op, "err", err)
	case err == nil && before != nil:
		s.log.Info("Graph works again")
	}
}

// sameness is what two errors have in common when they need be logged only once; texts hold the request's id.
func sameness(err error) string {
	if e, ok := errors.AsType[*graph.Error](err); ok {
		return fmt.Sprint(e.Status, e.Code)
	}
	return err.Error()
}
