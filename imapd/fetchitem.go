package imapd

import (
	"slices"
	"strconv"
	"strings"

	"github.com/emersion/go-imap/v2"

	"postern/imapd/wire"
)

// fetchKind is what one item of FETCH asks for.
type fetchKind int

const (
	fetchUID fetchKind = iota
	fetchFlags
	fetchInternalDate
	fetchSize
	fetchEnvelope
	fetchBody          // BODY without a section
	fetchBodyStructure // the same with extension data
	fetchSection       // BODY[...], RFC822, RFC822.HEADER, RFC822.TEXT
	fetchBinary
	fetchBinarySize
	fetchModSeq
	fetchEmailID
	fetchThreadID
	fetchPreview
)

// fetchItem is one item with what its response begins with.
type fetchItem struct {
	kind    fetchKind
	label   string
	section section
	partial *partial
	text    int  // of fetchRow.texts, for what is answered from there
	seen    bool // sets \Seen
	lazy    bool // of PREVIEW: only what is at hand
}

// section is what stands between the brackets of BODY[...].
type section struct {
	path   []int
	part   string // "", HEADER, TEXT, MIME
	fields []string
	not    bool // all but fields
}

// partial is <offset.count>.
type partial struct{ offset, count int64 }

// needsBody reports whether the item cannot be answered from the header the replica has. The whole
// header cannot: the transport's may name another boundary than the body uses.
func (it *fetchItem) needsBody() bool {
	switch it.kind {
	case fetchBody, fetchBodyStructure, fetchBinary, fetchBinarySize:
		return true
	case fetchSection:
		return len(it.section.path) > 0 || it.section.fields == nil || it.section.not
	}
	return false
}

// needsHeader reports whether the item needs the header at least.
func (it *fetchItem) needsHeader() bool {
	return it.kind == fetchEnvelope || it.kind == fetchSection
}

// tellsHeader reports whether the item is answered from the replica's header even where the bytes are at hand: what was
// told from it before must not be told otherwise.
func (it *fetchItem) tellsHeader() bool {
	return it.kind == fetchSection && !it.needsBody()
}

// fetchRequest is a FETCH command. RFC 9051 section 6.4.5.
type fetchRequest struct {
	set   imap.NumSet
	items []fetchItem
	// changedSince selects messages with a higher mod-sequence; 0 selects all. RFC 7162 section 3.1.4.1.
	changedSince uint64
	vanished     bool // tell what was removed since as well; RFC 7162 section 3.2.6
}

func (r *fetchRequest) has(kind fetchKind) bool {
	return slices.ContainsFunc(r.items, func(it fetchItem) bool { return it.kind == kind })
}

// needsBody reports whether an item needs the message's bytes.
func (r *fetchRequest) needsBody() bool {
	return slices.ContainsFunc(r.items, func(it fetchItem) bool { return it.needsBody() })
}

// The macros, which stand alone.
var fetchMacros = map[string][]string{
	"ALL":  {"FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE"},
	"FAST": {"FLAGS", "INTERNALDATE", "RFC822.SIZE"},
	"FULL": {"FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE", "BODY"},
}

const (
	maxFetchItems   = 200
	maxSectionDepth = 200
)

// parseFetch reads the arguments of FETCH.
func parseFetch(d *wire.Decoder, uid bool) *fetchRequest {
	req := &fetchRequest{}
	if uid {
		req.items = append(req.items, fetchItem{kind: fetchUID, label: "UID"})
	}
	d.Space()
	req.set = d.NumSet(uid)
	d.Space()
	if d.Peek() == '(' {
		n := 0
		d.List(func() {
			req.add(d, d.Word())
			n++
		})
		if n == 0 {
			d.Fail(&wire.SyntaxError{Text: "no items to fetch"})
		}
	} else {
		word := d.Word()
		if macro, ok := fetchMacros[word]; ok {
			for _, w := range macro {
				req.add(d, w)
			}
		} else {
			req.add(d, word)
		}
	}
	if d.TrySpace() {
		req.parseModifiers(d)
	}
	return req
}

func (r *fetchRequest) parseModifiers(d *wire.Decoder) {
	d.List(func() {
		switch d.Word() {
		case "CHANGEDSINCE":
			d.Space()
			r.changedSince = d.Number64()
			r.append(fetchItem{kind: fetchModSeq, label: "MODSEQ"})
		case "VANISHED":
			r.vanished = true
		default:
			d.Fail(&wire.SyntaxError{Text: "unknown FETCH modifier"})
		}
	})
	if _, uids := r.set.(imap.UIDSet); r.vanished && (!uids || !r.has(fetchModSeq)) {
		d.Fail(bad("VANISHED needs UID FETCH and CHANGEDSINCE"))
	}
}

