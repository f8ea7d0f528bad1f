package backend

import (
	"testing"

	"github.com/emersion/go-imap/v2"
)

// BenchmarkMessages goes through 20,000 messages in memory, as a search for flags does.
func BenchmarkMessages(b *testing.B) {
	v := &view{}
	none := v.sets.add(nil)
	for uid := range imap.UID(20_000) {
		v.recs = append(v.recs, record{uid: uid + 1, received: 1_700_000_000, sent: noTime, keywords: none, flags: 1})
	}
	m := &Mailbox{view: v}
	uids := m.UIDs()
	test := NewFlagTest(imap.FlagFlagged)
	for b.Loop() {
		m.Messages(uids, func(msg *Message) bool { return !test.On(msg) })
	}
}
