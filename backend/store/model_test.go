package store

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
)

// modelFolder says what a folder should hold, in the plainest way.
type modelFolder struct {
	id       FolderID
	uidNext  imap.UID
	messages map[imap.UID]*Message
	used     map[imap.UID]GraphID // every UID ever given
	mirror   map[imap.UID]Message // what somebody knows who only follows Changes
	modSeq   uint64
	removed  map[imap.UID]uint64
	listing  *modelListing
	headers  map[imap.UID]string
}

type modelListing struct {
	r    *Relist
	seen map[imap.UID]bool
}

type modelTest struct {
	t       *testing.T
	dir     string
	s       *Store
	rnd     *rand.Rand
	account AccountID
	folders []*modelFolder
	step    string
	nextID  int
}

// TestModel runs random operations against the store and the model and compares
// after each.
func TestModel(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			m := &modelTest{t: t, dir: filepath.Join(t.TempDir(), "state"), rnd: rand.New(rand.NewPCG(seed, 7))}
			m.open()
			defer func() { m.s.Close() }()
			var err error
			if m.account, err = m.s.Account(t.Context(), "alice@contoso.example"); err != nil {
				t.Fatal(err)
			}
			for i := range 3 {
				m.addFolder(fmt.Sprint("folder", i))
			}
			for step := range 250 {
				m.random(step)
				m.check()
				if t.Failed() {
					t.Fatalf("after step %d: %s", step, m.step)
				}
			}
		})
	}
}

func (m *modelTest) open() {
	s, err := Open(m.t.Context(), Options{Dir: m.dir})
	if err != nil {
		m.t.Fatal(err)
	}
	m.s = s
}

func (m *modelTest) addFolder(name string) {
	f, err := m.s.PutFolder(m.t.Context(), Folder{Account: m.account, GraphID: GraphID("id " + name), Name: name})
	if err != nil {
		m.t.Fatal(err)
	}
	m.folders = append(m.folders, &modelFolder{
		id: f.ID, uidNext: 1, modSeq: f.HighestModSeq, messages: map[imap.UID]*Message{}, used: map[imap.UID]GraphID{},
		mirror: map[imap.UID]Message{}, removed: map[imap.UID]uint64{}, headers: map[imap.UID]string{},
	})
}

func (m *modelTest) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatalf("%s: %v", m.step, err)
	}
}

func (m *modelTest) random(step int) {
	ctx := m.t.Context()
	f := m.folders[m.rnd.IntN(len(m.folders))]
	kind := m.rnd.IntN(16)
	m.step = fmt.Sprintf("kind %d on folder %d", kind, f.id)
	switch kind {
	case 0, 1, 2, 3:
		m.apply(f)
	case 4, 5, 6:
		m.changeFlags(f)
	case 7:
		m.push()
	case 8, 9:
		m.carry(f, m.folders[m.rnd.IntN(len(m.folders))], true)
	case 10:
		m.carry(f, m.folders[m.rnd.IntN(len(m.folders))], false)
	case 11:
		m.listing(f)
	case 12:
		if uid, ok := f.pick(m.rnd); ok {
			size, exact := int64(m.rnd.IntN(5000)), m.rnd.IntN(2) == 0
			ch, err := m.s.SetSize(ctx, messageID(f.id, uid), size, exact)
			m.must(err)
			if msg := f.messages[uid]; exact || !msg.SizeExact {
				msg.Size, msg.SizeExact = size, exact
			}
			m.follow(f, ch)
		}
	case 13:
		if uid, ok := f.pick(m.rnd); ok {
			data := strings.Repeat("x", m.rnd.IntN(3000))
			ch := commitBody(m.t, m.s, messageID(f.id, uid), []byte(data), m.rnd.IntN(2) == 0)
			msg := f.messages[uid]
			msg.Size, msg.SizeExact, msg.HasBody = int64(len(data)), true, true
			m.follow(f, ch)
		}
	case 14:
		if uid, ok := f.pick(m.rnd); ok {
			row := HeaderRow{ID: messageID(f.id, uid)}
			msg := f.messages[uid]
			mirrored := f.mirror[uid]
			if m.rnd.IntN(3) > 0 {
				row.Header = fmt.Appendf(nil, "Subject: %d\r\n\r\n", step)
				f.headers[uid] = string(row.Header)
				msg.HasHeader, msg.HeaderAbsent = true, false
			} else if !msg.HasHeader {
				msg.HeaderAbsent = true
			}
			mirrored.HasHeader, mirrored.HeaderAbsent = msg.HasHeader, msg.HeaderAbsent // no Changes from SetHeaders
			f.mirror[uid] = mirrored
			m.must(m.s.SetHeaders(ctx, []HeaderRow{row, {ID: messageID(f.id, 1<<30), Header: []byte("gone")}}))
		}
	case 15:
		switch m.rnd.IntN(3) {
		case 0:
			m.must(m.s.Close())
			m.open()
			for _, f := range m.folders {
				if f.listing != nil {
					m.must(m.s.SetSync(ctx, f.id, SyncUpdate{FillLink: ptr("next")}))
					r, err := m.s.Relist(ctx, f.id)
					m.must(err)
					if !r.Resumed() {
						m.t.Error("listing was not resumed")
					}
					f.listing.r = r
				}
			}
		case 1:
			if len(m.folders) > 3 {
				m.must(m.s.DeleteFolder(ctx, f.id))
				m.folders = slices.DeleteFunc(m.folders, func(o *modelFolder) bool { return o == f })
			}
		case 2:
			m.addFolder(fmt.Sprint("folder at ", step))
		}
	}
}

