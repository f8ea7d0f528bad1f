package imapd

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/emersion/go-imap/v2"

	"postern/backend"
	"postern/backend/message"
	"postern/imapd/wire"
)

// maxHeaderFilter bounds the header block that HEADER.FIELDS looks at.
const maxHeaderFilter = 16 << 20

// content is a message whose bytes are here; *backend.Body is one.
type content interface {
	io.ReaderAt
	Size() int64
	Index() *message.Index
}

// fetchRow is one message of a FETCH with what its items need.
type fetchRow struct {
	seq    uint32
	msg    backend.Message
	flags  []imap.Flag // to be told; filled only if they are
	header []byte      // from the replica, where there is a body as well
	texts  [][]byte    // made of the replica's header, where there is no body
	body   content

	preview   string
	noPreview bool // it is not at hand
}

// errUnknownCTE is RFC 3516's answer to a part whose encoding is not known.
var errUnknownCTE = no("UNKNOWN-CTE", "Unknown Content-Transfer-Encoding")

// writeFetch writes one FETCH response. Its error is about this message; the response is well formed all the
// same, unless the encoder has an error too.
func writeFetch(e *wire.Encoder, items []fetchItem, row *fetchRow, tellFlags bool) error {
	e.Raw("* ").Num(uint64(row.seq)).Raw(" FETCH (")
	var failed error
	n := 0
	for i := range items {
		it := &items[i]
		mark := e.Mark()
		if n > 0 {
			e.SP()
		}
		err := writeFetchItem(e, it, row)
		if e.Err() != nil {
			return e.Err()
		}
		if errors.Is(err, errSkipItem) {
			e.Rollback(mark)
			failed = errUnknownCTE
			continue
		}
		if err != nil && failed == nil {
			failed = err
		}
		n++
	}
	if tellFlags {
		if n > 0 {
			e.SP()
		}
		e.Raw("FLAGS ").Flags(row.flags)
	}
	if n == 0 && !tellFlags {
		e.Raw("UID ").Num(uint64(row.msg.UID)) // there must be something
	}
	e.Raw(")").CRLF()
	return failed
}

// errSkipItem takes an item out of the response.
var errSkipItem = errors.New("item left out")

func writeFetchItem(e *wire.Encoder, it *fetchItem, row *fetchRow) error {
	msg := &row.msg
	e.Raw(it.label).SP()
	switch it.kind {
	case fetchUID:
		e.Num(uint64(msg.UID))
	case fetchFlags:
		e.Flags(row.flags)
	case fetchInternalDate:
		e.DateTime(msg.Received)
	case fetchSize:
		size := msg.Size
		if row.body != nil {
			size = row.body.Size()
		}
		e.Num(uint64(max(size, 0)))
	case fetchEnvelope:
		if row.body != nil {
			writeEnvelope(e, row.body.Index().Root.Envelope)
		} else {
			e.RawBytes(row.texts[it.text])
		}
	case fetchBody, fetchBodyStructure:
		writeBodyStructure(e, row.body.Index().Root, it.kind == fetchBodyStructure)
	case fetchSection:
		return writeSection(e, it, row)
	case fetchBinary:
		return writeBinary(e, it, row.body)
	case fetchBinarySize:
		return writeBinarySize(e, it, row.body)
	case fetchModSeq:
		e.Byte('(').Num(msg.ModSeq).Byte(')')
	case fetchEmailID:
		e.Byte('(').Raw(msg.EmailID.String()).Byte(')')
	case fetchThreadID:
		if id := msg.ThreadID.String(); id == "" {
			e.NIL()
		} else {
			e.Byte('(').Raw(id).Byte(')')
		}
	case fetchPreview:
		e.NString(row.preview, !row.noPreview)
	}
	return nil
}

// writeSection writes the bytes of BODY[...]. A section that does not exist is an empty string, as with
// Dovecot: some clients take NIL for a failure.
func writeSection(e *wire.Encoder, it *fetchItem, row *fetchRow) error {
	if it.section.fields != nil {
		return writeHeaderFields(e, it, row)
	}
	span, ok := row.body.Index().Section(it.section.path, it.section.part)
	if !ok {
		e.String("")
		return nil
	}
	return writeBytes(e, row.body, span, it.partial)
}

