package imapd

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"postern/imapd/wire"
	"postern/internal/fuzzcorpus"
)

// threadMessages makes messages numbered from 1 out of lines "date id: ref ref; subject".
func threadMessages(t testing.TB, lines ...string) []threadMessage {
	t.Helper()
	var list []threadMessage
	for i, line := range lines {
		head, subject, _ := strings.Cut(line, ";")
		head, refs, _ := strings.Cut(head, ":")
		var date int
		var id string
		if _, err := fmt.Sscan(head, &date, &id); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		header := "Subject: " + strings.TrimSpace(subject) + "\r\n"
		if id != "-" {
			header += "Message-ID: <" + id + "@x>\r\n"
		}
		header += "References:"
		for _, r := range strings.Fields(refs) {
			header += "\r\n <" + r + "@x>"
		}
		list = append(list, threadMessage{num: imap.UID(i + 1), sent: int64(date), keys: newHeaderKeys([]byte(header + "\r\n\r\n"))})
	}
	return list
}

func (t *threads) show() string {
	var out bytes.Buffer
	e := wire.NewEncoder(&out)
	t.write(e)
	e.Flush()
	return strings.TrimPrefix(strings.TrimPrefix(strings.TrimSpace(out.String()), "* THREAD"), " ")
}

func TestThreadReferences(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		messages   []string
	}{
		{"none", "", nil},
		{"one", "(1)", []string{"1 a: ; s"}},
		{"chain", "(1 2 3)", []string{"1 a: ; s", "2 b: a; s", "3 c: a b; s"}},
		{"backwards", "(3 2 1)", []string{"3 c: a b;", "2 b: a;", "1 a: ;"}},
		{"branches by date", "(1 (3)(2 4))", []string{"1 a: ;", "9 b: a;", "3 c: a;", "10 d: a b;"}},
		{"equal dates", "(1 (2)(3)(4))", []string{"1 a: ;", "5 b: a;", "5 c: a;", "5 d: a;"}},
		{"parent missing", "((1)(2))", []string{"1 b: a;", "2 c: a;"}},
		{"parent missing, one child", "(1 2)", []string{"1 b: a;", "2 c: a b;"}},
		{"two missing in a row", "((1)(2))", []string{"1 c: a b;", "2 d: a b;"}},
		{"missing between", "(1 (2)(3))", []string{"1 a: ;", "2 c: a b;", "3 d: a b;"}},
		{"missing with branches below missing", "((1)(2)(3))", []string{"1 c: a b;", "2 d: a b;", "3 e: a f;"}},
		{"only a missing one's name", "(1)", []string{"1 b: a z y;"}},
		{"loop", "(2 1)", []string{"1 a: b;", "2 b: a;"}},
		{"loop of three", "(3 1 2)", []string{"1 a: c;", "2 b: a;", "3 c: b;"}},
		{"self", "(1)", []string{"1 a: a;"}},
		{"own word counts", "(1 (2)(3))", []string{"1 a: ;", "2 c: a;", "3 d: a;"}},
		{"truncated references", "(1 2 3 4)", []string{"1 a: ;", "2 b: a;", "3 c: a b;", "4 d: a c;"}},
		{"own word breaks another's", "(2 3 1)(4)", []string{"4 c: y b; q", "1 a: ;", "2 b: a; x", "5 y: ; r"}},
		{"same id twice", "(1 3)(2)", []string{"1 a: ; s", "2 a: ; t", "3 b: a; s"}},
		{"no id", "(1)(2)", []string{"1 -: ; s", "2 -: ; t"}},
		{"roots by date", "(3)(1)(2)", []string{"2 a: ; a", "3 b: ; b", "1 c: ; c"}},

		// Subjects.
		{"reply joins", "(1 2)", []string{"1 a: ; s", "2 b: ; Re: s"}},
		{"reply that came before", "(2 1)", []string{"1 a: ; Re: s", "2 b: ; s"}},
		{"same subject", "((1)(2)(3))", []string{"1 a: ; s", "2 b: ; S", "3 c: ; s"}},
		{"replies to nobody", "((1)(2))", []string{"1 a: ; Re: s", "2 b: ; fwd: s"}},
		{"no subject", "(1)(2)", []string{"1 a: ; ", "2 b: ; Re:"}},
		{"dummy takes message", "((1)(2)(3))", []string{"1 b: a; s", "2 c: a; t", "3 d: ; s"}},
		{"dummy takes dummy", "((1)(2)(3)(4))", []string{"1 b: a; s", "2 c: a; t", "3 e: d; s", "4 f: d; u"}},
		{"reply goes beside children", "(1 (2)(3))", []string{"1 a: ; s", "2 b: a; x", "3 c: ; Re: s"}},
		{"subject of a child counts not", "(1 2)(3)", []string{"1 a: ; s", "2 b: a; t", "3 c: ; t"}},
		{"thread joins thread", "(1 (2)(3 4))", []string{"1 a: ; s", "2 b: a;", "3 c: ; Re: s", "4 d: c;"}},
	} {
		if got := threadByReferences(threadMessages(t, tt.messages...)).show(); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestThreadBySubject(t *testing.T) {
	for _, tt := range []struct {
		want     string
		messages []string
	}{
		{"", nil},
		{"(1)(2)", []string{"1 a: ; s", "2 b: a; t"}},
		{"(2 1)", []string{"2 a: ; s", "1 b: ; Re: S"}},
		{"(2 (4)(1))(3 5)", []string{"9 a: ; s", "1 b: ; s", "2 c: ; ", "3 d: ; fwd: s", "4 e: ; Re: "}},
	} {
		if got := threadBySubject(threadMessages(t, tt.messages...)).show(); got != tt.want {
			t.Errorf("%q: %s, want %s", tt.messages, got, tt.want)
		}
	}
}

// simpleLink is step 1 in the plainest way: the parents, by id, that the linker must find too.
func simpleLink(messages []threadMessage) map[string]string {
	name := func(i int, id uint64) string {
		for j := range messages {
			if messages[j].keys.id == id && id != 0 {
				return fmt.Sprint(j)
			}
		}
		return fmt.Sprintf("id%x", id)
	}
	parent := make(map[string]string)
	above := func(a, b string) bool {
		for ; b != ""; b = parent[b] {
			if a == b {
				return true
			}
		}
		return false
	}
	for i := range messages {
		last := ""
		for _, id := range messages[i].keys.refs {
			n := name(i, id)
			if last != "" && parent[n] == "" && !above(n, last) {
				parent[n] = last
			}
			last = n
		}
		own := fmt.Sprint(i)
		delete(parent, own)
		if last != "" && !above(own, last) {
			parent[own] = last
		}
	}
	for n := range parent {
		if strings.HasPrefix(n, "id") {
			delete(parent, n) // not compared: dummies have no names in the linker
		}
	}
	return parent
}

// Random references make the same links as the plain way does, and every message is in the result once.
func TestThreadRandom(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		n := 1 + rng.IntN(12)
		messages := make([]threadMessage, n)
		for i := range messages {
			k := &headerKeys{id: uint64(rng.IntN(n + 2)), subject: []string{"", "A", "B"}[rng.IntN(3)], reply: rng.IntN(2) == 0}
			for range rng.IntN(4) {
				k.refs = append(k.refs, uint64(1+rng.IntN(n+3)))
			}
			messages[i] = threadMessage{num: imap.UID(i + 1), sent: int64(rng.IntN(4)), keys: k}
		}
		want := simpleLink(messages)
		l := linkMessages(messages)
		for i := range messages {
			p := l.nodes[i].parent
			w, ok := want[fmt.Sprint(i)]
			if ok != (p >= 0) || ok && !strings.HasPrefix(w, "id") && w != fmt.Sprint(p) || ok && strings.HasPrefix(w, "id") && int(p) < n {
				t.Fatalf("parent of %d is %d, want %q\n%+v", i, p, w, messages)
			}
		}
		for _, thread := range []func([]threadMessage) *threads{threadByReferences, threadBySubject} {
			out := thread(messages).show()
			var nums []string
			nums = append(nums, strings.FieldsFunc(out, func(r rune) bool { return r == '(' || r == ')' || r == ' ' })...)
			slices.Sort(nums)
			if len(nums) != n || len(slices.Compact(nums)) != n {
				t.Fatalf("%d messages are %s", n, out)
			}
		}
	}
}

