package backend

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"golang.org/x/sync/errgroup"

	"postern/backend/graph"
	"postern/backend/message"
	"postern/backend/store"
)

const (
	headerChunk  = 1000             // messages whose headers are in memory at once
	bodyPatience = 11 * time.Minute // how long a reading waits: longer than the whole window of Graph's request limit
	fetchers     = 4                // bodies read at once for one command: Graph's limit for one mailbox
	autoSizes    = 50               // messages that SizeAuto reads for one command
	searchResult = 1000             // Graph: search-query-parameter, the most it finds
)

// rows returns the store's rows of some messages, in the order of UIDs.
func (m *Mailbox) rows(ctx context.Context, uids []imap.UID) ([]store.Message, error) {
	if len(uids) == 0 {
		return nil, nil
	}
	return m.account.store.MessagesByUID(ctx, m.view.id, uids)
}

// Headers yields the header blocks of the messages, in any order, each once and good during the call only. Messages that
// are gone are skipped. What the replica lacks is fetched.
func (m *Mailbox) Headers(ctx context.Context, uids []imap.UID, yield func(uid imap.UID, header []byte) error) error {
	ctx = interactive(ctx)
	for part := range slices.Chunk(uids, headerChunk) {
		if err := m.headers(ctx, part, yield); err != nil {
			return translate("read headers", err)
		}
	}
	return nil
}

// KeptHeaders returns the header blocks of those of the messages whose headers the replica has.
func (m *Mailbox) KeptHeaders(ctx context.Context, uids []imap.UID) (map[imap.UID][]byte, error) {
	headers, err := m.account.store.HeadersOf(ctx, m.view.id, uids)
	if err != nil {
		return nil, translate("read headers", err)
	}
	return headers, nil
}

func (m *Mailbox) headers(ctx context.Context, uids []imap.UID, yield func(imap.UID, []byte) error) error {
	have := make(map[imap.UID]bool, len(uids))
	err := m.account.store.EachHeader(ctx, m.view.id, uids, func(uid imap.UID, header []byte) error {
		have[uid] = true
		return yield(uid, header)
	})
	if err != nil || len(have) == len(uids) {
		return err
	}
	lacking, err := m.rows(ctx, slices.DeleteFunc(slices.Clone(uids), func(uid imap.UID) bool { return have[uid] }))
	if err != nil || len(lacking) == 0 {
		return err
	}
	for i := range lacking {
		lacking[i].HasHeader = false
	}
	if err := m.account.syncer.FetchHeaders(ctx, m.view.id, lacking, m.among(lacking)); err != nil {
		return err
	}
	uids = uids[:0:0]
	for _, r := range lacking {
		uids = append(uids, r.UID)
	}
	return m.account.store.EachHeader(ctx, m.view.id, uids, yield)
}

// among returns how many messages the mailbox has between the first and the last of msgs.
func (m *Mailbox) among(msgs []store.Message) int {
	m.view.mu.RLock()
	defer m.view.mu.RUnlock()
	first, _ := m.view.findLocked(msgs[0].UID)
	last, _ := m.view.findLocked(msgs[len(msgs)-1].UID)
	if last < first {
		first, last = last, first
	}
	return last - first + 1
}

// Body is the content of one message. Close it when done.
type Body struct {
	body  *store.Body
	index *message.Index
}

// ReadAt reads from the message's bytes.
func (b *Body) ReadAt(p []byte, off int64) (int, error) { return b.body.ReadAt(p, off) }

// Size returns the exact number of bytes.
func (b *Body) Size() int64 { return b.body.Size() }

// Index returns the message's MIME structure; do not change it.
func (b *Body) Index() *message.Index { return b.index }

// Close releases the body.
func (b *Body) Close() error { return b.body.Close() }

// Body returns the content of a message, from the kept bytes or from Graph. Many callers cost one reading.
func (m *Mailbox) Body(ctx context.Context, uid imap.UID) (*Body, error) {
	// Mostly it is kept, and then one question to the store is enough.
	if b, err := m.account.store.BodyOf(ctx, m.view.id, uid); err == nil {
		m.account.backend.observer.Body(true)
		b, err := indexed(b)
		return b, translate("read message", err)
	} else if !errors.Is(err, store.ErrNoBody) {
		return nil, translate("read message", err)
	}
	rows, err := m.rows(ctx, []imap.UID{uid})
	if err != nil {
		return nil, translate("read message", err)
	}
	if len(rows) == 0 {
		return nil, &Error{Kind: NotFound, Op: "read message", Text: "the message has been removed"}
	}
	b, err := m.body(graph.WithPatience(interactive(ctx), bodyPatience), rows[0])
	return b, translate("read message", err)
}

