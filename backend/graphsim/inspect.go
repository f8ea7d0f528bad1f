package graphsim

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// MessageInfo is a message as tests see it.
type MessageInfo struct {
	ID         string            `json:"id"` // immutable
	ClassicID  string            `json:"classicId"`
	Folder     string            `json:"folder"` // id
	Subject    string            `json:"subject"`
	MessageID  string            `json:"messageId"` // with angle brackets
	From       string            `json:"from"`
	To         []string          `json:"to"`
	Cc         []string          `json:"cc"`
	Bcc        []string          `json:"bcc"`
	Received   time.Time         `json:"received"`
	Sent       time.Time         `json:"sent"`
	IsRead     bool              `json:"isRead"`
	IsDraft    bool              `json:"isDraft"`
	Flagged    bool              `json:"flagged"`
	Categories []string          `json:"categories"`
	HasFiles   bool              `json:"hasFiles"` // hasAttachments
	Files      []string          `json:"files"`
	Size       int               `json:"size"`               // 0x0E08
	Extended   map[string]string `json:"extended,omitempty"` // properties somebody has set, by id as answers spell them, without the type
}

// FolderInfo is a folder as tests see it.
type FolderInfo struct {
	ID        string `json:"id"`
	ParentID  string `json:"parentId"`
	Name      string `json:"name"`
	WellKnown string `json:"wellKnown"`
	Path      string `json:"path"` // display names joined by "/"
	Total     int    `json:"total"`
	Unread    int    `json:"unread"`
	Hidden    bool   `json:"hidden"`
}

// Delivered lists what has left, in order. A message delayed by the rate limit is not among them yet.
func (s *Sim) Delivered() []Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settleLocked()
	return slices.Clone(s.deliveries)
}

// ResetDeliveries forgets what has left.
func (s *Sim) ResetDeliveries() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settleLocked()
	s.deliveries = nil
}

// Messages lists a folder (as AddFolder names them), newest first.
func (s *Sim) Messages(user, folder string) []MessageInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settleLocked()
	return s.mustFolder(user, folder).infos()
}

func (f *folder) infos() []MessageInfo {
	out := make([]MessageInfo, 0, len(f.messages))
	for i := len(f.messages) - 1; i >= 0; i-- {
		out = append(out, f.messages[i].info())
	}
	return out
}

// Message returns one message by either form of its id; false when it is not there.
func (s *Sim) Message(user, id string) (MessageInfo, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settleLocked()
	m, err := s.mustBox(user).messageByID(id)
	if err != nil {
		return MessageInfo{}, false
	}
	return m.info(), true
}

// MIME returns what $value would give; nil when there is no such message.
func (s *Sim) MIME(user, id string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := s.mustBox(user).messageByID(id)
	if err != nil {
		return nil
	}
	return s.renderMIME(m)
}

func (m *message) info() MessageInfo {
	c := m.content()
	addrs := func(list []address) []string {
		var out []string
		for _, a := range list {
			out = append(out, a.addr)
		}
		return out
	}
	info := MessageInfo{
		ID: m.id(true), ClassicID: m.id(false), Folder: m.folder.id(), Subject: c.subject, MessageID: c.messageID,
		To: addrs(c.to), Cc: addrs(c.cc), Bcc: addrs(c.bcc), Received: time.Unix(m.received, 0).UTC(),
		Sent: time.Unix(m.sent, 0).UTC(), IsRead: m.is(bitRead), IsDraft: m.is(bitDraft), Flagged: m.flag == 1,
		Categories: slices.Clone(m.categories), HasFiles: c.hasAttachments(), Size: m.storeSize(),
	}
	if c.from != nil {
		info.From = c.from.addr
	}
	for _, a := range c.attachments {
		info.Files = append(info.Files, a.name)
	}
	for tag, v := range m.ext {
		if info.Extended == nil {
			info.Extended = map[string]string{}
		}
		info.Extended[strings.TrimPrefix(extID{tag: tag}.String(), " ")] = v
	}
	return info
}

