package graphsim

import (
	"bytes"
	"encoding/base64"
	"io"
	"mime"
	"mime/quotedprintable"
	"net/mail"
	"strings"

	"github.com/emersion/go-message/charset"
)

// part is a node of a MIME tree. It is made from any bytes: what cannot be understood is text.
type part struct {
	raw      []byte // header and body as they came
	fields   []field
	body     []byte // encoded, as it came
	media    string // lower case, such as text/plain
	params   map[string]string
	children []*part
}

const maxDepth = 32

// parsePart reads a message or body part.
func parsePart(raw []byte, depth int) *part {
	p := &part{raw: raw}
	p.fields, p.body = splitHeader(raw)
	p.media, p.params = parseMedia(p.get("Content-Type"))
	if strings.HasPrefix(p.media, "multipart/") && depth < maxDepth {
		if b := p.params["boundary"]; b != "" {
			for _, child := range splitMultipart(p.body, b) {
				p.children = append(p.children, parsePart(child, depth+1))
			}
		}
		if len(p.children) == 0 {
			p.media, p.params = "text/plain", map[string]string{}
		}
	}
	return p
}

// get returns the first field of that name.
func (p *part) get(name string) string { return fieldValue(p.fields, name) }

func fieldValue(fields []field, name string) string {
	for _, f := range fields {
		if strings.EqualFold(f.name, name) {
			return f.value
		}
	}
	return ""
}

// splitHeader parts the header fields from the body; values are unfolded, line ends inside them dropped.
func splitHeader(raw []byte) (fields []field, body []byte) {
	for len(raw) > 0 {
		line, rest := cutLine(raw)
		if len(line) == 0 {
			return fields, rest
		}
		if (line[0] == ' ' || line[0] == '\t') && len(fields) > 0 {
			f := &fields[len(fields)-1]
			f.value += string(line)
			raw = rest
			continue
		}
		i := bytes.IndexByte(line, ':')
		if i <= 0 || bytes.ContainsAny(line[:i], " \t") && strings.TrimRight(string(line[:i]), " \t") == "" {
			return fields, raw // no field: the body starts here, without the empty line
		}
		fields = append(fields, field{strings.TrimRight(string(line[:i]), " \t"), strings.TrimLeft(string(line[i+1:]), " \t")})
		raw = rest
	}
	return fields, nil
}

func cutLine(b []byte) (line, rest []byte) {
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		return b, nil
	}
	line = b[:i]
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return line, b[i+1:]
}

// splitMultipart returns the bytes of the parts between the delimiter lines. RFC 2046 section 5.1.1.
func splitMultipart(body []byte, boundary string) [][]byte {
	var parts [][]byte
	delim := []byte("--" + boundary)
	start := -1
	for pos := 0; pos <= len(body); {
		line, rest := cutLine(body[pos:])
		next := len(body) - len(rest)
		if bytes.HasPrefix(line, delim) {
			tail := bytes.TrimRight(line[len(delim):], " \t")
			closing := bytes.Equal(tail, []byte("--"))
			if len(tail) == 0 || closing {
				if start >= 0 {
					end := pos
					// The line end before a delimiter belongs to the delimiter.
					if end > start && body[end-1] == '\n' {
						end--
						if end > start && body[end-1] == '\r' {
							end--
						}
					}
					parts = append(parts, body[start:end])
				}
				start = next
				if closing {
					return parts
				}
			}
		}
		if len(rest) == 0 {
			break
		}
		pos = next
	}
	if start >= 0 && start < len(body) {
		parts = append(parts, body[start:]) // the closing delimiter is missing
	}
	return parts
}

// parseMedia reads a Content-Type or Content-Disposition, also one that does not follow the grammar.
func parseMedia(v string) (string, map[string]string) {
	if strings.TrimSpace(v) == "" {
		return "text/plain", map[string]string{}
	}
	media, params, err := mime.ParseMediaType(v)
	if err == nil || err == mime.ErrInvalidMediaParameter && params != nil {
		return media, params
	}
	params = map[string]string{}
	pieces := strings.Split(v, ";")
	media = strings.ToLower(strings.TrimSpace(pieces[0]))
	for _, piece := range pieces[1:] {
		if k, val, ok := strings.Cut(piece, "="); ok {
			params[strings.ToLower(strings.TrimSpace(k))] = strings.Trim(strings.TrimSpace(val), `"`)
		}
	}
	if !strings.Contains(media, "/") {
		media = "text/plain"
	}
	return media, params
}

