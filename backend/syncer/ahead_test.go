package syncer

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestAhead(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct {
		pages           int
		readErr         error
		failAt          int // page that cannot be applied; 0: none
		applied, atMost int // pages applied, and read
		err             error
	}{
		{pages: 0},
		{pages: 5, applied: 5, atMost: 5},
		{pages: 5, readErr: broken, applied: 5, atMost: 5, err: broken},
		{pages: 5, failAt: 1, applied: 0, atMost: 3, err: errEnough},
		{pages: 5, failAt: 5, applied: 4, atMost: 5, err: errEnough},
	} {
		t.Run(fmt.Sprint(tt), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				read, applied := 0, 0
				err := ahead(t.Context(), func(ctx context.Context, yield func(int) error) error {
					for i := range tt.pages {
						time.Sleep(time.Second)
						read++
						if err := yield(i + 1); err != nil {
							return err
						}
					}
					return tt.readErr
				}, func(page int) error {
					if page != applied+1 {
						t.Errorf("page %d after %d", page, applied)
					}
					time.Sleep(time.Second)
					if page == tt.failAt {
						return errEnough
					}
					applied++
					return nil
				})
				if err != tt.err || applied != tt.applied || read > tt.atMost {
					t.Errorf("%d pages read, %d applied, %v", read, applied, err)
				}
			})
		})
	}
}

// TestAheadOverlaps reads a page while another is applied.
func TestAheadOverlaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		err := ahead(t.Context(), func(_ context.Context, yield func(int) error) error {
			for i := range 10 {
				time.Sleep(time.Second)
				if err := yield(i); err != nil {
					return err
				}
			}
			return nil
		}, func(int) error { time.Sleep(time.Second); return nil })
		if took := time.Since(began); err != nil || took != 11*time.Second {
			t.Errorf("%v, %v", took, err)
		}
	})
}
