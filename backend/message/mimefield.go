package message

import (
	"bytes"
	"strings"
)

// maxParams bounds the parameters of one field; maxFieldValue what is kept of an unstructured one.
const (
	maxParams     = 200
	maxFieldValue = 64 << 10
)

// setFields reads the MIME fields of a header block. The first of each name counts, as readers that check a
// message and readers that show it must agree.
func (p *Part) setFields(header []byte, inDigest bool) {
	seenType, seenDisposition := false, false
	s := fieldScanner{header: header}
	for f, ok := s.next(); ok; f, ok = s.next() {
		if len(f.name) < 10 || lower(f.name[0]) != 'c' || !equalFold(f.name[:8], "content-") {
			continue
		}
		body := f.body
		if len(body) > maxFieldValue {
			body = body[:maxFieldValue]
		}
		switch name := f.name[8:]; {
		case equalFold(name, "type"):
			if !seenType {
				p.Type, p.Subtype, p.Params = parseContentType(unfold(body))
				seenType = p.Type != ""
			}
		case equalFold(name, "transfer-encoding"):
			setOnce(&p.Encoding, firstToken(unfold(body)))
		case equalFold(name, "disposition"):
			if !seenDisposition {
				p.Disposition, p.DispositionParams = parseDisposition(unfold(body))
				seenDisposition = p.Disposition != ""
			}
		case equalFold(name, "id"):
			setOnce(&p.ID, unfold(body))
		case equalFold(name, "description"):
			setOnce(&p.Description, unfold(body))
		case equalFold(name, "md5"):
			setOnce(&p.MD5, unfold(body))
		case equalFold(name, "location"):
			setOnce(&p.Location, unfold(body))
		case equalFold(name, "language"):
			if p.Language == nil {
				p.Language = parseLanguages(unfold(body))
			}
		}
	}
	if p.Type == "" {
		p.Type, p.Subtype, p.Params = "text", "plain", nil
		if inDigest && !seenType {
			p.Type, p.Subtype = "message", "rfc822"
		}
	}
}

func setOnce(dst *string, v string) {
	if *dst == "" {
		*dst = v
	}
}

// parseContentType returns empty strings if v has no type and subtype (RFC 2045 section 5.2: such a
// field counts as absent).
func parseContentType(v string) (typ, subtype string, params []Param) {
	v = skipCFWS(v)
	typ, v = takeToken(v)
	v = skipCFWS(v)
	if typ == "" || v == "" || v[0] != '/' {
		return "", "", nil
	}
	subtype, v = takeToken(skipCFWS(v[1:]))
	if subtype == "" {
		return "", "", nil
	}
	return typ, subtype, parseParams(v)
}

func parseDisposition(v string) (string, []Param) {
	value, rest := takeToken(skipCFWS(v))
	if value == "" {
		// "; filename=x" without a value is seen; RFC 2183 section 2.8 wants unknown ones
		// treated as attachment.
		if params := parseParams(rest); params != nil {
			return "attachment", params
		}
		return "", nil
	}
	return value, parseParams(rest)
}

func parseLanguages(v string) []string {
	var langs []string
	for len(v) > 0 && len(langs) < maxParams {
		v = skipCFWS(v)
		var l string
		if l, v = takeToken(v); l != "" {
			langs = append(langs, l)
		}
		i := strings.IndexByte(v, ',')
		if i < 0 {
			break
		}
		v = v[i+1:]
	}
	return langs
}

// firstToken returns the token a value begins with, quotes around it removed.
func firstToken(v string) string {
	v = skipCFWS(v)
	if v != "" && v[0] == '"' {
		q, _ := takeQuoted(v)
		return strings.TrimSpace(q)
	}
	t, _ := takeToken(v)
	return t
}

