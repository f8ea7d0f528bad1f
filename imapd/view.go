package imapd

import (
	"context"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"

	"postern/backend"
	"postern/imapd/wire"
)

// view is what a session knows of its selected mailbox. Between what the
// backend has and what the client was told lies the journal: uids changes only
// together with a response that says so, so a sequence number always means the
// message the client means.
type view struct {
	mbox    *backend.Mailbox
	account *backend.Account
	name    string // as the client names it

	uids   []imap.UID // ascending; sequence number n is uids[n-1]
	shared bool       // uids are the backend's, see ownUIDs
	modSeq uint64     // the journal has been taken up to here
	told   uint64     // the client knows of everything up to here, removals too
	gone   []imap.UID // of uids, ascending: removed, and the client not told yet

	recent      imap.UIDSet // \Recent in this session; sorted, without overlaps
	recentCount int         // of uids
	noRecent    bool        // IMAP4rev2 has no \Recent; it is left for sessions that know it

	// Keywords told in FLAGS, sorted, and the same in lower case. None is taken back while the mailbox is selected: the
	// client may still believe that a message has one that is no longer in use.
	keywordNames []imap.Flag
	keywords     map[imap.Flag]bool

	saved imap.UIDSet // the search result that "$" stands for; nil: none
}

// newView takes the mailbox as it is now. Nobody has been told anything yet.
func newView(ctx context.Context, account *backend.Account, name string, mbox *backend.Mailbox, noRecent bool) (*view, error) {
	v := &view{mbox: mbox, account: account, name: name, keywords: make(map[imap.Flag]bool), noRecent: noRecent}
	// In this order a change between the calls is told once more, never lost.
	v.modSeq = mbox.HighestModSeq()
	v.told = v.modSeq
	v.uids, v.shared = mbox.UIDs(), true
	if err := v.claimRecent(ctx, v.uids); err != nil && ctx.Err() != nil {
		return nil, err
	}
	return v, nil
}

// claimRecent makes those of uids, which the view holds now, \Recent that are so for no other session. On an error none is:
// a mailbox can be read also while nothing can be written, on a full disk for instance.
func (v *view) claimRecent(ctx context.Context, uids []imap.UID) error {
	if !v.claimsRecent() || len(uids) == 0 {
		return nil
	}
	first, err := v.mbox.ClaimRecent(ctx, uids[len(uids)-1])
	if err != nil {
		return err
	}
	v.addRecent(first, uids)
	return nil
}

// claimsRecent reports whether new messages are \Recent in this session and in no other.
func (v *view) claimsRecent() bool { return !v.noRecent && !v.mbox.ReadOnly() }

// forgetRecent is what IMAP4rev2 does to \Recent when it is enabled late.
func (v *view) forgetRecent() { v.noRecent, v.recent, v.recentCount = true, nil, 0 }

// addRecent makes those of uids from first on \Recent.
func (v *view) addRecent(first imap.UID, uids []imap.UID) {
	i, _ := slices.BinarySearch(uids, first)
	if uids = uids[i:]; len(uids) == 0 {
		return
	}
	v.recentCount += len(uids)
	lo, hi := uids[0], uids[len(uids)-1]
	if n := len(v.recent); n > 0 && v.recent[n-1].Stop >= lo-1 {
		v.recent[n-1].Stop = hi
		return
	}
	v.recent = append(v.recent, imap.UIDRange{Start: lo, Stop: hi})
}

// isRecent reports whether the message is \Recent in this session.
func (v *view) isRecent(uid imap.UID) bool {
	i, found := slices.BinarySearchFunc(v.recent, uid, func(r imap.UIDRange, uid imap.UID) int {
		switch {
		case r.Stop < uid:
			return -1
		case r.Start > uid:
			return 1
		}
		return 0
	})
	return found && i < len(v.recent)
}

// len returns the number of messages, as the client counts them.
func (v *view) len() int { return len(v.uids) }

// seq returns the sequence number of a message.
func (v *view) seq(uid imap.UID) (seq uint32, ok bool) {
	i, ok := slices.BinarySearch(v.uids, uid)
	return uint32(i + 1), ok
}

// span is the messages with indices lo to hi-1, whose sequence numbers are lo+1 to hi.
type span struct{ lo, hi int }

// selection is messages of a view: ascending spans that do not touch. It is good
// until changes are told.
type selection []span

// count returns the number of messages.
func (sel selection) count() int {
	n := 0
	for _, sp := range sel {
		n += sp.hi - sp.lo
	}
	return n
}

// add puts a span behind the others.
func (sel selection) add(lo, hi int) selection {
	if lo >= hi {
		return sel
	}
	if n := len(sel); n > 0 && sel[n-1].hi >= lo {
		sel[n-1].hi = max(sel[n-1].hi, hi)
		return sel
	}
	return append(sel, span{lo, hi})
}