// Folders lists the whole tree, hidden folders too, parents before children.
func (s *Sim) Folders(user string) []FolderInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settleLocked()
	b := s.mustBox(user)
	var out []FolderInfo
	var walk func(f *folder, path string)
	walk = func(f *folder, path string) {
		info := FolderInfo{
			ID: f.id(), Name: f.name, WellKnown: f.known, Path: path, Total: len(f.messages), Unread: f.unread, Hidden: f.hidden,
		}
		if f.parent != nil {
			info.ParentID = f.parent.id()
		}
		out = append(out, info)
		for _, ch := range f.children {
			p := ch.name
			if f != b.root {
				p = path + "/" + ch.name
			}
			walk(ch, p)
		}
	}
	walk(b.root, "")
	for _, name := range []string{"recoverableitemsdeletions", "searchfolders"} {
		walk(b.wellKnown[name], b.wellKnown[name].name)
	}
	return out
}

// The methods below are another client at work in the mailbox. Ids may be of either form. They panic when what they name
// does not exist.

// MoveMessage moves a message.
func (s *Sim) MoveMessage(user, id, folder string) {
	s.other(user, id, func(b *mailbox, m *message) error {
		to, err := s.seedFolder(user, folder)
		if err == nil {
			b.moveLocked(m, to, changeMoved)
		}
		return err
	})
}

// DeleteMessage deletes a message as DELETE does, or with purge for good.
func (s *Sim) DeleteMessage(user, id string, purge bool) {
	s.other(user, id, func(b *mailbox, m *message) error {
		if purge {
			b.purgeLocked(m)
		} else {
			b.softDeleteLocked(m)
		}
		return nil
	})
}

// Change says what UpdateMessage changes; nil fields stay.
type Change struct {
	IsRead, Flagged *bool
	Categories      *[]string
	Extended        map[string]string // by id, such as "Integer 0x1081"
}

// UpdateMessage changes properties of a message.
func (s *Sim) UpdateMessage(user, id string, ch Change) {
	s.other(user, id, func(b *mailbox, m *message) error { return b.changeLocked(m, ch) })
}

func (b *mailbox) changeLocked(m *message, ch Change) error {
	var props propSet
	var ext []extInput
	for idText, v := range ch.Extended {
		id, err := parseExtID(idText)
		if err != nil {
			return err
		}
		if err := checkExtValue(id, v); err != nil {
			return err
		}
		ext = append(ext, extInput{id: id, value: v})
	}
	if ch.IsRead != nil && m.setReadLocked(*ch.IsRead) {
		props |= propIsRead
	}
	if ch.Flagged != nil {
		m.flag = uint8(boolInt(*ch.Flagged))
		m.flagDates = nil
		props |= propFlag
	}
	if ch.Categories != nil {
		m.categories = slices.Clone(*ch.Categories)
		props |= propCategories
	}
	b.setExt(m, ext, false)
	b.touchLocked(m, props)
	return nil
}

// RenameFolder gives a folder another name.
func (s *Sim) RenameFolder(user, folder, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.mustFolder(user, folder)
	f.name = name
	f.countedLocked()
}

// DeleteFolder removes a folder with all in it, for good.
func (s *Sim) DeleteFolder(user, folder string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.mustFolder(user, folder)
	f.box.purgeFolderLocked(f)
}

// DeliverMessage lets a message from outside arrive in the Inbox, and returns its immutable id.
func (s *Sim) DeliverMessage(user string, mime []byte) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.mustBox(user)
	return b.receiveLocked(mime, "from mx.outside.example (203.0.113.25)", b.user.UPN).id(true)
}

// ResetDelta makes all delta and skip tokens of a folder ("" for the tree of the mailbox) void: 410 SyncStateNotFound.
func (s *Sim) ResetDelta(user, folder string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mustFolder(user, folder).generation++
}

func (s *Sim) other(user, id string, do func(b *mailbox, m *message) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settleLocked()
	b := s.mustBox(user)
	m, err := b.messageByID(id)
	if err != nil {
		panic(fmt.Sprintf("graphsim: message of %s: %v", user, err))
	}
	must(do(b, m))
}
