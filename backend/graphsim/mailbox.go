package graphsim

import (
	"crypto/sha256"
	"sort"
	"strings"
)

// mailbox is one user's mail. All fields are guarded by Sim.mu.
type mailbox struct {
	sim       *Sim
	tenant    *tenant
	user      UserSpec
	guid      [16]byte
	folders   map[uint32]*folder
	wellKnown map[string]*folder
	root      *folder
	messages  map[uint64]*message
	all       []*message            // by (received, num), oldest first
	byMsgID   map[string][]*message // by internetMessageId; made synthetic messages are found through synths
	synths    []*synthetic
	treeLog   []folderChange
	treeSeen  int // the furthest place in treeLog that a token points at
	overQuota bool
	nextNum   uint64
	nextArt   uint32
	nextDir   uint32
	sends     []int64 // Unix times of the latest submissions, for the rate of 30 a minute
}

// folder is one mail folder.
type folder struct {
	box        *mailbox
	num        uint32
	name       string
	known      string // well-known name, "" for others
	parent     *folder
	children   []*folder
	hidden     bool
	search     bool // a mailSearchFolder: holds nothing of its own
	messages   []*message
	unread     int
	log        []change
	ext        map[extTag]string
	modified   int64
	generation uint32 // goes up when all delta tokens are made void
}

// message is one message. Hundred thousands of them must fit: what can be computed is not kept.
type message struct {
	num        uint64
	folder     *folder
	body       *content   // nil for a synthetic message that nobody has changed
	synth      *synthetic // where body comes from when it is nil
	index      uint32     // place in synth
	location   uint32     // serial of the classic id
	article    uint32     // 0x0E23
	version    uint32     // changeKey
	size       uint32     // 0x0E08 of a synthetic message, 0 while unknown
	received   int64      // Unix seconds, all times
	sent       int64
	created    int64
	modified   int64
	bits       messageBits
	importance uint8 // 0 low, 1 normal, 2 high
	flag       uint8 // 0 notFlagged, 1 flagged, 2 complete
	flagDates  *flagDates
	categories []string
	ext        map[extTag]string
	multi      map[extTag][]string
}

type messageBits uint16

const (
	bitRead messageBits = 1 << iota
	bitDraft
	bitMIME          // made from MIME: a draft for ever
	bitOther         // inferenceClassification other
	bitReadReceipt   // isReadReceiptRequested
	bitDelivReceipt  // isDeliveryReceiptRequested
	bitReadReceiptNo // explicitly false, not null
	bitDelivReceiptNo
	bitSubmitted
)

type flagDates struct{ start, due, completed *dateTimeZone }

// content is what a message says.
type content struct {
	subject     string
	from        *address
	sender      *address
	to, cc, bcc []address
	replyTo     []address
	messageID   string // with angle brackets
	inReplyTo   string
	references  string
	headers     []field // other header fields, in order; for received mail all of them
	transport   string  // 0x007D: header text of received mail
	html        bool    // contentType of text
	text        string  // the body Graph shows
	plain       string  // text alternative that came along with HTML
	attachments []*attachment
	root        *part // the MIME tree while it still says the same as the properties
	nextAtt     uint32
	size        int // 0x0E08; 0 means not yet computed
	convIndex   string
}

type address struct{ name, addr string }

// field is a header field; value is unfolded but not decoded.
type field struct{ name, value string }

type changeKind uint8

const (
	changeCreated changeKind = iota
	changeUpdated
	changeMoved   // out of this folder
	changeDeleted // for good, or to Deleted Items
)

// change is an entry of a folder's log. A delta token is a place in it, so a round costs what has changed.
type change struct {
	num      uint64
	props    propSet
	location uint32 // of the classic id, in entries of leaving
	kind     changeKind
}

type folderChange struct {
	num     uint32
	removed bool
}

// content returns what m says; the result of a synthetic message must not be changed, see edit.
func (m *message) content() *content {
	if m.body != nil {
		return m.body
	}
	return m.synth.content(int(m.index))
}

// edit returns the content for changing it.
func (m *message) edit() *content {
	if m.body == nil {
		c := m.synth.content(int(m.index)).clone() // which may be kept for the next reader
		box := m.folder.box
		box.byMsgID[c.messageID] = append(box.byMsgID[c.messageID], m)
		m.body, m.synth = c, nil
	}
	m.body.size = 0
	return m.body
}

func (m *message) is(b messageBits) bool { return m.bits&b != 0 }

func (m *message) setBit(b messageBits, on bool) {
	if on {
		m.bits |= b
	} else {
		m.bits &^= b
	}
}

// changeKey changes with each change of the message.
func (m *message) changeKey() string {
	return m.folder.box.shortKey(m.num, m.version)
}

func older(a, b *message) bool {
	if a.received != b.received {
		return a.received < b.received
	}
	return a.num < b.num
}

// place finds where m is, or belongs, in a list ordered by time.
func place(list []*message, m *message) int {
	if n := len(list); n == 0 || older(list[n-1], m) {
		return n
	}
	return sort.Search(len(list), func(i int) bool { return !older(list[i], m) })
}

func insertAt(list []*message, m *message) []*message {
	i := place(list, m)
	list = append(list, nil)
	copy(list[i+1:], list[i:])
	list[i] = m
	return list
}

func removeFrom(list []*message, m *message) []*message {
	i := place(list, m)
	if i < len(list) && list[i] == m {
		copy(list[i:], list[i+1:])
		list[len(list)-1] = nil
		list = list[:len(list)-1]
	}
	return list
}

// dumpster reports whether the folder is part of Recoverable Items, which lists over the whole mailbox leave out.
func (f *folder) dumpster() bool {
	return f.known == "recoverableitemsdeletions" || f.known == "recoverableitemspurges"
}

