package syncer

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"postern/internal/fuzzcorpus"
)

func TestPlace(t *testing.T) {
	wk := map[string]string{rootName: "root", "inbox": "i", "sentitems": "s", "conversationhistory": "c"}
	l := &layout{wellKnown: wk, nodes: map[string]node{
		"i": {Name: "Posteingang", Parent: "root"},
		"s": {Name: "Gesendete Elemente", Parent: "root"},
		"c": {Name: "Aufgezeichnete Unterhaltungen", Parent: "root"}, "c1": {Name: "below", Parent: "c"},
		"h": {Name: "hidden", Parent: "root", Hidden: true},
		"a": {Name: "Twin", Parent: "root"}, "b": {Name: "Twin", Parent: "root"},
		"x": {Name: "inbox", Parent: "root"}, "y": {Name: "SENT", Parent: "root"}, "z": {Name: "Shared", Parent: "root"},
		"p": {Name: "a/b\x01", Parent: "i"}, "q": {Name: "", Parent: "p"},
		"o": {Name: "elsewhere", Parent: "recoverable root"},
	}}
	names := func(have map[string]string) map[string]string {
		out := make(map[string]string)
		for id, p := range l.place(have) {
			out[id] = p.name
		}
		return out
	}
	got := names(nil)
	want := map[string]string{"i": "INBOX", "s": "Sent", "a": "Twin", "b": "Twin (2)", "x": "inbox (2)", "y": "SENT (2)",
		"z": "Shared (2)", "p": "INBOX/a_b_", "q": "INBOX/a_b_/_"}
	if !maps.Equal(got, want) {
		t.Errorf("places = %v, want %v", got, want)
	}
	// Whoever had a name keeps it, whatever comes or goes.
	have := map[string]string{"a": "Twin (2)", "b": "Twin"}
	if got := names(have); got["a"] != "Twin (2)" || got["b"] != "Twin" {
		t.Errorf("names were swapped: %v", got)
	}
	delete(l.nodes, "b")
	if got := names(have); got["a"] != "Twin (2)" {
		t.Errorf("a lost its name: %v", got)
	}
	// A new name is followed, and takes the children along.
	l.nodes["p"] = node{Name: "new", Parent: "a"}
	if got := names(maps.Clone(want)); got["q"] != "Twin/new/_" {
		t.Errorf("after moving: %v", got)
	}
	// Without the root's id the top is whatever hangs below nothing known.
	delete(wk, rootName)
	if got := names(nil); got["i"] != "INBOX" || got["o"] != "elsewhere" {
		t.Errorf("without root: %v", got)
	}
	// A loop, should Graph ever describe one, hangs nothing.
	l.nodes["u"], l.nodes["v"] = node{Name: "u", Parent: "v"}, node{Name: "v", Parent: "u"}
	names(nil)
}

func FuzzPlace(f *testing.F) {
	f.Add("inbox\x00Twin\x00Twin\x00a/b\x00Twin (2)", uint8(3))
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, text string, shape uint8) {
		l := &layout{wellKnown: map[string]string{rootName: "root", "inbox": "0"}, nodes: map[string]node{}}
		for i, name := range strings.Split(text, "\x00") {
			if i == 50 {
				break
			}
			parent := "root"
			if i > 0 && i%int(shape%7+1) == 0 {
				parent = fmt.Sprint(i - 1)
			}
			l.nodes[fmt.Sprint(i)] = node{Name: name, Parent: parent}
		}
		first := l.place(nil)
		if len(first) != len(l.nodes) {
			t.Fatalf("%d places for %d folders", len(first), len(l.nodes))
		}
		have := make(map[string]string)
		seen := make(map[string]bool)
		for id, p := range first {
			if seen[p.name] || p.name == "" || strings.ContainsFunc(p.name, func(r rune) bool { return r < ' ' }) {
				t.Fatalf("bad or repeated name %q", p.name)
			}
			if id != "0" && strings.EqualFold(p.name, "INBOX") {
				t.Fatalf("folder %s is called %q", id, p.name)
			}
			seen[p.name] = true
			have[id] = p.name
		}
		if again := l.place(have); !maps.Equal(first, again) {
			t.Fatalf("names changed: %v, then %v", slices.Collect(maps.Values(first)), slices.Collect(maps.Values(again)))
		}
	})
}