// add adds the item that begins with word and reads what belongs to it.
func (r *fetchRequest) add(d *wire.Decoder, word string) {
	if len(r.items) >= maxFetchItems {
		d.Fail(&wire.LimitError{Text: "too many items to fetch"})
	}
	if d.Err() != nil {
		return
	}
	it := fetchItem{label: word}
	switch word {
	case "UID":
		it.kind = fetchUID
	case "FLAGS":
		it.kind = fetchFlags
	case "INTERNALDATE":
		it.kind = fetchInternalDate
	case "RFC822.SIZE":
		it.kind = fetchSize
	case "ENVELOPE":
		it.kind = fetchEnvelope
	case "BODYSTRUCTURE":
		it.kind = fetchBodyStructure
	case "MODSEQ":
		it.kind = fetchModSeq
	case "EMAILID":
		it.kind = fetchEmailID
	case "THREADID":
		it.kind = fetchThreadID
	case "PREVIEW":
		it.kind, it.lazy = fetchPreview, d.TryText(" (LAZY)")
	case "RFC822":
		it.kind, it.seen = fetchSection, true
	case "RFC822.HEADER":
		it.kind, it.section.part = fetchSection, "HEADER"
	case "RFC822.TEXT":
		it.kind, it.section.part, it.seen = fetchSection, "TEXT", true
	case "BODY", "BODY.PEEK":
		if d.Peek() != '[' && word == "BODY" {
			it.kind = fetchBody
			break
		}
		it.kind, it.seen = fetchSection, word == "BODY"
		it.section = parseSection(d)
		it.partial = parsePartial(d)
		it.label = it.sectionLabel("BODY")
	case "BINARY", "BINARY.PEEK", "BINARY.SIZE":
		it.kind, it.seen = fetchBinary, word == "BINARY"
		it.section = parseSection(d)
		if it.section.part != "" {
			d.Fail(&wire.SyntaxError{Text: "BINARY takes part numbers only"})
		}
		if word == "BINARY.SIZE" {
			it.kind = fetchBinarySize
			it.label = it.sectionLabel("BINARY.SIZE")
			break
		}
		it.partial = parsePartial(d)
		it.label = it.sectionLabel("BINARY")
	default:
		d.Fail(&wire.SyntaxError{Text: "unknown FETCH item"})
	}
	r.append(it)
}

// append adds an item unless the same one is there.
func (r *fetchRequest) append(it fetchItem) {
	if !slices.ContainsFunc(r.items, func(old fetchItem) bool { return old.label == it.label && old.seen == it.seen && old.kind == it.kind }) {
		r.items = append(r.items, it)
	}
}

// parseSection reads "[" section-spec "]".
func parseSection(d *wire.Decoder) section {
	var sec section
	wrong := func() section {
		d.Fail(&wire.SyntaxError{Text: "invalid section"})
		return section{}
	}
	d.Expect('[')
	if d.Try(']') {
		return sec
	}
	word := d.Word()
	for word != "" {
		num, rest, more := strings.Cut(word, ".")
		if num == "" || num[0] < '0' || num[0] > '9' {
			break
		}
		// Numbers out of range name parts that do not exist, like 0.
		n, err := strconv.ParseUint(num, 10, 32)
		if err != nil || len(sec.path) >= maxSectionDepth || more && rest == "" {
			return wrong()
		}
		sec.path = append(sec.path, int(n))
		word = rest
	}
	switch word {
	case "", "HEADER", "TEXT":
		sec.part = word
	case "MIME":
		sec.part = word
		if len(sec.path) == 0 {
			return wrong()
		}
	case "HEADER.FIELDS", "HEADER.FIELDS.NOT":
		sec.part, sec.not = "HEADER", word == "HEADER.FIELDS.NOT"
		d.Space()
		d.List(func() {
			name := d.AString()
			if !validFieldName(name) {
				d.Fail(&wire.SyntaxError{Text: "invalid header field name"})
				return
			}
			sec.fields = append(sec.fields, strings.ToUpper(name))
		})
		if len(sec.fields) == 0 {
			return wrong()
		}
		d.TrySpace()
	default:
		return wrong()
	}
	d.Expect(']')
	return sec
}

// validFieldName refuses what the response could not repeat in quotes.
func validFieldName(name string) bool {
	for i := 0; i < len(name); i++ {
		if name[i] < ' ' || name[i] > '~' {
			return false
		}
	}
	return name != "" && len(name) <= 1000
}

// parsePartial reads "<" offset "." count ">" if it is there. A missing count, which the standard does not
// allow, means all.
func parsePartial(d *wire.Decoder) *partial {
	if !d.Try('<') {
		return nil
	}
	p := &partial{offset: int64(d.Number64()), count: 1<<63 - 1}
	if d.Try('.') {
		p.count = int64(d.Number64())
	}
	d.Expect('>')
	return p
}

// sectionLabel is the item as its response repeats it: field names in upper case, of the partial the offset
// only.
func (it *fetchItem) sectionLabel(name string) string {
	var sb strings.Builder
	sb.WriteString(name)
	sb.WriteByte('[')
	for i, n := range it.section.path {
		if i > 0 {
			sb.WriteByte('.')
		}
		sb.WriteString(strconv.Itoa(n))
	}
	if part := it.section.part; part != "" {
		if len(it.section.path) > 0 {
			sb.WriteByte('.')
		}
		sb.WriteString(part)
	}
	if it.section.fields != nil {
		sb.WriteString(".FIELDS")
		if it.section.not {
			sb.WriteString(".NOT")
		}
		for i, f := range it.section.fields {
			if i == 0 {
				sb.WriteString(" (")
			} else {
				sb.WriteByte(' ')
			}
			if wire.ValidAtom(f) {
				sb.WriteString(f)
			} else {
				sb.WriteString(`"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(f) + `"`)
			}
		}
		sb.WriteByte(')')
	}
	sb.WriteByte(']')
	if it.partial != nil {
		sb.WriteString("<" + strconv.FormatInt(it.partial.offset, 10) + ">")
	}
	return sb.String()
}

// cut returns the part of a span of n bytes that is asked for.
func (p *partial) cut(off, n int64) (int64, int64) {
	if p == nil {
		return off, n
	}
	if p.offset >= n {
		return off, 0
	}
	return off + p.offset, min(p.count, n-p.offset)
}
