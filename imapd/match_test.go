package imapd

import (
	"strings"
	"testing"
	"time"

	"postern/internal/fuzzcorpus"
)

func TestMatch(t *testing.T) {
	for _, tt := range []struct {
		pattern, name string
		want          bool
	}{
		{"*", "INBOX", true},
		{"*", "a/b/c", true},
		{"%", "a", true},
		{"%", "a/b", false},
		{"%/%", "a/b", true},
		{"%/%", "a/b/c", false},
		{"*/%", "a/b/c", true},
		{"a*c", "abbc", true},
		{"a*c", "ac", true},
		{"a*c", "ab", false},
		{"a%c", "a/c", false},
		{"a%*c", "a/c", true},
		{"a*%c", "a/c", true},
		{"%%%", "abc", true},
		{"", "", true},
		{"", "a", false},
		{"*", "", true},
		{"inbox", "INBOX", true},
		{"iNb*", "INBOX", true},
		{"%x", "INBOX", true},
		{"inbox/Foo", "INBOX/Foo", true},
		{"inbox/foo", "INBOX/Foo", false},
		{"inb*/Foo", "INBOX/Foo", true},
		{"inb%", "INBOXES", false},
		{"INB%", "INBOXES", true},
		{"foo", "Foo", false},
		{"*a*b*c*", "xxaxxbxxcxx", true},
		{"*a*b*c*", "xxaxxcxxbxx", false},
		{"Gr*e", "Grüße", true},
	} {
		if got := newPattern(tt.pattern).match(tt.name); got != tt.want {
			t.Errorf("pattern %q, name %q: %v", tt.pattern, tt.name, got)
		}
	}
}

// TestMatchTime: go-imap needs 21 s of processor time for *a*a*a*a*a*a*b against
// a name of 72 characters, and twelve times that for each further *a.
func TestMatchTime(t *testing.T) {
	start := time.Now()
	name := strings.Repeat("a", 1000)
	if newPattern(strings.Repeat("*a", 500) + "*b").match(name) {
		t.Error("matched")
	}
	if newPattern(strings.Repeat("*a", 1<<20)).match(name) {
		t.Error("matched")
	}
	if !newPattern(strings.Repeat("%*", 1<<19)).match(name) {
		t.Error("wildcards alone did not match")
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("took %v", took)
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("a*%b", "a/xb")
	f.Add("inb*x", "INBOX")
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, p, name string) {
		if len(p) > 12 || len(name) > 12 || strings.ContainsAny(strings.ToLower(p+name), "inbox") {
			return
		}
		if got, want := newPattern(p).match(name), slowMatch(p, name); got != want {
			t.Errorf("pattern %q, name %q: %v, want %v", p, name, got, want)
		}
	})
}

// slowMatch follows the words of RFC 3501 section 6.3.8.
func slowMatch(p, name string) bool {
	if p == "" {
		return name == ""
	}
	switch p[0] {
	case '*', '%':
		for i := 0; i <= len(name); i++ {
			if slowMatch(p[1:], name[i:]) {
				return true
			}
			if i < len(name) && p[0] == '%' && name[i] == '/' {
				return false
			}
		}
		return false
	}
	return name != "" && name[0] == p[0] && slowMatch(p[1:], name[1:])
}
