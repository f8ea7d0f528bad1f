package imapd

import (
	"context"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"

	"postern/backend"
)

// storeRequest is a STORE command. RFC 3501 section 6.4.6.
type storeRequest struct {
	set    imap.NumSet
	action backend.StoreAction
	silent bool
	flags  []imap.Flag

	conditional    bool   // RFC 7162 section 3.1.3
	unchangedSince uint64 // 0: no message qualifies
}

// store is STORE and UID STORE.
func (s *session) store(c *command) error {
	req := s.parseStore(c)
	if err := s.dec.End(); err != nil {
		return err
	}
	v := s.view
	if v.mbox.ReadOnly() {
		return errReadOnly
	}
	sel, err := s.selected(req.set)
	if err != nil {
		return err
	}
	if req.conditional {
		s.enableCondstore()
	}
	uids := slices.Clone(v.uidsOf(sel))
	if len(uids) == 0 {
		return nil
	}
	// What others have changed is told first, so that silence afterwards hides
	// nothing but the client's own change.
	if err := s.tellChanges(false); err != nil {
		return err
	}
	before := v.modSeq
	expected := expectation{}
	if req.silent {
		expected = v.expect(uids, req.action, req.flags)
	}
	modified := uids
	if !req.conditional || req.unchangedSince > 0 {
		err = s.wait(func(ctx context.Context) (err error) {
			modified, err = v.mbox.Store(ctx, uids, req.action, req.flags, req.unchangedSince)
			return err
		})
		if err != nil {
			return err
		}
	}
	stored := without(uids, modified)
	s.tellKeywordsAnd(req.flags)
	// A message that was left alone is told as it is, for the client believes it to
	// be otherwise.
	if err := s.tellChangesBut(false, uids); err != nil {
		return err
	}
	switch {
	case !req.silent: // after the journal, so that nothing newer is missed
		s.tellFlags(uids)
	case req.conditional:
		s.tellModSeqs(stored, 0)
		s.tellFlags(modified)
	default:
		s.tellModSeqs(stored, before)
	}
	if req.silent {
		s.tellFlags(expected.missed(v, stored))
	}
	if len(modified) > 0 {
		c.done(s.modifiedCode(c, modified), "Conditional STORE failed for some messages")
	}
	return s.enc.Err()
}

func (s *session) parseStore(c *command) *storeRequest {
	d, req := s.dec, &storeRequest{}
	d.Space()
	req.set = d.NumSet(c.uid)
	d.Space()
	if d.Peek() == '(' {
		d.List(func() {
			if d.Word() != "UNCHANGEDSINCE" {
				d.Fail(bad("Unknown STORE modifier"))
			}
			d.Space()
			req.conditional, req.unchangedSince = true, d.Number64()
		})
		d.Space()
	}
	req.action = backend.StoreReplace
	if d.Try('+') {
		req.action = backend.StoreAdd
	} else if d.Try('-') {
		req.action = backend.StoreRemove
	}
	switch d.Word() {
	case "FLAGS":
	case "FLAGS.SILENT":
		req.silent = true
	default:
		d.Fail(bad("Unknown STORE item"))
	}
	d.Space()
	req.flags = d.Flags()
	for _, f := range req.flags {
		if strings.HasPrefix(string(f), `\`) && !isSystemFlag(f) {
			d.Fail(bad("Not a flag that can be set"))
		}
	}
	return req
}

// modifiedCode names the messages that a conditional STORE left alone, in the
// client's own numbers.
func (s *session) modifiedCode(c *command, uids []imap.UID) string {
	numbers := make([]imap.UID, 0, len(uids))
	for _, uid := range uids {
		if c.uid {
			numbers = append(numbers, uid)
		} else if seq, ok := s.view.seq(uid); ok {
			numbers = append(numbers, imap.UID(seq))
		}
	}
	return string(appendUIDs([]byte("MODIFIED "), numbers))
}

// without returns those of uids, ascending, that are not in some, ascending too.
func without(uids, some []imap.UID) []imap.UID {
	if len(some) == 0 {
		return uids
	}
	var rest []imap.UID
	for _, uid := range uids {
		for len(some) > 0 && some[0] < uid {
			some = some[1:]
		}
		if len(some) == 0 || some[0] != uid {
			rest = append(rest, uid)
		}
	}
	return rest
}

// isSystemFlag reports whether f is one of the flags with a backslash that a
// client may set. \Recent is not.
func isSystemFlag(f imap.Flag) bool {
	switch f {
	case imap.FlagSeen, imap.FlagAnswered, imap.FlagFlagged, imap.FlagDeleted, imap.FlagDraft:
		return true
	}
	return false
}

// maxExpected bounds the messages whose flags are compared after a silent STORE.
const maxExpected = 2000

// expectation is what a client takes the flags of messages to be after its silent
// STORE. Another session may have changed them between the last telling and the
// STORE, and silence would hide that.
type expectation map[imap.UID]string

func (v *view) expect(uids []imap.UID, action backend.StoreAction, flags []imap.Flag) expectation {
	if len(uids) > maxExpected {
		return nil
	}
	e := make(expectation, len(uids))
	v.mbox.Messages(uids, func(msg *backend.Message) bool {
		have := msg.AppendFlags(nil)
		switch action {
		case backend.StoreAdd:
			have = append(have, flags...)
		case backend.StoreRemove:
			have = slices.DeleteFunc(have, func(f imap.Flag) bool {
				return slices.ContainsFunc(flags, func(g imap.Flag) bool { return strings.EqualFold(string(f), string(g)) })
			})
		case backend.StoreReplace:
			have = slices.Clone(flags)
		}
		e[msg.UID] = flagKey(have)
		return true
	})
	return e
}

// missed returns those of uids whose flags are not as expected.
func (e expectation) missed(v *view, uids []imap.UID) []imap.UID {
	if len(e) == 0 {
		return nil
	}
	var missed []imap.UID
	v.mbox.Messages(uids, func(msg *backend.Message) bool {
		if want, ok := e[msg.UID]; ok && want != flagKey(msg.AppendFlags(nil)) {
			missed = append(missed, msg.UID)
		}
		return true
	})
	return missed
}

// flagKey is the same for the same set of flags.
func flagKey(flags []imap.Flag) string {
	words := make([]string, len(flags))
	for i, f := range flags {
		words[i] = strings.ToLower(string(f))
	}
	slices.Sort(words)
	return strings.Join(slices.Compact(words), " ")
}
