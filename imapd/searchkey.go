package imapd

import (
	"errors"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-message/charset"
	"golang.org/x/text/encoding/charmap"

	"postern/backend"
	"postern/imapd/wire"
)

// searchOp is what one node of a search tests.
type searchOp int

const (
	searchAll searchOp = iota
	searchAnd
	searchOr
	searchNot
	searchSet
	searchFlag
	searchRecent
	searchBefore // of INTERNALDATE, by day
	searchOn
	searchSince
	searchSentBefore // of the Date field, by day
	searchSentOn
	searchSentSince
	searchOlder // than so many seconds
	searchYounger
	searchLarger
	searchSmaller
	searchModSeq
	searchEmailID
	searchThreadID
	searchHeader
	searchBody
	searchText
)

// searchKey is one node of the tree a SEARCH command makes. RFC 9051 section 6.4.4.
type searchKey struct {
	op    searchOp
	keys  []*searchKey // of and, or, not
	set   imap.NumSet
	flag  imap.Flag
	date  time.Time // midnight UTC of the day
	num   uint64
	field string
	text  string // as sent, then decoded

	column int               // of searchHeaders.texts
	sel    selection         // of set
	test   backend.FlagTest  // for flag
	needle []byte            // text made ready by foldSearch
	remote map[imap.UID]bool // what Graph's index found, for messages whose bytes are not kept
}

// searchRequest is a SEARCH command.
type searchRequest struct {
	searchReturn
	charset string
	key     *searchKey
}

const (
	maxSearchDepth = 100
	maxSearchKeys  = 5000
)

// searchParser reads the keys of a SEARCH.
type searchParser struct {
	d    *wire.Decoder
	keys int
}

// parseSearch reads the arguments of SEARCH. Strings are decoded later, by decodeText, for an unknown charset is
// answered NO and not BAD.
func parseSearch(d *wire.Decoder) *searchRequest {
	req := &searchRequest{}
	p := &searchParser{d: d}
	d.Space()
	word := p.word()
	if word == "RETURN" {
		d.Space()
		req.parseReturn(d)
		d.Space()
		word = p.word()
	}
	if word == "CHARSET" {
		d.Space()
		req.charset = d.AString()
		d.Space()
		word = p.word()
	}
	req.key = p.keyList(word)
	return req
}

// keyList reads keys up to the end of the command; the first one's name has been read.
func (p *searchParser) keyList(word string) *searchKey {
	and := &searchKey{op: searchAnd, keys: []*searchKey{p.key(word, 0)}}
	for p.d.TrySpace() {
		and.keys = append(and.keys, p.key(p.word(), 0))
	}
	return and
}

// word reads the name of a key; "" where a set or a list begins.
func (p *searchParser) word() string {
	switch c := p.d.Peek(); {
	case c == '(', c == '*', c == '$', c >= '0' && c <= '9':
		return ""
	}
	return p.d.Word()
}

func (p *searchParser) key(word string, depth int) *searchKey {
	d := p.d
	p.keys++
	if depth > maxSearchDepth || p.keys > maxSearchKeys {
		d.Fail(&wire.LimitError{Text: "search too complex"})
	}
	if d.Err() != nil {
		return &searchKey{}
	}
	switch word {
	case "":
		if d.Peek() == '(' {
			and := &searchKey{op: searchAnd}
			d.List(func() { and.keys = append(and.keys, p.key(p.word(), depth+1)) })
			if len(and.keys) == 0 {
				d.Fail(&wire.SyntaxError{Text: "empty list of search keys"})
			}
			return and
		}
		return &searchKey{op: searchSet, set: d.NumSet(false)}
	case "UID":
		d.Space()
		return &searchKey{op: searchSet, set: d.NumSet(true)}
	case "ALL":
		return &searchKey{op: searchAll}
	case "NOT":
		d.Space()
		return not(p.key(p.word(), depth+1))
	case "OR":
		d.Space()
		a := p.key(p.word(), depth+1)
		d.Space()
		return &searchKey{op: searchOr, keys: []*searchKey{a, p.key(p.word(), depth+1)}}
	case "ANSWERED", "DELETED", "DRAFT", "FLAGGED", "SEEN":
		return hasFlag(word)
	case "UNANSWERED", "UNDELETED", "UNDRAFT", "UNFLAGGED", "UNSEEN":
		return not(hasFlag(word[2:]))
	case "RECENT":
		return &searchKey{op: searchRecent}
	case "OLD":
		return not(&searchKey{op: searchRecent})
	case "NEW":
		return &searchKey{op: searchAnd, keys: []*searchKey{{op: searchRecent}, not(hasFlag("SEEN"))}}
	case "KEYWORD", "UNKEYWORD":
		d.Space()
		k := &searchKey{op: searchFlag, flag: d.Flag()}
		if word == "UNKEYWORD" {
			return not(k)
		}
		return k
	case "BEFORE", "ON", "SINCE", "SENTBEFORE", "SENTON", "SENTSINCE":
		d.Space()
		return &searchKey{op: searchDates[word], date: d.Date()}
	case "LARGER", "SMALLER", "OLDER", "YOUNGER":
		d.Space()
		return &searchKey{op: searchNumbers[word], num: d.Number64()}
	case "FROM", "TO", "CC", "BCC", "SUBJECT":
		d.Space()
		return &searchKey{op: searchHeader, field: word, text: d.AString()}
	case "HEADER":
		d.Space()
		k := &searchKey{op: searchHeader, field: d.AString()}
		d.Space()
		k.text = d.AString()
		return k
	case "BODY":
		d.Space()
		return &searchKey{op: searchBody, text: d.AString()}
	case "TEXT":
		d.Space()
		return &searchKey{op: searchText, text: d.AString()}
	case "MODSEQ":
		d.Space()
		if d.Peek() == '"' { // the flag it is about; we keep one mod-sequence for all (RFC 7162 section 3.1.5)
			_ = d.String()
			d.Space()
			d.Word()
			d.Space()
		}
		return &searchKey{op: searchModSeq, num: d.Number64()}
	case "EMAILID":
		d.Space()
		return &searchKey{op: searchEmailID, text: d.AString()}
	case "THREADID":
		d.Space()
		return &searchKey{op: searchThreadID, text: d.AString()}
	}
	d.Fail(&wire.SyntaxError{Text: "unknown search key"})
	return &searchKey{}
}