// References made up to cost time do not.
func TestThreadHostile(t *testing.T) {
	const n = 50_000
	message := func(i int, id uint64, refs ...uint64) threadMessage {
		return threadMessage{num: imap.UID(i + 1), sent: int64(i), keys: &headerKeys{id: id, refs: refs, subject: "S", reply: i%2 == 0}}
	}
	for name, make1 := range map[string]func(i int) threadMessage{
		"chain":     func(i int) threadMessage { return message(i, uint64(i+2), uint64(i+1)) },
		"backwards": func(i int) threadMessage { return message(i, uint64(n-i+1), uint64(n-i)) },
		"star":      func(i int) threadMessage { return message(i, uint64(i+2), 1) },
		"small trees under a deep one": func(i int) threadMessage {
			if i < n/2 {
				return message(i, uint64(i+2), uint64(i+1))
			}
			return message(i, uint64(2*i+n), uint64(n/2), uint64(n/2+1), uint64(2*i+n), uint64(2*i+n+1))
		},
		"deep trees joined": func(i int) threadMessage {
			if i%100 == 99 {
				return message(i, uint64(i+2), uint64(n-i), uint64(i+1))
			}
			return message(i, uint64(i+2), uint64(i+1))
		},
		"one subject": func(i int) threadMessage { return message(i, 0) },
	} {
		messages := make([]threadMessage, n)
		for i := range messages {
			messages[i] = make1(i)
		}
		begun := time.Now()
		out := threadByReferences(messages).show()
		if took := time.Since(begun); took > 30*time.Second {
			t.Errorf("%s took %v", name, took)
		}
		if got := strings.Count(out, "("); got == 0 || got != strings.Count(out, ")") {
			t.Errorf("%s: %.100s", name, out)
		}
	}
}