func (f *modelFolder) pick(rnd *rand.Rand) (imap.UID, bool) {
	if len(f.messages) == 0 {
		return 0, false
	}
	uids := slices.Sorted(maps.Keys(f.messages))
	return uids[rnd.IntN(len(uids))], true
}

func (f *modelFolder) byGraphID(id GraphID) *Message {
	for _, msg := range f.messages {
		if msg.GraphID == id {
			return msg
		}
	}
	return nil
}

func (f *modelFolder) add(msg Message) *Message {
	msg.UID, msg.Folder, msg.ID = f.uidNext, f.id, messageID(f.id, f.uidNext)
	f.used[msg.UID] = msg.GraphID
	f.uidNext++
	f.messages[msg.UID] = &msg
	if f.listing != nil {
		f.listing.seen[msg.UID] = true
	}
	return &msg
}

// merge puts a row into a message, which is fresh if the same transaction has added it.
func (f *modelFolder) merge(msg *Message, r *Remote, fresh bool) {
	for bit := Flags(1); bit <= FlagForwarded; bit <<= 1 {
		if r.FlagsMask&bit != 0 && msg.Pending&bit == 0 && (fresh || r.Doubt&bit == 0) {
			msg.Flags = msg.Flags&^bit | r.Flags&bit
		}
	}
	if r.Keywords != nil && !msg.PendingKeywords && (fresh || !r.DoubtKeywords) {
		msg.Keywords = normalKeywords(*r.Keywords)
	}
	if r.Received != nil && msg.Received.IsZero() {
		msg.Received = *r.Received
	}
	if r.SizeEstimate != nil && !msg.SizeExact {
		msg.Size = *r.SizeEstimate
	}
	if r.ThreadID != nil {
		msg.ThreadID = *r.ThreadID
	}
	if r.Header != nil && !msg.HasHeader {
		msg.HasHeader, msg.HeaderAbsent = true, false
		f.headers[msg.UID] = string(r.Header)
	}
	if f.listing != nil {
		f.listing.seen[msg.UID] = true
	}
}

var someKeywords = []string{"Red", "blue", "$Junk", "Work", "ärger"}

func (m *modelTest) keywords() []string {
	var list []string
	for range m.rnd.IntN(3) {
		list = append(list, someKeywords[m.rnd.IntN(len(someKeywords))])
	}
	return list
}

// someID is mostly one that the folder holds, sometimes a new or unknown one.
func (m *modelTest) someID(f *modelFolder) GraphID {
	if uid, ok := f.pick(m.rnd); ok && m.rnd.IntN(3) > 0 {
		return f.messages[uid].GraphID
	}
	m.nextID++
	return graphID(m.nextID)
}

