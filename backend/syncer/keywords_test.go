package syncer

import (
	"testing"
	"unicode/utf8"

	"github.com/emersion/go-imap/v2"

	"postern/internal/fuzzcorpus"
)

func TestKeyword(t *testing.T) {
	for _, tt := range []struct{ category, keyword string }{
		{"Red category", "Red_category"},
		{"Red_category", "Red=5Fcategory"},
		{"$label1", "$label1"},
		{"$Forwarded", "=24Forwarded"},
		{"$FORWARDED", "=24FORWARDED"},
		{"Büro", "B=C3=BCro"},
		{`\Seen`, "=5CSeen"},
		{"a=b", "a=b"},
		{"a=3Db", "a=3D3Db"},
		{"100%", "100=25"},
		{"(x)[y]{z}", "=28x=29[y=5D=7Bz}"},
		{"tab\tnul\x00", "tab=09nul=00"},
	} {
		if got := Keyword(tt.category); string(got) != tt.keyword {
			t.Errorf("Keyword(%q) = %q, want %q", tt.category, got, tt.keyword)
		}
		if got := Category(imap.Flag(tt.keyword)); got != tt.category {
			t.Errorf("Category(%q) = %q, want %q", tt.keyword, got, tt.category)
		}
	}
}

func FuzzKeyword(f *testing.F) {
	for _, s := range []string{"a b", "_", "=5F", "==5F", "=5", "é=C3", "\xff", "$forwarded", "=FF"} {
		f.Add(s)
	}
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, s string) {
		k := Keyword(s)
		for i := range len(k) {
			if !isAtomChar(k[i]) {
				t.Fatalf("Keyword(%q) = %q is no atom", s, k)
			}
		}
		if utf8.ValidString(s) && Category(k) != s {
			t.Fatalf("Category(Keyword(%q)) = %q", s, Category(k))
		}
		if c := CanonicalKeyword(k); CanonicalKeyword(c) != c {
			t.Fatalf("CanonicalKeyword(%q) = %q is not stable", s, c)
		}
	})
}
