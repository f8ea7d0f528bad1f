package smtpd

import (
	"strings"

	"github.com/emersion/go-smtp"

	"postern/backend"
)

// status builds the only kind of error that may reach go-smtp: it looks for a bare
// *smtp.SMTPError by type assertion, prints the text of every other error to the
// client, and turns those of DATA into a 554, a bounce.
func status(code int, class, subject, detail int, text string) *smtp.SMTPError {
	return &smtp.SMTPError{
		Code:         code,
		EnhancedCode: smtp.EnhancedCode{class, subject, detail},
		Message:      oneLine(text),
	}
}

// reply says what a failure means to a client: 4xx for what waiting may cure, 5xx for
// what it will not. The cause stays in the log.
func reply(err error) *smtp.SMTPError {
	text := backend.TextOf(err)
	say := func(fallback string) string {
		if text != "" {
			return text
		}
		return fallback
	}
	var r *smtp.SMTPError
	switch backend.KindOf(err) {
	case backend.Unavailable:
		r = status(451, 4, 4, 0, say("Microsoft 365 cannot be reached now, try again later"))
	case backend.SignInNeeded:
		r = status(451, 4, 7, 0, say("Microsoft 365 refuses the sign-in, an administrator must look at the status page"))
	case backend.NotFound:
		r = status(550, 5, 1, 0, say("The mailbox does not exist"))
	case backend.Denied:
		r = status(553, 5, 7, 1, say("You may not send this, ask the administrator for the right"))
	case backend.Refused, backend.Exists:
		r = status(554, 5, 6, 0, say("The message cannot be sent as it is"))
	case backend.TooLarge:
		r = status(552, 5, 3, 4, say("The message is too large"))
	case backend.OverQuota:
		r = status(452, 4, 2, 2, say("The mailbox is full, try again when there is room"))
	case backend.AuthFailed:
		r = status(535, 5, 7, 8, say("Wrong user name or password"))
	case backend.TooMany:
		r = status(454, 4, 7, 0, say("Too many attempts, try again later"))
	default:
		r = status(451, 4, 3, 0, "Internal error, try again later")
	}
	if class, subject, detail, ok := backend.StatusOf(err); ok && class == r.Code/100 {
		r.EnhancedCode = smtp.EnhancedCode{class, subject, detail}
		if class == 5 && subject == 1 {
			r.Code = 550 // an address, not the content
		}
	}
	return r
}

// accepted is DATA's answer when all went well. go-smtp's own text has no room for the queue id.
func accepted(queueID string) *smtp.SMTPError {
	return status(250, 2, 0, 0, "Ok: queued as "+queueID)
}

// oneLine keeps a reply on its line whatever the text holds, and within RFC 5321's 512 bytes.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if len(s) > 480 {
		s = strings.ToValidUTF8(s[:480], "")
	}
	return s
}
