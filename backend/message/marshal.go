package message

import (
	"encoding/binary"
	"errors"
)

// indexVersion changes whenever the form of a stored index changes, or what Parse would find.
const indexVersion = 2

// ErrVersion is returned for a stored index of another version: parse the message again.
var ErrVersion = errors.New("index of another version")

var errBadIndex = errors.New("malformed index")

// MarshalBinary returns a compact form of the index, to be kept beside the message.
func (ix *Index) MarshalBinary() ([]byte, error) {
	b := make([]byte, 0, 512)
	b = append(b, indexVersion)
	b = binary.AppendUvarint(b, uint64(ix.Size))
	return appendPart(b, ix.Root), nil
}

const (
	hasEnvelope = 1 << iota
	hasMessage
	hasDisposition
	hasRareFields // MD5, Location, Language
)

func appendPart(b []byte, p *Part) []byte {
	var has byte
	if p.Envelope != nil {
		has |= hasEnvelope
	}
	if p.Message != nil {
		has |= hasMessage
	}
	if p.Disposition != "" || len(p.DispositionParams) > 0 {
		has |= hasDisposition
	}
	if p.MD5 != "" || p.Location != "" || p.Language != nil {
		has |= hasRareFields
	}
	b = append(b, has)
	for _, n := range []int64{p.Header.Off, p.Header.Len, p.Body.Off, p.Body.Len, p.Lines} {
		b = binary.AppendUvarint(b, uint64(n))
	}
	for _, s := range []string{p.Type, p.Subtype, p.ID, p.Description, p.Encoding} {
		b = appendString(b, s)
	}
	b = appendParams(b, p.Params)
	if has&hasDisposition != 0 {
		b = appendString(b, p.Disposition)
		b = appendParams(b, p.DispositionParams)
	}
	if has&hasRareFields != 0 {
		b = appendString(appendString(b, p.MD5), p.Location)
		b = binary.AppendUvarint(b, uint64(len(p.Language)))
		for _, l := range p.Language {
			b = appendString(b, l)
		}
	}
	if e := p.Envelope; e != nil {
		for _, s := range []string{e.Date, e.Subject, e.InReplyTo, e.MessageID} {
			b = appendString(b, s)
		}
		b = appendAddresses(b, e.From)
		for _, list := range [][]Address{e.Sender, e.ReplyTo} {
			if sameAddresses(list, e.From) {
				b = append(b, 1)
			} else {
				b = appendAddresses(append(b, 0), list)
			}
		}
		for _, list := range [][]Address{e.To, e.Cc, e.Bcc} {
			b = appendAddresses(b, list)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(p.Children)))
	for _, c := range p.Children {
		b = appendPart(b, c)
	}
	if p.Message != nil {
		b = appendPart(b, p.Message)
	}
	return b
}

func sameAddresses(a, b []Address) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendParams(b []byte, params []Param) []byte {
	b = binary.AppendUvarint(b, uint64(len(params)))
	for _, p := range params {
		b = appendString(appendString(b, p.Name), p.Value)
	}
	return b
}

func appendAddresses(b []byte, list []Address) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, a := range list {
		b = appendString(appendString(appendString(appendString(b, a.Name), a.Mailbox), a.Host), a.Route)
	}
	return b
}

// UnmarshalBinary reads what MarshalBinary wrote. It checks that every span lies in the message, so that a
// damaged index cannot make a reader announce what does not exist.
func (ix *Index) UnmarshalBinary(data []byte) error {
	if len(data) == 0 || data[0] != indexVersion {
		return ErrVersion
	}
	d := indexDecoder{b: data[1:]}
	size := d.int64()
	d.size = size
	root := d.part(0)
	if d.bad || len(d.b) > 0 {
		return errBadIndex
	}
	ix.Size, ix.Root = size, root
	return nil
}

// indexDecoder reads from b; after a mistake bad is set and all else comes out empty.
type indexDecoder struct {
	b     []byte
	size  int64
	parts int
	bad   bool
}

func (d *indexDecoder) fail() { d.bad, d.b = true, nil }

func (d *indexDecoder) int64() int64 {
	n, k := binary.Uvarint(d.b)
	if k <= 0 || n > 1<<62 {
		d.fail()
		return 0
	}
	d.b = d.b[k:]
	return int64(n)
}

// count reads the number of things to follow, each of which takes at least size bytes.
func (d *indexDecoder) count(size int) int {
	n := d.int64()
	if n > int64(len(d.b)/size) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *indexDecoder) byte() byte {
	if len(d.b) == 0 {
		d.fail()
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *indexDecoder) string() string {
	n := d.count(1)
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}

func (d *indexDecoder) span() Span {
	s := Span{Off: d.int64(), Len: d.int64()}
	if s.Off > d.size || s.Len > d.size-s.Off {
		d.fail()
	}
	return s
}

func (d *indexDecoder) params() []Param {
	n := d.count(2)
	if n == 0 {
		return nil
	}
	params := make([]Param, n)
	for i := range params {
		params[i] = Param{d.string(), d.string()}
	}
	return params
}

func (d *indexDecoder) addresses() []Address {
	n := d.count(4)
	if n == 0 {
		return nil
	}
	list := make([]Address, n)
	for i := range list {
		list[i] = Address{d.string(), d.string(), d.string(), d.string()}
	}
	return list
}

func (d *indexDecoder) part(depth int) *Part {
	p := &Part{}
	// One level more than Parse opens: the stand-in child of a multipart without parts.
	if d.parts++; depth > maxDepth+1 || d.parts > 2*maxParts+1 {
		d.fail()
		return p
	}
	has := d.byte()
	p.Header, p.Body, p.Lines = d.span(), d.span(), d.int64()
	p.Type, p.Subtype, p.ID, p.Description, p.Encoding = d.string(), d.string(), d.string(), d.string(), d.string()
	p.Params = d.params()
	if has&hasDisposition != 0 {
		p.Disposition, p.DispositionParams = d.string(), d.params()
	}
	if has&hasRareFields != 0 {
		p.MD5, p.Location = d.string(), d.string()
		if n := d.count(1); n > 0 {
			p.Language = make([]string, n)
			for i := range p.Language {
				p.Language[i] = d.string()
			}
		}
	}
	if has&hasEnvelope != 0 {
		e := &Envelope{Date: d.string(), Subject: d.string(), InReplyTo: d.string(), MessageID: d.string()}
		e.From = d.addresses()
		e.Sender, e.ReplyTo = e.From, e.From
		if d.byte() == 0 {
			e.Sender = d.addresses()
		}
		if d.byte() == 0 {
			e.ReplyTo = d.addresses()
		}
		e.To, e.Cc, e.Bcc = d.addresses(), d.addresses(), d.addresses()
		p.Envelope = e
	}
	if n := d.count(1); n > 0 {
		p.Children = make([]*Part, 0, min(n, maxParts))
		for range n {
			if d.bad {
				return p
			}
			p.Children = append(p.Children, d.part(depth+1))
		}
	}
	if has&hasMessage != 0 && !d.bad {
		p.Message = d.part(depth + 1)
	}
	return p
}