func (m *modelTest) row(f *modelFolder) Remote {
	r := Remote{GraphID: m.someID(f)}
	if m.rnd.IntN(3) > 0 {
		r.Flags, r.FlagsMask = Flags(m.rnd.IntN(64)), Flags(m.rnd.IntN(64))
	}
	if m.rnd.IntN(2) == 0 {
		r.Keywords = ptr(m.keywords())
	}
	if m.rnd.IntN(4) > 0 {
		r.Received = ptr(day.Add(time.Duration(m.rnd.IntN(1e6)) * time.Second))
	}
	if m.rnd.IntN(2) == 0 {
		r.SizeEstimate = ptr(int64(m.rnd.IntN(10000)))
	}
	if m.rnd.IntN(2) == 0 {
		r.ThreadID = ptr(fmt.Sprint("thread", m.rnd.IntN(10)))
	}
	if m.rnd.IntN(4) == 0 {
		r.Header = fmt.Appendf(nil, "X: %d\r\n\r\n", m.rnd.Int())
	}
	if m.rnd.IntN(4) == 0 {
		r.Doubt, r.DoubtKeywords = Flags(m.rnd.IntN(64)), m.rnd.IntN(2) == 0
	}
	return r
}

func (m *modelTest) rows(f *modelFolder) []Remote {
	rows := make([]Remote, m.rnd.IntN(12))
	for i := range rows {
		rows[i] = m.row(f)
	}
	return rows
}

// merged does to the model what upserts do to the folder; it returns unknown ids.
func (f *modelFolder) upsert(rows []Remote) []GraphID {
	var unknown []GraphID
	first := f.uidNext
	for i := range rows {
		r := &rows[i]
		msg := f.byGraphID(r.GraphID)
		if msg == nil {
			if r.Received == nil {
				if !slices.Contains(unknown, r.GraphID) {
					unknown = append(unknown, r.GraphID)
				}
				continue
			}
			msg = f.add(Message{GraphID: r.GraphID})
		}
		f.merge(msg, r, msg.UID >= first)
	}
	return unknown
}

func (m *modelTest) apply(f *modelFolder) {
	rows := m.rows(f)
	var removes []GraphID
	for range m.rnd.IntN(4) {
		removes = append(removes, m.someID(f))
	}
	ch, err := m.s.Apply(m.t.Context(), f.id, rows, removes, &SyncUpdate{DeltaLink: ptr(m.step)})
	m.must(err)
	for _, id := range removes {
		if msg := f.byGraphID(id); msg != nil {
			f.remove(msg.UID)
		}
	}
	if unknown := f.upsert(rows); !slices.Equal(unknown, ch.Unknown) {
		m.t.Errorf("unknown %v, want %v", ch.Unknown, unknown)
	}
	m.follow(f, ch)
}

func (f *modelFolder) remove(uid imap.UID) {
	delete(f.messages, uid)
	delete(f.headers, uid)
}

func (m *modelTest) changeFlags(f *modelFolder) {
	var changes []FlagChange
	var modified []imap.UID
	before := map[imap.UID]uint64{}
	for uid, msg := range f.messages {
		before[uid] = msg.ModSeq
	}
	for range m.rnd.IntN(6) {
		uid, ok := f.pick(m.rnd)
		if !ok {
			uid = 77
		}
		set, keywords := Flags(m.rnd.IntN(64)), m.keywords()
		c := FlagChange{UID: uid, Set: set, Clear: Flags(m.rnd.IntN(64)) &^ set}
		switch m.rnd.IntN(3) {
		case 0:
			c.AddKeywords = keywords
		case 1:
			c.RemoveKeywords = keywords
		case 2:
			c.AddKeywords, c.ReplaceKeywords = keywords, true
		}
		if m.rnd.IntN(2) == 0 {
			c.UnchangedSince = f.modSeq - uint64(m.rnd.IntN(3))
		}
		changes = append(changes, c)
		msg := f.messages[uid]
		if msg == nil {
			continue
		}
		if c.UnchangedSince != 0 && before[uid] > c.UnchangedSince {
			modified = append(modified, uid)
			continue
		}
		flags := (msg.Flags | c.Set) &^ c.Clear
		msg.Pending |= flags ^ msg.Flags
		msg.Flags = flags
		want := map[string]bool{}
		if !c.ReplaceKeywords {
			for _, k := range msg.Keywords {
				want[k] = true
			}
		}
		for _, k := range c.AddKeywords {
			want[k] = true
		}
		for _, k := range c.RemoveKeywords {
			delete(want, k)
		}
		list := normalKeywords(slices.Collect(maps.Keys(want)))
		if !slices.Equal(list, msg.Keywords) {
			msg.Keywords, msg.PendingKeywords = list, true
		}
	}
	ch, got, err := m.s.ChangeFlags(m.t.Context(), f.id, changes)
	m.must(err)
	if !slices.Equal(got, modified) {
		m.t.Errorf("modified %v, want %v", got, modified)
	}
	m.follow(f, ch)
}

