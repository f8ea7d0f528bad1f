package backend

import (
	"context"
	"io"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"

	"postern/backend/store"
	"postern/backend/syncer"
)

// StoreAction says what STORE does with its flags.
type StoreAction int

// The actions of STORE.
const (
	StoreAdd StoreAction = iota
	StoreRemove
	StoreReplace
)

// storeChunk is how many messages one transaction changes, so that others get their turn.
const storeChunk = 5000

// Store changes flags and keywords. Those of uids that changed after unchangedSince
// (0: no condition) are left alone and returned. It is done when the replica has it; Graph follows. \Recent
// cannot be changed and is ignored.
func (m *Mailbox) Store(ctx context.Context, uids []imap.UID, action StoreAction, flags []imap.Flag, unchangedSince uint64) (modified []imap.UID, err error) {
	if m.readOnly {
		return nil, errReadOnly("store flags")
	}
	change := m.flagChange(action, flags)
	change.UnchangedSince = unchangedSince
	for part := range slices.Chunk(uids, storeChunk) {
		changes := make([]store.FlagChange, len(part))
		for i, uid := range part {
			changes[i] = change
			changes[i].UID = uid
		}
		mod, err := m.account.syncer.ChangeFlags(ctx, m.view.id, changes)
		modified = append(modified, mod...)
		if err != nil {
			return modified, translate("store flags", err)
		}
	}
	return modified, nil
}

func errReadOnly(op string) error {
	return &Error{Kind: Denied, Op: op, Text: "the mailbox is open for reading only"}
}

func (m *Mailbox) flagChange(action StoreAction, flags []imap.Flag) store.FlagChange {
	bits, keywords := splitFlags(flags, m.Keywords())
	var c store.FlagChange
	switch action {
	case StoreAdd:
		c.Set, c.AddKeywords = bits, keywords
	case StoreRemove:
		c.Clear, c.RemoveKeywords = bits, keywords
	case StoreReplace:
		c.Set, c.Clear = bits, store.FlagsAll&^bits
		c.AddKeywords, c.ReplaceKeywords = keywords, true
	}
	return c
}

// splitFlags separates flags from keywords. A keyword that is in use gets the spelling it has there.
func splitFlags(flags []imap.Flag, known []imap.Flag) (store.Flags, []string) {
	var bits store.Flags
	keywords := []string{}
	for _, f := range flags {
		if bit := store.FlagBit(f); bit != 0 {
			bits |= bit
			continue
		}
		if f == "" || f[0] == '\\' {
			continue // \Recent, and system flags nobody knows
		}
		k := syncer.CanonicalKeyword(f)
		if i := slices.IndexFunc(known, func(have imap.Flag) bool { return strings.EqualFold(string(have), string(k)) }); i >= 0 {
			k = known[i]
		}
		if !slices.Contains(keywords, string(k)) {
			keywords = append(keywords, string(k))
		}
	}
	slices.Sort(keywords)
	return bits, keywords
}

// Expunge removes the messages with \Deleted, all (nil) or those among uids, and returns
// those removed, ascending, also when it fails for others.
func (m *Mailbox) Expunge(ctx context.Context, uids []imap.UID) (done []imap.UID, err error) {
	if m.readOnly {
		return nil, errReadOnly("expunge messages")
	}
	if uids == nil {
		uids = m.UIDs()
	}
	var marked []imap.UID
	m.Messages(uids, func(msg *Message) bool {
		if msg.flags&store.FlagDeleted != 0 {
			marked = append(marked, msg.UID)
		}
		return true
	})
	rows, err := m.rows(ctx, marked)
	if err != nil || len(rows) == 0 {
		return nil, translate("expunge messages", err)
	}
	done, err = m.account.syncer.Expunge(ctx, m.view.id, rows)
	slices.Sort(done)
	return done, translate("expunge messages", err)
}

// CopyResult pairs the UIDs of copied or moved messages.
type CopyResult struct {
	UIDValidity  uint32 // of the destination
	Source, Dest []imap.UID
}

// Copy copies messages into another mailbox of the account. Messages that are gone are
// skipped. On an error the result holds what was copied before.
func (m *Mailbox) Copy(ctx context.Context, uids []imap.UID, dest string) (CopyResult, error) {
	return m.transfer(ctx, "copy messages", uids, dest, m.account.syncer.Copy)
}

// Move is Copy for MOVE. Messages that are moved to where they are get new UIDs there (RFC 6851 section 3.3).
func (m *Mailbox) Move(ctx context.Context, uids []imap.UID, dest string) (CopyResult, error) {
	if m.readOnly {
		return CopyResult{}, errReadOnly("move messages")
	}
	return m.transfer(ctx, "move messages", uids, dest, func(ctx context.Context, from, to store.FolderID, msgs []store.Message) ([]syncer.Pair, error) {
		if from == to {
			return m.account.syncer.Renumber(ctx, from, msgs)
		}
		return m.account.syncer.Move(ctx, from, to, msgs)
	})
}

func (m *Mailbox) transfer(ctx context.Context, op string, uids []imap.UID, dest string,
	do func(context.Context, store.FolderID, store.FolderID, []store.Message) ([]syncer.Pair, error)) (CopyResult, error) {
	// UIDs in the destination must follow those of what is there already.
	to, err := m.account.filled(ctx, dest)
	if err != nil {
		return CopyResult{}, translate(op, err)
	}
	res := CopyResult{UIDValidity: to.UIDValidity}
	rows, err := m.rows(ctx, uids)
	if err != nil || len(rows) == 0 {
		return res, translate(op, err)
	}
	pairs, err := do(ctx, m.view.id, to.ID, rows)
	for _, p := range pairs {
		res.Source = append(res.Source, p.Source)
		res.Dest = append(res.Dest, p.Dest)
	}
	return res, translate(op, err)
}

// CopyTo copies messages into a mailbox of another account, with their flags and dates. Graph cannot do that, so each is
// read and appended there.
func (m *Mailbox) CopyTo(ctx context.Context, uids []imap.UID, dst *Account, dest string) (CopyResult, error) {
	if dst == m.account {
		return m.Copy(ctx, uids, dest)
	}
	to, err := dst.filled(ctx, dest)
	if err != nil {
		return CopyResult{}, translate("copy messages", err)
	}
	res := CopyResult{UIDValidity: to.UIDValidity}
	for _, uid := range uids {
		msg, ok := m.Message(uid)
		if !ok {
			continue
		}
		got, err := m.copyOne(ctx, &msg, dst, dest)
		if KindOf(err) == NotFound {
			if _, there := m.Message(uid); !there {
				continue
			}
		}
		if err != nil {
			return res, translate("copy messages", err)
		}
		res.Source = append(res.Source, uid)
		res.Dest = append(res.Dest, got)
	}
	return res, nil
}

func (m *Mailbox) copyOne(ctx context.Context, msg *Message, dst *Account, dest string) (imap.UID, error) {
	body, err := m.Body(ctx, msg.UID)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	nm, err := dst.NewMessage()
	if err != nil {
		return 0, err
	}
	defer nm.Discard()
	if _, err := io.Copy(nm, io.NewSectionReader(body, 0, body.Size())); err != nil {
		return 0, err
	}
	_, uid, err := dst.Append(ctx, dest, msg.AppendFlags(nil), msg.Received, nm)
	return uid, err
}
