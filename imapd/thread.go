package imapd

import (
	"cmp"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"

	"postern/backend"
	"postern/imapd/wire"
)

func init() {
	commands["THREAD"] = commandSpec{run: (*session).thread, in: inSelected, uid: true, keepsNumbers: true}
}

// threadAlgorithms are those of RFC 5256 section 3.
var threadAlgorithms = map[string]func([]threadMessage) *threads{
	"ORDEREDSUBJECT": threadBySubject,
	"REFERENCES":     threadByReferences,
}

// threadMessage is one message as the algorithms see it.
type threadMessage struct {
	num  imap.UID // or sequence number, as the client is told
	sent int64    // as sentDate has it
	keys *headerKeys
}

// threads is a forest over messages, which stand in the order of the mailbox.
type threads struct {
	messages []threadMessage
	roots    []int32
	// kids are the children of each message and, behind the messages, of dummies that stand for messages which are
	// not there.
	kids [][]int32
}

// isDummy reports whether the node is no message.
func (t *threads) isDummy(n int32) bool { return int(n) >= len(t.messages) }

// thread is THREAD and UID THREAD. RFC 5256 section 3.
func (s *session) thread(c *command) error {
	req := &searchRequest{}
	s.dec.Space()
	algorithm, ok := threadAlgorithms[s.dec.Word()]
	if !ok {
		s.dec.Fail(&wire.SyntaxError{Text: "unknown threading algorithm"})
	}
	req.parseProgram(s.dec)
	if err := s.dec.End(); err != nil {
		return err
	}
	hits, err := s.find(req)
	if err != nil {
		return err
	}
	messages := make([]threadMessage, 0, len(hits))
	uids := make([]imap.UID, 0, len(hits))
	s.view.messagesOf(hits, func(i int, msg *backend.Message) {
		messages = append(messages, threadMessage{num: hits[i].number(c.uid), sent: msg.Received.Unix()})
		uids = append(uids, msg.UID)
	})
	keys, err := s.headerKeys(uids)
	if err != nil {
		return err
	}
	for i := range messages {
		if messages[i].keys = keys[i]; keys[i] != nil {
			messages[i].sent = sentDate(keys[i], messages[i].sent)
		}
	}
	messages = slices.DeleteFunc(messages, func(m threadMessage) bool { return m.keys == nil })
	algorithm(messages).write(s.enc)
	return s.enc.Err()
}

// write writes the THREAD response. RFC 5256 section 4.
func (t *threads) write(e *wire.Encoder) {
	e.Raw("* THREAD")
	if len(t.roots) > 0 {
		e.SP()
	}
	const closing = -1
	var stack []int32 // no recursion: threads may be as deep as there are messages
	push := func(nodes []int32) {
		for _, n := range slices.Backward(nodes) {
			stack = append(stack, n)
		}
	}
	push(t.roots)
	for len(stack) > 0 {
		n := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if n == closing {
			e.Byte(')')
			continue
		}
		e.Byte('(')
		for first := true; ; n = t.kids[n][0] {
			if !t.isDummy(n) {
				if !first {
					e.SP()
				}
				e.Num(uint64(t.messages[n].num))
				first = false
			}
			if len(t.kids[n]) == 1 {
				continue
			}
			if len(t.kids[n]) > 1 && !first {
				e.SP()
			}
			break
		}
		stack = append(stack, closing)
		push(t.kids[n])
	}
	e.CRLF()
}

// compare orders messages by date. Where dates are equal the place in the mailbox decides. RFC 5256 section 2.2.
func (t *threads) compare(a, b int32) int {
	if n := cmp.Compare(t.messages[a].sent, t.messages[b].sent); n != 0 {
		return n
	}
	return cmp.Compare(a, b)
}

// threadBySubject makes the threads of ORDEREDSUBJECT: messages with one base subject, the first of which has all
// others as children.
func threadBySubject(messages []threadMessage) *threads {
	t := &threads{messages: messages, kids: make([][]int32, len(messages))}
	order := make([]int32, len(messages))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int {
		if n := strings.Compare(messages[a].keys.subject, messages[b].keys.subject); n != 0 {
			return n
		}
		return t.compare(a, b)
	})
	for i := 0; i < len(order); {
		j := i + 1
		for j < len(order) && messages[order[j]].keys.subject == messages[order[i]].keys.subject {
			j++
		}
		t.roots = append(t.roots, order[i])
		t.kids[order[i]] = order[i+1 : j : j]
		i = j
	}
	slices.SortFunc(t.roots, t.compare)
	return t
}