func (m *modelTest) push() {
	ctx := m.t.Context()
	list, err := m.s.Pending(ctx, m.account, 5)
	m.must(err)
	if !slices.IsSortedFunc(list, func(a, b Message) int { return int(a.PendingSeq - b.PendingSeq) }) {
		m.t.Error("pending changes are not in order")
	}
	results := []PushResult{{ID: 12345678901234, PendingSeq: 1}}
	for _, msg := range list {
		f := m.folder(msg.Folder)
		r := PushResult{ID: msg.ID, PendingSeq: msg.PendingSeq}
		mine := f.messages[msg.UID]
		switch m.rnd.IntN(3) {
		case 0: // changed again meanwhile
			r.PendingSeq--
		case 1:
			row := Remote{Flags: Flags(m.rnd.IntN(64)), FlagsMask: FlagsAll, Keywords: ptr(m.keywords())}
			r.Undo = &row
			mine.Pending, mine.PendingKeywords = 0, false
			f.merge(mine, &row, false)
		case 2:
			mine.Pending, mine.PendingKeywords = 0, false
		}
		results = append(results, r)
	}
	all, err := m.s.Pushed(ctx, results)
	m.must(err)
	for _, ch := range all {
		m.follow(m.folder(ch.Folder), ch)
	}
}

func (m *modelTest) folder(id FolderID) *modelFolder {
	for _, f := range m.folders {
		if f.id == id {
			return f
		}
	}
	m.t.Fatalf("%s: no folder %d", m.step, id)
	return nil
}

func (m *modelTest) carry(from, to *modelFolder, move bool) {
	var list []Moved
	want := map[imap.UID]imap.UID{}
	var unknown []GraphID
	for range m.rnd.IntN(5) {
		uid, ok := from.pick(m.rnd)
		if !ok || slices.ContainsFunc(list, func(l Moved) bool { return l.UID == uid }) {
			continue
		}
		msg := from.messages[uid]
		moved := Moved{UID: uid, NewGraphID: msg.GraphID}
		if !move || m.rnd.IntN(4) == 0 {
			m.nextID++
			moved.NewGraphID = graphID(m.nextID)
		}
		// Sometimes delta was quicker, at one end or at both.
		if from != to && m.rnd.IntN(4) == 0 && to.byGraphID(moved.NewGraphID) == nil {
			row := remote(m.nextID)
			row.GraphID = moved.NewGraphID
			ch, err := m.s.Apply(m.t.Context(), to.id, []Remote{row}, nil, nil)
			m.must(err)
			to.upsert([]Remote{row})
			to.messages[to.uidNext-1].Sent = *row.Sent
			to.messages[to.uidNext-1].InternetMessageID = *row.InternetMessageID
			m.follow(to, ch)
		}
		if move && m.rnd.IntN(4) == 0 {
			ch, err := m.s.Apply(m.t.Context(), from.id, nil, []GraphID{msg.GraphID}, nil)
			m.must(err)
			from.remove(uid)
			m.follow(from, ch)
		}
		list = append(list, moved)
	}
	for _, l := range list {
		src, dst := from.messages[l.UID], to.byGraphID(l.NewGraphID)
		if src != nil && dst == src {
			dst = nil
		}
		switch {
		case src == nil && dst == nil:
			unknown = append(unknown, l.NewGraphID)
			continue
		case dst == nil:
			cp := *src
			cp.GraphID = l.NewGraphID
			dst = to.add(cp)
			if src.HasHeader {
				to.headers[dst.UID] = from.headers[src.UID]
			}
		case src != nil:
			if src.HasHeader && !dst.HasHeader {
				dst.HasHeader, dst.HeaderAbsent = true, false
				to.headers[dst.UID] = from.headers[src.UID]
			}
			dst.HasBody = dst.HasBody || src.HasBody
			if src.SizeExact && !dst.SizeExact {
				dst.Size, dst.SizeExact = src.Size, true
			}
			if (src.Pending != 0 || src.PendingKeywords) && dst.Pending == 0 && !dst.PendingKeywords {
				dst.Flags = dst.Flags&^src.Pending | src.Flags&src.Pending
				dst.Pending, dst.PendingKeywords = src.Pending, src.PendingKeywords
				if src.PendingKeywords {
					dst.Keywords = src.Keywords
				}
			}
		}
		if to.listing != nil {
			to.listing.seen[dst.UID] = true
		}
		want[l.UID] = dst.UID
		if move && src != nil {
			from.remove(src.UID)
		}
	}
	var fromCh, toCh Changes
	var got map[imap.UID]imap.UID
	var err error
	if move {
		fromCh, toCh, got, err = m.s.Move(m.t.Context(), from.id, to.id, list)
	} else {
		toCh, got, err = m.s.Copy(m.t.Context(), from.id, to.id, list)
	}
	m.must(err)
	if !maps.Equal(got, want) {
		m.t.Errorf("uids %v, want %v", got, want)
	}
	if gotUnknown := append(fromCh.Unknown, toCh.Unknown...); !slices.Equal(gotUnknown, unknown) {
		m.t.Errorf("unknown %v, want %v", gotUnknown, unknown)
	}
	if move {
		m.follow(from, fromCh)
	}
	m.follow(to, toCh)
}