// decoded returns the body without its transfer encoding; damaged encodings give what can be read.
func (p *part) decoded() []byte {
	switch strings.ToLower(strings.TrimSpace(p.get("Content-Transfer-Encoding"))) {
	case "base64":
		return decodeBase64(p.body)
	case "quoted-printable":
		out, err := io.ReadAll(quotedprintable.NewReader(bytes.NewReader(p.body)))
		if err != nil && len(out) == 0 {
			return p.body
		}
		return out
	}
	return p.body
}

// decodeBase64 decodes, leaving out what is not of the alphabet.
func decodeBase64(b []byte) []byte {
	clean := make([]byte, 0, len(b))
	for _, c := range b {
		if c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '+' || c == '/' {
			clean = append(clean, c)
		}
	}
	clean = clean[:len(clean)-boolInt(len(clean)%4 == 1)]
	out := make([]byte, base64.RawStdEncoding.DecodedLen(len(clean)))
	n, _ := base64.RawStdEncoding.Decode(out, clean)
	return out[:n]
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// textOf returns the body as UTF-8 with CRLF line ends as they came.
func (p *part) textOf() string {
	b := p.decoded()
	cs := strings.ToLower(p.params["charset"])
	if cs == "" || cs == "utf-8" || cs == "us-ascii" {
		return strings.ToValidUTF8(string(b), "\ufffd")
	}
	r, err := charset.Reader(cs, bytes.NewReader(b))
	if err != nil {
		return strings.ToValidUTF8(string(b), "\ufffd")
	}
	out, _ := io.ReadAll(r) // what could be converted is what there is
	return strings.ToValidUTF8(string(out), "\ufffd")
}

// opaque parts are carried byte for byte: to rebuild them would break a signature. RFC 1847, RFC 8551.
func (p *part) opaque() bool {
	switch p.media {
	case "multipart/signed", "multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime":
		return true
	}
	return false
}

var words = mime.WordDecoder{CharsetReader: charset.Reader}

// decodeWords decodes RFC 2047 words; what cannot be decoded stays as it is.
func decodeWords(s string) string {
	out, err := words.DecodeHeader(s)
	if err != nil {
		out = s
	}
	return strings.ToValidUTF8(out, "\ufffd")
}

var addressParser = mail.AddressParser{WordDecoder: &words}

// parseAddresses reads an address list; a group gives its members. Lists that break the grammar are taken apart at commas.
func parseAddresses(v string) []address {
	v = strings.TrimSpace(v)
	if v == "" {
		return nil
	}
	if list, err := addressParser.ParseList(v); err == nil {
		out := make([]address, 0, len(list))
		for _, a := range list {
			out = append(out, address{a.Name, a.Address})
		}
		return out
	}
	var out []address
	for _, piece := range splitOutsideQuotes(v) {
		piece = strings.TrimSpace(piece)
		if i := strings.IndexByte(piece, ':'); i >= 0 && !strings.Contains(piece[:i], "@") {
			piece = strings.TrimSpace(piece[i+1:])
		}
		piece = strings.TrimRight(piece, ";")
		if piece == "" {
			continue
		}
		if i, j := strings.LastIndexByte(piece, '<'), strings.LastIndexByte(piece, '>'); i >= 0 && j > i {
			out = append(out, address{decodeWords(strings.Trim(strings.TrimSpace(piece[:i]), `"`)), strings.TrimSpace(piece[i+1 : j])})
		} else {
			out = append(out, address{"", piece})
		}
	}
	return out
}

func splitOutsideQuotes(s string) []string {
	var out []string
	quoted, start := false, 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			quoted = !quoted
		case ',':
			if !quoted {
				out = append(out, s[start:i])
				start = i + 1
			}
		}
	}
	return append(out, s[start:])
}