// writeBytes writes the part of a span that is asked for.
func writeBytes(e *wire.Encoder, body io.ReaderAt, span message.Span, p *partial) error {
	off, n := p.cut(span.Off, span.Len)
	if n == 0 {
		e.String("")
		return nil
	}
	if err := e.LiteralAt(body, off, n); err != nil {
		if e.Err() == nil {
			e.NIL()
		}
		return fmt.Errorf("read body: %w", err)
	}
	return nil
}

func writeHeaderFields(e *wire.Encoder, it *fetchItem, row *fetchRow) error {
	if row.body == nil {
		writeFound(e, it, row.texts[it.text])
		return nil
	}
	header := row.header
	if it.tellsHeader() && header != nil {
		own, err := message.HeaderBytes(row.body, row.body.Index())
		if err != nil {
			e.NIL()
			return fmt.Errorf("read header: %w", err)
		}
		header = message.CompleteHeader(header, own)
	} else {
		span, ok := row.body.Index().Section(it.section.path, "HEADER")
		if !ok {
			e.String("")
			return nil
		}
		header = make([]byte, min(span.Len, maxHeaderFilter))
		if _, err := io.ReadFull(io.NewSectionReader(row.body, span.Off, span.Len), header); err != nil {
			e.NIL()
			return fmt.Errorf("read header: %w", err)
		}
	}
	writeFound(e, it, message.FilterHeader(header, it.section.fields, it.section.not))
	return nil
}

// writeFound writes the part of found header fields that is asked for.
func writeFound(e *wire.Encoder, it *fetchItem, found []byte) {
	if off, n := it.partial.cut(0, int64(len(found))); n == 0 {
		e.String("")
	} else {
		e.LiteralBytes(found[off : off+n])
	}
}

// binaryReader returns what BINARY asks for without its transfer encoding: the whole message, which has none, or a
// part; nothing for one that does not exist. RFC 3516 section 4.
func binaryReader(it *fetchItem, body content) (io.Reader, error) {
	if len(it.section.path) == 0 {
		return io.NewSectionReader(body, 0, body.Size()), nil
	}
	part, ok := body.Index().Part(it.section.path)
	if !ok {
		return io.NewSectionReader(body, 0, 0), nil
	}
	r, err := message.Decoded(body, part)
	if err != nil {
		return nil, errSkipItem
	}
	return r, nil
}

// measure is what a first reading finds: a literal is not announced until its length is certain, and one with a NUL
// must be a literal8.
type measure struct {
	size int64
	nul  bool
}

func (m *measure) Write(p []byte) (int, error) {
	m.size += int64(len(p))
	m.nul = m.nul || bytes.IndexByte(p, 0) >= 0
	return len(p), nil
}

func writeBinarySize(e *wire.Encoder, it *fetchItem, body content) error {
	r, err := binaryReader(it, body)
	if err != nil {
		return err
	}
	m := measure{}
	if raw, ok := r.(*io.SectionReader); ok {
		m.size = raw.Size()
	} else if _, err := io.Copy(&m, r); err != nil {
		return errSkipItem
	}
	e.Num(uint64(m.size))
	return nil
}

func writeBinary(e *wire.Encoder, it *fetchItem, body content) error {
	r, err := binaryReader(it, body)
	if err != nil {
		return err
	}
	m := measure{}
	if _, err = io.Copy(&m, r); err == nil {
		off, n := it.partial.cut(0, m.size)
		if n == 0 {
			e.String("")
			return nil
		}
		at, raw := r.(io.ReaderAt)
		if !raw {
			if r, err = binaryReader(it, body); err == nil {
				_, err = io.CopyN(io.Discard, r, off)
			}
			at, off = &sequential{r: r}, 0
		}
		switch {
		case err != nil:
		case m.nul:
			err = e.Literal8At(at, off, n)
		default:
			err = e.LiteralAt(at, off, n)
		}
	}
	if err != nil {
		if e.Err() == nil {
			e.NIL()
		}
		return fmt.Errorf("decode part: %w", err)
	}
	return nil
}

// sequential lets a stream stand in for an io.ReaderAt that is read from start to end.
type sequential struct {
	r   io.Reader
	off int64
}

// ReadAt reads on; off must be where the last call ended.
func (s *sequential) ReadAt(p []byte, off int64) (int, error) {
	if off != s.off {
		return 0, fmt.Errorf("read at %d of a stream at %d", off, s.off)
	}
	n, err := io.ReadFull(s.r, p)
	s.off += int64(n)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}
