package imapd

import (
	"bytes"
	"sort"
	"time"

	"postern/backend"
	"postern/backend/message"
)

// tri is what is known of a message: a key that needs what has not been read yet leaves it open.
type tri int8

const (
	no3 tri = iota
	open3
	yes3
)

func triOf(b bool) tri {
	if b {
		return yes3
	}
	return no3
}

// searchRow is one message with what is known of it by now.
type searchRow struct {
	seq    uint32
	msg    *backend.Message
	recent bool
	header *searchHeaders      // nil: not read yet
	text   map[*searchKey]bool // of BODY and TEXT; nil: not read yet
}

// searchHeaders is what is known of one header: texts has, at searchKey.column, what the keys look through, or else raw
// is the whole block.
type searchHeaders struct {
	raw   []byte
	texts [][]byte
}

// searchEnv is what holds for all messages of one search.
type searchEnv struct {
	now time.Time
	buf []byte // reused
}

// eval evaluates a key as far as the row goes.
func (env *searchEnv) eval(k *searchKey, row *searchRow) tri {
	msg := row.msg
	switch k.op {
	case searchAll:
		return yes3
	case searchAnd:
		result := yes3
		for _, sub := range k.keys {
			switch env.eval(sub, row) {
			case no3:
				return no3
			case open3:
				result = open3
			}
		}
		return result
	case searchOr:
		result := no3
		for _, sub := range k.keys {
			switch env.eval(sub, row) {
			case yes3:
				return yes3
			case open3:
				result = open3
			}
		}
		return result
	case searchNot:
		return yes3 - env.eval(k.keys[0], row)
	case searchSet:
		return triOf(k.sel.has(int(row.seq) - 1))
	case searchFlag:
		return triOf(k.test.On(msg))
	case searchRecent:
		return triOf(row.recent)
	case searchBefore:
		return triOf(dayOf(msg.Received).Before(k.date))
	case searchOn:
		return triOf(dayOf(msg.Received).Equal(k.date))
	case searchSince:
		return triOf(!dayOf(msg.Received).Before(k.date))
	case searchSentBefore, searchSentOn, searchSentSince:
		return evalSent(k, row)
	case searchOlder:
		return triOf(env.age(msg) >= seconds(k.num))
	case searchYounger:
		return triOf(env.age(msg) <= seconds(k.num))
	case searchLarger:
		return triOf(msg.Size > int64(k.num))
	case searchSmaller:
		return triOf(msg.Size < int64(k.num))
	case searchModSeq:
		return triOf(msg.ModSeq >= k.num)
	case searchEmailID:
		return triOf(k.text != "" && msg.EmailID.String() == k.text)
	case searchThreadID:
		return triOf(k.text != "" && msg.ThreadID.String() == k.text)
	case searchHeader:
		if row.header == nil {
			return open3
		}
		return triOf(env.headerHas(row.header, k))
	case searchBody, searchText:
		if row.text == nil {
			return open3
		}
		return triOf(row.text[k])
	}
	return no3
}

func (env *searchEnv) age(msg *backend.Message) time.Duration { return env.now.Sub(msg.Received) }

// seconds is n seconds, as far as durations go.
func seconds(n uint64) time.Duration {
	return time.Duration(min(n, 1<<33)) * time.Second
}

// dayOf is midnight UTC of the day t shows in its own zone: dates are compared without time and zone.
func dayOf(t time.Time) time.Time {
	y, m, d := t.Date()
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
}

// evalSent compares the day of the Date field. The replica knows the moment but not the zone it was written
// in: where no zone could change the answer the header is not needed.
func evalSent(k *searchKey, row *searchRow) tri {
	day := func(sent time.Time) tri {
		switch d := dayOf(sent); k.op {
		case searchSentBefore:
			return triOf(d.Before(k.date))
		case searchSentOn:
			return triOf(d.Equal(k.date))
		default:
			return triOf(!d.Before(k.date))
		}
	}
	sent := row.msg.Sent
	if row.header == nil {
		if sent.IsZero() {
			return open3
		}
		sent = sent.UTC()
		if early, late := sent.Add(-12*time.Hour), sent.Add(14*time.Hour); k.op != searchSentOn || dayOf(early).After(k.date) || dayOf(late).Before(k.date) {
			if a, b := day(early), day(late); a == b {
				return a
			}
		}
		return open3
	}
	if v, ok := message.FieldValue(row.header.raw, "Date"); ok {
		if t, ok := message.ParseDate(v); ok {
			return day(t)
		}
	}
	if sent.IsZero() {
		sent = row.msg.Received // a message without a date was sent when it came
	}
	return day(sent)
}

// headerHas reports whether one of the fields named has the text; an empty text is in every field.
func (env *searchEnv) headerHas(h *searchHeaders, k *searchKey) bool {
	var text []byte
	if h.texts != nil {
		text = h.texts[k.column]
	} else {
		env.buf = appendSearchText(env.buf[:0], h.raw, upperASCII(k.field))
		text = env.buf
	}
	if len(k.needle) == 0 {
		return len(text) > 0
	}
	return bytes.Contains(text, k.needle)
}

// has reports whether the message with the index is among them.
func (sel selection) has(i int) bool {
	k := sort.Search(len(sel), func(k int) bool { return sel[k].hi > i })
	return k < len(sel) && sel[k].lo <= i
}

// prepare resolves the sets of the tree against the view, and makes ready what is asked of many messages.
func (k *searchKey) prepare(v *view) {
	k.walk(func(k *searchKey) {
		switch k.op {
		case searchSet:
			k.sel = v.find(k.set)
		case searchFlag:
			k.test = backend.NewFlagTest(k.flag)
		}
	})
}
