package graphsim

import (
	"sort"
	"strconv"
	"strings"
)

const messageOptions = "$select $expand"

const listOptions = "$select $expand $filter $orderby $search $top $skip $count $skiptoken"

// maxPage is the largest page of messages; the default is 10. Graph: user-list-messages.
const (
	maxPage     = 1000
	defaultPage = 10
)

// pageSize is the preferred size, else $top, else 10.
func (c *call) pageSize(q *query) int {
	n := defaultPage
	if q.top > 0 {
		n = q.top
	}
	if c.maxPageSize > 0 {
		n = c.maxPageSize
	}
	return min(n, c.sim.opts.LargestPage)
}

// listMessages answers GET .../messages for a folder, or for the mailbox when f is nil.
func (c *call) listMessages(f *folder) (*reply, *apiError) {
	q, err := parseQuery(c.rawQuery, listOptions)
	if err != nil {
		return nil, err
	}
	sel, err := resolveSelect(q.selects)
	if err != nil {
		return nil, err
	}
	if q.filter != nil {
		if err := checkFilter(q.filter); err != nil {
			return nil, err
		}
	}
	list := c.box.all
	if f != nil {
		list = f.messages
	}
	var seq sequence = newestFirst(list)
	switch {
	case q.hasSearch:
		found, err := searchMessages(list, q.search)
		if err != nil {
			return nil, err
		}
		seq = inOrder(found)
	case len(q.order) > 0:
		if seq, err = orderMessages(list, q.order); err != nil {
			return nil, err
		}
	}
	if id := messageIDEquals(q.filter); id != "" && !q.hasSearch {
		seq = inOrder(c.box.byInternetID(id, f))
	}
	size := c.pageSize(q)
	rows := make([]object, 0, min(size, 64))
	pos := q.skip
	for ; pos < seq.len() && len(rows) < size; pos++ {
		m := seq.at(pos)
		if q.filter != nil {
			ok, err := q.filter.eval(m)
			if err != nil {
				return nil, err
			}
			if !ok.isTrue() {
				continue
			}
		}
		rows = append(rows, c.expandRow(c.row(m, sel), m, q.expand))
	}
	o := object{{"@odata.context", c.context("messages", f, q)}}
	if q.count {
		n := seq.len()
		if q.filter != nil {
			if n, err = countMatches(seq, q.filter); err != nil {
				return nil, err
			}
		}
		o = append(o, property{"@odata.count", n})
	}
	o = append(o, property{"value", rows})
	if more, err := c.more(seq, pos, q.filter); err != nil {
		return nil, err
	} else if more {
		// $skip counts the rows gone through, not the rows returned.
		o = append(o, property{"@odata.nextLink", c.base + c.path + "?" + q.link(param{"$skip", strconv.Itoa(pos)})})
	}
	return jsonReply(200, o), nil
}

// more reports whether a row is left. With a filter it looks a bounded way ahead: a last page may come out empty.
func (c *call) more(seq sequence, pos int, filter expr) (bool, *apiError) {
	if filter == nil {
		return pos < seq.len(), nil
	}
	for i := pos; i < seq.len() && i < pos+1000; i++ {
		ok, err := filter.eval(seq.at(i))
		if err != nil || ok.isTrue() {
			return ok.isTrue(), err
		}
	}
	return pos+1000 < seq.len(), nil
}

// countMessages answers .../messages/$count: a bare number.
func (c *call) countMessages(f *folder) (*reply, *apiError) {
	q, err := parseQuery(c.rawQuery, "$filter $search")
	if err != nil {
		return nil, err
	}
	list := c.box.all
	if f != nil {
		list = f.messages
	}
	n := len(list)
	if q.filter != nil {
		if n, err = countMatches(inOrder(list), q.filter); err != nil {
			return nil, err
		}
	}
	return (&reply{status: 200, body: []byte(strconv.Itoa(n))}).set("Content-Type", "text/plain"), nil
}

func countMatches(seq sequence, filter expr) (int, *apiError) {
	n := 0
	for i := 0; i < seq.len(); i++ {
		ok, err := filter.eval(seq.at(i))
		if err != nil {
			return 0, err
		}
		n += boolInt(ok.isTrue())
	}
	return n, nil
}

// checkFilter refuses unknown properties even where the folder is empty.
func checkFilter(e expr) *apiError {
	_, err := e.eval(sampleMessage)
	return err
}

// sampleMessage stands in for any message when a filter is checked.
var sampleMessage = func() *message {
	b := &mailbox{sim: &Sim{}}
	f := &folder{box: b}
	return &message{folder: f, body: &content{from: &address{}}, importance: 1}
}()

