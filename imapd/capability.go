package imapd

import (
	"strconv"
	"strings"
)

// capabilities after login. Nothing is in here that does not fully work. Not
// offered on purpose: CRAM-MD5, which needs clear passwords, and XOAUTH2, which
// some clients pick by themselves and then fail.
const capabilities = "IMAP4rev1 IMAP4rev2 LITERAL+ SASL-IR ID ENABLE UIDPLUS MOVE IDLE UNSELECT NAMESPACE LIST-EXTENDED" +
	" LIST-STATUS SPECIAL-USE CREATE-SPECIAL-USE CHILDREN STATUS=SIZE CONDSTORE QRESYNC MULTIAPPEND UTF8=ACCEPT" +
	" ESEARCH SEARCHRES WITHIN BINARY OBJECTID PREVIEW SORT SORT=DISPLAY ESORT THREAD=ORDEREDSUBJECT THREAD=REFERENCES" +
	" QUOTA QUOTA=RES-STORAGE"

// capabilities returns what the client may use in the present state.
func (s *session) capabilities() string {
	var sb strings.Builder
	if s.login != nil {
		sb.WriteString(capabilities)
		if !s.compressed {
			sb.WriteString(" COMPRESS=DEFLATE")
		}
		sb.WriteString(" APPENDLIMIT=")
		sb.WriteString(strconv.FormatInt(s.limits.Message, 10))
		return sb.String()
	}
	sb.WriteString("IMAP4rev1 IMAP4rev2 LITERAL+ SASL-IR ID ENABLE IDLE")
	if s.canStartTLS() {
		sb.WriteString(" STARTTLS")
	}
	if s.mayLogIn() {
		sb.WriteString(" AUTH=PLAIN AUTH=LOGIN")
	} else {
		sb.WriteString(" LOGINDISABLED")
	}
	return sb.String()
}

// capability is CAPABILITY. RFC 3501 section 6.1.1.
func (s *session) capability(*command) error {
	if err := s.dec.End(); err != nil {
		return err
	}
	s.enc.Raw("* CAPABILITY ").Raw(s.capabilities()).CRLF()
	return nil
}
