package syncer

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/emersion/go-imap/v2"

	"postern/backend/store"
)

// wellKnown lists the folders that are looked up by name, because v1.0 says neither a
// folder's role nor what it is for (Graph: mailFolder), in one batch.
var wellKnown = []string{rootName, "inbox", "sentitems", "drafts", "deleteditems", "junkemail", "archive",
	"outbox", "conversationhistory", "syncissues", "conflicts", "localfailures", "serverfailures",
	"searchfolders", recoverableName}

const (
	rootName        = "msgfolderroot"
	inboxName       = "inbox"
	recoverableName = "recoverableitemsdeletions"
)

// notMail lists those of wellKnown that hold no mail a client should see, or are not
// below the root at all.
var notMail = []string{"conversationhistory", "syncissues", "conflicts", "localfailures", "serverfailures",
	"searchfolders", recoverableName}

// roles gives the special folders their IMAP role and the name they have while they are
// at the top of the tree. Graph's own names for them are in the owner's language.
var roles = map[string]struct {
	name string
	role imap.MailboxAttr
}{
	inboxName:      {"INBOX", ""},
	"sentitems":    {"Sent", imap.MailboxAttrSent},
	"drafts":       {"Drafts", imap.MailboxAttrDrafts},
	"deleteditems": {"Trash", imap.MailboxAttrTrash},
	"junkemail":    {"Junk", imap.MailboxAttrJunk},
	"archive":      {"Archive", imap.MailboxAttrArchive},
}

// reservedTop is the name under which front ends show other people's mailboxes.
const reservedTop = "Shared"

// node is one folder as Graph described it, visible or not.
type node struct {
	Name   string `json:"n"`
	Parent string `json:"p"`
	Hidden bool   `json:"h,omitempty"`
}

// layout is the folder tree as clients see it, computed from what Graph says.
type layout struct {
	wellKnown map[string]string // well-known name to id
	nodes     map[string]node   // by id
}

// place is where layout puts a folder.
type place struct {
	name string
	role imap.MailboxAttr
}

// place returns the names of all visible folders. have holds the names given before,
// by id: a folder that was neither renamed nor moved keeps its last segment, so that
// among folders of the same name each stays who it was.
func (l *layout) place(have map[string]string) map[string]place {
	hidden := make(map[string]bool)
	for _, w := range notMail {
		if id := l.wellKnown[w]; id != "" {
			hidden[id] = true
		}
	}
	role := make(map[string]string)
	for w := range roles {
		if id := l.wellKnown[w]; id != "" {
			role[id] = w
		}
	}
	root := l.wellKnown[rootName]
	children := make(map[string][]string)
	for id, n := range l.nodes {
		if id == root || n.Hidden || hidden[id] {
			continue
		}
		parent := n.Parent
		if _, known := l.nodes[parent]; !known || parent == id {
			// Graph does not list the root itself. When even its id is unknown, whatever
			// hangs below nothing we know is taken for the top level.
			if root != "" && parent != root {
				continue
			}
			parent = root
		}
		children[parent] = append(children[parent], id)
	}

	out := make(map[string]place, len(l.nodes))
	var walk func(parent, prefix string)
	walk = func(parent, prefix string) {
		taken := make(map[string]bool)
		ids := children[parent]
		top := prefix == ""
		if top {
			taken[foldTop(reservedTop)] = true
		}
		type want struct {
			id, natural, kept string
		}
		var wants []want
		for _, id := range ids {
			w := want{id: id, natural: segment(l.nodes[id].Name)}
			if r, ok := roles[role[id]]; ok && top {
				w.natural, w.kept = r.name, r.name
			} else if old, ok := have[id]; ok {
				if last := old[strings.LastIndexByte(old, '/')+1:]; last == w.natural || numbered(last, w.natural) {
					w.kept = last
				}
			}
			wants = append(wants, w)
		}
		// Roles first, then names given before, then the rest in an order that does not
		// depend on how Graph lists them.
		rank := func(w want) int {
			switch {
			case top && role[w.id] != "":
				return 0
			case w.kept != "":
				return 1
			}
			return 2
		}
		slices.SortFunc(wants, func(a, b want) int {
			return cmp.Or(rank(a)-rank(b), cmp.Compare(a.natural, b.natural), cmp.Compare(a.id, b.id))
		})
		for _, w := range wants {
			name := w.kept
			if key := fold(top, name); name == "" || taken[key] {
				name = w.natural
				for i := 2; taken[fold(top, name)]; i++ {
					name = fmt.Sprintf("%s (%d)", w.natural, i)
				}
			}
			taken[fold(top, name)] = true
			out[w.id] = place{name: prefix + name, role: roles[role[w.id]].role}
			walk(w.id, prefix+name+"/")
		}
	}
	walk(root, "")
	return out
}

// fold returns the key under which names clash. INBOX is the one name that is compared
// without case (RFC 9051 section 5.1); the other names at the top that carry a meaning are
// treated alike, lest a client takes "sent" for Sent.
func fold(top bool, name string) string {
	if top {
		return foldTop(name)
	}
	return name
}

func foldTop(name string) string {
	if strings.EqualFold(name, reservedTop) {
		return strings.ToLower(name)
	}
	for _, r := range roles {
		if strings.EqualFold(name, r.name) {
			return strings.ToLower(name)
		}
	}
	return name
}

// segment turns a display name into one level of an IMAP name: the separator and
// control characters are replaced.
func segment(display string) string {
	s := strings.Map(func(r rune) rune {
		if r == '/' || r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == '\u2028' || r == '\u2029' {
			return '_'
		}
		return r
	}, strings.ToValidUTF8(display, "_"))
	if s == "" {
		return "_"
	}
	return s
}

// numbered reports whether name is natural with a number that place added.
func numbered(name, natural string) bool {
	rest, ok := strings.CutPrefix(name, natural+" (")
	if !ok {
		return false
	}
	num, ok := strings.CutSuffix(rest, ")")
	n, err := strconv.Atoi(num)
	return ok && err == nil && n >= 2
}

// namesOf returns the names the store holds, by Graph id.
func namesOf(rows []store.Folder) map[string]string {
	m := make(map[string]string, len(rows))
	for _, r := range rows {
		m[string(r.GraphID)] = r.Name
	}
	return m
}
