package smtpd

import (
	"bytes"
	"encoding/base64"
	"strings"

	"github.com/emersion/go-sasl"
)

// The device profile puts right, line by line, what scanners, printers, UPS cards and old programs get wrong in
// commands. Messages pass as they are. Only one line at a time is handed to go-smtp, so that
// it never holds a piece of a message while commands are still being looked at.

// maxDeviceLine is the longest command that is looked at; RFC 4954 allows 12,288 bytes for AUTH.
const maxDeviceLine = 16 << 10

// readDevice is read for the device profile.
func (c *conn) readDevice(p []byte) (n int, upgrade bool, err error) {
	for {
		if len(c.ready) > 0 {
			n = copy(p, c.ready)
			c.ready = c.ready[n:]
			return n, false, nil
		}
		c.mu.Lock()
		inner, raw := c.inner, c.dataMode
		look := c.server.opts.TLS == TLSStart && !c.encrypted && !c.loggedIn
		c.mu.Unlock()
		raw = raw || c.chunk > 0
		if end := bytes.IndexByte(c.held, '\n') + 1; raw && len(c.held) > 0 {
			c.giveRaw(len(c.held))
			continue
		} else if end > 0 {
			line := c.held[:end]
			c.held = c.held[end:]
			if look && bytes.EqualFold(bytes.TrimSpace(line), []byte("STARTTLS")) {
				return 0, true, nil
			}
			c.ready = c.mend(line)
			continue
		} else if len(c.held) >= maxDeviceLine {
			c.giveRaw(len(c.held)) // go-smtp has its own limit
			continue
		}
		buf := make([]byte, 4096)
		if raw {
			buf = make([]byte, 32<<10)
		}
		n, err := inner.Read(buf)
		if n == 0 && err != nil {
			return 0, false, err
		}
		c.held = append(c.held, buf[:n]...)
	}
}

// giveRaw makes n held bytes ready as they are, but for the line ends of a client that knows no CRLF.
func (c *conn) giveRaw(n int) {
	b := c.held[:n]
	c.held = c.held[n:]
	if c.chunk > 0 {
		k := min(int64(len(b)), c.chunk)
		c.chunk -= k
		c.held = append(append([]byte(nil), b[k:]...), c.held...)
		c.ready = b[:k]
		return
	}
	if !c.bareLF {
		c.ready = b
		return
	}
	out := make([]byte, 0, len(b)+len(b)/16)
	for _, ch := range b {
		if ch == '\n' && !c.afterCR {
			out = append(out, '\r')
		}
		out = append(out, ch)
		c.afterCR = ch == '\r'
	}
	c.ready = out
}

// mend returns the line as go-smtp wants it; nothing for one to be passed over.
func (c *conn) mend(line []byte) []byte {
	bare := !bytes.HasSuffix(line, []byte("\r\n"))
	s := strings.Trim(string(line), "\r\n\x00 \t") // CRCRLF, NUL at the end, blanks
	if c.authing {
		c.authing = false
		return []byte(mendBase64(s) + "\r\n")
	}
	if s == "" {
		return nil
	}
	verb, rest, _ := strings.Cut(s, " ")
	rest = strings.TrimSpace(rest)
	before := ""
	verb = strings.ToUpper(verb)
	if !c.greeted && (verb == "MAIL" || strings.HasPrefix(verb, "AUTH")) {
		c.greeted = true
		c.mu.Lock()
		c.hush = true
		c.mu.Unlock()
		before = "HELO " + c.peerName() + "\r\n"
	}
	switch {
	case verb == "HELO" || verb == "EHLO":
		c.greeted = true
		if rest == "" {
			s = verb + " " + c.peerName()
		}
	case verb == "AUTH" || strings.HasPrefix(verb, "AUTH="):
		s = mendAuth(s[len("AUTH"):])
	case verb == "MAIL" || verb == "RCPT":
		s = mendPath(verb, rest)
	case verb == "DATA":
		// A client that ends its commands with a bare LF ends its lines and its message so, too. For others a bare
		// LF is content, and "LF . LF" no end: that difference is what smuggling lives on.
		c.bareLF, c.afterCR = bare, false
		s = verb
	case verb == "BDAT":
		if size, _, _ := strings.Cut(rest, " "); size != "" {
			c.chunk = chunkSize(size)
		}
	case rest == "":
		s = verb
	}
	return []byte(before + s + "\r\n")
}

// peerName is the name of a client that gives none.
func (c *conn) peerName() string {
	if c.remote.IsValid() {
		return "[" + c.remote.WithZone("").String() + "]"
	}
	return "unknown"
}

// chunkSize reads BDAT's first argument; what go-smtp will refuse counts as nothing.
func chunkSize(s string) int64 {
	var n int64
	for _, r := range s {
		if r < '0' || r > '9' || n > 1<<32 {
			return 0
		}
		n = n*10 + int64(r-'0')
	}
	if n >= 1<<32 {
		return 0
	}
	return n
}

// mendAuth mends "AUTH LOGIN …", written with '=' or ':' by some.
func mendAuth(rest string) string {
	words := strings.Fields(strings.TrimLeft(rest, "= \t"))
	if len(words) == 0 {
		return "AUTH"
	}
	words[0] = strings.TrimSuffix(words[0], ":")
	if len(words) > 1 {
		words = []string{words[0], mendBase64(strings.Join(words[1:], ""))}
	}
	return "AUTH " + strings.Join(words, " ")
}

// mendBase64 puts the padding right, and takes out blanks.
func mendBase64(s string) string {
	if s == "*" || s == "=" {
		return s
	}
	s = strings.Join(strings.Fields(s), "")
	body := strings.TrimRight(s, "=")
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		if raw, err := enc.DecodeString(body); err == nil {
			return base64.StdEncoding.EncodeToString(raw)
		}
	}
	return s
}

// mendPath mends the address of MAIL and RCPT: no colon, blanks, a display name, no closing bracket, no domain.
func mendPath(verb, rest string) string {
	word := map[string]string{"MAIL": "FROM", "RCPT": "TO"}[verb]
	if len(rest) < len(word) || !strings.EqualFold(rest[:len(word)], word) {
		return verb + " " + rest
	}
	rest = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(rest[len(word):]), ":"))
	path, params := rest, ""
	if open := strings.IndexByte(rest, '<'); open >= 0 && !strings.ContainsAny(rest[:open], "@") {
		path = rest[open+1:]
		if end := strings.IndexByte(path, '>'); end >= 0 {
			path, params = path[:end], path[end+1:]
		} else {
			path, params, _ = strings.Cut(path, " ")
		}
	} else {
		path, params, _ = strings.Cut(rest, " ")
	}
	path = strings.Trim(path, "<> \t")
	if local := strings.TrimSuffix(path, "@"); verb == "MAIL" && local != "" && !strings.ContainsAny(local, "@ ,:;\"\\()") {
		path = local + "@localhost" // an invented sender, to be judged as one
	}
	var keep []string
	for _, p := range strings.Fields(params) {
		if !strings.HasSuffix(p, "=") { // "SIZE="
			keep = append(keep, p)
		}
	}
	return strings.Join(append([]string{verb + " " + word + ":<" + path + ">"}, keep...), " ")
}

// deviceMechanism tells conn that the next line is no command but an answer to a challenge.
type deviceMechanism struct {
	sasl.Server
	conn *conn
}

// Next takes one answer of the client.
func (m *deviceMechanism) Next(response []byte) (challenge []byte, done bool, err error) {
	challenge, done, err = m.Server.Next(response)
	m.conn.authing = !done && err == nil
	return challenge, done, err
}