func (m *Mailbox) body(ctx context.Context, row store.Message) (*Body, error) {
	b, err := m.account.store.Body(ctx, row.ID)
	m.account.backend.observer.Body(err == nil)
	if errors.Is(err, store.ErrNoBody) {
		if err := m.account.syncer.FetchBody(ctx, row); err != nil {
			return nil, err
		}
		b, err = m.account.store.Body(ctx, row.ID)
	}
	if err != nil {
		return nil, err
	}
	return indexed(b)
}

// indexed adds the structure to a body, which is closed on an error.
func indexed(b *store.Body) (*Body, error) {
	ix := new(message.Index)
	if err := ix.UnmarshalBinary(b.Index()); err != nil {
		// Kept by another version: the bytes say it again.
		if ix, err = message.Parse(b, b.Size()); err != nil {
			b.Close()
			return nil, err
		}
	}
	return &Body{body: b, index: ix}, nil
}

// ExactSizes reads messages whose size is not known exactly, as the size policy allows: all, a few, or none.
// Afterwards Message.Size is what to tell. But for SizeExact that is the estimate where a message cannot be read.
func (m *Mailbox) ExactSizes(ctx context.Context, uids []imap.UID) error {
	policy := m.account.backend.config().Size
	if policy == SizeEstimate {
		return nil
	}
	var unknown []imap.UID
	m.Messages(uids, func(msg *Message) bool {
		if !msg.SizeExact {
			unknown = append(unknown, msg.UID)
		}
		return policy == SizeExact || len(unknown) <= autoSizes
	})
	if len(unknown) == 0 || policy != SizeExact && len(unknown) > autoSizes {
		return nil
	}
	g, gctx := errgroup.WithContext(interactive(ctx))
	g.SetLimit(fetchers)
	for part := range slices.Chunk(unknown, headerChunk) {
		rows, err := m.rows(gctx, part)
		if err != nil {
			_ = g.Wait()
			return translate("read sizes", err)
		}
		for _, row := range rows {
			g.Go(func() error {
				err := m.account.syncer.FetchBody(gctx, row)
				if graph.IsNotFound(err) || errors.Is(err, store.ErrNotFound) {
					return nil
				}
				if policy != SizeExact {
					switch KindOf(translate("read size", err)) {
					case Unavailable, SignInNeeded, Denied:
					default:
						return nil // the others may still be read
					}
				}
				return err
			})
		}
	}
	err := translate("read sizes", g.Wait())
	if err != nil && policy != SizeExact && ctx.Err() == nil {
		m.account.log.Debug("sizes stay estimates", "mailbox", m.name, "err", err)
		return nil
	}
	return err
}

// SearchText returns which of the messages Graph's index finds for text. It is a word
// index, so less exact than a search of the bytes, and it finds at most the newest thousand.
func (m *Mailbox) SearchText(ctx context.Context, text string, bodyOnly bool, uids []imap.UID) (map[imap.UID]bool, error) {
	found := make(map[imap.UID]bool)
	query := searchQuery(text, bodyOnly)
	if query == "" || len(uids) == 0 {
		return found, nil
	}
	row, err := m.account.store.Folder(ctx, m.view.id)
	if err != nil {
		return nil, translate("search messages", err)
	}
	hits := make(map[store.GraphID]bool)
	err = m.account.graph.ListMessages(interactive(ctx), string(row.GraphID),
		graph.ListOptions{Select: []string{"id"}, Search: query, PageSize: searchResult}, "",
		func(page []graph.Message, _ string) error {
			for i := range page {
				hits[store.GraphID(page[i].ID)] = true
			}
			return nil
		})
	if err != nil {
		return nil, translate("search messages", err)
	}
	if len(hits) == 0 {
		return found, nil
	}
	rows, err := m.rows(ctx, uids)
	if err != nil {
		return nil, translate("search messages", err)
	}
	for _, r := range rows {
		if hits[r.GraphID] {
			found[r.UID] = true
		}
	}
	return found, nil
}

// searchQuery writes text in Graph's query language, KQL: one word as the beginning of a word, several as a phrase.
// Characters that mean something there cannot be searched for, and its index does not hold them either.
func searchQuery(text string, bodyOnly bool) string {
	words := strings.FieldsFunc(text, func(r rune) bool {
		return r <= ' ' || strings.ContainsRune(`"\():*<>=`, r)
	})
	var query string
	switch len(words) {
	case 0:
		return ""
	case 1:
		query = words[0] + "*"
	default:
		query = `"` + strings.Join(words, " ") + `"`
	}
	if bodyOnly {
		return "body:" + query
	}
	return query
}