// parseParams reads "; name=value" pairs. Values may be unquoted where they should not be: they then reach
// to the next semicolon.
func parseParams(v string) []Param {
	var params []Param
	for len(params) < maxParams {
		v = skipCFWS(v)
		for v != "" && v[0] == ';' {
			v = skipCFWS(v[1:])
		}
		if v == "" {
			break
		}
		var name, value string
		if name, v = takeToken(v); name == "" {
			v = v[1:] // some stray special
			continue
		}
		v = skipCFWS(v)
		if v == "" || v[0] != '=' {
			continue
		}
		v = skipCFWS(v[1:])
		if v != "" && v[0] == '"' {
			value, v = takeQuoted(v)
		} else {
			value, v = takeLoose(v)
		}
		params = append(params, Param{name, value})
	}
	return joinContinuations(params)
}

// takeLoose takes an unquoted value: to the next semicolon, without a comment that ends it.
func takeLoose(v string) (value, rest string) {
	end := strings.IndexByte(v, ';')
	if end < 0 {
		end = len(v)
	}
	value, rest = v[:end], v[end:]
	if i := strings.Index(value, " ("); i >= 0 && strings.HasSuffix(strings.TrimRight(value, " \t"), ")") {
		value = value[:i]
	}
	value = strings.TrimRight(value, " \t")
	// A parameter that follows without its semicolon: charset=utf-8 name=x.
	if i := strings.IndexAny(value, " \t"); i >= 0 {
		if after, _ := takeToken(strings.TrimLeft(value[i:], " \t")); after != "" {
			if j := strings.Index(value[i:], after); strings.HasPrefix(value[i+j+len(after):], "=") {
				rest = value[i:] + rest
				value = value[:i]
			}
		}
	}
	return value, rest
}

