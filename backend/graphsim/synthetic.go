package graphsim

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Synthetic describes messages that are made when looked at, so that a hundred thousand of them cost little.
type Synthetic struct {
	// Seed makes the content; the same seed gives the same messages, Message-IDs included.
	Seed uint64
	// MIME, if set, gives the i-th message instead; it must always give the same bytes for the same i.
	MIME func(i int) []byte
	// Newest is when the last message was received; default an hour before now. Step is the time between two; default a minute.
	Newest time.Time
	Step   time.Duration
	// UnreadEvery makes every n-th message unread, FlaggedEvery flagged; 0 means 10 and 50, negative none.
	UnreadEvery, FlaggedEvery int
}

// synthetic is a set of such messages.
type synthetic struct {
	spec  Synthetic
	box   *mailbox
	first int64
	step  int64
	byNum []*message
	cache [4]struct {
		i int
		c *content
	}
	turn int
}

var synthWords = strings.Fields(`budget meeting invoice printer schedule review contract delivery status release report
holiday parking question update backup server network order draft summary minutes visit training agenda project customer`)

var synthPeople = []address{
	{"Adele Vance", "adele.vance@fabrikam.example"}, {"Jürgen Groß", "juergen.gross@fabrikam.example"},
	{"Miriam Graham", "miriam@northwind.example"}, {"", "scanner-3@devices.example"},
	{"Lee Gu", "lee.gu@contoso.example"}, {"Ops, Night Shift", "ops@northwind.example"},
	{"Łukasz Żak", "lukasz@fabrikam.example"}, {"Monitoring", "no-reply@monitor.example"},
}

// mix is splitmix64: enough randomness for content, and the i-th value without those before it.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func (y *synthetic) received(i int) int64 { return y.first + int64(i)*y.step }

func (y *synthetic) messageID(i int) string {
	return "<synthetic." + strconv.FormatUint(y.spec.Seed, 16) + "." + strconv.Itoa(i) + "@mail.example>"
}

// find returns the message of that Message-ID without making any content.
func (y *synthetic) find(id string) *message {
	if y.spec.MIME != nil {
		return nil
	}
	rest, ok := strings.CutPrefix(id, "<synthetic."+strconv.FormatUint(y.spec.Seed, 16)+".")
	if !ok {
		return nil
	}
	num, ok := strings.CutSuffix(rest, "@mail.example>")
	i, err := strconv.Atoi(num)
	if !ok || err != nil || i < 0 || i >= len(y.byNum) {
		return nil
	}
	m := y.byNum[i]
	if m.synth != y || y.box.messages[m.num] != m {
		return nil
	}
	return m
}

// content makes the i-th message. Callers must not change it.
func (y *synthetic) content(i int) *content {
	if y.spec.MIME != nil {
		for _, e := range y.cache {
			if e.c != nil && e.i == i {
				return e.c
			}
		}
		c, _, _ := contentFromMIME(y.spec.MIME(i), y.received(i))
		c.transport = headerText(c.root)
		if c.messageID == "" {
			c.messageID = y.messageID(i)
		}
		y.cache[y.turn].i, y.cache[y.turn].c = i, c
		y.turn = (y.turn + 1) % len(y.cache)
		return c
	}
	rnd := mix(y.spec.Seed<<32 ^ uint64(i))
	next := func(n int) int {
		rnd = mix(rnd)
		return int(rnd % uint64(n))
	}
	word := func() string { return synthWords[next(len(synthWords))] }
	from := synthPeople[next(len(synthPeople))]
	c := &content{from: &from, messageID: y.messageID(i)}
	c.sender = c.from
	c.subject = word() + " " + word() + " " + strconv.Itoa(i)
	if i > 0 && next(4) == 0 {
		parent := y.messageID(next(i))
		c.subject, c.inReplyTo, c.references = "Re: "+c.subject, parent, parent
	}
	c.to = []address{{y.box.user.DisplayName, y.box.user.UPN}}
	for k := next(3); k > 0; k-- {
		c.cc = append(c.cc, synthPeople[next(len(synthPeople))])
	}
	var text strings.Builder
	for k := 2 + next(12); k > 0; k-- {
		for j := 4 + next(8); j > 0; j-- {
			text.WriteString(word())
			text.WriteByte(' ')
		}
		text.WriteString(word() + ".\r\n")
	}
	c.text = text.String()
	if i%3 == 1 {
		c.plain, c.html = c.text, true
		c.text = textToHTML(c.plain)
	}
	if i%20 == 7 {
		data := make([]byte, 1500+next(3000))
		for k := range data {
			data[k] = byte(rnd >> (k % 56))
			if k%8 == 0 {
				rnd = mix(rnd)
			}
		}
		c.attach(&attachment{name: word() + ".pdf", contentType: "application/pdf", data: data, modified: y.received(i)})
	}
	date := time.Unix(y.received(i)-30, 0).UTC().Format("Mon, 2 Jan 2006 15:04:05 -0700")
	c.headers = []field{
		{"Received", "from mx.mail.example (203.0.113.9) by " + y.box.domain() + " with SMTP id " + strconv.FormatUint(uint64(next(1<<30)), 36) + "; " + date},
		{"From", formatAddresses([]address{*c.from})}, {"To", formatAddresses(c.to)},
	}
	if len(c.cc) > 0 {
		c.headers = append(c.headers, field{"CC", formatAddresses(c.cc)})
	}
	c.headers = append(c.headers, field{"Subject", encodeWords(c.subject)}, field{"Date", date}, field{"Message-ID", c.messageID})
	if c.inReplyTo != "" {
		c.headers = append(c.headers, field{"References", c.references}, field{"In-Reply-To", c.inReplyTo})
	}
	c.headers = append(c.headers, field{"X-Mailer", "Synthetic 1.0"}, field{"MIME-Version", "1.0"})
	var head strings.Builder
	for _, f := range c.headers {
		head.WriteString(f.name + ": " + f.value + "\r\n")
	}
	c.transport = head.String()
	return c
}

