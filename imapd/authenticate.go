package imapd

import (
	"encoding/base64"
	"strings"

	"postern/imapd/wire"
)

// maxSASL is the longest line of an authentication exchange; RFC 4954 section 4
// asks SMTP servers for 12,288 bytes, IMAP names no number.
const maxSASL = 12288

// authenticate is AUTHENTICATE, with an initial response (RFC 4959) or without.
func (s *session) authenticate(c *command) error {
	d := s.dec
	d.Space()
	mechanism := d.Word()
	initial, hasInitial := "", false
	if d.TrySpace() {
		// "=" is an empty response: the client has it, and it is empty.
		initial, hasInitial = d.Rest(), true
		if initial == "=" {
			initial = ""
		}
	}
	if err := d.End(); err != nil {
		return err
	}
	var exchange func(initial *string) (user, password string, err error)
	switch mechanism {
	case "PLAIN":
		exchange = s.saslPlain
	case "LOGIN":
		exchange = s.saslLogin
	default:
		return no("", "Authentication mechanism not supported")
	}
	if err := s.requirePrivacy(); err != nil {
		return err
	}
	var first *string
	if hasInitial {
		response, err := decodeSASL(initial)
		if err != nil {
			return err
		}
		first = &response
	}
	user, password, err := exchange(first)
	if err != nil {
		return err
	}
	return s.logIn(c, user, password)
}

// saslPlain is RFC 4616. The authorization identity must be empty or the user
// name itself.
func (s *session) saslPlain(first *string) (user, password string, err error) {
	response := first
	if response == nil {
		r, err := s.challenge("")
		if err != nil {
			return "", "", err
		}
		response = &r
	}
	parts := strings.Split(*response, "\x00")
	if len(parts) != 3 || parts[1] == "" {
		return "", "", bad("Invalid PLAIN response")
	}
	if parts[0] != "" && !strings.EqualFold(parts[0], parts[1]) {
		return "", "", no("AUTHORIZATIONFAILED", "Logging in for somebody else is not supported")
	}
	return parts[1], parts[2], nil
}

// saslLogin is the LOGIN mechanism, which no standard describes; the prompts are
// those that all clients know.
func (s *session) saslLogin(first *string) (user, password string, err error) {
	if first != nil {
		user = *first
	} else if user, err = s.challenge("Username:"); err != nil {
		return "", "", err
	}
	password, err = s.challenge("Password:")
	return user, password, err
}

// challenge sends a challenge and returns the client's answer to it.
func (s *session) challenge(text string) (string, error) {
	s.enc.Raw("+ ").Raw(base64.StdEncoding.EncodeToString([]byte(text))).CRLF()
	if err := s.enc.Flush(); err != nil {
		return "", err
	}
	line, err := s.dec.ReadLine(maxSASL)
	if err != nil {
		if wire.Recoverable(err) {
			return "", bad("Response too long")
		}
		return "", err
	}
	if line == "*" {
		return "", bad("Authentication cancelled")
	}
	return decodeSASL(line)
}

func decodeSASL(line string) (string, error) {
	b, err := base64.StdEncoding.DecodeString(line)
	if err != nil {
		return "", bad("Invalid base64")
	}
	return string(b), nil
}
