package backend

import (
	"context"
	"errors"
	"net/http"
	"syscall"

	"postern/backend/graph"
	"postern/backend/message"
	"postern/backend/store"
	"postern/backend/syncer"
	"postern/backend/token"
)

// translate turns what the parts below answer into an *Error. It returns nil for nil, and an *Error as it is.
func translate(op string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*Error](err); ok {
		return err
	}
	kind, text := explain(err)
	return &Error{Kind: kind, Op: op, Text: text, Err: err}
}

// explain says what a mail client can do about err, and what its user should read.
func explain(err error) (Kind, string) {
	if t, ok := errors.AsType[*token.Error](err); ok {
		if t.Permanent {
			return SignInNeeded, "Microsoft refuses the sign-in for this mailbox; the administrator must renew its credential"
		}
		return Unavailable, "Microsoft's sign-in service cannot be reached, try again later"
	}
	switch {
	case isNoSpace(err):
		return Unavailable, "the server's disk is full; its administrator must make room"
	case errors.Is(err, store.ErrDamaged):
		return Internal, "the server's database is damaged; its administrator must act, the log says how"
	case errors.Is(err, syncer.ErrExists), errors.Is(err, store.ErrNameTaken):
		return Exists, "a mailbox of that name exists already"
	case errors.Is(err, syncer.ErrHasChildren), errors.Is(err, syncer.ErrSpecial), errors.Is(err, syncer.ErrBadName),
		errors.Is(err, syncer.ErrOwnChild):
		return Refused, sentence(err)
	case errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrNoBody):
		return NotFound, ""
	case errors.Is(err, message.ErrIndivisible):
		return TooLarge, "the message is too large for Microsoft 365 and cannot be taken apart"
	case errors.Is(err, syncer.ErrStopped):
		return Unavailable, "the server is stopping"
	case graph.IsNoMailbox(err):
		return Denied, "there is no Exchange Online mailbox of this address"
	case graph.IsQuota(err):
		return OverQuota, "the Microsoft 365 mailbox is full"
	case graph.IsTooLarge(err):
		return TooLarge, "the message is larger than the mailbox accepts"
	case graph.IsThrottled(err):
		return Unavailable, "Microsoft 365 asks for fewer requests, try again later"
	case graph.StatusOf(err) == http.StatusUnauthorized:
		return SignInNeeded, "Microsoft 365 does not accept the sign-in for this mailbox"
	case graph.IsDenied(err):
		return Denied, "Microsoft 365 does not let this program use the mailbox"
	case graph.IsNotFound(err):
		return NotFound, ""
	case graph.IsTemporary(err):
		return Unavailable, "Microsoft 365 cannot be reached, try again later"
	case graph.StatusOf(err) >= 400 && graph.StatusOf(err) < 500:
		return Refused, "Microsoft 365 refuses this"
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return Unavailable, ""
	}
	return Internal, ""
}

// isNoSpace reports a full disk or a used-up disk quota of the user Postern runs as.
func isNoSpace(err error) bool {
	return errors.Is(err, store.ErrNoSpace) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, errDiskQuota)
}

// sentence returns the innermost text of one of syncer's plain errors.
func sentence(err error) string {
	for _, e := range []error{syncer.ErrHasChildren, syncer.ErrSpecial, syncer.ErrBadName, syncer.ErrOwnChild} {
		if errors.Is(err, e) {
			return e.Error()
		}
	}
	return ""
}

// advice says what an administrator can do about err; it may be empty.
func advice(err error) string {
	if t, ok := errors.AsType[*token.Error](err); ok && t.Advice != "" {
		return t.Advice
	}
	if _, remedy, ok := graph.ExplainNetwork(err); ok {
		return remedy
	}
	switch {
	case err == nil:
		return ""
	case isNoSpace(err):
		return "Make room on the disk of the state folder."
	case errors.Is(err, store.ErrDamaged):
		return "Follow the advice in the log: the replica can be read anew."
	case graph.IsNoMailbox(err):
		return "Configure the user principal name or object id of a user who has an Exchange Online mailbox; a licence may be missing."
	case graph.IsQuota(err):
		return "Make room in the mailbox or raise its quota."
	case graph.IsDenied(err):
		return "Grant the app the application permissions Mail.ReadWrite and Mail.Send with admin consent, or include the mailbox in its access policy; a change can take two hours to act."
	case graph.StatusOf(err) == http.StatusUnauthorized:
		return "Check that the credential belongs to the mailbox's tenant and cloud."
	}
	return ""
}