func (m *modelTest) listing(f *modelFolder) {
	ctx := m.t.Context()
	var err error
	if f.listing == nil {
		m.must(m.s.SetSync(ctx, f.id, SyncUpdate{FillLink: ptr("")}))
		f.listing = &modelListing{seen: map[imap.UID]bool{}}
		f.listing.r, err = m.s.Relist(ctx, f.id)
		m.must(err)
		return
	}
	if m.rnd.IntN(3) > 0 {
		rows := m.rows(f)
		ch, err := f.listing.r.Page(ctx, rows, &SyncUpdate{FillLink: ptr("next")})
		m.must(err)
		f.upsert(rows)
		m.follow(f, ch)
		return
	}
	ch, err := f.listing.r.Finish(ctx, SyncUpdate{Fill: ptr(FillDone)})
	m.must(err)
	for uid := range f.messages {
		if !f.listing.seen[uid] {
			f.remove(uid)
		}
	}
	f.listing = nil
	m.follow(f, ch)
}

// follow takes Changes into the mirror, and checks what they promise.
func (m *modelTest) follow(f *modelFolder, ch Changes) {
	t := m.t
	t.Helper()
	if ch.Folder != f.id {
		t.Errorf("changes are for folder %d, not %d", ch.Folder, f.id)
	}
	last := imap.UID(0)
	for _, msg := range ch.Added {
		if msg.UID <= last || msg.ModSeq <= f.modSeq || f.used[msg.UID] != msg.GraphID {
			t.Errorf("added out of order or under a used UID: %+v", msg)
		}
		if _, ok := f.mirror[msg.UID]; ok {
			t.Errorf("added twice: %d", msg.UID)
		}
		last = msg.UID
		f.mirror[msg.UID] = msg
	}
	for _, msg := range ch.Updated {
		old, ok := f.mirror[msg.UID]
		if !ok {
			t.Errorf("updated but unknown: %d", msg.UID)
		}
		shows := old.Flags != msg.Flags || !slices.Equal(old.Keywords, msg.Keywords)
		if shows != (msg.ModSeq > f.modSeq) {
			t.Errorf("uid %d: changed for clients %v, but mod-sequence %d after %d (folder had %d)", msg.UID, shows, msg.ModSeq, old.ModSeq, f.modSeq)
		}
		f.mirror[msg.UID] = msg
	}
	for _, r := range ch.Removed {
		if old, ok := f.mirror[r.UID]; !ok || old.GraphID != r.GraphID || r.ModSeq <= f.modSeq {
			t.Errorf("wrong removal %+v", r)
		}
		delete(f.mirror, r.UID)
		f.removed[r.UID] = r.ModSeq
	}
	if ch.HighestModSeq < f.modSeq {
		t.Errorf("mod-sequence went back from %d to %d", f.modSeq, ch.HighestModSeq)
	}
	f.modSeq = ch.HighestModSeq
	for uid, msg := range f.messages {
		msg.ModSeq = f.mirror[uid].ModSeq
	}
}

