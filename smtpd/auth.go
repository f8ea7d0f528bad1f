package smtpd

import (
	"bytes"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// authenticator checks a name and password and remembers the login. Its errors are
// bare *smtp.SMTPError values: go-smtp prints all others to the client.
type authenticator func(username, password string) error

var errMalformedAuth = &smtp.SMTPError{
	Code: 501, EnhancedCode: smtp.EnhancedCode{5, 5, 2},
	Message: "Malformed log-in data",
}

// newMechanism returns the server side of mech, nil when it is not offered.
func newMechanism(mech string, check authenticator) sasl.Server {
	switch mech {
	case sasl.Plain:
		return &plainServer{check: check}
	case sasl.Login:
		return &loginServer{check: check}
	}
	return nil
}

// plainServer is PLAIN, RFC 4616.
type plainServer struct {
	check    authenticator
	prompted bool
}

// Next takes the initial response, or prompts for it when there is none.
func (s *plainServer) Next(response []byte) (challenge []byte, done bool, err error) {
	if response == nil && !s.prompted {
		s.prompted = true
		return nil, false, nil
	}
	parts := bytes.Split(response, []byte{0})
	if len(parts) != 3 {
		return nil, false, errMalformedAuth
	}
	identity, username, password := string(parts[0]), string(parts[1]), string(parts[2])
	if identity != "" && identity != username {
		return nil, false, &smtp.SMTPError{
			Code: 535, EnhancedCode: smtp.EnhancedCode{5, 7, 8},
			Message: "Logging in as one user to act as another is not supported",
		}
	}
	if err := s.check(username, password); err != nil {
		return nil, false, err
	}
	return nil, true, nil
}

// loginServer is LOGIN, which no standard describes: a prompt for the name, a prompt
// for the password. Clients may send the name with the command. Some devices send an
// empty initial response, or all of PLAIN's response in place of the name.
type loginServer struct {
	check    authenticator
	step     int
	username string
}

// Next takes one answer of the client.
func (s *loginServer) Next(response []byte) (challenge []byte, done bool, err error) {
	switch s.step {
	case 0:
		s.step = 1
		if len(response) == 0 {
			return []byte("Username:"), false, nil
		}
		fallthrough
	case 1:
		if bytes.Count(response, []byte{0}) == 2 {
			s.step = 3
			return (&plainServer{check: s.check}).Next(response)
		}
		name := bytes.TrimRight(response, "\x00\r\n")
		if len(name) == 0 || bytes.IndexByte(name, 0) >= 0 {
			return nil, false, errMalformedAuth
		}
		s.step, s.username = 2, string(name)
		return []byte("Password:"), false, nil
	case 2:
		s.step = 3
		password := bytes.TrimRight(response, "\x00\r\n")
		if bytes.IndexByte(password, 0) >= 0 {
			return nil, false, errMalformedAuth
		}
		if err := s.check(s.username, string(password)); err != nil {
			return nil, false, err
		}
		return nil, true, nil
	}
	return nil, false, errMalformedAuth
}
