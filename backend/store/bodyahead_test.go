package store

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/emersion/go-imap/v2"
)

// TestBodiesInOrder reads bodies one after another, whose rows are read ahead, while they change.
func TestBodiesInOrder(t *testing.T) {
	s, f := newFolder(t)
	var rows []Remote
	for i := range 40 {
		rows = append(rows, remote(i+1))
	}
	apply(t, s, f, rows)
	for i := range 40 {
		commitBody(t, s, messageID(f.ID, imap.UID(i+1)), fmt.Appendf(nil, "body %d", i+1), false)
	}
	read := func(uid imap.UID) string {
		t.Helper()
		b, err := s.BodyOf(t.Context(), f.ID, uid)
		if errors.Is(err, ErrNoBody) {
			return "none"
		}
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		text, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	expect := func(uid imap.UID, want string) {
		t.Helper()
		if got := read(uid); got != want {
			t.Errorf("UID %d: %q, want %q", uid, got, want)
		}
	}
	expect(1, "body 1")
	expect(2, "body 2")
	if n := len(s.bodies.ahead.rows); n != bodiesAhead-1 {
		t.Errorf("%d rows are read ahead", n)
	}
	expect(3, "body 3")

	// A copy keeps the file of what is removed, and of what gets another body.
	if _, _, err := s.Copy(t.Context(), f.ID, f.ID, []Moved{{UID: 4, NewGraphID: "copy-4"}, {UID: 5, NewGraphID: "copy-5"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Apply(t.Context(), f.ID, nil, []GraphID{remote(4).GraphID}, nil); err != nil {
		t.Fatal(err)
	}
	expect(4, "none")
	commitBody(t, s, messageID(f.ID, 5), []byte("another"), false)
	expect(5, "another")
	expect(6, "body 6")
	expect(7, "body 7")
	expect(41, "body 4")
	expect(42, "body 5")

	// What was read before a change must not be kept after it.
	_, age := s.bodies.ahead.opened(messageID(f.ID, 8))
	row, err := s.bodyRow(t.Context(), messageID(f.ID, 9))
	if err != nil {
		t.Fatal(err)
	}
	commitBody(t, s, messageID(f.ID, 9), []byte("newer"), false)
	s.bodies.ahead.keep(messageID(f.ID, 9), row, age)
	expect(9, "newer")
	for uid := imap.UID(10); uid <= 40; uid++ {
		expect(uid, fmt.Sprintf("body %d", uid))
	}
}

// BenchmarkBodiesInOrder opens bodies one after another.
func BenchmarkBodiesInOrder(b *testing.B) {
	s, f := newFolder(b)
	const n = 200
	var rows []Remote
	for i := range n {
		rows = append(rows, remote(i+1))
	}
	apply(b, s, f, rows)
	for i := range n {
		commitBody(b, s, messageID(f.ID, imap.UID(i+1)), make([]byte, 5000), false)
	}
	for i := 0; b.Loop(); i++ {
		body, err := s.BodyOf(b.Context(), f.ID, imap.UID(i%n+1))
		if err != nil {
			b.Fatal(err)
		}
		body.Close()
	}
}