// find returns the messages of set. Numbers that mean nothing are passed over.
// The time depends on the ranges in the set, not on the numbers in them.
func (v *view) find(set imap.NumSet) selection {
	if imap.IsSearchRes(set) {
		set = v.saved
	}
	n := len(v.uids)
	if n == 0 {
		return nil
	}
	var sel selection
	switch set := set.(type) {
	case imap.UIDSet:
		last := v.uids[n-1]
		for _, r := range set {
			start, stop := r.Start, r.Stop
			if start == 0 {
				start = last
			}
			if stop == 0 {
				// n:* holds the last message also where n is over it.
				start, stop = min(start, last), max(start, last)
			}
			lo, _ := slices.BinarySearch(v.uids, start)
			hi, found := slices.BinarySearch(v.uids[lo:], stop)
			if hi += lo; found {
				hi++
			}
			sel = sel.add(lo, hi)
		}
	case imap.SeqSet:
		for _, r := range set {
			start, stop := int(r.Start), int(r.Stop)
			if start == 0 {
				start = n
			}
			if stop == 0 {
				start, stop = min(start, n), max(start, n)
			}
			sel = sel.add(min(start-1, n), min(stop, n))
		}
	}
	return sel
}

// validSeqs reports whether every number of set is in the view, as FETCH, STORE,
// COPY and MOVE ask for; "*" is unless there are no messages. Set is sorted, so
// its last range tells.
func (v *view) validSeqs(set imap.SeqSet) bool {
	n := uint32(len(v.uids))
	if len(set) == 0 || n == 0 {
		return false
	}
	last := set[len(set)-1]
	if last.Stop == 0 {
		return last.Start <= n
	}
	return last.Stop <= n
}

// uidsOf returns the UIDs of the messages. For one span it is part of the view.
func (v *view) uidsOf(sel selection) []imap.UID {
	switch len(sel) {
	case 0:
		return nil
	case 1:
		return v.uids[sel[0].lo:sel[0].hi:sel[0].hi]
	}
	uids := make([]imap.UID, 0, sel.count())
	for _, sp := range sel {
		uids = append(uids, v.uids[sp.lo:sp.hi]...)
	}
	return uids
}

// messages yields the messages with their sequence numbers, ascending, until
// yield returns false. Those that are gone are skipped; all is false if there
// were any. The pointer is valid during the call only.
func (v *view) messages(sel selection, yield func(seq uint32, msg *backend.Message) bool) (all bool) {
	if len(sel) == 0 {
		return true
	}
	// One call for all: a set of half the UIDs has as many spans as messages.
	sp, i, stopped := 0, sel[0].lo, false
	all = true
	v.mbox.Messages(v.uidsOf(sel), func(msg *backend.Message) bool {
		for {
			if i == sel[sp].hi {
				if sp++; sp == len(sel) {
					return false
				}
				i = sel[sp].lo
			}
			if v.uids[i] == msg.UID {
				break
			}
			i++
			all = false
		}
		i++
		stopped = !yield(uint32(i), msg)
		return !stopped
	})
	if !stopped && (sp < len(sel)-1 || i < sel[sp].hi) {
		all = false
	}
	return all
}

// appendFlags appends what FETCH FLAGS says of the message. What is no flag to
// IMAP is left out.
func (v *view) appendFlags(dst []imap.Flag, msg *backend.Message) []imap.Flag {
	from := len(dst)
	dst = msg.AppendFlags(dst)
	for i := from; i < len(dst); {
		if wire.ValidFlag(string(dst[i])) {
			i++
		} else {
			dst = slices.Delete(dst, i, i+1)
		}
	}
	if v.isRecent(msg.UID) {
		dst = append(dst, `\Recent`)
	}
	return dst
}

// newKeywords takes the keywords in use, and reports whether there are some that
// the client was not told of in FLAGS.
func (v *view) newKeywords() bool {
	return v.learnKeywords(v.mbox.Keywords())
}

// learnKeywords notes those of flags that are keywords, and reports whether there are new ones.
func (v *view) learnKeywords(flags []imap.Flag) bool {
	known := len(v.keywordNames)
	for _, k := range flags {
		if strings.HasPrefix(string(k), `\`) {
			continue
		}
		if key := imap.Flag(strings.ToLower(string(k))); !v.keywords[key] && wire.ValidAtom(string(k)) {
			v.keywords[key] = true
			v.keywordNames = append(v.keywordNames, k)
		}
	}
	if len(v.keywordNames) == known {
		return false
	}
	slices.Sort(v.keywordNames)
	return true
}

// selected returns the messages that set means to a command. Sequence numbers
// that do not exist are the client's mistake: BAD, as Dovecot answers.
func (s *session) selected(set imap.NumSet) (selection, error) {
	if seqs, ok := set.(imap.SeqSet); ok && !s.view.validSeqs(seqs) {
		return nil, bad("No such message number")
	}
	return s.view.find(set), nil
}

// closeView leaves the selected mailbox.
func (s *session) closeView() {
	if s.view != nil {
		s.view.mbox.Close()
		s.view = nil
		s.state = imap.ConnStateAuthenticated
	}
}
