package imapd

import (
	"context"
	"hash/maphash"
	"math"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/emersion/go-imap/v2"
	"golang.org/x/text/unicode/norm"

	"postern/backend/message"
)

// headerKeys is what SORT and THREAD compare of one header. Texts are folded for comparing.
type headerKeys struct {
	sent             int64  // Unix time of the Date field, noDate without one that can be read
	reply            bool   // the subject says so
	subject          string // base subject
	from, to, cc     string // mailbox, that is local part, of the first address
	showFrom, showTo string // its name as people see it
	id               uint64 // of the Message-ID; 0: none that is valid
	refs             []uint64
}

const (
	noDate = math.MinInt64
	// maxRefs bounds the references of one message: the first and the last ones count.
	maxRefs = 1000
)

// idSeed makes hashes of message ids that nobody can foresee, so that no message can be made to have another's.
var idSeed = maphash.MakeSeed()

// newHeaderKeys reads the keys out of a header block.
func newHeaderKeys(header []byte) *headerKeys {
	env := message.ParseEnvelope(header)
	k := &headerKeys{sent: noDate}
	if t, ok := message.ParseDate(env.Date); ok {
		k.sent = t.Unix()
	}
	k.subject, k.reply = message.SplitSubject(env.Subject)
	k.subject = foldSort(k.subject)
	k.from, k.showFrom = addressKeys(env.From)
	k.to, k.showTo = addressKeys(env.To)
	k.cc, _ = addressKeys(env.Cc)
	if ids := messageIDs(env.MessageID, 1); len(ids) > 0 {
		k.id = ids[0]
	}
	// RFC 5256 section 3: In-Reply-To counts only where References has no valid id, and then its first one.
	if v, ok := message.FieldValue(header, "References"); ok {
		k.refs = messageIDs(v, maxRefs)
	}
	if len(k.refs) == 0 {
		k.refs = messageIDs(env.InReplyTo, 1)
	}
	return k
}

// size is about how many bytes of memory the keys take.
func (k *headerKeys) size() int64 {
	n := len(k.subject) + len(k.from) + len(k.to) + len(k.cc) + len(k.showFrom) + len(k.showTo)
	return int64(n + 8*cap(k.refs) + 200)
}

// addressKeys returns the first address's mailbox (RFC 5256 section 3) and the name it is shown with (RFC 5957 section
// 3). A group's name is both.
func addressKeys(list []message.Address) (mailbox, show string) {
	if len(list) == 0 {
		return "", ""
	}
	a := list[0]
	if a.Mailbox != message.MissingMailbox {
		mailbox = foldSort(a.Mailbox)
	}
	switch {
	case strings.TrimSpace(a.Name) != "":
		show = message.DecodeWords(a.Name)
	case a.Host == "": // a group
		show = message.DecodeWords(a.Mailbox)
	default:
		show = a.Addr()
	}
	return mailbox, foldSort(show)
}

// foldSort returns s in the form in which i;unicode-casemap (RFC 5051) compares: in title case, decomposed.
func foldSort(s string) string {
	ascii, lower := true, false
	for i := 0; i < len(s); i++ {
		ascii = ascii && s[i] < utf8.RuneSelf
		lower = lower || s[i] >= 'a' && s[i] <= 'z'
	}
	if ascii {
		if !lower {
			return s
		}
		return strings.ToUpper(s)
	}
	return norm.NFKD.String(strings.Map(unicode.ToTitle, strings.ToValidUTF8(s, "\uFFFD")))
}

// messageIDs returns hashes of the message ids in s, in angle brackets as RFC 5322 section 3.6.4 has them, without the
// quotes and blanks in which two spellings of one id may differ. What else stands there is passed over. Of more than
// limit the first and the last ones are returned.
func messageIDs(s string, limit int) []uint64 {
	var ids []uint64
	var buf [256]byte
	for {
		i := strings.IndexByte(s, '<')
		if i < 0 {
			return ids
		}
		id, n := appendMessageID(buf[:0], s[i:])
		if n == 0 {
			s = s[i+1:]
			continue
		}
		s = s[i+n:]
		h := maphash.Bytes(idSeed, id)
		if h == 0 {
			h = 1
		}
		if len(ids) == limit {
			if limit == 1 {
				return ids
			}
			ids = append(ids[:1], ids[2:]...)
		}
		ids = append(ids, h)
	}
}

// appendMessageID appends the id that s begins with, without brackets, and returns how long it is in s: 0 if it is none.
func appendMessageID(dst []byte, s string) (id []byte, n int) {
	at := -1
	for i := 1; i < len(s); i++ {
		switch c := s[i]; c {
		case '>':
			if at <= 0 || at == len(dst)-1 {
				return dst, 0
			}
			return dst, i + 1
		case '<':
			return dst, 0
		case ' ', '\t', '\r', '\n':
		case '"':
			for i++; i < len(s) && s[i] != '"'; i++ {
				if s[i] == '\\' && i+1 < len(s) {
					i++
				}
				dst = append(dst, s[i])
			}
		case '@':
			at = len(dst)
			dst = append(dst, c)
		default:
			dst = append(dst, c)
		}
	}
	return dst, 0
}

// headerKeys returns the keys of messages in their order, from the cache or from their headers. Those of messages that
// are gone are nil.
func (s *session) headerKeys(uids []imap.UID) ([]*headerKeys, error) {
	v, cache := s.view, &s.srv.keys
	box := keyBox{v.mbox.ID(), v.mbox.UIDValidity()}
	keys := make([]*headerKeys, len(uids))
	var lacking []int
	cache.get(box, uids, keys)
	for i := range keys {
		if keys[i] == nil {
			lacking = append(lacking, i)
		}
	}
	if len(lacking) == 0 {
		return keys, nil
	}
	if err := s.enc.Flush(); err != nil {
		return nil, err
	}
	err := s.wait(func(ctx context.Context) error {
		for part := range slices.Chunk(lacking, searchChunk) {
			ask := make([]imap.UID, len(part))
			place := make(map[imap.UID]int, len(part))
			for j, i := range part {
				ask[j] = uids[i]
				place[uids[i]] = i
			}
			err := v.mbox.Headers(ctx, ask, func(uid imap.UID, header []byte) error {
				keys[place[uid]] = newHeaderKeys(header)
				return ctx.Err()
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	cache.put(box, v.uids, uids, keys, lacking)
	return keys, nil
}
