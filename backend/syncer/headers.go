package syncer

import (
	"bytes"
	"context"
	"fmt"
	"mime"
	"net/mail"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"postern/backend/graph"
	"postern/backend/store"
)

// Headers come from 0x007D, the transport headers that Exchange keeps of received mail. Mail that never was on the way,
// sent or drafted here, has none. Where only a few of those are asked for, their MIME text is read; for many, or when
// nobody waits, a header is put together from the properties a list page holds, which for a mail program's list of
// messages says the same.

var headerOptions = graph.ListOptions{
	Select: []string{"id", "subject", "from", "sender", "toRecipients", "ccRecipients", "bccRecipients", "replyTo",
		"sentDateTime", "internetMessageId"},
	Expand: []graph.PropertyID{graph.PropTransportHeaders, graph.PropReferences, graph.PropInReplyTo},
}

const (
	headerPage = 200 // messages with headers in one page: about a megabyte
	fewHeaders = 40  // up to here single reads, by batches, are cheaper than pages
	fewBodies  = 20  // messages without 0x007D whose text is read when a client asks for their headers
)

// FetchHeaders makes the store hold the headers of msgs, as far as they exist. among is how many messages the folder
// has between the oldest and the newest of them: it decides between pages and single reads.
func (s *Syncer) FetchHeaders(ctx context.Context, id store.FolderID, msgs []store.Message, among int) error {
	var ask, absent []store.Message
	for _, m := range msgs {
		switch {
		case m.HasHeader:
		case m.HeaderAbsent:
			absent = append(absent, m)
		default:
			ask = append(ask, m)
		}
	}
	if len(ask) > 0 {
		row, err := s.o.Store.Folder(ctx, id)
		if err != nil {
			return err
		}
		if len(ask) > fewHeaders && among/headerPage < len(ask)/4 {
			if ask, err = s.headerRange(ctx, row, ask); err != nil {
				return err
			}
		}
		more, err := s.headersOf(ctx, ask, len(ask) <= fewHeaders)
		if err != nil {
			return err
		}
		absent = append(absent, more...)
	}
	if len(absent) > fewBodies {
		_, err := s.headersOf(ctx, absent, false)
		return err
	}
	var mu sync.Mutex
	var unread []store.Message
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for _, m := range absent {
		g.Go(func() error {
			err := s.FetchBody(gctx, m)
			if err == nil || graph.IsNotFound(err) {
				return nil
			}
			if gctx.Err() != nil || graph.IsThrottled(err) {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			unread = append(unread, m)
			return nil
		})
	}
	if err := g.Wait(); err != nil || len(unread) == 0 {
		return err
	}
	// One text that Graph fails to give must not keep the others' headers back.
	_, err := s.headersOf(ctx, unread, false)
	return err
}

// headerRange reads the headers of msgs by pages over the time they span, and returns those it did not meet.
func (s *Syncer) headerRange(ctx context.Context, row *store.Folder, msgs []store.Message) (rest []store.Message, err error) {
	want := make(map[string]store.Message, len(msgs))
	oldest, newest := msgs[0].Received, msgs[0].Received
	for _, m := range msgs {
		want[string(m.GraphID)] = m
		if m.Received.Before(oldest) {
			oldest = m.Received
		}
		if m.Received.After(newest) {
			newest = m.Received
		}
	}
	o := headerOptions
	o.OrderBy = "receivedDateTime desc"
	// The replica holds whole seconds.
	o.Filter = fmt.Sprintf("receivedDateTime ge %s and receivedDateTime lt %s",
		oldest.UTC().Format(time.RFC3339), newest.Add(time.Second).UTC().Format(time.RFC3339))
	o.PageSize = headerPage
	err = ahead(ctx, func(ctx context.Context, yield func([]store.HeaderRow) error) error {
		return s.o.Graph.ListMessages(ctx, string(row.GraphID), o, "", func(page []graph.Message, _ string) error {
			var rows []store.HeaderRow
			for i := range page {
				if m, ok := want[page[i].ID]; ok {
					rows = append(rows, store.HeaderRow{ID: m.ID, Header: headerOf(&page[i])})
					delete(want, page[i].ID)
				}
			}
			if err := yield(rows); err != nil || len(want) > 0 {
				return err
			}
			return errEnough // before another page is asked for
		})
	}, func(rows []store.HeaderRow) error {
		if err := s.o.Store.AddHeaders(ctx, rows); err != nil {
			return err
		}
		s.announceHeaders(rows, row.ID)
		return nil
	})
	if err != nil && !isEnough(err) {
		return nil, fmt.Errorf("read headers: %w", err)
	}
	for _, m := range want {
		rest = append(rest, m)
	}
	return rest, nil
}

// headersOf reads the headers of msgs one by one, in batches. With exact, those without transport headers are marked as
// such and returned; else a header is put together for them.
func (s *Syncer) headersOf(ctx context.Context, msgs []store.Message, exact bool) (absent []store.Message, err error) {
	for part := range slices.Chunk(msgs, 100) {
		ids := make([]string, len(part))
		for i := range part {
			ids[i] = string(part[i].GraphID)
		}
		var rows []store.HeaderRow
		var failed error
		for i, res := range s.o.Graph.GetMany(ctx, ids, headerOptions) {
			switch {
			case res.Err == nil && res.Message != nil:
				row := store.HeaderRow{ID: part[i].ID}
				if res.Message.HasProperty(graph.PropTransportHeaders) || !exact {
					row.Header = headerOf(res.Message)
				} else {
					absent = append(absent, part[i])
				}
				rows = append(rows, row)
			case graph.IsNotFound(res.Err):
				s.Poke(part[i].Folder)
			default:
				failed = res.Err
			}
		}
		if err := s.o.Store.AddHeaders(ctx, rows); err != nil {
			return nil, err
		}
		if len(part) > 0 {
			s.announceHeaders(rows, part[0].Folder)
		}
		if failed != nil {
			return absent, fmt.Errorf("read headers: %w", failed)
		}
	}
	return absent, nil
}

// announceHeaders tells the watchers that headers are here.
func (s *Syncer) announceHeaders(rows []store.HeaderRow, id store.FolderID) {
	if s.o.HeadersKept == nil {
		return
	}
	var ids []store.MessageID
	for _, r := range rows {
		if r.Header != nil {
			ids = append(ids, r.ID)
		}
	}
	if len(ids) > 0 {
		s.o.HeadersKept(id, ids)
	}
}

// headerPageBackground stores the headers of one page, newest first. done reports that it was the last.
func (s *Syncer) headerPageBackground(ctx context.Context, row *store.Folder) (done bool, err error) {
	lacks, err := s.o.Store.LacksHeaders(ctx, row.ID)
	if err != nil {
		return false, err
	}
	if !lacks {
		return true, s.o.Store.SetSync(ctx, row.ID, store.SyncUpdate{HeadersDone: new(true), HeadersLink: new("")})
	}
	o := headerOptions
	o.OrderBy = "receivedDateTime desc"
	o.PageSize = headerPage
	pages := 0
	err = s.o.Graph.ListMessages(ctx, string(row.GraphID), o, row.HeadersLink, func(page []graph.Message, next string) error {
		ids := make([]string, len(page))
		for i := range page {
			ids[i] = page[i].ID
		}
		want, err := s.o.Store.LackingHeaders(ctx, row.ID, ids)
		if err != nil {
			return err
		}
		var rows []store.HeaderRow
		for i := range page {
			if id, ok := want[page[i].ID]; ok {
				rows = append(rows, store.HeaderRow{ID: id, Header: headerOf(&page[i])})
			}
		}
		if err := s.o.Store.AddHeaders(ctx, rows); err != nil {
			return err
		}
		s.announceHeaders(rows, row.ID)
		u := store.SyncUpdate{HeadersLink: &next}
		if next == "" {
			u.HeadersDone = new(true)
			done = true
		}
		if err := s.o.Store.SetSync(ctx, row.ID, u); err != nil {
			return err
		}
		// After some pages look whether another folder has become more important.
		if pages++; pages >= 10 && next != "" {
			return errEnough
		}
		return nil
	})
	if isEnough(err) {
		err = nil
	}
	if err != nil && row.HeadersLink != "" && !temporary(err) {
		_ = s.o.Store.SetSync(ctx, row.ID, store.SyncUpdate{HeadersLink: new("")})
	}
	return done, err
}

// headerOf returns the message's header block, ended by a blank line.
func headerOf(m *graph.Message) []byte {
	if text := m.Property(graph.PropTransportHeaders); strings.TrimSpace(text) != "" {
		return headerBlock(text)
	}
	return madeHeader(m)
}

// headerBlock brings a header text into the form of a block: CRLF, no blank line but the last.
func headerBlock(text string) []byte {
	var b bytes.Buffer
	b.Grow(len(text) + 4)
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		// Exchange's first line of old, without a colon.
		if strings.TrimSpace(line) == "" || b.Len() == 0 && strings.HasPrefix(line, "Microsoft Mail Internet Headers") {
			continue
		}
		b.WriteString(line)
		b.WriteString("\r\n")
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

// madeHeader puts a header together from what Graph says of a message.
func madeHeader(m *graph.Message) []byte {
	var b bytes.Buffer
	field := func(name, value string) {
		if value = strings.Join(strings.Fields(value), " "); value != "" {
			fmt.Fprintf(&b, "%s: %s\r\n", name, value)
		}
	}
	people := func(name string, list []graph.Recipient) {
		var out []string
		for _, r := range list {
			if r.Address != "" {
				a := mail.Address{Name: r.Name, Address: r.Address}
				if strings.EqualFold(r.Name, r.Address) {
					a.Name = ""
				}
				out = append(out, a.String())
			}
		}
		if len(out) > 0 {
			fmt.Fprintf(&b, "%s: %s\r\n", name, strings.Join(out, ",\r\n\t"))
		}
	}
	one := func(name string, r *graph.Recipient) {
		if r != nil {
			people(name, []graph.Recipient{*r})
		}
	}
	list := func(p *[]graph.Recipient) []graph.Recipient {
		if p == nil {
			return nil
		}
		return *p
	}
	one("From", m.From)
	if m.Sender != nil && m.From != nil && !strings.EqualFold(m.Sender.Address, m.From.Address) {
		one("Sender", m.Sender)
	}
	people("Reply-To", list(m.ReplyTo))
	people("To", list(m.To))
	people("Cc", list(m.Cc))
	people("Bcc", list(m.Bcc))
	if m.Subject != nil {
		field("Subject", mime.QEncoding.Encode("utf-8", strings.Join(strings.Fields(*m.Subject), " ")))
	}
	if m.Sent != nil {
		field("Date", m.Sent.UTC().Format("Mon, 02 Jan 2006 15:04:05 -0700"))
	}
	if m.InternetMessageID != nil {
		field("Message-ID", *m.InternetMessageID)
	}
	field("In-Reply-To", m.Property(graph.PropInReplyTo))
	field("References", m.Property(graph.PropReferences))
	b.WriteString("\r\n")
	return b.Bytes()
}