// sequence is an ordered list of messages, reached by index.
type sequence interface {
	len() int
	at(i int) *message
}

type newestFirst []*message

func (s newestFirst) len() int          { return len(s) }
func (s newestFirst) at(i int) *message { return s[len(s)-1-i] }

type inOrder []*message

func (s inOrder) len() int          { return len(s) }
func (s inOrder) at(i int) *message { return s[i] }

// orderMessages sorts; by receivedDateTime the lists already are.
func orderMessages(list []*message, keys []orderKey) (sequence, *apiError) {
	if strings.EqualFold(keys[0].prop, "receivedDateTime") {
		if keys[0].desc {
			return newestFirst(list), nil
		}
		return inOrder(list), nil
	}
	for _, k := range keys {
		if _, ok := sampleMessage.property(k.prop); !ok {
			return nil, errQuery("Could not find a property named '%s' on type 'microsoft.graph.message'.", k.prop)
		}
	}
	type row struct {
		m    *message
		keys []value
	}
	rows := make([]row, len(list))
	for i, m := range list {
		r := row{m: m}
		for _, k := range keys {
			v, _ := m.property(k.prop)
			v.text = strings.ToLower(v.text)
			r.keys = append(r.keys, v)
		}
		rows[i] = r
	}
	sort.SliceStable(rows, func(i, j int) bool {
		for n, k := range keys {
			a, b := rows[i].keys[n], rows[j].keys[n]
			if k.desc {
				a, b = b, a
			}
			if a.num != b.num {
				return a.num < b.num
			}
			if a.text != b.text {
				return a.text < b.text
			}
		}
		return false
	})
	out := make(inOrder, len(rows))
	for i, r := range rows {
		out[i] = r.m
	}
	return out, nil
}

// messageIDEquals finds "internetMessageId eq 'x'" where it must hold, so that an index can be used.
func messageIDEquals(e expr) string {
	switch e := e.(type) {
	case logical:
		if e.or {
			return ""
		}
		if id := messageIDEquals(e.a); id != "" {
			return id
		}
		return messageIDEquals(e.b)
	case comparison:
		p, ok := e.left.(propExpr)
		l, ok2 := e.right.(literal)
		if ok && ok2 && e.op == "eq" && strings.EqualFold(string(p), "internetMessageId") {
			return l.text
		}
	}
	return ""
}

// byInternetID gives the messages of a Message-ID, newest first.
func (b *mailbox) byInternetID(id string, f *folder) []*message {
	var out []*message
	keep := func(m *message) {
		if m != nil && (f == nil && !m.folder.dumpster() || m.folder == f) {
			out = append(out, m)
		}
	}
	for _, m := range b.byMsgID[id] {
		keep(m)
	}
	for _, y := range b.synths {
		if y.spec.MIME == nil {
			keep(y.find(id))
			continue
		}
		for _, m := range y.byNum {
			if m.synth == y && b.messages[m.num] == m && m.content().messageID == id {
				keep(m)
			}
		}
	}
	sort.Slice(out, func(i, j int) bool { return older(out[j], out[i]) })
	return out
}

// getMessage answers GET .../messages/{m}.
func (c *call) getMessage(m *message) (*reply, *apiError) {
	q, err := parseQuery(c.rawQuery, messageOptions)
	if err != nil {
		return nil, err
	}
	sel, err := resolveSelect(q.selects)
	if err != nil {
		return nil, err
	}
	return c.messageReply(200, m, sel, q.expand), nil
}

// messageReply shows one message.
func (c *call) messageReply(status int, m *message, sel *selection, expand []expansion) *reply {
	row := c.expandRow(c.row(m, sel), m, expand)
	o := append(object{{"@odata.context", c.base + "/v1.0/$metadata#users('" + c.user + "')/messages/$entity"}}, row...)
	p := jsonReply(status, o)
	p.set("ETag", `W/"`+m.changeKey()+`"`)
	if status == 201 {
		p.set("Location", c.base+"/v1.0/users/"+c.user+"/messages/"+m.id(c.immutable))
	}
	return p
}

// messageValue answers GET .../messages/{m}/$value.
func (c *call) messageValue(m *message) *reply {
	return (&reply{status: 200, body: c.sim.renderMIME(m)}).set("Content-Type", "text/plain")
}

// context is the @odata.context of a list.
func (c *call) context(kind string, f *folder, q *query) string {
	s := c.base + "/v1.0/$metadata#users('" + c.user + "')/"
	if f != nil {
		s += "mailFolders('" + f.id() + "')/"
	}
	s += kind
	if q != nil && len(q.selects) > 0 {
		s += "(" + strings.Join(q.selects, ",") + ")"
	}
	return s
}