// headerText is the header of a message as text, with CRLF.
func headerText(p *part) string {
	n := len(p.raw) - len(p.body)
	return strings.TrimRight(string(p.raw[:n]), "\r\n") + "\r\n"
}

// AddSynthetic puts n messages into a folder that are made when looked at: about 300 bytes each.
// It panics when the user or the folder does not exist.
func (s *Sim) AddSynthetic(user, folder string, n int, spec Synthetic) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.addSyntheticLocked(user, folder, n, spec); err != nil {
		panic(err)
	}
}

func (s *Sim) addSyntheticLocked(user, name string, n int, spec Synthetic) error {
	f, err := s.seedFolder(user, name)
	if err != nil {
		return fmt.Errorf("add synthetic messages: %w", err)
	}
	if spec.Newest.IsZero() {
		spec.Newest = s.now().Add(-time.Hour)
	}
	if spec.Step < time.Second {
		spec.Step = time.Minute
	}
	if spec.UnreadEvery == 0 {
		spec.UnreadEvery = 10
	}
	if spec.FlaggedEvery == 0 {
		spec.FlaggedEvery = 50
	}
	b := f.box
	y := &synthetic{spec: spec, box: b, step: int64(spec.Step / time.Second)}
	y.first = spec.Newest.Unix() - int64(n-1)*y.step
	b.synths = append(b.synths, y)
	slab := make([]message, n)
	y.byNum = make([]*message, n)
	tail := len(f.messages) == 0
	allTail := len(b.all) == 0
	now := s.now().Unix()
	for i := range slab {
		m := &slab[i]
		b.nextNum++
		b.nextArt++
		m.num, m.folder, m.location, m.article = b.nextNum, f, b.nextArt, b.nextArt
		m.synth, m.index = y, uint32(i)
		m.received, m.sent = y.received(i), y.received(i)-30
		m.created, m.modified, m.importance = m.received, min(now, m.received), 1
		if spec.UnreadEvery < 0 || (i+1)%spec.UnreadEvery != 0 {
			m.bits |= bitRead
		} else {
			f.unread++
		}
		if spec.FlaggedEvery > 0 && (i+1)%spec.FlaggedEvery == 0 {
			m.flag = 1
		}
		y.byNum[i] = m
		b.messages[m.num] = m
		if tail {
			f.messages = append(f.messages, m)
		} else {
			f.messages = insertAt(f.messages, m)
		}
		if allTail {
			b.all = append(b.all, m)
		} else {
			b.all = insertAt(b.all, m)
		}
		f.log = append(f.log, change{num: m.num, kind: changeCreated})
	}
	f.countedLocked()
	return nil
}
