package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
)

// TestConcurrent lets everything happen at once and then counts. It is of most use
// with -race.
func TestConcurrent(t *testing.T) {
	s, a := newFolder(t, func(o *Options) { o.BodyBudget = 50_000 })
	b := putFolder(t, s, "B")
	ctx := t.Context()
	var wg sync.WaitGroup
	const rounds = 60
	do := func(fn func(n int) error) {
		wg.Go(func() {
			for n := range rounds {
				if err := fn(n); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	do(func(n int) error {
		_, err := s.Apply(ctx, a.ID, []Remote{remote(2 * n), remote(2*n + 1)}, nil, &SyncUpdate{DeltaLink: ptr(fmt.Sprint(n))})
		return err
	})
	do(func(n int) error {
		_, err := s.Apply(ctx, b.ID, []Remote{remote(1000 + n)}, []GraphID{graphID(1000 + n - 7)}, nil)
		return err
	})
	for g := range 2 {
		do(func(n int) error {
			_, _, err := s.ChangeFlags(ctx, a.ID, []FlagChange{{UID: imap.UID(n + 1), Set: Flags(1 << (g + n%5))}, {UID: imap.UID(n / 2), AddKeywords: []string{"x"}}})
			return err
		})
		do(func(n int) error {
			w, err := s.NewBody()
			if err != nil {
				return err
			}
			if _, err := io.WriteString(w, strings.Repeat(fmt.Sprint(n), 3000)); err != nil {
				return err
			}
			_, err = w.Commit(ctx, messageID(a.ID, imap.UID(n/2+1)), nil, n%4 == 0)
			if errors.Is(err, ErrNotFound) {
				err = nil
			}
			return err
		})
		do(func(n int) error {
			body, err := s.Body(ctx, messageID(a.ID, imap.UID(n/3+1)))
			if errors.Is(err, ErrNoBody) {
				return nil
			}
			if err != nil {
				return err
			}
			defer body.Close()
			_, err = io.Copy(io.Discard, io.NewSectionReader(body, 0, body.Size()))
			return err
		})
	}
	do(func(n int) error {
		list, err := s.Pending(ctx, a.Account, 5)
		if err != nil {
			return err
		}
		var results []PushResult
		for _, m := range list {
			results = append(results, PushResult{ID: m.ID, PendingSeq: m.PendingSeq})
		}
		_, err = s.Pushed(ctx, results)
		return err
	})
	do(func(n int) error {
		_, _, _, err := s.Move(ctx, a.ID, b.ID, []Moved{{imap.UID(3 * n), graphID(3*n - 1)}})
		return err
	})
	do(func(n int) error {
		list, err := s.Messages(ctx, a.ID)
		for i := 1; i < len(list); i++ {
			if list[i].UID <= list[i-1].UID {
				t.Error("uids are not ascending")
			}
		}
		return err
	})
	do(func(n int) error {
		f, err := s.Folder(ctx, a.ID)
		if err == nil && f.Unseen > f.Messages {
			t.Errorf("unseen %d of %d", f.Unseen, f.Messages)
		}
		return err
	})
	do(func(n int) error {
		sub, err := s.Outbox().Insert(ctx, Submission{})
		if err != nil {
			return err
		}
		_, err = s.Outbox().Claim(ctx, sub.ID)
		return err
	})
	do(func(n int) error {
		// One that gives up while it waits for its turn.
		ctx, cancel := context.WithTimeout(ctx, time.Duration(n)*50*time.Microsecond)
		defer cancel()
		err := s.SetAccountState(ctx, a.Account, "k", fmt.Sprint(n))
		if errors.Is(err, context.DeadlineExceeded) {
			err = nil
		}
		return err
	})
	wg.Wait()
	for _, f := range []*Folder{a, b} {
		checkCounters(t, s, f.ID)
	}
	checkBodies(t, s)
}

// checkCounters counts a folder's messages.
func checkCounters(t testing.TB, s *Store, id FolderID) {
	t.Helper()
	f, err := s.Folder(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	var n, unseen, deleted int
	var size int64
	for _, m := range messages(t, s, id) {
		n++
		if m.Flags&FlagSeen == 0 {
			unseen++
		}
		if m.Flags&FlagDeleted != 0 {
			deleted++
		}
		size += m.Size
		if m.UID >= f.UIDNext || m.ModSeq > f.HighestModSeq {
			t.Errorf("uid %d modseq %d in a folder at %d %d", m.UID, m.ModSeq, f.UIDNext, f.HighestModSeq)
		}
	}
	if f.Messages != n || f.Unseen != unseen || f.DeletedCount != deleted || f.SizeSum != size {
		t.Errorf("folder says %d %d %d %d, counted %d %d %d %d", f.Messages, f.Unseen, f.DeletedCount, f.SizeSum, n, unseen, deleted, size)
	}
}