// addLocked puts a new message into f and gives it its numbers.
func (f *folder) addLocked(m *message) {
	b := f.box
	b.nextNum++
	m.num = b.nextNum
	now := b.sim.now().Unix()
	m.created, m.modified = now, now
	b.messages[m.num] = m
	b.enterLocked(f, m)
	if !f.dumpster() {
		b.all = insertAt(b.all, m)
	}
	if m.body != nil {
		if m.body.messageID == "" {
			m.body.messageID = "<" + strings.ToUpper(newGUID()) + "@" + b.domain() + ">"
		}
		b.byMsgID[m.body.messageID] = append(b.byMsgID[m.body.messageID], m)
	}
}

// enterLocked puts m into the list of f, with a new location and article number.
func (b *mailbox) enterLocked(f *folder, m *message) {
	b.nextArt++
	m.folder = f
	m.location = b.nextArt
	m.article = b.nextArt
	f.messages = insertAt(f.messages, m)
	if !m.is(bitRead) {
		f.unread++
	}
	f.log = append(f.log, change{num: m.num, kind: changeCreated})
	f.countedLocked()
}

// leaveLocked takes m out of its folder.
func (b *mailbox) leaveLocked(m *message, kind changeKind) {
	f := m.folder
	f.messages = removeFrom(f.messages, m)
	if !m.is(bitRead) {
		f.unread--
	}
	f.log = append(f.log, change{num: m.num, kind: kind, location: m.location})
	f.countedLocked()
}

// moveLocked moves m to another folder: the immutable id stays, the classic one does not.
func (b *mailbox) moveLocked(m *message, to *folder, kind changeKind) {
	if from := m.folder.dumpster(); from != to.dumpster() {
		if from {
			b.all = insertAt(b.all, m)
		} else {
			b.all = removeFrom(b.all, m)
		}
	}
	b.leaveLocked(m, kind)
	m.version++
	m.modified = b.sim.now().Unix()
	b.enterLocked(to, m)
}

// purgeLocked removes m for good.
func (b *mailbox) purgeLocked(m *message) {
	b.leaveLocked(m, changeDeleted)
	b.all = removeFrom(b.all, m)
	delete(b.messages, m.num)
	if m.body != nil {
		b.forgetMessageID(m)
	}
}

func (b *mailbox) forgetMessageID(m *message) {
	list := b.byMsgID[m.body.messageID]
	for i, other := range list {
		if other == m {
			list = append(list[:i:i], list[i+1:]...)
			break
		}
	}
	if len(list) == 0 {
		delete(b.byMsgID, m.body.messageID)
	} else {
		b.byMsgID[m.body.messageID] = list
	}
}

// renameMessageID changes the internetMessageId and keeps the index.
func (b *mailbox) renameMessageID(m *message, id string) {
	c := m.edit()
	b.forgetMessageID(m)
	c.messageID = id
	b.byMsgID[id] = append(b.byMsgID[id], m)
}

// redateLocked changes the receivedDateTime, by which lists are ordered.
func (b *mailbox) redateLocked(m *message, received int64) {
	if m.received == received {
		return
	}
	m.folder.messages = removeFrom(m.folder.messages, m)
	b.all = removeFrom(b.all, m)
	m.received = received
	m.folder.messages = insertAt(m.folder.messages, m)
	if !m.folder.dumpster() {
		b.all = insertAt(b.all, m)
	}
}

// touchLocked records that properties of m have changed. The article number changes with isRead and flag, which makes it
// useless as a UID; observed by others, not documented.
func (b *mailbox) touchLocked(m *message, props propSet) {
	m.version++
	m.modified = b.sim.now().Unix()
	if props&(propIsRead|propFlag) != 0 {
		b.nextArt++
		m.article = b.nextArt
	}
	m.folder.log = append(m.folder.log, change{num: m.num, kind: changeUpdated, props: props})
	if props&propIsRead != 0 {
		m.folder.countedLocked()
	}
}

// setReadLocked sets isRead and keeps the folder's count; it reports whether that changed anything.
func (m *message) setReadLocked(read bool) bool {
	if m.is(bitRead) == read {
		return false
	}
	m.setBit(bitRead, read)
	if read {
		m.folder.unread--
	} else {
		m.folder.unread++
	}
	return true
}

// countedLocked tells folder delta that a count has changed.
func (f *folder) countedLocked() {
	log := f.box.treeLog
	f.modified = f.box.sim.now().Unix()
	if n := len(log); n > 0 && log[n-1].num == f.num && !log[n-1].removed {
		// The same folder twice in a row: a token that points behind the entry would miss this change, so the entry is
		// only reused when no token has been made of that place.
		if !f.box.treeTokenAt(n) {
			return
		}
	}
	f.box.treeLog = append(log, folderChange{num: f.num})
}

// treeTokenAt reports whether a token may point at place n of the folder log.
func (b *mailbox) treeTokenAt(n int) bool { return b.treeSeen >= n }

// domain is the part of the user's address after the @.
func (b *mailbox) domain() string {
	_, d, ok := strings.Cut(b.user.UPN, "@")
	if !ok {
		return "localhost"
	}
	return d
}

func (b *mailbox) shortKey(num uint64, version uint32) string {
	sum := sha256.Sum256([]byte{
		byte(num >> 24), byte(num >> 16), byte(num >> 8), byte(num),
		byte(version >> 24), byte(version >> 16), byte(version >> 8), byte(version), b.guid[0], b.guid[1], b.guid[2],
	})
	return "CQAAAB" + encodeKey(sum[:12])
}
