package backend

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/backend/graphsim"
	"postern/backend/message"
	"postern/backend/store"
)

// countedTexts are two kinds of text that count how often they are made.
func countedTexts(made *int) []HeaderText {
	return []HeaderText{
		{Name: "subject", Make: func(dst, header []byte) []byte {
			*made++
			v, _ := message.FieldValue(header, "Subject")
			return append(dst, v...)
		}},
		{Name: "whole", Make: func(dst, header []byte) []byte { return append(dst, header...) }},
	}
}

func TestHeaderTexts(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	sim.AddSynthetic(alice, "inbox", 700, graphsim.Synthetic{})
	b, _ := start(t, testConfig(t, url, t.TempDir()))
	m := open(t, accountOf(t, b, alice), "INBOX")

	made := 0
	// read reads texts, compares them with the headers, and returns how many were made for it.
	read := func(uids []imap.UID) int {
		t.Helper()
		headers := make(map[imap.UID][]byte)
		err := m.Headers(t.Context(), uids, func(uid imap.UID, h []byte) error {
			headers[uid] = bytes.Clone(h)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		made = 0
		err = m.HeaderTexts(t.Context(), uids, countedTexts(&made), func(i int, texts [][]byte) error {
			h := headers[uids[i]]
			delete(headers, uids[i])
			subject, _ := message.FieldValue(h, "Subject")
			if string(texts[0]) != subject || !bytes.Equal(texts[1], h) || h == nil {
				t.Errorf("UID %d: %q, %q of header %q", uids[i], texts[0], texts[1], h)
			}
			return nil
		})
		if err != nil || len(headers) > 0 {
			t.Fatalf("%d messages not yielded, %v", len(headers), err)
		}
		return made
	}
	expect := func(what string, got, want int) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %d texts made, want %d", what, got, want)
		}
	}
	all := m.UIDs()
	expect("first", read(all), 700)
	expect("second", read(all), 0)
	expect("a part", read(all[100:600]), 0)
	expect("few", read(all[100:105]), 5)
	expect("every other", read(append(all[:0:0], all[0], all[2], all[300], all[302])), 4)

	// What has come since is put to the others.
	sim.DeliverMessage(alice, mail(1))
	sim.DeliverMessage(alice, mail(2))
	eventually(t, m, "new messages", func() bool { return len(m.UIDs()) == 702 })
	all = m.UIDs()
	expect("with new messages", read(all), 2)
	expect("with new messages again", read(all), 0)

	// Reading a message completes its header.
	text := readBody(t, m, 701)
	if !bytes.Contains([]byte(text), []byte("number")) {
		t.Fatalf("body %q", text)
	}
	if n := read(all); n > 1 {
		t.Errorf("a message was read: %d texts made", n)
	}
	expect("after it was read", read(all), 0)

	// Messages that are gone are passed over.
	err := m.HeaderTexts(t.Context(), []imap.UID{5000, 5001}, countedTexts(&made), func(i int, _ [][]byte) error {
		return fmt.Errorf("yielded %d", i)
	})
	if err != nil {
		t.Error(err)
	}
	if err := m.HeaderTexts(t.Context(), all, countedTexts(&made), func(int, [][]byte) error { return errFound }); err == nil {
		t.Error("an error of yield is lost")
	}
	b.texts.forgetFolder(m.view.id)
	if b.texts.size != 0 || len(b.texts.columns) != 0 {
		t.Errorf("%d bytes in %d columns of a folder that is gone", b.texts.size, len(b.texts.columns))
	}
}

