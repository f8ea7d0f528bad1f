package imapd

import (
	"errors"
	"log/slog"
	"net"

	"github.com/emersion/go-imap/v2"

	"postern/backend"
	"postern/imapd/wire"
)

// status is the outcome of a command: what its tagged response says. As an
// error it is a NO or BAD.
type status struct {
	typ  imap.StatusResponseType
	code string // with its arguments, without brackets; may be empty
	text string
}

// Error returns the status as it would be sent.
func (st *status) Error() string {
	if st.code != "" {
		return string(st.typ) + " [" + st.code + "] " + st.text
	}
	return string(st.typ) + " " + st.text
}

func no(code imap.ResponseCode, text string) error {
	return &status{imap.StatusResponseTypeNo, string(code), text}
}

func bad(text string) error {
	return &status{imap.StatusResponseTypeBad, "", text}
}

// codeReadOnly says that the mailbox was opened by EXAMINE, or that the login
// may only read. RFC 3501 section 7.1.
const codeReadOnly = "READ-ONLY"

var errReadOnly = no(codeReadOnly, "Mailbox is open for reading only")

// reply turns any error of a command into what the client is told. Nothing of
// the error itself reaches it but sentences made for it. The codes are those of
// RFC 5530.
func reply(err error) *status {
	if st, ok := errors.AsType[*status](err); ok {
		return st
	}
	if e, ok := errors.AsType[*wire.SyntaxError](err); ok {
		return &status{imap.StatusResponseTypeBad, "", sentence(e.Text)}
	}
	if e, ok := errors.AsType[*wire.NameError](err); ok {
		return no(imap.ResponseCodeCannot, sentence(e.Text)).(*status)
	}
	if e, ok := errors.AsType[*wire.LimitError](err); ok {
		if e.Literal {
			return no(imap.ResponseCodeTooBig, sentence(e.Text)).(*status)
		}
		return no(imap.ResponseCodeLimit, sentence(e.Text)).(*status)
	}
	st := &status{typ: imap.StatusResponseTypeNo, text: sentence(backend.TextOf(err))}
	code, text := imap.ResponseCodeServerBug, "Internal error, the server's log says more"
	switch backend.KindOf(err) {
	case backend.Unavailable:
		code, text = imap.ResponseCodeUnavailable, "Microsoft 365 cannot be reached at present, try again later"
	case backend.NotFound:
		code, text = imap.ResponseCodeNonExistent, "No such mailbox or message"
	case backend.Exists:
		code, text = imap.ResponseCodeAlreadyExists, "Mailbox exists already"
	case backend.SignInNeeded:
		code, text = imap.ResponseCodeContactAdmin, "Microsoft 365 refuses the server's sign-in, ask your administrator"
	case backend.Denied:
		code, text = imap.ResponseCodeNoPerm, "Permission denied"
	case backend.Refused:
		code, text = imap.ResponseCodeCannot, "Not possible"
	case backend.TooLarge:
		code, text = imap.ResponseCodeTooBig, "Too large"
	case backend.OverQuota:
		code, text = imap.ResponseCodeOverQuota, "The Microsoft 365 mailbox is full"
	case backend.AuthFailed:
		code, text = imap.ResponseCodeAuthenticationFailed, "Wrong user name or password"
	case backend.TooMany:
		code, text = imap.ResponseCodeLimit, "Too many attempts, try again later"
	}
	st.code = string(code)
	if st.text == "" {
		st.text = text
	}
	return st
}

// sentence starts text with a capital letter.
func sentence(text string) string {
	if text != "" && text[0] >= 'a' && text[0] <= 'z' {
		return string(text[0]-'a'+'A') + text[1:]
	}
	return text
}

// logLevel returns how loud an error of a command is logged: what the reply
// hides is a warning, what the client did itself is not.
func logLevel(err error) slog.Level {
	if _, ok := errors.AsType[*status](err); ok || wire.Recoverable(err) {
		return slog.LevelDebug
	}
	if _, ok := errors.AsType[bye](err); ok || lostConnection(err) {
		return slog.LevelDebug
	}
	switch backend.KindOf(err) {
	case backend.Internal:
		return slog.LevelError
	case backend.Unavailable, backend.SignInNeeded, backend.Denied, backend.OverQuota:
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// lostConnection reports an error of the connection to the client: it left, or took too long.
func lostConnection(err error) bool {
	_, ok := errors.AsType[net.Error](err)
	return ok || isEOF(err) || errors.Is(err, net.ErrClosed)
}

// tryCreate marks the refusal of a destination that does not exist, so that the
// client offers to create it. RFC 3501 section 6.3.11.
func tryCreate(err error) error {
	if backend.KindOf(err) == backend.NotFound {
		return no(imap.ResponseCodeTryCreate, "No such mailbox")
	}
	return err
}