func TestMessageIDs(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want []string // the ids with their brackets
	}{
		{"", nil},
		{"<a@b>", []string{"<a@b>"}},
		{"<a@b> <c@d>\t<e@f>", []string{"<a@b>", "<c@d>", "<e@f>"}},
		{"<a@b><c@d>,<e@f>", []string{"<a@b>", "<c@d>", "<e@f>"}},
		{`<"01KF8JCEOCBS0045PS"@xxx.yyy.com>`, []string{"<01KF8JCEOCBS0045PS@xxx.yyy.com>"}},
		{`<"a b"@c> < a @ b >`, []string{`<"a b"@c>`, "<a@b>"}},
		{`<"a\"<@d> <a@b>`, []string{"<a@b>"}},
		{`<"a\"<"@d> <a@b>`, []string{`<"a\"<"@d>`, "<a@b>"}},
		{"Your message of Monday <a@b>", []string{"<a@b>"}},
		{"a@b <a> <@b> <a@> <> <<a@b> <c@d", []string{"<a@b>"}},
	} {
		var want []uint64
		for _, id := range tt.want {
			want = append(want, messageIDs(id, 1)[0])
		}
		if got := messageIDs(tt.in, 100); !slices.Equal(got, want) {
			t.Errorf("messageIDs(%q) has %d ids, want %q", tt.in, len(got), tt.want)
		}
	}
	many := messageIDs("<1@x> <2@x> <3@x> <4@x> <5@x>", 3)
	if want := messageIDs("<1@x> <4@x> <5@x>", 3); !slices.Equal(many, want) {
		t.Errorf("of too many %x stay, want %x", many, want)
	}
}

func FuzzHeaderKeys(f *testing.F) {
	f.Add([]byte("From: =?utf-8?q?=C3=A4?= <a@b>\r\nTo: g: a@b;\r\nSubject: Re: [x] (fwd)\r\nReferences: <a@b> <\"c\"@d>\r\nMessage-ID: <x@y>\r\nDate: 1 Jan 2020\r\n\r\n"))
	f.Add([]byte("In-Reply-To: <<a@b> \"\r\n"))
	fuzzcorpus.Add(f)
	f.Fuzz(func(t *testing.T, header []byte) {
		k := newHeaderKeys(header)
		if len(k.refs) > maxRefs || k.size() < 0 {
			t.Fatalf("%+v", k)
		}
	})
}
