package imapd

import (
	"slices"

	"github.com/emersion/go-imap/v2"

	"postern/backend"
)

// tellChanges takes the journal of the selected mailbox and tells the client
// what is new: removed messages if expunges may be told now, new ones, changed
// flags. An error ends the connection.
func (s *session) tellChanges(expunges bool) error {
	return s.tellChangesBut(expunges, nil)
}

// tellChangesBut is tellChanges without the flags of the messages in known,
// which is ascending: the client has caused that change and asked for silence,
// or was told already.
func (s *session) tellChangesBut(expunges bool, known []imap.UID) error {
	v := s.view
	if v.mbox.Gone() {
		return bye("The selected mailbox has been deleted")
	}
	var added, updated []imap.UID
	select {
	case <-v.mbox.Notify(): // what it announces is taken now
	default:
	}
	if v.mbox.HighestModSeq() != v.modSeq {
		ch := v.mbox.Changes(v.modSeq)
		v.modSeq = ch.ModSeq
		added, updated = ch.Added, ch.Updated
		v.remove(ch.Removed)
	}

	recent := v.recentCount
	if expunges && len(v.gone) > 0 {
		s.tellExpunges()
	}
	if len(v.gone) == 0 {
		v.told = v.modSeq
	}
	if added = v.add(added); len(added) > 0 {
		_ = v.claimRecent(s.ctx, added)
		s.enc.Raw("* ").Num(uint64(v.len())).Raw(" EXISTS").CRLF()
	}
	if !v.noRecent && (len(added) > 0 || v.recentCount != recent) {
		s.enc.Raw("* ").Num(uint64(v.recentCount)).Raw(" RECENT").CRLF()
	}
	if len(added) > 0 || len(updated) > 0 {
		s.tellKeywords()
	}
	if len(updated) > 0 {
		updated = sorted(updated)
		if len(known) > 0 {
			updated = slices.DeleteFunc(slices.Clone(updated), func(uid imap.UID) bool {
				_, found := slices.BinarySearch(known, uid)
				return found
			})
		}
		s.tellFlags(updated)
	}
	return s.enc.Err()
}

func sorted(uids []imap.UID) []imap.UID {
	if slices.IsSorted(uids) {
		return uids
	}
	uids = slices.Clone(uids)
	slices.Sort(uids)
	return uids
}

// remove notes messages as gone. They keep their sequence numbers until
// tellExpunges.
func (v *view) remove(uids []imap.UID) {
	if len(uids) == 0 {
		return
	}
	for _, uid := range uids {
		if _, ok := slices.BinarySearch(v.uids, uid); ok {
			v.gone = append(v.gone, uid)
		}
	}
	slices.Sort(v.gone)
	v.gone = slices.Compact(v.gone)
}

// add appends messages that are new to the view, and returns which those are.
func (v *view) add(uids []imap.UID) []imap.UID {
	uids = sorted(uids)
	if n := len(v.uids); n > 0 {
		i, found := slices.BinarySearch(uids, v.uids[n-1])
		if found {
			i++
		}
		uids = uids[i:]
	}
	if len(uids) > 0 {
		v.ownUIDs()
		v.uids = append(v.uids, uids...)
	}
	return uids
}

// ownUIDs makes uids the view's own before they are changed.
func (v *view) ownUIDs() {
	if v.shared {
		v.uids, v.shared = append(make([]imap.UID, 0, len(v.uids)+16), v.uids...), false
	}
}

// tellExpunges takes the messages that are gone out of the view, in time linear
// in the view. With QRESYNC one VANISHED names them all. RFC 7162 section 3.2.10.
func (s *session) tellExpunges() {
	v := s.view
	if s.enabled.qresync {
		s.enc.Raw("* VANISHED ").UIDs(v.gone).CRLF()
	}
	v.ownUIDs()
	kept, g := 0, 0
	for _, uid := range v.uids {
		if g < len(v.gone) && v.gone[g] == uid {
			g++
			if v.isRecent(uid) {
				v.recentCount--
			}
			if !s.enabled.qresync {
				// All before it that are gone have been told, so its number is one
				// more than those that stay.
				s.enc.Raw("* ").Num(uint64(kept + 1)).Raw(" EXPUNGE").CRLF()
			}
			continue
		}
		v.uids[kept] = uid
		kept++
	}
	v.uids, v.gone = v.uids[:kept], nil
}

// tellKeywords tells keywords that the client has not seen in FLAGS yet. They
// must be known before a response uses them.
func (s *session) tellKeywords() {
	if s.view.newKeywords() {
		s.tellFlagNames()
	}
}

// maxNamedKeywords bounds how many keywords of a view may come from commands that name them.
const maxNamedKeywords = 1000

// tellKeywordsAnd is tellKeywords after a command that has named flags. Its keywords are told also where none of the
// messages has them now, as other servers do: clients take a keyword that they have named for known.
func (s *session) tellKeywordsAnd(flags []imap.Flag) {
	news := s.view.newKeywords()
	if len(s.view.keywordNames) < maxNamedKeywords && s.view.learnKeywords(flags) || news {
		s.tellFlagNames()
	}
}

// flagsToTell appends the flags of a message for a response that is about to begin.
// Keywords that came into use this moment are told in FLAGS first.
func (s *session) flagsToTell(dst []imap.Flag, msg *backend.Message) []imap.Flag {
	dst = s.view.appendFlags(dst, msg)
	if s.view.learnKeywords(dst) {
		s.tellFlagNames()
	}
	return dst
}

// tellFlags tells the flags of messages, ascending, and with CONDSTORE their
// mod-sequences. Those that are gone are left out.
func (s *session) tellFlags(uids []imap.UID) { s.tellState(uids, 0, true) }

// tellModSeqs tells the mod-sequences of messages that changed after since, to a
// client that knows the flags. RFC 7162 section 3.1.3 wants that even where silence
// was asked for.
func (s *session) tellModSeqs(uids []imap.UID, since uint64) {
	if s.enabled.condstore {
		s.tellState(uids, since, false)
	}
}

func (s *session) tellState(uids []imap.UID, since uint64, withFlags bool) {
	v := s.view
	if len(uids) == 0 {
		return
	}
	var flags []imap.Flag
	i := 0
	v.mbox.Messages(uids, func(msg *backend.Message) bool {
		n, found := slices.BinarySearch(v.uids[i:], msg.UID)
		if i += n; !found || msg.ModSeq <= since {
			return s.enc.Err() == nil
		}
		if withFlags {
			flags = s.flagsToTell(flags[:0], msg)
		}
		s.enc.Raw("* ").Num(uint64(i + 1)).Raw(" FETCH (UID ").Num(uint64(msg.UID))
		if s.enabled.condstore {
			s.enc.Raw(" MODSEQ (").Num(msg.ModSeq).Byte(')')
		}
		if withFlags {
			s.enc.Raw(" FLAGS ").Flags(flags)
		}
		s.enc.Byte(')').CRLF()
		return s.enc.Err() == nil
	})
}