// check compares all folders with the model.
func (m *modelTest) check() {
	t, ctx := m.t, m.t.Context()
	t.Helper()
	pending := 0
	for _, f := range m.folders {
		row, err := m.s.Folder(ctx, f.id)
		m.must(err)
		got := messages(t, m.s, f.id)
		var unseen, deleted int
		var size int64
		for i := range got {
			msg := &got[i]
			want := f.messages[msg.UID]
			if want == nil {
				t.Errorf("uid %d should be gone", msg.UID)
				continue
			}
			if msg.Flags&FlagSeen == 0 {
				unseen++
			}
			if msg.Flags&FlagDeleted != 0 {
				deleted++
			}
			size += msg.Size
			if msg.PendingSeq != 0 {
				pending++
			}
			if (msg.PendingSeq != 0) != (want.Pending != 0 || want.PendingKeywords) {
				t.Errorf("uid %d: pending seq %d, want %v %v", msg.UID, msg.PendingSeq, want.Pending, want.PendingKeywords)
			}
			w := *want
			w.PendingSeq = msg.PendingSeq
			if fmt.Sprint(*msg) != fmt.Sprint(w) {
				t.Errorf("uid %d\n got %+v\nwant %+v", msg.UID, *msg, w)
			}
			mirror := f.mirror[msg.UID]
			mirror.Pending, mirror.PendingKeywords, mirror.PendingSeq = msg.Pending, msg.PendingKeywords, msg.PendingSeq
			if fmt.Sprint(*msg) != fmt.Sprint(mirror) {
				t.Errorf("changes did not tell all\n  is %+v\ntold %+v", *msg, mirror)
			}
		}
		if len(got) != len(f.messages) || len(got) != len(f.mirror) {
			t.Errorf("folder %d has %d messages, want %d, told %d", f.id, len(got), len(f.messages), len(f.mirror))
		}
		if row.Messages != len(got) || row.Unseen != unseen || row.DeletedCount != deleted || row.SizeSum != size || row.UIDNext != f.uidNext || row.HighestModSeq != f.modSeq {
			t.Errorf("folder row %+v; counted %d %d %d %d, want uidnext %d modseq %d", row, len(got), unseen, deleted, size, f.uidNext, f.modSeq)
		}
		m.checkJournal(f)
		m.checkHeaders(f, got)
	}
	list, err := m.s.Pending(ctx, m.account, 1<<30)
	m.must(err)
	if len(list) != pending {
		t.Errorf("%d pending, want %d", len(list), pending)
	}
}

func (m *modelTest) checkJournal(f *modelFolder) {
	since := f.modSeq - uint64(m.rnd.IntN(int(f.modSeq)))
	list, err := m.s.RemovedSince(m.t.Context(), f.id, since)
	m.must(err)
	got := map[imap.UID]uint64{}
	for _, r := range list {
		got[r.UID] = r.ModSeq
	}
	want := maps.Clone(f.removed)
	maps.DeleteFunc(want, func(_ imap.UID, seq uint64) bool { return seq <= since })
	if !maps.Equal(got, want) {
		m.t.Errorf("removed since %d: %v, want %v", since, got, want)
	}
}

func (m *modelTest) checkHeaders(f *modelFolder, list []Message) {
	var ids []MessageID
	var missing []imap.UID
	for _, msg := range list {
		ids = append(ids, msg.ID)
		if !msg.HasHeader && !msg.HeaderAbsent {
			missing = append(missing, msg.UID)
		}
	}
	got, err := m.s.Headers(m.t.Context(), ids)
	m.must(err)
	for _, msg := range list {
		header, ok := got[msg.ID]
		if want, has := f.headers[msg.UID]; string(header) != want || ok != has || has != msg.HasHeader {
			m.t.Errorf("uid %d: header %q %v, want %q %v", msg.UID, header, ok, want, has)
		}
	}
	gotMissing, err := m.s.MissingHeaders(m.t.Context(), f.id, 3)
	m.must(err)
	slices.Reverse(missing)
	for i, msg := range gotMissing {
		if msg.UID != missing[i] {
			m.t.Errorf("missing headers: %d, want %d", msg.UID, missing[i])
		}
	}
	if len(gotMissing) != min(3, len(missing)) {
		m.t.Errorf("%d headers missing, want %d", len(gotMissing), len(missing))
	}
}

func TestUnknownFolderAndMessage(t *testing.T) {
	s, f := newFolder(t)
	ctx := t.Context()
	if _, err := s.Messages(ctx, 99); !errors.Is(err, ErrNotFound) {
		t.Errorf("messages: %v", err)
	}
	if _, err := s.Message(ctx, messageID(f.ID, 4)); !errors.Is(err, ErrNotFound) {
		t.Errorf("message: %v", err)
	}
	if ch, err := s.SetSize(ctx, messageID(f.ID, 4), 1, true); err != nil || !ch.Empty() {
		t.Errorf("size: %v %v", ch, err)
	}
	if _, err := s.Apply(ctx, f.ID, []Remote{{GraphID: "a\nb", Received: &day}}, nil, nil); err == nil {
		t.Error("took an id with a newline")
	}
}
