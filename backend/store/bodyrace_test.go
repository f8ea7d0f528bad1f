package store

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
)

// Messages are expunged while others read them or their copies, which share the body's file: a copy keeps its bytes, and a
// body that goes while it is being opened is simply not there any more.
func TestExpungeWhileOpening(t *testing.T) {
	var log bytes.Buffer
	var mu sync.Mutex
	logger := slog.New(slog.NewTextHandler(writerFunc(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return log.Write(p)
	}), nil))
	s, f := newFolder(t, func(o *Options) { o.Logger = logger })
	other := putFolder(t, s, "Other")
	for n := range 150 {
		apply(t, s, f, []Remote{remote(n)})
		list := messages(t, s, f.ID)
		m := list[len(list)-1]
		commitBody(t, s, m.ID, []byte("text of a message"), true)
		_, uids, err := s.Copy(t.Context(), f.ID, other.ID, []Moved{{UID: m.UID, NewGraphID: graphID(1_000_000 + n)}})
		if err != nil {
			t.Fatal(err)
		}
		both := []MessageID{m.ID, messageID(other.ID, uids[m.UID])}
		if n%2 == 0 {
			both = both[:1]
			apply(t, s, other, nil, graphID(1_000_000+n))
		}
		var wg sync.WaitGroup
		begin := make(chan struct{})
		for range 4 {
			for _, id := range both {
				wg.Go(func() {
					<-begin
					for range 20 {
						b, err := s.Body(t.Context(), id)
						if errors.Is(err, ErrNoBody) && id == m.ID {
							return
						}
						if err != nil {
							t.Errorf("message %d: %v", id, err)
							return
						}
						if text, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size())); err != nil || string(text) != "text of a message" {
							t.Errorf("message %d: %q, %v", id, text, err)
						}
						b.Close()
					}
				})
			}
		}
		wg.Go(func() {
			<-begin
			apply(t, s, f, nil, graphID(n))
		})
		close(begin)
		wg.Wait()
	}
	if strings.Contains(log.String(), "cannot be read") {
		t.Errorf("the log cries wolf:\n%s", log.String())
	}
	checkBodies(t, s)
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
