package syncer

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/emersion/go-imap/v2"
)

// Keywords and categories. A category is any text; a keyword is an atom (RFC 9051
// section 9: no blank, control, non-ASCII character, nor any of (){%*"\]). A blank
// becomes an underscore, as mail programs write it, and whatever else an atom cannot
// hold becomes =XX, one per UTF-8 byte. A real underscore is then =5F, and an equals
// sign needs escaping only where two capital hex digits follow.

const upperHex = "0123456789ABCDEF"

// Keyword returns the keyword that stands for a category.
func Keyword(category string) imap.Flag {
	var b strings.Builder
	for i := 0; i < len(category); i++ {
		c := category[i]
		switch {
		case c == ' ':
			b.WriteByte('_')
		case c == '=' && isEscape(category[i:]), !isAtomChar(c), c == '_',
			c == '$' && i == 0 && strings.EqualFold(category, string(imap.FlagForwarded)):
			b.WriteByte('=')
			b.WriteByte(upperHex[c>>4])
			b.WriteByte(upperHex[c&15])
		default:
			b.WriteByte(c)
		}
	}
	return imap.Flag(b.String())
}

// Category returns the category a keyword stands for. Category(Keyword(c)) is c for
// every c that is valid UTF-8.
func Category(keyword imap.Flag) string {
	s := string(keyword)
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '_':
			b.WriteByte(' ')
		case s[i] == '=' && isEscape(s[i:]):
			b.WriteByte(byte(strings.IndexByte(upperHex, s[i+1])<<4 | strings.IndexByte(upperHex, s[i+2])))
			i += 2
		default:
			b.WriteByte(s[i])
		}
	}
	if !utf8.ValidString(b.String()) {
		return s
	}
	return b.String()
}

// CanonicalKeyword returns the form in which a keyword comes back from Graph, so that
// a client is shown at once what it will be shown later.
func CanonicalKeyword(keyword imap.Flag) imap.Flag { return Keyword(Category(keyword)) }

// isEscape reports whether s starts with "=XX", X a capital hex digit.
func isEscape(s string) bool {
	return len(s) >= 3 && s[0] == '=' && strings.IndexByte(upperHex, s[1]) >= 0 && strings.IndexByte(upperHex, s[2]) >= 0
}

func isAtomChar(c byte) bool {
	return c > ' ' && c < 0x7f && strings.IndexByte(`(){%*"\]`, c) < 0
}

// keywordsOf turns categories into a sorted set of keywords.
func keywordsOf(categories []string) []string {
	ks := make([]string, 0, len(categories))
	for _, c := range categories {
		if c != "" {
			ks = append(ks, string(Keyword(c)))
		}
	}
	slices.Sort(ks)
	return slices.Compact(ks)
}

// categoriesOf is the inverse of keywordsOf. It never returns nil: Graph takes null for
// "unchanged" but an empty list for "none".
func categoriesOf(keywords []string) []string {
	cs := make([]string, 0, len(keywords))
	for _, k := range keywords {
		cs = append(cs, Category(imap.Flag(k)))
	}
	return cs
}
