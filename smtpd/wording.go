package smtpd

import (
	"bytes"
	"fmt"
	"strings"
)

// go-smtp has its own words and codes for what it decides by itself. Some of its codes are not those that RFC 5321, 3463
// and 4954 give, and clients go by them: 502 says that a command does not exist, 454 that logging in may work later. These are
// its lines as they should be.
var rewording = map[string]string{
	"250 2.0.0 I have successfully done nothing":                "250 2.0.0 Ok",
	"250 2.0.0 Session reset":                                   "250 2.0.0 Ok",
	"252 2.5.0 Cannot VRFY user, but will accept message":       "252 2.1.5 Addresses are not looked up, send the message",
	"235 2.0.0 Authentication succeeded":                        "235 2.7.0 Logged in",
	"421 4.0.0 Internal server error":                           "421 4.3.0 Internal error, closing the connection, try again later",
	"454 4.7.0 Invalid base64 data":                             "501 5.5.2 The log-in data is not written in base64",
	"500 5.5.1 Too many errors. Quiting now":                    "421 4.7.0 Too many commands that are not known, closing the connection",
	"500 5.5.2 Error: bad syntax":                               "500 5.5.2 The command is not known",
	"501 5.5.2 Bad command":                                     "500 5.5.2 The command is not known",
	"500 5.5.1 This is not a LMTP server":                       "502 5.5.1 This server speaks SMTP, not LMTP: use EHLO",
	"500 5.5.4 Unknown MAIL FROM argument":                      "555 5.5.4 A parameter of MAIL FROM is not supported",
	"500 5.5.4 Unknown RCPT TO argument":                        "555 5.5.4 A parameter of RCPT TO is not supported",
	"500 5.5.4 Malformed AUTH parameter value":                  "501 5.5.4 The AUTH parameter of MAIL FROM is malformed",
	"500 5.5.4 Malformed AUTH parameter mailbox":                "501 5.5.4 The AUTH parameter of MAIL FROM is malformed",
	"501 5.0.0 Negotiation cancelled":                           "501 5.7.0 The log-in was given up",
	"501 5.5.2 Domain/address argument required for HELO":       "501 5.5.4 Give a name, as in EHLO client.example",
	"501 5.5.2 Was expecting MAIL arg syntax of FROM:<address>": "501 5.1.7 Write the sender as MAIL FROM:<address>",
	"501 5.5.2 Was expecting RCPT arg syntax of TO:<address>":   "501 5.1.3 Write the recipient as RCPT TO:<address>",
	"501 5.5.4 Unable to parse MAIL ESMTP parameters":           "501 5.5.4 The parameters of MAIL FROM are malformed",
	"501 5.5.4 Unable to parse RCPT ESMTP parameters":           "501 5.5.4 The parameters of RCPT TO are malformed",
	"501 5.5.4 Unable to parse SIZE as an integer":              "552 5.3.4 SIZE is no number, or larger than any message may be",
	"501 5.5.4 DATA command should not have any arguments":      "501 5.5.4 DATA takes no argument",
	"502 5.5.1 Please introduce yourself first.":                "503 5.5.1 Send EHLO or HELO first",
	"502 5.5.1 Missing MAIL FROM command.":                      "503 5.5.1 Give a sender with MAIL FROM first",
	"502 5.5.1 Missing RCPT TO command.":                        "503 5.5.1 Give a recipient with RCPT TO first",
	"502 5.5.1 MAIL not allowed during message transfer":        "503 5.5.1 End the message first, with BDAT and LAST",
	"502 5.5.1 RCPT not allowed during message transfer":        "503 5.5.1 End the message first, with BDAT and LAST",
	"502 5.5.1 DATA not allowed during message transfer":        "503 5.5.1 End the message first, with BDAT and LAST",
	"502 5.5.4 Missing parameter":                               "501 5.5.4 Say how to log in, with AUTH PLAIN or AUTH LOGIN",
	"503 5.5.1 Already authenticated":                           "503 5.5.1 You are logged in already",
}

// reword returns one of go-smtp's reply lines, with its line end, in our words.
func (c *conn) reword(line []byte) []byte {
	s, ok := bytes.CutSuffix(line, []byte("\r\n"))
	if !ok || len(s) < 4 || s[3] != ' ' {
		return line
	}
	text := string(s)
	switch better := rewording[text]; {
	case better != "":
		text = better
	case strings.HasPrefix(text, "250 2.0.0 Hello "):
		text = "250 " + c.server.opts.Hostname // without a code, RFC 2034 section 4
	case strings.HasPrefix(text, "250 2.0.0 Roger, accepting mail from "):
		text = "250 2.1.0 Sender ok"
	case strings.HasPrefix(text, "250 2.0.0 I'll make sure "):
		text = "250 2.1.5 Recipient ok"
	case strings.HasPrefix(text, "500 5.5.2 Syntax errors, "):
		text = "500 5.5.2 The command is not known"
	case strings.HasPrefix(text, "502 5.5.1 ") && strings.HasSuffix(text, " command not implemented"):
		text = "502 5.5.1 The command is not offered"
	case text == "502 5.5.1 TLS not supported" && c.encrypted:
		text = "503 5.5.1 The connection is encrypted already"
	case text == "502 5.5.1 TLS not supported":
		text = "502 5.5.1 This port offers no STARTTLS"
	case text == "552 5.3.4 Max message size exceeded":
		text = fmt.Sprintf("552 5.3.4 The message is larger than the limit of %d bytes", c.server.opts.MaxMessage)
	case text == "500 5.4.0 Too long line, closing connection":
		text = fmt.Sprintf("500 5.5.2 A line is longer than the limit of %d bytes, closing the connection", c.server.limits.LineLength)
	default:
		return line
	}
	return []byte(text + "\r\n")
}
