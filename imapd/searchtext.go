package imapd

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/emersion/go-imap/v2"

	"postern/backend"
	"postern/backend/message"
)

// maxSearchHeader bounds the header block of a part that is searched.
const maxSearchHeader = 1 << 20

// textKeys returns the BODY and TEXT keys of the tree.
func (k *searchKey) textKeys() []*searchKey {
	var keys []*searchKey
	k.walk(func(k *searchKey) {
		if k.op == searchBody || k.op == searchText {
			keys = append(keys, k)
		}
	})
	return keys
}

// textNeedles are the needles of BODY and TEXT keys.
func textNeedles(keys []*searchKey) *needles {
	want := make([][]byte, len(keys))
	inBody := make([]bool, len(keys))
	for i, k := range keys {
		want[i], inBody[i] = k.needle, k.op == searchBody
	}
	n := newNeedles(want)
	n.inBody = inBody
	return n
}

// scanText answers keys, whose needles n are, for a message whose bytes are here, in one pass over its texts. As with
// Dovecot, BODY does not look at headers, not even those of parts, and TEXT looks at all of them.
func scanText(body content, keys []*searchKey, n *needles) (map[*searchKey]bool, error) {
	n.reset()
	if err := scanPart(body, body.Index().Root, n); err != nil {
		return nil, err
	}
	found := make(map[*searchKey]bool, len(keys))
	for i, k := range keys {
		found[k] = n.found[i]
	}
	return found, nil
}

// scanPart looks through a part and all in it.
func scanPart(body content, p *message.Part, n *needles) error {
	if err := scanHeader(body, p.Header, n); err != nil {
		return err
	}
	if n.left == 0 {
		return nil
	}
	if name := p.FileName(); name != "" {
		n.inField(name) // RFC 2231 hides it from a look at the field
	}
	for _, c := range p.Children {
		if err := scanPart(body, c, n); err != nil {
			return err
		}
	}
	switch {
	case p.Multipart():
	case p.Message != nil:
		return scanPart(body, p.Message, n)
	case p.IsType("text", ""), p.IsType("message", ""):
		r, err := message.Text(body, p)
		if err != nil {
			return fmt.Errorf("search text: %w", err)
		}
		if err := n.inText(r, p.IsType("text", "html")); err != nil {
			return fmt.Errorf("search text: %w", err)
		}
	}
	return nil
}

func scanHeader(body io.ReaderAt, span message.Span, n *needles) error {
	if span.Len == 0 || n.left == 0 {
		return nil
	}
	header := make([]byte, min(span.Len, maxSearchHeader))
	if _, err := io.ReadFull(io.NewSectionReader(body, span.Off, span.Len), header); err != nil {
		return fmt.Errorf("search header: %w", err)
	}
	n.inHeader(header)
	return nil
}

// inHeader looks through a header block as people see it: names, and values decoded.
func (n *needles) inHeader(header []byte) {
	for _, f := range message.Fields(header) {
		if n.left == 0 {
			return
		}
		n.inField(f.Name + ": " + message.DecodeWords(f.Value))
	}
}

// textSearch answers the BODY and TEXT keys of messages that everything else has left open.
type textSearch struct {
	ctx  context.Context
	mbox *backend.Mailbox
	keys []*searchKey

	needles *needles // of keys; made when first needed
}

// kept answers for a message whose bytes are kept. ok is false if it is gone.
func (t *textSearch) kept(uid imap.UID) (found map[*searchKey]bool, ok bool, err error) {
	body, err := t.mbox.Body(t.ctx, uid)
	if err != nil {
		if backend.KindOf(err) == backend.NotFound {
			return nil, false, nil
		}
		return nil, false, err
	}
	if t.needles == nil {
		t.needles = textNeedles(t.keys)
	}
	found, err = scanText(body, t.keys, t.needles)
	err = errors.Join(err, body.Close())
	return found, err == nil, err
}

// askIndex has Graph's index find what the replica cannot: one question for each key.
func (t *textSearch) askIndex(uids []imap.UID) error {
	for _, k := range t.keys {
		if len(k.needle) == 0 {
			continue
		}
		found, err := t.mbox.SearchText(t.ctx, k.text, k.op == searchBody, uids)
		if err != nil {
			return err
		}
		k.remote = found
	}
	return nil
}

// indexed answers for a message by what askIndex found and, for TEXT, by its header.
func (t *textSearch) indexed(uid imap.UID, header *searchHeaders) map[*searchKey]bool {
	found := make(map[*searchKey]bool, len(t.keys))
	for _, k := range t.keys {
		found[k] = len(k.needle) == 0 || k.remote[uid]
		if !found[k] && k.op == searchText && header != nil {
			n := newNeedles([][]byte{k.needle})
			n.inHeader(header.raw)
			found[k] = n.found[0]
		}
	}
	return found
}
