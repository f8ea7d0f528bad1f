package imapd

import (
	"maps"
	"sync"
	"testing"
	"time"
)

// Whoever counts commands is told of each, under names that clients cannot make up.
func TestObserve(t *testing.T) {
	w := newWorld(t, Limits{})
	var mu sync.Mutex
	told := make(map[string]int)
	w.server.opts.Observe = func(command, outcome string, took time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		told[command+" "+outcome]++
		if took < 0 {
			t.Errorf("%s took %v", command, took)
		}
	}
	c := w.login("alice")
	if open, in := w.server.Sessions(); open != 1 || in != 1 {
		t.Errorf("%d open, %d logged in", open, in)
	}
	c.do("SELECT nowhere")
	c.ok("SELECT INBOX")
	c.do("UID FETCH 1:* (FLAGS)")
	c.do("UID FROBNICATE 1")
	c.do("XSECRET-NAME-42")
	c.do("FETCH bogus")
	c.do("LOGOUT")
	want := map[string]int{"LOGIN ok": 1, "SELECT ok": 1, "SELECT no": 1, "UID FETCH ok": 1, "UNKNOWN bad": 2, "FETCH bad": 1, "LOGOUT ok": 1}
	mu.Lock()
	defer mu.Unlock()
	if !maps.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
}
