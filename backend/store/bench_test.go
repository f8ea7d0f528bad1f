package store

import (
	"fmt"
	"testing"
	"time"
)

// fillFolder puts n messages into a folder by pages of 1,000.
func fillFolder(tb testing.TB, s *Store, f *Folder, n int) {
	tb.Helper()
	for at := 0; at < n; at += 1000 {
		page := make([]Remote, min(1000, n-at))
		for i := range page {
			page[i] = remote(at + i)
			if i%10 == 0 {
				page[i].Keywords = &[]string{"Red", "Project-" + fmt.Sprint(i%50)}
			}
		}
		apply(tb, s, f, page)
	}
}

func BenchmarkMessages100k(b *testing.B) {
	s, f := newFolder(b)
	fillFolder(b, s, f, 100_000)
	b.ReportAllocs()
	for b.Loop() {
		if n := len(messages(b, s, f.ID)); n != 100_000 {
			b.Fatal(n)
		}
	}
}

// BenchmarkApplyPage adds pages of 1,000 new messages to a folder that has 20,000.
func BenchmarkApplyPage(b *testing.B) {
	s, f := newFolder(b)
	fillFolder(b, s, f, 20_000)
	next := 1_000_000
	page := make([]Remote, 1000)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		for i := range page {
			page[i] = remote(next)
			next++
		}
		b.StartTimer()
		apply(b, s, f, page)
	}
}

// BenchmarkApplySame applies a page that changes nothing.
func BenchmarkApplySame(b *testing.B) {
	s, f := newFolder(b)
	page := make([]Remote, 1000)
	for i := range page {
		page[i] = remote(i)
	}
	apply(b, s, f, page)
	for b.Loop() {
		apply(b, s, f, page)
	}
}

// BenchmarkChangeFlags10k is STORE 1:* +FLAGS \Seen, and back.
func BenchmarkChangeFlags10k(b *testing.B) {
	s, f := newFolder(b)
	fillFolder(b, s, f, 10_000)
	list := messages(b, s, f.ID)
	changes := make([]FlagChange, len(list))
	on := false
	for b.Loop() {
		on = !on
		for i, m := range list {
			changes[i] = FlagChange{UID: m.UID, Set: FlagFlagged}
			if !on {
				changes[i] = FlagChange{UID: m.UID, Clear: FlagFlagged}
			}
		}
		if _, _, err := s.ChangeFlags(b.Context(), f.ID, changes); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpenBody opens a kept body of 20 KB and reads it.
func BenchmarkOpenBody(b *testing.B) {
	s, f := newFolder(b)
	apply(b, s, f, []Remote{remote(1)})
	commitBody(b, s, messageID(f.ID, 1), make([]byte, 20_000), false)
	buf := make([]byte, 20_000)
	for b.Loop() {
		body, err := s.Body(b.Context(), messageID(f.ID, 1))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := body.ReadAt(buf, 0); err != nil {
			b.Fatal(err)
		}
		body.Close()
	}
}

// BenchmarkCommitBody keeps a body of 50 KB; nearly all of it is waiting for the disk.
func BenchmarkCommitBody(b *testing.B) {
	s, f := newFolder(b)
	apply(b, s, f, []Remote{remote(1)})
	data := make([]byte, 50_000)
	for b.Loop() {
		commitBody(b, s, messageID(f.ID, 1), data, false)
	}
}

// BenchmarkCommitText is what CommitBody is for a text that was read from Graph, with its header.
func BenchmarkCommitText(b *testing.B) {
	s, f := newFolder(b)
	apply(b, s, f, []Remote{remote(1)})
	data := make([]byte, 50_000)
	for b.Loop() {
		commitText(b, s, messageID(f.ID, 1), data)
	}
}

func BenchmarkOutboxInsertClaimSent(b *testing.B) {
	s, _ := newFolder(b)
	o := s.Outbox()
	for b.Loop() {
		sub, err := o.Insert(b.Context(), Submission{Mailbox: "a@b.example", NextAttempt: time.Now()})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := o.Claim(b.Context(), sub.ID); err != nil {
			b.Fatal(err)
		}
		if _, err := o.Update(b.Context(), sub.ID, func(s *Submission) error { s.State = StateSent; return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