// TestHeaderTextsReplaced reads texts while messages get other headers: once that is over no old text must be told.
func TestHeaderTextsReplaced(t *testing.T) {
	sim, url := newSim(t, graphsim.Options{})
	sim.AddSynthetic(alice, "inbox", 300, graphsim.Synthetic{})
	b, _ := start(t, testConfig(t, url, t.TempDir()))
	m := open(t, accountOf(t, b, alice), "INBOX")
	uids := m.UIDs()
	made := 0
	last := make(map[imap.UID]string)
	var wg sync.WaitGroup
	wg.Go(func() {
		rnd := rand.New(rand.NewPCG(1, 2))
		for i := range 200 {
			uid := uids[rnd.IntN(len(uids))]
			h := fmt.Sprintf("Subject: replaced %d\r\n\r\n", i)
			last[uid] = h
			err := b.store.SetHeaders(t.Context(), []store.HeaderRow{{ID: store.MessageID(int64(m.view.id)<<32 | int64(uid)), Header: []byte(h)}})
			if err != nil {
				t.Error(err)
			}
		}
	})
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for range 2 {
		for over := false; !over; {
			select {
			case <-done:
				over = true
			default:
			}
			err := m.HeaderTexts(t.Context(), uids, countedTexts(&made), func(i int, texts [][]byte) error {
				if !over {
					return nil
				}
				if want, ok := last[uids[i]]; ok && string(texts[1]) != want {
					t.Errorf("UID %d: %q, want %q", uids[i], texts[1], want)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if made = 0; m.HeaderTexts(t.Context(), uids, countedTexts(&made), func(int, [][]byte) error { return nil }) != nil || made > 0 {
		t.Errorf("%d texts made when all is quiet", made)
	}
}

// putAll keeps texts of n messages of a folder as one who has made them does.
func (c *textCache) putAll(folder store.FolderID, kind string, n int, text func(imap.UID) string) {
	pages := make(map[textPageNum]bool)
	for uid := range imap.UID(n) {
		pages[pageOf(uid)] = true
	}
	m := c.begin(folder, pages, []HeaderText{{Name: kind}})
	for uid := range imap.UID(n) {
		m.add(uid, [][]byte{[]byte(text(uid))})
	}
	m.end()
}

func TestTextCacheLimit(t *testing.T) {
	var seed [32]byte
	noise := rand.NewChaCha8(seed)
	text := func(imap.UID) string { // that cannot be compressed
		b := make([]byte, 100)
		noise.Read(b)
		return string(b)
	}
	c := &textCache{limit: 100_000}
	defer c.close()
	kept := func(folder store.FolderID, kind string) (n int) {
		for page := range textPageNum(20) {
			if c.get(folder, page, []HeaderText{{Name: kind}}) != nil {
				n++
			}
		}
		return n
	}
	c.putAll(1, "a", 500, text)
	c.putAll(2, "b", 500, text) // the first makes room
	if a, b := kept(1, "a"), kept(2, "b"); a != 0 || b != 2 {
		t.Errorf("%d and %d pages are kept", a, b)
	}
	c.putAll(3, "c", 5120, text) // more than there is room for: the beginning is kept
	if b, n := kept(2, "b"), kept(3, "c"); b != 0 || n != 3 {
		t.Errorf("%d and %d pages are kept", b, n)
	}
	if c.size > c.limit {
		t.Errorf("%d bytes, the limit is %d", c.size, c.limit)
	}
	var sum int64
	for _, col := range c.columns {
		sum += col.size
	}
	if sum != c.size {
		t.Errorf("size is %d, of the columns %d", c.size, sum)
	}
	c.close()
	c.putAll(1, "a", 500, text)
	if len(c.columns) > 0 || c.size != 0 {
		t.Error("something is kept after close")
	}
}

func TestTextCacheExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &textCache{}
		defer c.close()
		text := func(imap.UID) string { return "text" }
		c.putAll(1, "a", 100, text)
		time.Sleep(keepTexts / 2)
		c.putAll(1, "b", 100, text)
		time.Sleep(keepTexts * 3 / 4)
		if c.get(1, 0, []HeaderText{{Name: "b"}}) == nil {
			t.Error("what was asked for lately is gone")
		}
		time.Sleep(keepTexts)
		if c.get(1, 0, []HeaderText{{Name: "a"}}) != nil {
			t.Error("what nobody asks for is kept")
		}
		time.Sleep(3 * keepTexts)
		synctest.Wait()
		if len(c.columns) > 0 || c.size != 0 || c.expiry != nil {
			t.Errorf("%d columns, %d bytes are kept", len(c.columns), c.size)
		}
	})
}
