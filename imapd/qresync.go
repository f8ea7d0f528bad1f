package imapd

import (
	"context"
	"slices"
	"sort"

	"github.com/emersion/go-imap/v2"

	"postern/backend"
)

// resync is the QRESYNC parameter of SELECT: what the client knew of the mailbox
// when it last left it. RFC 7162 section 3.2.5.
type resync struct {
	uidValidity uint32
	modSeq      uint64
	known       imap.UIDSet // nil: all
	// Some messages by number and by UID, as the client had them.
	seqs imap.SeqSet
	uids imap.UIDSet
}

// parseSelectParameters reads the parameters of SELECT: CONDSTORE and QRESYNC.
func (s *session) parseSelectParameters() *resync {
	d := s.dec
	var r *resync
	condstore := false
	d.List(func() {
		switch d.Word() {
		case "CONDSTORE":
			condstore = true
		case "QRESYNC":
			d.Space()
			r = s.parseResync()
		default:
			d.Fail(bad("Unknown SELECT parameter"))
		}
	})
	if d.Err() == nil && condstore {
		s.enabled.condstore = true // HIGHESTMODSEQ follows in any case
	}
	return r
}

func (s *session) parseResync() *resync {
	d, r := s.dec, &resync{}
	if !s.enabled.qresync {
		d.Fail(bad("ENABLE QRESYNC first")) // RFC 7162 section 3.2.5
	}
	d.Expect('(')
	r.uidValidity = d.Number()
	d.Space()
	r.modSeq = d.Number64()
	if d.TrySpace() && d.Peek() != '(' {
		r.known = d.UIDSet()
		d.TrySpace()
	}
	if d.Try('(') {
		r.seqs = d.SeqSet()
		d.Space()
		r.uids = d.UIDSet()
		d.Expect(')')
	}
	d.Expect(')')
	return r
}

// resync tells a client what has happened since it left the mailbox: first what is
// gone, then the flags of what has changed or is new.
func (s *session) resync(r *resync) error {
	v := s.view
	if err := s.tellVanished(r.modSeq, r.known, r.matched(v)); err != nil {
		return err
	}
	var changed []imap.UID
	sel := selection{{0, v.len()}}
	if r.known != nil {
		sel = v.find(r.known)
	}
	v.messages(sel, func(_ uint32, msg *backend.Message) bool {
		if msg.ModSeq > r.modSeq {
			changed = append(changed, msg.UID)
		}
		return true
	})
	s.tellFlags(changed)
	return s.enc.Err()
}

// matched returns the highest UID of which the client knows that it has the number it
// still has here: nothing up to it has vanished.
func (r *resync) matched(v *view) (match imap.UID) {
	seqs, uids := slices.Clone(r.seqs), slices.Clone(r.uids)
	for len(seqs) > 0 && len(uids) > 0 {
		seq, uid := &seqs[0], &uids[0]
		if seq.Start == 0 || seq.Stop == 0 || uid.Start == 0 || uid.Stop == 0 {
			break // "*" means nothing here
		}
		n := int(min(seq.Stop-seq.Start, uint32(uid.Stop-uid.Start))) + 1
		// v.uids[first+j]-j only grows with j, so that where it equals uid.Start is one
		// stretch; its end is wanted.
		if first := int(seq.Start) - 1; first < v.len() {
			in := min(n, v.len()-first)
			j := sort.Search(in, func(j int) bool { return v.uids[first+j]-imap.UID(j) > uid.Start }) - 1
			if j >= 0 && v.uids[first+j]-imap.UID(j) == uid.Start {
				match = v.uids[first+j]
			}
		}
		if seq.Start += uint32(n); seq.Start > seq.Stop || seq.Start == 0 {
			seqs = seqs[1:]
		}
		if uid.Start += imap.UID(n); uid.Start > uid.Stop || uid.Start == 0 {
			uids = uids[1:]
		}
	}
	return match
}

// tellVanished tells which messages have been removed since a mod-sequence: of those
// in set, all where that is nil, and none up to after. What is still in the view is
// told when it leaves that. RFC 7162 section 3.2.10.
func (s *session) tellVanished(since uint64, set imap.UIDSet, after imap.UID) error {
	var gone []imap.UID
	err := s.wait(func(ctx context.Context) (err error) {
		gone, err = s.view.mbox.Vanished(ctx, since)
		return err
	})
	if err != nil {
		return err
	}
	at, _ := slices.BinarySearch(gone, after+1)
	gone = within(without(gone[at:], s.view.uids), set)
	if len(gone) > 0 {
		s.enc.Raw("* VANISHED (EARLIER) ").UIDs(gone).CRLF()
	}
	return s.enc.Err()
}

// within returns those of uids, ascending, that are in set; a nil set holds all.
func within(uids []imap.UID, set imap.UIDSet) []imap.UID {
	if set == nil {
		return uids
	}
	var in []imap.UID
	for _, uid := range uids {
		for len(set) > 0 && set[0].Stop != 0 && set[0].Stop < uid {
			set = set[1:]
		}
		if len(set) == 0 {
			break
		}
		// "*" alone, which starts at 0, means the last message there is.
		if set[0].Start != 0 && set[0].Start <= uid {
			in = append(in, uid)
		}
	}
	return in
}
