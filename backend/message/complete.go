package message

import "strings"

// CompleteHeader returns the header told to clients before the message itself was read, with what the message's own header
// has besides. A field that was told stays as it was, for clients keep it: only those that say how the content is written
// (MIME-Version, Content-...) are the message's own, since they must fit it. Without told it is the message's header. It
// makes no difference to complete a header twice.
func CompleteHeader(told, own []byte) []byte {
	if len(told) == 0 {
		return own
	}
	out := make([]byte, 0, len(told)+len(own)/4)
	add := func(f rawField) {
		out = append(out, f.raw...)
		if f.raw[len(f.raw)-1] != '\n' {
			out = append(out, "\r\n"...)
		}
	}
	known := make(map[string]bool)
	s := fieldScanner{header: told}
	for f, ok := s.next(); ok; f, ok = s.next() {
		if !describesContent(f.name) {
			known[strings.ToLower(string(f.name))] = true
			add(f)
		}
	}
	for _, content := range []bool{false, true} { // in this order, to come to the same when done twice
		s = fieldScanner{header: own}
		for f, ok := s.next(); ok; f, ok = s.next() {
			if describesContent(f.name) == content && !known[strings.ToLower(string(f.name))] {
				add(f)
			}
		}
	}
	return append(out, "\r\n"...)
}

// describesContent reports a field of RFC 2045.
func describesContent(name []byte) bool {
	const prefix = "content-"
	return equalFold(name, "MIME-Version") || len(name) > len(prefix) && equalFold(name[:len(prefix)], prefix)
}