var searchDates = map[string]searchOp{
	"BEFORE": searchBefore, "ON": searchOn, "SINCE": searchSince,
	"SENTBEFORE": searchSentBefore, "SENTON": searchSentOn, "SENTSINCE": searchSentSince,
}

var searchNumbers = map[string]searchOp{"LARGER": searchLarger, "SMALLER": searchSmaller, "OLDER": searchOlder, "YOUNGER": searchYounger}

func not(k *searchKey) *searchKey {
	if k.op == searchNot {
		return k.keys[0]
	}
	return &searchKey{op: searchNot, keys: []*searchKey{k}}
}

// hasFlag tests a system flag, named without its backslash.
func hasFlag(name string) *searchKey {
	return &searchKey{op: searchFlag, flag: imap.Flag(`\` + name[:1] + strings.ToLower(name[1:]))}
}

// walk calls f for k and all below it.
func (k *searchKey) walk(f func(*searchKey)) {
	f(k)
	for _, sub := range k.keys {
		sub.walk(f)
	}
}

// uses reports whether one of the ops is in the tree.
func (k *searchKey) uses(ops ...searchOp) bool {
	found := false
	k.walk(func(k *searchKey) {
		for _, op := range ops {
			found = found || k.op == op
		}
	})
	return found
}

// errBadCharset names what every client can fall back on. RFC 9051 section 7.1.
var errBadCharset = no("BADCHARSET (US-ASCII UTF-8)", "Unknown charset")

// decodeText turns the strings of the tree from the charset they were sent in to UTF-8 and makes them ready
// to compare.
func (r *searchRequest) decodeText() error {
	var err error
	r.key.walk(func(k *searchKey) {
		switch k.op {
		case searchHeader, searchBody, searchText:
			text, e := decodeSearchText(r.charset, k.text)
			err = errors.Join(err, e)
			k.text, k.needle = text, foldSearch(nil, text)
		}
	})
	if err != nil || r.charset != "" && !knownCharset(r.charset) {
		return errBadCharset
	}
	return nil
}

func knownCharset(cs string) bool {
	switch strings.ToUpper(cs) {
	case "US-ASCII", "UTF-8":
		return true
	}
	_, err := charset.Reader(cs, strings.NewReader(""))
	return err == nil
}

// decodeSearchText decodes s. Where no charset is told, or s is not in it, UTF-8 and then Windows-1252 are
// assumed: clients send both without saying so.
func decodeSearchText(cs, s string) (string, error) {
	switch strings.ToUpper(cs) {
	case "", "US-ASCII", "UTF-8":
	default:
		r, err := charset.Reader(cs, strings.NewReader(s))
		if err != nil {
			return "", err
		}
		b, err := io.ReadAll(r)
		if err != nil {
			return "", err
		}
		return string(b), nil
	}
	if utf8.ValidString(s) {
		return s, nil
	}
	return charmap.Windows1252.NewDecoder().String(s)
}