// takeQuoted takes a quoted string, its quotes and backslashes removed. An unfinished one reaches to the end.
func takeQuoted(v string) (value, rest string) {
	if i := strings.IndexAny(v[1:], `"\`); i >= 0 && v[1+i] == '"' {
		return v[1 : 1+i], v[2+i:]
	}
	var sb strings.Builder
	for i := 1; i < len(v); i++ {
		switch c := v[i]; c {
		case '"':
			return sb.String(), v[i+1:]
		case '\\':
			// A lone backslash before an ordinary letter is a Windows path, not an escape.
			if i+1 < len(v) && (v[i+1] == '"' || v[i+1] == '\\') {
				i++
			}
			sb.WriteByte(v[i])
		default:
			sb.WriteByte(c)
		}
	}
	return sb.String(), ""
}

// takeToken takes a token of RFC 2045; bytes over 127 are taken for part of it.
func takeToken(v string) (token, rest string) {
	i := 0
	for i < len(v) && isTokenByte(v[i]) {
		i++
	}
	return v[:i], v[i:]
}

func isTokenByte(c byte) bool {
	switch c {
	case '(', ')', '<', '>', '@', ',', ';', ':', '\\', '"', '/', '[', ']', '?', '=', 0x7f:
		return false
	}
	return c > ' '
}

// skipCFWS skips blanks and comments (RFC 5322 section 3.2.2). An unfinished comment reaches to the end.
func skipCFWS(v string) string {
	for v != "" {
		switch v[0] {
		case ' ', '\t', '\r', '\n':
			v = v[1:]
		case '(':
			n := commentLength(v)
			if n == 0 {
				return ""
			}
			v = v[n:]
		default:
			return v
		}
	}
	return v
}

// commentLength returns the length of the comment v begins with, 0 if it is not finished.
func commentLength(v string) int {
	depth := 0
	for i := 0; i < len(v); i++ {
		switch v[i] {
		case '\\':
			i++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return 0
}

// joinContinuations joins the pieces of RFC 2231 (name*0, name*1*, …) into one parameter, which is
// called name* if any piece is percent-encoded. IMAP shows parameters so (RFC 9051 section 7.5.2 leaves
// the decoding to the client).
func joinContinuations(params []Param) []Param {
	joined := false
	for _, p := range params {
		if strings.Contains(p.Name, "*") {
			joined = true
		}
	}
	if !joined {
		return params
	}
	type pieces struct {
		at    int // index in out
		parts map[int]Param
	}
	var out []Param
	byName := map[string]*pieces{}
	for _, p := range params {
		base, n, ok := continuation(p.Name)
		if !ok {
			out = append(out, p)
			continue
		}
		key := strings.ToLower(base)
		ps := byName[key]
		if ps == nil {
			ps = &pieces{at: len(out), parts: map[int]Param{}}
			byName[key] = ps
			out = append(out, Param{Name: base})
		}
		if _, dup := ps.parts[n]; !dup {
			ps.parts[n] = p
		}
	}
	for _, ps := range byName {
		extended := false
		n := 0
		for ; ; n++ {
			p, ok := ps.parts[n]
			if !ok {
				break
			}
			extended = extended || strings.HasSuffix(p.Name, "*")
		}
		var sb strings.Builder
		for k := range n {
			p := ps.parts[k]
			if extended && !strings.HasSuffix(p.Name, "*") {
				percentEncode(&sb, p.Value)
			} else {
				sb.WriteString(p.Value)
			}
		}
		if extended {
			out[ps.at].Name += "*"
		}
		out[ps.at].Value = sb.String()
	}
	// Pieces without a first one say nothing.
	kept := out[:0]
	for _, p := range out {
		if _, _, ok := continuation(p.Name); !ok {
			if ps := byName[strings.ToLower(strings.TrimSuffix(p.Name, "*"))]; ps != nil && p.Value == "" && len(ps.parts) > 0 {
				if _, first := ps.parts[0]; !first {
					continue
				}
			}
			kept = append(kept, p)
		}
	}
	return kept
}

// continuation splits name*3 and name*3*.
func continuation(name string) (base string, n int, ok bool) {
	base, num, ok := strings.Cut(name, "*")
	num = strings.TrimSuffix(num, "*")
	if !ok || base == "" || num == "" || len(num) > 3 {
		return "", 0, false
	}
	for _, c := range []byte(num) {
		if c < '0' || c > '9' {
			return "", 0, false
		}
		n = n*10 + int(c-'0')
	}
	return base, n, true
}

func percentEncode(sb *strings.Builder, s string) {
	const hex = "0123456789ABCDEF"
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || bytes.IndexByte([]byte("*'%()<>@,;:\\\"/[]?="), c) >= 0 {
			sb.WriteByte('%')
			sb.WriteByte(hex[c>>4])
			sb.WriteByte(hex[c&15])
		} else {
			sb.WriteByte(c)
		}
	}
}

// identity reports whether an encoding leaves the content as it is; unknown ones are taken to.
func identity(encoding string) bool {
	switch strings.ToLower(encoding) {
	case "base64", "quoted-printable", "x-uuencode", "uuencode", "x-uue", "uue":
		return false
	}
	return true
}

// FileName returns the decoded name of an attachment, "" if it has none: filename of
// Content-Disposition, else name of Content-Type, in RFC 2231 or, as is common, RFC 2047 form.
func (p *Part) FileName() string {
	for _, q := range []struct {
		params []Param
		name   string
	}{{p.DispositionParams, "filename"}, {p.Params, "name"}} {
		if v := paramValue(q.params, q.name+"*"); v != "" {
			return decodeExtended(v)
		}
		if v := paramValue(q.params, q.name); v != "" {
			return DecodeWords(v)
		}
	}
	return ""
}

// decodeExtended decodes charset'language'percent-encoded.
func decodeExtended(v string) string {
	charset, rest, ok := strings.Cut(v, "'")
	if ok {
		if _, text, ok2 := strings.Cut(rest, "'"); ok2 {
			v = text
		} else {
			charset = ""
		}
	} else {
		charset = ""
	}
	return toUTF8(charset, percentDecode(v))
}

func percentDecode(s string) []byte {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			h, l := unhex(s[i+1]), unhex(s[i+2])
			if h >= 0 && l >= 0 {
				b = append(b, byte(h<<4|l))
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return b
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
