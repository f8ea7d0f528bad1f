package syncer

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"postern/backend/graph"
	"postern/backend/store"
)

// propIMAPFlags is our own named property on messages. Graph has no place for \Deleted at all, one place, the last verb,
// for \Answered and $Forwarded together, and decides itself what is a draft. It holds the own… bits; unset means none.
var propIMAPFlags = graph.PropertyID{Type: "Integer", Set: "{6f2f5a2e-3a5e-4d0b-9c55-2b1f5d3c7e41}", Name: "PosternFlags"}

const (
	ownAnswered  = 1
	ownForwarded = 2
	ownDeleted   = 4
	ownDraft     = 8  // \Draft on what Graph holds to be no draft
	ownNotDraft  = 16 // a draft without \Draft
)

// Values of the last verb, PidTagLastVerbExecuted in MS-OXOMSG 2.2.1.
const (
	verbReply    = 102
	verbReplyAll = 103
	verbForward  = 104
)

// fullOptions asks for all that the replica keeps of a message but its header and content.
var fullOptions = graph.ListOptions{
	Select: []string{"id", "isRead", "isDraft", "flag", "categories", "receivedDateTime", "sentDateTime",
		"internetMessageId", "conversationId", "parentFolderId", "lastModifiedDateTime"},
	Expand: []graph.PropertyID{graph.PropSize, graph.PropLastVerb, propIMAPFlags},
}

// deltaOptions are the columns of delta rounds. Extended properties cannot be had there, so changed messages are read
// again; the modification time is among the columns so that every change counts as one. Its columns are fixed for the
// life of a delta link.
var deltaOptions = graph.ListOptions{
	Select:   []string{"id", "isRead", "isDraft", "flag", "categories", "lastModifiedDateTime"},
	PageSize: pageSize,
}

// pageSize is the largest page Graph gives. Graph: user-list-messages.
const pageSize = 1000

// remoteOf translates a row. expanded says that the row was asked for with the extended properties of fullOptions, so
// that one which is missing is known to be unset.
func remoteOf(m *graph.Message, expanded bool) store.Remote {
	r := store.Remote{GraphID: store.GraphID(m.ID)}
	set := func(bit store.Flags, on bool) {
		r.FlagsMask |= bit
		if on {
			r.Flags |= bit
		}
	}
	if m.IsRead != nil {
		set(store.FlagSeen, *m.IsRead)
	}
	if m.IsDraft != nil {
		set(store.FlagIsDraft, *m.IsDraft)
	}
	if m.Flag != nil {
		set(store.FlagFlagged, *m.Flag == graph.FlagFlagged)
	}
	if m.Categories != nil {
		ks := keywordsOf(*m.Categories)
		r.Keywords = &ks
	}
	if expanded {
		verb, own := integer(m, graph.PropLastVerb), integer(m, propIMAPFlags)
		set(store.FlagAnswered, verb == verbReply || verb == verbReplyAll || own&ownAnswered != 0)
		set(store.FlagForwarded, verb == verbForward || own&ownForwarded != 0)
		set(store.FlagDeleted, own&ownDeleted != 0)
		// Here null and left out are the same: asked for, and not there.
		if m.Flag == nil {
			set(store.FlagFlagged, false)
		}
		if m.Categories == nil {
			r.Keywords = &[]string{}
		}
		if m.IsDraft != nil {
			set(store.FlagDraft, own&ownDraft != 0 || *m.IsDraft && own&ownNotDraft == 0)
		}
		r.Received, r.Sent = m.Received, m.Sent
		if r.Received == nil {
			// Every message has one; should a row come without, it must not be lost for that.
			t := time.Unix(0, 0).UTC()
			if m.Sent != nil {
				t = *m.Sent
			}
			r.Received = &t
		}
		r.InternetMessageID, r.ThreadID = m.InternetMessageID, m.ConversationID
		if size := estimate(int64(integer(m, graph.PropSize))); size > 0 {
			r.SizeEstimate = &size
		}
	}
	return r
}

// estimate guesses the length of a message's MIME text from its size in Exchange's store. Attachments grow by 37 % in
// base64 and Exchange adds a header of its own, so it is on the high side for all but tiny messages: clients that fetch in
// chunks stop at the size they were told.
func estimate(stored int64) int64 {
	if stored <= 0 {
		return 0
	}
	return stored + stored*3/8 + 4096
}

func integer(m *graph.Message, id graph.PropertyID) int {
	n, err := strconv.Atoi(m.Property(id))
	if err != nil {
		return 0
	}
	return n
}

// byReceived puts rows in the order in which they should get their UIDs.
func byReceived(rows []store.Remote) {
	slices.SortStableFunc(rows, func(a, b store.Remote) int {
		return cmp.Or(a.Received.Compare(*b.Received), cmp.Compare(a.GraphID, b.GraphID))
	})
}

// updateFor returns what must be written so that Graph shows the message's pending changes.
func updateFor(m *store.Message) graph.Update {
	var u graph.Update
	if m.Pending&store.FlagSeen != 0 {
		u.IsRead = new(m.Flags&store.FlagSeen != 0)
	}
	if m.Pending&store.FlagFlagged != 0 {
		u.Flag = new(flagStatus(m.Flags))
	}
	if m.PendingKeywords {
		u.Categories = new(categoriesOf(m.Keywords))
	}
	if m.Pending&(store.FlagAnswered|store.FlagForwarded|store.FlagDeleted|store.FlagDraft) != 0 {
		u.Extended = extendedFlags(m.Flags, m.Pending)
	}
	return u
}

func flagStatus(f store.Flags) string {
	if f&store.FlagFlagged != 0 {
		return graph.FlagFlagged
	}
	return graph.FlagNone
}

// extendedFlags returns the extended properties that say flags, where those in changed differ from what Graph has.
func extendedFlags(flags, changed store.Flags) map[graph.PropertyID]string {
	own := 0
	if flags&store.FlagDeleted != 0 {
		own |= ownDeleted
	}
	switch draft := flags&store.FlagDraft != 0; {
	case draft == (flags&store.FlagIsDraft != 0):
	case draft:
		own |= ownDraft
	default:
		own |= ownNotDraft
	}
	verb := 0
	switch answered, forwarded := flags&store.FlagAnswered != 0, flags&store.FlagForwarded != 0; {
	case answered && forwarded:
		own |= ownAnswered | ownForwarded
		verb = verbReply
		if changed&store.FlagForwarded != 0 {
			verb = verbForward // the later one, as Outlook would have it
		}
	case answered:
		verb = verbReply
	case forwarded:
		verb = verbForward
	}
	ext := map[graph.PropertyID]string{propIMAPFlags: strconv.Itoa(own)}
	if changed&(store.FlagAnswered|store.FlagForwarded) != 0 {
		ext[graph.PropLastVerb] = strconv.Itoa(verb)
	}
	return ext
}
