package syncer

import (
	"context"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"

	"postern/backend/graph"
	"postern/backend/store"
)

// Some of what a push writes holds more than the client's change: the list of categories is replaced whole, the last verb stands
// for \Answered and $Forwarded together, and a draft's new version hides that somebody has edited it. For those the message is
// read right before it is written, so that what other programs did since the last round of changes stays. Whether a message is
// read, flagged or \Deleted is written without a look: that is one value, and the client's is the later one.

// theirOptions ask for what a push has to respect.
var theirOptions = graph.ListOptions{
	Select: []string{"id", "isRead", "isDraft", "flag", "categories", "lastModifiedDateTime"},
	Expand: []graph.PropertyID{graph.PropLastVerb, propIMAPFlags},
}

// needsTheirs reports whether the message must be read before its pending changes are written.
func needsTheirs(m *store.Message) bool {
	return m.PendingKeywords || m.Pending&(store.FlagAnswered|store.FlagForwarded) != 0 || m.Flags&store.FlagIsDraft != 0
}

// outgoing is a pending change on its way to Graph.
type outgoing struct {
	msg     *store.Message
	update  graph.Update
	failed  error // it must not be written now
	nothing bool  // Graph has all of it already
	look    bool  // other programs have changed something that no row of changes would show any more
}

// prepare says what to write for pending changes, in at most one batch of reads. guarded asks Graph to refuse what has changed
// between that and the writing.
func (s *Syncer) prepare(ctx context.Context, msgs []store.Message, guarded bool) ([]outgoing, error) {
	out := make([]outgoing, len(msgs))
	var ids []string
	var at []int
	var keywords []store.MessageID
	for i := range msgs {
		out[i].msg, out[i].update = &msgs[i], updateFor(&msgs[i])
		if !needsTheirs(&msgs[i]) {
			continue
		}
		ids, at = append(ids, string(msgs[i].GraphID)), append(at, i)
		if msgs[i].PendingKeywords {
			keywords = append(keywords, msgs[i].ID)
		}
	}
	if len(ids) == 0 {
		return out, nil
	}
	touched, err := s.o.Store.Touched(ctx, keywords)
	if err != nil {
		return nil, err
	}
	for n, res := range s.o.Graph.GetMany(ctx, ids, theirOptions) {
		o := &out[at[n]]
		switch {
		case res.Err == nil:
			o.respect(res.Message, touched[o.msg.ID])
			if guarded {
				o.update.IfMatch = res.Message.ETag
			}
			if s.editedUnseen(o.msg, res.Message) {
				o.look = true
			}
		case temporary(res.Err) || graph.StatusOf(res.Err) == 403 || graph.StatusOf(res.Err) == 0:
			o.failed = res.Err
		default:
			// It is gone, or fails for ever on reading (observed: ErrorCorruptData). The writing will tell.
		}
	}
	return out, nil
}

// respect changes the update so that it keeps what other programs have done to the message.
func (o *outgoing) respect(theirs *graph.Message, touched []string) {
	m := *o.msg
	r := remoteOf(theirs, true)
	o.look = (m.Flags^r.Flags)&r.FlagsMask&^m.Pending&(store.FlagAnswered|store.FlagForwarded|store.FlagDeleted|store.FlagDraft) != 0
	if m.PendingKeywords && theirs.Categories != nil && len(touched) > 0 {
		merged := mergeCategories(*theirs.Categories, m.Keywords, touched)
		o.look = o.look || !slices.Equal(keywordsOf(merged), m.Keywords)
		if o.update.Categories = &merged; slices.Equal(merged, *theirs.Categories) {
			o.update.Categories = nil
		}
	}
	if m.Pending&(store.FlagAnswered|store.FlagForwarded) != 0 {
		m.Flags = m.Flags&^(r.FlagsMask&^m.Pending) | r.Flags&^m.Pending
		o.update.Extended = extendedFlags(m.Flags, m.Pending)
	}
	o.nothing = o.update.IsRead == nil && o.update.Flag == nil && o.update.Categories == nil && o.update.Extended == nil
}

// mergeCategories returns Graph's categories with those keywords changed that clients have touched.
func mergeCategories(theirs, ours, touched []string) []string {
	has := func(list []string, keyword string) bool {
		return slices.ContainsFunc(list, func(k string) bool { return strings.EqualFold(k, keyword) })
	}
	merged := make([]string, 0, len(theirs)+len(touched))
	var there []string
	for _, c := range theirs {
		k := string(Keyword(c))
		if has(touched, k) && !has(ours, k) {
			continue
		}
		merged, there = append(merged, c), append(there, k)
	}
	for _, k := range ours {
		if has(touched, k) && !has(there, k) {
			merged = append(merged, Category(imap.Flag(k)))
		}
	}
	return merged
}

// editedUnseen reports whether somebody has edited a draft since its version was last noted, and remembers that: the version which
// our own change is about to make would hide it.
func (s *Syncer) editedUnseen(have *store.Message, m *graph.Message) bool {
	if have.Flags&store.FlagIsDraft == 0 || m.IsDraft == nil || !*m.IsDraft || flagsDiffer(have, m) {
		return false
	}
	v, _ := version(m)
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.own[have.GraphID]
	before := s.drafts[have.GraphID]
	if before == "" && w != nil {
		before = w.last // stored by a client just now
	}
	if before == "" || before == v || w != nil && w.explains(m) {
		return false
	}
	if len(s.edited) > 5000 {
		clear(s.edited)
	}
	s.edited[have.GraphID] = true
	return true
}
